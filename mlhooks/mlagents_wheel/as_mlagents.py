"""Statistics in the types of ML-Agents, for writers that were made for it and may compare them with its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mlhooks.unity import schema

schema.install()  # The next import fails without it.

from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod  # noqa: E402

from mlhooks import stats  # noqa: E402


def summaries(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summaries of a period; each writer gets its own, which it may change."""
    made = _types().StatsSummary
    return {
        key: made(value.full_dist, method(value.aggregation_method)) if isinstance(value, stats.StatsSummary) else value
        for key, value in values.items()
    }


def method(value: Any) -> Any:
    """Return the aggregation method as ML-Agents has it."""
    return StatsAggregationMethod[value.name] if isinstance(value, stats.StatsAggregationMethod) else value


def property_type(value: Any) -> Any:
    """Return the type of a property as ML-Agents has it."""
    return _types().StatsPropertyType[value.name] if isinstance(value, stats.StatsPropertyType) else value


def overrides(writer: Any, name: str) -> bool:
    """Return whether a writer has a method of its own, not that of ML-Agents' base, which does nothing."""
    function = getattr(type(writer), name, None) or getattr(writer, name, None)
    return function is not None and getattr(function, "__qualname__", "") != f"StatsWriter.{name}"


def _types() -> Any:
    from mlhooks.mlagents_wheel import stand_ins

    return sys.modules.get("mlagents.trainers.stats") or stand_ins
