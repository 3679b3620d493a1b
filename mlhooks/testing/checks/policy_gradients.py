"""Checks of the loss of a policy-gradient method, on batches whose right gradient is known.

At the policy that acted, the gradient of every such loss is that of -advantage * log-probability, whatever the method
makes of it further away; and a squared value error has the gradient of (value - return)^2, up to a factor. Ratios and
entropies may be those of whole actions, as in the paper, or of each action dimension, as in ML-Agents.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mlhooks.settings import AdvantageNormalization
from mlhooks.testing.assertions import demand
from mlhooks.testing.trainer_loop import parameters
from mlhooks.testing.trainer_trial import Trial
from mlhooks.testing.varied_loss import VariedLoss, cosine, gradient, share
from mlhooks.training.batch import Batch
from mlhooks.training.optimizer import ActorCriticOptimizer

POLICY_LOSS, VALUE_LOSS, ENTROPY = "Losses/Policy Loss", "Losses/Value Loss", "Policy/Entropy"
BASELINE_LOSS = "Losses/Baseline Loss"
"""The name of the value loss in REINFORCE with a baseline."""


@pytest.mark.parametrize("normalize", [False, True], ids=["plain", "normalized"])
def test_log_probabilities_of_acting_equal_those_of_learning(trial: Trial, normalize: bool) -> None:
    """The policy gives the actions of a rollout the log-probabilities with which they were drawn."""
    varied = VariedLoss(trial, normalize=normalize)
    worst: list[float] = []
    update = varied.optimizer.update

    def watched(batch: Batch) -> dict[str, Tensor]:
        if not worst:  # The weights are those that acted.
            with torch.no_grad():
                worst.append(float((varied.policy.evaluate(batch)[0] - batch.log_probs).abs().max()))
        return update(batch)

    varied.optimizer.update = watched  # type: ignore[method-assign]
    varied.policy.inputs.update = lambda _: None  # type: ignore[assignment, method-assign]  # What acted learns.
    varied.trainer.update()
    demand(
        worst and worst[0] < 1e-3,
        f"Log-probabilities differ by up to {max(worst, default=0):.3g} between acting and learning, with the same "
        "weights. Are the observations those of the decision, normalized as they were then, the actions those before "
        "clipping, and the mask applied in both?",
    )


def test_policy_loss_has_the_policy_gradient(trial: Trial) -> None:
    """At the policy that acted, the gradient of the policy loss is that of -advantage * log-probability."""
    varied = VariedLoss(trial)
    batch = replace(varied.batch, advantages=varied.advantages())
    log_probs, _ = varied.policy.evaluate(batch)
    expected = gradient(-(log_probs * batch.advantages).mean(), varied.actor)
    similar = cosine(gradient(varied.loss(batch, POLICY_LOSS), varied.actor), expected)
    demand(
        similar > 0.98,
        f"The gradient of {POLICY_LOSS!r} points another way than that of -advantage * log-probability: cosine "
        f"{similar:.2f}, where 1 is right and -1 is a wrong sign. The key promises a policy gradient: an algorithm "
        "that is none reports its loss under another key, or its trainer class names this test in conformance_exempt.",
    )
    total = cosine(gradient(varied.optimizer.loss(batch)["loss"], varied.actor), expected)
    demand(total > 0.9, f"The policy's part of `loss` points another way than its policy loss: cosine {total:.2f}.")


def test_policy_loss_does_not_train_the_critic(trial: Trial) -> None:
    """The policy loss has no gradient for the critic, nor the value loss for the actor: advantages are constants."""
    varied = VariedLoss(trial)
    if not varied.critic:
        pytest.skip("it has no critic of its own")
    # At the policy that acted, standardized advantages would cancel one another.
    moved = 0.1 * torch.randn(varied.batch.log_probs.shape, generator=torch.Generator().manual_seed(6))
    batch = replace(varied.batch, log_probs=varied.batch.log_probs + moved)
    losses = varied.optimizer.loss(batch)
    for name, others in ((POLICY_LOSS, varied.critic), (VALUE_LOSS, varied.actor)):
        if name not in losses:
            continue
        size = float(gradient(varied.loss(batch, name), others).norm())
        whom = "critic" if name == POLICY_LOSS else "actor"
        demand(size < 1e-6, f"{name!r} has a gradient for the {whom} (norm {size:.2g}): detach advantages and targets.")


def test_value_loss_pulls_values_to_returns(trial: Trial) -> None:
    """The gradient of the value loss is that of the squared distance between values and returns."""
    varied = VariedLoss(trial)
    if not varied.critic:
        pytest.skip("it has no critic of its own")
    assert isinstance(varied.optimizer, ActorCriticOptimizer)
    values = varied.optimizer.values(varied.batch)
    returns = values.detach() + 0.05 * varied.advantages()
    batch = replace(varied.batch, values=values.detach(), returns=returns)
    reported = varied.optimizer.loss(batch).keys()
    own = next((name for name in (VALUE_LOSS, BASELINE_LOSS) if name in reported), VALUE_LOSS)
    varied.loss(batch, own)  # Without it the critic may learn something else, such as quantiles.
    expected = gradient((values - returns).square().mean(), varied.critic)
    for name in (own, "loss"):
        similar = cosine(gradient(varied.loss(batch, name), varied.critic), expected)
        demand(
            similar > 0.98,
            f"The gradient of {name!r} for the critic points another way than that of (value - return)^2: cosine "
            f"{similar:.2f}. Are `batch.returns` its target, and is it added to `loss` with a positive weight?",
        )
    far = replace(varied.batch, values=values.detach(), returns=values.detach() + 3.0)
    down = gradient(varied.loss(far, "loss"), varied.critic)
    demand(cosine(down, -gradient(values.mean(), varied.critic)) > 0.9, "Values below their returns are not raised.")


def test_estimates_are_the_values_of_learning(trial: Trial) -> None:
    """`estimate(features)`, which advantages come from, gives what `values(batch)` gives losses, without gradients."""
    varied = VariedLoss(trial)
    if not isinstance(varied.optimizer, ActorCriticOptimizer):
        pytest.skip("its optimizer is no ActorCriticOptimizer")
    values, estimates = varied.optimizer.values(varied.batch), varied.optimizer.estimate(varied.batch.features)
    demand(
        tuple(estimates.shape) == tuple(values.shape) == tuple(varied.batch.returns.shape),
        f"estimate(features) has the shape {tuple(estimates.shape)} and values(batch) {tuple(values.shape)}: both are "
        f"[rows, reward signals], here {tuple(varied.batch.returns.shape)}.",
    )
    worst = float((values.detach() - estimates.detach()).abs().max())
    demand(worst < 1e-4, f"values(batch) and estimate(features) differ by up to {worst:.3g}: override both or none.")
    demand(values.requires_grad, "values(batch) has no gradient, so that no loss can train the critic by it.")
    demand(not estimates.requires_grad, "estimate(features) has a gradient: advantages and returns are constants.")


def test_entropy_bonus_raises_the_entropy(trial: Trial) -> None:
    """With `beta`, or a weight that has entropy in its name, the loss falls where the policy's entropy rises, by it."""
    weights = [name for name in trial.model.model_fields if name == "beta" or _WEIGHT_OF_ENTROPY.search(name)]
    if not weights:
        pytest.skip("it has no hyperparameter beta, entropy_bonus or the like")
    for name in weights:
        schedules = {f"{name}_schedule": "linear"} if trial.has(f"{name}_schedule") else {}
        for step, right in ((0, 1.0), (trial.budget, 0.0)) if schedules else ((0, 1.0),):
            share = _entropyshare(trial, name, schedules, step, right)
            demand(
                abs(share - right) < 0.3,
                f"With {name} 1, gradient descent raises the mean entropy with weight {share:.2f} at step {step:,}, "
                f"and should with weight {right:g}: is the entropy subtracted from the loss, multiplied by {name} at "
                "that step?",
            )


