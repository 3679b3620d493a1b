"""Copies of a PettingZoo environment as a `BaseEnv`, whose behaviors are sets of agents."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionTuple, BaseEnv, BehaviorSpec, DecisionSteps, TerminalSteps
from mlagents_envs.exception import UnityActionException, UnityEnvironmentException

from builtin_plugins.gymnasium_spaces import AS_DECLARED, Reading
from builtin_plugins.pettingzoo_aec import AECCopy
from builtin_plugins.pettingzoo_agents import Agent, describe
from builtin_plugins.pettingzoo_copy import AgentError, Copy, Ended, Moment, Waiting, names_in
from builtin_plugins.pettingzoo_parallel import ParallelCopy
from builtin_plugins.pettingzoo_roles import Role, Roles
from mlhooks.describing import named
from mlhooks.envs.given_actions import check_action, with_action_of
from mlhooks.envs.spaces import found
from mlhooks.errors import WrongAnswer
from mlhooks.places import defined_at, in_brackets, raised_at
from mlhooks.plugin import ContractBroken, Encoded, EnvironmentFailure, Misfit, MlhooksError, Spaces

if TYPE_CHECKING:
    from mlhooks.settings import TeamSettings

logger = logging.getLogger("mlhooks")

_MISSING = re.compile(r"unexpected keyword argument '(seed|options)'")
"""The message of Python where `reset` lacks an argument of the interface."""
When = Literal["reset", "step", "end"]
"""The occasion of an observation: after a reset, after a step, or at the end of an episode."""


@dataclass
class _Behavior:
    """The agents that act by one behavior id.

    Args:
        agent: what they see and do.
        spec: the same as ML-Agents has it.
        decisions, terminals: what is shown of them now.
        waiting: who waits for an action, in the order of the decision steps, each with the index of its copy.
        action: what they are to do, where that was said.
    """

    agent: Agent
    spec: BehaviorSpec
    decisions: DecisionSteps
    terminals: TerminalSteps
    waiting: list[tuple[int, Any]] = field(default_factory=list)
    action: ActionTuple | None = None


class PettingZooEnv(BaseEnv):  # type: ignore[misc]  # mlagents_envs ships no types.
    """Copies of an environment of either of PettingZoo's interfaces, each of which goes on by itself.

    An agent keeps its id over all episodes. It is told of its end in a terminal step, and decides again when the next
    episode of its copy begins; truncated episodes are interrupted ones.

    Args:
        envs: the copies, all made alike.
        title: how errors call the environment.
        name: what a behavior of all agents is called.
        seed: with `worker_id`, gives the seeds of the first resets.
        worker_id: workers with one seed get independent seeds.
        teams: the settings `env_settings.teams`.
        check: which observations are looked at in full: of each agent the first after a reset, after a step and at an
            episode's end; all; or none.
        reading: what the configuration says about observations.

    Raises:
        UnsupportedError: a space cannot be learned from or acted in.
        UsageError: the teams do not fit the agents.
        ContractBroken: the environment has no space for one of its agents.
    """

    def __init__(
        self,
        envs: Sequence[Any],
        *,
        title: str,
        name: str,
        seed: int,
        worker_id: int = 0,
        teams: Sequence[TeamSettings] = (),
        check: Literal["first", "always", "never"] = "first",
        reading: Reading = AS_DECLARED,
    ) -> None:
        self._title, self._name, self._teams = title, name, teams
        self._check, self._reading = check, reading
        self._checked: set[tuple[When, int, Any]] = set()
        self._warned = False
        self._behaviors: dict[str, _Behavior] = {}
        self._specs: dict[str, BehaviorSpec] = {}
        self._spaces: dict[str, Spaces] = {}
        self._ids: list[dict[Any, int]] = [{} for _ in envs]
        self._next_id, self._begun, self._closed = 0, False, False
        self._seeds: list[int] = np.random.SeedSequence([seed, worker_id]).generate_state(len(envs)).tolist()
        self._copies = [self._copy(number, env) for number, env in enumerate(envs)]
        self._roles: Roles | None = None
        known = self._possible_agents(envs[0])
        if known:
            self._assign_roles(envs[0], known, all_known=True)
            for ids in self._ids:
                ids.update((agent, self._new_id()) for agent in known)

    def _possible_agents(self, env: Any) -> list[Any]:
        """Return the agents that an environment says may appear; empty where it does not say."""
        told = getattr(env, "possible_agents", None)
        agents = names_in(() if told is None else told)
        if agents is None:
            raise ContractBroken(
                f"{self._title}: its possible_agents are {found(told)}, which must be a list of names"
                f"{in_brackets(_place_of(env, '__init__'))}."
            )
        return agents

    def _copy(self, number: int, env: Any) -> Copy:
        from pettingzoo import ParallelEnv

        kind = ParallelCopy if isinstance(env, ParallelEnv) else AECCopy
        return kind(env, self._role_of_copy(env), lambda agent, seen: self._encode_final(number, agent, seen))

    @property
    def behavior_specs(self) -> Mapping[str, BehaviorSpec]:
        """The behaviors by their ids; without `possible_agents` they become known as agents appear."""
        return MappingProxyType(self._specs)

    @property
    def behavior_spaces(self) -> Mapping[str, Spaces]:
        """The spaces of behaviors by their ids."""
        return MappingProxyType(self._spaces)

    def reset(self) -> None:
        """Begin a new episode in every copy; may be called at any time."""
        self._require_open()
        seeds: Sequence[int | None] = [None] * len(self._copies) if self._begun else self._seeds
        self._begun = True
        self._show([([], self._try(number, copy.begin, seeds[number])) for number, copy in enumerate(self._copies)])

    def step(self) -> None:
        """Carry out the actions set since the last step; agents without one act zero, and the first step resets."""
        self._require_open()
        if not self._begun:
            self.reset()
            return
        actions: list[dict[Any, Any]] = [{} for _ in self._copies]
        for behavior in self._behaviors.values():
            if not behavior.waiting:
                continue
            decode = behavior.agent.spaces.decode
            action = behavior.action or behavior.spec.action_spec.empty_action(len(behavior.waiting))
            for (number, agent), taken in zip(behavior.waiting, decode.each(decode(action)), strict=True):
                actions[number][agent] = taken
        self._show([self._try(number, copy.act, actions[number]) for number, copy in enumerate(self._copies)])

    def close(self) -> None:
        """Close the copies; further calls do nothing.

        Raises:
            Exception: what the first of them raised that cannot be closed; the others are closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        failed: Exception | None = None
        for copy in self._copies:
            try:
                copy.env.close()
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        """Return the agents that need an action now, and those whose episode ended in the last step."""
        if not self._begun:
            raise UnityEnvironmentException(f"{self._title} has no steps before its first reset(); call it first.")
        behavior = self._behavior(behavior_name)
        return behavior.decisions, behavior.terminals

    def set_actions(self, behavior_name: str, action: ActionTuple) -> None:
        """Set the actions of all agents that wait for one, in the order of their decision steps.

        Raises:
            UnityActionException: the action has another shape than the behavior's, is not finite, or is no index of
                its branch.
        """
        behavior = self._behavior(behavior_name)
        check_action(behavior_name, behavior.spec.action_spec, action, behavior.decisions.agent_id)
        behavior.action = action

    def set_action_for_agent(self, behavior_name: str, agent_id: int, action: ActionTuple) -> None:
        """Set the action, of one row, of one agent that waits for one; other agents keep theirs.

        Raises:
            UnityActionException: the agent does not wait for an action, or the action does not fit.
        """
        behavior = self._behavior(behavior_name)
        spec, agents = behavior.spec.action_spec, behavior.decisions.agent_id
        behavior.action = with_action_of(behavior_name, spec, behavior.action, agents, agent_id, action)

    def _behavior(self, name: str) -> _Behavior:
        if name not in self._behaviors:
            raise UnityActionException(f"There is no behavior {name!r} here; there are {', '.join(self._behaviors)}.")
        return self._behaviors[name]

    def _assign_roles(self, env: Any, agents: Sequence[Any], *, all_known: bool = False) -> Roles:
        """Give roles to all agents that may appear, or to the first ones that did."""
        described = {agent: describe(env, agent, self._title, self._reading) for agent in agents}
        self._roles = Roles(self._title, self._name, self._teams, described, all_known=all_known)
        self._add_behaviors(self._roles.behaviors())
        return self._roles

    def _add_behaviors(self, behaviors: Mapping[str, Agent]) -> None:
        """Add behaviors that are new."""
        for name, agent in behaviors.items():
            if name not in self._behaviors:
                spec = BehaviorSpec(agent.spaces.encode.specs, agent.spaces.decode.spec)
                empty = DecisionSteps.empty(spec), TerminalSteps.empty(spec)
                self._behaviors[name] = _Behavior(agent, spec, *empty)
                self._specs[name], self._spaces[name] = spec, agent.spaces

    def _role_of_copy(self, env: Any) -> Callable[[Any], Role]:
        def role_of(agent: Any) -> Role:
            roles = self._roles or self._assign_roles(env, list(env.agents))
            if agent not in roles:
                roles.add(agent, describe(env, agent, self._title, self._reading))
                self._add_behaviors({roles[agent].behavior_id: roles[agent].agent})
            return roles[agent]

        return role_of

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _id(self, number: int, agent: Any) -> int:
        ids = self._ids[number]
        if agent not in ids:
            ids[agent] = self._new_id()
        return ids[agent]

    def _show(self, moments: Sequence[Moment]) -> None:
        """Set the steps of all behaviors to what the copies show."""
        ended: dict[str, list[tuple[int, Ended]]] = {name: [] for name in self._behaviors}
        waiting: dict[str, list[tuple[int, Waiting]]] = {name: [] for name in self._behaviors}
        for number, (ends, waits) in enumerate(moments):
            for end in ends:
                ended[self._role(end.agent).behavior_id].append((number, end))
            for wait in sorted(waits, key=lambda wait: self._id(number, wait.agent)):
                waiting[self._role(wait.agent).behavior_id].append((number, wait))
        for name, behavior in self._behaviors.items():
            behavior.terminals = self._terminals(behavior, ended[name])
            behavior.decisions = self._decisions(behavior, waiting[name])
            behavior.waiting = [(number, wait.agent) for number, wait in waiting[name]]
            behavior.action = None

    def _role(self, agent: Any) -> Role:
        assert self._roles is not None
        return self._roles[agent]

    def _decisions(self, behavior: _Behavior, waiting: Sequence[tuple[int, Waiting]]) -> DecisionSteps:
        if not waiting:
            return DecisionSteps.empty(behavior.spec)
        try:
            obs = behavior.agent.spaces.encode.each([wait.observation for _, wait in waiting])
        except Misfit as misfit:
            number, wait = waiting[misfit.copy or 0]
            self._fail(number, "reset" if wait.first else "step", misfit, wait.agent)
        for number, wait in waiting:
            self._look_at("reset" if wait.first else "step", number, wait.agent, wait.observation)
        return DecisionSteps(
            obs,
            np.array([wait.reward for _, wait in waiting], dtype=np.float32),
            np.array([self._id(number, wait.agent) for number, wait in waiting], dtype=np.int32),
            self._mask(behavior, waiting),
            self._groups(waiting),
            np.array([wait.group_reward for _, wait in waiting], dtype=np.float32),
        )

    def _terminals(self, behavior: _Behavior, ended: Sequence[tuple[int, Ended]]) -> TerminalSteps:
        if not ended:
            return TerminalSteps.empty(behavior.spec)
        return TerminalSteps(
            [np.concatenate(parts) for parts in zip(*(end.observation for _, end in ended), strict=True)],
            np.array([end.reward for _, end in ended], dtype=np.float32),
            np.array([end.interrupted for _, end in ended], dtype=np.bool_),
            np.array([self._id(number, end.agent) for number, end in ended], dtype=np.int32),
            self._groups(ended),
            np.array([end.group_reward for _, end in ended], dtype=np.float32),
        )

    def _groups(self, shown: Sequence[tuple[int, Waiting]] | Sequence[tuple[int, Ended]]) -> npt.NDArray[np.int32]:
        """Return the numbers of agents' groups, which no other copy has; 0 for none."""
        assert self._roles is not None
        each = self._roles.groups
        groups = ((number, self._role(one.agent).group) for number, one in shown)
        return np.array([number * each + group if group else 0 for number, group in groups], dtype=np.int32)

    def _mask(self, behavior: _Behavior, waiting: Sequence[tuple[int, Waiting]]) -> list[npt.NDArray[np.bool_]] | None:
        if all(wait.mask is None for _, wait in waiting):
            return None
        rows = []
        for number, wait in waiting:
            try:
                allowed = wait.mask is None
                rows.append(behavior.agent.all_allowed() if allowed else behavior.agent.forbidden(wait.mask))
            except WrongAnswer as error:
                self._fail(number, "reset" if wait.first else "step", AgentError(wait.agent, f"cannot act: {error}"))
        return [np.concatenate(branch) for branch in zip(*rows, strict=True)]

    def _encode_final(self, number: int, agent: Any, seen: Any) -> list[Encoded]:
        try:
            encoded = self._role(agent).agent.spaces.encode.each([seen])
        except Misfit as misfit:
            self._fail(number, "step", misfit, agent)
        self._look_at("end", number, agent, seen)
        return encoded

    def _look_at(self, when: When, number: int, agent: Any, seen: Any) -> None:
        """Look at an observation in full, where that is still to be done."""
        if self._check == "never" or (when, number, agent) in self._checked:
            return
        try:
            self._role(agent).agent.spaces.encode.check(seen)
        except Misfit as misfit:
            if not (misfit.strict and when == "end" and self._check == "first"):
                self._fail(number, "reset" if when == "reset" else "step", misfit, agent)
            if not self._warned:
                self._warned = True
                logger.warning(
                    "%s: at the end of an episode of agent %r %s. Training goes on with it.", self._title, agent, misfit
                )
        if self._check == "first":
            self._checked.add((when, number, agent))

    def _try(self, number: int, method: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return method(argument)
        except MlhooksError:
            raise
        except Exception as error:
            self._fail(number, self._copies[number].doing, error)

    def _fail(self, number: int, method: str, error: Exception, agent: Any = None) -> NoReturn:
        """Raise what says that a method of a copy failed or gave a wrong answer.

        Raises:
            ContractBroken: the environment gave a wrong answer.
            EnvironmentFailure: it raised an exception.
        """
        of_copy = f" of copy {number}" if len(self._copies) > 1 else ""
        failed = f"{self._title} failed in {method}(){of_copy}"
        place = in_brackets(_place_of(self._copies[number].env, method))
        if isinstance(error, Misfit):
            without = ", or turn this check off by --set env_settings.check=never" if error.strict else ""
            raise ContractBroken(
                f"{failed}: agent {agent!r}: {error}. Correct what it shows{place} or its observation_space{without}."
            ) from error
        if isinstance(error, WrongAnswer):
            raise ContractBroken(f"{failed}: {error}{place}.") from error
        if isinstance(error, TypeError) and method == "reset" and _MISSING.search(str(error)):
            raise ContractBroken(
                f"{failed}: {named(error)}{place}. reset() must take the keyword arguments seed and options."
            ) from error
        raise EnvironmentFailure(f"{failed}: {named(error)}{in_brackets(raised_at(error))}") from error

    def _require_open(self) -> None:
        if self._closed:
            raise UnityEnvironmentException(f"This {self._title} environment is closed; make a new one.")


def _place_of(env: Any, method: str) -> str:
    """Return `file.py:12`, where a method of an environment is defined, below PettingZoo's own wrappers."""
    for each in _unwrapped(env):
        function = getattr(type(each), method, None)
        if not type(each).__module__.startswith("pettingzoo.utils."):
            inherited = str(getattr(function, "__module__", "")).startswith("pettingzoo.utils.")
            return defined_at(type(each) if function is None or inherited else function)
    return ""


def _unwrapped(env: Any) -> Iterator[Any]:
    """Yield an environment and what it wraps, which wrappers of either interface call by one of two names."""
    while env is not None:
        yield env
        env = vars(env).get("env") or vars(env).get("aec_env")
