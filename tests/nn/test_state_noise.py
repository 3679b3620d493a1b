"""Heads that explore by state-dependent noise, against the formulas of Raffin et al. 2021 in double precision."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from mlhooks.fast.switch import plain
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.heads import evaluate, squashed_by
from mlhooks.nn.networks import Actor
from mlhooks.nn.state_noise import StateNoiseHeads
from mlhooks.settings import NetworkSettings, TrainerSettings
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.squashed_policy import SquashedPolicy

INPUTS, SIZE, ROWS = 5, 3, 7


def heads_of(*, full_std: bool = True, squashed: bool = False) -> StateNoiseHeads:
    torch.manual_seed(4)
    made = StateNoiseHeads(
        INPUTS, ActionSpec(SIZE, ()), "torch", log_std_init=-0.7, full_std=full_std, squashed=squashed
    )
    with torch.no_grad():
        made.log_std.add_(0.4 * torch.randn(made.log_std.shape))
    return made


def encodings(rows: int = ROWS) -> Tensor:
    return torch.tanh(torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(5)))


def by_hand(heads: StateNoiseHeads, encoding: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations [rows, size], number by number."""
    h, weight, bias, log_std = (
        x.detach().double().numpy() for x in (encoding, heads.mean.weight, heads.mean.bias, heads.log_std)
    )
    mean, deviation = np.zeros((len(h), SIZE)), np.zeros((len(h), SIZE))
    for row in range(len(h)):
        for action in range(SIZE):
            mean[row, action] = sum(h[row, k] * weight[action, k] for k in range(INPUTS)) + bias[action]
            column = action if log_std.shape[1] > 1 else 0
            variance = sum(h[row, k] ** 2 * math.exp(log_std[k, column]) ** 2 for k in range(INPUTS))
            deviation[row, action] = math.sqrt(variance + 1e-6)
    return mean, deviation


