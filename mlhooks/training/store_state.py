"""The state of an experience store in a checkpoint: completed where a former version wrote it, and checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from mlagents_envs.base_env import BehaviorSpec

from mlhooks.state_checks import LARGEST_WHOLE, array_of, indices, whole


def completed(state: Mapping[str, Any], dimensions: int) -> dict[str, Any]:
    """Return a state with the arrays that former checkpoints lack.

    Args:
        state: what a checkpoint holds.
        dimensions: the number of dimensions of an action, for each of which there is a log-probability now.

    Raises:
        ValueError: it has log-probabilities of whole actions, and actions have several dimensions.
    """
    without = {"memory": state["encoding"], "critic_memory": state["encoding"], "slot_memory": state["open_row"]}
    empty: dict[str, np.ndarray] = {name: np.zeros((len(rows), 0), np.float32) for name, rows in without.items()}
    empty["sequence"] = np.zeros((len(state["encoding"]), 0), np.int64)
    empty["groupmate_reward"] = np.zeros((len(state["encoding"]), 0), np.float32)
    empty["end_tick"] = state["tick"] + 1  # An agent that decided at every tick ended so.
    return {**empty, **state, "log_prob": _by_dimension(state["log_prob"], dimensions)}


def _by_dimension(log_prob: Any, dimensions: int) -> Any:
    """Return log-probabilities by action dimension, from those of whole actions that former checkpoints have."""
    if not isinstance(log_prob, np.ndarray) or log_prob.ndim != 1:
        return log_prob
    if dimensions == 1:
        return log_prob[:, None]
    raise ValueError(
        f"log_prob has one number for each action, and must have one for each of an action's {dimensions} "
        "dimensions: train again, or go on with the mlhooks that wrote it"
    )


def check_state(
    state: Mapping[str, Any],
    counters: Collection[str],
    columns: Mapping[str, tuple[Any, tuple[int, ...]]],
    spec: BehaviorSpec,
) -> None:
    """Refuse indices beyond the arrays and contradictory sizes, which would do harm long after they were loaded.

    Args:
        state: what a checkpoint holds.
        counters: the names of its numbers.
        columns: the type and the trailing shape of each column; -1 is any width.
        spec: the behavior's observations and actions.

    Raises:
        ValueError: an array or a number cannot be one of such a store.
    """
    for name in set(counters) - {"masked", "grouped"}:
        whole(state[name], name)
    in_use, finals = state.get("filled", state["size"]), state["finals"]
    if not state["waiting"] <= state["size"] <= in_use:
        raise ValueError("the numbers of rows in use and of those that wait contradict each other")
    slots = len(indices(state["open_row"], "open_row", -1, in_use))
    for name in ("slot_trajectory", "slot_length"):
        indices(state[name], name, slots, LARGEST_WHOLE, 0)
    array_of(state["slot_memory"], "slot_memory", np.float32, (slots, len(state["memory"].T)))
    for name, (kind, trailing) in columns.items():
        array_of(state[name], name, kind, (in_use, *trailing))
    for name, stop in {"successor": in_use, "final": finals}.items():
        indices(state[name], name, in_use, stop)
    indices(state["slot"], "slot", in_use, slots, 0)
    indices(state["sequence"].ravel(), "sequence", -1, in_use)
    if (state["discrete"] < 0).any() or (state["discrete"] >= spec.action_spec.discrete_branches).any():
        raise ValueError("discrete has actions that the behavior does not have")
    for name, rows in {"obs": in_use, "final_obs": finals}.items():
        for found, observed in zip(state[name], spec.observation_specs, strict=True):
            is_image = isinstance(found, np.ndarray) and found.dtype == np.uint8 and len(observed.shape) == 3
            array_of(found, name, np.uint8 if is_image else np.float32, (rows, *observed.shape))
