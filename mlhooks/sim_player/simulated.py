"""The simulations of `sim:`, played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mlagents_envs.base_env import (
    ActionTuple,
    BehaviorSpec,
    DecisionSteps,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
)

from mlhooks.errors import UsageError
from mlhooks.sim_player.options import with_team
from mlhooks.sim_player.side_channels import Sampler
from mlhooks.sim_player.world import Actions, Behavior, Bools, Infos, Ints, Sensor
from mlhooks.sims import SIMULATIONS

_NOBODY = np.zeros(0, dtype=np.bool_)


class Simulated:
    """A simulation; its agents decide, belong to groups, and come and go as the simulation says.

    Args:
        name: Its name in `sim:NAME`.
        behavior_name: What to call its behavior, whose teams keep their numbers; None means as the simulation does.
        agents: Agents in one area; None means the simulation's own number.
        areas: Copies of the area.
        seed: Seed of the simulation.
        change_ids: Whether every episode gives its agent a new id.

    Raises:
        UsageError: It has several behaviors, which cannot all have one name.
    """

    def __init__(
        self,
        name: str,
        *,
        behavior_name: str | None,
        agents: int | None,
        areas: int,
        seed: int,
        change_ids: bool = False,
    ) -> None:
        self._simulation = SIMULATIONS[name](num_agents=agents, num_areas=areas, seed=abs(seed))
        specs = self._simulation.behavior_specs
        names = {own.partition("?")[0] for own in specs}
        if behavior_name is not None and (len(names) > 1 or (len(specs) > 1 and "?" in behavior_name)):
            raise UsageError(f"{name} has {' and '.join(specs)}: --behavior names one behavior, without its team.")
        self._parts = [_Part(own, spec, _wire_name(own, behavior_name), change_ids) for own, spec in specs.items()]
        self.behaviors: Mapping[str, Behavior] = {part.behavior.name: part.behavior for part in self._parts}

    def reset(self) -> None:
        """Begin new episodes."""
        self._simulation.reset()
        for part in self._parts:
            part.forget()

    def act(self, actions: Mapping[str, Actions]) -> None:
        """Carry out one action of every agent that waits for one."""
        for part in self._parts:
            if part.behavior.name in actions:
                self._simulation.set_actions(part.own_name, ActionTuple(*actions[part.behavior.name]))
        self._simulation.step()

    def infos(self) -> Mapping[str, Sequence[Infos]]:
        """Return what all agents send, after those whose episodes ended."""
        return {part.behavior.name: part.infos(*self._simulation.get_steps(part.own_name)) for part in self._parts}

    def stats(self) -> Sequence[tuple[str, float, int]]:
        """Return nothing: training sees what it sees in process."""
        return ()

    def set_parameters(self, samplers: Mapping[str, Sampler]) -> None:
        """Hand them to the simulation, which draws each agent's when its episode begins; games ignore them."""
        self._simulation.set_parameters(samplers)


class _Part:
    """One behavior of a simulation."""

    def __init__(self, own_name: str, spec: BehaviorSpec, name: str, change_ids: bool) -> None:
        self.own_name = own_name
        self._order = sorted(range(len(spec.observation_specs)), key=lambda i: spec.observation_specs[i].name)
        sensors = tuple(_sensor(spec.observation_specs[i]) for i in self._order)
        action = spec.action_spec
        self.behavior = Behavior(name, sensors, action.continuous_size, action.discrete_branches)
        self._change_ids = change_ids
        self._ids: dict[int, int] = {}  # Ids that were changed, by the simulation's.
        self._next_id = 0
        self._masks = np.zeros((0, sum(action.discrete_branches)), dtype=np.bool_)
        """The mask of each agent's last decision, by the simulation's ids."""
        self._masked = False

    def forget(self) -> None:
        """Let agents have new ids in the episodes that begin, where ids change."""
        self._ids.clear()

    def infos(self, decisions: DecisionSteps, terminals: TerminalSteps) -> list[Infos]:
        """Return what the behavior's agents send, after those whose episodes ended."""
        lists = []
        if len(terminals):
            mask = self._masks[terminals.agent_id] if self._masked else None
            lists.append(self._infos(terminals, terminals.interrupted, mask))
            for agent in terminals.agent_id.tolist():
                self._ids.pop(agent, None)
        if len(decisions):
            mask = None if decisions.action_mask is None else self._remembered(decisions)
            lists.append(self._infos(decisions, None, mask))
        return lists

    def _infos(self, steps: DecisionSteps | TerminalSteps, interrupted: Bools | None, mask: Bools | None) -> Infos:
        obs = [steps.obs[i] for i in self._order]
        ended = _NOBODY if interrupted is None else interrupted
        ids = self._wire_ids(steps.agent_id)
        done = interrupted is not None
        return Infos(done, ids, obs, steps.reward, ended, steps.group_id, steps.group_reward, mask)

    def _wire_ids(self, agents: Ints) -> Ints:
        if not self._change_ids:
            return agents
        for agent in agents.tolist():
            if agent not in self._ids:
                self._ids[agent] = self._next_id
                self._next_id += 1
        return np.array([self._ids[agent] for agent in agents.tolist()], dtype=np.int32)

    def _remembered(self, decisions: DecisionSteps) -> Bools:
        mask = np.concatenate(decisions.action_mask, axis=1)
        most = int(decisions.agent_id.max()) + 1
        if most > len(self._masks):
            more = np.zeros((most - len(self._masks), self._masks.shape[1]), dtype=np.bool_)
            self._masks = np.concatenate([self._masks, more])
        self._masks[decisions.agent_id] = mask
        self._masked = True
        return mask


def _wire_name(own_name: str, behavior_name: str | None) -> str:
    """Return the name as a player sends it; a name that is given replaces the simulation's, and keeps its team."""
    name, mark, team = own_name.partition("?")
    called = behavior_name or name
    return with_team(called if "?" in called else f"{called}{mark}{team}")


def _sensor(spec: ObservationSpec) -> Sensor:
    properties = tuple(int(part) for part in spec.dimension_property)
    return Sensor(spec.name, spec.shape, properties, spec.observation_type == ObservationType.GOAL_SIGNAL)
