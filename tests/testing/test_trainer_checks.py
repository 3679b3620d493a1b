"""What the checks of trainers say of trainers that are merely slow, and of rows that look alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlhooks.testing.checks import learning, policy_gradients, transitions
from mlhooks.testing.target import resolve
from mlhooks.testing.tasks import Process, any_kind
from mlhooks.testing.trainer_trial import Trial
from tests.testing.plugins import ALTERS_PPO, TRAINER, target_of

SLOW = r"If it is only slow: conformance_settings may name a higher learning rate, or more max_steps\.$"


def test_slow_trainer_is_told_what_was_measured_of_interruptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "score", lambda *_: 0.75)
    with pytest.raises(pytest.fail.Exception, match=rf"In 500 steps .* return of 0\.75 .* 0\.30 is right.*{SLOW}"):
        learning.test_interruption_is_not_an_end(Trial(target_of(tmp_path, TRAINER), "mine"), 1)


def test_slow_trainer_is_told_what_was_measured_of_values(tmp_path: Path) -> None:
    trial = Trial(target_of(tmp_path, TRAINER), "mine")
    with pytest.raises(pytest.fail.Exception, match=rf"off by \d\.\d\d, where 0\.08 is allowed.*{SLOW}"):
        learning.test_values_are_the_true_ones(trial, {})


def test_values_of_normalized_rewards_are_compared_as_those_of_rewards() -> None:
    (target,) = resolve("ppo")
    trainer: Any = Trial(target, "ppo").trainer(Process.spec, hyperparameters={"normalize_rewards": True})
    before = learning.values_of(trainer)
    assert before is not None
    trainer.learning.return_normalizer.update(np.array([[-5.0], [5.0]]))  # Their deviation is 5.
    np.testing.assert_allclose(learning.values_of(trainer), 5.0 * before, rtol=1e-5)


def test_critic_whose_loss_is_not_reported_as_a_value_loss_may_learn_something_else(tmp_path: Path) -> None:
    returned = 'return {**losses, "Losses/Policy Loss": losses["Losses/Policy Loss"]}'

    def trial(key: str) -> Trial:
        loss = f"del losses['Losses/Value Loss']; losses['loss'] = losses['{key}'] = self.values(batch).square().mean()"
        return Trial(target_of(tmp_path, ALTERS_PPO, returned, f"{loss}; return losses"), "ppo")

    with pytest.raises(pytest.fail.Exception, match="points another way"):
        policy_gradients.test_value_loss_pulls_values_to_returns(trial("Losses/Value Loss"))
    with pytest.raises(pytest.skip.Exception, match="reports no 'Losses/Value Loss'"):
        policy_gradients.test_value_loss_pulls_values_to_returns(trial("Losses/Quantile Loss"))


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_rows_that_have_one_number_in_common_are_told_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(*arguments: Any) -> Any:
        class Alike(any_kind(*arguments)):  # type: ignore[misc]
            def observe(self, rows: np.ndarray) -> list[np.ndarray]:
                (observation,) = super().observe(rows)
                return [np.concatenate([np.zeros((len(rows), 1)), observation[:, 1:]], axis=1)]

        return Alike

    monkeypatch.setattr(transitions, "any_kind", alike)
    (target,) = resolve(name)
    trial = Trial(target, name)
    if name == "dqn":
        transitions.test_samples_cover_the_buffer(trial)
        transitions.test_samples_are_the_transitions_that_happened(trial, 3, 700)
    else:
        transitions.test_rollout_holds_every_transition_once(trial)
        transitions.test_advantages_are_those_of_gae(trial, 3)
    _, links = transitions._played(trial)
    assert len(links) > 100


def test_rows_are_known_where_the_trainer_normalizes(monkeypatch: pytest.MonkeyPatch) -> None:
    (target,) = resolve("dqn")
    trial = Trial(target, "dqn")
    monkeypatch.setattr(trial.kind, "conformance_settings", {"network_settings": {"normalize": True}})
    transitions.test_samples_are_the_transitions_that_happened(trial, 1, 700)
    assert trial.settings()["network_settings"]["normalize"]
