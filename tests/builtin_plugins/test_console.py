from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from builtin_plugins import console
from mlhooks import hookimpl
from mlhooks.errors import EnvironmentFailure, PluginError, SettingsError
from mlhooks.fast.switch import is_plain
from mlhooks.plugins import Origin
from mlhooks.stats import StatsAggregationMethod as Method

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
FAST = pytest.mark.skipif(is_plain(), reason="a plain run says so in a line of its own")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True

    def lines(self):
        """Everything that was ever shown, the bars included, without colors and cursor movements."""
        return [line.rstrip() for line in re.split(r"[\r\n]+", CONTROL.sub("", self.getvalue())) if line.strip()]


@pytest.fixture(autouse=True)
def no_outer_settings(monkeypatch):
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def open_terminal(monkeypatch):
    def open_terminal():  # Tests call this themselves, because pytest sets its own stdout between set-up and test.
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", "60")
        return terminal

    return open_terminal


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_first_lines_name_the_plugins_that_did_not_come_with_mlhooks(start_run, capsys, monkeypatch, tmp_path):
    class Mine:
        @hookimpl
        def configure(self, pluginmanager):
            pluginmanager.register(Other(), "grid", origin=Origin("grid", "grid-dist", "1.2", "entry point"))
            path = Path.cwd() / "sub" / "mine.py"
            pluginmanager.register(Other(), "mine", origin=Origin("mine", source=f"file {path}"))
            pluginmanager.register(Other(), "far", origin=Origin("far", source=f"file {tmp_path.parent / 'far.py'}"))
            pluginmanager.register(Other())

    class Other:
        @hookimpl
        def run_finished(self): ...

    monkeypatch.chdir(tmp_path)
    start_run(console, Mine())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  plugins")]
    assert line == (
        "  plugins      Mine (registered in code), grid (grid-dist 1.2), "
        f"mine (file {Path('sub', 'mine.py')}), far (file {tmp_path.parent / 'far.py'})"
    )


def write(trainer, step, rewards):
    trainer.step = step
    trainer.stats.add_stats("Environment/Cumulative Reward", np.array(rewards, float), Method.HISTOGRAM)
    trainer.stats.write_stats(step)


@FAST
def test_piped_run_reads_as_plain_lines(start_run, capsys, clock, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = start_run(console)
    trainer = run.add_behavior("3DBall")
    clock.now += 1
    write(trainer, 12_000, [4.0, 6.0])
    clock.now += 11
    write(trainer, 23_000, [])
    clock.now += 2
    write(trainer, 24_000, [7.5])
    trainer.mean_reward = 98.765
    model, checkpoints = run.path / "3DBall.onnx", [run.path / "3DBall" / f"3DBall-{n}.pt" for n in (1, 2)]
    run.finish(files={"model": [model], "checkpoints": checkpoints})

    assert capsys.readouterr().out.splitlines() == [
        f"mlhooks {console.__version__} trains",
        "  run          first",
        "  environment  sim:3DBall",
        "  settings     those of the example 3dball_ppo",
        f"  results      {Path('results', 'first')}",
        "3DBall  ppo  to 50,000 steps  observations 8, 3 x 84 x 84  actions 2 continuous + discrete 3, 2",
        "3DBall  step 12,000  mean reward 5.00 ± 1.00 (2 new episodes)  12.0k steps/s  elapsed 0:00:01",
        "3DBall  step 23,000  no new episode finished  1.0k steps/s  elapsed 0:00:12",
        "3DBall  step 24,000  mean reward 7.50 ± 0.00 (1 new episode)  500 steps/s  elapsed 0:00:14",
        "Finished after 0:01:23.",
        "  3DBall       24,000 of 50,000 steps, mean reward 98.77 (last 100 episodes)",
        f"  model        {Path('results', 'first', '3DBall.onnx')}",
        f"  checkpoints  {Path('results', 'first', '3DBall', '3DBall-1.pt')}",
        f"               {Path('results', 'first', '3DBall', '3DBall-2.pt')}",
    ]


def test_period_before_the_first_end_of_an_episode_says_so(start_run, capsys):
    run = start_run(console)
    write(run.add_behavior("3DBall"), 1000, [])
    assert "3DBall  step 1,000  no episode finished yet" in capsys.readouterr().out


def test_evaluation_has_a_line_of_its_own_and_the_end_names_the_best_policy(start_run, capsys, clock):
    run = start_run(console)
    trainer = run.add_behavior("3DBall")
    clock.now += 1
    write(trainer, 1000, [1.0])
    for step, returns, best in ((2000, (4.0, 6.0), (2000, 5.0)), (3000, (4.5,), (2000, 5.0))):
        trainer.stats.add_stats("Evaluation/Cumulative Reward", np.array(returns), Method.HISTOGRAM)
        trainer.stats.write_stats(step)
        run.evaluations.best["3DBall"] = SimpleNamespace(step=best[0], mean_reward=best[1])
        run.plugins.hook.evaluation_finished(run=run, behavior_name="3DBall", step=step, returns=returns)
    clock.now += 4
    write(trainer, 5000, [2.0])
    run.finish()
    lines = capsys.readouterr().out.splitlines()[6:]
    assert [line for line in lines if "evaluation" in line or "steps/s" in line] == [
        "3DBall  step 1,000  mean reward 1.00 ± 0.00 (1 new episode)  1.0k steps/s  elapsed 0:00:01",
        "3DBall  step 2,000  evaluation: mean reward 5.00 ± 1.00 (2 episodes)  the best so far",
        "3DBall  step 3,000  evaluation: mean reward 4.50 ± 0.00 (1 episode)  the best is 5.00 at step 2,000",
        "3DBall  step 5,000  mean reward 2.00 ± 0.00 (1 new episode)  1.0k steps/s  elapsed 0:00:05",
        "          best policy at step 2,000, mean reward 5.00 (its evaluation)",
    ]


def test_category_that_was_never_added_is_shown_too(start_run, capsys):
    run = start_run(console)
    run.plugins.hook.write_stats(category="Other", values={}, step=7)
    assert "Other  step 7  no episode finished yet" in capsys.readouterr().out


@pytest.mark.parametrize("variable", [("CI", "true"), ("TERM", "dumb")])
def test_terminal_in_ci_or_without_abilities_gets_plain_lines(start_run, open_terminal, monkeypatch, variable):
    terminal = open_terminal()
    monkeypatch.setenv(*variable)
    run = start_run(console)
    write(run.add_behavior("3DBall"), 1000, [1.0])
    run.finish()
    assert "\x1b" not in terminal.getvalue()
    assert "\r" not in terminal.getvalue()
    assert "3DBall  step 1,000  mean reward 1.00" in terminal.getvalue()


def test_output_that_cannot_hold_a_character_gets_a_substitute(start_run, monkeypatch):
    ascii_pipe = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_pipe)
    run = start_run(console)
    write(run.add_behavior("Läufer"), 1000, [1.0])
    assert b"L?ufer  step 1,000  mean reward 1.00 +/- 0.00" in ascii_pipe.buffer.getvalue()


