"""Simulations that run in process: numpy over all agents, nothing to install, state that can be saved.

They need numpy and `mlagents_envs.base_env` only, so a process that serves one starts in a fraction of a second.
"""

from __future__ import annotations

from mlhooks.sims.ball3d import Ball3D
from mlhooks.sims.base import Simulation
from mlhooks.sims.basic import Basic
from mlhooks.sims.grid_world import GridWorld
from mlhooks.sims.recall import Recall
from mlhooks.sims.sorter import Sorter

__all__ = ["SIMULATIONS", "Ball3D", "Basic", "GridWorld", "Recall", "Simulation", "Sorter"]

SIMULATIONS: dict[str, type[Simulation]] = {sim.NAME: sim for sim in (Ball3D, Basic, GridWorld, Recall, Sorter)}
"""Name -> simulation, as in `sim:3DBall`; the name is the behavior's, too."""