_WEIGHT_OF_ENTROPY = re.compile(r"^ent(ropy)?_(bonus|coef\w*|weight|beta)$")


def _entropyshare(trial: Trial, name: str, schedules: dict[str, str], step: int, right: float) -> float:
    """Return how strongly the loss follows the entropy, as gradients tell, when a hyperparameter rises from 0 to 1."""
    gradients = {}
    for weight in (0.0, 1.0):
        weighted: dict[str, Any] = {name: weight, **schedules}
        varied = VariedLoss(trial, **weighted)
        varied.optimizer.set_step(step)
        gradients[weight] = gradient(varied.optimizer.loss(varied.batch)["loss"], varied.actor)
    found = gradients[0.0] - gradients[1.0]
    rises = [gradient(entropy, varied.actor) for entropy in varied.entropies()]
    # The ways to count entropy may differ by a factor alone, as those of continuous actions do.
    left = [float((found - rise * share(found, rise)).norm()) for rise in rises]
    alike = [rise for rise, rest in zip(rises, left, strict=True) if rest <= min(left) + 1e-3 * float(found.norm())]
    return min((share(found, rise) for rise in alike), key=lambda share: abs(share - right))


def test_reported_entropy_is_the_policys(trial: Trial) -> None:
    """Where loss() reports `Policy/Entropy`, that is the mean entropy of the policy in the batch."""
    varied = VariedLoss(trial)
    losses = varied.optimizer.loss(varied.batch)
    if ENTROPY not in losses:
        pytest.skip(f"its loss() reports no {ENTROPY!r}")
    found, rights = float(losses[ENTROPY].detach()), [float(entropy.detach()) for entropy in varied.entropies()]
    demand(
        any(abs(found - right) < 0.01 * abs(right) + 1e-4 for right in rights),
        f"{ENTROPY!r} is {found:.4f}, and the entropy of whole actions {rights[0]:.4f}.",
    )


