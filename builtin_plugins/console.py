"""Tells the person at the terminal, or the log that the output is piped to, how the run goes."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builtin_plugins.console_numbers import clock, decimal, last_episodes, short_number
from mlhooks import __version__
from mlhooks.fast.switch import is_plain
from mlhooks.places import shown_path
from mlhooks.plugin import PluginError, UsageError, hookimpl
from mlhooks.stat_keys import ELO_KEY, EVALUATED_REWARD_KEY, GROUP_REWARD_KEY, REWARD_KEY
from mlhooks.streams import GONE

if TYPE_CHECKING:
    from mlagents_envs.base_env import BehaviorSpec
    from rich.console import Console

    from builtin_plugins.console_bars import ProgressBars
    from mlhooks.plugin import PluginManager, Run, RunOutcome, StatsSummary, Trainer

FILES_SHOWN = 6
_WORDS = re.compile(r"\([^()]*\)\S*|\S+")  # Words in brackets stay together.

Part = tuple[str, str]
"""A piece of a line and its rich style; where a terminal is too narrow, a line is broken between pieces."""


@hookimpl
def configure(pluginmanager: PluginManager) -> None:
    """Register the writer of this run."""
    pluginmanager.register(ConsoleWriter())


class ConsoleWriter:
    """One line for each summary, progress bars on a terminal, and at the end where everything is.

    Where standard output is no terminal, or `CI` is set, it writes whole plain lines only.
    """

    def __init__(self) -> None:
        self._console: Console | None = None
        self._bars: ProgressBars | None = None
        self._quiet = False
        self._started = time.monotonic()
        self._marks: dict[str, tuple[float, int]] = {}  # These are the time and step of each behavior's last summary.
        self._had_episode: set[str] = set()
        self._folder = Path()  # A person reads paths from here, wherever the run goes.

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Say what begins, and start the bars where there is a terminal."""
        self._started, self._folder = time.monotonic(), run.started_in
        self._quiet = run.inference
        if _is_live_terminal():
            from rich.console import Console

            self._console = Console(highlight=False)
        doing = "runs the trained policy" if run.inference else "resumes training" if run.resumed else "trains"
        self._say([(f"mlhooks {__version__} {doing}", "bold")])
        facts = {
            "run": run.run_id,
            "environment": run.env_name,
            "settings": run.configuration,
            "results": shown_path(run.path, self._folder),
            "plugins": ", ".join(f"{name} ({self._place(text)})" for name, text in run.plugins.others.items()),
            "computed": "in plain torch and numpy, slowly" if is_plain() else "",
        }
        self._say_aligned([(name, text) for name, text in facts.items() if text])
        if run.evaluation is not None and run.evaluation.episodes is None:
            self._say_words("It goes on until Ctrl-C; --episodes N ends it after N episodes of each behavior.")
        if self._console is not None and not run.inference:
            from builtin_plugins.console_bars import ProgressBars

            self._bars = ProgressBars(self._console)
            self._bars.start()

    def _place(self, origin: str) -> str:
        """Return where a plugin came from; a file below the folder of the run's start is shown from there."""
        kind, _, path = origin.partition(" ")
        return f"file {shown_path(Path(path), self._folder)}" if kind == "file" else origin

    @hookimpl
    def behavior_added(self, run: Run, behavior_name: str, behavior_spec: BehaviorSpec, trainer: Trainer) -> None:
        """Say what the behavior sees and does, and for how long it is trained."""
        parts = [(behavior_name, "bold cyan"), (trainer.settings.trainer_type, "")]
        if not run.inference:
            parts.append((f"to {trainer.settings.max_steps:,} steps", ""))
            if trainer.step:
                parts.append((f"from step {trainer.step:,}", ""))
        self._say([*parts, *((text, "dim") for text in _spec_texts(behavior_spec))])
        self._marks[behavior_name] = (time.monotonic(), trainer.step)
        if self._bars is not None:
            self._bars.add(behavior_name, trainer)

    @hookimpl
    def write_stats(self, category: str, values: Mapping[str, StatsSummary], step: int) -> None:
        """Say where the behavior stands."""
        if self._quiet or EVALUATED_REWARD_KEY in values:  # `evaluation_finished` tells it.
            return
        now = time.monotonic()
        marked, marked_step = self._marks.get(category, (self._started, step))
        self._marks[category] = (now, step)
        speed = max(0, step - marked_step) / max(now - marked, 1e-9)
        self._say(
            [
                (category, "bold cyan"),
                (f"step {step:,}", ""),
                *self._reward_parts(category, values.get(REWARD_KEY)),
                *([(f"ELO: {values[ELO_KEY].mean:.3f}", "magenta")] if ELO_KEY in values else []),
                *_group_parts(values.get(GROUP_REWARD_KEY)),
                (f"{short_number(speed)} steps/s", ""),
                (f"elapsed {clock(now - self._started)}", "dim"),
            ]
        )

    @hookimpl
    def evaluation_finished(self, run: Run, behavior_name: str, step: int, returns: Sequence[float]) -> None:
        """Say what an evaluation came to, and whether it is the best so far."""
        best = run.evaluations.best.get(behavior_name)
        mean, deviation = statistics.fmean(returns), statistics.pstdev(returns)
        parts = [
            (behavior_name, "bold cyan"),
            (f"step {step:,}", ""),
            (f"evaluation: mean reward {decimal(mean)} ± {decimal(deviation)} ({_episodes(len(returns))})", "magenta"),
        ]
        if best is not None:
            is_best = best.step == step
            best_so_far = f"the best is {decimal(best.mean_reward)} at step {best.step:,}"
            parts.append(("the best so far", "green") if is_best else (best_so_far, "dim"))
        self._say(parts)

    def _reward_parts(self, category: str, rewards: StatsSummary | None) -> list[Part]:
        if rewards is None or not rewards.num:
            ever = category in self._had_episode
            return [("no new episode finished" if ever else "no episode finished yet", "yellow")]
        self._had_episode.add(category)
        episodes = "1 new episode" if rewards.num == 1 else f"{rewards.num:,} new episodes"
        mean = f"mean reward {decimal(rewards.mean)} ± {decimal(rewards.std)}"
        return [(f"{mean} ({episodes})", "green")]

    @hookimpl(wrapper=True)  # Meanwhile the other plugins add their files to the outcome.
    def run_finished(self, run: Run, outcome: RunOutcome) -> Generator[None, Any, Any]:
        """Give the terminal back and say how the run ended and where its files are, also if that is interrupted."""
        try:
            return (yield)
        finally:
            self._end(run, outcome)

    def _end(self, run: Run, outcome: RunOutcome) -> None:
        if self._bars is not None:
            with contextlib.suppress(*GONE):
                self._bars.stop()
        elapsed = clock(outcome.elapsed)
        resume = f"To continue, run the same command with --resume --run-id {run.run_id}"
        if outcome.status == "finished":
            self._say([(f"Finished after {elapsed}.", "bold green")])
        elif outcome.status == "interrupted":
            self._say([(f"Interrupted after {elapsed}.", "bold yellow")])
            if not run.inference and not (run.resumed or "checkpoint" in outcome.files):
                learned = any(trainer.step for trainer in run.trainers.values())
                self._say([("Nothing was saved." if learned else "Nothing was learned, so nothing was saved.", "")])
            elif not run.inference:
                self._say_words(resume)
        else:
            self._say([(f"Failed after {elapsed}.", "bold red")])
            again = isinstance(outcome.error, PluginError | UsageError)  # The same command would fail again.
            if "checkpoint" in outcome.files and not again:
                self._say_words(resume)
        rows = [] if run.inference else [(name, _result(trainer)) for name, trainer in run.trainers.items()]
        rows += [(name, _best(best.step, best.mean_reward)) for name, best in run.evaluations.best.items()]
        self._say_aligned([*rows, *_file_rows(outcome.files, self._folder)])

    def _say_aligned(self, rows: Sequence[tuple[str, str]]) -> None:
        from rich.cells import cell_len, set_cell_size

        width = max((cell_len(name) for name, _ in rows), default=0)
        previous = None
        for name, text in rows:
            label = set_cell_size(name if name != previous else "", width)
            self._say_words(text, label=f"  {label}")
            previous = name

    def _say(self, parts: Sequence[Part]) -> None:
        """Write one line; a terminal that is too narrow for it gets several, broken between the parts."""
        self._write(parts, gap="  ", indent="  ")

    def _say_words(self, text: str, *, label: str = "") -> None:
        """Write a text, behind a label; a terminal that is too narrow for it gets several lines of its words."""
        head = [(label, "dim")] if label else []
        if self._console is None:
            _write_plain("  ".join([*([label] if label else []), text]))
            return
        from rich.cells import cell_len

        self._write(
            [(word, "") for word in _WORDS.findall(text)], head=head, indent=" " * (cell_len(label) + 2 if label else 0)
        )

    def _write(self, parts: Sequence[Part], *, head: Sequence[Part] = (), gap: str = " ", indent: str = "") -> None:
        if self._console is None:
            _write_plain(gap.join(text for text, _ in parts))
            return
        from rich.text import Text

        lines = [Text("  ").join(Text(*part) for part in [*head, parts[0]])]
        for part in parts[1:]:
            longer = lines[-1] + Text(gap) + Text(*part)
            if longer.cell_len <= self._console.width:
                lines[-1] = longer
            else:
                lines.append(Text(indent) + Text(*part))
        with contextlib.suppress(*GONE):  # The terminal is gone, and the run saves what it has.
            self._console.print(Text("\n").join(lines), soft_wrap=True)


