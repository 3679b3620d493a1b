from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, TanhTransform

from builtin_plugins.sac import SACOptimizer
from mlhooks.plugins import load_plugins
from mlhooks.testing.extra_reward_signals import MoreSignals
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play, make_trainer
from mlhooks.training.batch import Batch

KINDS: Mapping[str, Mapping[str, Any]] = {
    "continuous": {"continuous": 2},
    "one branch": {"branches": (3,)},
    "branches": {"branches": (3, 2)},
    "hybrid": {"continuous": 2, "branches": (2, 4)},
}
TWO_SIGNALS = {"extrinsic": {"gamma": 0.9, "strength": 1.0}, "size": {"gamma": 0.8, "strength": 0.5}}
ONE_SIGNAL = {"extrinsic": {"gamma": 0.9}}


def made(
    kind: str = "continuous",
    *,
    signals: Mapping[str, Any] = ONE_SIGNAL,
    shapes: tuple[Any, ...] = (4,),
    masked: bool = False,
    network: Mapping[str, Any] | None = None,
    **hyperparameters: Any,
) -> Any:
    """Return a trainer that has seen 300 steps of random observations and rewards, and learned nothing yet."""
    spec = make_behavior_spec(shapes, **KINDS[kind])
    settings = {
        "trainer_type": "sac",
        "hyperparameters": {"batch_size": 32, "buffer_size": 1000, "init_entcoef": 0.5, "tau": 0.1, **hyperparameters},
        "network_settings": {"hidden_units": 16, "num_layers": 2, **(network or {})},
        "reward_signals": dict(signals),
        "max_steps": 10_000,
    }
    plugins = load_plugins(autoload=False)
    plugins.register(MoreSignals())
    trainer = make_trainer(plugins, spec, settings, seed=3)
    play = Play(trainer, any_kind(spec, masked=masked)(agents=8, seed=3), learning=True)
    trainer.learning.ready = lambda *_: False  # type: ignore[method-assign]
    play.until(300)
    del trainer.learning.ready
    with torch.no_grad():  # Away from the first weights, at which much is zero by symmetry.
        generator = torch.Generator().manual_seed(1)
        for module in trainer.modules().values():
            for parameter in module.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    trainer.policy.weights_changed()
    return trainer


def optimizer_of(trainer: Any) -> SACOptimizer:
    assert isinstance(trainer.optimizer, SACOptimizer)
    return trainer.optimizer


# What ML-Agents and the papers say, written again with torch's distributions


def decisions_by_torch(o: SACOptimizer, features: Tensor, mask: Tensor | None, noise: Tensor) -> Any:
    """Return actions, their log-probabilities, and the distributions of branches."""
    p = o.policy.actor(features)
    found = SimpleNamespace(action=None, log_prob=None, branches=[])
    if p.mean is not None:
        normal, tanh = Normal(p.mean, p.log_std.exp()), TanhTransform()
        x = p.mean + p.log_std.exp() * noise
        found.action = tanh(x)
        found.log_prob = (normal.log_prob(x) - tanh.log_abs_det_jacobian(x, found.action)).sum(1)
    for columns in o.branches:
        logits = p.logits[:, columns]
        if mask is not None:
            logits = torch.where(mask[:, columns], torch.full_like(logits, -1e8), logits)
        found.branches.append(Categorical(logits=logits))
    return found


def soft_value(o: SACOptimizer, q1: Tensor, q2: Tensor, d: Any, k: int) -> Tensor:
    """Return the value [rows] of states for signal k."""
    alphas = o.coefficients
    if not d.branches:
        value = torch.min(q1[:, k], q2[:, k])
    else:
        means = []
        for q in (q1, q2):
            parts = [
                (branch.probs * q[:, k * o.choices + c.start : k * o.choices + c.stop]).sum(1)
                for branch, c in zip(d.branches, o.branches, strict=True)
            ]
            means.append(torch.stack(parts).mean(0))
        value = torch.min(*means)
        entropies = [alphas.log_discrete[i].exp() * branch.entropy() for i, branch in enumerate(d.branches)]
        value = value + torch.stack(entropies).mean(0)
    return value if d.log_prob is None else value - alphas.log_continuous.exp() * d.log_prob


