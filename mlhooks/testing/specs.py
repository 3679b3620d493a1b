"""Behavior specs for tests: one made from what matters, and one of every kind that a trainer can declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType


def make_behavior_spec(
    observations: Sequence[int | tuple[int, ...]] = (3,),
    *,
    continuous: int = 0,
    branches: Sequence[int] = (),
    goals: Sequence[int] = (),
) -> BehaviorSpec:
    """Return a behavior spec.

    Args:
        observations: the size of each vector observation, or the shape of one with more dimensions: (most, size) is an
            observation of variable length, (channels, height, width) an image.
        continuous: number of continuous actions.
        branches: number of choices of each discrete action.
        goals: the size of each goal signal, which come after the observations.
    """
    specs = [_observation(f"observation {index}", shape) for index, shape in enumerate(observations)]
    specs += [_observation(f"goal {index}", size, ObservationType.GOAL_SIGNAL) for index, size in enumerate(goals)]
    return BehaviorSpec(specs, ActionSpec(continuous, tuple(branches)))


def _observation(
    name: str, shape: int | tuple[int, ...], kind: ObservationType = ObservationType.DEFAULT
) -> ObservationSpec:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    first = DimensionProperty.VARIABLE_SIZE if len(shape) == 2 else DimensionProperty.NONE
    return ObservationSpec(shape, (first, *(DimensionProperty.NONE,) * (len(shape) - 1)), kind, name)


ACTION_KINDS: Mapping[str, BehaviorSpec] = {
    "continuous": make_behavior_spec(continuous=1),
    "several continuous": make_behavior_spec(continuous=3),
    "discrete": make_behavior_spec(branches=(3,)),
    "several branches": make_behavior_spec(branches=(3, 2)),
    "hybrid": make_behavior_spec(continuous=2, branches=(3, 2)),
}
OBSERVATION_KINDS: Mapping[str, Mapping[str, Any]] = {
    "one number": {"observations": (1,)},
    "several vectors": {"observations": (3, 2)},
    "goal signal": {"observations": (3,), "goals": (2,)},
    "entities": {"observations": ((4, 3),)},
    "two kinds of entities beside a vector": {"observations": (2, (4, 3), (2, 5))},
    "image": {"observations": ((3, 20, 20),)},  # ML-Agents' default encoder takes none that is smaller.
}


def needed_actions(spec: BehaviorSpec) -> Iterator[str]:
    """Yield the kinds of action that a trainer must declare to take a behavior: `continuous`, `discrete`."""
    if spec.action_spec.continuous_size:
        yield "continuous"
    if spec.action_spec.discrete_size:
        yield "discrete"
