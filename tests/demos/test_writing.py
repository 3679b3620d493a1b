"""Written `.demo` files: their bytes as protobuf reads them, and the way back."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from google.protobuf.internal.decoder import _DecodeVarint32  # type: ignore[import-untyped]
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType

from mlhooks.demos.reading import read_demo
from mlhooks.demos.records import Records
from mlhooks.demos.writing import demo_bytes, metadata, write_demo
from mlhooks.errors import DemonstrationError
from tests.demos.made import (
    AgentInfoActionPairProto,
    BrainParametersProto,
    DemonstrationMetaProto,
    old_brain,
    pair,
    written,
)

RNG = np.random.default_rng(3)
NONE, SPATIAL = DimensionProperty.NONE, DimensionProperty.TRANSLATIONAL_EQUIVARIANCE


def sensor(name: str, *shape: int) -> ObservationSpec:
    properties = (NONE, SPATIAL, SPATIAL) if len(shape) == 3 else (NONE,) * len(shape)
    return ObservationSpec(shape, properties, ObservationType.DEFAULT, name)


def recorded(actions: ActionSpec, *shapes: tuple[int, ...], image: np.dtype[Any] | None = None) -> Records:
    """Two episodes of three and two decisions, each with its final observation."""
    done = np.array([False, False, False, True, False, False, True])
    specs = [sensor(f"sensor {index}", *shape) for index, shape in enumerate(shapes)]
    obs = [RNG.standard_normal((7, *shape)).astype(np.float32) for shape in shapes]
    if image is not None:
        obs[-1] = RNG.integers(0, 256, obs[-1].shape).astype(image)
    continuous = RNG.uniform(-1, 1, (7, actions.continuous_size)).astype(np.float32) * ~done[:, None]
    discrete = RNG.integers(0, 2, (7, actions.discrete_size)) * ~done[:, None]
    return Records(
        behavior_name="Walk",
        spec=BehaviorSpec(specs, actions),
        obs=obs,
        reward=np.array([0, 0.5, 0, 1, 0, 0.25, -1], np.float32),
        done=done,
        interrupted=np.array([False] * 6 + [True]),
        acts=~done,
        continuous=continuous,
        discrete=discrete,
    )


def assert_equal(records: Records, others: Records) -> None:
    for name in {field.name for field in fields(Records)} - {"spec", "obs"}:
        assert np.array_equal(getattr(records, name), getattr(others, name)), name
    assert records.spec == others.spec
    for obs, other in zip(records.obs, others.obs, strict=True):
        assert obs.dtype == other.dtype
        assert np.array_equal(obs, other)


@pytest.mark.parametrize("actions", [ActionSpec(2, ()), ActionSpec(0, (3,)), ActionSpec(1, (2, 4))])
def test_what_is_written_is_read_again(tmp_path, actions):
    records = recorded(actions, (4,), (2, 3), (3, 5, 4))
    if actions.discrete_size:
        mask = np.zeros((7, sum(actions.discrete_branches)), np.bool_)
        mask[1, 0] = True
        records = replace(records, mask=mask)
    write_demo(tmp_path / "new folder" / "a.demo", records)
    assert_equal(read_demo(tmp_path / "new folder" / "a.demo"), records)


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_images_of_bytes_are_compressed_without_loss(tmp_path, channels):
    records = recorded(ActionSpec(0, (2,)), (2,), (channels, 6, 5), image=np.dtype(np.uint8))
    write_demo(tmp_path / "a.demo", records)
    assert_equal(read_demo(tmp_path / "a.demo"), records)


def test_bytes_are_those_of_the_format():
    records = recorded(ActionSpec(1, (2,)), (4,))
    content = demo_bytes("a name of many characters", records)
    size, start = _DecodeVarint32(content, 0)
    meta = DemonstrationMetaProto.FromString(content[start : start + size])
    assert (meta.api_version, meta.number_steps, meta.number_episodes) == (1, 7, 2)
    assert meta.mean_reward == pytest.approx(0.375)
    assert "a name of many characters".startswith(meta.demonstration_name)
    size, at = _DecodeVarint32(content, 33)
    brain = BrainParametersProto.FromString(content[at : at + size])
    assert brain.brain_name == "Walk"
    assert brain.action_spec.num_continuous_actions == 1
    assert list(brain.action_spec.discrete_branch_sizes) == [2]
    at += size
    pairs = []
    while at < len(content):
        size, at = _DecodeVarint32(content, at)
        pairs.append(AgentInfoActionPairProto.FromString(content[at : at + size]))
        at += size
    assert [each.agent_info.done for each in pairs] == records.done.tolist()
    assert [each.agent_info.reward for each in pairs] == records.reward.tolist()
    assert pairs[6].agent_info.max_step_reached
    assert [list(each.action_info.discrete_actions) for each in pairs] == records.discrete.tolist()
    shown = [np.array(each.agent_info.observations[0].float_data.data, np.float32) for each in pairs]
    assert np.array_equal(shown, records.obs[0])


@pytest.mark.parametrize(("name", "kept"), [("Expert", "Expert"), ("a" * 40, "a" * 13), ("ä" * 40, "ä" * 6)])
def test_largest_metadata_leave_the_description_in_its_place(name, kept):
    head = metadata(name, 2**31 - 1, 2**21 - 1, -1.5)
    assert len(head) <= 33
    meta = DemonstrationMetaProto.FromString(head[1:])
    assert (meta.number_steps, meta.number_episodes, meta.mean_reward) == (2**31 - 1, 2**21 - 1, -1.5)
    assert meta.demonstration_name == kept


def test_old_files_are_written_with_the_action_of_a_done_record(tmp_path):
    pairs = [pair([0.0], old=[1]), pair([1.0], 1.0, old=[0], done=True), pair([2.0])]
    records = read_demo(written(tmp_path / "a.demo", old_brain([2], continuous=False), pairs))
    write_demo(tmp_path / "b.demo", records)
    again = read_demo(tmp_path / "b.demo")
    assert_equal(again, records)
    assert again.acts.tolist() == [True, True, False]


def test_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DemonstrationError, match=r"a\.demo cannot be written"):
        write_demo(tmp_path / "file" / "a.demo", recorded(ActionSpec(0, (2,)), (1,)))
