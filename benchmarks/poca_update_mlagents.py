"""One process of `poca_update.py`: updates of ML-Agents' own POCA on given rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from mlagents.plugins.trainer_type import register_trainer_plugins
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.poca.trainer import POCATrainer
from mlagents.trainers.settings import RunOptions
from mlagents.trainers.torch_entities.action_log_probs import LogProbsTuple
from mlagents.trainers.trajectory import AgentExperience, AgentStatus, Trajectory
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)
from poca_rows import BRANCH, CONTINUOUS, Rows, make_rows

settings: dict[str, Any] = json.loads(sys.argv[1])
NAME = "Groups"


def make() -> POCATrainer:
    """Return the trainer, with its policy."""
    register_trainer_plugins()
    names = ("batch_size", "buffer_size", "num_epoch", "learning_rate")
    behavior = {
        "trainer_type": "poca",
        "hyperparameters": {name: settings[name] for name in names},
        "network_settings": {"hidden_units": settings["hidden_units"], "num_layers": settings["num_layers"]},
        "time_horizon": settings["time_horizon"],
    }
    options = RunOptions.from_dict({"behaviors": {NAME: behavior}})
    trainer = POCATrainer(NAME, 10, options.behaviors[NAME], True, False, settings["seed"], "results")
    properties = (DimensionProperty.NONE,), ObservationType.DEFAULT, "observation"
    observation = ObservationSpec((settings["observations"],), *properties)
    spec = BehaviorSpec([observation], ActionSpec(CONTINUOUS, (BRANCH,)))
    identifiers = BehaviorIdentifiers.from_name_behavior_id(NAME)
    trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
    return trainer


def trajectories(rows: Rows) -> list[Trajectory]:
    """Return the rows as trajectories of `time_horizon` steps."""
    members, horizon, made = settings["members"], settings["time_horizon"], []
    ticks, agents = rows.reward.shape

    def status(tick: int, agent: int) -> AgentStatus:
        action = ActionTuple(rows.continuous[tick, agent], rows.discrete[tick, agent].astype(np.int32))
        return AgentStatus([rows.obs[tick, agent]], float(rows.reward[tick, agent]), action, done=False)

    def experience(tick: int, agent: int, groupmates: list[int]) -> AgentExperience:
        own, log_probs = status(tick, agent), rows.log_probs[tick, agent]
        return AgentExperience(
            obs=own.obs,
            reward=own.reward,
            done=False,
            action=own.action,
            action_probs=LogProbsTuple(log_probs[:CONTINUOUS], log_probs[CONTINUOUS:]),
            action_mask=[np.zeros(BRANCH, np.bool_)],
            prev_action=np.zeros(1, np.int32),
            interrupted=False,
            memory=None,
            group_status=[status(tick, groupmate) for groupmate in groupmates],
            group_reward=float(rows.group_reward[tick, agent]),
        )

    for start in range(0, ticks, horizon):
        end = min(start + horizon, ticks)
        for agent in range(agents):
            first = agent // members * members
            groupmates = [groupmate for groupmate in range(first, first + members) if groupmate != agent]
            steps = [experience(tick, agent, groupmates) for tick in range(start, end)]
            after = [[rows.obs[end, groupmate]] for groupmate in groupmates]
            made.append(Trajectory(steps, [rows.obs[end, agent]], after, f"agent_{agent}", NAME))
    return made


def main() -> None:
    """Time updates, each on the same rows; the first one warms up."""
    torch.set_num_threads(1)
    trainer, rows = make(), make_rows(settings)
    valuing, updating = [], []
    for _ in range(settings["updates"] + 1):
        made = trajectories(rows)
        started = process_time()
        for trajectory in made:
            trainer._process_trajectory(trajectory)
        valued = process_time()
        trainer._update_policy()
        valuing.append(valued - started)
        updating.append(process_time() - valued)
    seconds = [a + b for a, b in zip(valuing[1:], updating[1:], strict=True)]
    report = {"seconds": seconds, "valuing": valuing[1:], "updating": updating[1:]}
    Path(sys.argv[2]).write_text(json.dumps(report), encoding="utf-8")


main()
