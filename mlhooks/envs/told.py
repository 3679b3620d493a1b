"""Information that an environment gives about itself, checked where it arrives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any

from mlagents_envs.base_env import BaseEnv, BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.describing import shown, shown_with_type
from mlhooks.envs.spaces import Spaces
from mlhooks.errors import ContractBroken
from mlhooks.stats import StatsAggregationMethod

Stat = tuple[str, float, StatsAggregationMethod]
"""A statistic that an environment adds by itself: key, value, aggregation."""
Specs = Mapping[str, BehaviorSpec]
Steps = dict[str, tuple[DecisionSteps, TerminalSteps]]


def steps_of(env: BaseEnv) -> tuple[Specs, Steps]:
    """Return the specs of an environment's behaviors, and who of each decides and ends now.

    Raises:
        ContractBroken: it tells something else.
    """
    specs = env.behavior_specs
    if not isinstance(specs, (MappingProxyType, Mapping)):  # The first is the most frequent kind, and known at once.
        raise ContractBroken(
            f"Its behavior_specs is {shown_with_type(specs)}, and must be a mapping of behavior names to BehaviorSpecs."
        )
    steps = {}
    for name in specs:
        both = steps[name] = env.get_steps(name)
        if not isinstance(both, (tuple, list)) or len(both) != 2:
            raise ContractBroken(
                f"Its get_steps({name!r}) returned {shown_with_type(both)}, and must return the pair (DecisionSteps, "
                "TerminalSteps)."
            )
    return specs, steps


def check_spec(behavior_id: Any, spec: Any) -> None:
    """Refuse a behavior for which no networks can be made.

    Raises:
        ContractBroken: names what is wrong.
    """
    if not isinstance(behavior_id, str) or not behavior_id:
        raise ContractBroken(f"The environment calls a behavior {shown_with_type(behavior_id)}: a name is a text.")
    if not isinstance(spec, BehaviorSpec):
        raise ContractBroken(
            f"Behavior {behavior_id!r}: its spec is {shown_with_type(spec)}, and must be a BehaviorSpec."
        )
    for index, observation in enumerate(spec.observation_specs):
        if not all(_whole(size) and size > 0 for size in observation.shape):
            raise ContractBroken(
                f"Behavior {behavior_id!r}: observation {index} ({observation.name or 'unnamed'}) has the shape "
                f"{shown(observation.shape)}, and must have whole numbers above 0."
            )
    actions = spec.action_spec
    if not _whole(actions.continuous_size) or actions.continuous_size < 0:
        raise ContractBroken(f"Behavior {behavior_id!r}: it has {shown(actions.continuous_size)} continuous actions.")
    if not all(_whole(size) and size > 0 for size in actions.discrete_branches):
        raise ContractBroken(
            f"Behavior {behavior_id!r}: it has the discrete branches {shown(actions.discrete_branches)}, and each must "
            "offer one action or more."
        )


def stats_of(env: BaseEnv) -> Sequence[Stat]:
    """Return the statistics that an environment added by itself since the last call, where it has a `take_stats`.

    Raises:
        ContractBroken: they are no statistics.
    """
    take = getattr(env, "take_stats", None)
    stats: Sequence[Stat] = () if take is None else take()
    if not isinstance(stats, (tuple, list)):
        raise ContractBroken(f"Its take_stats returned {shown_with_type(stats)}, and must return a list of statistics.")
    for stat in stats:
        good = isinstance(stat, (tuple, list)) and len(stat) == 3
        if not good or not isinstance(stat[0], str) or not isinstance(stat[1], Real):
            raise ContractBroken(
                f"Its take_stats returned {shown(stat)} among its statistics: each is a key, a number and a "
                "StatsAggregationMethod."
            )
        if not isinstance(stat[2], StatsAggregationMethod):
            raise ContractBroken(f"Its take_stats returned {shown(stat)}, whose last is no StatsAggregationMethod.")
    return stats


def spaces_of(env: BaseEnv) -> Mapping[str, Spaces]:
    """Return the spaces of an environment's behaviors in its own terms, where it has `behavior_spaces`."""
    spaces: Mapping[str, Spaces] = getattr(env, "behavior_spaces", {})
    return spaces


def _whole(number: object) -> bool:
    return hasattr(number, "__index__")
