from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec

from builtin_plugins.ppo import PPOSettings
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.layers import MLP
from mlhooks.nn.mirror import ACTIVATIONS, LARGE, Mirror
from mlhooks.nn.networks import Actor, Critic
from mlhooks.nn.recorded import Record, Recorded
from mlhooks.nn.tape import GradientTape
from mlhooks.settings import TrainerSettings
from mlhooks.training.adam import FlatParameters
from mlhooks.training.policy import ActorPolicy
from tests.steps import make_spec

LAYOUT = FeatureLayout("B", make_spec(observation=6))


def make_settings(activation: str) -> Any:
    return SimpleNamespace(
        hidden_units=32,
        num_layers=3,
        activation=activation,
        initialization="kaiming_he",
        goal_conditioning_type="hyper",
    )


def make_actor(activation: str, spec: ActionSpec) -> Actor:
    torch.manual_seed(0)
    return Actor(LAYOUT, spec, make_settings(activation))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("spec", [ActionSpec(2, (3, 2)), ActionSpec(3, ()), ActionSpec(0, (5,))], ids=str)
def test_mirror_computes_what_the_actor_computes(activation: str, spec: ActionSpec) -> None:
    actor = make_actor(activation, spec)
    heads = actor.heads.linear()
    assert Mirror.supports(actor.encoder, heads)
    features = np.random.default_rng(0).normal(0, 30, (17, 6)).astype(np.float32)
    expected = actor(torch.from_numpy(features))
    wanted = [part for part in (expected.mean, expected.logits) if part is not None]
    for ours, theirs in zip(Mirror(actor.encoder, heads)(features), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-5, atol=2e-5)


def test_mirror_follows_the_weights_without_being_told() -> None:
    actor = make_actor("tanh", ActionSpec(1, ()))
    assert isinstance(actor.encoder, MLP)
    assert actor.heads.mean is not None
    mirror = Mirror(actor.encoder, [actor.heads.mean])
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.mul_(0.5)
    features = np.ones((2, 6), np.float32)
    expected = actor(torch.from_numpy(features)).mean.detach().numpy()
    np.testing.assert_allclose(mirror(features)[0], expected, rtol=1e-5)


class Doubled(MLP):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features) * 2.0


class DoubledHead(torch.nn.Linear):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features) * 2.0


def test_layers_that_may_compute_something_else_are_left_to_torch() -> None:
    plain, head = MLP(6, 8, 1, "tanh", "orthogonal"), torch.nn.Linear(8, 2)
    assert Mirror.supports(plain, [head])
    assert not Mirror.supports(torch.nn.Linear(2, 2), [head])
    assert not Mirror.supports(Doubled(6, 8, 1, "tanh", "orthogonal"), [head])
    assert not Mirror.supports(plain, [head, DoubledHead(8, 2)])
    assert not Mirror.supports(plain, [torch.nn.Linear(8, 2, bias=False)])
    head.register_forward_hook(lambda *_: None)
    assert not Mirror.supports(plain, [head])


def test_mirror_ends_with_a_hook_or_other_memory() -> None:
    plain, head = MLP(6, 8, 1, "tanh", "orthogonal"), torch.nn.Linear(8, 2)
    mirror = Mirror(plain, [head])
    assert mirror.is_current
    hook = plain.register_forward_hook(lambda *_: None)
    assert not mirror.is_current
    hook.remove()
    assert mirror.is_current
    plain.layers[0].weight.data = torch.ones(8, 6)
    assert not mirror.is_current


