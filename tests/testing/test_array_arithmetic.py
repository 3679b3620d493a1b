"""Losses that look at the type of what networks return: right with tensors, and found out with arrays."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlhooks.errors import PluginError
from mlhooks.testing.checks import learning, trainers
from mlhooks.testing.checks.array_arithmetic import test_array_arithmetic_gives_the_gradients_of_tensors as arithmetic
from mlhooks.testing.target import resolve
from mlhooks.testing.trainer_trial import Trial
from tests.testing.plugins import ALTERS_PPO, target_of

TORCH_LOSS = Path(__file__).with_name("torch_loss.py")
OPTS_IN = "class MyOptimizer(PPOOptimizer):\n    array_arithmetic = True\n"
LOSSES = 'losses["Losses/Policy Loss"]'


def altered(folder: Path, policy_loss: str) -> Trial:
    """PPO, opted in, with another policy loss to report."""
    source = f"from torch import Tensor\n{ALTERS_PPO}".replace("class MyOptimizer(PPOOptimizer):\n", OPTS_IN)
    return Trial(target_of(folder, source, f'Loss": {LOSSES}', f'Loss": {policy_loss}'), "ppo")


def test_loss_of_real_tensors_learns() -> None:
    (target,) = resolve(str(TORCH_LOSS))
    trial = Trial(target, "torch_loss")
    trainers.test_gradients_reach_every_parameter(trial)
    learning.test_learns_one_step(trial, 1)


def test_loss_of_real_tensors_that_opts_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, policy = TORCH_LOSS.read_text(encoding="utf-8"), "    policy: ActorPolicy\n"
    trial = Trial(target_of(tmp_path, source, policy, f"{policy}    array_arithmetic = True\n"), "torch_loss")
    with pytest.raises(PluginError, match=r"fails with array.* and does not without it: .*else than tensors") as raised:
        arithmetic(trial, "discrete", monkeypatch)
    assert "for which its optimizer asks by array_arithmetic" in raised.value.__notes__[0]


def test_loss_that_does_not_opt_in_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    (target,) = resolve(str(TORCH_LOSS))
    with pytest.raises(pytest.skip.Exception, match="does not set array_arithmetic"):
        arithmetic(Trial(target, "torch_loss"), "discrete", monkeypatch)


def test_loss_that_arrays_change_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = altered(tmp_path, f"{LOSSES} + (not isinstance({LOSSES}, Tensor))")
    said = r"another one than with tensors \(discrete actions\): 'Losses/Policy Loss' of loss\(\) by \S+ of its size\."
    with pytest.raises(pytest.fail.Exception, match=said):
        arithmetic(trial, "discrete", monkeypatch)


def test_loss_that_arrays_do_not_change_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arithmetic(altered(tmp_path, f"{LOSSES} + 0.0"), "hybrid", monkeypatch)


def test_loss_that_a_run_refuses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = f"{LOSSES}, **({{}} if isinstance({LOSSES}, Tensor) else {{'loss': 2.0 * losses['loss']}})"
    with pytest.raises(PluginError, match=r"`MyOptimizer\.loss` .* has another gradient with array arithmetic"):
        arithmetic(altered(tmp_path, wrong), "discrete", monkeypatch)
