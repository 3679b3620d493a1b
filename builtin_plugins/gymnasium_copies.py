"""Single copies of a Gymnasium environment, stepped one after another, as a `BaseEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import Env
from mlagents_envs.base_env import ActionTuple, TerminalSteps

from builtin_plugins import gymnasium_answers as answers
from builtin_plugins.gymnasium_answers import NUMBERS
from builtin_plugins.gymnasium_behavior import GymnasiumBehavior
from mlhooks.envs.own_terms import OwnTerms
from mlhooks.plugin import Encoded, EnvironmentFailure, Misfit

if TYPE_CHECKING:
    from builtin_plugins.gymnasium_stack import Stack
    from builtin_plugins.gymnasium_wrapping import ConfiguredWrapper


class GymnasiumCopies(GymnasiumBehavior):
    """Agents are copies that decide at every step: where an episode ends, the next one begins in the same step.

    Gymnasium's own loop over copies, `SyncVectorEnv`, also gathers their infos, which agents do not see, and batches
    their observations in the types of their space, which the encoder then changes: both together take longer than a
    step of a small environment.

    Args:
        envs: What `gymnasium.make` made, each copy with the same arguments.
        stacks: The wrappers of the configuration around each copy, whose episodes are then counted beneath them; none
            where there are no wrappers.
        settings: Those of `GymnasiumBehavior`.

    Raises:
        UnsupportedError: A space cannot be learned from or acted in.
        EnvironmentFailure: The copies differ in their spaces.
    """

    def __init__(self, *envs: Env[Any, Any], stacks: Sequence[Stack] = (), **settings: Any) -> None:
        spaces = envs[0].observation_space, envs[0].action_space
        super().__init__(envs, spaces, len(envs), **settings)
        for env in envs:
            if (env.observation_space, env.action_space) != spaces:
                raise EnvironmentFailure(
                    f"The copies of {self._title} differ in their spaces: one has {env.observation_space} and "
                    f"{env.action_space}, another {spaces[0]} and {spaces[1]}; make them alike."
                )
        self._envs, self._stacks = envs, stacks
        self._lengths = np.zeros(len(envs), np.int64)
        """Decisions since the last beginning of an environment's own episode, where there are wrappers."""
        self._seeds: list[int] | list[None] = self._first_seeds

    def _restart(self) -> None:
        obs = self._begin(range(self.num_agents))
        self._seeds = [None] * self.num_agents  # Later resets go on with the same random streams.
        self._decisions = self._decide(obs, np.zeros(self.num_agents, dtype=np.float32))
        self._terminals = self._none_ended
        for stack in self._stacks:
            stack.meter.take()
        self._lengths[:] = 0

    def _begin(self, agents: Sequence[int]) -> list[Encoded]:
        """Reset these copies, and return their first observations."""
        observations = []
        for agent in agents:
            try:
                observations.append(answers.of_reset(self._envs[agent].reset(seed=self._seeds[agent])))
            except Exception as error:
                raise self._failed("reset", error, agent) from error
        try:
            obs = self._encode.each(observations)
        except Misfit as misfit:
            misfit.copy = agents[misfit.copy or 0]
            raise self._failed("reset", misfit) from misfit
        if self._to_check["reset"]:
            self._check("reset", "reset", agents, observations)
        return obs

    def _advance(self, action: ActionTuple) -> None:
        actions = self._decode.each(self._decode(action))
        observations, ended, interrupted = [], [], []
        reward = np.empty(self.num_agents, dtype=np.float32)
        agent = 0
        answer: Any = (None,) * 5
        try:
            for agent, (env, taken) in enumerate(zip(self._envs, actions, strict=True)):
                answer = there, given, terminated, truncated, _ = env.step(taken)
                reward[agent] = given if type(given) in NUMBERS else answers.reward(given)
                observations.append(there)
                if terminated is False and truncated is False:
                    continue
                over = answers.flag("terminated", terminated)
                if answers.flag("truncated", truncated) or over:
                    ended.append(agent)
                    interrupted.append(not over)
            # Before any reset, which may write into the array that an environment has just shown.
            obs = self._encode.each(observations)
        except Exception as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                error = answers.wrong_step(answer, error)  # It was raised here, where the answer was unpacked.
            raise self._failed("step", error, agent) from error
        if self._to_check["step"]:
            self._check("step", "step", range(self.num_agents), observations)
        self._terminals = self._none_ended
        if self._stacks:
            self._lengths += 1
        if ended:
            if self._to_check["end"]:
                self._check("end", "step", ended, [observations[agent] for agent in ended])
            rows = np.array(ended)
            self._terminals = self._end([part[rows] for part in obs], reward[rows], np.array(interrupted), rows)
            reward[rows] = 0.0
            for part, first in zip(obs, self._begin(ended), strict=True):
                part[rows] = first
            if self._stacks:
                self._terminals = self._in_own_terms(self._terminals, rows)
        self._decisions = self._decide(obs, reward)

    def _in_own_terms(self, steps: TerminalSteps, rows: np.ndarray) -> OwnTerms:
        """Return terminal steps of the agents at `rows`, which have begun again, with their environments' episodes."""
        returns = np.array([self._stacks[row].meter.take() for row in rows])
        lengths = self._lengths[rows]
        self._lengths[rows[~np.isnan(returns)]] = 0
        seen = steps.obs, steps.reward, steps.interrupted, steps.agent_id, steps.group_id, steps.group_reward
        return OwnTerms(*seen, own_returns=returns, own_lengths=lengths)

    def _of_environment(self, copy: int) -> Env[Any, Any]:
        """Return a copy without the wrappers of the configuration."""
        return self._stacks[copy].meter.env if self._stacks else self._envs[copy]

    def _raised_in(self, error: Exception, copy: int) -> ConfiguredWrapper | None:
        return self._stacks[copy].raised_in(error) if self._stacks else None

    def _shows_unfit(self, error: Exception, copy: int) -> ConfiguredWrapper | None:
        if not self._stacks or self._stacks[copy].is_environments(error):
            return None
        return self._stacks[copy].unfit(self._reading)
