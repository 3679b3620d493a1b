from __future__ import annotations

import pytest
import torch
from torch import nn

from mlhooks.fast.adam import Adam, FlatParameters
from mlhooks.fast.switch import plain

EACH_WAY = pytest.mark.parametrize("is_plain", [False, True], ids=["fast", "plain"])


@EACH_WAY
def test_flat_adam_takes_the_steps_of_torch_adam(is_plain: bool) -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    theirs = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    theirs.load_state_dict(ours.state_dict())
    flat = FlatParameters(ours.parameters())
    adam, reference = Adam(flat, lr=0.01), torch.optim.Adam(theirs.parameters(), lr=0.01)
    x = torch.randn(16, 3)
    for step in range(20):
        adam.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = 0.01 / (1 + step)
        flat.grad.zero_()
        reference.zero_grad()
        for network in (ours, theirs):
            network(x).square().mean().backward()
        with plain(is_plain):
            adam.step()
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@EACH_WAY
def test_moments_are_those_of_torch_to_rounding(is_plain: bool) -> None:
    ours, theirs = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(5))
    flat = FlatParameters([ours])
    adam, reference = Adam(flat, lr=0.01), torch.optim.Adam([theirs], lr=0.01)
    theirs.grad = torch.tensor([1e-3, 0.1, 1.0, -3.0, 50.0])
    flat.grad.copy_(theirs.grad)
    with plain(is_plain):
        adam.step()
    reference.step()
    moments = reference.state[theirs]
    torch.testing.assert_close(adam.exp_avg, moments["exp_avg"], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(adam.exp_avg_sq, moments["exp_avg_sq"], rtol=1e-6, atol=0.0)


def test_parameters_are_views_of_one_tensor_and_each_counts_once() -> None:
    layer = nn.Linear(2, 3)
    before = layer.weight.detach().clone()
    flat = FlatParameters([*layer.parameters(), layer.weight])
    assert flat.data.numel() == 9
    torch.testing.assert_close(layer.weight.detach(), before)
    flat.data.zero_()
    assert not layer.weight.any()
    layer(torch.ones(1, 2)).sum().backward()
    assert flat.grad.tolist() == [1.0] * 9


def test_state_of_another_size_is_refused() -> None:
    small, large = (Adam(FlatParameters(nn.Linear(2, n).parameters()), lr=0.1) for n in (1, 2))
    with pytest.raises(ValueError, match=r"3 entries.*have 6"):
        large.load_state_dict(small.state_dict())
