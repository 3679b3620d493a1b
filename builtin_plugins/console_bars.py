"""The live part of the console: a progress bar for each behavior, drawn by a thread of its own from `trainer.step`."""

from __future__ import annotations

import atexit
import logging
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

from rich.cells import cell_len
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from builtin_plugins.console_numbers import clock, last_episodes, short_number

if TYPE_CHECKING:
    from rich.console import Console

    from mlhooks.plugin import Trainer

REFRESH_PER_SECOND = 4
RATE_SAMPLES = 30 * REFRESH_PER_SECOND
NAME_WIDTH = 20
BAR_WIDTH = (8, 40)
COLUMNS = ("name", "bar", "percent", "reward", "left", "speed", "steps")
FIRST_LINE, SECOND_LINE, INDENT = ("name", "bar", "percent", "left", "speed"), ("reward", "steps"), "  "
BY_IMPORTANCE = ("name", "percent", "bar", "reward", "left", "speed", "steps")
STYLES = {"name": "bold cyan", "reward": "green", "left": "dim", "steps": "dim"}


class Cells(NamedTuple):
    """The values that the columns of one behavior show, beside the bar."""

    name: str
    percent: str
    reward: str
    left: str
    speed: str
    steps: str


class ProgressBars:
    """Bars at the bottom of a terminal; whatever else is written appears above them.

    While they are shown, standard output, standard error and the logging handlers on them go through the console.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: list[tuple[str, Trainer, deque[tuple[float, int]]]] = []
        self._live = Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )

    def start(self) -> None:
        """Show the bars, until `stop` or the end of the process."""
        streams = sys.stdout, sys.stderr
        self._live.start()
        _retarget_logging(streams, (sys.stdout, sys.stderr))
        atexit.register(self.stop)

    def stop(self) -> None:
        """Remove the bars and give the terminal back with its cursor."""
        streams = sys.stdout, sys.stderr
        self._live.stop()
        _retarget_logging(streams, (sys.stdout, sys.stderr))
        atexit.unregister(self.stop)

    def add(self, behavior_name: str, trainer: Trainer) -> None:
        """Show one more behavior."""
        self._rows = [*self._rows, (behavior_name, trainer, deque(maxlen=RATE_SAMPLES))]

    def render(self) -> Group:
        """Return a line for each behavior, or two where one is too short for all columns.

        A terminal that is too narrow for two lines lacks the least important columns.
        """
        cells = [_cells(*row) for row in self._rows]
        widths = {field: max((cell_len(getattr(row, field)) for row in cells), default=0) for field in Cells._fields}
        room = self._console.width - 1
        shown, bar_width = _choose_columns(widths, COLUMNS, room)
        below: list[str] = []
        if len(shown) < len(COLUMNS):
            shown, bar_width = _choose_columns(widths, FIRST_LINE, room)
            below, _ = _choose_columns(widths, SECOND_LINE, room - len(INDENT))
        lines: list[Table | Text] = []
        for (_, trainer, _), row in zip(self._rows, cells, strict=True):
            texts = {
                field: Text(_padded(field, text, widths), STYLES.get(field, ""))
                for field, text in row._asdict().items()
            }
            table = Table.grid(padding=(0, 1, 0, 0))
            for _ in shown:
                table.add_column(no_wrap=True)
            done, total = trainer.step, max(1, trainer.settings.max_steps)
            bar = ProgressBar(total=total, completed=min(done, total), width=bar_width)
            table.add_row(*(bar if column == "bar" else texts[column] for column in shown))
            lines.append(table)
            if below:
                line = Text(INDENT, no_wrap=True, overflow="crop")
                lines.append(line + Text(" ").join(texts[column] for column in below))
        return Group(*lines)


def _cells(name: str, trainer: Trainer, samples: deque[tuple[float, int]]) -> Cells:
    step, total = trainer.step, max(1, trainer.settings.max_steps)
    samples.append((time.monotonic(), step))
    (first_time, first_step), (now, _) = samples[0], samples[-1]
    speed = (step - first_step) / (now - first_time) if now > first_time else 0.0
    reward = trainer.mean_reward
    told = "no episode yet" if reward is None else last_episodes(reward)
    return Cells(
        name=name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…",
        percent=f"{min(100, 100 * step // total)}%",
        reward=told if trainer.self_play is None else f"{told}, ELO: {trainer.self_play.rating:.0f}",
        left=f"{clock(max(0, total - step) / speed)} left" if speed > 0 else "-:--:-- left",
        speed=f"{short_number(speed)}/s",
        steps=f"{step:,}/{total:,}",
    )


def _padded(field: str, text: str, widths: Mapping[str, int]) -> str:
    """Return a text as wide as those of the other behaviors, so that columns stand below each other."""
    space = " " * (widths[field] - cell_len(text))
    return space + text if field == "percent" else text + space


def _choose_columns(widths: dict[str, int], columns: Sequence[str], room: int) -> tuple[list[str], int]:
    """Return those of the columns that fit, in their order, and the width that is left for the bar."""
    least, most = BAR_WIDTH
    chosen: list[str] = []
    used = 0
    for column in (each for each in BY_IMPORTANCE if each in columns):
        needed = (least if column == "bar" else widths[column]) + 1
        if used + needed > room and chosen:
            continue
        chosen.append(column)
        used += needed
    return [column for column in columns if column in chosen], min(most, least + max(0, room - used))


def _retarget_logging(old: Sequence[TextIO], new: Sequence[TextIO]) -> None:
    """Let the handlers that hold a stream of `old` write to its successor; they would write across the bars."""
    for logger in (logging.getLogger(), *logging.getLogger().manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            for before, after in zip(old, new, strict=True):
                if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                    handler.setStream(after)
                    break