def losses_by_torch(o: SACOptimizer, batch: Batch) -> dict[str, Tensor]:
    """Return the losses of policy, critics and entropy coefficients, each for parameters of its own."""
    generator = torch.Generator().manual_seed(o.noise_seed + o.updates)
    noise = torch.randn((1 if o.critic else 2, len(batch), o.size), generator=generator)
    signals, alphas = range(len(o.signals)), o.coefficients
    actions = batch.continuous if o.size else None
    d = decisions_by_torch(o, batch.features, batch.mask, noise[0])
    all_q = [q(batch.features, actions=actions) for q in (o.q1, o.q2)]
    q_now = [q(batch.features, actions=d.action) for q in (o.q1, o.q2)]
    with torch.no_grad():
        if o.critic is None:
            following = decisions_by_torch(o, batch.next_features, batch.next_mask, noise[1])
            q_next = [q(batch.next_features, actions=following.action) for q in o.target]
            after = torch.stack([soft_value(o, *q_next, following, k) for k in signals], 1)
        else:
            after = o.target(batch.next_features)
        targets = batch.signal_rewards + batch.discounts * after
    q_losses = []
    for q in all_q:
        parts = []
        for k in signals:
            taken = q[:, k]
            if o.branches:
                each = [q[torch.arange(len(q)), k * o.choices + c.start + batch.discrete[:, i]] for i, c in
                        enumerate(o.branches)]  # fmt: skip
                taken = torch.stack(each).mean(0)
            parts.append(0.5 * (targets[:, k] - taken).square().mean())
        q_losses.append(torch.stack(parts).mean())
    losses = {"Losses/Q1 Loss": q_losses[0], "Losses/Q2 Loss": q_losses[1]}
    if o.critic is not None:
        values = o.critic(batch.features)
        with torch.no_grad():
            wanted = [soft_value(o, *q_now, d, k) for k in signals]
        parts = [0.5 * (values[:, k] - wanted[k]).square().mean() for k in signals]
        losses["Losses/Value Loss"] = torch.stack(parts).mean()
    judged = q_now[0] if o.critic is not None else torch.min(*q_now)
    judged = torch.stack([judged[:, k * o.choices : (k + 1) * o.choices] for k in signals]).mean(0)
    cost = torch.zeros(len(batch))
    worth = judged[:, 0]
    if d.branches:
        worth = torch.zeros(len(batch))
        for branch, c in zip(d.branches, o.branches, strict=True):
            worth = worth + (branch.probs * judged[:, c]).sum(1)
        for i, branch in enumerate(d.branches):
            cost = cost - alphas.log_discrete[i].detach().exp() * branch.entropy()
        cost = cost - worth
    if d.log_prob is not None:
        cost = cost + alphas.log_continuous.detach().exp() * d.log_prob - worth
    losses["Losses/Policy Loss"] = cost.mean()
    entropy_loss = torch.zeros(())
    if d.log_prob is not None:
        entropy_loss = entropy_loss - (alphas.log_continuous * (d.log_prob.detach() - o.size)).mean()
    if d.branches:
        each = [
            alphas.log_discrete[i] * (0.2 * math.log(branch.logits.shape[1]) - branch.entropy().detach())
            for i, branch in enumerate(d.branches)
        ]
        entropy_loss = entropy_loss - torch.stack(each).mean(0).mean()
    losses["entropy"] = entropy_loss
    return losses


def trained_by(o: SACOptimizer) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of each of ML-Agents' three torch optimizers, by the losses that they lower."""
    critics = [o.q1, o.q2, *([] if o.critic is None else [o.critic])]
    return {
        "policy": list(o.policy.actor.parameters()),
        "value": [p for critic in critics for p in critic.parameters()],
        "entropy": list(o.coefficients.parameters()),
    }


