"""Collect the conformance tests that a target gets, without a file in the author's repository."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlhooks.errors import MlhooksError
from mlhooks.mlagents_plugins import StatsWriters
from mlhooks.mlagents_wheel.entry_points import OwnTypes, TrainerTypes
from mlhooks.places import is_others
from mlhooks.testing.assertions import fail
from mlhooks.testing.documentation_links import link
from mlhooks.testing.target import WRITER_HOOKS, Target, resolve

OF_TRAINERS = (
    *("trainers", "robustness", "answering", "acting", "updating"),
    *("policy_gradients", "clipping", "array_arithmetic", "transitions", "learning", "memory", "groups", "self_play"),
)
OF_WRITERS = ("stats_writers", "writer_runs")
OF_EXPORTERS = ("exporters",)
OF_SIGNALS = ("reward_signals",)
OF_ENVIRONMENTS = ("environments", "episodes")
OF_MLAGENTS = ("mlagents_trainers",)
CHECKS = ("every_plugin", *OF_WRITERS, *OF_EXPORTERS, *OF_SIGNALS, *OF_TRAINERS, *OF_ENVIRONMENTS, *OF_MLAGENTS)
"""The modules of `mlhooks.testing.checks`, in the order in which they run."""
KINDS = {
    "every plugin": ("every_plugin",),
    "statistics writers": OF_WRITERS,
    "exporters": OF_EXPORTERS,
    "reward signals": OF_SIGNALS,
    "trainers": OF_TRAINERS,
    "environments": OF_ENVIRONMENTS,
    "trainers of ML-Agents": OF_MLAGENTS,
}
"""What a target is tried as, with the modules of checks."""
COSTS: pytest.StashKey[list[str]] = pytest.StashKey()
ENVIRONMENT: pytest.StashKey[dict[str, str]] = pytest.StashKey()


class CheckModule(pytest.Module):
    """One module of checks, applied to one target."""

    target: Target
    checks: str

    def _getobj(self) -> ModuleType:
        return check_module(self.checks)

    def funcnamefilter(self, name: str) -> bool:
        """Return whether it is a check, whatever the author's configuration calls a test."""
        return name.startswith("test_")


def check_module(checks: str) -> ModuleType:
    """Return the module of some checks."""
    return importlib.import_module(f"mlhooks.testing.checks.{checks}")


def names_of_tests() -> set[str]:
    """Return the names of all conformance tests."""
    return {name for checks in CHECKS for name in vars(check_module(checks)) if name.startswith("test_")}


def exemptions(owner: object) -> Mapping[str, str]:
    """Return the tests that a plugin or trainer class switches off, with reasons; none where it says them wrongly."""
    exempt = getattr(owner, "conformance_exempt", {})
    return exempt if isinstance(exempt, Mapping) else {}


def applicable(target: Target) -> list[str]:
    """Return the modules of checks that a target gets, by the hooks that it implements."""
    try:
        target.plugin  # noqa: B018 - This imports it.
    except Exception:
        return ["every_plugin"]  # Its first check says what is wrong.
    from mlhooks.testing.trainer_types import altered_by  # This imports torch, as the checks of a target do.

    if isinstance(target.plugin, (TrainerTypes, OwnTypes)):
        return [*OF_MLAGENTS]  # Such code keeps ML-Agents' contract, not that of mlhooks.
    kinds = {"every_plugin"}
    if isinstance(target.plugin, StatsWriters):
        return [*OF_WRITERS]
    if target.implements("get_trainer_types") or altered_by(target):
        kinds |= set(OF_TRAINERS)
    if target.implements("get_env_types"):
        kinds |= set(OF_ENVIRONMENTS)
    if target.implements("export_model"):
        kinds |= set(OF_EXPORTERS)
    if target.implements("get_reward_signals"):
        kinds |= set(OF_SIGNALS)
    if target.implements(*WRITER_HOOKS) or (target.implements("configure") and kinds == {"every_plugin"}):
        kinds |= set(OF_WRITERS)  # An object that `configure` registers may be one; the checks find out.
    return [checks for checks in CHECKS if checks in kinds]