def test_advantages_are_scaled_as_told(trial: Trial) -> None:
    """With `normalize_advantages` the policy loss does not depend on their scale and mean; without, it does."""
    if not trial.has("normalize_advantages"):
        pytest.skip("it has no hyperparameter normalize_advantages")
    kind = trial.model.model_fields["normalize_advantages"].annotation
    choices: tuple[Any, ...] = ("rollout", "minibatch", "none") if kind is AdvantageNormalization else (True, False)
    for normalize in choices:
        varied = VariedLoss(trial, normalize_advantages=normalize)
        batch, prepared = varied.batch, varied.trainer.learning.normalized_advantages
        plain, scaled = (
            gradient(varied.loss(prepared(replace(batch, advantages=advantages)), POLICY_LOSS), varied.actor)
            for advantages in (batch.advantages, 3.0 * batch.advantages + 1.0)
        )
        same = float((scaled - plain).norm()) < 0.05 * float(plain.norm())
        demand(
            same == (normalize not in (False, "none")),
            f"With normalize_advantages {normalize}, the gradient of the policy loss {'stays' if same else 'changes'} "
            "when advantages are multiplied and shifted.",
        )


def test_forbidden_actions_have_no_gradient(trial: Trial) -> None:
    """The loss does not depend on the logits of actions that the mask forbids in every row."""
    if not trial.kind.supports.discrete:
        pytest.skip("it takes no discrete actions, so there are no masks")
    varied = VariedLoss(trial)
    heads = getattr(varied.policy.actor, "heads", None)
    logits = getattr(heads, "logits", None)
    if not isinstance(logits, torch.nn.Linear) or varied.batch.mask is None:
        pytest.skip("its actor has no linear layer heads.logits")
    rows = torch.nonzero(varied.batch.mask[:, 0]).flatten()
    losses = varied.optimizer.loss(varied.batch[rows])
    parts = [name for name in (POLICY_LOSS, ENTROPY) if name in losses and losses[name].requires_grad]
    for name in parts if len(parts) == 2 else ["loss"]:  # A penalty on all logits is no fault.
        (found,) = torch.autograd.grad(losses[name], [logits.bias], retain_graph=True)
        demand(
            float(found[0].abs()) < 1e-6 < float(found[1:].abs().max()),
            f"Where action 0 is forbidden, {name!r} of loss() has a gradient of {float(found[0]):.2g} for its logit: "
            "give `batch.mask` to the distributions, for log-probabilities and entropies.",
        )


def test_update_moves_the_policy_towards_what_was_good(trial: Trial) -> None:
    """One update makes actions with positive advantage more likely, and those with negative advantage less."""
    varied = VariedLoss(trial)
    batch = replace(varied.batch, advantages=varied.advantages())
    with torch.no_grad():
        before, _ = varied.policy.evaluate(batch)
    varied.optimizer.update(batch)
    with torch.no_grad():
        after, _ = varied.policy.evaluate(batch)
    change = float(((after - before) * batch.advantages).mean())
    demand(change > 0, f"An update changes the mean of log-probability * advantage by {change:.2g}; it must rise.")
    demand(all(bool(p.isfinite().all()) for p in parameters(varied.trainer).values()), "Parameters became NaN.")
