"""A Gymnasium vector environment as a `BaseEnv`: its copies are the agents of one behavior."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array
from mlagents_envs.base_env import ActionTuple

from builtin_plugins.gymnasium_behavior import GymnasiumBehavior
from builtin_plugins.gymnasium_spaces import Encoded
from mlhooks.errors import EnvironmentFailure


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
        self._resetting: npt.NDArray[np.bool_] | None = None
        """Under NEXT_STEP: whose coming step is the reset, [agents]; None if nobody's."""

    def _restart(self) -> None:
        batch, _ = self._call("reset", seed=self._seed)
        self._seed = None  # later resets go on with the same random streams
        self._resetting = None
        self._decisions = self._decide(self._encode(batch), np.zeros(self.num_agents, dtype=np.float32))
        self._terminals = self._none_ended

    def _advance(self, action: ActionTuple) -> None:
        resetting, self._resetting = self._resetting, None
        if resetting is not None:
            action = self._fill_in(action, ~resetting)
        batch, rewards, terminated, truncated, info = self._call("step", self._decode(action))
        obs, reward = self._encode(batch), np.array(rewards, dtype=np.float32)
        if resetting is not None:
            reward[resetting] = 0.0
        ended = np.logical_or(terminated, truncated)
        if not np.count_nonzero(ended):
            self._decisions, self._terminals = self._decide(obs, reward), self._none_ended
            return
        (rows,) = ended.nonzero()
        final = obs if self._mode is not AutoresetMode.SAME_STEP else self._final_observations(info, rows)
        interrupted = ~np.asarray(terminated)[rows]
        self._terminals = self._end([part[rows] for part in final], reward[rows], interrupted, rows)
        reward[rows] = 0.0
        self._begin_after(ended, obs, reward)

    def _begin_after(self, ended: npt.NDArray[np.bool_], obs: list[Encoded], reward: npt.NDArray[np.float32]) -> None:
        """Set the decision steps after a step in which episodes ended; under SAME_STEP `obs` holds the first ones."""
        rows = None
        if self._mode is AutoresetMode.DISABLED:
            batch, _ = self._call("reset", options={"reset_mask": ended})
            obs = self._encode(batch)
        elif self._mode is AutoresetMode.NEXT_STEP and ended.all():
            # Nobody waits for an action, so nobody loses a decision if the resets happen at once.
            batch, *_ = self._call("step", self._decode(self._action_spec.empty_action(self.num_agents)))
            obs = self._encode(batch)
        elif self._mode is AutoresetMode.NEXT_STEP:
            self._resetting = ended
            (rows,) = (~ended).nonzero()
            obs, reward = [part[rows] for part in obs], reward[rows]
        self._decisions = self._decide(obs, reward, rows)

    def _fill_in(self, action: ActionTuple, acting: npt.NDArray[np.bool_]) -> ActionTuple:
        """Return actions for all agents: those given for the agents that act, and any valid ones for the others."""
        filled = self._action_spec.empty_action(self.num_agents)
        filled.continuous[acting] = action.continuous
        filled.discrete[acting] = action.discrete
        return filled

    def _final_observations(self, info: dict[str, Any], rows: npt.NDArray[np.intp]) -> list[Encoded]:
        """Return arrays of all agents whose rows at `rows` hold the final observations of their episodes."""
        if "final_obs" not in info:
            raise EnvironmentFailure(
                f"The vectorized implementation of {self._title} resets its copies in the step that ends an episode, "
                "but gives no info['final_obs'] with the final observations."
            )
        final = info["final_obs"]
        if not (isinstance(final, np.ndarray) and final.dtype == object):
            return self._encode(final)
        space = self._env.single_observation_space
        empty: Any = create_empty_array(space, len(rows))
        gathered = concatenate(space, [final[row] for row in rows], empty)
        arrays = []
        for part in self._encode(gathered):
            spread = np.zeros((self.num_agents, *part.shape[1:]), dtype=np.float32)
            spread[rows] = part
            arrays.append(spread)
        return arrays

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self._env, method)(*args, **kwargs)
        except Exception as error:
            raise self._failed(method, error) from error
