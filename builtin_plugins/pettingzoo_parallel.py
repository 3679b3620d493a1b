"""A copy of an environment of PettingZoo's parallel interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builtin_plugins.pettingzoo_agents import MASK
from builtin_plugins.pettingzoo_copy import AgentError, Copy, Ended, Moment, Waiting, in_words, info_of, reward_of
from mlhooks.errors import WrongAnswer

_RESET = "reset() must return the pair (observations, infos), two dicts by agent"
_STEP = "step() must return (observations, rewards, terminations, truncations, infos), five dicts by agent"
_OLD = "the interface of PettingZoo before 1.23"


class ParallelCopy(Copy):
    """A copy of a ParallelEnv, all of whose agents act at every step."""

    def begin(self, seed: int | None) -> list[Waiting]:
        """Begin an episode; without a seed the random numbers go on."""
        answer = self._reset(seed)
        if not _is_dicts(answer, 2):
            hint = f". If that is the observations alone, it is {_OLD}: write `return observations, infos`"
            raise WrongAnswer(f"{_RESET}, and returned {in_words(answer)}{hint}")
        observations, infos = answer
        self._alive = self._agents()
        if not self._alive:
            raise WrongAnswer("its list of agents is empty after reset()")
        return [self._wait(agent, observations, infos) for agent in self._alive]

    def _wait(self, agent: Any, observations: Any, infos: Any, rewards: tuple[float, float] | None = None) -> Waiting:
        seen, mask = self._role_of(agent).agent.split(_of(observations, agent, "observations"))
        if mask is None:
            mask = info_of(infos, agent).get(MASK)
        return Waiting(agent, seen, mask) if rewards is None else Waiting(agent, seen, mask, *rewards, first=False)

    def act(self, actions: Mapping[Any, Any]) -> Moment:
        """Carry out an action of each agent."""
        self.doing = "step"
        answer = self.env.step({agent: actions[agent] for agent in self._alive})
        if not _is_dicts(answer, 5):
            hint = f"; with four, it is {_OLD}" if isinstance(answer, tuple) and len(answer) == 4 else ""
            raise WrongAnswer(f"{_STEP}, and returned {in_words(answer)}{hint}")
        observations, given, terminations, truncations, infos = answer
        rewards = {agent: reward_of(agent, _of(given, agent, "rewards")) for agent in self._alive}
        own, shared = self._shared(rewards, infos)
        listed = self._agents()
        there, acted = set(listed), set(self._alive)
        ended, waiting, lingering = [], [], []
        for agent in self._alive:
            over, interrupted = self._flags(
                agent, _of(terminations, agent, "terminations"), _of(truncations, agent, "truncations")
            )
            if over:
                seen, _ = self._role_of(agent).agent.split(_of(observations, agent, "observations"))
                ended.append(Ended(agent, self._encode(agent, seen), own[agent], shared[agent], interrupted))
                lingering += [agent] if agent in there else []
            elif agent not in there:
                raise AgentError(agent, "is gone from its list of agents, and was neither terminated nor truncated")
            else:
                waiting.append(self._wait(agent, observations, infos, (own[agent], shared[agent])))
        waiting += [self._wait(agent, observations, infos) for agent in listed if agent not in acted]
        self._alive = [agent for agent, *_ in waiting]
        if not waiting:
            return ended, self.begin(None)
        if lingering:
            raise AgentError(lingering[0], "was terminated or truncated, and is still in its list of agents: remove it")
        return ended, waiting


def _of(answer: Any, agent: Any, what: str) -> Any:
    """Return what an answer has for an agent."""
    try:
        return answer[agent]
    except KeyError:
        raise AgentError(
            agent, f"is missing from the {what}, which have {', '.join(map(repr, answer)) or 'nobody'}"
        ) from None


def _is_dicts(answer: Any, count: int) -> bool:
    if not isinstance(answer, tuple | list) or len(answer) != count:
        return False
    return all(isinstance(part, Mapping) for part in answer[:-1])  # Infos are not needed.
