"""What single copies of a Gymnasium environment and vector environments share as a behavior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import Env
from gymnasium.vector import VectorEnv
from mlagents_envs.base_env import BehaviorSpec

from builtin_plugins.gymnasium_spaces import ObservationEncoder, action_decoder
from builtin_plugins.single_behavior import SingleBehaviorEnv
from mlhooks.errors import EnvironmentFailure


class GymnasiumBehavior(SingleBehaviorEnv):
    """Agents are copies of an environment, whose spaces become the behavior's observations and actions.

    Args:
        opened: The environments, which `close` closes.
        spaces: Observation and action space of one copy.
        agents: How many copies there are.
        behavior_name: Name of the behavior.
        title: How errors call the environment.
        seed: With `worker_id`, gives the seeds of the first reset.
        worker_id: Workers with one seed get independent seeds.

    Raises:
        UnsupportedError: A space cannot be learned from or acted in.
    """

    def __init__(
        self,
        opened: Sequence[Env[Any, Any] | VectorEnv[Any, Any]],
        spaces: tuple[Any, Any],
        agents: int,
        *,
        behavior_name: str,
        title: str,
        seed: int,
        worker_id: int = 0,
    ) -> None:
        observation_space, action_space = spaces
        self._encode = ObservationEncoder(observation_space, title)
        action_spec, self._decode = action_decoder(action_space, agents, title)
        super().__init__(behavior_name, BehaviorSpec(self._encode.specs, action_spec), agents)
        self._opened = opened
        self._title = title
        self._first_seeds: list[int] = np.random.SeedSequence([seed, worker_id]).generate_state(agents).tolist()

    def close(self) -> None:
        """Close the environments; further calls do nothing."""
        if not self._closed:
            for env in self._opened:
                env.close()
        super().close()

    def _failed(self, method: str, error: Exception) -> EnvironmentFailure:
        """What to raise when a method of an environment raised an error."""
        return EnvironmentFailure(f"{self._title} failed in {method}(): {type(error).__name__}: {error}")
