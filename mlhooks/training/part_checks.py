"""Checks of what a plugin's policy, reward signal or trainer returns; errors name the function and its line."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Set
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from mlhooks.describing import shown_with_type, with_article
from mlhooks.errors import PluginError
from mlhooks.nn.heads import SampledActions
from mlhooks.places import defined_at, in_brackets
from mlhooks.stat_keys import RUN_KEYS

if TYPE_CHECKING:
    from mlhooks.training.batch import Batch
    from mlhooks.training.optimizer import Optimizer
    from mlhooks.training.policy import Policy
    from mlhooks.training.reward_signals import RewardSignal
    from mlhooks.training.trainer import Trainer


def check_actions(policy: Policy, actions: object, agents: int) -> None:
    """Refuse what `act` returned where it is not one action for each agent.

    Raises:
        PluginError: names the function, and says what is wrong.
    """
    problem = _problem(policy, actions, agents)
    if problem is not None:
        raise PluginError(f"{called(policy, 'act')} must return SampledActions for all agents that wait; {problem}.")


def _problem(policy: Policy, actions: object, agents: int) -> str | None:
    if not isinstance(actions, SampledActions):
        return f"it returned {with_article(actions)}"
    spec = policy.behavior_spec.action_spec
    wanted = {
        "continuous": ((agents, spec.continuous_size), "f"),
        "discrete": ((agents, spec.discrete_size), "iu"),
        "log_prob": ((agents, spec.continuous_size + spec.discrete_size), "f"),
    }
    if policy.memory_size:
        wanted["memory"] = ((agents, policy.memory_size), "f")
    for name, (shape, kinds) in wanted.items():
        given = getattr(actions, name)
        if not isinstance(given, np.ndarray):
            return f"its {name} is {with_article(given)}, and must be a numpy array"
        if given.shape != shape or given.dtype.kind not in kinds:
            number = "floats" if kinds == "f" else "whole numbers"
            return f"its {name} has the shape {given.shape} and the type {given.dtype}, and must be {shape}, {number}"
    if not np.isfinite(actions.continuous).all():
        return "its continuous holds NaN or infinite numbers"
    branches = np.asarray(spec.discrete_branches)
    if spec.discrete_size and not ((actions.discrete >= 0) & (actions.discrete < branches)).all():
        return f"its discrete holds choices that the branches {branches.tolist()} do not have"
    return None


def check_values(optimizer: Optimizer, values: object, rows: int, signals: int, *, method: str = "estimate") -> Tensor:
    """Return values without their graph; refuse what is not one value for each row and reward signal.

    Raises:
        PluginError: names the function, and says what is wrong.
    """
    if isinstance(values, Tensor) and values.shape == (rows, signals) and values.is_floating_point():
        return values.detach()
    problem = f"it returned {with_article(values)}"
    if isinstance(values, Tensor):
        problem = f"it has the shape {tuple(values.shape)} and the type {values.dtype}"
    raise PluginError(
        f"{called(optimizer, method)} must return a tensor of values [rows, reward signals], here "
        f"{(rows, signals)}, floats; {problem}."
    )


def check_state(part: Any, state: object) -> Any:
    """Return what `state_dict` returned; refuse what `load_state_dict` could not read.

    Raises:
        PluginError: names the function.
    """
    if isinstance(state, dict):
        return state
    given = with_article(state)
    raise PluginError(f"{called(part, 'state_dict')} must return a dict, which may be empty; it returned {given}.")


READABLE = frozenset({"obs", "next_obs"})
"""What a reward signal's `reads` may name."""


def check_reads(signal: RewardSignal) -> None:
    """Refuse a reward signal that asks for what batches do not have.

    Raises:
        PluginError: names the class, and what it asks for.
    """
    kind, reads = type(signal), signal.reads
    if isinstance(reads, Set):
        unknown = sorted(repr(name) for name in reads - READABLE)
        problem = f"it names {', '.join(unknown)}" if unknown else None
    else:
        problem = f"it is {with_article(reads)}"
    if problem is not None:
        raise PluginError(
            f"`{kind.__name__}.reads`{in_brackets(defined_at(kind))} must be a frozenset of 'obs' and 'next_obs', or "
            f"of one of them; {problem}."
        )


def check_rewards(signal: RewardSignal, rewards: object, rows: int) -> None:
    """Refuse what `evaluate` returned where it is not one reward for each row.

    Raises:
        PluginError: names the function, and says what is wrong.
    """
    if isinstance(rewards, Tensor) and rewards.shape == (rows,):
        return
    shape = f" of shape {tuple(rewards.shape)}" if isinstance(rewards, Tensor) else ""
    raise PluginError(
        f"{called(signal, 'evaluate')} must return a Tensor with a reward for each of the {rows} rows of the batch; it "
        f"returned {with_article(rewards)}{shape}."
    )


