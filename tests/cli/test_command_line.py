from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest

from mlhooks import __version__
from mlhooks.cli import group, main
from mlhooks.errors import CheckpointError, SettingsError, UnsupportedError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("MLHOOKS_DEBUG", "MLHOOKS_DISABLE_PLUGIN_AUTOLOAD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def command(monkeypatch):
    """Have `mlhooks config ...` call this function instead."""

    def make(function):
        module = type(sys)("mlhooks.cli.config")
        module.config = click.Command(
            "config", callback=function, params=[click.Option(["--debug"], is_flag=True, expose_value=False)]
        )
        monkeypatch.setitem(sys.modules, "mlhooks.cli.config", module)

    return make


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, lazy in group.COMMANDS.items():
        assert name in out
        assert lazy.help in out


def test_no_arguments_show_help(capsys):
    main([])
    captured = capsys.readouterr()
    assert "Commands:" in captured.out + captured.err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mlhooks {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["plugins", "--names"], ["run", "--help"]])
def test_quick_commands_import_nothing_heavy(arguments):
    script = (
        f"import sys; from mlhooks.cli import main; code = main({arguments!r});"
        "heavy = {'torch', 'pydantic', 'numpy', 'rich', 'builtin_plugins'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_module_runs_as_the_command_does():
    done = subprocess.run([sys.executable, "-m", "mlhooks", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mlhooks {__version__}\n"


def test_unknown_command_is_bad_usage_with_the_nearest_name(capsys):
    assert main(["rnu"]) == 2
    assert "There is no command 'rnu'; did you mean run?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["resume"], "Got unexpected extra argument (resume); did you mean --resume?\n"),
        (
            ["resume", "no-graphic"],
            "Got unexpected extra arguments (resume no-graphic); did you mean --resume --no-graph",
        ),
        (["other.yaml"], "Got unexpected extra argument (other.yaml)\n"),
    ],
)
def test_word_too_many_is_bad_usage_with_the_flag_that_was_meant(capsys, words, told):
    assert main(["run", "3dball_ppo", *words]) == 2
    assert told in capsys.readouterr().err


def test_unknown_option_is_bad_usage(capsys):
    assert main(["run", "--no-such-flag"]) == 2
    assert "--no-such-flag" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(CheckpointError("it is damaged"), 1), (SettingsError("a key is wrong"), 2), (UnsupportedError("not yet"), 2)],
)
def test_expected_error_is_a_message_and_an_exit_code(command, capsys, error, code):
    @command
    def fail():
        raise error

    assert main(["config"]) == code
    assert capsys.readouterr().err == f"Error: {error}\n"


def test_notes_of_an_error_are_printed(command, capsys):
    @command
    def fail():
        error = UnsupportedError("not yet")
        error.add_note("Raised by plugin 'x'.")
        raise error

    assert main(["config"]) == 2
    assert capsys.readouterr().err == "Error: not yet\nRaised by plugin 'x'.\n"


def test_unexpected_error_is_short_and_says_how_to_see_more(command, capsys):
    @command
    def fail():
        raise ZeroDivisionError("division by zero")

    assert main(["config"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in err
    assert "--debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["--debug", "config"], ["config", "--debug"]])
@pytest.mark.parametrize("error", [CheckpointError("it is damaged"), ZeroDivisionError("division by zero")])
def test_debug_shows_the_traceback(command, capsys, arguments, error):
    @command
    def fail():
        raise error

    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert str(error) in err.splitlines()[-1]


def test_debug_by_environment_variable(command, capsys, monkeypatch):
    @command
    def fail():
        raise CheckpointError("it is damaged")

    monkeypatch.setenv("MLHOOKS_DEBUG", "1")
    main(["config"])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupt_exits_with_130(command, capsys, error):
    @command
    def stop():
        raise error

    assert main(["config"]) == 130
    assert "Interrupted." in capsys.readouterr().err


def test_exit_code_of_a_command_counts_and_its_return_value_does_not(command):
    @command
    def returns():
        return 7

    assert main(["config"]) == 0

    @command
    def exits():
        click.get_current_context().exit(7)

    assert main(["config"]) == 7


def test_closed_pipe_is_quiet():
    script = (
        "import sys; from mlhooks.cli import main; sys.argv = ['mlhooks', 'plugins', 'hooks'];"
        "sys.stdin.readline(); sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"go\n")
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_progress_goes_to_stdout_and_warnings_to_stderr_while_a_command_runs(command, capsys):
    @command
    def talk():
        logging.getLogger("mlhooks").info("all is well")
        logging.getLogger("mlhooks").warning("careful")
        logging.getLogger("mlhooks").debug("detail")

    handlers = list(logging.getLogger("mlhooks").handlers)
    assert main(["config"]) == 0
    assert capsys.readouterr() == ("all is well\n", "Warning: careful\n")
    assert logging.getLogger("mlhooks").handlers == handlers