@pytest.mark.parametrize("squashed", [False, True])
@pytest.mark.parametrize("full_std", [True, False])
def test_distribution_is_that_of_the_noise(full_std: bool, squashed: bool) -> None:
    heads, encoding = heads_of(full_std=full_std, squashed=squashed), 3.0 * encodings()
    mean, deviation = by_hand(heads, encoding)
    if squashed:
        assert np.abs(mean).max() > 2.0
        mean = mean.clip(-2.0, 2.0)
    found = heads(encoding)
    np.testing.assert_allclose(found.mean.detach(), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.log_std.detach(), np.log(deviation), rtol=1e-5, atol=1e-6)
    of_arrays = heads.from_outputs([encoding.numpy()])
    np.testing.assert_allclose(of_arrays[0], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of_arrays[1], np.log(deviation), rtol=1e-5, atol=1e-6)
    assert of_arrays[0].dtype == of_arrays[1].dtype == np.float32

    actions = torch.randn(ROWS, SIZE)
    log_probs, entropies = evaluate(found, actions, torch.zeros(ROWS, 0, dtype=torch.int64), None, [])
    expected = Normal(torch.from_numpy(mean), torch.from_numpy(deviation))
    torch.testing.assert_close(log_probs.double(), expected.log_prob(actions.double()), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(entropies.double(), expected.entropy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("full_std", [True, False])
def test_noise_of_one_matrix_is_covariant_as_the_latent_features_are(full_std: bool) -> None:
    heads, h = heads_of(full_std=full_std), encodings(3).numpy()
    matrices = heads.draw(40_000, np.random.default_rng(1))
    noise = np.einsum("rk,mka->mra", h, matrices)  # [matrices, rows, actions]
    deviations = np.broadcast_to(heads.log_std.detach().exp().numpy(), (INPUTS, SIZE))
    for action in range(SIZE):
        found = np.cov(noise[:, :, action].T)
        expected = np.einsum("ik,jk,k->ij", h, h, deviations[:, action] ** 2)
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        np.testing.assert_allclose(found / scale, expected / scale, atol=0.03)
    between = np.corrcoef(noise[:, 0].T) - np.eye(SIZE)
    assert np.abs(between).max() < 0.03  # Actions have noise of their own.


def test_latent_features_learn_from_the_variance_only_where_actions_are_squashed() -> None:
    for squashed in (False, True):
        heads, encoding = heads_of(squashed=squashed), encodings().requires_grad_()
        heads(encoding).log_std.sum().backward()
        assert (encoding.grad is not None and bool(encoding.grad.any())) is squashed
        assert heads.log_std.grad is not None
        assert heads.log_std.grad.all()


def test_squashed_sample_has_the_log_probability_of_its_distribution() -> None:
    heads, encoding = heads_of(squashed=True), encodings().requires_grad_()
    standard = torch.randn(INPUTS, SIZE)
    parameters = heads(encoding)
    actions, log_probs = squashed_by(parameters.mean, parameters.log_std, heads.noise(encoding, standard))
    noise = encoding.detach().numpy() @ (standard * heads.log_std.exp()).detach().numpy()
    mean, deviation = by_hand(heads, encoding)
    np.testing.assert_allclose(actions.detach(), np.tanh(mean + noise), rtol=1e-5, atol=1e-6)
    base = Normal(torch.from_numpy(mean), torch.from_numpy(deviation))
    expected = TransformedDistribution(base, TanhTransform(cache_size=1))
    wanted = expected.log_prob(torch.tanh(torch.from_numpy(mean + noise)))
    torch.testing.assert_close(log_probs.double(), wanted, rtol=1e-4, atol=1e-4)

    # The gradient of a sample's log-probability passes through the noise and through its distribution.
    log_probs.sum().backward()
    h, log_std = encoding.detach().double(), heads.log_std.detach().double().requires_grad_()
    weight, bias = heads.mean.weight.detach().double(), heads.mean.bias.detach().double()
    center, spread = h @ weight.T + bias, (h.square() @ log_std.exp().square() + 1e-6).sqrt()
    x = center + h @ (standard.double() * log_std.exp())
    total = (Normal(center, spread).log_prob(x) - torch.log(1.0 - torch.tanh(x).square())).sum()
    (by_torch,) = torch.autograd.grad(total, log_std)
    assert heads.log_std.grad is not None
    torch.testing.assert_close(heads.log_std.grad.double(), by_torch, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("squashed", [False, True])
def test_deviations_start_as_the_settings_say(squashed: bool) -> None:
    spec = make_behavior_spec((4,), continuous=2)
    layout = FeatureLayout("B", spec)

    def log_std_of(**network: Any) -> Tensor:
        settings = NetworkSettings(hidden_units=6, initialization="orthogonal", **network)
        heads = Actor(layout, spec.action_spec, settings, conditional=squashed).heads
        if isinstance(heads.log_std, torch.nn.Linear):
            return heads.log_std.bias.detach()
        return heads.log_std.detach()

    for given in (None, -3.29):
        sde = log_std_of(use_sde=True, log_std_init=given)
        assert sde.shape == (6, 2)
        default = -3.0 if squashed else 0.0
        np.testing.assert_array_equal(sde, np.full((6, 2), default if given is None else given, np.float32))
        assert log_std_of(use_sde=True, full_std=False).shape == (6, 1)
        np.testing.assert_array_equal(log_std_of(log_std_init=given), np.full(2, given or 0.0, np.float32))
        of_state = log_std_of(log_std_init=given, state_dependent_std=True)
        np.testing.assert_array_equal(of_state, np.full(2, given or 0.0, np.float32))


def test_deviations_depend_on_the_state_where_the_settings_say_so() -> None:
    spec = make_behavior_spec((4,), continuous=2)
    layout, features = FeatureLayout("B", spec), torch.randn(6, 4)
    torch.manual_seed(0)
    actor = Actor(layout, spec.action_spec, NetworkSettings(state_dependent_std=True, log_std_init=-1.0))
    found, head = actor(features), actor.heads.log_std
    assert isinstance(head, torch.nn.Linear)
    encoding = actor.encoder(features)
    torch.testing.assert_close(found.log_std, encoding @ head.weight.T - 1.0)
    assert float(found.log_std.detach().std(0).min()) > 1e-3
    assert actor.linear_heads() == [actor.heads.mean, head]


def policy_of(kind: type[ActorPolicy], **network: Any) -> ActorPolicy:
    torch.manual_seed(2)
    given = {"hidden_layers": [24, 16], "activation": "tanh", "use_sde": True, "log_std_init": -1.0, **network}
    spec = make_behavior_spec((4,), continuous=2)
    return kind("B", spec, TrainerSettings(network_settings=given), torch.device("cpu"))


@pytest.mark.parametrize("memory", [None, {"memory_size": 12}])
@pytest.mark.parametrize("kind", [ActorPolicy, SquashedPolicy])
def test_acting_adds_the_noise_that_an_agent_holds(kind: type[ActorPolicy], memory: Any) -> None:
    policy, rng = policy_of(kind, memory=memory), np.random.default_rng(3)
    assert isinstance(policy.noise_heads, StateNoiseHeads)
    assert policy.noise_shape is not None
    obs = [rng.standard_normal((6, 4)).astype(np.float32)]
    matrices = policy.noise_heads.draw(6, rng)
    carried = np.zeros((6, 12), np.float32) if memory else None
    found = []
    for way in (nullcontext, plain):
        with way():
            policy.weights_changed()
            found.append(policy.act(obs, None, rng, carried, matrices))
    policy.weights_changed()
    np.testing.assert_allclose(found[0].continuous, found[1].continuous, rtol=1e-5, atol=1e-6)

    actor: Any = policy.actor
    with torch.no_grad():
        features = torch.from_numpy(obs[0])
        (latent,) = actor.outputs(features, None, 1) if memory else actor.outputs(features)
        assert latent.shape == (6, 6 if memory else 16)
        parameters = policy.noise_heads(latent)
    noise = np.einsum("rk,rka->ra", latent.numpy(), matrices)
    samples = parameters.mean.numpy() + noise
    expected = np.tanh(samples) if policy.squashes else samples
    np.testing.assert_allclose(found[0].continuous, expected, rtol=1e-5, atol=1e-5)
    if not policy.squashes:
        log_probs = Normal(parameters.mean, parameters.log_std.exp()).log_prob(torch.from_numpy(samples))
        np.testing.assert_allclose(found[0].log_prob, log_probs, rtol=1e-4, atol=1e-4)
    policy.deterministic = True
    likeliest = policy.act(obs, None, rng, carried, matrices).continuous
    mean = parameters.mean.numpy()
    np.testing.assert_allclose(likeliest, np.tanh(mean) if policy.squashes else mean, rtol=1e-5, atol=1e-6)


def test_without_noise_of_its_own_an_agent_explores_as_widely() -> None:
    policy = policy_of(ActorPolicy)
    obs = [np.full((4000, 4), 0.3, np.float32)]
    drawn = policy.act(obs, None, np.random.default_rng(1)).continuous
    with torch.no_grad():
        parameters = policy.actor(torch.from_numpy(obs[0][:1]))
    np.testing.assert_allclose(drawn.std(0), parameters.log_std.exp()[0], rtol=0.05)
    np.testing.assert_allclose(drawn.mean(0), parameters.mean[0], atol=0.05)
