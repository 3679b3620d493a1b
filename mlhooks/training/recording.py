"""Recording demonstrations: playing episodes, and keeping what the agents of one behavior see and do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from mlagents_envs.base_env import ActionTuple, BaseEnv, BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.demos.records import Records
from mlhooks.describing import described
from mlhooks.envs.spaces import Spaces, found
from mlhooks.envs.spaces.inverse import ActionMisfit, action_of, observation_of
from mlhooks.envs.specs import in_words, same_shape
from mlhooks.envs.told import check_spec, spaces_of, stats_of, steps_of
from mlhooks.errors import EnvironmentFailure, MlhooksError, NonFiniteError, UsageError
from mlhooks.training.evaluation import PATIENCE
from mlhooks.training.prediction import LoadedPolicy
from mlhooks.training.step_checks import all_finite

logger = logging.getLogger("mlhooks")

TOO_LONG = 1_000_000
"""Recording fails after this many steps of the environment in which no episode ends."""


class Actor(Protocol):
    """A policy that decides for the agents of one behavior."""

    def decide(self, decisions: DecisionSteps, terminals: TerminalSteps) -> ActionTuple:
        """Return an action for each agent in `decisions`, which may be empty; episodes of those in `terminals` end."""


MakeActor = Callable[[str, BehaviorSpec, Spaces | None], Actor]
"""Makes what decides for a behavior, given its name, its spec, and its spaces in the environment's own terms."""


class Random:
    """Draws actions: continuous ones uniformly from [-1, 1], discrete ones from those that are not forbidden.

    Args:
        spec: the behavior's observations and actions.
        rng: the source of randomness.
    """

    def __init__(self, spec: BehaviorSpec, rng: np.random.Generator) -> None:
        self.spec, self.rng = spec.action_spec, rng

    def decide(self, decisions: DecisionSteps, terminals: TerminalSteps) -> ActionTuple:  # noqa: ARG002
        """Draw an action for each agent."""
        agents, branches = len(decisions), self.spec.discrete_branches
        continuous = self.rng.uniform(-1, 1, (agents, self.spec.continuous_size)).astype(np.float32)
        discrete = np.zeros((agents, len(branches)), np.int32)
        for branch, size in enumerate(branches):
            draws = self.rng.random((agents, size))
            if decisions.action_mask is not None:
                draws[np.asarray(decisions.action_mask[branch], np.bool_)] = -1
            discrete[:, branch] = draws.argmax(1)
        return ActionTuple(continuous, discrete)


class Trained:
    """Decides as a policy of a run does.

    Args:
        policy: the policy.
        deterministic: whether it takes the likeliest actions.
        name, spec: the behavior to act for, whose shapes must be those of the policy's own.
        rng: the source of randomness.

    Raises:
        UsageError: the shapes differ.
    """

    def __init__(
        self, policy: LoadedPolicy, deterministic: bool, name: str, spec: BehaviorSpec, rng: np.random.Generator
    ) -> None:
        if not same_shape(policy.behavior_spec, spec):
            raise UsageError(
                f"The environment's behavior {name!r} has {in_words(spec)}, and the policy was trained for "
                f"{in_words(policy.behavior_spec)}. Record in the environment of its run."
            )
        self.policy, self.deterministic, self.rng = policy, deterministic, rng
        self._memories: dict[int, np.ndarray] = {}  # These are by agent.

    def decide(self, decisions: DecisionSteps, terminals: TerminalSteps) -> ActionTuple:
        """Ask the policy, which remembers what each agent saw in its episode."""
        for agent in terminals.agent_id.tolist():
            self._memories.pop(agent, None)
        agents = decisions.agent_id.tolist()
        if not agents:
            return ActionTuple()
        nothing = np.zeros(self.policy.memory_size, np.float32)
        memory = np.stack([self._memories.get(agent, nothing) for agent in agents])
        action, memory = self.policy.decide(decisions, memory, deterministic=self.deterministic, rng=self.rng)
        self._memories.update(zip(agents, memory, strict=True))
        return action


