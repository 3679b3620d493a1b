"""What is recorded when a behavior is played: which episodes, which agents, and by whom they act."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
)
from mlagents_envs.base_env import ObservationType as Kind

from mlhooks.demos.records import Records
from mlhooks.envs.single_behavior import SingleBehaviorEnv
from mlhooks.errors import NonFiniteError, UsageError
from mlhooks.sims.basic import Basic
from mlhooks.training.recording import Random, Recorder, Scripted, Trained

RNG = np.random.default_rng(0)


class Uneven(SingleBehaviorEnv):
    """Agent k's episodes have k + 1 decisions; it sees itself and the decision's number, and is paid for action 1."""

    def __init__(self, agents: int = 2, actions: ActionSpec | None = None) -> None:
        observation = ObservationSpec((2,), (DimensionProperty.NONE,), Kind.DEFAULT, "who")
        super().__init__("Uneven", BehaviorSpec([observation], actions or ActionSpec(0, (2,))), agents)
        self.acted: list[ActionTuple] = []

    def _seen(self) -> list[np.ndarray]:
        return [np.stack([np.arange(self.num_agents), self.ages], 1).astype(np.float32)]

    def _restart(self) -> None:
        self.ages = np.zeros(self.num_agents, np.int64)
        self._decisions = self._decide(self._seen(), np.zeros(self.num_agents, np.float32))
        self._terminals = self._none_ended

    def _advance(self, action: ActionTuple) -> None:
        self.acted.append(action)
        reward = action.discrete[:, 0].astype(np.float32) if action.discrete.size else np.zeros(self.num_agents)
        self.ages += 1
        rows = np.flatnonzero(self.ages > np.arange(self.num_agents))
        self._terminals = self._none_ended
        if len(rows):
            seen = [part[rows] for part in self._seen()]
            self._terminals = self._end(seen, reward[rows].astype(np.float32), rows == 0, rows)
            reward[rows], self.ages[rows] = 0, 0
        self._decisions = self._decide(self._seen(), reward.astype(np.float32))


def scripted(function: Any) -> Any:
    return lambda name, spec, spaces: Scripted(function, "mine.py:act", spec, spaces)


def record(env: Any, function: Any, episodes: int, **arguments: Any) -> Records:
    return Recorder(env, scripted(function), **arguments).record(episodes)


def test_records_are_observations_rewards_and_the_actions_decided_on_by_them():
    records = record(Basic(), lambda seen: 2, 2)
    assert records.behavior_name == "Basic"
    assert records.obs[0].argmax(1).tolist() == [10, 11, 12, 13, 14, 15, 16, 17] * 2
    assert records.discrete[:, 0].tolist() == [2] * 7 + [0] + [2] * 7 + [0]
    assert records.done.tolist() == ([False] * 7 + [True]) * 2
    assert records.acts.tolist() == ([True] * 7 + [False]) * 2
    assert records.reward.tolist() == pytest.approx(([0] + [-0.01] * 6 + [0.99]) * 2)
    assert (records.episodes, records.mean_reward) == (2, pytest.approx(0.93))


def test_episodes_that_began_first_are_recorded_whoever_ends_first():
    records = record(Uneven(agents=3), lambda seen: int(seen[1]) % 2, 3)
    assert records.obs[0].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2], [2, 3]]
    assert records.done.tolist() == [False, True, False, False, True, False, False, False, True]
    assert records.interrupted.tolist() == [False, True] + [False] * 7
    assert records.discrete[:, 0].tolist() == [0, 0, 0, 1, 0, 0, 1, 0, 0]
    assert records.reward.tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 0]


def test_episode_that_never_ends_is_left_out_and_another_recorded(caplog):
    class Endless(Uneven):
        def _advance(self, action):
            self.ages[0] = -1  # Its first agent is at its first decision again and again.
            super()._advance(action)

    records = record(Endless(agents=2), lambda seen: 0, 2)
    assert records.obs[0].tolist() == [[1, 0], [1, 1], [1, 2]] * 2
    assert "1 of the recorded episodes did not end while 41 others did: they are left out" in caplog.text


def test_function_gets_arrays_and_gives_pairs_of_hybrid_behaviors():
    env = Uneven(agents=2, actions=ActionSpec(2, (3, 2)))
    records = record(env, lambda seen: ([0.5, -0.25], [2, int(seen[0])]), 2)
    assert records.continuous[records.acts].tolist() == [[0.5, -0.25]] * 3
    assert records.discrete[records.acts].tolist() == [[2, 0], [2, 1], [2, 1]]


def test_function_that_changes_what_it_gets_changes_nothing_that_is_recorded():
    def zeroed(seen: Any) -> int:
        seen[:] = 0.0
        return 2

    assert record(Basic(), zeroed, 1).obs[0].argmax(1).tolist() == [10, 11, 12, 13, 14, 15, 16, 17]


@pytest.mark.parametrize("answer", [2, -1, 0.5, [0, 1], None, "left"])
def test_function_that_returns_no_action_is_named(answer):
    with pytest.raises(UsageError, match=r"mine\.py:act returned .*, which is no action of"):
        record(Uneven(), lambda seen: answer, 1)


def test_function_that_fails_is_named():
    with pytest.raises(UsageError, match=r"mine\.py:act failed: .*ZeroDivisionError.*test_recording\.py") as failed:
        record(Uneven(), lambda seen: 1 / 0, 1)
    assert str(failed.value).count("test_recording.py") == 1


def test_nan_of_the_environment_is_refused():
    env = Uneven()
    env._seen = lambda: [np.full((2, 2), np.nan, np.float32)]  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="Behavior 'Uneven': an observation or a reward"):
        record(env, lambda seen: 0, 1)


def test_behavior_that_the_environment_lacks_is_refused():
    with pytest.raises(UsageError, match="has the behaviors Uneven, and 'Evan' is none of them: say --behavior"):
        record(Uneven(), lambda seen: 0, 1, behavior="Evan")


def test_random_actions_heed_masks_and_bounds():
    actor = Random(BehaviorSpec(Uneven().behavior_specs["Uneven"].observation_specs, ActionSpec(1, (3, 2))), RNG)
    steps = Basic()
    steps.reset()
    decisions, terminals = steps.get_steps("Basic")
    decisions.action_mask = [np.array([[True, False, False]]), np.array([[False, True]])]
    drawn = [actor.decide(decisions, terminals) for _ in range(200)]
    assert {int(action.discrete[0, 0]) for action in drawn} == {1, 2}
    assert {int(action.discrete[0, 1]) for action in drawn} == {0}
    continuous = np.array([action.continuous[0, 0] for action in drawn])
    assert continuous.min() < -0.8
    assert continuous.max() > 0.8
    assert np.abs(continuous).max() <= 1


class Counting:
    """A policy with a memory, in which it counts: it acts by how often it has seen the agent in this episode."""

    memory_size, behavior_spec = 1, Uneven().behavior_specs["Uneven"]

    def decide(self, steps: DecisionSteps, memory: np.ndarray, **_: Any) -> tuple[ActionTuple, np.ndarray]:
        counts = memory[:, 0].astype(np.int64)
        discrete = (counts % 2)[:, None].astype(np.int32)
        return ActionTuple(np.zeros((len(counts), 0), np.float32), discrete), memory + 1


def test_policy_with_a_memory_remembers_each_agent_for_an_episode() -> None:
    actor = Trained(Counting(), True, "Uneven", Counting.behavior_spec, RNG)  # type: ignore[arg-type]
    records = Recorder(Uneven(agents=3), lambda *_: actor).record(5)
    ages = records.obs[0][:, 1]
    assert records.discrete[records.acts, 0].tolist() == (ages[records.acts] % 2).tolist()
    assert records.episodes == 5


def test_policy_of_another_behavior_is_refused() -> None:
    with pytest.raises(UsageError, match=r"The environment's behavior 'Basic' has .* Record in the environment"):
        Trained(Counting(), True, "Basic", Basic.SPEC, RNG)  # type: ignore[arg-type]
