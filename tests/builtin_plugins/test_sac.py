from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, TanhTransform

from builtin_plugins.sac import ENTROPY_SHARE, SACOptimizer, SACSettings, SACTrainer
from mlhooks.errors import SettingsError
from mlhooks.nn.heads import ActionHeads, probabilities, squashed
from mlhooks.plugins import load_plugins
from mlhooks.settings import SettingsRegistry, load_run_options
from mlhooks.settings.base import is_extension
from mlhooks.testing.checks.learning import learns
from mlhooks.testing.extra_reward_signals import MoreSignals
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.target import resolve
from mlhooks.testing.tasks import Masked, any_kind
from mlhooks.testing.trainer_loop import Play, make_trainer
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.batch import Batch
from mlhooks.training.squashed_policy import Decisions, SquashedPolicy
from tests.scripted import config, train

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


# Values by hand


def test_squashed_actions_by_hand() -> None:
    one = torch.ones(1, 1)
    action, log_prob = squashed(0.0 * one, 0.0 * one, one)
    assert action.item() == pytest.approx(0.76159, abs=1e-5)  # This is tanh(1).
    # It is that of N(0, 1) at 1, less log(1 - a^2).
    assert log_prob.item() == pytest.approx(-1.41894 + 0.86756, abs=1e-5)
    _, far = squashed(30.0 * one, 0.0 * one, one)  # 1 - a^2 is 0 in float32
    assert far.item() == pytest.approx(-1.41894 - 2 * (math.log(2) - 31), abs=1e-4)


def test_squashed_actions_have_the_gradients_of_torchs_distributions() -> None:
    mean, log_std, noise = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0)).unbind()
    inputs = [mean.requires_grad_(), log_std.requires_grad_()]
    x = mean + log_std.exp() * noise
    action = torch.tanh(x)
    log_prob = Normal(mean, log_std.exp()).log_prob(x) - TanhTransform().log_abs_det_jacobian(x, action)
    wanted = torch.autograd.grad((action * 3 + log_prob.square()).sum(), inputs)
    found_action, found_log_prob = squashed(mean, log_std, noise)
    found = torch.autograd.grad((found_action * 3 + found_log_prob.square()).sum(), inputs)
    torch.testing.assert_close([found_action, found_log_prob], [action, log_prob])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("output", "bounded"), [(3.0, 2.0), (-25.0, -20.0), (1.5, 1.5)])
def test_deviations_are_bounded(output: float, bounded: float) -> None:
    heads = ActionHeads(4, make_behavior_spec((4,), continuous=1).action_spec, "lecun_normal", conditional=True)
    parameters = heads.parameters_of([torch.zeros(2, 1), torch.full((2, 1), output)])
    assert parameters.log_std is not None
    assert parameters.log_std.tolist() == [[bounded]] * 2
    of_arrays = heads.from_outputs([np.zeros((2, 1), np.float32), np.full((2, 1), output, np.float32)])[1]
    assert of_arrays is not None
    assert of_arrays.tolist() == [[bounded]] * 2


def test_both_heads_of_the_gaussian_begin_as_in_ml_agents() -> None:
    torch.manual_seed(0)
    heads = ActionHeads(400, make_behavior_spec((4,), continuous=50).action_spec, "lecun_normal", conditional=True)
    for head in heads.linear():
        assert float(head.weight.detach().std()) == pytest.approx(0.2 / 20, rel=0.05)
        assert not head.bias.any()
    assert len(heads.linear()) == 2


def of_continuous(log_prob: float, action: float = 0.0) -> Decisions:
    return Decisions(torch.tensor([[action]]), torch.tensor([[log_prob]]), [], [], torch.zeros(1, 1))


def of_choices(*branches: tuple[float, ...]) -> Decisions:
    found = [probabilities(torch.tensor([branch]).clamp(min=1e-30).log()) for branch in branches]
    return Decisions(None, None, [p for p, _ in found], [entropy for _, entropy in found], None)


def hand(kind: str, signals: Mapping[str, Any] = ONE_SIGNAL, **hyperparameters: Any) -> SACOptimizer:
    return optimizer_of(made(kind, signals=signals, **hyperparameters))


def row(**columns: Any) -> Batch:
    return Batch(
        features=torch.zeros(1, 4), **{"continuous": torch.zeros(1, 0), "discrete": torch.zeros(1, 0).long()} | columns
    )


def test_values_of_continuous_actions_by_hand() -> None:
    o, d = hand("continuous"), of_continuous(-1.2)
    assert o.soft_values(torch.tensor([[1.0]]), torch.tensor([[0.8]]), d, (0.5, [])).item() == pytest.approx(1.4)
    assert o.cost(torch.tensor([[1.0]]), d, (0.5, [])).item() == pytest.approx(0.5 * -1.2 - 1.0)


