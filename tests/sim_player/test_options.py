"""What the command line of the stand-in makes of its arguments."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlhooks.cli import main as mlhooks
from mlhooks.errors import UsageError
from mlhooks.sim_player.command import main
from mlhooks.sim_player.options import DEFAULT, TRAITS, log_path, parse, port_of, scripted_behaviors

UNITY = ["-nographics", "-batchmode", "--mlagents-port", "5005", "-logFile", "/tmp/Player-0.log"]


def test_unity_s_arguments_are_understood_or_left_alone():
    options, others = parse(["3DBall", *UNITY, "-force-glcore", "--game-option", "7"])
    assert port_of(options) == 5005
    assert options.log_file == "/tmp/Player-0.log"
    assert others == ["-nographics", "-batchmode", "-force-glcore", "--game-option", "7"]


@pytest.mark.parametrize(
    ("arguments", "port"),
    [
        ([], None),
        (["--mlagents-port"], None),
        (["--mlagents-port", "five"], None),
        (["--mlagents-port", "1", "--mlagents-port", "2"], 2),
        (["--mlagents-port", "1", "--mlagents-port", "five"], None),
        (["--mlagents-po", "1"], None),
    ],
)
def test_last_port_counts(arguments, port):
    assert port_of(parse(["Basic", *arguments])[0]) == port


def test_log_file_is_found_without_understanding_the_rest():
    assert log_path(["-logFile", "a", "--fault", "?", "-logfile", "b"]) == "b"
    assert log_path(["-logFile"]) is None


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (["--fault", "crash"], 1),
        (["--fault", "version"], 0),
        (["--fault", "slow-start"], 0),
        (["--fault", "exit", "--fault-step", "0"], 0),
    ],
)
def test_fault_step_has_a_default_that_fits_the_fault(arguments, step):
    assert parse(["Basic", *arguments])[0].fault_step == step


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["4DBall"], "4DBall"),
        ([], "NAME"),
        (["Basic", "--agents", "0"], "0 is less than 1"),
        (["Basic", "--fault", "explode"], "explode"),
        (["Basic", "--fault-step", "-1"], "-1"),
        (["Basic", "--fault", "nan", "--fault-step", "0"], "1 or more"),
        (["Basic", "--fault", "version", "--fault-step", "3"], "no --fault-step"),
    ],
)
def test_wrong_arguments_are_bad_usage_in_the_log(tmp_path, arguments, text):
    log = tmp_path / "logs" / "Player.log"
    assert main([*arguments, "-logFile", str(log)]) == 2
    assert text in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["3DBall", "--behavior", "A", "--behavior", "B"], "one behavior"),
        (["scripted", "--communication-version", "1.2.0"], "no hybrid actions"),
        (["Basic", "--echo-channel", "me"], "--echo-channel me is not a UUID"),
    ],
)
def test_options_that_do_not_fit_together_are_bad_usage(capsys, arguments, text):
    assert main([*arguments, "--mlagents-port", "1"]) == 2
    assert text in capsys.readouterr().err


def test_behaviors_are_spelt_with_team_traits_and_step():
    walker, late = scripted_behaviors(["Walker", "Late?team=1:hybrid+png+mask@50"])
    assert (walker.name, walker.since, walker.actions) == ("Walker?team=0", 0, (2, ()))
    assert (late.name, late.since, late.actions) == ("Late?team=1", 50, (2, (3, 2)))
    assert late.traits == {"hybrid", "png", "mask"}


def test_behaviors_by_default_have_every_trait():
    assert set().union(*(part.traits for part in scripted_behaviors(DEFAULT))) == set(TRAITS)


@pytest.mark.parametrize(
    "texts", [["A", "A"], ["A:flying"], ["A:discrete+hybrid"], [":discrete"], ["A@soon"], ["A", "A?team=0"]]
)
def test_wrong_spellings_of_behaviors_are_refused(texts):
    with pytest.raises(UsageError, match="--behavior"):
        scripted_behaviors(texts)


def test_command_passes_its_arguments_on(capsys):
    assert mlhooks(["sim-player", "Basic", "-nographics", "-batchmode", "--fault-step", "3"]) == 0
    said = capsys.readouterr()
    assert "Basic, port None" in said.out
    assert "mean nothing to it: -nographics -batchmode\n" in said.out
    assert said.err == ""


def test_command_shows_its_own_help(capsys):
    assert mlhooks(["sim-player", "--help"]) == 0
    assert "--fault-worker" in capsys.readouterr().out


def test_help_needs_neither_grpc_nor_numpy():
    script = (
        "import sys; from mlhooks.cli import main; code = main(['sim-player', '--help']);"
        "heavy = {'torch', 'grpc', 'numpy', 'google.protobuf', 'pydantic'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
