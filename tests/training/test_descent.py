from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlhooks.errors import CheckpointError, NonFiniteError
from mlhooks.fast.adam import FlatParameters
from mlhooks.training.descent import Descent


def two_layers() -> dict[str, nn.Linear]:
    torch.manual_seed(0)
    return {"first": nn.Linear(3, 4), "second": nn.Linear(4, 2)}


def squares(layers: dict[str, nn.Linear], x: Tensor) -> dict[str, Tensor]:
    loss = layers["second"](torch.tanh(layers["first"](x))).square().mean()
    return {"loss": loss, "Losses/Twice": 2.0 * loss}


def test_steps_are_those_of_torch_with_its_clipping_and_losses_are_reported() -> None:
    ours, theirs = two_layers(), two_layers()
    x = torch.randn(8, 3)
    descent = Descent(ours, 0.01, max_grad_norm=0.1)
    parameters = [p for layer in theirs.values() for p in layer.parameters()]
    adam = torch.optim.Adam(parameters, lr=0.01)
    for step in range(10):
        descent.set_learning_rate(0.01 / (1 + step))
        adam.param_groups[0]["lr"] = 0.01 / (1 + step)
        reported = descent.step(lambda: squares(ours, x))
        adam.zero_grad()
        wanted = squares(theirs, x)
        wanted["loss"].backward()
        nn.utils.clip_grad_norm_(parameters, 0.1)
        adam.step()
        assert reported.keys() == {"Losses/Twice"}
        torch.testing.assert_close(reported["Losses/Twice"], wanted["Losses/Twice"].detach())
        assert not reported["Losses/Twice"].requires_grad
    for name in ours:
        torch.testing.assert_close(ours[name].weight, theirs[name].weight, rtol=1e-5, atol=1e-6)


def test_nothing_changes_where_the_loss_or_a_gradient_is_not_finite() -> None:
    layers = two_layers()
    descent = Descent(layers, 0.01)
    descent.at_step = 1234
    before = descent.flat.data.clone()
    with pytest.raises(NonFiniteError, match=r"loss = nan.*, at step 1,234\. No parameter was changed"):
        descent.step(lambda: squares(layers, torch.full((1, 3), torch.nan)))
    with pytest.raises(NonFiniteError, match=r"NaN or infinite in second\.bias, at step 1,234"):
        # The square root has an infinite slope at 0.
        descent.step(lambda: {"loss": (layers["second"].bias[:1] * 0.0).sqrt().sum() + layers["first"].bias.sum()})
    assert torch.equal(descent.flat.data, before)


def test_its_state_goes_on_exactly_and_others_are_refused() -> None:
    layers, x = two_layers(), torch.randn(8, 3)
    descent = Descent(layers, 0.01)
    descent.step(lambda: squares(layers, x))
    copies = copy.deepcopy(layers)
    other = Descent(copies, 0.5)
    other.load_state_dict(copy.deepcopy(descent.state_dict()))
    for both in ((descent, layers), (other, copies)):
        both[0].step(lambda both=both: squares(both[1], x))  # type: ignore[misc]
    assert torch.equal(descent.flat.data, other.flat.data)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        other.load_state_dict({**descent.state_dict(), "exp_avg": torch.full((26,), torch.nan)})
    with pytest.raises(CheckpointError, match="does not fit Adam"):
        other.load_state_dict(Descent({"small": nn.Linear(1, 1)}, 0.01).state_dict())


def test_two_descents_share_parameters_by_a_part_and_keep_their_own_moments() -> None:
    layers, x = two_layers(), torch.randn(8, 3)
    descent = Descent(layers, 0.01)
    descent.step(lambda: squares(layers, x))
    moments = copy.deepcopy(descent.state_dict())
    cloning = Descent({"first": layers["first"]}, 0.1, flat=descent.flat.part([layers["first"]]))
    before = descent.flat.data.clone()
    cloning.step(lambda: {"loss": (layers["first"](x) - 1.0).square().mean()})
    size = layers["first"].weight.numel() + layers["first"].bias.numel()
    changed = descent.flat.data != before
    assert changed[:size].all()
    assert not changed[size:].any()
    assert torch.equal(layers["first"].weight.detach().reshape(-1), descent.flat.data[: layers["first"].weight.numel()])
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(descent.state_dict()[name], moments[name])
    assert cloning.state_dict()["exp_avg"].shape == (size,)


def test_parameters_cannot_be_in_two_pieces_and_a_part_lies_side_by_side() -> None:
    layers = {**two_layers(), "third": nn.Linear(2, 2)}
    flat = FlatParameters(p for layer in layers.values() for p in layer.parameters())
    with pytest.raises(ValueError, match="in one piece already"):
        FlatParameters(layers["second"].parameters())
    with pytest.raises(ValueError, match="side by side"):
        flat.part([layers["first"], layers["third"]])
    with pytest.raises(ValueError, match="side by side"):
        flat.part([layers["first"], nn.Linear(2, 2)])
    part = flat.part([layers["second"], layers["third"]])
    part.grad.fill_(3.0)
    assert part.norm() == pytest.approx(3.0 * part.grad.numel() ** 0.5)
    assert flat.grad.count_nonzero() == part.grad.numel()
    layers["third"].weight.grad = torch.ones(2, 2)
    part.collect()
    assert flat.grad[-6:-2].tolist() == [1.0] * 4


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda parts: pickle.loads(pickle.dumps(parts))])
@pytest.mark.parametrize("whole_first", [True, False])
def test_copies_of_two_descents_on_shared_parameters_share_theirs(copied: Any, whole_first: bool) -> None:
    layers = two_layers()
    whole = Descent(layers, 0.01)
    part = Descent({"second": layers["second"]}, 0.1, flat=whole.flat.part([layers["second"]]))
    before = whole.flat.data.clone()
    parts = copied([whole, part] if whole_first else [part, whole])
    whole_copy, part_copy = parts if whole_first else parts[::-1]
    second = part_copy.modules["second"]
    assert second is whole_copy.modules["second"]
    part_copy.step(lambda: {"loss": second.weight.sum() + second.bias.sum()})
    assert torch.equal(whole.flat.data, before)
    moved = before - whole_copy.flat.data
    assert not moved[:16].any()
    torch.testing.assert_close(moved[16:], torch.full((10,), 0.1))


def test_descent_on_frozen_parameters_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to learn: no parameter is there that requires a gradient"):
        Descent({"frozen": nn.Linear(2, 1).requires_grad_(False)}, 0.01)
