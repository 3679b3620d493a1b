from __future__ import annotations

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType

from mlhooks.errors import CheckpointError, UnsupportedError
from mlhooks.nn.encoders import GoalEncoder, MixedEncoder, make_encoder
from mlhooks.nn.features import FeatureInput, FeatureLayout
from mlhooks.nn.layers import MLP, linear
from mlhooks.nn.networks import Critic
from mlhooks.settings import NetworkSettings
from mlhooks.training.checkpoints import load_modules


def vector(size: int, kind: ObservationType = ObservationType.DEFAULT) -> ObservationSpec:
    return ObservationSpec((size,), (DimensionProperty.NONE,), kind, f"v{size}")


SPEC = BehaviorSpec([vector(3), vector(2, ObservationType.GOAL_SIGNAL), vector(1)], ActionSpec(1, ()))


def image(*shape: int, kind: ObservationType = ObservationType.DEFAULT) -> ObservationSpec:
    return ObservationSpec(shape, (DimensionProperty.NONE,) * len(shape), kind, f"i{shape[0]}")


MIXED = BehaviorSpec(
    [image(2, 5, 6), vector(3), image(1, 5, 5), vector(2, ObservationType.GOAL_SIGNAL)], ActionSpec(1, ())
)


def test_layout_tells_goal_signals_from_other_features() -> None:
    layout = FeatureLayout("B", SPEC)
    assert layout.size == 6
    assert layout.goal.tolist() == [3, 4]


def test_observations_are_concatenated_in_their_order_and_normalized_together() -> None:
    inputs = FeatureInput(FeatureLayout("B", SPEC), normalize=True)
    obs = [np.full((4, size), value, np.float32) for size, value in ((3, 1.0), (2, 2.0), (1, 3.0))]
    assert inputs.features(obs)[0].tolist() == [1, 1, 1, 2, 2, 3]
    inputs.update([part * np.array([[0], [2], [0], [2]], np.float32) for part in obs])  # The means are 1, 2 and 3.
    np.testing.assert_allclose(inputs.features([2 * part for part in obs]), 1.0, rtol=1e-6)


def test_images_follow_the_vectors_and_pass_unnormalized() -> None:
    layout = FeatureLayout("B", MIXED)
    assert (layout.size, layout.vectors, layout.goal.tolist()) == (90, 5, [3, 4])
    assert [(i.shape, i.columns) for i in layout.images] == [((2, 5, 6), slice(5, 65)), ((1, 5, 5), slice(65, 90))]
    rng = np.random.default_rng(0)
    obs = [rng.random((4, *spec.shape), np.float32) for spec in MIXED.observation_specs]
    flat = [(part if part.ndim == 2 else part.transpose(0, 2, 3, 1)).reshape(4, -1) for part in obs]
    assert (FeatureInput(layout, normalize=False).features(obs) == np.hstack([flat[i] for i in (1, 3, 0, 2)])).all()
    inputs = FeatureInput(layout, normalize=True)
    inputs.update(obs)
    features, raw = inputs.features(obs), inputs.raw(obs)
    assert (raw == FeatureInput(layout, normalize=False).features(obs)).all()
    assert (inputs.normalize(raw) == features).all()
    assert (inputs.raw(obs) == raw).all()
    np.testing.assert_allclose(features[:, :5].mean(0), 0.0, atol=1e-6)
    assert (features[:, 5:] == np.hstack([flat[0], flat[2]])).all()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_rollout_of_one_image_is_not_copied(dtype: type) -> None:
    inputs = FeatureInput(FeatureLayout("B", BehaviorSpec([image(3, 5, 5)], ActionSpec(1, ()))), normalize=True)
    inputs.keeps_bytes = True
    frames = np.zeros((4, 5, 5, 3), dtype).transpose(0, 3, 1, 2)
    assert np.shares_memory(inputs.features([frames]), frames)


