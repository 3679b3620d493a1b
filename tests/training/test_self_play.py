"""Self-play: who learns, who plays whom, and how games are rated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import DecisionSteps, TerminalSteps

from mlhooks.errors import ContractBroken
from mlhooks.sims.game import Game
from mlhooks.testing.managers import load_options, make_manager
from mlhooks.testing.trainer_loop import seed_everything, weights
from mlhooks.training.policy import Policy
from mlhooks.training.self_play import CURRENT, SelfPlay
from mlhooks.training.teams import Teams, expected_score, score_of, team_of
from mlhooks.training.trainer import Trainer
from tests.training.duels import TEAM, Duel

SMALL = {"hidden_units": 8, "num_layers": 1}
PPO = {"trainer_type": "ppo", "hyperparameters": {"batch_size": 16, "buffer_size": 48}, "network_settings": SMALL}
TRAINERS = {
    "ppo": PPO,
    "a2c": {**PPO, "trainer_type": "a2c"},
    "lstm": {
        **PPO,
        "network_settings": {**SMALL, "normalize": True, "memory": {"sequence_length": 4, "memory_size": 8}},
    },
    "dqn": {
        "trainer_type": "dqn",
        "hyperparameters": {
            "batch_size": 16,
            "buffer_size": 200,
            "buffer_init_steps": 20,
            "steps_per_update": 8,
            "exploration_initial_eps": 1.0,
            "save_replay_buffer": True,
        },
        "network_settings": SMALL,
    },
    "sac": {
        "trainer_type": "sac",
        "hyperparameters": {
            "batch_size": 16,
            "buffer_size": 200,
            "buffer_init_steps": 20,
            "steps_per_update": 8,
            "save_replay_buffer": True,
        },
        "network_settings": SMALL,
    },
}
MOST = [pytest.param(name, marks=[pytest.mark.slow] * (name in ("a2c", "sac"))) for name in TRAINERS]
PLAY = {"save_steps": 100, "swap_steps": 20, "team_change": 300, "window": 3}


class Table:
    """Trainers at a game, as a run has them."""

    def __init__(self, env: Game, settings: dict[str, Any], *, workers: int = 1, seed: int = 3) -> None:
        seed_everything(seed)
        self.envs, self.teams, manager = [env], Teams(), make_manager()
        self.envs += [type(env)(num_agents=4, seed=seed, worker_id=index) for index in range(1, workers)]
        names = env.behavior_names()
        options = load_options(manager, {"behaviors": {name: dict(settings) for name in names}}, {})
        kinds = manager.collect_mapping("get_trainer_types")
        self.trainers: dict[str, Trainer] = {}
        for name in names:
            spec = next(spec for id_, spec in env.behavior_specs.items() if id_.startswith(name))
            resolved = options.settings_for(name)
            trainer = self.trainers[name] = kinds[resolved.trainer_type](
                behavior_name=name,
                behavior_spec=spec,
                settings=resolved,
                plugins=manager,
                device=torch.device("cpu"),
                seed=seed,
            )
            trainer.begin_self_play(self.teams)
        for each in self.envs:
            each.reset()
        self.observe()

    @property
    def trainer(self) -> Trainer:
        return next(iter(self.trainers.values()))

    @property
    def play(self) -> SelfPlay:
        assert self.trainer.self_play is not None
        return self.trainer.self_play

    def observe(self) -> None:
        for worker, env in enumerate(self.envs):
            for behavior_id in env.behavior_specs:
                trainer = self.trainers[behavior_id.partition("?")[0]]
                trainer.observe(worker, behavior_id, *env.get_steps(behavior_id))

    def tick(self) -> None:
        for trainer in self.trainers.values():
            for worker, behavior_id, action in trainer.act():
                self.envs[worker].set_actions(behavior_id, action)
        for env in self.envs:
            env.step()
        self.observe()
        for trainer in self.trainers.values():
            if trainer.training and trainer.ready_to_update():
                trainer.update()
            trainer.training = not trainer.done
        if self.teams.advance():
            for env in self.envs:
                env.reset()
            for trainer in self.trainers.values():
                trainer.environments_restarted()
            self.observe()

    def until(self, step: int) -> Table:
        while self.trainer.step < step:
            self.tick()
        return self


def duel(settings: dict[str, Any] = PPO, *, workers: int = 1, kind: type[Game] = Duel, **play: Any) -> Table:
    return Table(kind(num_agents=4, seed=1), {**settings, "self_play": {**PLAY, **play}}, workers=workers)


def plays(policy: Policy) -> dict[str, torch.Tensor]:
    return {f"{n}.{k}": v.clone() for n, module in policy.modules().items() for k, v in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


@pytest.mark.parametrize(
    ("own", "opponent", "score", "after"),
    [
        (1200.0, 1200.0, 1.0, 1200.5),
        (1200.0, 1200.0, 0.0, 1199.5),
        (1200.0, 1200.0, 0.5, 1200.0),
        (1200.0, 1600.0, 1.0, 1200.0 + 10 / 11),
        (1600.0, 1200.0, 0.0, 1600.0 - 10 / 11),
    ],
)
def test_rating_after_a_game_is_that_of_elo(own: float, opponent: float, score: float, after: float) -> None:
    assert own + score - expected_score(own, opponent) == pytest.approx(after, abs=1e-9)


def test_result_is_the_sign_of_the_last_reward() -> None:
    assert [score_of(reward) for reward in (0.3, 7.0, 0.0, -0.0, -1e-3)] == [1.0, 1.0, 0.5, 0.5, 0.0]


def test_team_is_read_from_the_behavior_id() -> None:
    assert [team_of(name) for name in ("A", "A?team=0", "A?team=12", "A?x=1&team=3")] == [0, 0, 12, 3]
    with pytest.raises(ContractBroken, match="team 'red'"):
        team_of("A?team=red")


def end(
    table: Table,
    behavior_id: str,
    reward: list[float],
    *,
    group: int = 0,
    shared: float = 0.0,
    cut: bool = False,
    agents: int = 2,
) -> None:
    """End the games of a side's first agents, in which all decided, with these last rewards."""
    env, trainer = table.envs[0], table.trainers[behavior_id.partition("?")[0]]
    decisions, _ = env.get_steps(behavior_id)
    ended = TerminalSteps(
        [obs[:agents] for obs in decisions.obs],
        np.array(reward, np.float32),
        np.full(agents, cut),
        decisions.agent_id[:agents],
        np.full(agents, group, np.int32),
        np.full(agents, shared, np.float32),
    )
    trainer.observe(0, behavior_id, DecisionSteps.empty(trainer.behavior_spec), ended)


