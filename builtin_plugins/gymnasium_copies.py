"""Single copies of a Gymnasium environment, stepped one after another, as a `BaseEnv`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium import Env
from mlagents_envs.base_env import ActionTuple

from builtin_plugins.gymnasium_behavior import GymnasiumBehavior
from builtin_plugins.gymnasium_spaces import Encoded
from mlhooks.errors import EnvironmentFailure


class GymnasiumCopies(GymnasiumBehavior):
    """Agents are copies that decide at every step: where an episode ends, the next one begins in the same step.

    Gymnasium's own loop over copies, `SyncVectorEnv`, also gathers their infos, which agents do not see, and batches
    their observations in the types of their space, which the encoder then changes: both together take longer than a
    step of a small environment.

    Args:
        envs: What `gymnasium.make` made, each copy with the same arguments.
        settings: Those of `GymnasiumBehavior`.

    Raises:
        UnsupportedError: A space cannot be learned from or acted in.
        EnvironmentFailure: The copies differ in their spaces.
    """

    def __init__(self, *envs: Env[Any, Any], **settings: Any) -> None:
        spaces = envs[0].observation_space, envs[0].action_space
        super().__init__(envs, spaces, len(envs), **settings)
        for env in envs:
            if (env.observation_space, env.action_space) != spaces:
                raise EnvironmentFailure(
                    f"The copies of {self._title} differ in their spaces: one has {env.observation_space} and "
                    f"{env.action_space}, another {spaces[0]} and {spaces[1]}; make them alike."
                )
        self._envs = envs
        self._seeds: list[int] | list[None] = self._first_seeds

    def _restart(self) -> None:
        obs = self._begin(range(self.num_agents))
        self._seeds = [None] * self.num_agents  # later resets go on with the same random streams
        self._decisions = self._decide(obs, np.zeros(self.num_agents, dtype=np.float32))
        self._terminals = self._none_ended

    def _begin(self, agents: Iterable[int]) -> list[Encoded]:
        """Reset these copies; return their first observations."""
        try:
            return self._encode.each([self._envs[agent].reset(seed=self._seeds[agent])[0] for agent in agents])
        except Exception as error:
            raise self._failed("reset", error) from error

    def _advance(self, action: ActionTuple) -> None:
        actions = self._decode(action)
        observations, ended, interrupted = [], [], []
        reward = np.empty(self.num_agents, dtype=np.float32)
        try:
            for agent, (env, taken) in enumerate(zip(self._envs, actions, strict=True)):
                there, reward[agent], terminated, truncated, _ = env.step(taken)
                observations.append(there)
                if terminated or truncated:
                    ended.append(agent)
                    interrupted.append(not terminated)
            # Before any reset, which may write into the array that an environment has just shown.
            obs = self._encode.each(observations)
        except Exception as error:
            raise self._failed("step", error) from error
        self._terminals = self._none_ended
        if ended:
            rows = np.array(ended)
            self._terminals = self._end([part[rows] for part in obs], reward[rows], np.array(interrupted), rows)
            reward[rows] = 0.0
            for part, first in zip(obs, self._begin(ended), strict=True):
                part[rows] = first
        self._decisions = self._decide(obs, reward)
