"""What is demanded of the loss of a policy-gradient method, on batches whose right gradient is known.

At the policy that acted, the gradient of every such loss is that of -advantage * log-probability, whatever the method
makes of it further away; and a squared value error has the gradient of (value - return)^2, up to a factor. Ratios and
entropies may be those of whole actions, as in the paper, or of each action dimension, as in ML-Agents.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mlhooks.nn.heads import counted_entropies, whole_actions
from mlhooks.settings import AdvantageNormalization
from mlhooks.testing.assertions import demand, fail
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play, parameters
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.batch import Batch
from mlhooks.training.on_policy import OnPolicyTrainer
from mlhooks.training.optimizer import ActorCriticOptimizer, TorchOptimizer
from mlhooks.training.policy import ActorPolicy

POLICY_LOSS, VALUE_LOSS, ENTROPY = "Losses/Policy Loss", "Losses/Value Loss", "Policy/Entropy"


class Hand:
    """A trainer with one rollout, and its optimizer's loss on variations of it.

    Attributes:
        batch: the rollout, as the trainer hands it to its optimizer.
        actor, critic: trainable parameters; the critic's are none without a critic, or where it shares the encoder.
    """

    def __init__(self, trial: Trial, *, normalize: bool = False, **hyperparameters: Any) -> None:
        kinds: dict[str, Any] = {"branches": (3,) if trial.kind.supports.discrete else (), "continuous": 2}
        if not trial.kind.supports.continuous:
            kinds["continuous"] = 0
        env = any_kind(make_behavior_spec((5,), **kinds), masked=bool(kinds["branches"]))(agents=64)
        network = {"normalize": normalize}
        trainer = trial.trainer(env.spec, gamma=0.9, hyperparameters=hyperparameters, network_settings=network)
        if not isinstance(trainer, OnPolicyTrainer) or not isinstance(trainer.policy, ActorPolicy):
            pytest.skip("it is no policy gradient on OnPolicyTrainer and ActorPolicy")
        if not isinstance(trainer.optimizer, TorchOptimizer):
            pytest.skip("its optimizer is no TorchOptimizer")
        self.trainer, self.policy, self.optimizer = trainer, trainer.policy, trainer.optimizer
        self._scatter()
        play = Play(trainer, env)
        if normalize:
            play.updates(1)
        play.until_ready()
        self.optimizer.set_step(0)
        self.batch: Batch = trainer.learning.rollout(trainer.store)
        self.actor = list(self.policy.actor.parameters())
        shared = getattr(trainer.settings.hyperparameters, "shared_critic", False)
        critic = self.optimizer.critic if isinstance(self.optimizer, ActorCriticOptimizer) and not shared else None
        self.critic = [] if critic is None else list(critic.parameters())

    @torch.no_grad()
    def _scatter(self) -> None:
        """Move the policy away from the uniform one with which networks begin: there, much is zero by symmetry."""
        generator = torch.Generator().manual_seed(3)
        for parameter in self.policy.actor.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        self.policy.weights_changed()

    def advantages(self) -> Tensor:
        """As many 1 as -1, in random order: [rows, 1]."""
        signs = torch.ones(len(self.batch), 1)
        signs[: len(signs) // 2] = -1.0
        return signs[torch.randperm(len(signs), generator=torch.Generator().manual_seed(4))]

    def entropies(self) -> list[Tensor]:
        """Return the policy's mean entropy in the batch in each way in which it may be counted.

        These are over whole actions, as ML-Agents does, and over action dimensions.
        """
        _, entropies = self.policy.evaluate(self.batch)
        counted = counted_entropies(entropies, self.policy.behavior_spec.action_spec)
        return [whole_actions(entropies).mean(), counted.mean(), entropies.mean()]

    def loss(self, batch: Batch, name: str) -> Tensor:
        """One of the losses; skips where there is none of that name."""
        losses = self.optimizer.loss(batch)
        if name not in losses:
            pytest.skip(f"its loss() reports no {name!r}")
        if not losses[name].requires_grad:
            fail(f"{name!r} of loss() has no gradient: report it before `detach()`.")
        return losses[name]


def gradient(value: Tensor, of: list[torch.nn.Parameter]) -> Tensor:
    """The gradient with respect to parameters, as one vector; zero where it does not depend on one."""
    parts = torch.autograd.grad(value, of, retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(of, parts, strict=True)])


def cosine(a: Tensor, b: Tensor) -> float:
    """How far two gradients point the same way: 1 the same, -1 the opposite."""
    return float(torch.dot(a, b) / (a.norm() * b.norm()).clamp(min=1e-12))


@pytest.mark.parametrize("normalize", [False, True], ids=["plain", "normalized"])
def test_log_probabilities_of_acting_equal_those_of_learning(trial: Trial, normalize: bool) -> None:
    """The policy gives the actions of a rollout the log-probabilities with which they were drawn."""
    hand = Hand(trial, normalize=normalize)
    worst: list[float] = []
    update = hand.optimizer.update

    def watched(batch: Batch) -> dict[str, Tensor]:
        if not worst:  # with the weights that acted
            with torch.no_grad():
                worst.append(float((hand.policy.evaluate(batch)[0] - batch.log_probs).abs().max()))
        return update(batch)

    hand.optimizer.update = watched  # type: ignore[method-assign]
    hand.policy.inputs.update = lambda _: None  # type: ignore[assignment, method-assign]  # what acted learns
    hand.trainer.update()
    demand(
        worst and worst[0] < 1e-3,
        f"Log-probabilities differ by up to {max(worst, default=0):.3g} between acting and learning, with the same "
        "weights. Are the observations those of the decision, normalized as they were then, the actions those before "
        "clipping, and the mask applied in both?",
    )


def test_policy_loss_has_the_policy_gradient(trial: Trial) -> None:
    """At the policy that acted, the gradient of the policy loss is that of -advantage * log-probability."""
    hand = Hand(trial)
    batch = replace(hand.batch, advantages=hand.advantages())
    log_probs, _ = hand.policy.evaluate(batch)
    expected = gradient(-(log_probs * batch.advantages).mean(), hand.actor)
    similar = cosine(gradient(hand.loss(batch, POLICY_LOSS), hand.actor), expected)
    demand(
        similar > 0.98,
        f"The gradient of {POLICY_LOSS!r} points another way than that of -advantage * log-probability: cosine "
        f"{similar:.2f}, where 1 is right and -1 is a wrong sign. The key promises a policy gradient: an algorithm "
        "that is none reports its loss under another key, or its trainer class names this test in conformance_exempt.",
    )
    total = cosine(gradient(hand.optimizer.loss(batch)["loss"], hand.actor), expected)
    demand(total > 0.9, f"The policy's part of `loss` points another way than its policy loss: cosine {total:.2f}.")


def test_policy_loss_does_not_train_the_critic(trial: Trial) -> None:
    """The policy loss has no gradient for the critic, nor the value loss for the actor: advantages are constants."""
    hand = Hand(trial)
    if not hand.critic:
        pytest.skip("it has no critic of its own")
    # away from the policy that acted, where standardized advantages would cancel one another
    moved = 0.1 * torch.randn(hand.batch.log_probs.shape, generator=torch.Generator().manual_seed(6))
    batch = replace(hand.batch, log_probs=hand.batch.log_probs + moved)
    losses = hand.optimizer.loss(batch)
    for name, others in ((POLICY_LOSS, hand.critic), (VALUE_LOSS, hand.actor)):
        if name not in losses:
            continue
        size = float(gradient(hand.loss(batch, name), others).norm())
        whom = "critic" if name == POLICY_LOSS else "actor"
        demand(size < 1e-6, f"{name!r} has a gradient for the {whom} (norm {size:.2g}): detach advantages and targets.")


def test_value_loss_pulls_values_to_returns(trial: Trial) -> None:
    """The gradient of the value loss is that of the squared distance between values and returns."""
    hand = Hand(trial)
    if not hand.critic:
        pytest.skip("it has no critic of its own")
    assert isinstance(hand.optimizer, ActorCriticOptimizer)
    values = hand.optimizer.values(hand.batch)
    returns = values.detach() + 0.05 * hand.advantages()
    batch = replace(hand.batch, values=values.detach(), returns=returns)
    hand.loss(batch, VALUE_LOSS)  # without it the critic may learn something else, such as quantiles
    expected = gradient((values - returns).square().mean(), hand.critic)
    for name in (VALUE_LOSS, "loss"):
        similar = cosine(gradient(hand.loss(batch, name), hand.critic), expected)
        demand(
            similar > 0.98,
            f"The gradient of {name!r} for the critic points another way than that of (value - return)^2: cosine "
            f"{similar:.2f}. Are `batch.returns` its target, and is it added to `loss` with a positive weight?",
        )
    far = replace(hand.batch, values=values.detach(), returns=values.detach() + 3.0)
    down = gradient(hand.loss(far, "loss"), hand.critic)
    demand(cosine(down, -gradient(values.mean(), hand.critic)) > 0.9, "Values below their returns are not raised.")


def test_estimates_are_the_values_of_learning(trial: Trial) -> None:
    """`estimate(features)`, which advantages come from, gives what `values(batch)` gives losses, without gradients."""
    hand = Hand(trial)
    if not isinstance(hand.optimizer, ActorCriticOptimizer):
        pytest.skip("its optimizer is no ActorCriticOptimizer")
    values, estimates = hand.optimizer.values(hand.batch), hand.optimizer.estimate(hand.batch.features)
    demand(
        tuple(estimates.shape) == tuple(values.shape) == tuple(hand.batch.returns.shape),
        f"estimate(features) has the shape {tuple(estimates.shape)} and values(batch) {tuple(values.shape)}: both are "
        f"[rows, reward signals], here {tuple(hand.batch.returns.shape)}.",
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
            share = _entropy_share(trial, name, schedules, step, right)
            demand(
                abs(share - right) < 0.3,
                f"With {name} 1, gradient descent raises the mean entropy with weight {share:.2f} at step {step:,}, "
                f"and should with weight {right:g}: is the entropy subtracted from the loss, multiplied by {name} at "
                "that step?",
            )


_WEIGHT_OF_ENTROPY = re.compile(r"^ent(ropy)?_(bonus|coef\w*|weight|beta)$")


def _entropy_share(trial: Trial, name: str, schedules: dict[str, str], step: int, right: float) -> float:
    """Return how strongly the loss follows the entropy, as gradients tell, when a hyperparameter rises from 0 to 1."""
    gradients = {}
    for weight in (0.0, 1.0):
        weighted: dict[str, Any] = {name: weight, **schedules}
        hand = Hand(trial, **weighted)
        hand.optimizer.set_step(step)
        gradients[weight] = gradient(hand.optimizer.loss(hand.batch)["loss"], hand.actor)
    found = gradients[0.0] - gradients[1.0]
    rises = [gradient(entropy, hand.actor) for entropy in hand.entropies()]
    # The ways to count entropy may differ by a factor alone, as those of continuous actions do.
    left = [float((found - rise * _share(found, rise)).norm()) for rise in rises]
    alike = [rise for rise, rest in zip(rises, left, strict=True) if rest <= min(left) + 1e-3 * float(found.norm())]
    return min((_share(found, rise) for rise in alike), key=lambda share: abs(share - right))


def _share(found: Tensor, rise: Tensor) -> float:
    return float(torch.dot(found, rise) / rise.square().sum())


def test_reported_entropy_is_the_policys(trial: Trial) -> None:
    """Where loss() reports `Policy/Entropy`, that is the mean entropy of the policy in the batch."""
    hand = Hand(trial)
    losses = hand.optimizer.loss(hand.batch)
    if ENTROPY not in losses:
        pytest.skip(f"its loss() reports no {ENTROPY!r}")
    found, rights = float(losses[ENTROPY].detach()), [float(entropy.detach()) for entropy in hand.entropies()]
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
        hand = Hand(trial, normalize_advantages=normalize)
        plain, scaled = (
            gradient(
                hand.loss(
                    hand.trainer.learning.normalized_advantages(replace(hand.batch, advantages=advantages)), POLICY_LOSS
                ),
                hand.actor,
            )
            for advantages in (hand.batch.advantages, 3.0 * hand.batch.advantages + 1.0)
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
    hand = Hand(trial)
    heads = getattr(hand.policy.actor, "heads", None)
    logits = getattr(heads, "logits", None)
    if not isinstance(logits, torch.nn.Linear) or hand.batch.mask is None:
        pytest.skip("its actor has no linear layer heads.logits")
    rows = torch.nonzero(hand.batch.mask[:, 0]).flatten()
    losses = hand.optimizer.loss(hand.batch[rows])
    parts = [name for name in (POLICY_LOSS, ENTROPY) if name in losses and losses[name].requires_grad]
    for name in parts if len(parts) == 2 else ["loss"]:  # a penalty on all logits is no fault
        (found,) = torch.autograd.grad(losses[name], [logits.bias], retain_graph=True)
        demand(
            float(found[0].abs()) < 1e-6 < float(found[1:].abs().max()),
            f"Where action 0 is forbidden, {name!r} of loss() has a gradient of {float(found[0]):.2g} for its logit: "
            "give `batch.mask` to the distributions, for log-probabilities and entropies.",
        )


class Ratios:
    """Probability ratios on both sides of what is clipped, for whole actions or for each action dimension.

    Args:
        hand: a trainer that has `epsilon`.
        of_whole_actions: whether a ratio is that of a whole action, so that each dimension has a root of it.
    """

    def __init__(self, hand: Hand, *, of_whole_actions: bool) -> None:
        self.hand, self.advantages = hand, hand.advantages()
        self.log_probs, _ = hand.policy.evaluate(hand.batch)
        self.root = self.log_probs.shape[1] if of_whole_actions else 1

    def gradient(self, ratio: float, chosen: Tensor) -> Tensor:
        """Return the gradient of the policy loss where some rows [rows, 1] have a ratio, and all others the ratio 1."""
        now = self.log_probs.detach()
        moved = torch.where(chosen, now - math.log(ratio) / self.root, now)
        batch = replace(self.hand.batch, advantages=self.advantages, log_probs=moved)
        return gradient(self.hand.loss(batch, POLICY_LOSS), self.hand.actor)

    def unclipped(self, chosen: Tensor, like: Tensor) -> Tensor:
        """Return the gradient of some rows at ratio 1, of the size that it has in the gradient of all rows."""
        whole = gradient(-(self.log_probs * self.advantages).mean(), self.hand.actor)
        scale = _share(like, whole)
        return scale * gradient(-(self.log_probs * self.advantages * chosen).mean(), self.hand.actor)

    def problem(self) -> str | None:
        """Say what is wrong on one of the sides; None where all is right."""
        at_one = self.gradient(1.0, self.advantages > 0)
        for ratio, sign, stops in ((2.0, 1, True), (0.5, -1, True), (0.5, 1, False), (2.0, -1, False)):
            chosen = self.advantages == sign
            others, pushed = self.unclipped(~chosen, at_one), self.unclipped(chosen, at_one)
            found = self.gradient(ratio, chosen) - others
            where = f"Where the probability ratio is {ratio} and the advantage {'positive' if sign > 0 else 'negative'}"
            if stops and float(found.norm() / pushed.norm()) >= 0.1:
                return f"{where}, the policy loss must have no gradient (Schulman et al. 2017, equation 7)."
            if not stops and cosine(found, pushed) <= 0.9:
                return f"{where}, the policy loss must push back (equation 7)."
        return None


def test_clips_the_ratio_on_both_sides(trial: Trial) -> None:
    """With `epsilon`, an action that has become too likely is not pushed further, nor one that is too unlikely."""
    if not trial.has("epsilon"):
        pytest.skip("it has no hyperparameter epsilon, with which PPO clips the ratio")
    for joint in joint_or_not(trial):
        hand = Hand(trial, epsilon=0.2, **joint)
        problems = [Ratios(hand, of_whole_actions=whole).problem() for whole in (False, True)]
        demand(None in problems, str(problems[0]))


def joint_or_not(trial: Trial) -> list[dict[str, Any]]:
    """Return the values of `joint_actions` to try, where it has such a hyperparameter."""
    return [{"joint_actions": joint} for joint in (False, True)] if trial.has("joint_actions") else [{}]


def test_clipping_follows_its_schedule(trial: Trial) -> None:
    """With a linear epsilon_schedule the ratio is clipped at 1.2 in the beginning, and at 1.1 in the end."""
    if not trial.has("epsilon", "epsilon_schedule"):
        pytest.skip("it has no hyperparameters epsilon and epsilon_schedule")
    for joint in joint_or_not(trial):
        hand = Hand(trial, epsilon=0.2, epsilon_schedule="linear", **joint)
        problems = [_schedule_problem(trial, hand, of_whole_actions=whole) for whole in (False, True)]
        demand(None in problems, str(problems[0]))


def _schedule_problem(trial: Trial, hand: Hand, *, of_whole_actions: bool) -> str | None:
    ratios = Ratios(hand, of_whole_actions=of_whole_actions)
    better = ratios.advantages > 0
    hand.optimizer.set_step(trial.budget)
    others = ratios.unclipped(~better, ratios.gradient(1.0, better))
    end = ratios.gradient(1.15, better)
    if cosine(end, others) <= 0.98 or float((end - others).norm()) >= 0.1 * float(others.norm()):
        return "At max_steps a ratio of 1.15 is not clipped, though a linear epsilon_schedule has come to 0.1 by then."
    hand.optimizer.set_step(0)
    start = ratios.gradient(1.15, better)
    if float((start - others).norm()) <= 0.1 * float(start.norm()):
        return "At step 0 a ratio of 1.15 is clipped, though epsilon is 0.2."
    return None


def test_clips_value_estimates(trial: Trial) -> None:
    """With `value_clipping`, an estimate that has moved by more than epsilon is moved no further, and may come back."""
    if not trial.has("epsilon", "value_clipping"):
        pytest.skip("it has no hyperparameters epsilon and value_clipping")
    hand = Hand(trial, epsilon=0.2, value_clipping=True)
    if not hand.critic:
        pytest.skip("it has no critic of its own")
    assert isinstance(hand.optimizer, ActorCriticOptimizer)
    values = hand.optimizer.values(hand.batch).detach()
    for target, stops in ((values + 3.0, True), (values - 1.0, False)):
        batch = replace(hand.batch, values=values - 1.0, returns=target)
        size = float(gradient(hand.loss(batch, VALUE_LOSS), hand.critic).norm())
        where = "further away" if stops else "back"
        demand((size < 1e-6) == stops, f"An estimate that has moved by 1 has a value gradient of {size:.2g} {where}.")


def test_update_moves_the_policy_towards_what_was_good(trial: Trial) -> None:
    """One update makes actions with positive advantage more likely, and those with negative advantage less."""
    hand = Hand(trial)
    batch = replace(hand.batch, advantages=hand.advantages())
    with torch.no_grad():
        before, _ = hand.policy.evaluate(batch)
    hand.optimizer.update(batch)
    with torch.no_grad():
        after, _ = hand.policy.evaluate(batch)
    change = float(((after - before) * batch.advantages).mean())
    demand(change > 0, f"An update changes the mean of log-probability * advantage by {change:.2g}; it must rise.")
    demand(all(bool(p.isfinite().all()) for p in parameters(hand.trainer).values()), "Parameters became NaN.")
