from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import pytest

from mlhooks import hookspecs, plugin_sources
from mlhooks.cli import main

PLUGIN = """
    from mlhooks import hookimpl

    @hookimpl
    def run_started(run): ...

    @hookimpl
    def write_stats(values): ...
"""
COMMAND = """
    import click
    from mlhooks import hookimpl

    @hookimpl
    def register_commands(cli):
        @cli.command()
        def greet():
            "Say hello."
            click.echo("hello")
"""


@pytest.fixture(autouse=True)
def _no_builtins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_sources, "BUILTIN_PLUGINS", ())
    monkeypatch.delenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    monkeypatch.delenv("MLHOOKS_DEBUG", raising=False)


def test_table_shows_every_plugin(install, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    install("mlhooks-grid", {"grid": "grid_plugin", "other": "other_plugin"}, grid_plugin=PLUGIN)
    assert main(["plugins", "-p", "no:other"]) == 0
    out = capsys.readouterr().out
    for word in ("grid", "mlhooks-grid 1.2", "run_started, write_stats", "blocked", "called first"):
        assert word in out


def test_json_is_one_object_per_plugin(install, capsys, tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "mine.py").write_text("from mlhooks import hookimpl\n@hookimpl\ndef run_started(run): ...\n")
    install("mlhooks-grid", {"grid": "grid_plugin", "other": "other_plugin"}, grid_plugin=PLUGIN)
    assert main(["plugins", "--json", "-p", "no:other", "--plugins-dir", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "name": "grid",
            "distribution": "mlhooks-grid",
            "version": "1.2",
            "hooks": ["run_started", "write_stats"],
            "order": 1,
            "blocked": False,
            "source": "entry point grid = grid_plugin",
        },
        {
            "name": "mine",
            "distribution": "",
            "version": "",
            "hooks": ["run_started"],
            "order": 2,
            "blocked": False,
            "source": f"file {folder / 'mine.py'}",
        },
        {
            "name": "other",
            "distribution": "mlhooks-grid",
            "version": "1.2",
            "hooks": [],
            "order": 0,
            "blocked": True,
            "source": "entry point other = other_plugin",
        },
    ]


def test_names_are_listed_without_importing_the_plugins(install, capsys):
    install("mlhooks-grid", {"grid": "grid_plugin", "other": "x"}, grid_plugin="raise RuntimeError")
    assert main(["plugins", "--names", "-p", "no:other"]) == 0
    assert capsys.readouterr().out == "grid\n"
    assert "grid_plugin" not in sys.modules


def test_broken_plugin_is_an_error_that_says_how_to_go_on(install, capsys):
    install("mlhooks-grid", {"grid": "grid_plugin"}, grid_plugin="raise RuntimeError('boom')")
    assert main(["plugins"]) == 1
    err = capsys.readouterr().err
    assert "Error: plugin 'grid' (mlhooks-grid 1.2)" in err
    assert "-p no:grid" in err


def test_hooks_prints_the_whole_contract(capsys):
    assert main(["plugins", "hooks"]) == 0
    out = capsys.readouterr().out
    for name, spec in inspect.getmembers(hookspecs, lambda member: hasattr(member, "mlhooks_spec")):
        assert f"\n{name}(" in out
        assert (inspect.getdoc(spec) or "").splitlines()[0] in out
    assert "create_policy(trainer, behavior_spec)  [firstresult]" in out


def test_plugins_command_is_listed_and_usable(install, capsys):
    install("mlhooks-hello", {"hello": "hello_plugin"}, hello_plugin=COMMAND)
    assert main(["--help"]) == 0
    assert "Say hello." in capsys.readouterr().out
    assert main(["greet"]) == 0
    assert capsys.readouterr().out == "hello\n"


def test_blocked_plugin_has_no_command_and_is_not_imported(install, capsys):
    install("mlhooks-hello", {"hello": "hello_plugin"}, hello_plugin=COMMAND)
    assert main(["greet", "-p", "no:hello"]) == 2
    assert main(["greet", "-pno:hello"]) == 2
    assert "hello_plugin" not in sys.modules


def test_autoload_off_leaves_commands_out(install, monkeypatch):
    install("mlhooks-hello", {"hello": "hello_plugin"}, hello_plugin=COMMAND)
    monkeypatch.setenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert main(["greet"]) == 2


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("raise RuntimeError('boom')", "boom"),
        ("from mlhooks import hookimpl\n@hookimpl\ndef register_commands(cli):\n    raise OSError('boom')", "boom"),
        (COMMAND.replace("greet", "run"), "there is a command 'run' already"),
        (COMMAND.replace("greet", "plugins"), "there is a command 'plugins' already"),
    ],
)
def test_broken_plugin_costs_a_warning_and_not_the_help(install, capsys, source, complaint):
    install("broken-hello", {"broken": "broken_plugin"}, broken_plugin=source)
    install("mlhooks-hello", {"hello": "hello_plugin"}, hello_plugin=COMMAND)
    assert main(["--help"]) == 0
    captured = capsys.readouterr()
    assert "Say hello." in captured.out
    (line,) = captured.err.splitlines()
    assert line.startswith("Warning: plugin 'broken' (broken-hello 1.2)")
    assert complaint in line


