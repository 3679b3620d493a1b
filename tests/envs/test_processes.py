from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.envs.manager import Worker, WorkerFailure, WorkerLost, WorkerStep
from mlhooks.envs.parameters import Sampler
from mlhooks.envs.shared_steps import check_steps
from mlhooks.envs.told import Stat
from mlhooks.errors import EnvironmentFailure, UsageError
from mlhooks.settings.environment_parameters import ConstantSettings
from mlhooks.stats import StatsAggregationMethod
from tests.envs.managed import Manage, act, play
from tests.envs.numbered import Make, Numbered, Plan, spec

SUM = StatsAggregationMethod.SUM


def assert_equal(got: Any, wanted: Any) -> None:
    for (name, value), same in zip(vars(wanted).items(), vars(got).values(), strict=True):
        if name != "_agent_id_to_index":
            np.testing.assert_equal(same, value, err_msg=name)


def test_steps_arrive_as_the_environment_made_them(manage: Manage) -> None:
    """With agents that become more and more, a behavior that appears late, and masks."""
    plans = [Plan(growth=2), Plan(late=7, masked=True)]
    here = [Numbered(index, plan) for index, plan in enumerate(plans)]
    for env in here:
        env.reset()
    counts, views = [0, 0], []

    def compare(step: WorkerStep) -> None:
        index = step.worker.index
        if counts[index]:
            here[index].step()
        counts[index] += 1
        assert step.specs == here[index].behavior_specs
        assert step.steps.keys() == step.specs.keys()
        for behavior_id, (decisions, terminals) in step.steps.items():
            wanted_decisions, wanted_terminals = here[index].get_steps(behavior_id)
            assert_equal(decisions, wanted_decisions)
            assert_equal(terminals, wanted_terminals)
            views.append(decisions.obs[0].base is not None)

    manager = manage(Make(plans), 2)
    while min(counts) <= 7:  # A worker may have made many steps before the other has started.
        assert play(manager, 20, compare) == []
    assert all(views)


class Filming(Numbered):
    """Shows an image of its numbers as bytes; of ends as floats in odd episodes."""

    @property
    def behavior_specs(self) -> Mapping[str, BehaviorSpec]:
        return {"Numbers": spec("image", (2, 1, 2))}

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        decisions, terminals = super().get_steps(behavior_name)
        for steps in (decisions, terminals):
            pixels = steps.obs[0].reshape(-1, 2, 1, 2).astype(np.uint8)
            steps.obs = [pixels / np.float32(255) if steps is terminals and self.episode % 2 else pixels]
        return decisions, terminals


def test_bytes_of_images_arrive_as_bytes(manage: Manage) -> None:
    here = Filming(0, Plan())
    here.reset()
    ends = set()

    def compare(step: WorkerStep) -> None:
        got, wanted = step.steps["Numbers"], here.get_steps("Numbers")
        for ours, theirs in zip(got, wanted, strict=True):
            assert_equal(ours, theirs)
            assert ours.obs[0].dtype == theirs.obs[0].dtype
            assert ours.obs[0].transpose(0, 2, 3, 1).flags.c_contiguous  # Experience is kept in this order.
        check_steps("Numbers", step.specs["Numbers"], *wanted)
        if len(got[1]):
            ends.add(got[1].obs[0].dtype.name)
        here.step()

    play(manage(Filming, 1), 12, compare)
    assert ends == {"uint8", "float32"}


class Echo(Numbered):
    """Adds the actions that it gets to its statistics."""

    def take_stats(self) -> list[Stat]:
        return [(f"{n} {a.continuous.tolist()} {a.discrete.tolist()}", 1.0, SUM) for n, a in self.actions.items()]


