"""Environment parameters on the environment's side: what its episodes draw their values from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlhooks.errors import UsageError

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv

    from mlhooks.settings.environment_parameters import ParameterRandomizationSettings

Parameters = Mapping[str, "ParameterRandomizationSettings"]
"""What each environment parameter is, or is drawn from, now."""


class Sampler:
    """Draws the values of one environment parameter; a constant is drawn, too.

    Args:
        settings: what the values are drawn from; its seed is set.
        worker_id: workers with one seed draw from independent streams.
    """

    def __init__(self, settings: ParameterRandomizationSettings, worker_id: int = 0) -> None:
        self.settings = settings
        self._rng = np.random.default_rng([settings.seed % 2**32, worker_id])

    def draw(self, count: int = 1) -> np.ndarray:
        """Draw values for so many episodes, [count] as float64."""
        kind, rng = self.settings.sampler_type, self._rng
        numbers: dict[str, Any] = self.settings.as_dict()["sampler_parameters"]
        if kind == "uniform":
            return rng.uniform(numbers["min_value"], numbers["max_value"], count)
        if kind == "gaussian":
            return rng.normal(numbers["mean"], numbers["st_dev"], count)
        if kind == "multirangeuniform":
            low, high = np.array(numbers["intervals"], np.float64).T
            widths = high - low
            shares = widths / widths.sum() if widths.any() else None
            chosen = rng.choice(len(low), count, p=shares)
            return np.asarray(rng.uniform(low[chosen], high[chosen]))
        return np.full(count, numbers["value"], np.float64)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of its random generator."""
        return dict(self._rng.bit_generator.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._rng.bit_generator.state = dict(state)


def refuse_parameters(parameters: Iterable[str] | None, name: str) -> None:
    """Refuse environment parameters, where there are any, for an environment that takes none.

    Raises:
        UsageError: names the environment and the parameters.
    """
    if parameters:
        raise UsageError(
            f"{name} takes no environment parameters, and environment_parameters of the configuration sets "
            f"{', '.join(parameters)}. Remove this section, or run an environment that takes them."
        )


def set_parameters(env: BaseEnv, parameters: Parameters, worker_id: int, name: str = "This environment") -> None:
    """Hand environment parameters to an environment, by its `set_parameters`; they may be none.

    Args:
        env: the environment.
        parameters: all of them.
        worker_id: whose environment it is.
        name: its name in messages.

    Raises:
        UsageError: it has no `set_parameters`.
    """
    if not parameters:
        return
    if not hasattr(env, "set_parameters"):
        refuse_parameters(parameters, name)
    env.set_parameters({key: Sampler(value, worker_id) for key, value in parameters.items()})