def _group_parts(rewards: StatsSummary | None) -> list[Part]:
    """Return what groups of agents got, where there are any."""
    if rewards is None or not rewards.num:
        return []
    return [(f"mean group reward {decimal(rewards.mean)} ± {decimal(rewards.std)}", "green")]


def _is_live_terminal() -> bool:
    in_ci = os.environ.get("CI", "").lower() not in {"", "0", "false"}
    return sys.stdout.isatty() and not in_ci and os.environ.get("TERM") not in {"dumb", "unknown"}


def _write_plain(line: str) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        line = line.replace("±", "+/-").encode(encoding, "replace").decode(encoding)
    if sys.stdout is None:
        return
    with contextlib.suppress(*GONE):  # Whoever read it is gone, as behind `| head`; the run goes on.
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _spec_texts(spec: BehaviorSpec) -> list[str]:
    # What has a variable length shows how many there are at most.
    shapes = [
        ("up to " if len(observation.shape) == 2 else "") + " x ".join(map(str, observation.shape))
        for observation in spec.observation_specs
    ]
    actions = spec.action_spec
    kinds = [f"{actions.continuous_size} continuous"] if actions.continuous_size else []
    if actions.discrete_branches:
        kinds.append(f"discrete {', '.join(map(str, actions.discrete_branches))}")
    return [f"observations {', '.join(shapes)}", f"actions {' + '.join(kinds) or 'none'}"]


def _result(trainer: Trainer) -> str:
    text = f"{trainer.step:,} of {trainer.settings.max_steps:,} steps"
    if trainer.mean_reward is not None:
        text = f"{text}, {last_episodes(trainer.mean_reward)}"
    return text if trainer.self_play is None else f"{text}, ELO: {trainer.self_play.rating:.3f}"


def _best(step: int, mean_reward: float) -> str:
    return f"best policy at step {step:,}, mean reward {decimal(mean_reward)} (its evaluation)"


def _episodes(count: int) -> str:
    return "1 episode" if count == 1 else f"{count:,} episodes"


def _file_rows(files: Mapping[str, Sequence[Any]], start: Path) -> list[tuple[str, str]]:
    rows = []
    for what, paths in files.items():
        rows += [(what, shown_path(path, start)) for path in paths[-FILES_SHOWN:]]
        if len(paths) > FILES_SHOWN:
            rows.append((what, f"and {len(paths) - FILES_SHOWN:,} more"))
    return rows