class Collection:
    """Adds the conformance tests to what pytest collects, and their costs to what it reports."""

    def __init__(self, config: pytest.Config) -> None:
        config.stash[COSTS] = []
        config.stash[ENVIRONMENT] = dict(os.environ)  # A target is imported later.
        self.report: str = config.getoption("--mlhooks-report")
        # These are the first tests with an error of a target.
        self.told: dict[tuple[str, type[BaseException], str], str] = {}
        # These are the target and what it is tried as, by the id of a test.
        self.kinds: dict[str, tuple[str, str]] = {}
        try:
            texts: list[str] = config.getoption("--mlhooks-plugin")
            self.targets = [target for text in texts for target in resolve(text)]
            self.tried: dict[str, dict[str, None]] = {target.name: {} for target in self.targets}
        except MlhooksError as error:
            raise pytest.UsageError(f"--mlhooks-plugin {error}") from error

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the tests, before `-k` and the like choose among all."""
        for target in self.targets:
            for checks in applicable(target):
                file = check_module(checks).__file__
                assert file is not None
                name = f"mlhooks/{target.name}/{checks}"
                module = CheckModule.from_parent(session, path=session.path / name, name=name, nodeid=name)
                module.target, module.checks = target, checks
                for item in session.genitems(module):
                    item.location = (name, item.location[1], item.location[2])
                    self.kinds[item.nodeid] = target.name, _kind(checks, item)
                    items.append(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """End a failure with the place in the documentation that says what to change."""
        report = yield
        module = item.getparent(CheckModule)
        if module is None or not report.failed or call.excinfo is None:
            return report
        error = call.excinfo.value
        told = self.told.setdefault((module.target.name, type(error), str(error)), item.name)
        if told != item.name and not isinstance(error, pytest.fail.Exception):
            report.longrepr = _sentences(f"The same error as in {told}: {type(error).__name__}: {error}")
        elif isinstance(error, MlhooksError):  # It says what and where, for its author.
            report.longrepr = _sentences("\n".join([str(error), *getattr(error, "__notes__", [])]))
        elif not isinstance(error, pytest.fail.Exception) and item.config.option.tbstyle == "short":
            report.longrepr = call.excinfo.getrepr(style="short", tbfilter=_from_the_plugin_on)
        add_section = getattr(report.longrepr, "addsection", None)
        if add_section is not None:
            add_section("what to change", f"{item.name.partition('[')[0]}: {link(module.checks)}")
        return report

    def pytest_report_header(self) -> list[str]:
        """Say what is checked."""
        return [f"mlhooks conformance of {target.candidate.origin}" for target in self.targets]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what was tried, rather than skipped."""
        if report.when == "call" and not report.skipped and report.nodeid in self.kinds:
            name, kind = self.kinds[report.nodeid]
            self.tried[name][kind] = None

    def pytest_sessionfinish(self) -> None:
        """Write down, where asked to, as what each target was tried."""
        if self.report:
            tried = {name: list(kinds) for name, kinds in self.tried.items()}
            Path(self.report).write_text(json.dumps(tried), encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Report costs, which are no reason to fail."""
        costs = terminalreporter.config.stash[COSTS]
        if costs:
            terminalreporter.section("cost of the plugin")
            for line in costs:
                terminalreporter.write_line(line)


def _kind(checks: str, item: pytest.Item) -> str:
    """Return what a check tries its target as, such as `trainers (klpo)`."""
    (kind,) = [kind for kind, modules in KINDS.items() if checks in modules]
    callspec: Any = getattr(item, "callspec", None)
    params = {} if callspec is None else callspec.params
    which = params.get("trainer_type") or params.get("environment") or params.get("reward_signal")
    return f"{kind} ({which})" if which else kind


def _from_the_plugin_on(error: pytest.ExceptionInfo[BaseException]) -> Any:
    """Return the traceback without the way through mlhooks to the plugin; all of it where it never came there."""
    theirs = [is_others(str(entry.frame.f_globals.get("__name__", ""))) for entry in error.traceback]
    return error.traceback[theirs.index(True) :] if True in theirs else error.traceback


def _sentences(text: str) -> Any:
    """Return what pytest shows of an error in place of its traceback."""
    try:
        fail(text)
    except pytest.fail.Exception:
        return pytest.ExceptionInfo.from_current().getrepr(style="value")
