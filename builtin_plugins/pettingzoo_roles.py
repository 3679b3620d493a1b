"""Roles of a PettingZoo environment's agents: the behavior by which each acts, its team, and its group."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from builtin_plugins.pettingzoo_agents import Agent
from mlhooks.plugin import UsageError

if TYPE_CHECKING:
    from mlhooks.settings import TeamSettings

logger = logging.getLogger("mlhooks")

_NUMBER = re.compile(r"[_\W]*\d+$")
"""The number at the end of an agent's name."""


@dataclass(frozen=True)
class Role:
    """The part of an agent.

    Args:
        behavior_id: the behavior by which it acts, with its team.
        agent: what it sees and does.
        group: the number of its group in a copy of the environment, from 1; 0 for none.
        group_reward: where the group's rewards come from, as in `TeamSettings.group`; None without a group.
    """

    behavior_id: str
    agent: Agent
    group: int = 0
    group_reward: str | None = None


class Roles:
    """Gives agents their roles: one behavior for all agents with equal spaces, where the settings say nothing else.

    A behavior of all agents is called what the environment is called, and one of some agents what these are called
    without their numbers.

    Args:
        title: how errors call the environment.
        name: what a behavior of all agents is called.
        teams: the settings `env_settings.teams`.
        agents: the agents that may appear, with what they see and do.
        all_known: whether these are all of them; where others may come, a team of none of these is only warned of.

    Attributes:
        groups: how many groups there are in a copy.

    Raises:
        UsageError: the settings do not fit the agents.
    """

    def __init__(
        self, title: str, name: str, teams: Sequence[TeamSettings], agents: Mapping[Any, Agent], *, all_known: bool
    ) -> None:
        self._title, self._teams = title, teams
        self.groups = sum(team.group is not None for team in teams)
        self._roles: dict[Any, Role] = {}
        self._first: dict[str, tuple[Any, Agent]] = {}
        """The first agent of each behavior, by the behavior's name."""
        self._names: list[tuple[str, Agent]] = []
        """The names of behaviors by spaces."""
        self._look_for_unmatched(agents, all_known=all_known)
        self._name_sets(name, agents)
        named = [self._name(agent, seen) for agent, seen in agents.items()]
        self._with_teams = {called for called, team in named if team is not None and team.team is not None}
        """The names of behaviors some of whose agents have a team."""
        for agent, seen in agents.items():
            self.add(agent, seen)

    def __getitem__(self, agent: Any) -> Role:
        return self._roles[agent]

    def __contains__(self, agent: Any) -> bool:
        return agent in self._roles

    def behaviors(self) -> dict[str, Agent]:
        """Return what the agents of each behavior id see and do, in the order of agents."""
        return {role.behavior_id: role.agent for role in self._roles.values()}

    def add(self, agent: Any, seen: Agent) -> Role:
        """Give a role to an agent.

        Raises:
            UsageError: two teams claim it, or its behavior has other spaces.
        """
        name, team = self._name(agent, seen)
        seen = self._with_first(agent, name, seen)
        number = None if team is None else team.team
        if number is None and name in self._with_teams:
            number = 0
        group, group_reward = 0, None
        if team is not None and team.group is not None:
            groups = [other for other in self._teams if other.group is not None]
            group, group_reward = 1 + next(i for i, other in enumerate(groups) if other is team), team.group
        behavior_id = name if number is None else f"{name}?team={number}"
        self._roles[agent] = role = Role(behavior_id, seen, group, group_reward)
        return role

    def _name(self, agent: Any, seen: Agent) -> tuple[str, TeamSettings | None]:
        """Return the name of an agent's behavior, and the team that claims it."""
        claims = [index for index, team in enumerate(self._teams) if _claims(team, agent)]
        if len(claims) > 1:
            first, second = claims[:2]
            raise UsageError(
                f"{self._title}: agent {agent!r} is in env_settings.teams[{first}] and in "
                f"env_settings.teams[{second}]; an agent has one team."
            )
        team = self._teams[claims[0]] if claims else None
        return (team and team.behavior) or self._name_by_spaces(agent, seen), team

    def _look_for_unmatched(self, agents: Mapping[Any, Agent], *, all_known: bool) -> None:
        for index, team in enumerate(self._teams):
            for place, pattern in enumerate(team.agents):
                if any(fnmatchcase(str(agent), pattern) for agent in agents):
                    continue
                which = f"agent {pattern!r}, which env_settings.teams[{index}].agents[{place}] names; there are: "
                which += ", ".join(map(str, agents))
                if all_known:
                    raise UsageError(f"{self._title} has no {which}.")
                logger.warning("%s begins without the %s. It has no possible_agents.", self._title, which)

    def _with_first(self, agent: Any, name: str, seen: Agent) -> Agent:
        """Return what the first agent of a behavior sees and does, of which all others have the same."""
        other, first = self._first.setdefault(name, (agent, seen))
        if first != seen:
            raise UsageError(
                f"{self._title}: agents {other!r} and {agent!r} cannot both act by the behavior {name!r}, because "
                f"their spaces differ: {_in_words(first)}, and {_in_words(seen)}. Name another behavior in "
                "env_settings.teams for one of them."
            )
        return first

    def _name_sets(self, name: str, agents: Mapping[Any, Agent]) -> None:
        """Name the sets of agents with equal spaces."""
        sets: list[tuple[Agent, list[str]]] = []
        for agent, seen in agents.items():
            members = next((members for other, members in sets if other == seen), None)
            if members is None:
                sets.append((seen, [str(agent)]))
            else:
                members.append(str(agent))
        stems = [_plain(name)] if len(sets) == 1 else [_stem(members) for _, members in sets]
        for stem, (seen, members) in zip(stems, sets, strict=True):
            self._names.append((stem if stems.count(stem) == 1 else _plain(members[0]), seen))

    def _name_by_spaces(self, agent: Any, seen: Agent) -> str:
        for name, known in self._names:
            if known == seen:
                return name
        used = {name for name, _ in self._names}
        stem = _stem([str(agent)])
        self._names.append((_plain(str(agent)) if stem in used else stem, seen))
        return self._names[-1][0]


def _claims(team: TeamSettings, agent: Any) -> bool:
    return any(fnmatchcase(str(agent), pattern) for pattern in team.agents)


def _stem(agents: Sequence[str]) -> str:
    """Return what agents are called without their numbers, or the first one's name where that differs."""
    stems = {_NUMBER.sub("", agent) for agent in agents}
    stem = stems.pop()
    return _plain(stem if stem and not stems else agents[0])


def _plain(name: str) -> str:
    """Return a name that is not empty and without ?, behind which a behavior's team stands."""
    return name.replace("?", "_") or "_"


def _in_words(agent: Agent) -> str:
    mask = " with a mask" if agent.masked else ""
    return f"{agent.spaces.observation}{mask} and {agent.spaces.action}"
