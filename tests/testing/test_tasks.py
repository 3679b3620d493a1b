from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionTuple

from mlhooks.settings import RewardSignalSettings
from mlhooks.testing.environments import arrays, difference, random_actions, steps_of, walk
from mlhooks.testing.extra_reward_signals import Elsewhere
from mlhooks.testing.scripted import BEHAVIOR, INTERRUPTED, TERMINAL, ScriptedEnv
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import (
    TASKS,
    Aim,
    Branches,
    Delayed,
    Entities,
    Goal,
    Masked,
    Mixed,
    OneStep,
    Process,
    Recall,
    TimeLimit,
    TwoSignals,
    any_kind,
)
from mlhooks.training.batch import Batch

Choose = Callable[..., tuple[np.ndarray, np.ndarray]]


def play(env: ScriptedEnv, choose: Choose, ticks: int = 200) -> float:
    """Return the mean return of a policy from observations, each [agents, ...], to continuous and discrete actions."""
    env.reset()
    for _ in range(ticks):
        decisions, _ = env.get_steps(BEHAVIOR)
        continuous, discrete = choose(*decisions.obs)
        env.set_actions(BEHAVIOR, ActionTuple(continuous, discrete))
        env.step()
    return float(np.mean(env.audit.returns))


def at_random(env: ScriptedEnv, ticks: int = 200) -> float:
    list(walk(env, ticks))
    return float(np.mean(env.audit.returns))


def discrete(choice: Callable[..., list[np.ndarray]]) -> Choose:
    return lambda *obs: (np.zeros((len(obs[0]), 0), np.float32), np.stack(choice(*obs), axis=1).astype(np.int32))


def largest(own: np.ndarray, entities: np.ndarray) -> list[np.ndarray]:
    """Return the colour of the largest entity."""
    colour, size = entities[..., :3].argmax(2), entities[..., 3]
    return [colour[np.arange(len(size)), size.argmax(1)]]


def remembering() -> Choose:
    """Choose what the sign told that each agent saw last."""
    signs = np.zeros(16, np.int64)

    def choose(obs: np.ndarray) -> list[np.ndarray]:
        shown = obs[:, :2].any(axis=1)
        signs[shown] = obs[shown, :2].argmax(axis=1)
        return [signs.copy()]

    return discrete(choose)


BEST: dict[type[ScriptedEnv], Choose] = {
    OneStep: discrete(lambda obs: [np.array([2, 0, 1, 0])[obs.argmax(1)]]),
    Goal: discrete(lambda obs, goal: [(np.array([2, 0, 1, 0])[obs.argmax(1)] + goal.argmax(1)) % 3]),
    Entities: discrete(largest),
    Delayed: discrete(lambda obs: [(obs.argmax(1) == 0)]),
    Masked: discrete(lambda obs: [np.where(obs[:, 0] == 1, 1, 2)]),
    Branches: discrete(lambda obs: [np.array([2, 0, 1, 0])[obs.argmax(1)], np.array([0, 1, 1, 0])[obs.argmax(1)]]),
    Aim: lambda obs: ((obs * np.array([0.6, -0.4], np.float32)), np.zeros((len(obs), 0), np.int32)),
    Recall: remembering(),
    Mixed: lambda obs: (0.6 * obs[:, :1], (obs[:, :1] > 0).astype(np.int32)),
}


@pytest.mark.parametrize("task", BEST, ids=lambda task: task.__name__)
def test_best_policy_is_enough_and_chance_is_far_from_it(task: type[ScriptedEnv]) -> None:
    if task is not Masked:  # Its best action is forbidden to those who chose the way to it.
        assert play(task(), BEST[task]) >= task.enough
    assert at_random(task()) < task.enough - 0.15


def test_goal_and_entities_must_be_read() -> None:
    right = np.array([2, 0, 1, 0])
    assert play(Goal(), discrete(lambda obs, _: [right[obs.argmax(1)]])) < Goal.enough - 0.3
    # Neither the colour that comes most often, nor that of the first one, is that of the largest.
    assert play(Entities(), discrete(lambda _, seen: [seen[..., :3].sum(1).argmax(1)])) < Entities.enough - 0.1
    assert play(Entities(), discrete(lambda _, seen: [seen[:, 0, :3].argmax(1)])) < Entities.enough - 0.3


