"""Checks of when a trainer updates, and on what: schedules, minibatches, replay and target networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionTuple, BehaviorSpec

from mlhooks.demos.records import Records
from mlhooks.demos.writing import write_demo
from mlhooks.testing.assertions import demand
from mlhooks.testing.scripted import ScriptedEnv
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import Aim, OneStep, any_kind
from mlhooks.testing.trainer_loop import Play, parameters
from mlhooks.testing.trainer_trial import FIRST_UPDATE, Trial
from mlhooks.training.batch import Batch
from mlhooks.training.hyperparameters import hyperparameter
from mlhooks.training.off_policy import OffPolicyTrainer
from mlhooks.training.on_policy import OnPolicyTrainer
from mlhooks.training.trainer import Trainer

PRETRAINING = "Losses/Pretraining Loss"


def test_learning_rate_follows_its_schedule(trial: Trial) -> None:
    """With a linear schedule, updates near max_steps move the parameters far less than with a constant one."""
    rows = trial.kind.store_rows(trial.trainer(_task(trial).spec).settings)
    max_steps = 12 * rows if rows <= FIRST_UPDATE else 3000
    ratios = []
    for begin in (0, max_steps - max_steps // 6):  # The trainers have not learned yet, so that all have far to go.
        moved = {}
        for schedule in ("constant", "linear"):
            play = trial.play(_task(trial)(), hyperparameters={"learning_rate_schedule": schedule}, max_steps=max_steps)
            play.trainer.step = begin
            moved[schedule] = _movement(play)
        ratios.append(moved["linear"] / max(moved["constant"], 1e-12))
    start, end = ratios
    demand(
        0.5 < start < 2.0 and end < 0.4,
        f"With a linear schedule an update moves the parameters {start:.2f} times as far as with a constant one at the "
        f"start, and {end:.2f} times as far near max_steps; that should be about 1 and 0. Read the learning rate "
        "before each update, at the step that set_step tells.",
    )


REPORTED = {
    "Policy/Learning Rate": ("learning_rate", "learning_rate_schedule"),
    "Policy/Beta": ("beta", "beta_schedule"),
    "Policy/Epsilon": ("epsilon", "epsilon_schedule"),
}
EXPLORATION = ("exploration_initial_eps", "exploration_schedule")


@pytest.mark.parametrize("key", REPORTED)
def test_reported_schedules_are_those_in_force(trial: Trial, key: str) -> None:
    """What summary_stats reports of a schedule begins at its hyperparameter, and falls evenly where it is linear."""
    name, schedule = EXPLORATION if key == "Policy/Epsilon" and trial.has(*EXPLORATION) else REPORTED[key]
    if not trial.has(name, schedule):
        pytest.skip(f"it has no hyperparameters {name} and {schedule}")
    begin = 0.37
    trainer = trial.trainer(_task(trial).spec, hyperparameters={name: begin, schedule: "linear"})
    reported = []
    for step in (0, trial.budget // 2, trial.budget):
        trainer.step = step
        stats = trial.target.manager().collect_mapping("summary_stats", trainer=trainer, step=step)
        if key not in stats:
            pytest.skip(f"it does not report {key}")
        reported.append(float(stats[key]))
    first, middle, last = reported
    demand(
        abs(first - begin) < 1e-6 and last < 0.5 * begin and abs(middle - (first + last) / 2) < 0.01 * begin,
        f"With a linear {schedule} from {name} {begin}, {key!r} is reported as {first:.4g} at step 0, {middle:.4g} in "
        f"the middle and {last:.4g} at max_steps.",
    )


def _movement(play: Play) -> float:
    """Return how far the next update moves the parameters."""
    play.until_ready()
    before = {name: p.detach().clone() for name, p in parameters(play.trainer).items()}
    play.trainer.update()
    moved = [float((p.detach() - before[name]).norm()) for name, p in parameters(play.trainer).items()]
    return float(np.linalg.norm(moved))


def _watched(trainer: Trainer) -> list[tuple[int, Batch]]:
    """Return the step and batch of every gradient step from now on."""
    seen: list[tuple[int, Batch]] = []
    update = trainer.optimizer.update

    def watched(batch: Batch) -> dict[str, torch.Tensor]:
        kept = batch.features.clone()  # A batch may be a view of the store, which is filled again after the update.
        seen.append((trainer.step, replace(batch, features=kept)))
        return update(batch)

    trainer.optimizer.update = watched  # type: ignore[method-assign]
    return seen


def test_every_row_of_a_rollout_is_learned_from_equally_often(trial: Trial) -> None:
    """An update passes over the rollout `num_epoch` times, each time over every row once, in minibatches."""
    env = any_kind(make_behavior_spec((4,), **trial.any_actions))(agents=8)
    trainer = trial.trainer(env.spec)
    if not isinstance(trainer, OnPolicyTrainer):
        pytest.skip("it does not learn from rollouts")
    play = Play(trainer, env).until_ready()
    rows, seen = sorted(trainer.learning.rollout(trainer.store).features[:, 0].tolist()), _watched(trainer)
    play.trainer.update()
    epochs = int(hyperparameter(trainer.settings, "num_epoch"))
    learned = sorted(name for _, batch in seen for name in batch.features[:, 0].tolist())
    demand(
        learned == sorted(rows * epochs),
        f"In one update, {len(learned)} rows went through optimizer.update, of a rollout of {len(rows)} rows with "
        f"num_epoch {epochs}: every row must, once in each pass.",
    )
    size = trainer.settings.hyperparameters.batch_size
    wrong = [len(batch) for _, batch in seen if not min(size, len(rows)) <= len(batch) < 2 * size]
    demand(not wrong, f"With batch_size {size} there are minibatches of {wrong} rows.")
    orders = [batch.features[:, 0].tolist() for _, batch in seen]
    whole = len(seen) == epochs  # A pass of one minibatch needs no order.
    demand(whole or orders[0] != orders[-1], "Minibatches are the same in every pass: shuffle the rows.")


def test_replay_updates_as_often_as_told(trial: Trial) -> None:
    """With `steps_per_update` there is one update in so many steps, and none before `buffer_init_steps`."""
    if not trial.has("steps_per_update", "buffer_init_steps"):
        pytest.skip("it has no hyperparameters steps_per_update and buffer_init_steps")
    for every in (1, 5):
        env = _task(trial)(agents=3)
        changed = {"steps_per_update": every, "buffer_init_steps": 200, "batch_size": 32}
        trainer = trial.trainer(env.spec, hyperparameters=changed)
        seen = _watched(trainer)
        Play(trainer, env).until(500)
        early = [step for step, _ in seen if step < 200]
        demand(not early, f"With buffer_init_steps 200 there was an update at step {min(early, default=0)}.")
        right = 300 / every
        demand(
            abs(len(seen) - right) <= 0.05 * right + 2,
            f"In the 300 steps after buffer_init_steps, with steps_per_update {every}, there were {len(seen)} updates.",
        )
        sizes = {len(batch) for _, batch in seen}
        demand(sizes == {32}, f"With batch_size 32 there are minibatches of {sorted(sizes)} rows.")


def test_imitates_demonstrations_where_it_says_so(trial: Trial, tmp_path: Path) -> None:
    """With `behavioral_cloning`, if `supports` declares that, the policy comes to do what the expert does."""
    if not trial.kind.supports.behavioral_cloning:
        pytest.skip("its `supports` does not declare behavioral_cloning")
    env = any_kind(make_behavior_spec((4,), **trial.any_actions))(agents=8)
    section = {"demo_path": str(tmp_path / "expert.demo"), "num_epoch": 10, "batch_size": 32}
    play = trial.play(env, behavioral_cloning=section)
    obs = np.random.default_rng(0).uniform(-1, 1, (65, 4)).astype(np.float32)
    expert = _another_action(_decided(play.trainer, obs))
    write_demo(tmp_path / "expert.demo", _always(expert, obs, env.spec))
    before = _distance(play.trainer, obs, expert)
    losses = play.updates(8).losses
    demand(
        all(PRETRAINING in update for update in losses),
        f"`supports` declares behavioral_cloning, and the updates report no {PRETRAINING}: call "
        "self.cloning.update(step) of the learning half after each update, and report what it returns.",
    )
    after = _distance(play.trainer, obs, expert)
    demand(
        after < 0.5 * before,
        f"In 8 updates the distance of the policy's actions from the expert's went from {before:.3g} to {after:.3g}, "
        "which must be less than half.",
    )


def _decided(trainer: Trainer, obs: np.ndarray) -> ActionTuple:
    """Return what the policy most likely does."""
    policy = trainer.policy
    before, policy.deterministic = policy.deterministic, True
    action = policy.action_tuple(policy.act([obs], None, np.random.default_rng(0)))
    policy.deterministic = before
    return action


def _another_action(action: ActionTuple) -> ActionTuple:
    """Return one action that is not what a policy mostly does: continuous ones on the other side of 0."""
    discrete = [[int((column == 0).mean() > 0.5)] for column in action.discrete.T]
    continuous = np.where(action.continuous.mean(0, keepdims=True) > 0, -0.5, 0.5)
    return ActionTuple(continuous.astype(np.float32), np.array(discrete, np.int32).reshape(1, -1))


def _distance(trainer: Trainer, obs: np.ndarray, expert: ActionTuple) -> float:
    """Return how far the policy's actions are from the expert's, the share of other ones in branches included."""
    action = _decided(trainer, obs)
    far = np.abs(action.continuous - expert.continuous).mean() if action.continuous.size else 0.0
    return float(far + ((action.discrete != expert.discrete).mean() if action.discrete.size else 0.0))


def _always(action: ActionTuple, obs: np.ndarray, spec: BehaviorSpec) -> Records:
    """Return one episode of an expert that does the same whatever it sees."""
    rows, done = len(obs), np.arange(len(obs)) == len(obs) - 1
    return Records(
        behavior_name="Expert",
        spec=spec,
        obs=[obs],
        reward=np.zeros(rows, np.float32),
        done=done,
        interrupted=np.zeros(rows, np.bool_),
        acts=~done,
        continuous=np.repeat(action.continuous, rows, 0),
        discrete=np.repeat(action.discrete, rows, 0).astype(np.int64),
    )


def test_target_network_follows_as_told(trial: Trial) -> None:
    """A target network moves by `tau` at each update; with tau 1 it is copied every `target_update_interval` steps."""
    env = _task(trial)(agents=2)
    trainer = trial.trainer(env.spec)
    optimizer: Any = trainer.optimizer
    network: Any = getattr(trainer.policy, "network", getattr(optimizer, "followed", None))
    modules = (network, getattr(optimizer, "target", None))
    if not trial.has("tau") or not all(isinstance(module, torch.nn.Module) for module in modules):
        pytest.skip("it has no hyperparameter tau with optimizer.target, and policy.network or optimizer.followed")
    assert isinstance(trainer, OffPolicyTrainer)
    networks = zip(optimizer.target.parameters(), network.parameters(), strict=True)
    demand(all(map(torch.equal, *zip(*networks, strict=True))), "At the start optimizer.target must be a copy.")
    Play(trainer, env).until(300)
    batch, tau = trainer.learning.sample(trainer.store, 64), float(trainer.settings.hyperparameters.tau)  # type: ignore[attr-defined]
    before = [p.detach().clone() for p in optimizer.target.parameters()]
    optimizer.update(batch)
    for old, new, now in zip(before, optimizer.target.parameters(), network.parameters(), strict=True):
        right = old + tau * (now.detach() - old)
        demand(
            torch.allclose(new, right, atol=1e-5), f"An update must move the target by tau {tau} towards the network."
        )
    if not trial.has("target_update_interval"):
        return
    hard = trial.trainer(env.spec, hyperparameters={"tau": 1.0, "target_update_interval": 100})
    target: Any = hard.optimizer
    changed_at, last = [], [p.detach().clone() for p in target.target.parameters()]
    play = Play(hard, _task(trial)(agents=2))
    while hard.step < 900:
        play.tick()
        now = [p.detach().clone() for p in target.target.parameters()]
        if not all(map(torch.equal, last, now)):
            changed_at.append(hard.step)
        last = now
    gaps = np.diff(changed_at)
    demand(
        len(gaps) >= 4 and bool((np.abs(gaps - 100) <= 10).all()),
        f"With tau 1 and target_update_interval 100 the target network changed at the steps {changed_at}.",
    )


def test_bootstrapped_targets_are_right(trial: Trial) -> None:
    """Where there are `targets(batch)` and a `target` network, targets have the value of the best allowed action."""
    env = any_kind(make_behavior_spec((4,), branches=(3, 2)), masked=True)(agents=16)
    for double in (False, True) if trial.has("double_q") else (None,):
        if not trial.kind.supports.discrete:
            pytest.skip("it takes no discrete actions")
        changed = {} if double is None else {"double_q": double}
        trainer = trial.trainer(env.spec, gamma=0.9, hyperparameters=changed)
        optimizer: Any = trainer.optimizer
        online, target = getattr(trainer.policy, "network", None), getattr(optimizer, "target", None)
        if not callable(getattr(optimizer, "targets", None)) or online is None or target is None:
            pytest.skip("its optimizer has no targets(batch) and target network")
        assert isinstance(trainer, OffPolicyTrainer)
        Play(trainer, env).until(400)
        _disturb(target)
        batch = trainer.learning.sample(trainer.store, 256)
        choosing = {False: [target], True: [online], None: [target, online]}[double]  # One of these is right.
        with torch.no_grad():
            found = optimizer.targets(batch)
            wanted = [
                _targets(batch, target(batch.next_features), network(batch.next_features)) for network in choosing
            ]
        worst = min(float((found - right).abs().max()) for right in wanted)
        demand(
            worst < 1e-4,
            f"{'' if double is None else f'With double_q {double} '}targets(batch) is off by up to {worst:.3g}. It is "
            "reward + discount * value, of the action that is best by the target network (with double Q-learning by "
            "the online one) among those that next_mask allows, valued by the target network, averaged over branches. "
            "An algorithm with targets of another kind, such as the mean under a policy, names the method otherwise, "
            "or its trainer class names this test in conformance_exempt.",
        )


def _targets(batch: Batch, values: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return targets [rows] where scores choose the action and values are its worth: each [rows, 3 + 2]."""
    scores = scores if batch.next_mask is None else torch.where(batch.next_mask, -torch.inf, scores)
    best = [values[:, c].gather(1, scores[:, c].argmax(1, keepdim=True)) for c in (slice(0, 3), slice(3, 5))]
    return batch.signal_rewards.sum(dim=1) + batch.discounts[:, 0] * torch.cat(best, dim=1).mean(dim=1)