def test_actions_arrive_and_statistics_come_back(manage: Manage) -> None:
    stats: list[Any] = []
    play(manage(Echo, 1), 2, lambda step: stats.extend(step.stats))
    assert stats == [("Numbers [[0.0], [0.5], [1.0]] [[1, 1], [1, 1], [1, 1]]", 1.0, SUM)]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "RuntimeError: it exploded HERE"),
        ("connection", "ConnectionResetError: the robot hung up HERE"),
        ("interrupt", "KeyboardInterrupt: says the environment HERE"),
        ("crash", "Its process ended with code 7"),
    ],
)
def test_failed_worker_is_started_again_while_the_others_go_on(
    manage: Manage, tmp_path: Path, fault: str, message: str
) -> None:
    manager = manage(Make([Plan(), Plan({4: fault}, lives=1, folder=str(tmp_path))]), 2)
    lost: list[WorkerLost] = []
    meanwhile = 0
    lives: list[int] = []
    events = manager.ready()
    while len(events) < 2:  # Neither begins before the other one is there, however slowly processes start.
        events += manager.ready()
    while len(lives) < 10 or lives[-1] == 0:
        for event in events:
            if isinstance(event, WorkerLost):
                lost.append(event)
                continue
            if event.worker.index == 1:
                lives.append(int(event.steps["Numbers"][0].obs[0][0, 0]) // 100)
            elif lost and max(lives) == 0:
                meanwhile += 1
            act(manager, event)
        events = manager.ready()
    assert [re.sub(r" \(.*numbered\.py:\d+\)", " HERE", str(event)) for event in lost] == [
        f"The environment of worker 1 failed: {message}."
    ]
    assert lives == [0] * 4 + [1] * (len(lives) - 4)
    assert meanwhile > 0


def test_worker_that_hangs_is_ended_and_none_waits_for_it(manage: Manage, tmp_path: Path) -> None:
    manager = manage(Make([Plan(), Plan({2: "hang"}, lives=1, folder=str(tmp_path))]), 2)
    seen = {0: 0, 1: 0}

    def count(step: WorkerStep) -> None:
        seen[step.worker.index] += 1

    while seen[1] < 2:
        assert play(manager, 1, count) == []
    before = seen[0]
    assert play(manager, 50, count) == []
    assert seen == {0: before + 50, 1: 2}
    manager._workers[1].deadline = 0.0  # The time is over then.
    lost = play(manager, 1, count)
    assert [str(event) for event in lost] == [
        "The environment of worker 1 failed: It did not answer within 60 seconds (--timeout-wait)."
    ]
    while seen[1] < 4:
        play(manager, 1, count)


def test_limit_of_restarts_ends_in_a_failure_that_says_so(manage: Manage) -> None:
    manager = manage(Make([Plan({2: "raise"}), Plan()]), 2, lifetime=1)
    with pytest.raises(
        WorkerFailure, match=r"worker 0 failed.*it exploded \(.*\)\. It was restarted once before, and --max"
    ):
        play(manager, 1_000_000)


def test_worker_whose_steps_cannot_be_used_is_started_again(manage: Manage, tmp_path: Path) -> None:
    manager = manage(Make([Plan(folder=str(tmp_path))]), 1)
    lives: list[float] = []
    play(manager, 3, lambda step: lives.append(step.steps["Numbers"][0].obs[0][0, 0]))
    error = ValueError("no numbers")
    assert manager.fail(Worker(0), error) == WorkerLost(Worker(0), error)
    play(manager, 2, lambda step: lives.append(step.steps["Numbers"][0].obs[0][0, 0]))
    assert lives == [0, 0, 0, 100, 100]


def test_reset_passes_over_the_step_that_is_under_way(manage: Manage) -> None:
    manager = manage(Make([Plan()]), 1)
    seen: list[list[float]] = []

    def note(step: WorkerStep) -> None:
        seen.append(step.steps["Numbers"][0].obs[0][0, 2:].tolist())

    play(manager, 3, note)
    manager.reset(Worker(0))
    play(manager, 2, note)
    assert seen == [[1, 0], [1, 1], [1, 2], [2, 0], [2, 1]]


class Weighed(Numbered):
    """Adds its weight to its statistics at every step; worker 1 breaks down under its first weight of 2."""

    weight = 0.0

    def set_parameters(self, parameters: Mapping[str, Sampler]) -> None:
        self.weight = float(parameters["weight"].draw()[0])

    def step(self) -> None:
        if (self.worker, self.life, self.weight) == (1, 0, 2.0):
            os._exit(7)
        super().step()

    def take_stats(self) -> list[Stat]:
        return [("weight", self.weight, SUM)]


def test_parameters_reach_all_workers_and_those_that_are_started_again(manage: Manage, tmp_path: Path) -> None:
    manager = manage(lambda index: Weighed(index, Plan(folder=str(tmp_path))), 2)
    seen: dict[tuple[int, int], list[float]] = {(0, 0): [], (1, 0): [], (1, 1): []}
    steps: dict[int, float] = {}

    def note(step: WorkerStep) -> None:
        ((_, weight, _),) = step.stats
        _, _, _, number = obs = step.steps["Numbers"][0].obs[0][0].tolist()
        seen[step.worker.index, int(obs[0]) // 100].append(weight)
        steps.setdefault(step.worker.index, number)

    while not (seen[0, 0] and seen[1, 0]):
        assert play(manager, 1, note) == []
    manager.set_parameters({"weight": ConstantSettings(value=2)})
    lost = []
    while not seen[1, 1] or 2 not in seen[0, 0]:
        lost += play(manager, 1, note)
    assert [event.worker.index for event in lost] == [1]
    assert seen[0, 0] == sorted(seen[0, 0])
    assert set(seen[0, 0]) == {0, 2}
    assert set(seen[1, 0]) == {0}
    assert set(seen[1, 1]) == {2}
    for weights in (seen[0, 0], seen[1, 1], steps):
        weights.clear()
    manager.set_parameters({"weight": ConstantSettings(value=3)}, reset=True)
    while len(steps) < 2:
        play(manager, 1, note)
    assert set(seen[0, 0]) == set(seen[1, 1]) == {3}
    assert steps == {0: 0, 1: 0}  # These are the first steps of episodes.


def fails(worker_id: int, failing: Sequence[int], error: Exception, folder: str) -> Numbered:
    env = Numbered(worker_id, Plan(folder=folder))
    if worker_id in failing and env.life == 0:
        raise error
    return env


def test_start_that_fails_in_one_worker_is_tried_again(manage: Manage, tmp_path: Path) -> None:
    error = EnvironmentFailure("no display")
    manager = manage(lambda index: fails(index, [1], error, str(tmp_path)), 2)
    seen: set[int] = set()
    lost: list[WorkerLost] = []
    while seen != {0, 1}:
        lost += play(manager, 1, lambda step: seen.add(step.worker.index))
    assert [str(event) for event in lost] == ["The environment of worker 1 failed: no display."]


@pytest.mark.parametrize("error", [EnvironmentFailure("no display"), UsageError("no such thing")])
def test_start_that_fails_in_all_workers_is_not(manage: Manage, tmp_path: Path, error: Exception) -> None:
    manager = manage(lambda index: fails(index, [0, 1], error, str(tmp_path)), 2)
    with pytest.raises(type(error), match=str(error)):
        manager.ready()
