"""A copy of an environment of PettingZoo's AEC interface, in which agents take turns (agent environment cycle)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from builtin_plugins.pettingzoo_agents import MASK
from builtin_plugins.pettingzoo_copy import (
    AgentError,
    Copy,
    Ended,
    Moment,
    Waiting,
    group_reward_in,
    in_words,
    info_of,
    reward_of,
)
from mlhooks.errors import WrongAnswer

_EMPTY_EPISODES = 100
"""The most episodes in a row in which nobody acts."""
_ROUNDING = 1e-4
"""The share of an agent's reward by which two sums of it may differ."""


class AECCopy(Copy):
    """A copy of an AECEnv, whose agents act one after the other: one waits at a time.

    The reward of a decision is what the agent got since it last decided, also while others acted. What it got before
    its first decision of an episode belongs to nothing that it did, and is left out.
    """

    def begin(self, seed: int | None) -> list[Waiting]:
        """Begin an episode; without a seed the random numbers go on."""
        self._start(seed)
        ended, waiting = self._go_on()
        assert not ended
        return waiting

    def _start(self, seed: int | None) -> None:
        self._reset(seed)
        self._acting: set[Any] = set()
        """The agents that have decided in this episode."""
        self._since: dict[Any, tuple[float, float, float]] = {}
        """What each agent and its group got since it last decided, and what the environment gave it."""

    def act(self, actions: Mapping[Any, Any]) -> Moment:
        """Carry out the action of the agent that waits."""
        ((agent, action),) = actions.items()
        self.doing = "step"
        self._acting.add(agent)
        self._since[agent] = 0.0, 0.0, 0.0
        self.env.step(action)
        self._collect(set(self._agents()))
        return self._go_on()

    def _collect(self, there: set[Any]) -> None:
        """Add what the step that was just made gave; an agent that left at once may have rewards, too."""
        takes_part = there | self._acting
        told = self._told_by_agent("rewards")
        given = {agent: reward_of(agent, reward) for agent, reward in told.items() if agent in takes_part}
        own, shared = self._shared(given, None)  # Infos of agents that do not act are old; those of `last` count.
        for agent, reward in given.items():
            before, group_before, all_before = self._since.get(agent, (0.0, 0.0, 0.0))
            self._since[agent] = before + own[agent], group_before + shared[agent], all_before + reward

    def _go_on(self) -> Moment:
        """Let agents whose episodes are over leave, until one is to decide."""
        ended: list[Ended] = []
        episodes = 0
        while True:
            agents = self._agents()
            ended += self._gone(set(agents))
            if not agents:
                episodes += 1
                if episodes > _EMPTY_EPISODES:
                    raise WrongAnswer(f"{_EMPTY_EPISODES} episodes in a row ended before any agent could act")
                self._start(None)
                continue
            agent, observation, mask, info, flags = self._selected(agents)
            over, interrupted = flags
            if not over and agent not in self._acting:
                return ended, [Waiting(agent, observation, mask)]
            if not over:
                return ended, [Waiting(agent, observation, mask, *self._taken(agent, info), first=False)]
            if agent in self._acting:
                ended.append(self._end(agent, observation, info, interrupted=interrupted))
            self.doing = "step"
            self.env.step(None)
            if agent in self.env.agents:
                raise AgentError(agent, "is done, and still in its list of agents after step(None), which removes it")

    def _selected(self, agents: list[Any]) -> tuple[Any, Any, Any, Any, tuple[bool, bool]]:
        """Return the selected agent, what it sees, its mask and info, and whether it is over and was interrupted."""
        agent = self._told("agent_selection")
        if agent not in agents:
            raise WrongAnswer(f"its agent_selection is {agent!r}, which is not in its list of agents {agents}")
        try:
            answer = self.env.last()
        except (AttributeError, KeyError, TypeError):
            for name in ("_cumulative_rewards", "terminations", "truncations", "infos"):
                if agent not in self._told_by_agent(name):
                    raise AgentError(agent, f"is missing from the {name}") from None
            raise
        if not isinstance(answer, tuple) or len(answer) != 5:
            raise WrongAnswer(
                "last() must return (observation, reward, termination, truncation, info), and returned "
                f"{in_words(answer)}"
            )
        observation, reward, terminated, truncated, info = answer
        self._compare(agent, reward_of(agent, reward))
        seen, mask = self._role_of(agent).agent.split(observation)
        if mask is None and isinstance(info, Mapping):
            mask = info.get(MASK)
        return agent, seen, mask, info, self._flags(agent, terminated, truncated)

    def _compare(self, agent: Any, told: float) -> None:
        """Refuse a reward of `last` that is not the sum of the agent's rewards, because one of the two is wrong."""
        *_, given = self._since.get(agent, (0.0, 0.0, 0.0))
        if not math.isfinite(given):
            return  # The run says of such a reward what is wrong with it.
        if agent in self._acting and not abs(told - given) <= _ROUNDING * max(1.0, abs(given)):
            raise AgentError(
                agent,
                f"got {told:g} by last(), and its rewards since it last acted add up to {given:g}. In step(), set "
                "_cumulative_rewards of the agent that acts to 0, and call _accumulate_rewards() once",
            )

    def _taken(self, agent: Any, info: Any) -> tuple[float, float]:
        reward, group_reward, _ = self._since.get(agent, (0.0, 0.0, 0.0))
        told = group_reward_in(info, agent) if self._role_of(agent).group else 0.0
        return reward, group_reward + told

    def _end(self, agent: Any, observation: Any, info: Any, *, interrupted: bool) -> Ended:
        self._acting.remove(agent)
        return Ended(agent, self._encode(agent, observation), *self._taken(agent, info), interrupted)

    def _gone(self, there: set[Any]) -> Iterator[Ended]:
        """Yield the ends of agents that left without a last step(None)."""
        for agent in [agent for agent in self._acting if agent not in there]:
            flags = [self._told_by_agent(kind).get(agent, False) for kind in ("terminations", "truncations")]
            over, interrupted = self._flags(agent, *flags)
            if not over:
                raise AgentError(agent, "is gone from its list of agents, and was neither terminated nor truncated")
            seen, _ = self._role_of(agent).agent.split(self.env.observe(agent))
            info = info_of(getattr(self.env, "infos", None), agent)
            yield self._end(agent, seen, info, interrupted=interrupted)
