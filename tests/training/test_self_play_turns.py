"""Self-play of several behaviors and teams, which learn in turns, and what a resume needs of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from mlhooks.errors import PluginError
from mlhooks.training.checkpoints import pack, unpack
from mlhooks.training.self_play import CURRENT, copy_of
from tests.training.duels import Duel, Siege
from tests.training.test_self_play import MOST, PPO, TRAINERS, Table, duel


def test_two_behaviors_learn_in_turns_against_each_other() -> None:
    table = duel(kind=Siege, team_change=100)
    castle, tower = table.trainers.values()
    learned: list[Any] = []
    for _ in range(120):
        before = castle.step, tower.step
        turn = table.teams.learning
        table.tick()
        moved = [after > each for after, each in zip((castle.step, tower.step), before, strict=True)]
        assert moved in ([turn == 1, turn == 0], [False, False])
        learned.append(turn)
    assert learned[0] == 1  # The castle is seen first.
    assert {0, 1} == set(learned)
    assert castle.updates
    assert tower.updates
    assert castle.self_play is not None
    assert tower.self_play is not None
    total = sum(castle.self_play.ratings + tower.self_play.ratings)
    assert castle.self_play.rating != 1200.0
    # A snapshot takes over the rating of the policy, so that only what was overwritten is gone from the sum.
    assert np.isfinite(total)


def test_team_whose_trainer_is_done_lets_the_others_learn_on() -> None:
    table = duel({**PPO, "max_steps": 200}, kind=Siege, team_change=10_000)
    for _ in range(150):
        table.tick()
    assert [trainer.step for trainer in table.trainers.values()] == [200, 200]


def test_two_behaviors_of_one_team_hand_over_once() -> None:
    class Alliance(Duel):
        SIDES = {"Bow?team=0": Duel.SIDES["Duel?team=0"], "Sword?team=0": Duel.SIDES["Duel?team=1"]}  # noqa: RUF012

    table = duel(kind=Alliance, team_change=40)
    bow, sword = table.trainers.values()
    for _ in range(20):
        table.tick()
    assert (table.teams.known, bow.step, sword.step) == ([0], 80, 80)
    table.play.sides[1] = table.play.sides[0]
    table.teams.join(1, table.play)
    turns = []
    for _ in range(4):
        table.tick()
        turns.append(table.teams.learning)
    assert turns == [0, 1, 1, 1]


class Late(Duel):
    """Its second team is shown from the twelfth step on."""

    def __init__(self, **arguments: int) -> None:
        super().__init__(**arguments)
        self.steps = 0

    @property
    def behavior_specs(self) -> Any:
        return dict(list(super().behavior_specs.items())[: 1 + (self.steps >= 12)])

    def step(self) -> None:
        super().step()
        self.steps += 1


def test_team_that_comes_late_draws_an_opponent_and_learns_in_turn() -> None:
    table = duel(kind=Late, team_change=100, play_against_latest_model_ratio=1.0)
    for _ in range(11):
        table.tick()
    assert (table.teams.known, table.play.rating) == ([0], 1200.0)  # There is nobody to be rated against.
    table.tick()
    assert table.teams.known == [0, 1]
    assert table.play.sides[1].entry == CURRENT
    for _ in range(30):
        table.tick()
    assert table.teams.learning == 1


def test_worker_that_fails_takes_its_agents_of_all_teams_along() -> None:
    table = duel(workers=2)
    table.tick()
    table.trainer.worker_failed(1)
    table.envs[1] = Duel(num_agents=4, seed=9)
    waiting = [(worker, name) for worker, name, _ in table.trainer.act()]
    assert sorted(waiting) == [(0, "Duel?team=0"), (0, "Duel?team=1")]
    for behavior_id in table.envs[0].behavior_specs:
        table.envs[0].set_actions(behavior_id, table.trainer.behavior_spec.action_spec.empty_action(4))
    table.envs[0].step()
    table.envs[1].reset()
    table.observe()
    for _ in range(30):
        table.tick()


@pytest.mark.parametrize("name", MOST)
def test_resume_at_any_tick_goes_on_bit_for_bit(name: str) -> None:
    ticks = [3, 31, 54]
    table = duel(TRAINERS[name], team_change=100)
    states: dict[int, Any] = {}
    generators: dict[int, Any] = {}
    for tick in range(70):
        if tick in ticks:
            states[tick] = unpack(copy.deepcopy(pack(state_of(table))))
            generators[tick] = torch.get_rng_state()
        table.tick()
    whole = outcome_of(table)
    for tick, state in states.items():
        again = duel(TRAINERS[name], team_change=100)
        load(again, state)
        torch.set_rng_state(generators[tick])
        for _ in range(tick, 70):
            again.tick()
        assert equal(outcome_of(again), whole), tick


def outcome_of(table: Table) -> Any:
    """Return all state but for the rows, of which those that wait for an action hold what was there before."""
    state = pack(state_of(table))
    for trainer in state["trainers"].values():
        del trainer["store"]
    return state


def state_of(table: Table) -> dict[str, Any]:
    return {
        "trainers": {name: trainer.state_dict() for name, trainer in table.trainers.items()},
        "teams": table.teams.state_dict(),
        "env": table.envs[0].state_dict(),
    }


def load(table: Table, state: dict[str, Any]) -> None:
    for name, trainer in table.trainers.items():
        trainer.load_state_dict(state["trainers"][name])
    table.teams.load_state_dict(state["teams"])
    table.envs[0].load_state_dict(state["env"])


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(torch.equal(a, b)) if isinstance(a, torch.Tensor) else bool(a == b)


@pytest.mark.parametrize(("window", "kept"), [(2, [0.0, 1.0]), (5, [2.0, 0.0, 1.0])])
def test_another_window_keeps_the_newest_snapshots_in_their_order(window: int, kept: list[float]) -> None:
    table = duel(team_change=100_000).until(320)
    play = table.play
    assert (len(play.snapshots), play.next_snapshot) == (3, 1)  # The fourth one took the first one's place.
    play.ratings = [1.0, 2.0, 0.0, 9.0]  # The ring's order is 2, 0, 1 from the oldest on: places 1, 2, 0.
    again = duel(team_change=100_000, window=window)
    load(again, unpack(copy.deepcopy(pack(state_of(table)))))
    names = {1: 2.0, 2: 0.0, 0: 1.0}
    expected = [names[place] for place in (1, 2, 0)][-window:]
    assert again.play.ratings[: len(expected)] == expected == kept[-len(expected) :]
    assert again.play.rating == 9.0
    for _ in range(60):
        again.tick()


def test_policy_that_cannot_be_copied_is_named() -> None:
    class Stubborn:
        settings = behavior_spec = layout = None

        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("cannot pickle a lock")

    policy: Any = Stubborn()
    with pytest.raises(PluginError, match=r"Stubborn cannot be copied.*lock"):
        copy_of(policy)
