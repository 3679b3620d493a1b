"""Checks of array arithmetic, where an optimizer opts in to it: the gradients and losses of tensors."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mlhooks.fast.switch import is_plain
from mlhooks.testing.assertions import demand, works
from mlhooks.testing.check_fixtures import variants
from mlhooks.testing.extra_reward_signals import MoreSignals
from mlhooks.testing.specs import ACTION_KINDS
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play, make_trainer, parameters
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.batch import Batch
from mlhooks.training.optimizer import TorchOptimizer
from mlhooks.training.trainer import Trainer

BATCHES = 8  # So many of each trainer are compared; some rows of every second one do not count.
NAMED = 3
ROUNDING = 1e-4
"""How far numbers may be apart, as a share of their size: PPO's, A2C's and DQN's are apart by 2e-5 at most."""


@dataclass
class Step:
    """The results of one update, before the torch optimizer's step.

    Attributes:
        gradients: of all parameters by name; None where there is none.
        losses: all scalars of `loss`, or where it was not seen, what `update` returned.
    """

    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)


@pytest.mark.parametrize("kind", ACTION_KINDS)
def test_array_arithmetic_gives_the_gradients_of_tensors(
    trial: Trial, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `array_arithmetic`, updates have the gradients and losses that they have without it, to float32 rounding."""
    spec = ACTION_KINDS[kind]
    if not trial.takes(spec):
        pytest.skip(f"it does not take {kind} actions")
    for what, settings in _settings(trial):
        for masked in (False, True) if spec.action_spec.discrete_size else (False,):
            env = any_kind(spec, masked)(agents=8)
            arrays, tensors = (
                _trainer(trial, env.spec, settings, monkeypatch, opted_in=opted_in) for opted_in in (True, False)
            )
            where = f"{kind} actions{', masked' if masked else ''}{what}"
            for step, other in _steps(arrays, tensors, env):
                _compare(step, other, where)


def _settings(trial: Trial) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield settings with which losses are compared, and words for them."""
    for variant in variants(trial):
        yield (f", {variant}" if variant else ""), {"hyperparameters": variant}
    both = {"extrinsic": {"gamma": 0.9, "strength": 1.0}, "size": {"gamma": 0.8, "strength": 0.5}}
    yield ", two reward signals", {"reward_signals": both}


def _trainer(
    trial: Trial, spec: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, opted_in: bool
) -> Trainer:
    """Return a trainer, with or without array arithmetic in its optimizer; skip where that makes no difference."""

    def make() -> Trainer:
        return make_trainer(trial.manager(MoreSignals()), spec, trial.settings(**settings))

    trainer = make()
    kind = type(trainer.optimizer)
    if not issubclass(kind, TorchOptimizer) or not kind.array_arithmetic:
        pytest.skip("its optimizer does not set array_arithmetic")
    if is_plain():
        pytest.skip("everything is computed in plain torch: MLHOOKS_PLAIN")
    if opted_in:
        return trainer
    with monkeypatch.context() as patch:
        patch.setattr(kind, "array_arithmetic", False)
        return make()


def _steps(arrays: Trainer, tensors: Trainer, env: Any) -> Iterator[tuple[Step, Step]]:
    """Let a trainer learn, and give what the updates of both compute on the same batches, from the same weights."""
    steps: list[tuple[Step, Step]] = []
    update = arrays.optimizer.update

    def both(batch: Batch) -> dict[str, Tensor]:
        if len(steps) == BATCHES:
            return update(batch)
        if len(steps) % 2:
            batch = replace(batch, loss_mask=torch.arange(len(batch), device=batch.features.device) % 3 > 0)
        _copy_state(arrays, tensors)
        generator = torch.get_rng_state()
        other = _watched(tensors, tensors.optimizer.update, batch)[0]
        torch.set_rng_state(generator)
        with works("its loss was computed on arrays, for which its optimizer asks by array_arithmetic"):
            step, losses = _watched(arrays, update, batch)
        steps.append((step, other))
        return losses

    arrays.optimizer.update = both  # type: ignore[method-assign]
    play = Play(arrays, env)
    while len(steps) < BATCHES:
        play.updates(1)
    yield from steps


def _copy_state(source: Trainer, target: Trainer) -> None:
    """Give a trainer the weights, and its optimizer the state, of another one."""
    for name, module in source.modules().items():
        target.modules()[name].load_state_dict(module.state_dict())
    target.optimizer.load_state_dict(copy.deepcopy(source.optimizer.state_dict()))
    assert isinstance(source.optimizer, TorchOptimizer)
    target.optimizer.set_step(source.optimizer.step)


def _watched(trainer: Trainer, update: Any, batch: Batch) -> tuple[Step, dict[str, Tensor]]:
    """Make an update, and return what the first of its steps computed, and what it returned."""
    optimizer, step = trainer.optimizer, Step()
    assert isinstance(optimizer, TorchOptimizer)

    def gradients_ready(losses: dict[str, Tensor]) -> None:
        if not step.gradients:
            step.gradients, step.losses = _gradients(trainer), _numbers(losses)
        type(optimizer).gradients_ready(optimizer, losses)

    optimizer.gradients_ready = gradients_ready  # type: ignore[method-assign]
    try:
        losses = update(batch)
    finally:
        del optimizer.gradients_ready
    if not step.gradients:  # It does all by itself.
        step.gradients, step.losses = _gradients(trainer), _numbers(losses)
    return step, losses


def _gradients(trainer: Trainer) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.detach().clone() for name, p in parameters(trainer).items()}


def _numbers(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in losses.items()}


def _compare(arrays: Step, tensors: Step, where: str) -> None:
    """Demand equal gradients and losses; of what differs, the worst is named first."""
    off = {f"the gradient of {name}": share for name, share in _gradients_off(arrays, tensors).items()}
    for name in arrays.losses.keys() | tensors.losses.keys():
        value, right = (step.losses.get(name, math.nan) for step in (arrays, tensors))
        off[f"{name!r} of loss()"] = abs(value - right) / max(abs(right), 0.1)
    wrong = sorted((name for name, share in off.items() if not share < ROUNDING), key=lambda name: -off[name])
    demand(
        not wrong,
        f"With array_arithmetic the loss is another one than with tensors ({where}): "
        f"{', '.join(f'{name} by {off[name]:.2g} of its size' for name in wrong[:NAMED])}"
        f"{f' and {len(wrong) - NAMED} more' if len(wrong) > NAMED else ''}. Treat what networks return as numbers, "
        "without a look at its type, or leave array_arithmetic out (docs/fast.md).",
    )


def _gradients_off(arrays: Step, tensors: Step) -> dict[str, float]:
    """Return how far each gradient is from the right one, as a share of its size."""
    largest = max((_size(gradient) for gradient in tensors.gradients.values()), default=0.0)
    off = {}
    for name, right in tensors.gradients.items():
        value = arrays.gradients[name]
        difference = value if right is None else right if value is None else value - right
        least = max(0.01 * largest, 1e-12)  # Smaller gradients are sums of parts as large as those of others.
        off[name] = _size(difference) / max(_size(right), least)
    return off


def _size(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.abs().max())