def test_loss_pulls_taken_actions_to_their_targets(trial: Trial) -> None:
    """With `targets(batch)` and `policy.network`, the loss moves the values of the taken actions to their targets."""
    if not trial.kind.supports.discrete:
        pytest.skip("it takes no discrete actions")
    env = any_kind(make_behavior_spec((4,), branches=(3, 2)))(agents=16)
    trainer = trial.trainer(env.spec)
    optimizer: Any = trainer.optimizer
    network: Any = getattr(trainer.policy, "network", None)
    if not callable(getattr(optimizer, "targets", None)) or network is None:
        pytest.skip("its optimizer has no targets(batch), or its policy no network")
    assert isinstance(trainer, OffPolicyTrainer)
    Play(trainer, env).until(400)
    _disturb(network)
    batch, outputs = trainer.learning.sample(trainer.store, 256), []
    handle = network.register_forward_hook(lambda _, __, output: outputs.append(output))
    loss = optimizer.loss(batch)["loss"]
    handle.remove()
    values = next(output for output in outputs if output.requires_grad and len(output) == len(batch))
    (slope,) = torch.autograd.grad(loss, [values])
    columns = batch.discrete + torch.tensor([0, 3])
    taken = torch.zeros_like(slope, dtype=torch.bool).scatter(1, columns, True)
    errors = values.gather(1, columns) - optimizer.targets(batch)[:, None]
    clear = errors.abs() > 1e-3
    wrong = float((slope.gather(1, columns).sign() != errors.sign())[clear].float().mean())
    demand(not wrong, f"The loss moves {wrong:.0%} of the values of taken actions away from targets(batch).")
    demand(not slope[~taken].any(), "The loss changes values of actions that were not taken.")


@torch.no_grad()
def _disturb(network: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))


def _task(trial: Trial) -> type[ScriptedEnv]:
    return OneStep if trial.kind.supports.discrete else Aim