def test_images_stay_bytes_where_they_are_all_that_is_observed_and_their_reader_takes_them() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (4, *shape), np.uint8) for shape in ((2, 5, 6), (1, 5, 5)))
    flat = np.hstack([part.transpose(0, 2, 3, 1).reshape(4, -1) for part in (first, second)])
    inputs = FeatureInput(
        FeatureLayout("B", BehaviorSpec([image(2, 5, 6), image(1, 5, 5)], ActionSpec(1, ()))), normalize=True
    )
    for keeps, obs in ((False, [first, second]), (True, [first, second / np.float32(255)])):
        inputs.keeps_bytes = keeps
        features = inputs.features(obs)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, flat / 255, rtol=1e-6)
    kept = inputs.features([first, second])
    assert kept.dtype == np.uint8
    assert (kept == flat).all()

    vector_beside = FeatureInput(FeatureLayout("B", MIXED), normalize=False)
    vector_beside.keeps_bytes = True
    features = vector_beside.features([first, np.full((4, 3), 9.0, np.float32), second, np.ones((4, 2), np.float32)])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, np.hstack([[[9.0] * 3 + [1.0] * 2] * 4, flat / 255]), rtol=1e-6)


def test_behavior_without_observations_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'B' has no observations"):
        FeatureLayout("B", BehaviorSpec([], ActionSpec(1, ())))


@pytest.mark.parametrize(("conditioning", "kind"), [("hyper", GoalEncoder), ("none", MLP)])
def test_goal_conditioning_type_chooses_the_encoder(conditioning: str, kind: type) -> None:
    settings = NetworkSettings(hidden_units=8, goal_conditioning_type=conditioning)
    encoder = make_encoder(FeatureLayout("B", SPEC), settings)
    assert type(encoder) is kind
    assert encoder(torch.randn(5, 6)).shape == (5, 8)
    without_goal = BehaviorSpec([vector(3)], ActionSpec(1, ()))
    assert type(make_encoder(FeatureLayout("B", without_goal), settings)) is MLP


@pytest.mark.parametrize("rows", [3, 40])  # There are a few goals, or many.
def test_goal_makes_the_weights_of_the_last_layer_row_by_row(rows: int) -> None:
    torch.manual_seed(0)
    settings = NetworkSettings(hidden_units=4, num_layers=2, activation="tanh")
    encoder = make_encoder(FeatureLayout("B", SPEC), settings)
    assert isinstance(encoder, GoalEncoder)
    features = torch.randn(rows, 6)
    features[1, 3:5] = features[0, 3:5]
    encoded = encoder(features)
    for row in range(rows):
        body = torch.tanh(encoder.body.layers[0](features[row]))  # The goal is also among what the layers read.
        weights = encoder.conditional.weights(features[row : row + 1, 3:5])[0].view(4, 4)
        torch.testing.assert_close(encoded[row], torch.tanh(body @ weights + encoder.conditional.bias))
    encoded.sum().backward()
    assert all(bool(p.grad.any()) for p in encoder.parameters())


@pytest.mark.parametrize(("conditioning", "kind"), [("hyper", GoalEncoder), ("none", MLP)])
def test_layers_read_vectors_and_the_encoding_of_each_image(conditioning: str, kind: type) -> None:
    settings = NetworkSettings(hidden_units=4, vis_encode_type="match3", goal_conditioning_type=conditioning)
    encoder = make_encoder(FeatureLayout("B", MIXED), settings)
    assert isinstance(encoder, MixedEncoder)
    assert type(encoder.body) is kind
    features = torch.rand(3, 90)
    encodings = [encoder.images[0](features[:, 5:65]), encoder.images[1](features[:, 65:])]
    expected = encoder.body(torch.cat([features[:, :5], *encodings], dim=1))
    torch.testing.assert_close(encoder(features), expected)
    encoder(features).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters())


def test_several_images_in_bytes_are_encoded_side_by_side() -> None:
    layout = FeatureLayout("B", BehaviorSpec([image(2, 5, 6), image(1, 5, 5)], ActionSpec(1, ())))
    encoder = make_encoder(layout, NetworkSettings(hidden_units=4, vis_encode_type="match3"))
    pixels = torch.randint(0, 256, (3, 85), dtype=torch.uint8)
    torch.testing.assert_close(encoder(pixels), encoder(pixels / 255))