def grouped(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    of_critics = [loss for name, loss in losses.items() if name not in ("Losses/Policy Loss", "entropy")]
    return {
        "policy": losses["Losses/Policy Loss"],
        "value": sum(of_critics, torch.zeros(())),
        "entropy": losses["entropy"],
    }


CASES = [
    (kind, signals, twin, masked)
    for kind in KINDS
    for signals, twin, masked in ((ONE_SIGNAL, False, False), (TWO_SIGNALS, False, True), (TWO_SIGNALS, True, True))
]


@pytest.mark.parametrize(("kind", "signals", "twin", "masked"), CASES)
def test_losses_and_gradients_are_those_of_ml_agents_three_optimizers(
    kind: str, signals: Any, twin: bool, masked: bool
) -> None:
    trainer = made(kind, signals=signals, twin_targets=twin, masked=masked and "branches" in KINDS[kind])
    o, batch = optimizer_of(trainer), trainer.learning.sample(trainer.store, 32)
    expected = losses_by_torch(o, batch)
    gradients = {
        parameter: gradient
        for name, parameters in trained_by(o).items()
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(grouped(expected)[name], parameters, retain_graph=True), strict=True
        )
    }
    o.torch_optimizer.step, o.tau = lambda: None, 0.0  # type: ignore[method-assign]
    for _ in range(2):  # The first update is checked on tensors, too.
        found = o.update(batch)
        for name in expected.keys() - {"entropy"}:
            assert float(found[name]) == pytest.approx(float(expected[name].detach()), rel=1e-5, abs=1e-6)
        for parameter in o.flat:
            torch.testing.assert_close(parameter.grad, gradients[parameter], rtol=2e-4, atol=2e-6)
        o.updates -= 1
    assert gradients.keys() == set(o.flat)


@pytest.mark.parametrize("kind", ["continuous", "hybrid"])
@pytest.mark.parametrize("twin", [False, True])
def test_one_step_is_the_three_steps_of_ml_agents(kind: str, twin: bool) -> None:
    """Twenty updates end with the weights of three torch Adams, and the target follows the weights after each step."""
    trainer = made(kind, signals=TWO_SIGNALS, twin_targets=twin, learning_rate=0.003)
    ours = optimizer_of(trainer)
    theirs = copy.copy(ours)
    for name in ("q1", "q2", "critic", "target", "coefficients"):
        setattr(theirs, name, copy.deepcopy(getattr(ours, name)))
    theirs.policy = copy.copy(ours.policy)
    theirs.policy.actor = copy.deepcopy(ours.policy.actor)
    parameters = trained_by(theirs)
    adams = {name: torch.optim.Adam(group, lr=0.003) for name, group in parameters.items()}
    for _ in range(20):
        batch = trainer.learning.sample(trainer.store, 32)
        ours.update(batch)
        losses = grouped(losses_by_torch(theirs, batch))
        theirs.updates += 1
        for name, group in parameters.items():
            gradients = torch.autograd.grad(losses[name], group, retain_graph=True)
            for parameter, gradient in zip(group, gradients, strict=True):
                parameter.grad = gradient
        for adam in adams.values():
            adam.step()
        followed = [theirs.q1, theirs.q2] if theirs.critic is None else [theirs.critic]
        online = [p for network in followed for p in network.parameters()]
        for target, source in zip(theirs.target.parameters(), online, strict=True):
            target.data += 0.1 * (source.data - target.data)
    for mine, other in zip(ours.flat, (p for group in trained_by_order(theirs, ours) for p in group), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=2e-5)
    for mine, other in zip(ours.target.parameters(), theirs.target.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=2e-5)


def trained_by_order(theirs: SACOptimizer, ours: SACOptimizer) -> list[list[nn.Parameter]]:
    """Return the parameters of one optimizer in the order in which the other's lie in one piece."""
    modules = {"actor": theirs.policy.actor, **{name: getattr(theirs, name) for name in ours.modules()}}
    names = [name for name in ours.parts() if name in modules and name != "target"]
    return [list(modules[name].parameters()) for name in names]


def test_target_of_a_copy_follows_the_networks_of_the_copy() -> None:
    trainer = made()
    first, batch = optimizer_of(trainer), trainer.learning.sample(trainer.store, 32)
    first.update(batch)
    other = copy.deepcopy(first)
    before = [p.clone() for p in other.target.parameters()]
    other.update(batch)
    for old, new, online in zip(before, other.target.parameters(), other.followed.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1 * (online - old))
        assert not new.equal(old)