class Networks(torch.nn.Module):
    """An actor, and a critic with two heads on the actor's encoder."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.actor = make_actor(activation, ActionSpec(2, (3,)))
        assert isinstance(self.actor.encoder, MLP)
        self.critic = Critic(LAYOUT, make_settings(activation), 2, self.actor.encoder)
        self.frozen = self.actor.encoder.layers[1].weight
        self.frozen.requires_grad_(False)

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        mean, log_std, logits = self.actor(features)
        with torch.no_grad():
            targets = self.critic(features * 0.5)
        errors = (self.critic(features) - targets).square().sum()
        return errors + (mean * log_std.exp()).pow(3).sum() + torch.log_softmax(logits, 1)[:, 1].sum()

    def gradients(self) -> dict[str, torch.Tensor | None]:
        return {name: None if p.grad is None else p.grad.clone() for name, p in self.named_parameters()}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_on_the_tape_are_those_of_autograd(activation: str) -> None:
    networks, tape = Networks(activation), GradientTape()
    features = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (50, 6)).astype(np.float32))
    wanted_loss = networks.loss(features)
    wanted_loss.backward()
    wanted = networks.gradients()
    for _ in range(2):  # the second time with the mirrors that the tape has made
        for parameter in networks.parameters():
            parameter.grad = torch.ones_like(parameter)  # gradients are added to what is there
        with tape:
            loss = networks.loss(features)
        tape.backward(loss)
        torch.testing.assert_close(loss.detach(), wanted_loss.detach(), rtol=1e-4, atol=1e-3)
        for name, gradient in networks.gradients().items():
            assert gradient is not None
            expected = wanted[name]
            size = 1.0 if expected is None else expected.abs().max().item()
            there = 1.0 if expected is None else 1.0 + expected
            torch.testing.assert_close(gradient, gradient * 0 + there, rtol=1e-4, atol=1e-4 * size, msg=name)


def test_tape_leaves_other_networks_large_batches_and_needed_inputs_to_autograd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    heads = [torch.nn.Linear(8, 2)]
    plain, other = MLP(6, 8, 1, "tanh", "orthogonal"), torch.nn.Linear(6, 8)
    rows = torch.ones(3, 6)
    cases = [(other, rows), (plain, torch.ones(LARGE // 8 + 1, 6)), (plain, torch.ones(3, 6, requires_grad=True))]
    with GradientTape() as tape:
        for encoder, features in cases:
            (output,) = tape.outputs(encoder, heads, features)
            assert isinstance(output, torch.Tensor)
        assert isinstance(tape.outputs(plain, heads, rows)[0], Recorded)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # with which torch has nothing to win
        assert isinstance(tape.outputs(plain, heads, cases[1][1])[0], Recorded)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_many_rows_are_computed_in_blocks_as_at_once(activation: str) -> None:
    torch.manual_seed(0)
    encoder, heads = MLP(6, 512, 2, activation, "lecun_normal"), [torch.nn.Linear(512, 2), torch.nn.Linear(512, 1)]
    modules = [encoder, *heads]
    features, weights = torch.randn(1000, 6), torch.randn(1000, 3)
    tape = GradientTape()
    for rows in (1000, 300, 900):  # whole blocks and a part of one, in arrays that are used again

        def loss(outputs: list[torch.Tensor], rows: int = rows) -> torch.Tensor:
            return (outputs[0] * weights[:rows, :2]).sum() + (outputs[1] * weights[:rows, 2:]).sum()

        wanted_loss = loss([head(encoder(features[:rows])) for head in heads])
        wanted_loss.backward()
        wanted = [p.grad.clone() for module in modules for p in module.parameters() if p.grad is not None]
        for module in modules:
            module.zero_grad(set_to_none=False)
        with tape:
            ours = loss(tape.outputs(encoder, heads, features[:rows]))
        tape.backward(ours)
        torch.testing.assert_close(ours.detach(), wanted_loss.detach(), rtol=1e-4, atol=1e-2)
        gradients = [p.grad for module in modules for p in module.parameters()]
        torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-3)
        for module in modules:
            module.zero_grad()


def test_parameters_may_be_frozen_and_thawed_between_losses() -> None:
    torch.manual_seed(0)
    encoder, heads, tape = MLP(6, 8, 1, "tanh", "orthogonal"), [torch.nn.Linear(8, 2)], GradientTape()
    weight = encoder.layers[0].weight
    moved = []
    for learns in (True, False, True):
        encoder.requires_grad_(learns)
        weight.grad = torch.zeros_like(weight)
        with tape:
            (output,) = tape.outputs(encoder, heads, torch.ones(3, 6))
            loss = output.sum()
        tape.backward(loss)
        moved.append(bool(weight.grad.any()))
    assert moved == [True, False, True]


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout contract")  # which torch wants
def test_gradients_may_lie_in_memory_as_they_like() -> None:
    torch.manual_seed(0)
    encoder, heads, tape = MLP(6, 8, 1, "tanh", "orthogonal"), [torch.nn.Linear(8, 2)], GradientTape()
    weight = encoder.layers[0].weight
    moved = []
    for grad in (torch.ones(8, 6), torch.ones(6, 8).t(), torch.ones(8, 6, 2)[..., 0]):
        weight.grad = grad
        with tape:
            loss = tape.outputs(encoder, heads, torch.ones(3, 6))[0].sum()
        tape.backward(loss)
        moved.append(weight.grad.clone())
    torch.testing.assert_close(moved[1:], moved[:1] * 2)
    assert (moved[0] != 1.0).any()


def test_policy_acts_with_moved_weights_even_if_nobody_tells_it() -> None:
    class Forgetful(ActorPolicy):
        def weights_changed(self) -> None:
            """Forget to pass it on."""

    settings = TrainerSettings(trainer_type="ppo", hyperparameters=PPOSettings())
    policy = Forgetful("B", make_spec(observation=6, continuous=2), settings, torch.device("cpu"))
    policy.deterministic = True
    obs, rng = [np.ones((3, 6), np.float32)], np.random.default_rng(0)
    before = policy.act(obs, None, rng).continuous
    FlatParameters(policy.actor.parameters()).data += 1.0
    policy.weights_changed()
    after = policy.act(obs, None, rng).continuous
    wanted = policy.actor(torch.ones(3, 6)).mean.detach().numpy()
    np.testing.assert_allclose(after, wanted, rtol=1e-5)
    assert not np.allclose(before, after)


def gradients_of(loss: Callable[[Any, Any], Any], *, on_tape: bool) -> list[torch.Tensor | None]:
    """The gradients of two networks after a loss on a function that gives a network's outputs for features."""
    torch.manual_seed(0)
    networks = [(MLP(6, 8, 1, "tanh", "orthogonal"), [torch.nn.Linear(8, 2)]) for _ in range(2)]
    tape = GradientTape()
    if on_tape:
        with tape:
            tape.backward(loss(lambda *asked: tape.outputs(*asked)[0], networks))
    else:
        loss(lambda encoder, heads, features: heads[0](encoder(features)), networks).backward()
    return [p.grad for encoder, heads in networks for module in (encoder, *heads) for p in module.parameters()]