@pytest.mark.parametrize("with_gradients", [True, False])
def test_encoding_of_an_image_that_is_a_goal_makes_the_weights_and_is_read(with_gradients: bool) -> None:
    torch.manual_seed(0)
    images = [image(1, 5, 5), image(1, 5, 5, kind=ObservationType.GOAL_SIGNAL)]
    layout = FeatureLayout("B", BehaviorSpec([vector(2, kind=ObservationType.GOAL_SIGNAL), *images], ActionSpec(1, ())))
    encoder = make_encoder(layout, NetworkSettings(hidden_units=4, num_layers=2, vis_encode_type="match3"))
    assert isinstance(encoder, MixedEncoder)
    body = encoder.body
    assert isinstance(body, GoalEncoder)
    features = torch.rand(3, 52)
    features[2, 27:], features[2, :2] = features[1, 27:], features[1, :2]  # One goal is there twice.
    with torch.set_grad_enabled(with_gradients):
        encoded = encoder(features)
    parts = [features[:, :2], encoder.images[0](features[:, 2:27]), encoder.images[1](features[:, 27:])]
    weights = body.conditional.weights(torch.cat([parts[0], parts[2]], 1)).view(3, 4, 4)
    read = body.body(torch.cat(parts, 1))
    expected = body._activate((read.unsqueeze(1) @ weights).squeeze(1) + body.conditional.bias)
    torch.testing.assert_close(encoded, expected if with_gradients else expected.detach())
    if with_gradients:
        encoded.square().sum().backward()
        found = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
        encoder.zero_grad()
        expected.square().sum().backward()
        torch.testing.assert_close(found, [p.grad for p in encoder.parameters()])
    none = make_encoder(
        layout, NetworkSettings(hidden_units=4, vis_encode_type="match3", goal_conditioning_type="none")
    )
    assert isinstance(none, MixedEncoder)
    assert isinstance(none.body, MLP)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_goal_may_be_all_that_is_observed(num_layers: int) -> None:
    torch.manual_seed(0)
    layout = FeatureLayout("B", BehaviorSpec([vector(3, kind=ObservationType.GOAL_SIGNAL)], ActionSpec(1, ())))
    encoder = make_encoder(layout, NetworkSettings(hidden_units=4, num_layers=num_layers))
    assert isinstance(encoder, GoalEncoder)
    features = torch.randn(2, 3)
    weights = encoder.conditional.weights(features).view(2, 3 if num_layers == 1 else 4, 4)
    expected = encoder._activate((encoder.body(features).unsqueeze(1) @ weights).squeeze(1) + encoder.conditional.bias)
    torch.testing.assert_close(encoder(features), expected)


def test_checkpoint_of_a_network_that_did_not_read_its_goal_is_refused_by_its_shape() -> None:
    encoder = make_encoder(FeatureLayout("B", SPEC), NetworkSettings(hidden_units=4, num_layers=2))
    former = encoder.state_dict()
    former["body.layers.0.weight"] = former["body.layers.0.weight"][:, [0, 1, 2, 5]]
    with pytest.raises(CheckpointError, match=r"layers.0.weight has shape \(4, 4\) .* and \(4, 6\) in the network"):
        load_modules({"actor": encoder}, {"actor": former}, "B")


@pytest.mark.parametrize(
    ("initialization", "expected"), [("lecun_normal", 0.5 * (1 / 400) ** 0.5), ("kaiming_he", 0.5 * (2 / 400) ** 0.5)]
)
def test_initial_weights_have_the_variance_of_their_scheme(initialization: str, expected: float) -> None:
    torch.manual_seed(0)
    layer = linear(400, 100, initialization=initialization, gain=0.5)
    assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert not layer.bias.any()


def test_value_heads_begin_as_those_of_ml_agents_do() -> None:
    layout = FeatureLayout("B", BehaviorSpec([vector(3)], ActionSpec(1, ())))
    torch.manual_seed(0)
    found = Critic(layout, NetworkSettings(hidden_units=600, num_layers=1), signals=8).heads
    bound = (6 / 601) ** 0.5  # Glorot and Bengio 2010, equation 16, of heads with one output each
    assert bound * 0.99 < float(found.weight.detach().abs().max()) <= bound
    assert float(found.weight.detach().std()) == pytest.approx((2 / 601) ** 0.5, rel=0.02)
    assert not found.bias.any()
    settings = NetworkSettings(hidden_units=600, num_layers=1, initialization="kaiming_he")
    assert float(Critic(layout, settings, signals=8).heads.weight.detach().std()) == pytest.approx(
        (2 / 600) ** 0.5, rel=0.05
    )


def test_orthogonal_weights_have_orthogonal_rows_of_the_gain() -> None:
    layer = linear(20, 10, initialization="orthogonal", gain=0.01)
    torch.testing.assert_close(layer.weight @ layer.weight.T, 1e-4 * torch.eye(10), rtol=0, atol=1e-8)
