"""Simulations that run in process: numpy over all agents, nothing to install, state that can be saved.

They need numpy and `mlagents_envs.base_env` only, so a process that serves one starts in a fraction of a second.
"""

from __future__ import annotations

from mlhooks.sims.ball3d import Ball3D
from mlhooks.sims.base import Simulation
from mlhooks.sims.basic import Basic
from mlhooks.sims.game import Game
from mlhooks.sims.grid_world import GridWorld
from mlhooks.sims.push_together import PushTogether
from mlhooks.sims.recall import Recall
from mlhooks.sims.sacrifice import Sacrifice
from mlhooks.sims.sorter import Sorter
from mlhooks.sims.strike_and_guard import StrikeAndGuard
from mlhooks.sims.tag import Tag

__all__ = [
    "SIMULATIONS",
    "Ball3D",
    "Basic",
    "Game",
    "GridWorld",
    "PushTogether",
    "Recall",
    "Sacrifice",
    "Simulation",
    "Sorter",
    "StrikeAndGuard",
    "Tag",
]

SIMULATIONS: dict[str, type[Simulation | Game]] = {
    sim.NAME: sim for sim in (Ball3D, Basic, GridWorld, PushTogether, Recall, Sacrifice, Sorter, StrikeAndGuard, Tag)
}
"""Name -> simulation, as in `sim:3DBall`; where it shows a single behavior without teams, that has this name, too."""