def test_reader_that_is_gone_is_no_failure(start_run, monkeypatch, caplog):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    run = start_run(console)
    trainer = run.add_behavior("3DBall")
    for step in (1000, 2000, 3000):
        write(trainer, step, [1.0])
    run.finish()
    assert (caplog.messages, run.plugins.disabled) == ([], [])


def test_lines_of_a_narrow_terminal_are_broken_between_their_parts(start_run, open_terminal, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    terminal = open_terminal()
    run = start_run(console)
    run.configuration = "general ones for ppo"
    trainer = run.add_behavior("3DBall", max_steps=500_000)
    write(trainer, 130_000, [1105.0, 1095.0])
    trainer.mean_reward = 1234.5
    run.finish()
    lines = terminal.lines()
    assert max(map(len, lines)) <= 60
    at = lines.index("3DBall  ppo  to 500,000 steps  observations 8, 3 x 84 x 84")
    assert lines[at + 1] == "  actions 2 continuous + discrete 3, 2"
    at = next(index for index, line in enumerate(lines) if line.startswith("3DBall  step 130,000"))
    assert lines[at] == "3DBall  step 130,000"
    assert lines[at + 1].startswith("  mean reward 1100.00 ± 5.00 (2 new episodes)")
    rest = " ".join(lines[at + 1 : at + 3])
    assert "steps/s" in rest
    assert "elapsed 0:00:0" in rest
    at = lines.index("  3DBall  130,000 of 500,000 steps, mean reward 1234.50")  # Brackets stay whole.
    assert lines[at + 1] == "          (last 100 episodes)"


def test_terminal_is_given_back_as_it_was(start_run, open_terminal, monkeypatch):
    terminal = open_terminal()
    errors = Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler(errors)
    logger = logging.getLogger("mlhooks.test_console")
    logger.propagate = False
    logger.addHandler(handler)
    run = start_run(console)
    run.add_behavior("3DBall")
    assert sys.stdout is not terminal
    logger.warning("a worker was started again")
    run.finish(status="failed", error=ValueError("x"))

    assert (sys.stdout, sys.stderr, handler.stream) == (terminal, errors, errors)
    assert "a worker was started again" in terminal.lines()
    assert errors.getvalue() == ""
    shown = terminal.getvalue()
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "Failed after 0:01:23." in terminal.lines()


def test_errors_that_go_to_a_file_stay_out_of_the_terminal(start_run, open_terminal, monkeypatch):
    terminal = open_terminal()
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    run = start_run(console)
    sys.stderr.write("trouble\n")
    run.finish()
    assert file.getvalue() == "trouble\n"
    assert "trouble" not in terminal.getvalue()


def test_no_color_is_respected(start_run, open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    run = start_run(console)
    write(run.add_behavior("3DBall"), 1000, [1.0])
    run.finish()
    assert re.findall(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", terminal.getvalue()) == []


def test_interrupted_run_says_how_to_go_on(start_run, capsys):
    start_run(console, run_id="ball7").finish(status="interrupted")
    assert "Interrupted after 0:01:23." in capsys.readouterr().out.splitlines()[-2]
    start_run(console, run_id="ball7", resumed=True).finish(status="interrupted")
    assert capsys.readouterr().out.endswith("--resume --run-id ball7\n")
    saved = {"checkpoint": [Path("first.pt")]}
    start_run(console, run_id="ball7").finish(status="interrupted", files=saved)
    assert "--resume --run-id ball7\n" in capsys.readouterr().out


def test_run_that_was_interrupted_before_it_began_does_not_offer_to_go_on(start_run, capsys):
    start_run(console, run_id="ball7").finish(status="interrupted")
    out = capsys.readouterr().out
    assert out.endswith("Nothing was learned, so nothing was saved.\n")
    assert "--resume" not in out


@pytest.mark.parametrize(
    ("error", "offered"), [(PluginError("x"), False), (SettingsError("x"), False), (EnvironmentFailure("x"), True)]
)
def test_failed_run_offers_to_go_on_where_the_same_command_can(start_run, capsys, error, offered):
    saved = {"checkpoint": [Path("first.pt")]}
    start_run(console, run_id="ball7").finish(status="failed", error=error, files=saved)
    out = capsys.readouterr().out
    assert "Failed after 0:01:23.\n" in out
    assert ("--resume --run-id ball7" in out) == offered


class Interrupted:
    @hookimpl
    def run_finished(self):
        raise KeyboardInterrupt


def test_terminal_is_given_back_when_the_end_of_a_run_is_interrupted(start_run, open_terminal):
    terminal = open_terminal()
    run = start_run(console, Interrupted(), run_id="ball7")
    run.add_behavior("3DBall")
    with pytest.raises(KeyboardInterrupt):
        run.finish(status="interrupted", files={"checkpoint": [Path("first.pt")]})
    assert sys.stdout is terminal
    assert "Interrupted after 0:01:23." in terminal.lines()
    assert terminal.lines()[-4:-2] == ["To continue, run the same command with --resume --run-id", "ball7"]


def test_run_whose_saving_was_interrupted_does_not_say_that_it_learned_nothing(start_run, capsys):
    run = start_run(console)
    run.add_behavior("3DBall", step=500)
    run.finish(status="interrupted")
    assert "Nothing was saved.\n" in capsys.readouterr().out


def test_resumed_run_says_where_it_goes_on(start_run, capsys):
    start_run(console, resumed=True).add_behavior("3DBall", step=12_000)
    out = capsys.readouterr().out
    assert "resumes training" in out
    assert "from step 12,000" in out


@FAST
def test_inference_does_not_speak_of_training(start_run, open_terminal):
    terminal = open_terminal()
    run = start_run(console, inference=True, resumed=True)
    write(run.add_behavior("3DBall", step=50_000), 50_000, [1.0])
    run.finish(status="interrupted")
    assert terminal.lines() == [
        f"mlhooks {console.__version__} runs the trained policy",
        "  run          first",
        "  environment  sim:3DBall",
        "  settings     those of the example 3dball_ppo",
        *[line for line in terminal.lines() if line.startswith("  results")],
        "It goes on until Ctrl-C; --episodes N ends it after N",
        "episodes of each behavior.",
        "3DBall  ppo  observations 8, 3 x 84 x 84",
        "  actions 2 continuous + discrete 3, 2",
        "Interrupted after 0:01:23.",
    ]
    assert "\x1b[?25l" not in terminal.getvalue()


def test_many_files_are_shortened(start_run, capsys):
    run = start_run(console)
    run.finish(files={"checkpoints": [Path(f"c-{n}.pt") for n in range(9)]})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-7:] == [
        "  checkpoints  c-3.pt",
        *(f"               c-{n}.pt" for n in range(4, 9)),
        "               and 3 more",
    ]


def test_path_below_the_working_directory_is_shown_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    assert console.shown_path(tmp_path / "a" / "results") == "results"
    monkeypatch.chdir(tmp_path / "a" / "b" / "c")
    assert console.shown_path(Path(tmp_path.anchor) / "x") == str(Path(tmp_path.anchor) / "x")