@pytest.mark.parametrize(("discount", "target"), [(0.9, 2.8), (0.0, 1.0)])
def test_targets_of_action_values_by_hand(discount: float, target: float) -> None:
    o = hand("continuous")
    o.target = lambda features, *_: torch.full((len(features), 1), 2.0)
    batch = row(
        signal_rewards=torch.ones(1, 1), discounts=torch.full((1, 1), discount), next_features=torch.zeros(1, 4)
    )
    assert o.targets(batch).item() == pytest.approx(target)


def test_signal_that_ignores_ends_bootstraps_where_others_do_not() -> None:
    o = hand("continuous", TWO_SIGNALS)
    o.target = lambda features, *_: torch.full((len(features), 2), 2.0)
    batch = row(signal_rewards=torch.ones(1, 2), discounts=torch.tensor([[0.0, 0.9]]), next_features=torch.zeros(1, 4))
    assert o.targets(batch)[0].tolist() == pytest.approx([1.0, 2.8])


def test_values_of_choices_by_hand() -> None:
    o, d = hand("one branch"), of_choices((0.75, 0.25, 0.0))
    q1, q2 = torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[0.0, 4.0, 0.0]])
    assert o.expected(q1, d).item() == pytest.approx(1.5)
    assert o.expected(q2, d).item() == pytest.approx(1.0)
    assert d.entropies[0].item() == pytest.approx(0.56234, abs=1e-5)
    assert o.soft_values(q1, q2, d, (0.0, [0.2])).item() == pytest.approx(1.11247, abs=1e-5)
    assert o.cost(q1, d, (0.0, [0.2])).item() == pytest.approx(-1.61247, abs=1e-5)


def test_entropy_loss_of_choices_by_hand() -> None:
    o = hand("one branch")
    o.entropies_wanted = [0.2 * math.log(2)]  # The branch has two choices.
    assert o.entropies_wanted[0] == pytest.approx(0.13863, abs=1e-5)
    with torch.no_grad():
        assert o.coefficients.log_discrete is not None
        o.coefficients.log_discrete.fill_(math.log(0.2))
    loss = o.entropy_loss(row(), of_choices((0.75, 0.25)))
    assert loss.item() == pytest.approx(-0.68194, abs=2e-5)  # -log .2 (-0.56234 + 0.13863)


def test_entropy_that_is_wanted() -> None:
    assert hand("hybrid").entropies_wanted == pytest.approx([ENTROPY_SHARE * math.log(2), ENTROPY_SHARE * math.log(4)])
    o = hand("continuous")
    loss = o.entropy_loss(row(), of_continuous(-1.2))  # With two continuous actions it is -log .5 (-1.2 - 2).
    assert o.coefficients.log_continuous is not None
    assert loss.item() == pytest.approx(float(o.coefficients.log_continuous.detach()) * 3.2, rel=1e-5)


def test_values_are_means_over_branches_and_the_cost_is_a_sum() -> None:
    o = hand("branches")
    d = of_choices((0.5, 0.25, 0.25), (0.5, 0.5))
    q = torch.tensor([[4.0, 8.0, 0.0, 2.0, 6.0]])  # 4 is expected of both branches
    h1, h2 = 1.5 * math.log(2), math.log(2)
    assert o.soft_values(q, q, d, (0.0, [0.1, 0.3])).item() == pytest.approx(4.0 + (0.1 * h1 + 0.3 * h2) / 2)
    assert o.cost(q, d, (0.0, [0.1, 0.3])).item() == pytest.approx(-8.0 - 0.1 * h1 - 0.3 * h2)
    assert o.taken(q, torch.tensor([[1, 0]])).item() == pytest.approx((8.0 + 2.0) / 2)


def test_entropy_of_continuous_actions_raises_values_of_hybrid_ones() -> None:
    o = hand("hybrid")
    d = of_choices((0.5, 0.5), (0.25,) * 4)._replace(continuous=torch.zeros(1, 2), log_prob=torch.tensor([[-2.0]]))
    q = torch.zeros(1, 6)
    low, high = (o.soft_values(q, q, d, (weight, [0.0, 0.0])).item() for weight in (0.5, 1.0))
    assert (low, high) == pytest.approx((1.0, 2.0))
    q = torch.tensor([[1.0, 1.0, 3.0, 3.0, 3.0, 3.0]])
    assert o.cost(q, d, (0.5, [0.0, 0.0])).item() == pytest.approx(0.5 * -2.0 - 2 * (1.0 + 3.0))


def test_signals_have_values_of_their_own_and_the_policy_their_mean() -> None:
    o = hand("one branch", TWO_SIGNALS)
    d = of_choices((0.5, 0.5, 0.0))
    q = torch.tensor([[1.0, 3.0, 9.0, 5.0, 7.0, 9.0]])
    assert o.expected(q, d)[0].tolist() == pytest.approx([2.0, 6.0])
    assert o.taken(q, torch.tensor([[1]]))[0].tolist() == [3.0, 7.0]
    assert o.cost(q, d, (0.0, [0.0])).item() == pytest.approx(-4.0)


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


# The trainer


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
