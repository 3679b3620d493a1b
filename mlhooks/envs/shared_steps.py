"""Steps and actions as arrays in shared memory; what lies where follows from specs and numbers of agents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.describing import with_article
from mlhooks.envs.own_terms import OwnTerms
from mlhooks.envs.shared_arrays import ArrayReader, ArrayWriter, Field, Layout
from mlhooks.envs.told import Specs, Steps
from mlhooks.errors import ContractBroken


class StepCount(NamedTuple):
    """The numbers of a behavior id's agents that decide and end, and whether the deciding ones have masks.

    `types` has the dtype of each observation of those that decide, and then of those that end; `own` says whether the
    environment tells of episodes in its own terms.
    """

    behavior_id: str
    decisions: int
    masked: bool
    terminals: int
    types: tuple[str, ...]
    own: bool = False


class ActionCount(NamedTuple):
    """The number of a behavior id's agents that act."""

    behavior_id: str
    agents: int


class Message(NamedTuple):
    """The description by which a reader finds what was written: the block, and what is in it."""

    block: str
    counts: tuple[StepCount, ...] | tuple[ActionCount, ...]


class _Scratch:
    """Takes the place of an `ArrayWriter` where nobody reads what is written."""

    block = ""

    def arrays(self, layout: Layout) -> list[np.ndarray]:
        return [np.empty(shape, dtype) for shape, dtype in layout]


def check_steps(behavior_id: str, spec: BehaviorSpec, decisions: DecisionSteps, terminals: TerminalSteps) -> None:
    """Look for the reason why steps could not be taken in.

    Raises:
        ContractBroken: they do not fit their spec, hold no numbers, or an agent appears twice.
    """
    for steps, fields in ((decisions, _DECISION), (terminals, _TERMINAL)):
        lacks = [name for name in ("obs", *dict(fields)) if not hasattr(steps, name)]
        if lacks:
            raise ContractBroken(f"Behavior {behavior_id!r}: {with_article(steps)} among its steps has no {lacks[0]}.")
        for name, values in (
            *((f"observation {index}", obs) for index, obs in enumerate(steps.obs)),
            *((name, getattr(steps, name)) for name, _ in fields),
        ):
            if isinstance(values, list | tuple):
                raise ContractBroken(
                    f"Behavior {behavior_id!r}: the {name} is {with_article(values)}, and not a numpy array."
                )
            if (dtype := np.asarray(values).dtype).kind not in "fiub":
                raise ContractBroken(f"Behavior {behavior_id!r}: the {name} consists of {dtype}, and not of numbers.")
    write_steps(_Scratch(), {behavior_id: spec}, {behavior_id: (decisions, terminals)})
    for steps, what in ((decisions, "asks for more than one decision"), (terminals, "ends more than once")):
        ids, counts = np.unique(steps.agent_id, return_counts=True)
        if (counts > 1).any():
            raise ContractBroken(
                f"Behavior {behavior_id!r}: an agent {what} in one step: agent_id has "
                f"{', '.join(map(str, ids[counts > 1][:5].tolist()))} several times."
            )


def write_steps(writer: ArrayWriter | _Scratch, specs: Specs, steps: Steps) -> Message:
    """Write what an environment sent.

    Raises:
        ContractBroken: an array has another shape than its spec and the number of agents say.
    """
    counts = tuple(
        StepCount(
            behavior_id,
            len(decisions),
            decisions.action_mask is not None,
            len(terminals),
            tuple(map(_type, (*decisions.obs, *terminals.obs))),
            isinstance(terminals, OwnTerms),
        )
        for behavior_id, (decisions, terminals) in steps.items()
    )
    arrays = _channels_first(writer.arrays(_step_layout(specs, counts)))
    for count in counts:
        spec = specs[count.behavior_id]
        decisions, terminals = steps[count.behavior_id]
        names = [f"observation {index}" for index in range(len(spec.observation_specs))]
        _fill(arrays, decisions.obs, names, count.behavior_id)
        if count.masked:
            branches = range(len(spec.action_spec.discrete_branches))
            _fill(arrays, [*decisions.action_mask], [f"action mask {b}" for b in branches], count.behavior_id)
        _fill(arrays, [getattr(decisions, name) for name, _ in _DECISION], [*dict(_DECISION)], count.behavior_id)
        _fill(arrays, terminals.obs, [f"final {name}" for name in names], count.behavior_id)
        _fill(arrays, [getattr(terminals, name) for name, _ in _TERMINAL], [*dict(_TERMINAL)], count.behavior_id)
        if count.own:
            _fill(arrays, [getattr(terminals, name) for name, _ in _OWN], [*dict(_OWN)], count.behavior_id)
    return Message(writer.block, counts)