ROWS = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def called_backward(output: Any, networks: Any) -> Any:
    """Two steps of an optimizer of its own in the loss, the second through functions that are torch's."""
    optimizer = torch.optim.SGD(networks[1][0].parameters(), 0.5)
    mine = output(*networks[0], ROWS).square()
    for function in (torch.tanh, torch.sigmoid):
        optimizer.zero_grad()
        function(output(*networks[1], ROWS)).sum().backward()
        optimizer.step()
    return mine.sum() + output(*networks[1], ROWS).exp().sum()


def called_backward_on_parts(output: Any, networks: Any) -> Any:
    values = output(*networks[0], ROWS)
    values.backward(torch.ones(5, 2), retain_graph=True)
    (values * 2.0).sigmoid().sum().backward(retain_graph=True)
    return values.square().sum() + values.sigmoid().sum()


def hooks_on_parameters(output: Any, networks: Any) -> Any:
    for parameter in networks[0][0].parameters():
        parameter.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))
    return output(*networks[0], ROWS).square().sum()


@pytest.mark.parametrize(
    "loss",
    [
        called_backward,
        called_backward_on_parts,
        hooks_on_parameters,
        lambda output, networks: output(*networks[0], ROWS[0]).square().sum(),
        lambda output, networks: output(*networks[0], ROWS[None].repeat(2, 1, 1)).square().sum(),
        lambda output, networks: (output(*networks[0], ROWS) * output(*networks[0], ROWS * 2.0)).sum(),
        lambda output, networks: output(
            *networks[0], torch.cat([ROWS[:, :4], output(*networks[1], ROWS)], dim=1)
        ).sum(),
    ],
    ids=["own backward", "own backward on parts", "hooks", "one row", "rows of rows", "twice", "one on another"],
)
def test_tape_follows_a_loss_as_autograd_does(loss: Callable[[Any, Any], Any]) -> None:
    wanted = gradients_of(loss, on_tape=False)
    assert any(gradient is not None for gradient in wanted)
    for gradient, expected in zip(gradients_of(loss, on_tape=True), wanted, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_tape_can_be_entered_again_by_a_loss() -> None:
    def loss(output: Any, networks: Any) -> Any:
        values = output(*networks[0], ROWS)
        tape = Record.entered.get()
        with torch.no_grad(), tape if isinstance(tape, GradientTape) else nullcontext():
            targets = output(*networks[1], ROWS)
        return (values - targets).square().sum()

    for gradient, expected in zip(gradients_of(loss, on_tape=True), gradients_of(loss, on_tape=False), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_encoding_is_made_anew_for_features_that_changed_in_place() -> None:
    encoder, heads, rows = torch.nn.Linear(6, 8), [torch.nn.Linear(8, 2)], torch.ones(3, 6)
    with GradientTape() as tape:
        first = tape.outputs(encoder, heads, rows)[0]
        rows.mul_(2.0)
        second = tape.outputs(encoder, heads, rows)[0]
    torch.testing.assert_close(second, heads[0](encoder(rows)))
    assert not torch.equal(first, second)


def test_tape_is_left_when_a_loss_raises() -> None:
    plain, heads = MLP(6, 8, 1, "tanh", "orthogonal"), [torch.nn.Linear(8, 2)]
    with pytest.raises(ValueError, match="mine"), GradientTape():
        raise ValueError("mine")
    assert isinstance(GradientTape.outputs(plain, heads, torch.ones(3, 6))[0], torch.Tensor)


def test_encoder_that_two_share_is_asked_once_for_the_same_features() -> None:
    asked = []

    class Other(torch.nn.Linear):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            asked.append(torch.is_grad_enabled())
            return super().forward(features)

    encoder, heads, rows = Other(6, 8), [torch.nn.Linear(8, 2)], torch.ones(3, 6)
    for _ in range(2):  # what an earlier loss asked for is forgotten
        with GradientTape() as tape:
            first, second = (tape.outputs(encoder, heads, rows)[0] for _ in range(2))
            tape.outputs(encoder, heads, rows.clone())
            with torch.no_grad():
                assert not tape.outputs(encoder, heads, rows)[0].requires_grad
        torch.testing.assert_close(first, second)
    assert asked == [True, True, False] * 2