WATCHED = ("rewards", "continuous", "discrete")
"""What all reward signals may read, beside what they say."""


def written(batch: Batch, reads: Iterable[str]) -> list[int]:
    """Return how often torch wrote to each column that a reward signal reads; `.numpy()` and `.data` escape it."""
    columns = (getattr(batch, name) for name in (*WATCHED, *reads))
    return [0 if column is None else column._version for column in columns]


def check_unwritten(signal: RewardSignal, method: str, batch: Batch, before: list[int]) -> None:
    """Refuse a reward signal that wrote to a batch, of which others read the same memory.

    Raises:
        PluginError: names the function and the column.
    """
    if (after := written(batch, signal.reads)) != before:
        changed = zip((*WATCHED, *signal.reads), before, after, strict=True)
        columns = " and ".join(f"`batch.{name}`" for name, *versions in changed if versions[0] != versions[1])
        raise PluginError(f"{called(signal, method)} wrote to {columns}, which others read as well: change a copy.")


def check_reported(part: RewardSignal | Optimizer, reported: object) -> None:
    """Refuse what `update` of a reward signal or an optimizer returned where it is no mapping of scalars by name.

    Raises:
        PluginError: names the function, and says what is wrong.
    """
    problem = None
    if not isinstance(reported, Mapping):
        problem = f"it returned {with_article(reported)}"
    else:
        for name, value in reported.items():
            if not isinstance(name, str):
                problem = f"it has the key {shown_with_type(name)}"
            elif name in RUN_KEYS:
                problem = f"the run itself reports {name!r}, so that it needs another name"
            elif not isinstance(value, Tensor):
                problem = f"its {name!r} is {with_article(value)}"
            elif value.numel() != 1:
                problem = f"its {name!r} has the shape {tuple(value.shape)}"
    if problem is not None:
        raise PluginError(
            f"{called(part, 'update')} must return a mapping of scalar tensors by statistics key, which may be empty; "
            f"{problem}."
        )


def checked_rows(trainer: Trainer) -> int:
    """Return what `store_rows` says, which must be a number of rows.

    Raises:
        PluginError: names the function.
    """
    rows = trainer.store_rows(trainer.settings)
    if isinstance(rows, int | np.integer) and rows >= 1:
        return int(rows)
    raise PluginError(
        f"{called(trainer, 'store_rows')} must return a whole number of rows, 1 at least; it returned "
        f"{shown_with_type(rows)}."
    )


def check_trainer(trainer: Trainer) -> None:
    """Refuse a trainer whose `modules` lack what its policy and optimizer have, which a checkpoint would lose.

    Raises:
        PluginError: names the function.
    """
    wanted = [f"policy.{name}" for name in trainer.policy.modules()]
    wanted += [f"optimizer.{name}" for name in trainer.optimizer.modules()]
    modules = trainer.modules()
    if lost := [name for name in wanted if not isinstance(modules, Mapping) or name not in modules]:
        raise PluginError(
            f"{called(trainer, 'modules')} must return all that a checkpoint holds, and lacks {', '.join(lost)}: add "
            "yours to those of the base, {**super().modules(), ...}."
        )


def check_learning_type(trainer: Trainer) -> None:
    """Refuse a `learning_type` that is no learning half, or not of the kind that the trainer's bases have.

    Raises:
        PluginError: names the trainer's class, and says what is wrong.
    """
    kind, found = type(trainer), trainer.learning_type
    wanted = next(vars(base)["learning_type"] for base in kind.__mro__[1:] if "learning_type" in vars(base))
    if not isinstance(found, type) or not issubclass(found, wanted):
        given = f"`{found.__name__}`" if isinstance(found, type) else with_article(found)
        raise PluginError(
            f"`{kind.__name__}.learning_type`{in_brackets(defined_at(kind))} must be a class derived from "
            f"{wanted.__name__}; it is {given}."
        )


def check_update(trainer: Trainer, losses: object) -> None:
    """Refuse what `update` returned where it is neither None nor numbers by the names of statistics.

    Raises:
        PluginError: names the function, and says what is wrong.
    """
    if losses is None:
        return
    problem = None
    if not isinstance(losses, Mapping):
        problem = f"it returned {with_article(losses)}"
    else:
        for name, value in losses.items():
            if not isinstance(name, str) or not isinstance(value, Real):
                problem = f"its {name!r} is {with_article(value)}"
    if problem is not None:
        raise PluginError(
            f"{called(trainer, 'update')} must return a mapping of numbers by statistics key, or None; {problem}."
        )


def called(part: Any, method: str) -> str:
    """Return the name of a part's method for messages, with its file and line."""
    function = inspect.unwrap(getattr(part, method))
    return f"`{type(part).__name__}.{method}`{in_brackets(defined_at(function))}"