def test_each_finished_game_of_the_learning_team_changes_both_ratings() -> None:
    table = duel()
    end(table, "Duel?team=0", [1.0, 0.0])
    first = 1200.5
    second = first + 0.5 - expected_score(first, 1199.5)
    assert table.play.rating == pytest.approx(second)
    assert table.play.ratings[0] == pytest.approx(2400.0 - second)  # It is the snapshot that team 1 plays.
    assert table.play.ratings[1:3] == [1200.0, 1200.0]
    stat = table.trainer.stats.get_stats_summaries("Self-play/ELO")
    assert stat.full_dist == pytest.approx([first, second])


def test_games_of_frozen_teams_and_interrupted_ones_are_not_rated() -> None:
    table = duel()
    end(table, "Duel?team=1", [1.0, 1.0])
    end(table, "Duel?team=0", [1.0, 1.0], cut=True)
    assert table.play.ratings == [1200.0] * 4
    assert table.trainer.stats.get_stats_summaries("Self-play/ELO").num == 0


def test_reward_of_the_group_decides_with_that_of_the_agent() -> None:
    table = duel()
    end(table, "Duel?team=0", [0.5, 0.5], shared=-1.0)
    assert table.play.rating < 1199.1


def test_game_against_the_current_policy_changes_nothing() -> None:
    table = duel(play_against_latest_model_ratio=1.0).until(100)
    assert table.play.opponent == CURRENT
    before = list(table.play.ratings)
    end(table, "Duel?team=0", [1.0, 1.0])
    assert table.play.ratings == before


def test_member_of_a_group_that_goes_on_is_not_rated() -> None:
    table = duel()
    store, trainer = table.trainer.store, table.trainer
    store.group[: store.size] = 5  # All four agents of the team are one group.
    end(table, "Duel?team=0", [1.0], agents=1, group=5)
    assert trainer.self_play is not None
    assert trainer.self_play.rating == 1200.0


def test_order_of_saving_swapping_and_changing_follows_the_table() -> None:
    """With save 100, swap 20 and change 300, four agents a team: all limits are to be exceeded."""
    table = duel(play_against_latest_model_ratio=0.0)
    seen: list[tuple[int, int | None, int, int]] = []
    play, trainer = table.play, table.trainer
    before = (play.saved_at, table.teams.learning, play.changed_at)
    swaps: list[tuple[int, int]] = []
    swapped_at = play.swapped_at
    for _ in range(160):
        table.tick()
        if (now := (play.saved_at, table.teams.learning, play.changed_at)) != before:
            before = now
            seen.append((trainer.step, now[1], now[0], play.swapped_at))
        if play.swapped_at != swapped_at:
            swapped_at = play.swapped_at
            swaps.append((trainer.step, swapped_at))
    # Steps are multiples of four. Saves are due after 100 steps and more: at 104, 208, 312, ...; team 0 hands over at
    # 304, when opponents are drawn, too, and team 1 at 608, together with a save.
    assert [(step, team, saved) for step, team, saved, _ in seen] == [
        (104, 0, 104),
        (208, 0, 208),
        (304, 1, 208),
        (312, 1, 312),
        (416, 1, 416),
        (520, 1, 520),
        (608, 0, 520),
        (624, 0, 624),
    ]
    # Frozen teams decide as often as the one that learns: every 24 of their steps opponents are drawn. At a change the
    # count begins again.
    assert [ghost for _, ghost in swaps[:13]] == [*range(24, 304, 24), 304]
    assert swaps[13] == (328, 328)


