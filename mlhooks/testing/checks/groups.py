"""Checks of trainers that claim `groups`, in environments whose agents are paid as groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mlhooks.testing.assertions import demand
from mlhooks.testing.checks.learning import IN_A_ROW, PERIOD, SLOW
from mlhooks.testing.group_tasks import Account, Errand, squads
from mlhooks.testing.scripted import BEHAVIOR, TERMINAL
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.trainer_loop import Play
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.batch import Batch
from mlhooks.training.group_learning import GroupLearning, GroupOptimizer
from mlhooks.training.groups import Cells
from mlhooks.training.trainer import Trainer

GAMMA, TOLERANCE = 0.9, 1e-3
WORKERS = 2


@pytest.fixture(autouse=True)
def _learns_from_groups(trial: Trial) -> None:
    if not trial.kind.supports.groups:
        pytest.skip("it does not support groups")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_learns_what_pays_after_its_end(trial: Trial, seed: int) -> None:
    """It learns that one of two members leaves, although the group is paid when that one is gone."""
    if not trial.takes(Errand.spec):
        pytest.skip("it does not take discrete actions")
    play = Play(trial.trainer(Errand.spec, seed=seed, gamma=GAMMA), Errand(seed=seed))
    scores = [0.0]
    row = 0
    for step in range(PERIOD, trial.budget + 1, PERIOD):
        play.until(step)
        scores.append(_group_score(play.trainer))
        row = row + 1 if scores[-1] >= Errand.enough else 0
        if row == IN_A_ROW:
            return
    demand(
        row > 0,
        f"In {trial.budget:,} steps (seed {seed}) its groups came to a mean return of {scores[-1]:.2f} in Errand, "
        f"where {Errand.enough} is enough. Does the value of its group follow a member that ends alone? {SLOW}",
    )


def _group_score(trainer: Trainer) -> float:
    """Return the mean return of groups whose members act deterministically in a fresh environment."""
    env, policy, rng = Errand(64, seed=99), trainer.policy, np.random.default_rng(0)
    before, policy.deterministic = policy.deterministic, True
    try:
        env.reset()
        for _ in range(4):
            decisions, _ = env.get_steps(BEHAVIOR)
            env.set_actions(BEHAVIOR, policy.action_tuple(policy.act(decisions.obs, None, rng)))
            env.step()
    finally:
        policy.deterministic = before
    return float(np.mean(env.group_returns))


class Played:
    """A trainer with a rollout of two workers whose groups have the same ids, and the account of it."""

    def __init__(self, trial: Trial) -> None:
        spec = make_behavior_spec((4,), **trial.any_actions)
        plain: dict[str, Any] = {"normalize": False}  # A row is known by its observation.
        trainer: Any = trial.trainer(spec, gamma=GAMMA, network_settings=plain)
        if not isinstance(trainer.learning, GroupLearning) or not isinstance(trainer.optimizer, GroupOptimizer):
            pytest.skip("it has no GroupLearning with a GroupOptimizer")
        self.trainer, self.optimizer = trainer, trainer.optimizer
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():  # Critics begin so small that little is to be seen.
            for parameter in self.optimizer.critic.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        self.account = Account()
        envs = [squads(spec, seed) for seed in range(WORKERS)]
        for env in envs:
            env.reset()
        for tick in range(10_000):
            for worker, env in enumerate(envs):
                steps = env.get_steps(BEHAVIOR)
                self.account.note(tick, worker, *steps)
                trainer.observe(worker, BEHAVIOR, *steps)
            if trainer.ready_to_update():
                break
            acting = {worker: action for worker, _, action in trainer.act()}
            for worker, env in enumerate(envs):
                if worker in acting:
                    env.set_actions(BEHAVIOR, acting[worker])
                env.step()
        self.batch: Batch = trainer.learning.rollout(trainer.store)

    def cells(self) -> Cells:
        """Return the cells of the rollout."""
        demand(self.batch.cells is not None, "A rollout of agents in groups has no `cells`.")
        assert self.batch.cells is not None
        return self.batch.cells

    def names(self, rows: Any) -> list[bytes]:
        """Return what was seen in rows of the batch."""
        return [row.tobytes() for row in self.batch.features[rows].numpy()]

    def value(self, names: set[bytes]) -> float:
        """Return the value of a group whose members see this."""
        seen = torch.from_numpy(np.array([np.frombuffer(name, np.float32) for name in sorted(names)]))
        rows = len(seen)
        cells = Cells(np.arange(rows)[None], np.ones((1, rows), np.bool_))
        discrete = torch.zeros(rows, self.batch.discrete.shape[1], dtype=torch.int64)
        continuous = torch.zeros(rows, self.batch.continuous.shape[1])
        with torch.no_grad():
            batch = Batch(features=seen, continuous=continuous, discrete=discrete, cells=cells)
            return float(self.optimizer.values(batch)[0, 0])


def test_cells_are_the_members_of_that_time(trial: Trial) -> None:
    """A row's value is read from those members of its group in the same worker who are there when it decides."""
    played = Played(trial)
    for members, decided in zip(*played.cells(), strict=True):
        found = set(played.names(members[members >= 0]))
        for name in played.names(members[decided]):
            right = played.account.members(played.account.decided[name])
            strangers, missing = len(found - right), len(right - found)
            demand(
                found == right,
                f"A cell of `batch.cells` has {strangers} members that are not there, and lacks {missing}: members are "
                "of one group of one worker, from their decision to the next one or to the end of their episode.",
            )


