"""The agents of one behavior id, as the package sees them: its agent manager, and the policy that acts for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.envs.pixels import to_floats

APART = 10**6
"""What the numbers of workers of two behavior ids differ by, so that agents with the same number stay apart."""


class Side:
    """The work of the package's `EnvManager` for one behavior id.

    Args:
        manager: the package's `AgentManager`.
        spec: the behavior's observations and actions.
        offset: added to the numbers of workers.
    """

    def __init__(self, manager: Any, spec: BehaviorSpec, offset: int) -> None:
        self.manager, self.spec, self.offset = manager, spec, offset
        self.waiting: dict[int, DecisionSteps] = {}
        """The decisions that agents wait for, by worker."""
        self._before: dict[int, Any] = {}  # These are the last answers of their policy, by worker.

    def observe(self, worker: int, decisions: DecisionSteps, terminals: TerminalSteps, *, training: bool) -> None:
        """Hand the agents' steps to the manager, which makes trajectories of them; without training, only forget."""
        from mlagents.trainers.action_info import ActionInfo

        before = self._before.pop(worker, None) or ActionInfo.empty()
        decisions, terminals = _decisions(decisions), _terminals(terminals)
        if training:
            self.manager.add_experiences(decisions, terminals, worker + self.offset, before)
        else:
            self._forget(worker, terminals)
        if len(decisions):
            self.waiting[worker] = decisions

    def _forget(self, worker: int, terminals: TerminalSteps) -> None:
        if len(terminals):
            ended = [self._global_id(worker, agent) for agent in terminals.agent_id]
            self.manager.policy.remove_memories(ended)
            self.manager.policy.remove_previous_action(ended)

    def act(self) -> Iterator[tuple[int, ActionTuple]]:
        """Decide for all agents that wait with the newest policy, and yield each worker's actions."""
        from mlagents.trainers.agent_processor import AgentManagerQueue

        while True:
            try:
                self.manager.policy = self.manager.policy_queue.get_nowait()
            except AgentManagerQueue.Empty:
                break
        for worker in list(self.waiting):
            decisions = self.waiting.pop(worker)
            self._before[worker] = info = self.manager.policy.get_action(decisions, worker + self.offset)
            yield worker, _sent(info.env_action, len(decisions), self.spec)

    def resume(self, waiting: dict[int, DecisionSteps]) -> None:
        """Take over decisions that agents waited for when a checkpoint was written."""
        from mlagents.trainers.action_info import ActionInfo

        nobody = TerminalSteps.empty(self.spec)
        for worker, decisions in waiting.items():
            self.manager.add_experiences(decisions, nobody, worker + self.offset, ActionInfo.empty())
            self.waiting[worker] = decisions

    def drop_agents(self, worker: int | None = None) -> list[str]:
        """Drop what the agents of a worker, or of all, were in the middle of, and return their ids."""
        manager, start = self.manager, "agent_" if worker is None else f"agent_{worker + self.offset}-"
        known = [manager._experience_buffers, manager._last_step_result, manager._last_take_action_outputs]
        known += [manager.policy.memory_dict, manager.policy.previous_action_dict]
        agents = sorted({agent for table in known for agent in table if agent.startswith(start)})
        for agent in agents:
            manager._clear_group_status_and_obs(agent)
            manager._clean_agent_data(agent)
        for kept in (self.waiting, self._before):
            for key in list(kept):
                if worker in (None, key):
                    del kept[key]
        return agents

    def discard(self) -> None:
        """Let go of trajectories that nobody learns from any more."""
        while self.manager.trajectory_queue.qsize():
            self.manager.trajectory_queue.get_nowait()

    def _global_id(self, worker: int, agent: int) -> str:
        return f"agent_{worker + self.offset}-{agent}"


def _sent(action: ActionTuple | None, agents: int, spec: BehaviorSpec) -> ActionTuple:
    """Return what a policy wants to be done, in the types of environments."""
    if action is None:
        raise TypeError("its policy's get_action gave no env_action")
    continuous, discrete = np.asarray(action.continuous, np.float32), np.asarray(action.discrete, np.int32)
    wanted = (agents, spec.action_spec.continuous_size), (agents, spec.action_spec.discrete_size)
    if (continuous.shape, discrete.shape) != wanted:
        raise ValueError(f"its policy gave actions of the shapes {continuous.shape} and {discrete.shape}, not {wanted}")
    return ActionTuple(continuous, discrete)


def _floats(obs: list[np.ndarray]) -> list[np.ndarray]:
    """Return copies: what an environment shows may change once it got its actions."""
    return [
        to_floats(array) if array.ndim == 4 and array.dtype == np.uint8 else array.astype(np.float32) for array in obs
    ]


def _decisions(steps: DecisionSteps) -> DecisionSteps:
    mask = None if steps.action_mask is None else [branch.astype(np.bool_) for branch in steps.action_mask]
    ids, groups = steps.agent_id.copy(), steps.group_id.copy()
    return DecisionSteps(_floats(steps.obs), steps.reward.copy(), ids, mask, groups, steps.group_reward.copy())


def _terminals(steps: TerminalSteps) -> TerminalSteps:
    ids, groups, interrupted = steps.agent_id.copy(), steps.group_id.copy(), steps.interrupted.copy()
    return TerminalSteps(_floats(steps.obs), steps.reward.copy(), interrupted, ids, groups, steps.group_reward.copy())
