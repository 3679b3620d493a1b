"""Games of two teams against their rules, and what every game promises."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.exception import UnityActionException, UnityEnvironmentException

from mlhooks.sims import SIMULATIONS, Game, StrikeAndGuard, Tag
from mlhooks.sims.strike_and_guard import GUARD, LANES, LINES, STRIKER
from mlhooks.sims.tag import DIRECTION, SIZE, TIME

GAMES = [kind for kind in SIMULATIONS.values() if issubclass(kind, Game)]
TEAMS = ("Tag?team=0", "Tag?team=1")


def act(env: Game, *chosen: Any) -> None:
    for name, values in zip(env.SIDES, chosen, strict=True):
        env.set_actions(name, ActionTuple(discrete=np.asarray(values, np.int32).reshape(-1, 1)))
    env.step()


def anything(env: Game, rng: np.random.Generator) -> list[np.ndarray]:
    sizes = [spec.action_spec.discrete_branches[0] for spec in env.SIDES.values()]
    return [rng.integers(0, size, env.num_agents) for size in sizes]


@pytest.mark.parametrize("kind", GAMES)
def test_what_one_side_gets_the_other_one_loses_when_the_game_ends(kind: type[Game]) -> None:
    env, rng, ends = kind(num_agents=5, num_areas=2, seed=3), np.random.default_rng(0), 0
    env.reset()
    for _ in range(60):
        act(env, *anything(env, rng))
        (asked, ended), (asked_too, ended_too) = (env.get_steps(name) for name in env.SIDES)
        assert len(asked) == len(asked_too) == 10
        assert not asked.reward.any()
        assert not asked_too.reward.any()
        assert (ended.reward == -ended_too.reward).all()
        assert set(ended.reward.tolist()) <= {1.0, -1.0}
        assert not ended.interrupted.any()
        assert (ended.agent_id + 10 == ended_too.agent_id).all()
        ends += len(ended)
    assert ends > 20


@pytest.mark.parametrize("kind", GAMES)
def test_game_goes_on_exactly_from_its_state(kind: type[Game]) -> None:
    env, again, rng = kind(num_agents=4, seed=3), kind(num_agents=4, seed=8), np.random.default_rng(0)
    env.reset()
    for _ in range(11):
        act(env, *anything(env, rng))
    again.load_state_dict(env.state_dict())
    for _ in range(30):
        chosen = anything(env, rng)
        for each in (env, again):
            for name in each.SIDES:
                assert each.get_steps(name)[0].obs[0].shape[0] == 4
            act(each, *chosen)
        for name in env.SIDES:
            for mine, yours in zip(env.get_steps(name), again.get_steps(name), strict=True):
                assert np.array_equal(mine.obs[0], yours.obs[0])
                assert np.array_equal(mine.agent_id, yours.agent_id)
                assert np.array_equal(mine.reward, yours.reward)
    with pytest.raises(UnityEnvironmentException, match=r"4 games.*has 5"):
        kind(num_agents=5).load_state_dict(env.state_dict())


def test_unknown_side_wrong_actions_and_a_closed_game_are_refused() -> None:
    env = Tag()
    env.reset()
    with pytest.raises(UnityActionException, match=r'no behavior "Tag" here; there are Tag\?team=0'):
        env.get_steps("Tag")
    with pytest.raises(UnityActionException, match="needs continuous actions"):
        env.set_actions(TEAMS[0], ActionTuple(discrete=np.zeros((3, 1), np.int32)))
    env.close()
    with pytest.raises(UnityEnvironmentException, match="closed"):
        env.step()


def placed(tagger: tuple[int, int], runner: tuple[int, int], team: int = 0) -> Tag:
    """Return a game in which a team tags, with both in these places."""
    env = Tag(num_agents=1)
    env.reset()
    env.tagger[:] = team
    env.place[0, team], env.place[0, 1 - team] = tagger, runner
    return env


def results(env: Game) -> list[list[float]]:
    return [env.get_steps(name)[1].reward.tolist() for name in env.SIDES]


def test_runner_is_tagged_in_a_neighbouring_cell_after_both_have_moved() -> None:
    env = placed((0, 0), (4, 4))
    act(env, [5], [0])  # The tagger goes diagonally.
    assert env.place[0].tolist() == [[1, 1], [4, 4]]
    assert results(env) == [[], []]
    act(env, [5], [5])  # The runner cannot, and stays.
    assert env.place[0].tolist() == [[2, 2], [4, 4]]
    act(env, [5], [4])
    assert results(env) == [[1.0], [-1.0]]


def test_runner_that_is_not_tagged_in_time_wins() -> None:
    env = placed((0, 0), (6, 6), team=1)
    for _ in range(TIME - 1):
        act(env, [2], [0])
        assert results(env) == [[], []]
    act(env, [2], [0])
    assert results(env) == [[1.0], [-1.0]]


def test_field_ends_at_its_edges_and_observations_say_what_there_is() -> None:
    env = placed((0, 0), (6, 3))
    act(env, [7], [2])
    assert env.place[0].tolist() == [[0, 0], [6, 3]]
    first, second = (env.get_steps(team)[0].obs[0][0].tolist() for team in TEAMS)
    assert first == pytest.approx([1, -1, -1, 6 / 7, 3 / 7, 7 / 8])
    assert second == pytest.approx([-1, 1, 0, -6 / 7, -3 / 7, 7 / 8])


def test_straight_pursuit_reaches_any_runner_in_time() -> None:
    """Worked out backwards over all places: the longest that a runner, who knows the pursuit, can get away."""
    moves = [tuple(move) for move in DIRECTION[:5].tolist()]
    cells = list(product(range(SIZE), repeat=2))

    def inside(x: int, y: int) -> tuple[int, int]:
        return min(max(x, 0), SIZE - 1), min(max(y, 0), SIZE - 1)

    longest = dict.fromkeys(product(cells, cells), 0)
    for _ in range(TIME + 5):
        longest = {
            (t, r): max(
                0 if max(abs(t2[0] - r2[0]), abs(t2[1] - r2[1])) <= 1 else longest[t2, r2]
                for move in moves
                for t2 in [inside(t[0] + np.sign(r[0] - t[0]), t[1] + np.sign(r[1] - t[1]))]
                for r2 in [inside(r[0] + move[0], r[1] + move[1])]
            )
            + 1
            for t, r in longest
        }
    starts = [(t, r) for t, r in longest if t[0] <= 1 and r[0] >= SIZE - 2]
    assert max(longest[start] for start in starts) <= TIME


def value(gains: list[list[Fraction]]) -> Fraction:
    """Return the value of a small zero-sum game, by trying all pairs of supports of equal size."""
    rows, columns = len(gains), len(gains[0])
    matrix = np.array([[float(gain) for gain in row] for row in gains])
    for size in range(1, min(rows, columns) + 1):
        for own in combinations(rows, size):
            for other in combinations(columns, size):
                part = matrix[np.ix_(own, other)]
                system = np.block([[part.T, -np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
                system_too = np.block([[part, -np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
                target = np.array([0.0] * size + [1.0])
                if min(abs(np.linalg.det(system)), abs(np.linalg.det(system_too))) < 1e-12:
                    continue
                p, q = np.linalg.solve(system, target), np.linalg.solve(system_too, target)
                if p[:-1].min() < -1e-9 or q[:-1].min() < -1e-9:
                    continue
                mine = p[:-1] @ matrix[list(own)]
                yours = matrix[:, list(other)] @ q[:-1]
                if mine.min() >= p[-1] - 1e-9 and yours.max() <= p[-1] + 1e-9:
                    return Fraction(float(p[-1])).limit_denominator(10_000)
    raise AssertionError("there is an equilibrium")


def combinations(count: int, size: int) -> list[tuple[int, ...]]:
    from itertools import combinations as chosen

    return list(chosen(range(count), size))


def test_best_play_of_strike_and_guard_scores_in_two_games_of_three_from_every_start() -> None:
    lanes = list(product(range(LANES), repeat=2))
    scoring = {(s, g): Fraction(s != g) for s, g in lanes}
    for _ in range(LINES):

        def after(lane: int) -> list[int]:
            return [min(max(lane + step, 0), LANES - 1) for step in (0, -1, 1)]

        scoring = {(s, g): value([[scoring[a, b] for b in after(g)] for a in after(s)]) for s, g in lanes}
    assert set(scoring.values()) == {Fraction(2, 3)}


def test_striker_scores_where_the_guard_is_not() -> None:
    env = StrikeAndGuard(num_agents=2)
    env.reset()
    env.lane[:] = [[1, 1], [2, 1]]
    striker, guard = (env.get_steps(name)[0].obs[0].shape[1] for name in (STRIKER, GUARD))
    assert (striker, guard) == (5, 7)
    act(env, [1, 2], [0, 0])
    assert env.lane.tolist() == [[0, 1], [2, 1]]
    seen = env.get_steps(STRIKER)[0].obs[0]
    assert seen[0] == pytest.approx([1, 0, 0, 1 / 3, 2 / 3])
    assert env.get_steps(GUARD)[0].obs[0][1] == pytest.approx([0, 1, 0, 0, 0, 1, 2 / 3])
    act(env, [0, 0], [0, 0])
    act(env, [0, 0], [0, 2])
    assert results(env) == [[1.0, -1.0], [-1.0, 1.0]]