def test_two_plugins_with_one_command_keep_the_first_and_name_the_second(install, capsys):
    install("a-hello", {"a": "a_plugin"}, a_plugin=COMMAND)
    install("b-hello", {"b": "b_plugin"}, b_plugin=COMMAND.replace('"hello"', '"other"'))
    assert main(["greet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "hello\n"
    assert "'b' (b-hello 1.2)" in captured.err


def test_plugin_may_add_an_option_to_run_that_lasts_for_one_command_line(install, capsys, monkeypatch):
    install(
        "mlhooks-option",
        {"option": "option_plugin"},
        option_plugin="""
            import click
            from mlhooks import hookimpl

            @hookimpl
            def register_commands(cli):
                option = click.Option(["--greeting"], expose_value=False, callback=lambda c, p, v: click.echo(v))
                cli.get_command(None, "run").params.append(option)
        """,
    )
    main(["run", "--greeting", "hello", "--help"])
    assert "--greeting" in capsys.readouterr().out
    assert main(["run", "--greeting", "hello", "nowhere.yaml"]) == 2
    assert "hello\n" in capsys.readouterr().out
    monkeypatch.setenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", "1")
    main(["run", "--help"])
    assert "--greeting" not in capsys.readouterr().out


EVIL = "import pathlib\npathlib.Path(__file__).with_name('executed').touch()\nfrom mlhooks import hookimpl\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["plugins", "-p", "{file}"],
        ["plugins", "--plugins-dir", "{folder}"],
        ["plugins", "--json", "-p", "{link}"],
        ["plugins", "check", "{file}"],
        ["plugins", "check", "{folder}"],
        ["plugins", "check", "{project}"],
        ["plugins", "check", "{link}"],
        ["doctor", "-p", "{file}"],
        ["doctor", "--plugins-dir", "{folder}", "--env", "sim:Basic"],
    ],
    ids=" ".join,
)
def test_code_in_the_folder_of_a_run_is_not_imported(
    tmp_path: Path, arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results" / "x"
    project, link = folder / "project", tmp_path / "link.py"
    project.mkdir(parents=True)
    (folder / ".mlhooks-lock").touch()
    for file in (folder / "evil.py", project / "evil.py"):
        file.write_text(EVIL)
    (project / "pyproject.toml").write_text(
        "[project]\nname = 'evil'\nversion = '1'\n[project.entry-points.mlhooks]\nevil = 'evil'\n"
    )
    if "{link}" in arguments:
        if sys.platform == "win32":
            pytest.skip("links want a privilege on Windows")
        link.symlink_to(folder / "evil.py")
    places = {"file": folder / "evil.py", "folder": folder, "project": project, "link": link}
    assert main([text.format(**places) for text in arguments]) == (1 if arguments[0] == "doctor" else 2)
    assert "the folder of a run" in " ".join("".join(capfd.readouterr()).split())
    assert not [*tmp_path.rglob("executed")]
