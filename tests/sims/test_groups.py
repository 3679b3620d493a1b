"""Simulations of groups: members that are gone, rewards that come later, and what each simulation is about."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.exception import UnityEnvironmentException

from builtin_plugins import sim_env
from mlhooks.errors import UsageError
from mlhooks.sims import PushTogether, Sacrifice
from mlhooks.sims.groups import GroupSimulation

STAY, LEFT, RIGHT, PRESS = range(4)
KINDS = [Sacrifice, PushTogether]


def act(env: GroupSimulation, values: Any) -> tuple[Any, Any]:
    """Set the actions of the agents that are there, and step."""
    values = np.asarray(values).reshape(len(env.get_steps(env.NAME)[0]), 1)
    kind = "continuous" if env.SPEC.action_spec.is_continuous() else "discrete"
    env.set_actions(env.NAME, ActionTuple(**{kind: values}))
    env.step()
    return env.get_steps(env.NAME)


def random_play(env: GroupSimulation, steps: int, seed: int) -> list[tuple[Any, Any]]:
    rng, found = np.random.default_rng(seed), []
    for _ in range(steps):
        asked = len(env.get_steps(env.NAME)[0])
        is_continuous = env.SPEC.action_spec.is_continuous()
        found.append(act(env, rng.uniform(-1, 1, asked) if is_continuous else rng.integers(0, 4, asked)))
    return found


def begun(kind: type[GroupSimulation], **arguments: Any) -> GroupSimulation:
    env = kind(**arguments)
    env.reset()
    return env


def test_who_opens_the_door_is_gone_and_the_others_are_paid_later() -> None:
    env = begun(Sacrifice)
    for _ in range(3):
        decisions, ended = act(env, [LEFT, RIGHT, RIGHT])
        assert len(ended) == 0
    assert decisions.obs[0][:, :7].argmax(1).tolist() == [0, 6, 6]
    assert decisions.obs[0][0, 7:14].tolist() == [0, 0, 0, 0, 0, 0, 1.0]  # Both of the others are at the door.
    decisions, ended = act(env, [PRESS, STAY, STAY])
    assert ended.agent_id.tolist() == [0]
    assert ended.group_id.tolist() == [1]
    assert ended.interrupted.tolist() == [False]
    assert ended.group_reward.tolist() == [0.0]
    assert decisions.agent_id.tolist() == [1, 2]
    assert decisions.obs[0][:, 14].tolist() == [1.0, 1.0]  # The door is open.
    assert decisions.obs[0][:, 7:14].sum(1).tolist() == [0.5, 0.5]  # One of two others is gone.
    decisions, ended = act(env, [STAY, LEFT])
    assert ended.agent_id.tolist() == [1, 2]
    assert ended.group_reward.tolist() == [1.0, 1.0]
    assert decisions.agent_id.tolist() == [0, 1, 2]
    assert decisions.group_reward.tolist() == [0.0, 0.0, 0.0]
    assert decisions.obs[0][:, :7].argmax(1).tolist() == [3, 3, 3]


def test_only_one_of_those_who_press_at_once_is_gone() -> None:
    env = begun(Sacrifice)
    for _ in range(3):
        act(env, [LEFT] * 3)
    decisions, ended = act(env, [STAY, PRESS, PRESS])
    assert ended.agent_id.tolist() == [1]
    decisions, ended = act(env, [PRESS, PRESS])
    assert len(ended) == 0
    assert decisions.agent_id.tolist() == [0, 2]


def test_pressing_elsewhere_and_a_closed_door_do_nothing() -> None:
    env = begun(Sacrifice)
    returns = 0.0
    for step in range(20):
        decisions, ended = act(env, [PRESS, RIGHT, RIGHT] if step < 10 else [STAY, STAY, STAY])
        returns += ended.group_reward.sum() + decisions.group_reward.sum()
        assert (len(ended) == 3) == (step == 19)
    assert ended.interrupted.tolist() == [False] * 3
    assert returns == 0.0


def test_block_moves_only_where_they_push_together() -> None:
    env = begun(PushTogether, num_agents=6, seed=1)
    decisions, _ = env.get_steps("PushTogether")
    goal = decisions.obs[0][:, 0]
    assert set(goal[:3]) | set(goal[3:]) <= {-1.0, 1.0}
    assert len(set(goal[:3])) == len(set(goal[3:])) == 1
    decisions, _ = act(env, [1.0, 0.0, 0.0, -1.0, 1.0, 1.0])
    assert decisions.obs[0][:, 1].tolist() == [0.0] * 6  # Forces of 1 are withstood.
    assert decisions.group_reward.tolist() == pytest.approx([-0.01] * 6)
    decisions, _ = act(env, goal * 0.75)
    assert decisions.obs[0][:, 1].tolist() == pytest.approx((goal * 0.05 * 1.25).tolist())
    assert decisions.group_reward.tolist() == pytest.approx([0.05 * 1.25 - 0.01] * 6)


def test_best_return_of_pushing_together() -> None:
    env = begun(PushTogether, seed=3)
    total = 0.0
    for _ in range(10):
        goal = env.get_steps("PushTogether")[0].obs[0][:, 0]
        decisions, ended = act(env, goal)
        total += float((ended if len(ended) else decisions).group_reward[0])
    assert len(ended) == 3
    assert total == pytest.approx(0.9, abs=1e-5)


def test_episodes_of_whole_groups_are_interrupted() -> None:
    env = begun(PushTogether, num_agents=6)
    ends = [ended for _, ended in (act(env, np.zeros(6)) for _ in range(60))]
    assert [len(ended) for ended in ends] == [0] * 59 + [6]
    assert ends[-1].interrupted.all()


@pytest.mark.parametrize("kind", KINDS)
def test_members_come_together_and_ids_are_unique(kind: type[GroupSimulation]) -> None:
    env = begun(kind, num_agents=9, num_areas=2)
    there = set(range(18))
    for decisions, ended in random_play(env, 200, 1):
        asked = decisions.agent_id.tolist()
        assert len(set(asked)) == len(asked)
        assert set(ended.agent_id.tolist()) <= there
        assert decisions.group_id.tolist() == [agent // 3 + 1 for agent in asked]
        began = set(asked) - (there - set(ended.agent_id.tolist()))
        assert all({3 * (agent // 3) + member for member in range(3)} <= began for agent in began)
        there = set(asked)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decided", [0, 1, 33])
def test_restored_state_continues_bit_for_bit(kind: type[GroupSimulation], decided: int) -> None:
    env, other = begun(kind, num_agents=6, seed=3), kind(num_agents=6, seed=99)
    random_play(env, decided, 1)
    other.load_state_dict(env.state_dict())
    pairs = zip(random_play(env, 150, 2), random_play(other, 150, 2), strict=True)
    for found, wanted in pairs:
        for mine, yours in zip(found, wanted, strict=True):
            for name in ("reward", "agent_id", "group_id", "group_reward", "interrupted"):
                if hasattr(mine, name):
                    np.testing.assert_array_equal(getattr(mine, name), getattr(yours, name))
            np.testing.assert_array_equal(mine.obs[0], yours.obs[0])


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_sent_never_changes_afterwards(kind: type[GroupSimulation]) -> None:
    env, kept = begun(kind, num_agents=6), []
    for steps in random_play(env, 60, 4):
        for part in steps:
            arrays = [*part.obs, part.reward, part.agent_id, part.group_id, part.group_reward]
            kept.append((arrays, [array.copy() for array in arrays]))
    for arrays, copies in kept:
        for array, copy in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_agents_that_do_not_fill_groups_are_refused() -> None:
    with pytest.raises(UnityEnvironmentException, match="groups of 3; 4 agents do not fill them"):
        Sacrifice(num_agents=4)
    settings = SimpleNamespace(env_kwargs={"num_agents": 4})
    with pytest.raises(UsageError, match=r'"num_agents" of "sim:Sacrifice" must be a multiple of 3.*not 4'):
        sim_env.check("Sacrifice", SimpleNamespace(env_settings=settings, environment_parameters=None))  # type: ignore[arg-type]
