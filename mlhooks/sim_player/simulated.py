"""The simulations of `sim:`, played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mlagents_envs.base_env import ActionTuple, ObservationSpec, ObservationType

from mlhooks.sim_player.side_channels import Sampler
from mlhooks.sim_player.world import Actions, Behavior, Bools, Infos, Ints, Sensor
from mlhooks.sims import SIMULATIONS


class Simulated:
    """A simulation; all its agents decide at every step.

    Args:
        name: Its name in `sim:NAME`.
        behavior_name: What to call its behavior.
        agents: Agents in one area; None means the simulation's own number.
        areas: Copies of the area.
        seed: Seed of the simulation.
        change_ids: Whether every episode gives its agent a new id.
    """

    def __init__(
        self, name: str, *, behavior_name: str, agents: int | None, areas: int, seed: int, change_ids: bool = False
    ) -> None:
        self._simulation = SIMULATIONS[name](num_agents=agents, num_areas=areas, seed=abs(seed))
        spec = self._simulation.behavior_specs[self._simulation.behavior_name]
        self._order = sorted(range(len(spec.observation_specs)), key=lambda i: spec.observation_specs[i].name)
        sensors = tuple(_sensor(spec.observation_specs[i]) for i in self._order)
        action_spec = spec.action_spec
        self._name = behavior_name
        self.behaviors: Mapping[str, Behavior] = {
            behavior_name: Behavior(behavior_name, sensors, action_spec.continuous_size, action_spec.discrete_branches)
        }
        self._change_ids = change_ids
        self._ids = np.arange(self._simulation.num_agents, dtype=np.int32)
        self._mask: Bools | None = None

    def reset(self) -> None:
        """Begin new episodes."""
        self._simulation.reset()
        if self._change_ids:
            self._ids = self._ids + np.int32(len(self._ids))

    def act(self, actions: Mapping[str, Actions]) -> None:
        """Carry out one action of every agent."""
        if self._name in actions:
            continuous, discrete = actions[self._name]
            self._simulation.set_actions(self._simulation.behavior_name, ActionTuple(continuous, discrete))
        self._simulation.step()

    def infos(self) -> Mapping[str, Sequence[Infos]]:
        """Return what all agents send, after those whose episodes ended."""
        decisions, terminals = self._simulation.get_steps(self._simulation.behavior_name)
        lists = []
        if len(terminals):
            rows: Ints = terminals.agent_id  # The simulation's ids are rows.
            lists.append(
                Infos(
                    True,
                    self._ids[rows],
                    [terminals.obs[i] for i in self._order],
                    terminals.reward,
                    terminals.interrupted,
                    terminals.group_id,
                    terminals.group_reward,
                    None if self._mask is None else self._mask[rows],
                )
            )
            if self._change_ids:
                self._ids = self._ids.copy()
                self._ids[rows] = self._ids.max() + 1 + np.arange(len(rows), dtype=np.int32)
        if decisions.action_mask is not None:
            self._mask = np.concatenate(decisions.action_mask, axis=1)
        lists.append(
            Infos(
                False,
                self._ids,
                [decisions.obs[i] for i in self._order],
                decisions.reward,
                np.zeros(0, dtype=np.bool_),
                decisions.group_id,
                decisions.group_reward,
                self._mask,
            )
        )
        return {self._name: lists}

    def stats(self) -> Sequence[tuple[str, float, int]]:
        """Return nothing: training sees what it sees in process."""
        return ()

    def set_parameters(self, samplers: Mapping[str, Sampler]) -> None:
        """Hand them to the simulation, which draws each agent's when its episode begins."""
        self._simulation.set_parameters(samplers)


def _sensor(spec: ObservationSpec) -> Sensor:
    properties = tuple(int(part) for part in spec.dimension_property)
    return Sensor(spec.name, spec.shape, properties, spec.observation_type == ObservationType.GOAL_SIGNAL)
