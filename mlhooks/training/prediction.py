"""Using what a run has learned, from Python."""

from __future__ import annotations

from typing import Any

import numpy as np
from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps

from mlhooks.envs.pixels import to_floats
from mlhooks.envs.spaces import Misfit, Spaces, found
from mlhooks.errors import UsageError
from mlhooks.training.policy import Policy


class LoadedPolicy:
    """A trained policy; made by `mlhooks.load`.

    Attributes:
        behavior_name: the behavior it was trained for.
        behavior_spec: the observations that it takes and the actions that it gives, as ML-Agents knows them.
        spaces: what it takes and gives in the terms of its environment; None where these are ML-Agents'.
    """

    def __init__(
        self, behavior_name: str, behavior_spec: BehaviorSpec, policy: Policy, spaces: Spaces | None = None
    ) -> None:
        self.behavior_name, self.behavior_spec, self.spaces = behavior_name, behavior_spec, spaces
        self._policy = policy
        self._rng = np.random.default_rng()
        self._memory: np.ndarray | None = None

    @property
    def memory_size(self) -> int:
        """The size of the memory that it carries for each agent; 0 without."""
        return self._policy.memory_size

    def __repr__(self) -> str:
        if self.spaces is not None:
            return f"LoadedPolicy({self.behavior_name!r}, {self.spaces.observation} -> {self.spaces.action})"
        shapes = ", ".join(str(tuple(spec.shape)) for spec in self.behavior_spec.observation_specs)
        actions = self.behavior_spec.action_spec
        continuous = [f"{actions.continuous_size} continuous"] if actions.continuous_size else []
        discrete = [f"discrete {tuple(actions.discrete_branches)}"] if actions.discrete_size else []
        return (
            f"LoadedPolicy({self.behavior_name!r}, observations {shapes} -> actions {', '.join(continuous + discrete)})"
        )

    def predict(
        self,
        observation: Any,
        *,
        action_mask: np.ndarray | None = None,
        deterministic: bool = True,
        raw: bool = False,
    ) -> Any:
        """Decide for one agent, or for a batch of them, in the terms of the environment that the policy was trained in.

        A policy with a memory remembers what each agent saw since `start`: call it where episodes begin.

        A policy of a Gymnasium environment takes what `reset` and `step` of that environment show, and gives what its
        `step` takes; for a batch, what those of its vector environment show and take. Which of both it is shows in the
        shapes: each part of a batch has one dimension more than its space.

        All other policies, as those of Unity, and all with `raw`, take and give what ML-Agents does.

        Args:
            observation: what the environment shows. Of ML-Agents' it is an array, or a list of arrays where the
                behavior has several observations. An image is [channels, height, width] then, with values in [0, 1],
                or as bytes from 0 to 255, which may also have their channels last.
            action_mask: flat over all branches, True where an action is forbidden; [agents, branches] for a batch.
            deterministic: take the most likely action rather than a random one.
            raw: take and give what ML-Agents does, whatever the environment was.

        Returns:
            A member of the environment's action space, or of the batch of it. Of ML-Agents' actions continuous ones
            [continuous] in [-1, 1], or discrete ones [branches] (an int for a single branch of one agent), or a pair of
            both for hybrid behaviors; with a leading [agents] for a batch.

        Raises:
            UsageError: an observation or the mask does not fit, or an observation holds NaN or an infinite number,
                whatever its space; says which part, what was found and what is wanted. Or a policy with a memory is
                shown another number of agents than before, without `start`.
        """
        if raw or self.spaces is None:
            with np.errstate(over="ignore"):  # The refusal calls infinite what is too large for float32.
                obs, single = self._read(observation)
            self._refuse_non_finite(obs, single, [tuple(array.shape[1:]) for array in obs])
            return self._written(self._act(obs, action_mask, deterministic), single)
        with np.errstate(over="ignore"):
            obs, single = self._encoded(self.spaces, observation)
        self._refuse_non_finite(obs, single, [leaf.shape for _, leaf in self.spaces.observation.leaves()])
        batch = self.spaces.decode(self._act(obs, action_mask, deterministic))
        return next(iter(self.spaces.decode.each(batch))) if single else batch

    def decide(
        self, steps: DecisionSteps, memory: np.ndarray, *, deterministic: bool, rng: np.random.Generator
    ) -> tuple[ActionTuple, np.ndarray]:
        """Decide for the agents that an environment shows, in ML-Agents' terms, whatever was shown before.

        Args:
            steps: the agents that ask for a decision, of a behavior as this policy was trained for.
            memory: [agents, memory_size] what each carries; zeros where its episode begins.
            deterministic: take the most likely actions rather than random ones.
            rng: the source of randomness.

        Returns:
            The actions, and the memory [agents, memory_size] that the agents carry on.
        """
        obs = [self._seen(array, tuple(array.shape[1:])) for array in steps.obs]
        mask = None if steps.action_mask is None else np.concatenate(steps.action_mask, axis=1).astype(np.bool_)
        policy: Any = self._policy
        policy.deterministic = deterministic
        actions = policy.act(obs, mask, rng, *([memory] if policy.memory_size else []))
        return policy.action_tuple(actions), actions.memory if policy.memory_size else memory

    def _act(self, obs: list[np.ndarray], action_mask: np.ndarray | None, deterministic: bool) -> ActionTuple:
        mask = None if action_mask is None else self._mask(action_mask, len(obs[0]))
        policy: Any = self._policy
        policy.deterministic = deterministic
        if not policy.memory_size:
            return policy.action_tuple(policy.act(obs, mask, self._rng))
        memory = np.zeros((len(obs[0]), policy.memory_size), np.float32) if self._memory is None else self._memory
        if len(memory) != len(obs[0]):
            raise UsageError(
                f"Behavior {self.behavior_name!r}: the policy remembers what {len(memory)} agents saw, and is shown "
                f"{len(obs[0])} now. Call start() first, with which new episodes begin."
            )
        actions = policy.act(obs, mask, self._rng, memory)
        self._memory = actions.memory
        return policy.action_tuple(actions)

    def start(self, ended: Any = None) -> None:
        """Begin new episodes: forget what was seen before. A policy without a memory has nothing to forget.

        Args:
            ended: [agents] of a batch, True for those whose episodes are over, as `terminated | truncated` tells; by
                default all begin again, and there may be another number of them.

        Raises:
            UsageError: `ended` is not of the agents that were shown last.
        """
        if ended is None or self._memory is None:
            self._memory = None
            return
        over = np.atleast_1d(ended)
        if over.shape != (len(self._memory),) or over.dtype != np.bool_:
            raise UsageError(
                f"Behavior {self.behavior_name!r}: `ended` is {found(ended)}, and must be {len(self._memory)} truth "
                "values, one for each agent that was shown last."
            )
        self._memory = np.where(over[:, None], np.float32(0.0), self._memory)

    def _mask(self, given: Any, agents: int) -> np.ndarray:
        """Read the action masks [agents, actions of all branches], True where an action is forbidden."""
        branches = self.behavior_spec.action_spec.discrete_branches
        try:
            mask = np.asarray(given)
        except ValueError:  # The lists differ in length.
            mask = np.empty(0, np.object_)
        shapes = [(agents, sum(branches))] + [(sum(branches),)] * (agents == 1)
        if mask.shape not in shapes or mask.dtype.kind not in "biu" or not branches:
            wanted = f"of shape {shapes[-1]}, True where an action is forbidden" if branches else "left out"
            raise UsageError(f"Behavior {self.behavior_name!r}: action_mask is {found(given)}, and must be {wanted}.")
        mask = mask.astype(np.bool_).reshape(agents, -1)
        for branch, forbidden in enumerate(np.split(mask, np.cumsum(branches)[:-1], axis=1)):
            if forbidden.all(axis=1).any():
                raise UsageError(
                    f"Behavior {self.behavior_name!r}: action_mask forbids all actions of branch {branch}."
                )
        return mask

    def _encoded(self, spaces: Spaces, observation: Any) -> tuple[list[np.ndarray], bool]:
        """Encode one observation, or a batch of them, in the environment's terms; also tell whether it is one."""
        try:
            count = spaces.encode.count(observation)
            obs: list[Any] = spaces.encode.each([observation]) if count is None else spaces.encode(observation, count)
        except Misfit as misfit:
            raise UsageError(f"Behavior {self.behavior_name!r}: {misfit}.") from None
        return (obs if self._policy.reads_bytes else [to_floats(array) for array in obs]), count is None

    def _read(self, observation: Any) -> tuple[list[np.ndarray], bool]:
        """Read one observation, or a batch of them, in ML-Agents' terms; also tell whether it is one."""
        specs = self.behavior_spec.observation_specs
        given = list(observation) if isinstance(observation, (list, tuple)) and len(specs) > 1 else [observation]
        shapes = [tuple(spec.shape) for spec in specs]
        try:
            obs = [self._seen(np.asarray(array), shape) for array, shape in zip(given, shapes, strict=False)]
        except (TypeError, ValueError):  # They are texts, or lists that differ in length.
            what = ", ".join(map(found, given))
            raise UsageError(f"Behavior {self.behavior_name!r} takes arrays of numbers, and got {what}.") from None
        single = [array.shape for array in obs] == shapes
        if single:
            obs = [array[None] for array in obs]
        if len(given) != len(shapes) or [array.shape[1:] for array in obs] != shapes:
            raise UsageError(
                f"Behavior {self.behavior_name!r} takes observations of shapes {shapes}, with or without a leading "
                f"batch dimension, and got {[np.shape(array) for array in given]}."
            )
        return obs, single

    def _refuse_non_finite(self, obs: list[np.ndarray], single: bool, shapes: list[tuple[int, ...]]) -> None:
        """Refuse what no training takes either; networks would answer it by NaN."""
        for number, (array, shape) in enumerate(zip(obs, shapes, strict=True)):
            wrong = ~np.isfinite(array)
            if not wrong.any():
                continue
            agent, at = divmod(int(wrong.reshape(-1).argmax()), wrong[0].size)
            name = self.behavior_spec.observation_specs[number].name or str(number)
            part = "the observation" if len(obs) == 1 else f'observation "{name}"'
            index = f" at {[int(i) for i in np.unravel_index(at, shape)]}" if shape else ""
            row = "" if single else f", in row {agent} of the batch"
            raise UsageError(
                f"Behavior {self.behavior_name!r}: {part} holds {array[agent].reshape(-1)[at]}{index}{row}. A policy "
                "takes finite float32 numbers only."
            )

    def _written(self, action: ActionTuple, single: bool) -> Any:
        """Return actions in ML-Agents' terms."""
        continuous, discrete = action.continuous, action.discrete
        if single:
            continuous, discrete = continuous[0], discrete[0]
        if self.behavior_spec.action_spec.discrete_size == 0:
            return continuous
        if self.behavior_spec.action_spec.continuous_size:
            return continuous, discrete
        return int(discrete[0]) if single and discrete.shape == (1,) else discrete

    def _seen(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return an observation as the policy takes it, the bytes of an image with their channels first."""
        if array.dtype != np.uint8 or len(shape) != 3:
            return array.astype(np.float32, copy=False)
        channels, height, width = shape
        if array.shape[-3:] != shape and array.shape[-3:] == (height, width, channels):
            array = np.moveaxis(array, -1, -3)
        return array.copy("K") if self._policy.reads_bytes else to_floats(array)  # The given one may be read-only.
