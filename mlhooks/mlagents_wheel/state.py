"""The state of the package's trainer that a checkpoint holds beside modules: plain values, tensors and arrays."""

from __future__ import annotations

import copy
import io
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from mlagents_envs.base_env import DecisionSteps
from torch import nn

if TYPE_CHECKING:
    from mlhooks.mlagents_wheel.learner import Learner

_GHOST = (
    *("ghost_step", "snapshot_counter", "_learning_team", "wrapped_trainer_team", "last_save", "last_swap"),
    *("last_team_change", "policy_elos", "current_opponent", "policy_snapshots", "current_policy_snapshot"),
)
_COUNTS = ("_step", "update_steps", "reward_signal_update_steps")


def save(learner: Learner) -> dict[str, Any]:
    """Return all that a resume needs, besides `modules()`: what ML-Agents saves, and what episodes came to so far.

    What was collected since the last update is not in it, as in ML-Agents; a replay buffer is where the settings ask.
    """
    inner = learner.inner
    others = {name: part for name, part in learner.parts().items() if name not in learner.modules()}
    return {
        "behavior_ids": list(learner.sides),
        "optimizers": {name: part.state_dict() for name, part in others.items()},
        "counts": {name: int(getattr(inner, name)) for name in _COUNTS if hasattr(inner, name)},
        "rewards": {name: _numbers(rewards) for name, rewards in _rewards(learner).items()},
        "group_rewards": _numbers(getattr(inner, "collected_group_rewards", {})),
        "reward_buffer": [float(value) for value in inner.reward_buffer],
        "lengths": {name: dict(side.manager._episode_steps) for name, side in learner.sides.items()},
        "waiting": {
            name: [[worker, _of_steps(steps)] for worker, steps in side.waiting.items()]
            for name, side in learner.sides.items()
        },
        "replay": _replay(learner) if learner.saves_replay else None,
        "ghost": None if learner.ghost is None else _ghost(learner),
    }


def load(learner: Learner, state: dict[str, Any]) -> None:
    """Restore what `save` returned, in a learner that its behavior ids have joined and that has its modules."""
    inner, parts = learner.inner, learner.parts()
    for name, saved in state["optimizers"].items():
        parts[name].load_state_dict(saved)
    for name, count in state["counts"].items():
        setattr(inner, name, count)
    for name, rewards in state["rewards"].items():
        learner.rewards[name].update(rewards)
    if state["group_rewards"]:
        inner.collected_group_rewards.update(state["group_rewards"])
    inner.reward_buffer.extend(state["reward_buffer"])
    for name, side in learner.sides.items():
        side.manager._episode_steps.update(state["lengths"][name])
        side.resume({worker: DecisionSteps(**steps) for worker, steps in state["waiting"][name]})
    if state["replay"] is not None:
        inner.update_buffer.load_from_file(io.BytesIO(state["replay"]))
    if learner.ghost is not None:
        _load_ghost(learner, state["ghost"])
    inner.load = True  # `mlagents-learn --resume` makes its trainers with this, too.


def in_own_types(module: nn.Module | None, saved: Any) -> Any:
    """Return a module's saved state with its numbers in the types that the module has them in now."""
    own = {} if module is None else module.state_dict()
    if not isinstance(saved, Mapping):
        return saved
    return {
        key: value.to(own[key].dtype) if isinstance(value, torch.Tensor) and key in own else value
        for key, value in saved.items()
    }


def _rewards(learner: Learner) -> dict[str, dict[str, float]]:
    """Return what episodes that go on have come to, with what is in trajectories that are not cut yet."""
    rewards = {name: dict(collected) for name, collected in learner.rewards.items()}
    environment = rewards.get("environment", {})
    for name, side in learner.sides.items():
        if learner.learns(name):
            for agent, experiences in side.manager._experience_buffers.items():
                environment[agent] = environment.get(agent, 0.0) + sum(float(e.reward) for e in experiences)
    return rewards


def _numbers(values: Any) -> dict[str, float]:
    return {str(key): float(value) for key, value in values.items()}


def _of_steps(steps: DecisionSteps) -> dict[str, Any]:
    columns = ("obs", "reward", "agent_id", "action_mask", "group_id", "group_reward")
    return {name: getattr(steps, name) for name in columns}


def _replay(learner: Learner) -> bytes:
    file = io.BytesIO()
    learner.inner.update_buffer.save_to_file(file)
    return file.getvalue()


def _ghost(learner: Learner) -> dict[str, Any]:
    ghost, controller = learner.ghost, learner.ghost.controller
    return {
        **{name: copy.deepcopy(getattr(ghost, name)) for name in _GHOST},
        "policies": {name: policy.get_weights() for name, policy in ghost.policies.items()},
        "queue": list(controller._queue),
        "learning_team": controller._learning_team,
    }


def _load_ghost(learner: Learner, state: dict[str, Any]) -> None:
    ghost, controller = learner.ghost, learner.ghost.controller
    for name in _GHOST:
        setattr(ghost, name, state[name])
    for name, weights in state["policies"].items():
        ghost.policies[name].load_weights(weights)
    controller._queue = deque(state["queue"], maxlen=controller._queue.maxlen)
    controller._learning_team = state["learning_team"]
