"""A Gymnasium vector environment as a `BaseEnv`: its copies are the agents of one behavior."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from mlagents_envs.base_env import ActionTuple

from builtin_plugins import gymnasium_answers as answers
from builtin_plugins.gymnasium_behavior import GymnasiumBehavior, When
from mlhooks.errors import WrongAnswer
from mlhooks.plugin import ContractBroken, Encoded, EnvironmentFailure, Misfit

Rows = npt.NDArray[np.intp]
"""Indices of agents."""


class GymnasiumVector(GymnasiumBehavior):
    """Agents are the copies inside a vector environment.

    A truncated episode is an interrupted one. Where the vector environment resets a copy in the step after its
    episode's end (`AutoresetMode.NEXT_STEP`), that step's transition does not exist for the agent: it gets its
    terminal step with the final observation at once and decides again one step later.

    Args:
        vector_env: An environment's own vectorized implementation. A `SyncVectorEnv` gets a seed per copy, others one.
        settings: Those of `GymnasiumBehavior`.

    Raises:
        UnsupportedError: A space cannot be learned from or acted in.
        EnvironmentFailure: The vector environment does not say when it resets its copies.
    """

    def __init__(self, vector_env: VectorEnv[Any, Any], **settings: Any) -> None:
        spaces = vector_env.single_observation_space, vector_env.single_action_space
        super().__init__([vector_env], spaces, vector_env.num_envs, **settings)
        self._env = vector_env
        try:
            self._mode = AutoresetMode(vector_env.metadata["autoreset_mode"])
        except (KeyError, ValueError) as error:
            raise EnvironmentFailure(
                f"The vectorized implementation of {self._title} does not say in metadata['autoreset_mode'] when it "
                'resets its copies; step single copies instead: "vectorization_mode: sync" in env_settings.env_kwargs.'
            ) from error
        seeds = self._first_seeds
        self._seed: int | list[int] | None = seeds if isinstance(vector_env.unwrapped, SyncVectorEnv) else seeds[0]
        self._split: tuple[Rows, Rows] | None = None
        """Under NEXT_STEP: whose coming step is the reset, and who acts in it; None if all act."""

    def _restart(self) -> None:
        obs = self._seen("reset", "reset", self._call("reset", seed=self._seed))
        self._seed = None  # Later resets go on with the same random streams.
        self._split = None
        self._decisions = self._decide(obs, np.zeros(self.num_agents, dtype=np.float32))
        self._terminals = self._none_ended

    def _advance(self, action: ActionTuple) -> None:
        split, self._split = self._split, None
        if split is not None:
            resetting, acting = split
            action = self._fill_in(action, acting)
        batch, rewards, terminated, truncated, info = self._call("step", self._decode(action))
        obs = self._seen("step", "step", batch)
        try:
            reward = answers.rewards(rewards, self.num_agents)
            terminated = answers.flags("terminated", terminated, self.num_agents)
            truncated = answers.flags("truncated", truncated, self.num_agents)
        except WrongAnswer as error:
            raise self._failed("step", error) from error
        if split is not None:
            reward[resetting] = 0.0
        ended = np.logical_or(terminated, truncated)
        if not np.count_nonzero(ended):
            self._decisions, self._terminals = self._decide(obs, reward), self._none_ended
            return
        (rows,) = ended.nonzero()
        if self._mode is AutoresetMode.SAME_STEP:
            final = self._final_observations(info, rows)
        else:
            final = _taken(obs, rows)
            self._check_batch("end", "step", batch, rows)
        interrupted = ~terminated[rows]
        self._terminals = self._end(final, reward[rows], interrupted, rows)
        reward[rows] = 0.0
        self._begin_after(ended, rows, obs, reward)

    def _begin_after(
        self, ended: npt.NDArray[np.bool_], rows: Rows, obs: list[Encoded], reward: npt.NDArray[np.float32]
    ) -> None:
        """Set the decision steps after a step in which episodes ended, those of the agents at `rows`.

        Under SAME_STEP `obs` holds the first observations of their next episodes.
        """
        acting = None
        if self._mode is AutoresetMode.DISABLED:
            obs = self._seen("reset", "reset", self._call("reset", options={"reset_mask": ended}))
        elif self._mode is AutoresetMode.NEXT_STEP and len(rows) == self.num_agents:
            # Nobody waits for an action, so nobody loses a decision if the resets happen at once.
            batch, *_ = self._call("step", self._decode(self._action_spec.empty_action(self.num_agents)))
            obs = self._seen("reset", "step", batch)
        elif self._mode is AutoresetMode.NEXT_STEP:
            (acting,) = (~ended).nonzero()
            self._split = rows, acting
            obs, reward = _taken(obs, acting), reward[acting]
        self._decisions = self._decide(obs, reward, acting)

    def _fill_in(self, action: ActionTuple, acting: Rows) -> ActionTuple:
        """Return actions for all agents: those given for the agents at `acting`, and for the others any of those."""
        source = np.zeros(self.num_agents, dtype=np.intp)
        source[acting] = np.arange(len(acting))
        return ActionTuple(*_taken([action.continuous, action.discrete], source))

    def _final_observations(self, info: dict[str, Any], rows: Rows) -> list[Encoded]:
        """Return the final observations of the agents at `rows`, which alone have them in their infos."""
        if "final_obs" not in info:
            raise ContractBroken(
                f"The vectorized implementation of {self._title} resets its copies in the step that ends an episode, "
                "but gives no info['final_obs'] with the final observations."
            )
        final = info["final_obs"]
        try:
            if isinstance(final, np.ndarray) and final.dtype == object:
                return self._final_objects(final, rows)
            encoded = _taken(self._encode(final, self.num_agents), rows)
        except Misfit as misfit:
            raise self._failed("step", misfit) from misfit
        self._check_batch("end", "step", final, rows)
        return encoded

    def _final_objects(self, final: npt.NDArray[np.object_], rows: Rows) -> list[Encoded]:
        shown = [final[row] for row in rows]
        try:
            encoded = self._encode.each(shown)
        except Misfit as misfit:
            misfit.copy = int(rows[misfit.copy or 0])
            raise
        if self._to_check["end"]:
            self._check("end", "step", rows.tolist(), shown)
        return encoded

    def _seen(self, when: When, method: str, batch: Any) -> list[Encoded]:
        """Encode the observations of all copies."""
        try:
            obs = self._encode(batch, self.num_agents)
        except Misfit as misfit:
            raise self._failed(method, misfit) from misfit
        self._check_batch(when, method, batch, range(self.num_agents))
        return obs

    def _check_batch(self, when: When, method: str, batch: Any, rows: Iterable[int]) -> None:
        if due := self._to_check[when]:
            copies = [int(row) for row in rows if row in due]
            self._check(when, method, copies, (self._encode.row(batch, copy) for copy in copies))

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the batch of observations that `reset` returned, or all five parts that `step` returned."""
        try:
            answer = getattr(self._env, method)(*args, **kwargs)
            return answers.of_reset(answer) if method == "reset" else answers.of_step(answer)
        except Exception as error:
            raise self._failed(method, error) from error


def _taken(arrays: list[npt.NDArray[Any]], rows: Rows) -> list[npt.NDArray[Any]]:
    """Return these rows of arrays; on few of them `take` is several times as fast as indexing."""
    return [array.take(rows, axis=0) for array in arrays]