def test_masked_task_punishes_who_values_a_forbidden_action() -> None:
    def trapped(obs: np.ndarray) -> list[np.ndarray]:
        return [np.where(obs[:, 0] == 1, 0, 2)]

    right = play(Masked(), BEST[Masked])
    trap = Masked()
    assert right == pytest.approx(0.75, abs=0.02)
    assert play(trap, discrete(trapped)) == pytest.approx(0.5, abs=0.1)
    assert trap.audit.forbidden > 0


def test_time_limit_is_worth_more_to_who_stays() -> None:
    stay, end = (play(TimeLimit(), discrete(lambda obs, a=a: [np.full(len(obs), a)])) for a in (0, 1))
    assert (stay, end) == pytest.approx((0.3, 1.0))
    # The first is without the limit, the second for one who takes the limit for an end.
    assert stay / (1 - TimeLimit.gamma) > end > stay


def test_each_of_two_signals_tells_a_half_of_the_task() -> None:
    def by(situations: list[int]) -> Choose:
        return discrete(lambda obs: [np.where(np.isin(obs.argmax(1), situations), TwoSignals.RIGHT[obs.argmax(1)], 3)])

    assert play(TwoSignals(), BEST[OneStep]) == pytest.approx(0.5, abs=0.05)
    assert play(OneStep(), BEST[OneStep]) == 1.0
    for half in ([0, 1], [2, 3]):
        assert play(OneStep(), by(half)) == pytest.approx(0.5, abs=0.05)
    obs = torch.eye(4)
    batch = Batch(features=obs, obs=obs, continuous=torch.zeros(4, 0), discrete=torch.tensor([[2], [0], [1], [1]]))
    signal = Elsewhere("elsewhere", TwoSignals.spec, RewardSignalSettings())
    assert signal.evaluate(batch).tolist() == [0.0, 0.0, 1.0, 0.0]


def test_true_values_of_the_process_are_those_worked_out_by_hand() -> None:
    g = 0.8
    to_the_end = [g * (0.5 + g**3), 0.5 + g**3, g**2, g, 1.0]
    interrupted = 0.25 + g * to_the_end[2]  # The final observation is that of place 2.
    expected = [*to_the_end, g * interrupted, interrupted]
    assert Process.true_values(g).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("arguments", [{}, {"renewed": True}, {"lazy": True}, {"renewed": True, "lazy": True}])
def test_scripted_environments_keep_what_is_demanded_of_environments(arguments: dict[str, bool]) -> None:
    env = any_kind(make_behavior_spec((2,), branches=(3,)), masked=True)(agents=5, **arguments)
    open_at: dict[int, bool] = {}
    complete, ids = 0, set()
    for shown in walk(env, 300):
        decisions, terminals = shown[BEHAVIOR]
        for agent in terminals.agent_id.tolist():
            complete += open_at.pop(agent)
            ids.discard(agent) if arguments.get("renewed") else None
        for agent in decisions.agent_id.tolist():
            complete += open_at.get(agent, False)
            open_at[agent] = True
        assert len(np.unique(decisions.agent_id)) == len(decisions)
        assert np.isfinite(decisions.obs[0]).all()
    assert complete == env.audit.transitions > 300
    assert env.audit.forbidden == env.audit.outside == 0


def test_restored_environment_goes_on_as_the_saved_one() -> None:
    env, other = (
        any_kind(make_behavior_spec((2,), branches=(3,)))(agents=5, renewed=True, lazy=True) for _ in range(2)
    )
    list(walk(env, 30))
    list(walk(other, 7))
    other.load_state_dict(env.state_dict())
    for tick in range(30):
        rng = np.random.default_rng(tick)
        action = random_actions(env.spec, steps_of(env)[BEHAVIOR][0], rng)
        for each in (env, other):
            each.set_actions(BEHAVIOR, action)
            each.step()
        assert difference(arrays(steps_of(env)), arrays(steps_of(other))) is None


def test_kinds_of_ends_are_told_apart() -> None:
    env = Process(agents=64)
    ends = {TERMINAL: 0, INTERRUPTED: 0}
    for shown in walk(env, 60):
        terminals = shown[BEHAVIOR][1]
        for obs, interrupted in zip(terminals.obs[0], terminals.interrupted, strict=True):
            assert obs.argmax() == (2 if interrupted else 0)
            ends[INTERRUPTED if interrupted else TERMINAL] += 1
    assert min(ends.values()) > 100


def test_every_task_can_be_named() -> None:
    assert set(TASKS.values()) == {*BEST, TimeLimit, Process, TwoSignals}
