from __future__ import annotations

from pathlib import Path

import pytest

from mlhooks.cli import main
from mlhooks.testing.checks import policy_gradients, robustness
from mlhooks.testing.collection import OF_TRAINERS, applicable
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.target import resolve
from mlhooks.testing.trainer_trial import Trial
from mlhooks.testing.trainer_types import trainer_types
from mlhooks.testing.varied_loss import VariedLoss
from tests.testing.plugins import ALTERS_PPO, TRAINER, target_of

WRONG = ('": losses["Losses/Policy Loss"]', '": -losses["Losses/Policy Loss"]')


def test_plugin_that_makes_the_optimizer_of_ppo_is_tried_as_ppo(tmp_path: Path) -> None:
    target = target_of(tmp_path, ALTERS_PPO)
    assert list(trainer_types(target)) == ["ppo"]
    assert applicable(target) == ["every_plugin", *OF_TRAINERS]
    optimizer = Trial(target, "ppo").trainer(make_behavior_spec(branches=(2,))).optimizer
    assert type(optimizer).__name__ == "MyOptimizer"


def test_plugin_that_fails_for_a_trainer_type_is_tried_as_that(tmp_path: Path) -> None:
    careless = ALTERS_PPO.replace("if isinstance(trainer, PPOTrainer) else None", "")
    assert sorted(trainer_types(target_of(tmp_path, careless))) == ["a2c", "dqn", "poca", "ppo", "sac"]


def test_plugin_is_tried_as_the_trainer_types_that_it_offers(tmp_path: Path) -> None:
    assert list(trainer_types(target_of(tmp_path, TRAINER))) == ["mine"]
    (ppo,) = resolve("ppo")
    assert list(trainer_types(ppo)) == ["ppo"]


def test_plugin_that_answers_for_nothing_built_in_is_no_trainer(tmp_path: Path) -> None:
    target = target_of(tmp_path, ALTERS_PPO, "isinstance(trainer, PPOTrainer)", "False")
    assert applicable(target) == ["every_plugin"]


def test_wrong_loss_is_caught_and_other_algorithms_are_told_what_to_do(tmp_path: Path) -> None:
    trial = Trial(target_of(tmp_path, ALTERS_PPO, *WRONG), "ppo")
    with pytest.raises(pytest.fail.Exception, match=r"cosine -1.00.*another key, or .* conformance_exempt"):
        policy_gradients.test_policy_loss_has_the_policy_gradient(trial)


def test_hyperparameters_of_another_plugin_need_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.skip.Exception, match="another plugin's"):
        robustness.test_every_hyperparameter_is_read(Trial(target_of(tmp_path, ALTERS_PPO), "ppo"), monkeypatch)


def test_penalty_on_all_logits_is_no_missing_mask(tmp_path: Path) -> None:
    penalty = """losses = super().loss(batch)
        losses["loss"] = losses["loss"] + 0.01 * self.policy.actor(batch.features).logits.square().mean()"""
    trial = Trial(target_of(tmp_path, ALTERS_PPO, "losses = super().loss(batch)", penalty), "ppo")
    policy_gradients.test_forbidden_actions_have_no_gradient(trial)
    losses = (varied := VariedLoss(trial)).optimizer.loss(varied.batch)
    assert losses["loss"] > losses["Losses/Policy Loss"] + 0.5 * losses["Losses/Value Loss"]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "code"), [(("", ""), 0), (WRONG, 1)], ids=["right", "wrong"])
def test_check_tries_it_as_a_trainer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], change: tuple[str, str], code: int
) -> None:
    target_of(tmp_path, ALTERS_PPO, *change)
    assert main(["plugins", "check", str(tmp_path / "mine.py")]) == code
    out = capfd.readouterr().out
    assert ("mine passed the conformance tests of: every plugin, trainers (ppo).\n" in out) == (code == 0)
