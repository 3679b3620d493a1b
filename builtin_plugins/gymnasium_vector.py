"""A Gymnasium vector environment as a `BaseEnv`: its copies are the agents of one behavior."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array
from mlagents_envs.base_env import ActionTuple, BehaviorSpec

from builtin_plugins.gymnasium_spaces import Encoded, ObservationEncoder, action_decoder
from builtin_plugins.single_behavior import SingleBehaviorEnv
from mlhooks.errors import EnvironmentFailure


class GymnasiumEnv(SingleBehaviorEnv):
    """Agents are the copies inside a vector environment, which alone loops over them, if it does.

    A truncated episode is an interrupted one. Where the vector environment resets a copy in the step after its
    episode's end (`AutoresetMode.NEXT_STEP`), that step's transition does not exist for the agent: it gets its
    terminal step with the final observation at once and decides again one step later.

    Args:
        vector_env: Whatever `gymnasium.make_vec` made.
        behavior_name: Name of the behavior.
        title: How errors call the environment.
        seed: With `worker_id`, gives the seeds of the first reset: one per copy of a `SyncVectorEnv`, else one.
        worker_id: Workers with one seed get independent seeds.

    Raises:
        UnsupportedError: A space cannot be learned from or acted in.
        EnvironmentFailure: The vector environment does not say when it resets its copies.
    """

    def __init__(
        self, vector_env: VectorEnv[Any, Any], behavior_name: str, *, title: str, seed: int, worker_id: int = 0
    ) -> None:
        self._encode = ObservationEncoder(vector_env.single_observation_space, title)
        action_spec, self._decode = action_decoder(vector_env.single_action_space, title)
        super().__init__(behavior_name, BehaviorSpec(self._encode.specs, action_spec), vector_env.num_envs)
        self._env = vector_env
        self._title = title
        try:
            self._mode = AutoresetMode(vector_env.metadata["autoreset_mode"])
        except (KeyError, ValueError) as error:
            raise EnvironmentFailure(
                f"The vectorized implementation of {title} does not say in metadata['autoreset_mode'] when it resets "
                'its copies; step single copies instead: "vectorization_mode: sync" in env_settings.env_kwargs.'
            ) from error
        seeds = np.random.SeedSequence([seed, worker_id]).generate_state(self.num_agents).tolist()
        self._seed: int | list[int] | None = seeds if isinstance(vector_env.unwrapped, SyncVectorEnv) else seeds[0]
        self._resetting: npt.NDArray[np.bool_] | None = None
        """Under NEXT_STEP: whose coming step is the reset, [agents]; None if nobody's."""

    def close(self) -> None:
        """Close the vector environment; further calls do nothing."""
        if not self._closed:
            self._env.close()
        super().close()

    def _restart(self) -> None:
        batch, _ = self._call("reset", seed=self._seed)
        self._seed = None  # later resets go on with the same random streams
        self._resetting = None
        self._decisions = self._decide(self._encode(batch), np.zeros(self.num_agents, dtype=np.float32))
        self._terminals = self._none_ended

    def _advance(self, action: ActionTuple) -> None:
        resetting, self._resetting = self._resetting, None
        if resetting is not None:
            action = self._fill_in(action, np.flatnonzero(~resetting))
        batch, rewards, terminated, truncated, info = self._call("step", self._decode(action))
        obs, reward = self._encode(batch), np.array(rewards, dtype=np.float32)
        if resetting is not None:
            reward[resetting] = 0.0
        terminated = np.asarray(terminated)
        ended = terminated | np.asarray(truncated)
        if not np.count_nonzero(ended):
            self._decisions, self._terminals = self._decide(obs, reward), self._none_ended
            return
        rows = np.flatnonzero(ended)
        final = obs if self._mode is not AutoresetMode.SAME_STEP else self._final_observations(info, rows)
        self._terminals = self._end([part[rows] for part in final], reward[rows], ~terminated[rows], rows)
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
            rows = np.flatnonzero(~ended)
            obs, reward = [part[rows] for part in obs], reward[rows]
        self._decisions = self._decide(obs, reward, rows)

    def _fill_in(self, action: ActionTuple, rows: npt.NDArray[np.intp]) -> ActionTuple:
        """Return actions for all agents: those given for the agents at `rows`, and any valid ones for the others."""
        filled = self._action_spec.empty_action(self.num_agents)
        filled.continuous[rows] = action.continuous
        filled.discrete[rows] = action.discrete
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
            raise EnvironmentFailure(f"{self._title} failed in {method}(): {type(error).__name__}: {error}") from error
