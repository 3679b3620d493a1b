"""A copy of a PettingZoo environment: whoever waits for a decision, and whose episode ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from builtin_plugins import gymnasium_answers as answers
from builtin_plugins.pettingzoo_roles import Role
from mlhooks.describing import named
from mlhooks.envs.spaces import found
from mlhooks.errors import WrongAnswer
from mlhooks.plugin import Encoded

GROUP_REWARD = "group_reward"
"""The key of an agent's info with a reward of its group."""


class AgentError(WrongAnswer):
    """What an environment answered for one of its agents cannot be used; its text goes on from the agent's name.

    Args:
        agent: the agent.
        what: the end of the sentence.
    """

    def __init__(self, agent: Any, what: str) -> None:
        super().__init__(f"agent {agent!r} {what}")


class Waiting(NamedTuple):
    """An agent that is to decide.

    Attributes:
        agent: its name.
        observation: what it sees, without the mask.
        mask: 1 for each action that is allowed, or None.
        reward, group_reward: what it and its group got since its last decision.
        first: whether it decides for the first time in this episode.
    """

    agent: Any
    observation: Any
    mask: Any
    reward: float = 0.0
    group_reward: float = 0.0
    first: bool = True


class Ended(NamedTuple):
    """An agent whose episode ended; rewards are as in `Waiting`, and the final observation is encoded [1, ...]."""

    agent: Any
    observation: list[Encoded]
    reward: float
    group_reward: float
    interrupted: bool


Moment = tuple[list[Ended], list[Waiting]]
"""What a copy shows at a time: the ends come first."""


class Copy(ABC):
    """A copy of an environment; where an episode ends, the next one begins in the same step.

    Args:
        env: the environment.
        role_of: returns an agent's role, also of one that was never seen before.
        encode: called as `encode(agent, observation)` with a final observation, which the next reset may overwrite.

    Attributes:
        doing: the method of the environment that was called last, for messages.
    """

    def __init__(self, env: Any, role_of: Callable[[Any], Role], encode: Callable[[Any, Any], list[Encoded]]) -> None:
        self.env, self._role_of, self._encode = env, role_of, encode
        self.doing = "reset"

    @abstractmethod
    def begin(self, seed: int | None) -> list[Waiting]:
        """Begin an episode; without a seed the random numbers go on."""

    @abstractmethod
    def act(self, actions: Mapping[Any, Any]) -> Moment:
        """Carry out an action of each agent that waits."""

    def _reset(self, seed: int | None) -> Any:
        self.doing = "reset"
        return self.env.reset() if seed is None else self.env.reset(seed=seed)

    def _told(self, name: str) -> Any:
        """Return an attribute that methods of the environment set."""
        try:
            return getattr(self.env, name)
        except AttributeError as error:
            raise WrongAnswer(f"it has no {name}, which reset() and step() must set ({named(error)})") from error

    def _told_by_agent(self, name: str) -> Mapping[Any, Any]:
        """Return an attribute that is a dict by agent."""
        told = self._told(name)
        if not isinstance(told, Mapping):
            raise WrongAnswer(f"its {name} are {found(told)}, which must be a dict by agent")
        return told

    def _agents(self) -> list[Any]:
        """Return the agents that the environment has now."""
        told = self._told("agents")
        agents = names_in(told) if isinstance(told, Sequence) else None
        if agents is None:
            raise WrongAnswer(f"its agents are {found(told)}, which must be a list of names")
        if len(set(agents)) < len(agents):
            twice = next(agent for agent in agents if agents.count(agent) > 1)
            raise AgentError(twice, "is twice in its list of agents")
        return agents

    def _shared(self, rewards: Mapping[Any, float], infos: Any) -> tuple[Mapping[Any, float], dict[Any, float]]:
        """Return what agents get for a step, each for itself and as members of their groups.

        Args:
            rewards: what the environment gave each agent that took part in the step.
            infos: what it told about them.
        """
        own, shared = dict(rewards), dict.fromkeys(rewards, 0.0)
        groups: dict[int, list[Any]] = {}
        for agent in rewards:
            role = self._role_of(agent)
            if not role.group:
                continue
            groups.setdefault(role.group, []).append(agent)
            shared[agent] = group_reward_in(info_of(infos, agent), agent)
        for members in groups.values():
            kind = self._role_of(members[0]).group_reward
            if kind == "own":
                continue
            together = sum(rewards[agent] for agent in members) / (len(members) if kind == "mean" else 1)
            for agent in members:
                own[agent], shared[agent] = 0.0, shared[agent] + together
        return own, shared

    def _flags(self, agent: Any, terminated: Any, truncated: Any) -> tuple[bool, bool]:
        """Return whether an agent's episode is over, and whether it was interrupted."""
        try:
            ended, cut = answers.flag("termination", terminated), answers.flag("truncation", truncated)
        except WrongAnswer as error:
            raise AgentError(agent, f"cannot go on: {error}") from error
        return ended or cut, cut and not ended


def names_in(told: Any) -> list[Any] | None:
    """Return the agents that an environment lists; None where that is no list of what can be the keys of a dict."""
    if isinstance(told, str | set | frozenset):  # Sets have another order in each process.
        return None
    try:
        agents = list(told)
        set(agents)
    except TypeError:
        return None
    return agents


def info_of(infos: Any, agent: Any) -> Mapping[str, Any]:
    """Return an agent's info; empty where the environment gives none."""
    info = infos.get(agent) if isinstance(infos, Mapping) else None
    return info if isinstance(info, Mapping) else {}


def group_reward_in(info: Any, agent: Any) -> float:
    """Return the reward of an agent's group that an info tells; 0 where it tells none.

    Raises:
        AgentError: it is not a single number.
    """
    return (
        reward_of(agent, info[GROUP_REWARD], "group reward")
        if isinstance(info, Mapping) and GROUP_REWARD in info
        else 0.0
    )


def reward_of(agent: Any, given: Any, what: str = "reward") -> float:
    """Return an agent's reward as a float.

    Raises:
        AgentError: it is not a single number.
    """
    if type(given) in answers.NUMBERS:
        return float(given)
    try:
        return answers.reward(given)
    except WrongAnswer:
        raise AgentError(
            agent, f"got the {what} {found(given)}; a reward must be a single number, as float(reward) makes it"
        ) from None


def in_words(answer: Any) -> str:
    """Return what an answer is, by the number and types of its parts."""
    if not isinstance(answer, tuple | list):
        return found(answer)
    return f"{len(answer)} values: {', '.join(type(part).__name__ for part in answer)}"
