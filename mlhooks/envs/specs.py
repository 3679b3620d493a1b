"""Specs of behaviors, compared and in words."""

from __future__ import annotations

from mlagents_envs.base_env import BehaviorSpec


def same_shape(spec: BehaviorSpec, other: BehaviorSpec) -> bool:
    """Return whether networks for one fit the other: the shapes of the observations, and the actions."""
    shapes, others = ([tuple(obs.shape) for obs in s.observation_specs] for s in (spec, other))
    return shapes == others and spec.action_spec == other.action_spec


def in_words(spec: BehaviorSpec) -> str:
    """Describe what a spec holds."""
    shapes = ", ".join(f"{obs.name or 'unnamed'} {tuple(obs.shape)}" for obs in spec.observation_specs)
    continuous, branches = spec.action_spec.continuous_size, list(spec.action_spec.discrete_branches)
    return f"the observations {shapes}, {continuous} continuous actions and the discrete branches {branches}"


def change_in_words(behavior_id: str, since: str, old: BehaviorSpec, new: BehaviorSpec) -> str:
    """Say that a behavior has changed, how, and what to do about it.

    Args:
        behavior_id: the behavior.
        since: when it was otherwise, as in "the run was saved".
        old: what it was.
        new: what it is.
    """
    return (
        f"The behavior {behavior_id!r} has changed since {since}.\n"
        f"    It had {in_words(old)}.\n"
        f"    It has {in_words(new)}.\n"
        "The networks of this run do not fit it any more: undo the change in the environment and go on with --resume, "
        "or begin another run by --run-id."
    )
