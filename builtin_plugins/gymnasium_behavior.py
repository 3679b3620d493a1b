"""The behavior that single copies of a Gymnasium environment and vector environments share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from gymnasium import Env
from gymnasium.vector import VectorEnv
from mlagents_envs.base_env import BehaviorSpec

from builtin_plugins.gymnasium_answers import interface_hint, place_of
from builtin_plugins.gymnasium_extras import by_our_extras
from builtin_plugins.gymnasium_spaces import AS_DECLARED, Reading, describe_spaces
from mlhooks.describing import named
from mlhooks.envs.single_behavior import SingleBehaviorEnv
from mlhooks.errors import WrongAnswer
from mlhooks.places import defined_at, in_brackets, raised_at
from mlhooks.plugin import ActionDecoder, ContractBroken, EnvironmentFailure, Misfit, Spaces

if TYPE_CHECKING:
    from builtin_plugins.gymnasium_wrapping import ConfiguredWrapper

logger = logging.getLogger("mlhooks")

Check = Literal["first", "always", "never"]
When = Literal["reset", "step", "end"]


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
        check: Which observations are looked at in full: of each copy the first after a reset, after a step and at an
            episode's end, where bounds are only warned of; all; or none.
        reading: What the configuration says about observations.

    Attributes:
        behavior_spaces: The spaces under the behavior's name.

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
        check: Check = "first",
        reading: Reading = AS_DECLARED,
    ) -> None:
        known = describe_spaces(*spaces, title, reading)
        self.behavior_spaces: Mapping[str, Spaces] = MappingProxyType({behavior_name: known})
        self._encode, self._decode = known.encode, ActionDecoder(known.action, agents)
        super().__init__(behavior_name, BehaviorSpec(self._encode.specs, self._decode.spec), agents)
        self._opened = opened
        self._title, self._reading = title, reading
        self._first_seeds: list[int] = np.random.SeedSequence([seed, worker_id]).generate_state(agents).tolist()
        self._check_ends, self._warned = check == "first", False
        self._to_check: dict[When, set[int]] = {
            when: set() if check == "never" else set(range(agents)) for when in ("reset", "step", "end")
        }
        """Copies whose observations are still to be looked at in full."""

    def close(self) -> None:
        """Close the environments; further calls do nothing.

        Raises:
            Exception: What the first of them raised that cannot be closed; the others are closed all the same.
        """
        if self._closed:
            return
        super().close()
        failed: Exception | None = None
        for env in self._opened:
            try:
                env.close()
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _check(self, when: When, method: str, copies: Sequence[int], shown: Iterable[Any]) -> None:
        """Look at the observations of copies in full, where that is still to be done.

        At the first end of an episode one that is not bent, such as beyond its bounds, is only warned of, because that
        is late, and even environments of Gymnasium show such observations where something falls.

        Raises:
            EnvironmentFailure: One is not in its space.
        """
        due = self._to_check[when]
        for copy, observation in zip(copies, shown, strict=True):
            if copy not in due:
                continue
            try:
                self._encode.check(observation, copy)
            except Misfit as misfit:
                if not (misfit.strict and when == "end" and self._check_ends):
                    raise self._failed(method, misfit) from misfit
                if not self._warned:
                    self._warned = True
                    logger.warning("%s: at the end of an episode %s. Training goes on with it.", self._title, misfit)
            if self._check_ends:
                due.discard(copy)

    def _failed(self, method: str, error: Exception, copy: int | None = None) -> EnvironmentFailure:
        """Return what to raise when a method of an environment, or of one copy, failed or gave a wrong answer."""
        copy = error.copy if isinstance(error, Misfit) else copy
        of_copy = "" if copy is None or self.num_agents == 1 else f" of copy {copy}"
        failed = f"{self._title} failed in {method}(){of_copy}"
        which = copy if copy is not None and copy < len(self._opened) else 0
        if not isinstance(error, WrongAnswer | Misfit):
            what = by_our_extras(named(error))
            if wrapper := self._raised_in(error, which):
                place = in_brackets(raised_at(error) or defined_at(wrapper.maker))
                return EnvironmentFailure(f"The wrapper {wrapper} of {failed}: {what}{place}")
            if why := interface_hint(error):
                return ContractBroken(f"{failed}: {what}{in_brackets(self._place_of(which, method))}. {why}")
            return EnvironmentFailure(f"{failed}: {what}{in_brackets(raised_at(error))}")
        if wrapper := self._shows_unfit(error, which):
            made = in_brackets(defined_at(wrapper.maker))
            return ContractBroken(
                f"{failed}: {error}. The wrapper {wrapper} makes it so: correct what it returns, or its spaces{made}."
            )
        place = in_brackets(self._place_of(which, method))
        if isinstance(error, WrongAnswer):
            return ContractBroken(f"{failed}: {error}{place}.")
        without = ", or turn this check off by --set env_settings.check=never" if error.strict else ""
        return ContractBroken(f"{failed}: {error}. Correct {method}(){place} or the observation_space{without}.")

    def _place_of(self, copy: int, method: str) -> str:
        return place_of(self._of_environment(copy), method)

    def _of_environment(self, copy: int) -> Env[Any, Any] | VectorEnv[Any, Any]:
        """Return a copy without the wrappers of the configuration, or the vector environment."""
        return self._opened[copy]

    def _raised_in(self, error: Exception, copy: int) -> ConfiguredWrapper | None:  # noqa: ARG002
        """Return the wrapper of a copy in whose code an error was raised; None where it was the environment's."""
        return None

    def _shows_unfit(self, error: Exception, copy: int) -> ConfiguredWrapper | None:  # noqa: ARG002
        """Return the wrapper of a copy that makes its answers unfit; None where that is the environment, or unknown."""
        return None
