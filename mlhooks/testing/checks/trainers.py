"""Checks of a trainer type's settings, of the behaviors that it takes, and of its gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mlhooks.errors import MlhooksError, SettingsError
from mlhooks.settings import SettingsRegistry, load_run_options
from mlhooks.testing.assertions import demand, fail
from mlhooks.testing.specs import ACTION_KINDS, OBSERVATION_KINDS, make_behavior_spec, needed_actions
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play, parameters
from mlhooks.testing.trainer_obstacles import obstacle
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.batch import Batch
from mlhooks.training.off_policy import OffPolicyTrainer
from mlhooks.training.on_policy import OnPolicyTrainer
from mlhooks.training.optimizer import TorchOptimizer
from mlhooks.training.trainer import Trainer
from mlhooks.training.units import sequences

UPDATES = 4
UNIT = 4
"""Rows of a unit where rows are laid out in units."""


def test_it_can_be_tried(trial: Trial) -> None:
    """Its class names its settings, and with `conformance_settings` it updates within 3,000 steps."""
    message = obstacle(trial)
    demand(not message, f"{message} The other tests of trainers are skipped.")


def test_settings_defaults_are_valid_and_survive_yaml(trial: Trial) -> None:
    """`trainer_type` alone is a valid configuration, and what it resolves to reads back equal from YAML."""
    for what, settings in (("its defaults", {"trainer_type": trial.name}), ("conformance_settings", trial.settings())):
        try:
            options = _load(trial, settings)
            again = load_run_options(yaml.safe_load(options.to_yaml()), _registry(trial)).options
        except MlhooksError as error:
            fail(f"The configuration with {what} is refused: {error}")
        demand(
            again == options, f"The configuration with {what} is another one after configuration.yaml was read back."
        )
    fields = trial.model.model_fields.items()
    undescribed = [name for name, field in fields if not field.description]
    demand(not undescribed, f"Hyperparameters without a description, which people and editors see: {undescribed}.")


def test_settings_refuse_typos(trial: Trial) -> None:
    """A misspelt hyperparameter is an error that names it."""
    for name in trial.model.model_fields:
        typo = f"{name[:-1]}_" if f"{name}s" in trial.model.model_fields else f"{name}s"
        try:
            _load(trial, {"trainer_type": trial.name, "hyperparameters": {typo: 1}})
        except SettingsError as error:
            demand(typo in str(error), f"The error for the misspelt {typo!r} does not name it: {error}")
        else:
            fail(
                f'The misspelt hyperparameter {typo!r} was accepted. Keep the model\'s `extra="forbid"`, which '
                "HyperparameterSettings sets: a typo must not train with a default."
            )


@pytest.mark.parametrize("kind", ACTION_KINDS)
def test_trains_on_every_action_kind_that_it_declares(trial: Trial, kind: str) -> None:
    """It trains with finite losses on actions that `supports` declares, and refuses others by name, before training."""
    spec = ACTION_KINDS[kind]
    if trial.takes(spec):
        _train(trial, any_kind(spec)(), kind)
        if spec.action_spec.discrete_size:
            _train(trial, any_kind(spec, masked=True)(), f"{kind}, masked")
        return
    missing = [action for action in needed_actions(spec) if not getattr(trial.kind.supports, action)]
    asked = " and ".join(missing)
    try:
        trial.trainer(spec)
    except MlhooksError as error:
        demand(all(action in str(error) for action in missing), f"The refusal must name {asked} actions: {error}")
    else:
        fail(
            f"`supports` does not declare {asked} actions, and a behavior that has them is not refused. Declare them, "
            "or raise UnsupportedError in the trainer's constructor."
        )


@pytest.mark.parametrize("kind", OBSERVATION_KINDS)
def test_trains_on_every_observation_kind(trial: Trial, kind: str) -> None:
    """It trains on vectors, goals, entities, and images as floats and bytes, or refuses clearly what it cannot read."""
    spec = make_behavior_spec(**OBSERVATION_KINDS[kind], **trial.any_actions)
    if all(len(observation.shape) == 1 for observation in spec.observation_specs):
        _train(trial, any_kind(spec)(), kind)
        return
    try:
        trial.trainer(spec)
    except MlhooksError as error:
        demand("observation" in str(error), f"The refusal must name the observation, and says: {error}")
    else:
        _train(trial, any_kind(spec)(), kind)
        if kind == "image":
            _train(trial, any_kind(spec, in_bytes=True)(), f"{kind} in bytes")


def test_trains_on_normalized_observations(trial: Trial) -> None:
    """With `normalize: true` the normalizer sees every observation that is learned from."""
    env = any_kind(make_behavior_spec(**trial.any_actions))()
    play = trial.play(env, network_settings={"normalize": True}).updates(UPDATES)
    normalizer = play.trainer.policy.inputs.normalizer
    demand(
        normalizer is None or float(normalizer.count) > 0,
        "With network_settings.normalize the normalizer got no observations: update() must hand them to "
        "`policy.inputs.update`.",
    )


def test_every_parameter_changes_by_training(trial: Trial) -> None:
    """Updates change every trainable parameter that a checkpoint holds, and every tensor of a target network."""
    play = trial.play(any_kind(_widest(trial), grouped=trial.kind.supports.groups)())
    before = {name: tensor.clone() for name, tensor in _learned(play).items()}
    play.updates(3 * UPDATES)
    same = [name for name, tensor in _learned(play).items() if tensor.equal(before[name])]
    demand(
        not same,
        f"{3 * UPDATES} updates did not change {', '.join(same)}. Either the loss does not depend on it, or the torch "
        "optimizer does not have it, or `modules()` holds what is not trained.",
    )


def test_gradients_reach_every_parameter(trial: Trial) -> None:
    """Each trainable parameter gets a gradient that is finite and not zero."""
    play = trial.play(any_kind(_widest(trial), grouped=trial.kind.supports.groups)())
    reached: dict[str, float] = {}
    named = parameters(play.trainer)
    for name, parameter in named.items():
        parameter.register_hook(lambda gradient, name=name: _note(reached, name, gradient))
    for _ in range(UPDATES):
        play.updates(1)
        for name, parameter in named.items():  # Not every gradient comes by way of hooks.
            if parameter.grad is not None:
                _note(reached, name, parameter.grad)
    bad = [name for name, size in reached.items() if not math.isfinite(size)]
    demand(not bad, f"The gradients of {', '.join(bad)} are NaN or infinite.")
    missed = [name for name in named if not reached.get(name)]
    demand(
        not missed,
        f"No gradient reaches {', '.join(missed)}: something detaches it from the loss, or the loss does not use it. A "
        "network that is not trained by gradients needs `requires_grad_(False)`.",
    )


def test_gradients_do_not_pile_up(trial: Trial) -> None:
    """The gradient of an update is that of its own batch, without those of the updates before."""
    unclipped = {"max_grad_norm": None} if trial.has("max_grad_norm") else {}
    play = trial.play(any_kind(_widest(trial))(), hyperparameters=unclipped)
    optimizer, named = play.trainer.optimizer, parameters(play.trainer)
    if not isinstance(optimizer, TorchOptimizer):
        pytest.skip("its optimizer is no TorchOptimizer")
    similar: list[float] = []
    update = optimizer.update

    def watched(batch: Batch) -> dict[str, torch.Tensor]:
        loss = optimizer.loss(batch)["loss"]
        own = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        losses = update(batch)
        applied = [p.grad for p in named.values()]
        both = [(a.flatten(), b.flatten()) for a, b in zip(own, applied, strict=True) if a is not None is not b]
        if any(bool(b.any()) for _, b in both):
            a, b = (torch.cat(parts) for parts in zip(*both, strict=True))
            similar.append(float(torch.dot(a, b) / (a.norm() * b.norm())))
        return losses

    optimizer.update = watched  # type: ignore[method-assign]
    play.updates(3 * UPDATES)
    if not similar:
        pytest.skip("its gradients are gone after an update")
    demand(
        min(similar) > 0.98,
        f"An update applies another gradient than that of its batch's `loss` (cosine {min(similar):.2f}): set the "
        "gradients to zero before each `backward()`.",
    )


def test_losses_are_means_over_the_rows_that_count(trial: Trial) -> None:
    """The gradient of `loss` stays as it is when rows are doubled, or others join that `loss_mask` leaves out."""
    trainer = trial.play(any_kind(_widest(trial))()).updates(1).until_ready().trainer
    batch = _batch_for_loss(trainer)
    rows = torch.arange(len(batch))
    twice = batch[rows.repeat(2)]
    others: dict[str, Any] = {
        name: torch.cat([column, column.roll(1, 0) + 3.0])
        for name in ("features", "signal_rewards", "values", "returns", "advantages", "next_features")
        if (column := getattr(batch, name)) is not None
    }
    masked = replace(twice, **others, loss_mask=torch.cat([rows >= 0, rows < 0]))
    once, doubled, counted = (_gradient_of_loss(trainer, each) for each in (batch, twice, masked))
    for found, what, hint in (
        (doubled, "every row stands twice in a batch", "take means over rows, not sums"),
        (counted, "rows join that loss_mask leaves out", "use `batch.mean` and `batch.standardize` for means"),
    ):
        off = float((found - once).norm() / once.norm())
        demand(off < 0.2, f"The gradient of the loss changes by {off:.0%} when {what}: {hint}.")


def test_padding_of_units_has_no_gradient(trial: Trial) -> None:
    """The gradient of `loss` on rows that are laid out in units is that of the rows, whatever pads shorter units."""
    trainer = trial.play(any_kind(_widest(trial))()).updates(1).until_ready().trainer
    batch = _batch_for_loss(trainer)
    rows = np.arange(len(batch))
    # Pieces of one row and of a whole unit take turns, so that half of the units are padded.
    pieces = np.repeat(rows, np.where(rows % 2, UNIT, 1))[: len(batch)]
    laid = replace(batch, units=sequences(np.zeros_like(rows), pieces, UNIT)).laid_out()
    turned, noted = batch[torch.arange(len(batch)).flip(0)], _note_padding(laid)
    once, padded, turned_around, other = (_gradient_of_loss(trainer, each) for each in (batch, laid, turned, noted))
    off, by_chance = (float((found - once).norm() / once.norm()) for found in (padded, turned_around))
    by_padding = float((other - padded).norm() / once.norm())
    demand(
        # Rows in another order have other random numbers, where the loss draws any.
        off < 0.1 + 2 * by_chance and by_padding < 0.01,
        f"The gradient of the loss changes by {max(off, by_padding):.0%} when its rows are laid out in units of "
        f"{UNIT}, some of them padded: use `batch.mean` and `batch.standardize` for means, which leave out what only "
        "pads a unit.",
    )


def _note_padding(batch: Batch) -> Batch:
    """Return a batch in which what pads units has other rewards, values and the like."""
    if batch.present is None:
        return batch
    others: dict[str, Any] = {
        name: torch.where(batch.present.view(-1, *[1] * (column.dim() - 1)), column, column + 3.0)
        for name in ("signal_rewards", "values", "returns", "advantages")
        if (column := getattr(batch, name)) is not None
    }
    return replace(batch, **others)


def _batch_for_loss(trainer: Trainer) -> Batch:
    """Return a rollout or a sample of a trainer whose optimizer has a loss."""
    if not isinstance(trainer.optimizer, TorchOptimizer):
        pytest.skip("its optimizer is no TorchOptimizer")
    if isinstance(trainer, OnPolicyTrainer):
        return trainer.learning.rollout(trainer.store)
    if isinstance(trainer, OffPolicyTrainer):
        return trainer.learning.sample(trainer.store, 64)
    pytest.skip("it is neither an OnPolicyTrainer nor an OffPolicyTrainer")


def _gradient_of_loss(trainer: Trainer, batch: Batch) -> torch.Tensor:
    optimizer = trainer.optimizer
    assert isinstance(optimizer, TorchOptimizer)
    torch.manual_seed(0)
    parts = torch.autograd.grad(
        optimizer.loss(batch)["loss"], list(parameters(trainer).values()), allow_unused=True, materialize_grads=True
    )
    return torch.cat([part.flatten() for part in parts])


def test_losses_are_reported(trial: Trial) -> None:
    """Each update returns its losses, finite and under statistics keys, and gives them to the statistics."""
    play = trial.play(any_kind(_widest(trial))()).updates(UPDATES)
    for losses in play.losses:
        demand(losses, "update() returned no losses: return means by statistics key, such as `Losses/Policy Loss`.")
        for key, value in losses.items():
            demand("/" in key, f"The loss {key!r} needs a statistics key with a section, such as `Losses/{key}`.")
            demand(math.isfinite(value), f"The loss {key!r} is {value}.")
            summary = play.trainer.stats.get_stats_summaries(key)
            demand(summary.num, f"The loss {key!r} is returned, and not given to `trainer.stats`; use `self.report`.")


def test_gradient_norm_is_clipped(trial: Trial) -> None:
    """With `max_grad_norm` the gradient is not longer than that when the torch optimizer gets it."""
    if not trial.has("max_grad_norm"):
        pytest.skip("it has no hyperparameter max_grad_norm")
    limit = 1e-3
    play = trial.play(any_kind(_widest(trial))(), hyperparameters={"max_grad_norm": limit}).updates(1)
    gradients = [p.grad.flatten() for p in parameters(play.trainer).values() if p.grad is not None]
    norm = float(torch.cat(gradients).norm()) if gradients else 0.0
    demand(
        norm <= 1.01 * limit, f"max_grad_norm is {limit}, and the gradient's norm is {norm:.3g} after it was applied."
    )


def _train(trial: Trial, env: Any, kind: str) -> None:
    play = trial.play(env)
    try:
        play.updates(UPDATES)
    except Exception as error:
        error.add_note(f"This happened with {kind}, which the trainer type {trial.name!r} declares or must take.")
        raise
    bad = {key: value for losses in play.losses for key, value in losses.items() if not math.isfinite(value)}
    demand(not bad, f"With {kind} the losses are not finite: {bad}.")
    demand(env.audit.outside == 0, f"With {kind} it sent {env.audit.outside} actions that the behavior does not have.")
    demand(env.audit.forbidden == 0, f"With {kind} it took {env.audit.forbidden} actions that the mask forbids.")


def _note(reached: dict[str, float], name: str, gradient: torch.Tensor) -> None:
    reached[name] = max(reached.get(name, 0.0), float(gradient.abs().max()))


def _learned(play: Play) -> dict[str, torch.Tensor]:
    """Return every parameter of every module, target networks included."""
    modules = play.trainer.modules().items()
    return {f"{name}.{key}": p for name, module in modules for key, p in module.named_parameters()}


def _widest(trial: Trial) -> Any:
    kinds = [kind for kind in ("hybrid", "several branches", "several continuous") if trial.takes(ACTION_KINDS[kind])]
    return ACTION_KINDS[kinds[0]]


def _registry(trial: Trial) -> SettingsRegistry:
    return SettingsRegistry.from_plugins(trial.manager())


def _load(trial: Trial, settings: dict[str, Any]) -> Any:
    return load_run_options({"behaviors": {"B": settings}}, _registry(trial)).options
