"""Soft actor-critic: values that were worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal, TanhTransform

from builtin_plugins.sac import ENTROPY_SHARE, SACOptimizer
from mlhooks.nn.heads import ActionHeads, probabilities, squashed
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.training.batch import Batch
from mlhooks.training.squashed_policy import Decisions
from tests.builtin_plugins.test_sac import ONE_SIGNAL, TWO_SIGNALS, made, optimizer_of


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
