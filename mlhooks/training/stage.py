"""The stages of a run."""

from __future__ import annotations

from enum import Enum


class Stage(Enum):
    """The stage of a run: whether it waits for environments, and whether it has anything to save.

    Attributes:
        waits: whether environments have yet to start, or a person has to start one again: Ctrl-C ends such a wait.
        saves: whether the run has more than the checkpoint that it may go on from.
    """

    STARTING = True, False
    """No environment has made a step."""
    UNFAMILIAR = False, False
    """Environments make steps, and have shown none of the behaviors of the checkpoint."""
    RUNNING = False, True
    """Trainers get what they can learn from."""
    PAUSED = True, True
    """Environments stand still, and what was learned is still to be saved."""

    def __init__(self, waits: bool, saves: bool) -> None:
        self.waits, self.saves = waits, saves

    def changed(self, *, waits: bool | None = None, saves: bool | None = None) -> Stage:
        """Return the stage with other attributes; those that are left out stay."""
        wanted = self.waits if waits is None else waits, self.saves if saves is None else saves
        return next(stage for stage in Stage if (stage.waits, stage.saves) == wanted)
