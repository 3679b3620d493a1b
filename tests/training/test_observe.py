"""What a trainer takes in of steps that lie: no row is counted twice, and nothing half."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import DecisionSteps, TerminalSteps

from mlhooks.errors import EnvironmentFailure
from mlhooks.training import silent_agents
from tests.scripted import Corridor, Env, config, train
from tests.training.recorder import Recorder

pytestmark = pytest.mark.usefixtures("each_way")


def change(steps: Any, **columns: Any) -> Any:
    for name, value in columns.items():
        setattr(steps, name, value)
    return steps


class Lying(Corridor):
    """Ends the episodes of its four agents in step 5, and changes what is said of that."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        decisions, terminals = super().get_steps(behavior_name)
        if self.steps == 5:
            getattr(self, f"_{self.what}")(decisions, terminals)
        return decisions, terminals

    def _end_twice(self, _: DecisionSteps, terminals: TerminalSteps) -> None:
        terminals._agent_id_to_index = None
        change(terminals, agent_id=np.array([0, 1, 2, 1], np.int32))

    def _decide_twice(self, decisions: DecisionSteps, _: TerminalSteps) -> None:
        change(decisions, agent_id=np.array([0, 3, 2, 3], np.int32))

    def _few_rewards(self, _: DecisionSteps, terminals: TerminalSteps) -> None:
        change(terminals, reward=terminals.reward[:1])

    def _few_observations(self, decisions: DecisionSteps, _: TerminalSteps) -> None:
        change(decisions, obs=[decisions.obs[0][:1]])

    def _few_groups(self, decisions: DecisionSteps, _: TerminalSteps) -> None:
        change(decisions, group_id=decisions.group_id[:1])

    def _few_group_rewards(self, _: DecisionSteps, terminals: TerminalSteps) -> None:
        change(terminals, group_reward=terminals.group_reward[:1])

    def _few_interruptions(self, _: DecisionSteps, terminals: TerminalSteps) -> None:
        change(terminals, interrupted=terminals.interrupted[:1])


LIES = {
    "end_twice": "an agent ends more than once in one step: agent_id has 1 several times.",
    "decide_twice": "an agent asks for more than one decision in one step: agent_id has 3 several times.",
    "few_rewards": "the reward has the shape (1,), and not (4,)",
    "few_observations": "the observation 0 has the shape (1, 3), and not (4, 3)",
    "few_groups": "the group_id has the shape (1,), and not (4,)",
    "few_group_rewards": "the group_reward has the shape (1,), and not (4,)",
    "few_interruptions": "the interrupted has the shape (1,), and not (4,)",
}


@pytest.mark.parametrize("what", LIES)
def test_step_that_lies_is_named_and_nothing_of_it_counts(tmp_path: Path, what: str) -> None:
    recorder = Recorder()
    with pytest.raises(EnvironmentFailure) as caught:
        train(config("Corridor", "test:x"), tmp_path, Env(lambda: Lying(what)), recorder)
    assert f"Behavior 'Corridor': {LIES[what]}" in str(caught.value)
    assert "checkpoint_saved 16" in recorder.calls  # Four whole steps of four agents: the fifth counts for nobody.


class Unborn(Corridor):
    """Says that an agent ended which never decided."""

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        decisions, terminals = super().get_steps(behavior_name)
        if len(terminals):
            change(terminals, agent_id=np.array([0, 1, 2, 99], np.int32))
        return decisions, terminals


def test_agent_that_ends_without_having_decided_counts_for_nothing(tmp_path: Path) -> None:
    """Agent 3 never ends and decides at every step, the others end in each fifth: 20 rows in 5 steps all the same."""
    run = train(config("Corridor", "test:x", max_steps=200), tmp_path, Env(Unborn))
    trainer = run.trainers["Corridor"]
    assert trainer.step == 200
    assert trainer.episodes.finished == 3 * 10


class Strangers(Corridor):
    """Has agents with new ids at each step, none of which ends; the first `faithful` ones stay."""

    def __init__(self, agents: int, faithful: int = 0) -> None:
        super().__init__(agents=agents)
        self.faithful = faithful

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        decisions, _ = super().get_steps(behavior_name)
        ids = np.arange(self.num_agents, dtype=np.int32)
        ids[self.faithful :] += self.num_agents * self.steps
        return change(decisions, agent_id=ids), self._none_ended


def test_agents_that_vanish_one_after_the_other_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlhooks.envs.slots.MOST_NEWCOMERS", 100)
    with pytest.raises(EnvironmentFailure, match="Behavior 'Corridor': 260 agents of worker 0 have appeared one after"):
        train(config("Corridor", "test:x"), tmp_path, Env(lambda: Strangers(4)))  # 4 * 64 may come one after the other


class Turns(Corridor):
    """Has agents that decide in turn, one in each step, and never end."""

    players = 150

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        decisions, _ = super().get_steps(behavior_name)
        return change(decisions, agent_id=np.array([self.steps % self.players], np.int32)), self._none_ended


def test_agents_that_take_turns_are_learned_from(tmp_path: Path) -> None:
    run = train(config("Corridor", "test:x", max_steps=300), tmp_path, Env(lambda: Turns(agents=1)))
    assert run.trainers["Corridor"].step == 300


@pytest.mark.parametrize("faithful", [1, 2])
def test_agents_that_are_gone_beside_others_that_stay_are_spoken_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, faithful: int
) -> None:
    monkeypatch.setattr(silent_agents, "FEW", 64)
    monkeypatch.setattr(silent_agents, "SILENT", 10)
    run = train(config("Corridor", "test:x", max_steps=200), tmp_path, Env(lambda: Strangers(2, faithful)))
    assert run.trainers["Corridor"].step == 200
    said = "Behavior 'Corridor': of 63 agents that have decided and not ended, 52 took part in none of the last 10"
    assert (said in caplog.text) == (faithful == 1)


class Huge(Corridor):
    """Sends a number in one step of each of its lives."""

    def __init__(self, number: float) -> None:
        super().__init__(corrupt=self._spoil)
        self.number = number

    def _spoil(self, step: int, obs: list[np.ndarray], _: np.ndarray) -> None:
        if step == 33:
            obs[0][2, 1] = self.number


@pytest.mark.parametrize("number", [3e38, -2e19])
def test_number_that_would_drown_the_statistics_is_refused(tmp_path: Path, number: float) -> None:
    said = f"'Corridor': number 1 of observation 0 (where) of agent 2 in worker 0 is {number:g}, at step"
    with pytest.raises(EnvironmentFailure, match=re.escape(said)):
        train(config("Corridor", "test:x"), tmp_path, Env(lambda: Huge(number)))
    run = train(config("Corridor", "test:x"), tmp_path, Env(), resume=True)
    normalizer = run.trainers["Corridor"].policy.inputs.normalizer
    assert normalizer is not None
    assert float(normalizer.mean.abs().max()) <= 4.0  # The numbers are from 0 to 4.


def test_large_numbers_whose_squares_are_there_are_taken(tmp_path: Path) -> None:
    """The sum of their squares is beyond float32, and each one is not."""
    run = train(config("Corridor", "test:x", max_steps=200), tmp_path, Env(lambda: Huge(1.8e19)))
    assert run.outcome.status == "finished"


def test_without_normalization_no_number_is_too_large(tmp_path: Path) -> None:
    settings = config("Corridor", "test:x", max_steps=100)
    settings["behaviors"]["Corridor"]["network_settings"]["normalize"] = False
    run = train(settings, tmp_path, Env(lambda: Huge(1e30)))
    assert not run.outcome.restarts