class Scripted:
    """Asks a function for the action of one agent after the other.

    The function gets an observation and returns an action. Where the environment has spaces of its own, as Gymnasium's
    do, both are in these terms: what `step` shows and takes. All others are as `LoadedPolicy.predict` takes and gives
    them: an array, or a list of arrays where there are several observations; continuous actions in [-1, 1] as an array,
    discrete ones as an array or, of a single branch, a number, and of hybrid behaviors a pair of both.

    Args:
        function: the function.
        title: its name in messages.
        spec: the behavior's observations and actions.
        spaces: those of the environment, or None.
    """

    def __init__(self, function: Callable[[Any], Any], title: str, spec: BehaviorSpec, spaces: Spaces | None) -> None:
        self.function, self.title, self.spec, self.spaces = function, title, spec.action_spec, spaces

    def decide(self, decisions: DecisionSteps, terminals: TerminalSteps) -> ActionTuple:  # noqa: ARG002
        """Ask the function for each agent."""
        action = self.spec.empty_action(len(decisions))
        for row in range(len(decisions)):
            obs = [array[row].copy() for array in decisions.obs]  # The function may change what it gets.
            answer = self._ask(self._shown(obs))
            try:
                action.continuous[row], action.discrete[row] = self._read(answer)
            except ActionMisfit as misfit:
                raise UsageError(f"{self.title} returned {misfit}.") from None
        return action

    def _shown(self, obs: list[np.ndarray]) -> Any:
        if self.spaces is not None:
            return observation_of(self.spaces.observation, obs)
        return obs[0] if len(obs) == 1 else obs

    def _ask(self, observation: Any) -> Any:
        try:
            return self.function(observation)
        except (MlhooksError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise UsageError(f"{self.title} failed: {described(error)}.") from error

    def _read(self, answer: Any) -> tuple[np.ndarray, np.ndarray]:
        continuous, discrete = self.spec.continuous_size, self.spec.discrete_size
        if self.spaces is not None:
            numbers = action_of(self.spaces.action, answer)
            return (numbers, numbers[:0]) if continuous else (numbers[:0], numbers)
        parts = answer if continuous and discrete else (answer, ()) if continuous else ((), answer)
        if not isinstance(parts, tuple | list) or len(parts) != 2:
            raise ActionMisfit(f"{found(answer)}; of {self.spec} it must be a pair of continuous and discrete actions")
        try:
            read = np.asarray(parts[0], np.float64).ravel(), np.asarray(parts[1], np.float64).ravel()
        except (TypeError, ValueError):
            raise ActionMisfit(f"{found(answer)}, which is no action of {self.spec}") from None
        fits = [part.size for part in read] == [continuous, discrete] and all(np.isfinite(part).all() for part in read)
        branches = np.array(self.spec.discrete_branches)
        if not fits or not ((read[1] >= 0) & (read[1] < branches) & (read[1] == np.floor(read[1]))).all():
            raise ActionMisfit(f"{found(answer)}, which is no action of {self.spec}")
        return read


@dataclass(eq=False)
class _Recording:
    """The records of one episode; each is what an agent saw, was given and did, and which actions were forbidden."""

    obs: list[list[np.ndarray]] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    continuous: list[np.ndarray] = field(default_factory=list)
    discrete: list[np.ndarray] = field(default_factory=list)
    mask: list[np.ndarray | None] = field(default_factory=list)
    ended: bool = False
    interrupted: bool = False

    def add(self, obs: list[np.ndarray], reward: float, mask: np.ndarray | None = None) -> None:
        self.obs.append([array.copy() for array in obs])
        self.reward.append(reward)
        self.mask.append(mask)


class Recorder:
    """Plays episodes in an environment, and records those of one behavior.

    Of several agents, the episodes that begin first are recorded. Those that end first would be the short ones. One
    that does not end, while many others do, is left out in the end.

    Args:
        env: the environment, which the caller closes.
        make_actor: makes what decides for a behavior.
        behavior: the behavior to record; None for the only one.
    """

    def __init__(self, env: BaseEnv, make_actor: MakeActor, behavior: str | None = None) -> None:
        self.env, self._make_actor, self.behavior = env, make_actor, behavior
        self._actors: dict[str, Actor] = {}
        self._open: dict[tuple[str, int], _Recording | None] = {}  # These are by behavior id and agent.
        self._episodes: list[_Recording] = []
        self._wanted = self._unrecorded = 0
        self.spec: BehaviorSpec | None = None

    def record(self, episodes: int) -> Records:
        """Play until so many episodes have ended, and return their records, one episode after the other.

        Raises:
            UsageError: the environment has no such behavior, or several where none was named, or an actor does not fit.
            NonFiniteError: the environment shows NaN or an infinite number.
            EnvironmentFailure: the environment fails, or no episode ends.
        """
        self._wanted, self._unrecorded = episodes, 0
        self.env.reset()
        waited = 0
        while True:
            specs, steps = steps_of(self.env)
            ended = False
            for behavior_id, (decisions, terminals) in steps.items():
                ended = self._take(behavior_id, specs[behavior_id], decisions, terminals) or ended
            stats_of(self.env)  # They are taken out, because nobody reads them here.
            if len(self._episodes) == episodes and all(episode.ended for episode in self._episodes):
                return self._records()
            if self._unrecorded > PATIENCE * episodes:
                self._leave_out_endless()
            waited = 0 if ended else waited + 1
            if waited > TOO_LONG:
                raise EnvironmentFailure(f"No episode has ended in {TOO_LONG:,} steps of the environment.")
            self.env.step()

    def _take(self, behavior_id: str, spec: BehaviorSpec, decisions: DecisionSteps, terminals: TerminalSteps) -> bool:
        """Take in what a behavior id shows, let its agents act, and return whether an episode ended."""
        name = behavior_id.partition("?")[0]
        if behavior_id not in self._actors:
            self._meet(behavior_id, name, spec)
        recorded = name == self.behavior
        for steps in (decisions, terminals):
            if not all_finite([*steps.obs, steps.reward, steps.group_reward]):
                raise NonFiniteError(
                    f"Behavior {name!r}: an observation or a reward of the environment is NaN or infinite; it was not "
                    "recorded."
                )
        if recorded:
            for row, agent in enumerate(terminals.agent_id.tolist()):
                self._end((behavior_id, agent), terminals, row)
        action = self._actors[behavior_id].decide(decisions, terminals)
        if len(decisions):
            if recorded:
                self._keep(behavior_id, decisions, action)
            self.env.set_actions(behavior_id, action)
        return recorded and bool(len(terminals))

    def _meet(self, behavior_id: str, name: str, spec: BehaviorSpec) -> None:
        check_spec(behavior_id, spec)
        names = {known.partition("?")[0] for known in self.env.behavior_specs}
        if self.behavior is None and len(names) == 1:
            self.behavior = name
        if self.behavior not in names:
            listed = ", ".join(sorted(names))
            what = "none is named" if self.behavior is None else f"{self.behavior!r} is none of them"
            raise UsageError(f"The environment has the behaviors {listed}, and {what}: say --behavior NAME.")
        if name == self.behavior:
            self.spec = spec
        self._actors[behavior_id] = self._make_actor(name, spec, spaces_of(self.env).get(behavior_id))

    def _end(self, agent: tuple[str, int], terminals: TerminalSteps, row: int) -> None:
        episode = self._open.pop(agent, None)
        if episode is None:
            self._unrecorded += 1
        else:
            reward = float(terminals.reward[row] + terminals.group_reward[row])
            episode.add([array[row] for array in terminals.obs], reward)
            episode.ended, episode.interrupted = True, bool(terminals.interrupted[row])

    def _leave_out_endless(self) -> None:
        """Let go of episodes that have not ended while many others did, so that others are recorded."""
        endless = [episode for episode in self._episodes if not episode.ended]
        logger.warning(
            "%d of the recorded episodes did not end while %s others did: they are left out, and others recorded.",
            *(len(endless), f"{self._unrecorded:,}"),
        )
        self._episodes = [episode for episode in self._episodes if episode.ended]
        self._open = {key: None if episode in endless else episode for key, episode in self._open.items()}
        self._unrecorded = 0

    def _keep(self, behavior_id: str, decisions: DecisionSteps, action: ActionTuple) -> None:
        masks = None if decisions.action_mask is None else np.concatenate(decisions.action_mask, axis=1)
        rewards = decisions.reward + decisions.group_reward
        for row, agent in enumerate(decisions.agent_id.tolist()):
            key = behavior_id, agent
            if key not in self._open:
                self._open[key] = self._begin()
            episode = self._open[key]
            if episode is not None:
                mask = None if masks is None else masks[row].astype(np.bool_)
                episode.add([array[row] for array in decisions.obs], float(rewards[row]), mask)
                episode.continuous.append(action.continuous[row].copy())
                episode.discrete.append(action.discrete[row].copy())

    def _begin(self) -> _Recording | None:
        if len(self._episodes) == self._wanted:
            return None
        self._episodes.append(_Recording())
        return self._episodes[-1]

    def _records(self) -> Records:
        assert self.spec is not None
        assert self.behavior is not None
        actions, episodes = self.spec.action_spec, self._episodes
        count = sum(len(episode.reward) for episode in episodes)
        last = np.cumsum([len(episode.reward) for episode in episodes]) - 1
        done, interrupted = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        done[last], interrupted[last] = True, [episode.interrupted for episode in episodes]
        continuous = np.zeros((count, actions.continuous_size), np.float32)
        discrete = np.zeros((count, actions.discrete_size), np.int64)
        continuous[~done] = [part for episode in episodes for part in episode.continuous]
        discrete[~done] = [part for episode in episodes for part in episode.discrete]
        shown = [obs for episode in episodes for obs in episode.obs]
        masks = [mask for episode in episodes for mask in episode.mask]
        nothing = np.zeros(sum(actions.discrete_branches), np.bool_)
        mask = np.array([nothing if mask is None else mask for mask in masks])
        return Records(
            behavior_name=self.behavior,
            spec=self.spec,
            obs=[np.stack(arrays) for arrays in zip(*shown, strict=True)],
            reward=np.array([reward for episode in episodes for reward in episode.reward], np.float32),
            done=done,
            interrupted=interrupted,
            acts=~done,
            continuous=continuous,
            discrete=discrete,
            mask=mask if mask.any() else None,
        )
