"""The critic of groups: attention over members, counterfactual baselines, and the number of members."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec, BehaviorSpec
from torch import Tensor

from mlhooks.nn.attention import SelfAttention
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.groups import GroupAttention, GroupCritic
from mlhooks.settings import NetworkSettings
from mlhooks.sims.base import vector_spec

SIZE = 8


def embeddings(seed: int, groups: int = 3, width: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    seen, acting = (torch.randn(groups, width, SIZE, generator=generator) for _ in range(2))
    absent = torch.zeros(groups, width)
    absent[0, 2:] = 1
    absent[1, 3:] = 1
    return seen, acting, absent


def attention(seed: int = 0) -> GroupAttention:
    torch.manual_seed(seed)
    made = GroupAttention(SIZE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.5)
    return made


@pytest.mark.parametrize("width", [1, 2, 4])
def test_one_pass_equals_attention_for_each_member_by_itself(width: int) -> None:
    made, (seen, acting, absent) = attention(), embeddings(1, width=width)
    found = made.of_groups(seen, acting, absent)
    group, members = found[:, 0], found[:, 1:]
    torch.testing.assert_close(group, SelfAttention.forward(made, seen, absent))
    for index in range(width):
        entities = acting.clone()
        entities[:, index] = seen[:, index]
        there = absent[:, index] == 0
        wanted = SelfAttention.forward(made, entities, absent)
        torch.testing.assert_close(members[there, index], wanted[there], rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_attention_for_each_member_by_itself() -> None:
    made, (seen, acting, absent) = attention(), embeddings(2)
    weights = torch.randn(3, 4, SIZE, generator=torch.Generator().manual_seed(5)) * (1 - absent)[:, :, None]
    found, wanted = [], []
    for one_by_one, into in ((False, found), (True, wanted)):
        inputs = [seen.clone().requires_grad_(), acting.clone().requires_grad_()]
        if one_by_one:
            own = torch.eye(4)[None, :, :, None]
            entities = own * inputs[0][:, None] + (1 - own) * inputs[1][:, None]  # [groups, i, width, size]
            hidden = absent[:, None].expand(3, 4, 4).reshape(12, 4)
            members = SelfAttention.forward(made, entities.reshape(12, 4, SIZE), hidden).view(3, 4, SIZE)
        else:
            members = made.of_groups(*inputs, absent)[:, 1:]
        into += torch.autograd.grad((members * weights).sum(), [*inputs, *made.parameters()])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def critic(*, memory: bool = False) -> GroupCritic:
    torch.manual_seed(3)
    spec = BehaviorSpec([vector_spec("v", 5)], ActionSpec(2, (3, 2)))
    network: dict[str, object] = {"hidden_units": 8, "num_layers": 1}
    if memory:
        network["memory"] = {"memory_size": 6, "sequence_length": 4}
    made = GroupCritic(FeatureLayout("B", spec), spec.action_spec, NetworkSettings(**network), signals=2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.5)
    return made


def rows(seed: int, count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(rng.standard_normal((count, 5)).astype(np.float32))
    continuous = torch.from_numpy(rng.standard_normal((count, 2)).astype(np.float32))
    discrete = torch.from_numpy(np.stack([rng.integers(0, 3, count), rng.integers(0, 2, count)], 1))
    return features, continuous, discrete


MEMBERS = torch.tensor([[0, 1, 2], [3, 4, -1], [5, -1, -1]])


def valued(made: GroupCritic, data: tuple[Tensor, Tensor, Tensor], members: Tensor = MEMBERS) -> tuple[Tensor, Tensor]:
    """Return values [groups, signals] and baselines [members, signals]."""
    features, continuous, discrete = data
    encodings, seen = made.embed(features)
    encoded, numbers = made.encode(seen, made.embed_actions(encodings, continuous, discrete), members)
    outputs = made.read(encoded, numbers[:, None])
    return outputs[:, 0], outputs[:, 1:][members >= 0]


def test_order_of_members_changes_nothing() -> None:
    made, data = critic(), rows(0)
    values, baselines = valued(made, data)
    others, turned = valued(made, data, torch.tensor([[2, 0, 1], [4, 3, -1], [5, -1, -1]]))
    torch.testing.assert_close(values, others)
    torch.testing.assert_close(turned, baselines[[2, 0, 1, 4, 3, 5]])


def test_baselines_depend_on_the_others_actions_alone_and_values_on_none() -> None:
    made, (features, continuous, discrete) = critic(), rows(0)
    values, baselines = valued(made, (features, continuous, discrete))
    for changed in ("continuous", "discrete"):
        acts = [continuous.clone(), discrete.clone()]
        if changed == "continuous":
            acts[0][1] += 1.0
        else:
            acts[1][1, 0] = (acts[1][1, 0] + 1) % 3
        other_values, others = valued(made, (features, acts[0], acts[1]))
        torch.testing.assert_close(other_values, values, rtol=0, atol=0)
        moved = (others - baselines).abs().max(1).values
        assert moved[1] < 1e-6  # It is its own action.
        assert (moved[[0, 2]] > 1e-3).all()
        assert moved[3:].max() < 1e-6  # They are in other groups.


def test_what_stands_in_the_place_of_a_missing_mate_changes_nothing() -> None:
    made, data = critic(), rows(0)
    values, baselines = valued(made, data)
    alone, alone_baselines = valued(made, data, MEMBERS[1:2, :2])
    torch.testing.assert_close(alone[0], values[1])
    torch.testing.assert_close(alone_baselines, baselines[3:5])
    features = data[0].clone()
    features[0] = 1e3  # Padding shows the first row.
    for found, wanted in zip(valued(made, (features, *data[1:])), (values, baselines), strict=True):
        torch.testing.assert_close(found[-1], wanted[-1])


def test_number_of_members_is_normalized_by_the_largest_group() -> None:
    made, (features, _, _) = critic(), rows(0)
    _, seen = made.embed(features)
    alone = made.encode(seen, None, torch.tensor([[0]]))[1]
    assert alone.item() == 1.0  # One of one.
    made.most.fill_(4.0)
    counts = made.encode(seen, None, torch.tensor([[0, 1, -1, -1], [2, 3, 4, 5]]))[1]
    assert counts.flatten().tolist() == [0.0, 1.0]
    assert "most" in made.state_dict()


def test_weights_have_the_sizes_and_deviations_of_mlagents() -> None:
    torch.manual_seed(0)
    spec = BehaviorSpec([vector_spec("v", 5)], ActionSpec(2, (3, 2)))
    settings = NetworkSettings(hidden_units=256, num_layers=2)
    made = GroupCritic(FeatureLayout("B", spec), spec.action_spec, settings, signals=2)
    small = math.sqrt(0.125 / 256)
    assert made.seen.layer.weight.shape == (256, 5)
    assert made.acting.layer.weight.shape == (256, 5 + 2 + 3 + 2)
    assert made.heads.weight.shape == (2, 257)
    for layer in (made.seen.layer, made.acting.layer, made.attention.query, made.attention.output):
        assert layer.weight.std().item() == pytest.approx(small, rel=0.1)
    for layer in made.body.layers:  # The inputs have 256 numbers.
        assert layer.weight.std().item() == pytest.approx(small / math.sqrt(256), rel=0.05)
    bound = math.sqrt(6 / (257 + 1))
    assert made.heads.weight.abs().max().item() <= bound
    assert made.heads.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_embeddings_and_body_start_as_asked_for() -> None:
    torch.manual_seed(0)
    spec = BehaviorSpec([vector_spec("v", 5)], ActionSpec(2, (3, 2)))
    settings = NetworkSettings(hidden_units=32, num_layers=2, initialization="orthogonal")
    made = GroupCritic(FeatureLayout("B", spec), spec.action_spec, settings, signals=2)
    for layer in (made.seen.layer, made.acting.layer, *made.body.layers):
        stretched = torch.linalg.svdvals(layer.weight)
        torch.testing.assert_close(stretched, torch.full_like(stretched, math.sqrt(2)))
    torch.testing.assert_close(torch.linalg.svdvals(made.heads.weight), torch.ones(2))
    # What is twice as large looks different to the members of a group, although embeddings are normalized.
    features = torch.randn(3, 5)
    small, large = (made.attention._normalized(made.embed(seen)[1]) for seen in (features, 2 * features))
    assert (small - large).abs().max() > 0.3


def test_memory_of_units_equals_that_of_single_steps() -> None:
    made = critic(memory=True)
    assert made.memory_size == 12
    encodings = torch.randn(8, made.output_size, generator=torch.Generator().manual_seed(1))
    before = torch.randn(2, 12, generator=torch.Generator().manual_seed(2))
    values, baselines, after = made.unroll(encodings, before, 4)
    carried = before
    for step in range(4):
        places = torch.tensor([step, 4 + step])
        value, baseline, carried = made.unroll(encodings[places], carried)
        torch.testing.assert_close(values[places], value)
        torch.testing.assert_close(baselines[places], baseline)
    torch.testing.assert_close(after, carried)
    columns = before.repeat_interleave(4, 0)
    torch.testing.assert_close(made.unroll(encodings, columns, 4)[0], values)
