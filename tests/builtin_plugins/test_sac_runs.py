"""SAC beside its losses: settings, memory, images, and whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builtin_plugins.sac import SACSettings, SACTrainer
from mlhooks.errors import SettingsError
from mlhooks.plugins import load_plugins
from mlhooks.settings import SettingsRegistry, load_run_options
from mlhooks.settings.base import is_extension
from mlhooks.testing.checks.learning import learns
from mlhooks.testing.target import resolve
from mlhooks.testing.tasks import Masked
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.batch import Batch
from mlhooks.training.squashed_policy import SquashedPolicy
from tests.builtin_plugins.test_sac import TWO_SIGNALS, made, optimizer_of
from tests.scripted import config, train


def test_defaults_are_those_of_ml_agents() -> None:
    options = load_run_options(
        {"behaviors": {"A": {"trainer_type": "sac"}}}, SettingsRegistry.from_plugins(load_plugins(autoload=False))
    ).options
    found = options.behaviors["A"].hyperparameters
    assert isinstance(found, SACSettings)
    ours = {name: field.default for name, field in type(found).model_fields.items() if is_extension(field)}
    assert {"twin_targets": False, "n_step": 1, "max_grad_norm": None, "update_interval": 1}.items() <= ours.items()
    assert found.model_dump(mode="json") == {
        "batch_size": 128,
        "buffer_size": 50000,
        "learning_rate": 3e-4,
        "learning_rate_schedule": "constant",
        "buffer_init_steps": 0,
        "tau": 0.005,
        "steps_per_update": 1.0,
        "save_replay_buffer": False,
        "init_entcoef": 1.0,
        "reward_signal_steps_per_update": 1.0,
        **ours,
    }


@pytest.mark.parametrize("kind", ["continuous", "hybrid"])
def test_coefficient_that_is_not_learned_stays_what_it_was_and_is_in_no_loss(kind: str) -> None:
    trainer = made(kind, learn_entcoef=False, twin_targets=True)
    o = optimizer_of(trainer)
    before = o.coefficients.values()
    batch = trainer.learning.sample(trainer.store, 32)
    losses = o.loss(batch)
    parts = [losses[f"Losses/{name} Loss"] for name in ("Policy", "Q1", "Q2")]
    torch.testing.assert_close(losses["loss"], sum(parts[1:], start=parts[0]))
    o.set_step(0)
    for _ in range(3):
        o.update(batch)
    assert o.coefficients.values() == before
    assert o.flat.data.numel() == optimizer_of(made(kind, twin_targets=True)).flat.data.numel() - sum(
        p.numel() for p in o.coefficients.parameters()
    )


@pytest.mark.parametrize("masked", [False, True])
def test_first_steps_are_uniformly_random_where_asked(masked: bool) -> None:
    trainer = made("hybrid", masked=masked, random_steps=200)
    rows = trainer.store.complete_rows()
    continuous = trainer.store.continuous[rows]
    first, rest = continuous[:200], continuous[208:]
    assert np.abs(first).max() <= 1.0
    counts = np.histogram(first, 4, (-1.0, 1.0))[0] / first.size
    np.testing.assert_allclose(counts, 0.25, atol=0.1)
    squares = [abs(float(np.square(part).mean()) - 1 / 3) for part in (first, rest)]
    assert squares[0] < 0.045 < squares[1]  # Squashed samples of a Gaussian are larger.
    taken = trainer.store.discrete[rows][:200]
    assert {int(choice) for choice in taken[:, 0]} == set(range(2))
    if masked:
        start = 0
        for branch, size in enumerate(trainer.behavior_spec.action_spec.discrete_branches):
            forbidden = trainer.store.mask[rows][:200, start : start + size]
            assert not forbidden[np.arange(200), taken[:, branch]].any()
            start += size
    assert trainer.acting.explore is None


def test_coefficient_that_has_no_logarithm_is_refused() -> None:
    with pytest.raises(SettingsError, match="init_entcoef"):
        made(init_entcoef=0.0)


MEMORY = {"memory": {"sequence_length": 4, "memory_size": 8}, "num_layers": 1}


@pytest.mark.parametrize("kind", ["hybrid", "branches"])
@pytest.mark.parametrize("twin", [False, True])
def test_sequences_are_learned_from_with_critics_whose_memory_is_empty(kind: str, twin: bool) -> None:
    """Losses and gradients are those of each sequence alone, row by row, with what follows further on in it."""
    trainer = made(kind, masked=True, network=MEMORY, twin_targets=twin)
    o = optimizer_of(trainer)
    policy, batch = o.policy, trainer.learning.sample(trainer.store, 32)
    assert batch.width > 4
    assert batch.loss_mask is not None
    assert not batch.loss_mask.all()
    found = o.loss(batch)
    wanted = found["loss"].detach()
    gradients = torch.autograd.grad(found["loss"], list(o.flat))
    own, other = torch.randn_like(batch.memory), batch.memory.clone()
    first = torch.arange(len(batch)) % batch.width == 0
    other[~first] = own[~first]  # The memory before its first row counts for a sequence.
    again = o.loss(replace(batch, memory=other))
    torch.testing.assert_close(again["loss"].detach(), wanted)
    torch.testing.assert_close(torch.autograd.grad(again["loss"], list(o.flat)), gradients)
    assert float(o.loss(replace(batch, memory=own))["loss"].detach()) != pytest.approx(float(wanted))
    with torch.no_grad():
        o.noise = lambda rows: torch.zeros(2, rows, o.size)  # type: ignore[method-assign]
        units = [batch[torch.arange(u, u + batch.width)] for u in range(0, len(batch), batch.width)]
        for number, unit in enumerate(units):
            inside = (unit.following - number * batch.width).clamp(0, batch.width - 1)
            alone = replace(unit, width=batch.width, following=inside)
            noise = torch.zeros(len(unit), o.size)
            targets = o.targets(alone, noise)
            of_all = o.targets(batch, torch.zeros(len(batch), o.size))[number * batch.width :][: batch.width]
            counts = unit.loss_mask
            torch.testing.assert_close(targets[counts], of_all[counts])
            for row in torch.nonzero(counts).flatten().tolist():  # The following rows are in the sequence up to there.
                after, value = int(inside[row]), torch.zeros(1)
                seen = unit.features[: after + 1]
                if o.critic is not None:
                    value = o.target(seen, None, len(seen))[-1]
                    wanted_row = value * unit.discounts[row] + unit.signal_rewards[row]
                    torch.testing.assert_close(targets[row], wanted_row)
    assert policy.memory_size == 8
    assert trainer.learning.sample(trainer.store, 32).memory.shape[1] == 8


def test_environments_get_squashed_actions_as_they_are_and_deterministic_ones_are_tanh_of_the_mean() -> None:
    policy = made("hybrid").policy
    assert isinstance(policy, SquashedPolicy)
    obs = [np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)]
    parameters = policy.actor(torch.from_numpy(obs[0]))
    drawn = policy.act(obs, None, np.random.default_rng(1))
    again = [policy.act(obs, None, np.random.default_rng(seed)).continuous for seed in range(200)]
    assert np.abs(drawn.continuous).max() < 1.0
    np.testing.assert_array_equal(policy.action_tuple(drawn).continuous, drawn.continuous)
    unsquashed = np.arctanh(np.clip(np.stack(again), -1 + 1e-7, 1 - 1e-7))
    mean, deviation = parameters.mean.detach().numpy(), parameters.log_std.detach().exp().numpy()
    small = np.abs(mean) + 3 * deviation < 4  # There, float32 tells squashed numbers apart.
    assert small.sum() > 100
    assert np.abs((unsquashed.mean(0) - mean) / deviation)[small].max() < 5 / 200**0.5
    assert (unsquashed.std(0) / deviation)[small].mean() == pytest.approx(1.0, abs=0.02)
    policy.deterministic = True
    np.testing.assert_allclose(policy.act(obs, None, np.random.default_rng(1)).continuous, np.tanh(mean), atol=1e-5)


def test_log_probabilities_of_stored_actions_are_those_of_their_drawing() -> None:
    trainer = made("hybrid")
    policy, generator = trainer.policy, torch.Generator().manual_seed(0)
    assert isinstance(policy, SquashedPolicy)
    features = torch.randn(64, 4, generator=generator)
    decisions = policy.decide(features, None)
    discrete = torch.zeros(64, 2, dtype=torch.int64)
    batch = Batch(features=features, continuous=decisions.continuous.detach(), discrete=discrete)
    log_probs, entropies = policy.evaluate(batch)
    near = (batch.continuous.abs() < 0.99).all(1)
    torch.testing.assert_close(log_probs[near, :2].sum(1, keepdim=True), decisions.log_prob[near], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(log_probs[:, 2:3], decisions.probabilities[0][:, :1].log())
    assert entropies.shape == (64, 4)


@pytest.mark.parametrize(("every", "of_signals", "policy", "signals"), [(2.0, 5.0, 25, 10), (0.5, 1.0, 100, 50)])
def test_policy_and_reward_signals_are_updated_at_their_own_rates(
    every: float, of_signals: float, policy: int, signals: int
) -> None:
    trainer = made(signals=TWO_SIGNALS, buffer_init_steps=50, steps_per_update=every, batch_size=20,
                   reward_signal_steps_per_update=of_signals)  # fmt: skip
    learning, store, learned = trainer.learning, trainer.store, []
    updated: list[int] = []
    trainer.reward_signals[1].update = lambda batch: learned.append(len(batch)) or {}
    learning.signals_that_learn = [trainer.reward_signals[1]]
    trainer.optimizer.update = lambda batch: updated.append(len(batch)) or {}  # type: ignore[method-assign]
    for step in range(101):
        if learning.ready(store, step):
            learning.update(store, step)
    assert abs(len(updated) - policy) <= 2
    assert abs(len(learned) - signals) <= 1
    assert {*updated, *learned} == {20}


@pytest.mark.parametrize("kind", ["hybrid", "branches"])
@pytest.mark.parametrize("twin", [False, True])
def test_images_are_read_beside_actions(kind: str, twin: bool) -> None:
    """Gradients behind encoders of images are the same on arrays, on tensors and by torch alone."""
    from mlhooks.fast.switch import plain

    network = {"vis_encode_type": "match3", "num_layers": 1}
    trainer = made(kind, shapes=(3, (2, 6, 6)), network=network, twin_targets=twin)
    o, batch = optimizer_of(trainer), trainer.learning.sample(trainer.store, 32)
    assert o.q1.encoder.body.layers[0].in_features == 3 + 16 + o.size
    o.torch_optimizer.step, o.tau = lambda: None, 0.0  # type: ignore[method-assign]
    found = []
    for way in ("arrays", "tensors", "plain"):
        o._checked = True
        o._scope.arrays = way == "arrays"
        with plain(way == "plain"):
            o.update(batch)
        found.append(o.flat.grad.clone())
        o.updates -= 1
    for other in found[1:]:
        assert torch.linalg.vector_norm(found[0] - other) <= 1e-5 * torch.linalg.vector_norm(other)
    assert all(parameter.grad.any() for parameter in o.flat if parameter.ndim > 1)


SMALL = {
    "batch_size": 16,
    "buffer_size": 200,
    "steps_per_update": 4,
    "save_replay_buffer": True,
    "learning_rate": 0.01,
    "init_entcoef": 0.05,
}


@pytest.mark.parametrize(
    ("behavior", "changed"), [("Basic", {}), ("3DBall", {}), ("3DBall", {"twin_targets": True, "n_step": 3})]
)
def test_resumed_run_ends_with_the_weights_of_one_that_was_not_stopped(
    tmp_path: Path, behavior: str, changed: Any
) -> None:
    import shutil

    from mlhooks import hookimpl

    class Snapshot:
        @hookimpl
        def checkpoint_saved(self, checkpoint: Any) -> None:
            if checkpoint.step // 100 == 2:
                shutil.copytree(tmp_path / "whole" / "run", tmp_path / "200" / "run")

    hyperparameters = {**SMALL, **changed}
    settings = config(behavior, f"sim:{behavior}", max_steps=400, trainer_type="sac", hyperparameters=hyperparameters)
    step = train(settings, tmp_path / "whole", Snapshot()).trainers[behavior].step
    last = Path("run", behavior, f"{behavior}-{step}.pt")
    train(settings, tmp_path / "200", resume=True)
    assert (tmp_path / "200" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


def test_statistics_have_the_keys_of_ml_agents(tmp_path: Path) -> None:
    kinds = {"Basic": {"Policy/Discrete Entropy Coeff"}, "3DBall": {"Policy/Continuous Entropy Coeff"}}
    for behavior, own in kinds.items():
        settings = config(behavior, f"sim:{behavior}", max_steps=300, trainer_type="sac", hyperparameters=SMALL)
        trainer = train(settings, tmp_path / behavior).trainers[behavior]
        assert isinstance(trainer, SACTrainer)
        import json

        lines = (tmp_path / behavior / "run" / "stats.jsonl").read_text(encoding="utf-8").splitlines()
        keys = {key for line in lines for key in json.loads(line)["values"]}
        both = {"Losses/Policy Loss", "Losses/Value Loss", "Losses/Q1 Loss", "Losses/Q2 Loss", "Policy/Learning Rate"}
        both |= {"Policy/Extrinsic Value", "Policy/Extrinsic Reward", "Policy/Entropy"}
        assert both | own <= keys
        others = set.union(*kinds.values()) - own
        assert not others & keys


def test_with_twin_targets_no_place_is_valued_by_a_forbidden_action() -> None:
    (target,) = resolve("sac")
    settings = {"twin_targets": True, "init_entcoef": 0.05}
    learns(Trial(target, "sac"), Masked, 1, "", hyperparameters=settings)


def test_updates_run_beside_the_environments_steps(tmp_path: Path) -> None:
    settings = config("3DBall", "sim:3DBall", max_steps=400, trainer_type="sac", hyperparameters=SMALL, threaded=True)
    trainer = train(settings, tmp_path).trainers["3DBall"]
    assert trainer.updates > 50
