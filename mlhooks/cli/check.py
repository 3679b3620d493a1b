"""`mlhooks plugins check`: the conformance tests of a plugin, run by pytest away from any other tests."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import click

from mlhooks.cli import completing
from mlhooks.cli.options import Command
from mlhooks.errors import UsageError

PLUGIN = "mlhooks.testing.plugin"
EXIT_CODES = {0: 0, 4: 2, 5: 2}
"""Ours for pytest's: passed, bad usage, no tests; all others, such as an error in collecting the tests, are 1."""


def _check(
    targets: tuple[str, ...], environments: tuple[str, ...], keyword: str | None, first: bool, verbose: bool
) -> int:
    if importlib.util.find_spec("pytest") is None:
        raise UsageError(
            "The conformance tests run on pytest, which is not installed. Install it: pip install 'mlhooks[testing]'."
        )
    options, paths = ["--tb=short", "-p", "no:cacheprovider"], []
    for text in targets:
        found, needed = _absolute(text)
        options += ["--mlhooks-plugin", found]
        paths += needed
    options += [option for name in environments for option in ("--mlhooks-env", name)]
    options += [*(["-k", keyword] if keyword else []), *(["-x"] if first else []), *(["-v", "-rs"] if verbose else [])]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "tried.json")
        options += ["--mlhooks-report", str(report)]
        Path(folder, "pytest.ini").write_text("[pytest]\n")  # Without it, pytest would find one further up.
        code = subprocess.call(
            [sys.executable, "-m", "pytest", "-p", _pytest_plugin(), "-c", "pytest.ini", *options, folder],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])},
        )
        tried = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    if code == 5:
        raise UsageError(f"No conformance test was run: -k {keyword} chooses none.")
    if code == 0:
        for name, kinds in tried.items():
            click.echo(_verdict(name, kinds, keyword))
    elif EXIT_CODES.get(code, 1) == 1:
        from mlhooks.testing.documentation_links import page

        click.echo(
            f"{', '.join(tried or targets)} did not pass the conformance tests. A test that does not suit what it does "
            f"on purpose can be switched off: {page()}#what-is-another-way-on-purpose",
            err=True,
        )
    return EXIT_CODES.get(code, 1)


def _verdict(name: str, kinds: list[str], keyword: str | None) -> str:
    """Say which tests a plugin passed: no more than were tried."""
    if not kinds:
        return f"{name} was not tried: every test that -k {keyword} chooses was skipped; -v says why."
    passed = f"{name} passed the conformance tests of: {', '.join(kinds)}"
    if keyword:
        return f"{passed}; only those that -k {keyword} chooses were run."
    if kinds == ["every plugin"]:
        return (
            f"{passed}. It offers no trainer type, reward signal, statistics writer, exporter or environment, so only "
            "what every plugin must do was tried."
        )
    return f"{passed}."


def _absolute(text: str) -> tuple[str, list[str]]:
    """Return a target as it is called from another folder, and the folders that must be on the import path for it.

    Raises:
        UsageError: there is no such target.
    """
    from mlhooks.testing.target import resolve
    from mlhooks.training.untrusted import refuse_target_in_run

    found = resolve(text)
    for target in found:
        refuse_target_in_run(text, target.candidate, target.paths)
    if Path(text).exists() and (found[0].importing[0] == "file" or found[0].paths):
        return str(Path(text).resolve()), []
    return text, [path for target in found for path in target.paths]


def _pytest_plugin() -> str:
    """Return what `-p` loads the pytest plugin once by: its entry point, where mlhooks is installed with it."""
    return "mlhooks" if any(point.value == PLUGIN for point in entry_points(group="pytest11")) else PLUGIN


def _run(**arguments: object) -> None:
    code = _check(**arguments)  # type: ignore[arg-type]
    click.get_current_context().exit(code)


check = Command(
    "check",
    callback=_run,
    params=[
        click.Argument(["targets"], nargs=-1, required=True, metavar="TARGET...", shell_complete=completing.plugins),
        click.Option(
            ["--env", "environments"],
            multiple=True,
            metavar="SCHEME:NAME",
            shell_complete=completing.environments,
            help="An environment with which to try the environment kinds of the plugin. May be given many times.",
        ),
        click.Option(["-k", "keyword"], metavar="EXPRESSION", help="Run only the tests that it fits."),
        click.Option(["-x", "--first", "first"], is_flag=True, help="Stop at the first test that fails."),
        click.Option(["-v", "--verbose", "verbose"], is_flag=True, help="Name every test, and why one is skipped."),
    ],
    help=(
        "Run the conformance tests on a plugin: TARGET is an installed plugin's name, a module, a .py file or a "
        "folder. The exit code is 0 when all pass, 1 when one fails, and 2 when there is no such target or test."
    ),
)
