"""Attention over entities against values by hand, a scalar implementation, and what ML-Agents 1.1.0 computes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from torch import Tensor, nn

from mlhooks.errors import UnsupportedError
from mlhooks.nn.attention import EMBEDDING, EntityEmbedding, ObservationEncoder, SelfAttention, padding
from mlhooks.nn.encoders import GoalEncoder, MixedEncoder, make_encoder
from mlhooks.nn.features import FeatureInput, FeatureLayout
from mlhooks.nn.layers import MLP
from mlhooks.settings import NetworkSettings

NONE, VARIABLE = DimensionProperty.NONE, DimensionProperty.VARIABLE_SIZE
DEFAULT, GOAL = ObservationType.DEFAULT, ObservationType.GOAL_SIGNAL


def observation(*shape: int, kind: ObservationType = DEFAULT) -> ObservationSpec:
    properties = (VARIABLE, NONE) if len(shape) == 2 else (NONE,) * len(shape)
    return ObservationSpec(shape, properties, kind, f"o{shape[0]}")


def layout(*observations: ObservationSpec) -> FeatureLayout:
    return FeatureLayout("B", BehaviorSpec(list(observations), ActionSpec(1, ())))


def settings(**changed: object) -> NetworkSettings:
    return NetworkSettings.model_validate({"hidden_units": 6, "num_layers": 2, **changed})


def features(given: FeatureLayout, *obs: Tensor) -> Tensor:
    return torch.from_numpy(FeatureInput(given, normalize=False).features([part.numpy() for part in obs]))


@torch.no_grad()
def fill(parameters: Iterable[nn.Parameter], scale: float) -> None:
    """Set parameters to a sine that anybody can compute again."""
    for number, p in enumerate(parameters):
        p.copy_((scale * torch.sin(0.7 * torch.arange(p.numel()) + number)).reshape(p.shape))


def wave(*shape: int, start: float = 0.0) -> Tensor:
    return torch.sin(1.3 * torch.arange(math.prod(shape)) + start).reshape(shape)


@pytest.mark.parametrize("absent", [0, 2])
def test_single_entity_attends_to_itself(absent: int) -> None:
    attention = SelfAttention(4, heads=2)
    with torch.no_grad():
        for layer in (attention.query, attention.key, attention.output):
            layer.weight.copy_(torch.eye(4))
        attention.value.weight.copy_(torch.eye(4).roll(1, 0))
    entity = torch.tensor([[[1.0, 1.0, -1.0, -1.0]]])
    everything = torch.cat([entity, torch.randn(1, absent, 4)], 1)
    found = attention(everything, torch.tensor([[0.0] + [1.0] * absent]))
    # The value (-1, 1, 1, -1) beside the entity is (0, 2, 0, -2), whose deviation is the root of 2.
    np.testing.assert_allclose(found.detach(), [[0.0, math.sqrt(2), 0.0, -math.sqrt(2)]], atol=1e-4)


def test_entities_below_a_tenth_in_length_are_padding() -> None:
    entities = torch.tensor([[[0.09, 0.0], [0.11, 0.0], [0.0, 0.0], [0.08, 0.08], [-0.06, 0.06]]])
    assert padding(entities).tolist() == [[1, 0, 1, 0, 1]]


def test_nothing_but_padding_gives_zeros() -> None:
    given = layout(observation(3), observation(4, 2))
    encoder = ObservationEncoder(given, settings())
    fill(encoder.parameters(), 0.3)
    own = wave(2, 3)
    found = encoder(features(given, own, torch.full((2, 4, 2), 0.05)))
    assert torch.equal(found[:, :3], own)
    assert not found[:, 3:].any()


def scalar_attention(attention: SelfAttention, entities: np.ndarray, absent: Sequence[bool]) -> list[float]:
    """Compute one row, number by number."""
    size, heads = attention.size, attention.heads
    width, count = size // heads, len(entities)

    def normalized(x: list[float]) -> list[float]:
        mean = sum(x) / size
        deviation = math.sqrt(sum((value - mean) ** 2 for value in x) / size + 1e-5)
        return [(value - mean) / deviation for value in x]

    def layer(module: nn.Linear, x: list[float]) -> list[float]:
        rows = zip(module.weight.tolist(), module.bias.tolist(), strict=True)
        return [sum(w * value for w, value in zip(row, x, strict=True)) + bias for row, bias in rows]

    inputs = [normalized(entity) for entity in entities.tolist()]
    query, key, value = (
        [layer(module, x) for x in inputs] for module in (attention.query, attention.key, attention.value)
    )
    total = [0.0] * size
    for i in range(count):
        mixed: list[float] = []
        for part in (slice(h * width, (h + 1) * width) for h in range(heads)):
            scores = [
                -1e6 if absent[j] else sum(map(math.prod, zip(query[i][part], key[j][part], strict=True))) / size**0.5
                for j in range(count)
            ]
            weights = [math.exp(score - max(scores)) for score in scores]
            mixed += [
                sum(w * v[part][n] for w, v in zip(weights, value, strict=True)) / sum(weights) for n in range(width)
            ]
        out = normalized([a + b for a, b in zip(layer(attention.output, mixed), inputs[i], strict=True)])
        if not absent[i]:
            total = [a + b for a, b in zip(total, out, strict=True)]
    return [x / (absent.count(False) + 1e-7) for x in total]


def test_attention_is_that_of_the_papers_number_by_number() -> None:
    attention = SelfAttention(8, heads=4)
    fill(attention.parameters(), 0.4)
    entities = wave(3, 5, 8, start=0.3)
    absent = [[False] * 5, [True, False, True, False, False], [True] * 5]
    found = attention(entities, torch.tensor(absent, dtype=torch.float32))
    for row in range(3):
        right = scalar_attention(attention, entities[row].numpy(), absent[row])
        np.testing.assert_allclose(found[row].detach(), right, atol=1e-5)


def test_embeddings_and_attention_compute_what_those_of_ml_agents_do() -> None:
    embeddings = [EntityEmbedding(3, 8, "swish", own=8), EntityEmbedding(2, 8, "swish", own=8)]
    attention = SelfAttention(8, most=5)
    fill([p for module in (*embeddings, attention) for p in module.parameters()], 0.3)
    kinds = [wave(2, 3, 3, start=1.0), wave(2, 2, 2, start=2.0)]
    kinds[0][0, 1] = 0
    kinds[0][1, 2] = 0
    kinds[1][1] = 0
    embedded = [embed(kind, wave(2, 8)) for embed, kind in zip(embeddings, kinds, strict=True)]
    found = attention(torch.cat(embedded, 1), torch.cat([padding(kind) for kind in kinds], 1))
    np.testing.assert_allclose(found.detach(), SMALL, atol=1e-5)


SMALL = [
    [-0.212018, 0.545946, 0.98903, 0.296006, -0.304507, -0.703662, -0.374007, -0.236788],
    [0.370244, -0.105509, -0.47503, 0.487644, 1.469637, 0.641556, -0.790218, -1.598325],
]
"""What its EntityEmbedding and ResidualSelfAttention give with these weights."""


def linears(*modules: nn.Module) -> list[nn.Parameter]:
    """Return weights and biases of all layers inside, in their order."""
    found = [module for whole in modules for module in whole.modules() if isinstance(module, nn.Linear)]
    return [p for layer in found for p in (layer.weight, layer.bias)]


def test_vectors_goals_and_two_kinds_of_entities_are_encoded_as_by_ml_agents() -> None:
    given = layout(observation(3), observation(2, kind=GOAL), observation(4, 3), observation(2, 5))
    encoder = make_encoder(given, settings())
    assert isinstance(encoder, MixedEncoder)
    assert isinstance(encoder.body, GoalEncoder)
    conditional = encoder.body.conditional
    assert encoder.entities is not None
    parameters = [*linears(encoder.entities, encoder.body.body, conditional), conditional.bias]
    assert [tuple(p.shape) for p in parameters[::2]] == [
        *((128, 5), (128, 131), (128, 133)),
        *((128, 128),) * 4,
        *((6, 133), (6, 2), (6, 6), (36, 6), (6,)),
    ]
    fill(parameters, 0.2)
    obs = [wave(3, 3), wave(3, 2, start=1.0), wave(3, 4, 3, start=2.0), wave(3, 2, 5, start=3.0)]
    obs[2][0, 2:] = 0
    obs[2][1] = 0
    obs[3][1] = 0
    obs[3][2, 0] = 0
    rows = features(given, *obs)
    encoded = encoder.before_body(rows).detach()
    assert torch.equal(encoded[:, :5], torch.cat(obs[:2], 1))
    np.testing.assert_allclose(encoded[:, 5:9], FOUR_OF_ATTENTION, atol=1e-5)
    np.testing.assert_allclose(encoder(rows).detach(), BODY, atol=1e-5)


FOUR_OF_ATTENTION = [
    [0.627501, -1.183303, -0.207299, 1.696254],
    [0.0, 0.0, 0.0, 0.0],
    [0.793178, -1.198546, -0.652182, 1.817784],
]
BODY = [
    [-0.004585, -0.053646, -0.082518, -0.09504, -0.03806, 0.039928],
    [-0.038639, -0.0605, -0.042904, -0.121166, -0.047649, 0.089779],
    [-0.022422, -0.032754, -0.061304, -0.116743, -0.035531, 0.047063],
]


def test_entities_may_be_all_that_is_observed_as_in_ml_agents() -> None:
    given = layout(observation(4, 3))
    encoder = make_encoder(given, settings(num_layers=1))
    assert isinstance(encoder, MixedEncoder)
    fill(linears(encoder), 0.2)
    entities = wave(3, 4, 3, start=2.0)
    entities[0, 2:] = 0
    entities[1] = 0
    np.testing.assert_allclose(encoder(features(given, entities)).detach(), ALONE, atol=1e-5)


ALONE = [
    [-0.0801, -0.173349, 3.868499, 1.872548, -0.069552, -0.278448],
    [-0.090032, -0.070403, -0.016286, 0.053451, 0.103249, 0.102204],
    [-0.076945, -0.172725, 3.92801, 1.8716, -0.066718, -0.278418],
]


def test_image_as_a_goal_is_read_and_makes_weights_as_in_ml_agents() -> None:
    image = ObservationSpec((1, 5, 5), (NONE, *(DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,) * 2), GOAL, "i")
    given = layout(observation(3), image)
    encoder = make_encoder(given, settings(hidden_units=4, vis_encode_type="fully_connected"))
    assert isinstance(encoder.body, GoalEncoder)
    conditional = encoder.body.conditional
    fill([*linears(encoder.images, encoder.body.body, conditional), conditional.bias], 0.2)
    rows = features(given, wave(2, 3), wave(2, 1, 5, 5, start=0.5))
    np.testing.assert_allclose(encoder(rows).detach(), IMAGE_GOAL, atol=1e-5)


IMAGE_GOAL = [[-0.018051, -0.094878, -0.074638, -0.03564], [-0.078731, -0.079206, -0.082484, -0.057112]]


def test_order_of_entities_and_padding_among_them_change_nothing() -> None:
    torch.manual_seed(0)
    given = layout(observation(2), observation(6, 3), observation(3, 2))
    encoder = make_encoder(given, settings())
    own, first, second = torch.randn(4, 2), torch.zeros(4, 6, 3), torch.zeros(4, 3, 2)
    first[:, :3], second[:, :2] = torch.randn(4, 3, 3), torch.randn(4, 2, 2)
    right = encoder(features(given, own, first, second))
    for order in ([3, 2, 5, 0, 4, 1], [5, 4, 3, 1, 2, 0]):
        moved = encoder(features(given, own, first[:, order], second[:, [2, 1, 0]]))
        torch.testing.assert_close(moved, right, atol=1e-5, rtol=1e-5)
    one_less = first.clone()
    one_less[:, 2] = 0
    assert (encoder(features(given, own, one_less, second)) - right).abs().max() > 1e-4


@pytest.mark.parametrize("content", [0.0, 1e3])
def test_attention_is_the_same_with_any_number_of_absent_entities(content: float) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(16)
    entities = torch.randn(2, 3, 16)
    more = torch.cat([entities, content * torch.randn(2, 4, 16)], 1)
    found = attention(more, torch.tensor([[0.0] * 3 + [1.0] * 4] * 2))
    torch.testing.assert_close(found, attention(entities, torch.zeros(2, 3)), atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter_and_no_padding() -> None:
    torch.manual_seed(0)
    given = layout(observation(2), observation(4, 3))
    encoder = make_encoder(given, settings())
    rows = torch.randn(8, given.size)
    rows[:, 8:] = 0  # Two of four entities are padding.
    rows.requires_grad_()
    encoder(rows).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters())
    assert rows.grad is not None
    assert rows.grad[:, :8].all()
    assert not rows.grad[:, 8:].any()


def test_initial_weights_are_small_enough_to_learn_without_warmup() -> None:
    torch.manual_seed(0)
    encoder = ObservationEncoder(layout(observation(2), observation(4, 3)), settings())
    assert encoder.entities is not None
    expected = (0.125 / EMBEDDING) ** 0.5
    for layer in (encoder.entities.attention.query, encoder.entities.attention.output):
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.03)
    assert float(encoder.entities.embeddings[0].layer.weight.detach().std()) == pytest.approx(expected, rel=0.03)
    assert not any(p.any() for name, p in encoder.named_parameters() if name.endswith("bias"))


def test_entities_follow_vectors_and_images_and_are_never_normalized() -> None:
    image = ObservationSpec((1, 5, 5), (NONE,) * 3, DEFAULT, "i")
    given = layout(observation(4, 3), observation(2), image, observation(2, 5))
    assert given.order == [1, 2, 0, 3]
    assert (given.size, given.vectors) == (49, 2)
    assert [(kind.most, kind.size, kind.columns) for kind in given.entities] == [
        (4, 3, slice(27, 39)),
        (2, 5, slice(39, 49)),
    ]
    rng = np.random.default_rng(0)
    obs = [rng.random((6, *shape), np.float32) for shape in ((4, 3), (2,), (1, 5, 5), (2, 5))]
    inputs = FeatureInput(given, normalize=True)
    inputs.update(obs)
    found = inputs.features(obs)
    np.testing.assert_array_equal(found[:, 2:], np.hstack([obs[i].reshape(6, -1) for i in (2, 0, 3)]))
    np.testing.assert_allclose(found[:, :2], (obs[1] - obs[1].mean(0)) / obs[1].std(0), atol=1e-5)
    for part, given_part in zip(given.split(torch.from_numpy(found)), obs, strict=True):
        if part.dim() > 2:
            np.testing.assert_array_equal(part.numpy(), given_part)
    assert inputs.features([part[:0] for part in obs]).shape == (0, 49)


@pytest.mark.parametrize("properties", [(NONE, NONE), (DimensionProperty.UNSPECIFIED,) * 2, (NONE, VARIABLE)])
def test_other_observations_of_two_dimensions_are_refused_by_name(properties: tuple[DimensionProperty, ...]) -> None:
    table = ObservationSpec((7, 4), properties, DEFAULT, "table")
    with pytest.raises(UnsupportedError, match=r"'B': observation 1 \(table\) has shape \(7, 4\).*VARIABLE_SIZE, NONE"):
        layout(observation(3), table)


def test_goal_of_variable_length_makes_no_weights_but_is_read_where_goals_are_ordinary() -> None:
    given = layout(observation(3), observation(4, 2, kind=GOAL))
    with pytest.raises(UnsupportedError, match=r"observation 1 \(o4\).*goal_conditioning_type: none"):
        make_encoder(given, settings())
    encoder = make_encoder(given, settings(goal_conditioning_type="none"))
    assert isinstance(encoder, MixedEncoder)
    assert type(encoder.body) is MLP
    rows = torch.randn(2, 11)
    other = rows.clone()
    other[:, 3:] *= -1
    assert not torch.allclose(encoder(rows), encoder(other))