def test_values_follow_ends_of_members(trial: Trial) -> None:
    """After a member that ends alone follows the value of its group, and after the end of a whole group nothing."""
    played = Played(trial)
    batch = played.batch
    counts = torch.ones(len(batch), dtype=torch.bool) if batch.loss_mask is None else batch.loss_mask
    found = dict(zip(played.names(counts), batch.returns[counts, 0].tolist(), strict=True))
    for name, returned in found.items():
        one = played.account.decided[name]
        if not one.end:
            continue
        nothing = one.whole and one.end == TERMINAL
        right = played.account.reward(one)
        right += 0.0 if nothing else GAMMA * played.value(played.account.after(one))
        demand(
            abs(returned - right) < TOLERANCE * max(1.0, abs(right)),
            f"The return of a row that ends an episode is {returned:.4f}, and must be {right:.4f}: the member's own "
            f"reward, its groupmates' and its group's, once each, and {'nothing' if nothing else 'the value of what'} "
            "follows.",
        )


def test_advantages_are_returns_less_baselines(trial: Trial) -> None:
    """Advantages are returns less the baselines that the optimizer has for the rollout."""
    batch = Played(trial).batch
    off = float((batch.advantages - (batch.returns - batch.baselines).mean(1, keepdim=True)).abs().max())
    demand(off < TOLERANCE, f"Advantages differ by up to {off:.3g} from returns less baselines.")


def test_baselines_do_not_depend_on_ones_own_action(trial: Trial) -> None:
    """A member's baseline depends on what the others do, and not on what it does; values depend on no actions."""
    played = Played(trial)
    batch, cells = played.batch, played.cells()
    with torch.no_grad():
        values, baselines = played.optimizer.group_values(batch)
        for members, decided in [pair for pair in zip(*cells, strict=True) if (pair[0] >= 0).sum() > 1][:5]:
            row = int(members[decided][0])
            continuous, discrete = batch.continuous.clone(), batch.discrete.clone()
            continuous[row] += 1.0
            if discrete.shape[1]:
                discrete[row, 0] = 1 - discrete[row, 0].clamp(max=1)
            other = replace(batch, continuous=continuous, discrete=discrete)
            now = played.optimizer.group_values(other)
            moved_values, moved = _moved(now[0], values), _moved(now[1], baselines)
            groupmates = members[decided & (members != row)]
            demand(float(moved[row]) < 1e-5, "A member's baseline changes with its own action.")
            demand(
                float(moved_values.max()) < 1e-5, "Values change with actions, which are not known where they count."
            )
            demand(
                not len(groupmates) or float(moved[groupmates].min()) > 1e-6,
                "A member's baseline does not change with what its groupmates do.",
            )


def test_values_depend_on_members_alone(trial: Trial) -> None:
    """Values and baselines change with what members of the group observe, and with nobody else's observation."""
    played = Played(trial)
    batch, cells = played.batch, played.cells()
    with torch.no_grad():
        before = played.optimizer.group_values(batch)
        for row in (0, len(batch) // 2):
            features = batch.features.clone()
            features[row] += 1.0
            after = played.optimizer.group_values(replace(batch, features=features))
            moved = torch.maximum(_moved(after[0], before[0]), _moved(after[1], before[1]))
            with_it = (cells.members == row).any(1)
            expected = {int(member) for member in cells.members[with_it][cells.decided[with_it]]}
            everybody = {int(member) for member in cells.members[cells.decided]}
            changed = set(torch.nonzero(moved > 1e-6).flatten().tolist()) & everybody
            demand(
                changed == expected,
                f"When an observation changes, so do the values of {len(changed - expected)} rows that are in no cell "
                f"with it, and those of {len(expected - changed)} that are do not: mask members that are not there.",
            )


def _moved(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Return how far the numbers of each row are apart: [rows]."""
    return (new - old).abs().max(1).values
