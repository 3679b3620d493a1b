"""Small specs and steps for tests of the data path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
)


def make_spec(observation: int = 1, continuous: int = 1, branches: tuple[int, ...] = ()) -> BehaviorSpec:
    spec = ObservationSpec((observation,), (DimensionProperty.NONE,), ObservationType.DEFAULT, "vector")
    return BehaviorSpec([spec], ActionSpec(continuous, branches))


def decisions(
    agents: Sequence[int], values: Sequence[float], rewards: Sequence[float], mask: list[np.ndarray] | None = None
) -> DecisionSteps:
    n = len(agents)
    return DecisionSteps(
        [np.array(values, np.float32).reshape(n, -1 if n else 1)],
        np.array(rewards, np.float32),
        np.array(agents, np.int32),
        mask,
        np.zeros(n, np.int32),
        np.zeros(n, np.float32),
    )


def terminals(
    agents: Sequence[int], values: Sequence[float], rewards: Sequence[float], interrupted: Sequence[bool]
) -> TerminalSteps:
    n = len(agents)
    return TerminalSteps(
        [np.array(values, np.float32).reshape(n, -1 if n else 1)],
        np.array(rewards, np.float32),
        np.array(interrupted, np.bool_),
        np.array(agents, np.int32),
        np.zeros(n, np.int32),
        np.zeros(n, np.float32),
    )
