from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec

from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.layers import MLP
from mlhooks.nn.mirror import ACTIVATIONS, Mirror
from mlhooks.nn.networks import Actor
from tests.steps import make_spec


def make_actor(activation: str, spec: ActionSpec) -> Actor:
    torch.manual_seed(0)
    settings = SimpleNamespace(
        hidden_units=32,
        num_layers=3,
        activation=activation,
        initialization="kaiming_he",
        goal_conditioning_type="hyper",
    )
    return Actor(FeatureLayout("B", make_spec(observation=6)), spec, settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("spec", [ActionSpec(2, (3, 2)), ActionSpec(3, ()), ActionSpec(0, (5,))], ids=str)
def test_mirror_computes_what_the_actor_computes(activation: str, spec: ActionSpec) -> None:
    actor = make_actor(activation, spec)
    assert Mirror.supports(actor.encoder)
    heads = actor.heads.linear()
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


def test_actor_with_other_layers_is_left_to_torch() -> None:
    assert not Mirror.supports(torch.nn.Linear(2, 2))