def read_steps(reader: ArrayReader, specs: Specs, message: Message) -> Steps:
    """Read in place what an environment sent."""
    steps: Steps = {}
    arrays = _channels_first(reader.arrays(message.block, _step_layout(specs, message.counts)))  # type: ignore[arg-type]
    for count in message.counts:
        assert isinstance(count, StepCount)
        spec = specs[count.behavior_id]
        seen, branches = len(spec.observation_specs), len(spec.action_spec.discrete_branches)
        obs = _take(arrays, seen)
        mask = _take(arrays, branches) if count.masked else None
        reward, agent_id, group_id, group_reward = _take(arrays, len(_DECISION))
        decisions = DecisionSteps(obs, reward, agent_id, mask, group_id, group_reward)
        ends = _take(arrays, seen), *_take(arrays, len(_TERMINAL))
        if count.own:
            terminals = OwnTerms(*ends, own_returns=next(arrays), own_lengths=next(arrays))
        else:
            terminals = TerminalSteps(*ends)
        steps[count.behavior_id] = decisions, terminals
    return steps


def write_actions(writer: ArrayWriter, specs: Specs, actions: Mapping[str, ActionTuple]) -> Message:
    """Write the actions of the agents that decided."""
    counts = tuple(
        ActionCount(behavior_id, max(len(action.continuous), len(action.discrete)))
        for behavior_id, action in actions.items()
    )
    arrays = iter(writer.arrays(_action_layout(specs, counts)))
    for behavior_id, action in actions.items():
        _fill(arrays, [action.continuous, action.discrete], ["continuous actions", "discrete actions"], behavior_id)
    return Message(writer.block, counts)


def read_actions(reader: ArrayReader, specs: Specs, message: Message) -> dict[str, ActionTuple]:
    """Read actions; copies, which an environment may keep."""
    arrays = iter(reader.arrays(message.block, _action_layout(specs, message.counts)))  # type: ignore[arg-type]
    return {count.behavior_id: ActionTuple(next(arrays).copy(), next(arrays).copy()) for count in message.counts}


_DECISION = (("reward", "f4"), ("agent_id", "i4"), ("group_id", "i4"), ("group_reward", "f4"))
_TERMINAL = (("reward", "f4"), ("interrupted", "?"), ("agent_id", "i4"), ("group_id", "i4"), ("group_reward", "f4"))
_OWN = (("own_returns", "f8"), ("own_lengths", "i8"))


def _step_layout(specs: Specs, counts: tuple[StepCount, ...]) -> list[Field]:
    layout: list[Field] = []
    for count in counts:
        spec, n, ended = specs[count.behavior_id], count.decisions, count.terminals
        shapes = [_in_memory(observation.shape) for observation in spec.observation_specs]
        seen = len(shapes)
        layout += [((n, *shape), dtype) for shape, dtype in zip(shapes, count.types[:seen], strict=False)]
        if count.masked:
            layout += [((n, size), "?") for size in spec.action_spec.discrete_branches]
        layout += [((n,), dtype) for _, dtype in _DECISION]
        layout += [((ended, *shape), dtype) for shape, dtype in zip(shapes, count.types[seen:], strict=False)]
        layout += [((ended,), dtype) for _, dtype in (*_TERMINAL, *(_OWN if count.own else ()))]
    return layout


def _type(obs: np.ndarray) -> str:
    """Return the dtype in which an observation is handed over: images that are bytes stay so."""
    return "u1" if getattr(obs, "dtype", None) == np.uint8 and obs.ndim == 4 else "f4"


def _in_memory(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an observation in memory, where an image has its channels last, as experience is kept."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else tuple(shape)


def _channels_first(arrays: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Return the arrays, images as [agents, channels, height, width]."""
    return (array.transpose(0, 3, 1, 2) if array.ndim == 4 else array for array in arrays)


def _action_layout(specs: Specs, counts: tuple[ActionCount, ...]) -> list[Field]:
    layout: list[Field] = []
    for behavior_id, agents in counts:
        spec = specs[behavior_id].action_spec
        layout += [((agents, spec.continuous_size), "f4"), ((agents, spec.discrete_size), "i4")]
    return layout


def _fill(arrays: Iterator[np.ndarray], values: list[np.ndarray], names: list[str], behavior_id: str) -> None:
    if len(values) != len(names):
        raise ContractBroken(
            f"Behavior {behavior_id!r}: its spec asks for {', '.join(names) or 'no action mask'}, and the environment "
            f"sent {len(values)} such arrays."
        )
    for value, name in zip(values, names, strict=True):
        array = next(arrays)
        if np.shape(value) != array.shape:
            raise ContractBroken(
                f"Behavior {behavior_id!r}: the {name} has the shape {np.shape(value)}, and not {array.shape} as its "
                "spec and the number of its agents say."
            )
        np.copyto(array, value, casting="unsafe")
        if array.dtype.kind != "f" and getattr(value, "dtype", None) != array.dtype and (array != value).any():
            first = np.ravel(value)[:5].tolist()
            raise ContractBroken(f"Behavior {behavior_id!r}: the {name} holds what no {array.dtype.name} is: {first}.")


def _take(arrays: Iterator[np.ndarray], count: int) -> list[np.ndarray]:
    return [next(arrays) for _ in range(count)]
