"""Draws the learning curve of a run, curve.png, when the run ends."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from builtin_plugins.jsonl import FILE_NAME as STATS_NAME
from builtin_plugins.jsonl import read_rows
from mlhooks.plugin import hookimpl
from mlhooks.stat_keys import EVALUATED_REWARD_KEY, REWARD_KEY
from mlhooks.stop_signals import shielded

if TYPE_CHECKING:
    from mlhooks.plugin import PluginManager, Run, RunOutcome, StatsSummary, Trainer

CURVES = {REWARD_KEY: "{}", EVALUATED_REWARD_KEY: "{}, evaluated"}
"""Keys of mean rewards, and what their curves are called."""
TIMEOUT_SECONDS = 120  # The very first import of matplotlib lists the fonts of the machine, which can take long.

logger = logging.getLogger("mlhooks")


@hookimpl
def configure(pluginmanager: PluginManager) -> None:
    """Register the writer of this run."""
    pluginmanager.register(CurveWriter())


class CurveWriter:
    """Keeps mean and deviation of the reward of each summary period and draws them over the steps.

    A child process draws, so the run itself never loads matplotlib.
    """

    def __init__(self) -> None:
        self._active = False
        # These are (step, mean, std) of each summary, by behavior.
        self._points: dict[str, list[tuple[int, float, float]]] = {}

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Begin; a run that starts from scratch must not end with an earlier run's picture."""
        self._active = not run.inference
        if self._active and not run.resumed:
            _picture(run).unlink(missing_ok=True)

    @hookimpl
    def behavior_added(self, run: Run, behavior_name: str, trainer: Trainer) -> None:
        """Take over the part of the curve that leads up to the checkpoint on a resume."""
        if not (self._active and run.resumed):
            return
        for row in read_rows(run.path / STATS_NAME):
            if row["category"] != behavior_name or row["step"] > trainer.step:
                continue
            for key, curve in CURVES.items():
                if not (reward := row["values"].get(key)):
                    continue
                with contextlib.suppress(
                    LookupError, TypeError, ValueError, OverflowError
                ):  # A damaged line is passed over.
                    point = row["step"], float(reward["mean"]), float(reward["std"])
                    self._add_point(curve.format(behavior_name), *point)

    @hookimpl
    def write_stats(self, category: str, values: Mapping[str, StatsSummary], step: int) -> None:
        """Keep the point of this summary period, if an episode ended in it, or of this evaluation."""
        for key, curve in CURVES.items():
            if self._active and (reward := values.get(key)) is not None:
                self._add_point(curve.format(category), step, reward.mean, reward.std)

    def _add_point(self, category: str, step: int, mean: float | None, std: float | None) -> None:
        if mean is not None and std is not None and math.isfinite(mean) and math.isfinite(std):
            self._points.setdefault(category, []).append((step, mean, std))

    @hookimpl(tryfirst=True)  # It comes before the console lists the files.
    def run_finished(self, run: Run, outcome: RunOutcome) -> None:
        """Draw, if there is at least one line to draw."""
        curves = {name: points for name, points in self._points.items() if len(points) > 1}
        if curves and draw(curves, run.run_id, _picture(run)):
            outcome.files.setdefault("curve", []).append(_picture(run))


def draw(curves: Mapping[str, list[tuple[int, float, float]]], title: str, path: Path) -> bool:
    """Draw curves to `path` in a child process; where that fails, log why and return False.

    Args:
        curves: Behavior name -> (step, mean reward, standard deviation) of its points.
        title: What stands above the picture.
        path: The PNG file, replaced only by a whole one.
    """
    job = json.dumps({"curves": curves, "title": title, "path": str(path.absolute())})
    # -P keeps the folder of the script out of the child's import path, where its neighbours would hide other modules.
    command = [sys.executable, "-P", str(Path(__file__).with_name("curve_plot.py"))]
    try:
        code, errors = _run_shielded(command, job.encode())
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("The learning curve was not drawn: %s", error)
        return False
    if code:
        lines = errors.decode(errors="replace").strip().splitlines()
        logger.warning("The learning curve was not drawn: %s", lines[-1] if lines else f"exit code {code}")
    return code == 0


def _run_shielded(command: list[str], job: bytes) -> tuple[int, bytes]:
    """Exit code and errors of the child, which does not get the Ctrl-C that ends the run."""
    with shielded():
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with child:
        try:
            _, errors = child.communicate(job, timeout=TIMEOUT_SECONDS)
        except BaseException:
            child.kill()
            raise
    return child.returncode, errors


def _picture(run: Run) -> Path:
    return Path(run.path, "curve.png")