def test_ring_keeps_the_newest_snapshots_and_their_ratings() -> None:
    table = duel(team_change=100_000)
    play, kept = table.play, [plays(table.trainer.policy)]
    for number in range(1, 5):
        play.ratings[CURRENT] = 1200.0 + number
        saved_at = play.saved_at
        while play.saved_at == saved_at:
            table.tick()
        kept.append(plays(table.trainer.policy))
    found = [{f"{n}.{k}": v for n, state in weights.items() for k, v in state.items()} for weights in play.snapshots]
    assert [next(i for i, one in enumerate(kept) if same(one, each)) for each in found] == [3, 4, 2]
    assert play.ratings[1] == play.rating


def test_initial_policy_is_the_first_snapshot_and_plays_until_opponents_are_drawn() -> None:
    table = duel(swap_steps=10_000)
    first = plays(table.trainer.policy)
    table.until(150)
    assert not same(plays(table.trainer.policy), first)
    assert same(plays(table.play.sides[1].policy), first)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_opponents_are_drawn_by_the_ratio(ratio: float) -> None:
    table = duel(play_against_latest_model_ratio=ratio, window=4).until(250)
    play, drawn = table.play, []
    for _ in range(400):
        play._swap()
        drawn.append(play.opponent)
    share = np.mean([entry == CURRENT for entry in drawn])
    assert abs(share - ratio) <= (0.0 if ratio in (0.0, 1.0) else 0.08)
    rest = np.bincount([entry for entry in drawn if entry != CURRENT], minlength=len(play.snapshots))
    assert len(rest) == 3
    assert ratio == 1.0 or (rest > 0.2 * rest.sum()).all()


def test_swaps_leave_the_learner_alone() -> None:
    table = duel(play_against_latest_model_ratio=0.0).until(200)
    before = weights(table.trainer)
    table.play._swap()
    assert same(weights(table.trainer), before)
    assert not same(plays(table.trainer.policy), plays(table.play.sides[1].policy))


@pytest.mark.parametrize("name", MOST)
def test_rows_of_frozen_teams_are_never_stored(name: str) -> None:
    workers = 2
    table = duel(TRAINERS[name], workers=workers, team_change=100)
    learned, steps = set(), 0
    for _ in range(60):
        store = table.trainer.store
        fresh = store.obs[0][store.waiting : store.size]
        assert set(fresh[:, TEAM]) == {table.teams.learning}
        assert len(fresh) == 4 * workers
        learned.add(table.teams.learning)
        steps = table.trainer.step
        table.tick()
        assert table.trainer.step in (steps, steps + 4 * workers)  # What the other team does is no step.
    assert learned == {0, 1}
    assert table.trainer.updates > 0


def test_frozen_team_costs_one_forward_pass_for_each_decision() -> None:
    table = duel(workers=3)
    calls: list[int] = []
    side = table.play.sides[1]
    act = side.policy.act
    side.policy.act = lambda obs, *rest: calls.append(len(obs[0])) or act(obs, *rest)  # type: ignore[method-assign]
    for _ in range(5):
        table.tick()
    assert calls == [12] * 5


def test_memory_of_a_frozen_team_begins_with_zeros_in_each_episode() -> None:
    table = duel(TRAINERS["lstm"], swap_steps=10_000)
    side, given = table.play.sides[1], []
    act = side.policy.act

    def watched(obs: Any, mask: Any, rng: Any, memory: np.ndarray) -> Any:
        given.append((table.envs[0].age.copy(), memory.copy()))  # type: ignore[attr-defined]
        return act(obs, mask, rng, memory)  # type: ignore[call-arg]

    side.policy.act = watched  # type: ignore[assignment]
    for _ in range(9):
        table.tick()
    for age, memory in given:
        assert memory.any(axis=1).tolist() == (age > 0).tolist()


def test_frozen_policy_explores_as_the_trainer_does_now() -> None:
    table = duel(TRAINERS["dqn"]).until(100)
    list(table.play.act())
    policy: Any = table.trainer.policy
    side: Any = table.play.sides[1].policy
    assert side.epsilon == policy.epsilon < 1.0
