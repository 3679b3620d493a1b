"""Reading `.demo` files of players of both generations, and what is said of damaged ones."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from mlagents_envs.base_env import ActionSpec

from mlhooks.demos.reading import read_demo
from mlhooks.errors import DemonstrationError
from tests.demos.made import demo_bytes, new_brain, old_brain, pair, written
from tests.unity.messages import CHANNELS_HEIGHT_WIDTH, image, observation

STEPS = [
    pair([0.0, 1.0], 0.0, old=[2]),
    pair([2.0, 3.0], 0.5, old=[0]),
    pair([4.0, 5.0], 1.0, old=[1], done=True),
    pair([6.0, 7.0], -1.0),
]


def test_old_file_keeps_the_action_of_a_done_record_and_lacks_the_last_one(tmp_path):
    records = read_demo(written(tmp_path / "a.demo", old_brain([3], continuous=False), STEPS))
    assert records.behavior_name == "Walk"
    assert records.spec.action_spec == ActionSpec(0, (3,))
    assert records.obs[0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert records.reward.tolist() == [0.0, 0.5, 1.0, -1.0]
    assert records.done.tolist() == [False, False, True, False]
    assert records.discrete[:, 0].tolist() == [2, 0, 1, 0]
    assert records.acts.tolist() == [True, True, True, False]
    assert records.rows.tolist() == [0, 1, 2]
    assert (records.episodes, records.mean_reward) == (2, 0.25)


def test_new_file_shows_the_final_observation_where_an_episode_ended(tmp_path):
    pairs = [
        pair([0.0], continuous=[0.5], discrete=[2, 0]),
        pair([1.0], 0.25, continuous=[-1.0], discrete=[0, 1]),
        pair([2.0], 1.0, continuous=[0.0], discrete=[0, 0], done=True),
        pair([3.0], continuous=[0.25], discrete=[1, 1]),
        pair([4.0], 2.0, continuous=[0.0], discrete=[0, 0], done=True),
    ]
    pairs[2].agent_info.max_step_reached = True
    records = read_demo(written(tmp_path / "a.demo", new_brain(1, (3, 2)), pairs))
    assert records.behavior_name == "Walk"
    assert records.spec.action_spec == ActionSpec(1, (3, 2))
    assert records.acts.tolist() == [True, True, False, True, False]
    assert records.interrupted.tolist() == [False, False, True, False, False]
    assert records.rows.tolist() == [0, 1, 3]
    assert records.continuous[:, 0].tolist() == [0.5, -1.0, 0.0, 0.25, 0.0]
    assert records.discrete.tolist() == [[2, 0], [0, 1], [0, 0], [1, 1], [0, 0]]
    assert (records.episodes, records.mean_reward) == (2, 1.625)


def test_old_continuous_actions(tmp_path):
    pairs = [pair([0.0], old=[0.5, -0.5]), pair([1.0], old=[0.25, 1.0]), pair([2.0])]
    records = read_demo(written(tmp_path / "a.demo", old_brain([2], continuous=True), pairs))
    assert records.spec.action_spec == ActionSpec(2, ())
    assert records.continuous.tolist() == [[0.5, -0.5], [0.25, 1.0], [0.0, 0.0]]


def test_what_follows_the_counted_records_is_not_read(tmp_path):
    path = written(tmp_path / "a.demo", old_brain([3], continuous=False), STEPS, steps=2)
    assert len(read_demo(path)) == 2


def test_file_that_was_never_closed_is_read_to_its_end(tmp_path):
    content = demo_bytes(old_brain([3], continuous=False), STEPS, steps=0)
    path = tmp_path / "a.demo"
    path.write_bytes(content[: end_of_records(content)])  # Only closing it writes the metadata again.
    assert len(read_demo(path)) == 4


def end_of_records(content: bytes) -> int:
    """Return where the last of the records ends."""
    last = STEPS[-1].SerializeToString()
    return content.rindex(last) + len(last)


@pytest.mark.parametrize("version", [0, 1])
def test_both_versions_are_read(tmp_path, version):
    assert len(read_demo(written(tmp_path / "a.demo", old_brain([3], continuous=False), STEPS, version=version))) == 4


RGB = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)


@pytest.mark.parametrize("properties", [(2, 2, 1), CHANNELS_HEIGHT_WIDTH])
def test_compressed_images_have_their_channels_first(tmp_path, properties):
    pairs = [pair([image(RGB, 3, properties=properties)], old=[0]) for _ in range(2)]
    records = read_demo(written(tmp_path / "a.demo", old_brain([3], continuous=False), pairs))
    assert records.spec.observation_specs[0].shape == (3, 5, 4)
    assert np.array_equal(records.obs[0], np.stack([RGB.transpose(2, 0, 1)] * 2))


@pytest.mark.parametrize("shape", [(5, 4, 3), (3, 5, 4)])
def test_uncompressed_images_without_properties_are_told_by_their_shape(tmp_path, shape):
    values = np.arange(60, dtype=np.float32).reshape(shape)
    pairs = [pair([observation(values), observation(np.ones(2))], old=[0]) for _ in range(2)]
    records = read_demo(written(tmp_path / "a.demo", old_brain([3], continuous=False), pairs))
    assert [tuple(spec.shape) for spec in records.spec.observation_specs] == [(3, 5, 4), (2,)]
    first = values if shape[0] == 3 else values.transpose(2, 0, 1)
    assert np.array_equal(records.obs[0][1], first)


def test_masks_are_kept(tmp_path):
    pairs = [pair([0.0], old=[0]), pair([1.0], old=[1]), pair([2.0], old=[1])]
    pairs[1].agent_info.action_mask.extend([True, False, False])
    records = read_demo(written(tmp_path / "a.demo", old_brain([3], continuous=False), pairs))
    assert records.mask is not None
    assert records.mask.tolist() == [[False] * 3, [True, False, False], [False] * 3]


def broken(number: int, **changes: object) -> list:
    """Return the records, one of which is replaced."""
    made = {"obs": [2.0, 3.0], "reward": 0.5, "old": [0], **changes}
    return [*STEPS[:number], pair(made.pop("obs"), made.pop("reward"), **made), *STEPS[number + 1 :]]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (broken(1, obs=[2.0, np.nan]), "record 1 (counted from 0): its observation 0 (sensor) is nan at index 1"),
        (broken(2, reward=np.inf), "record 2 (counted from 0): its reward is inf"),
        (broken(1, obs=[2.0, 3.0, 4.0]), "the observation has the shape (3,); the behavior announced (2,)"),
        (broken(1, obs=[observation(np.ones(2)), observation(np.ones(2))]), "record 1 (counted from 0)"),
        (broken(1, old=[3]), "record 1 (counted from 0): its action is [3.0], and its branches have [3] actions"),
        (broken(1, old=[0.5]), "its action is [0.5]"),
        (broken(1, old=[0, 1]), "its action has 0 continuous and 2 discrete parts"),
        (broken(1, old=[]), "record 1 (counted from 0): it has no action"),
    ],
)
def test_record_that_nothing_can_be_learned_from_is_named(tmp_path, pairs, said):
    path = written(tmp_path / "my expert.demo", old_brain([3], continuous=False), pairs)
    with pytest.raises(DemonstrationError) as raised:
        read_demo(path)
    assert str(path) in str(raised.value)
    assert said in str(raised.value)


def test_action_that_is_not_finite_is_named(tmp_path):
    pairs = [pair([0.0], continuous=[0.5]), pair([0.0], continuous=[np.nan])]
    with pytest.raises(DemonstrationError, match=r"record 1 \(counted from 0\): its action is \[nan\]"):
        read_demo(written(tmp_path / "a.demo", new_brain(1), pairs))


def test_version_that_nobody_knows_is_refused(tmp_path):
    with pytest.raises(DemonstrationError, match="version 2 of the format; mlhooks reads versions 0 and 1"):
        read_demo(written(tmp_path / "a.demo", old_brain([3], continuous=False), STEPS, version=2))


def test_truncated_file_names_the_record_in_which_it_ends(tmp_path):
    content = demo_bytes(old_brain([3], continuous=False), STEPS)
    third = STEPS[2].SerializeToString()
    path = tmp_path / "a.demo"
    path.write_bytes(content[: content.index(third) + len(third) // 2])
    with pytest.raises(DemonstrationError, match=r"was cut in record 2 \(counted from 0\) of 4, as its metadata"):
        read_demo(path)


def test_file_without_records_is_refused(tmp_path):
    path = tmp_path / "a.demo"
    path.write_bytes(demo_bytes(old_brain([3], continuous=False), []).removesuffix(b"\x08\x01\x12\x06Expert"))
    with pytest.raises(DemonstrationError, match="has no records"):
        read_demo(path)


def test_description_that_makes_no_sense_is_refused(tmp_path):
    lacking = observation(np.ones((5, 4, 3)), properties=(2,))
    with pytest.raises(DemonstrationError, match=r"record 0 \(counted from 0\): its observations are described"):
        read_demo(written(tmp_path / "a.demo", old_brain([3], continuous=False), [pair([lacking], old=[0])] * 2))
    with pytest.raises(DemonstrationError, match="is damaged: it describes its actions"):
        read_demo(written(tmp_path / "a.demo", old_brain([-3], continuous=False), [pair([0.0], old=[0])] * 2))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"behaviors:\n  Walk:\n    trainer_type: ppo\n" * 9, "is no demonstration of ML-Agents"),
        (demo_bytes(old_brain([3], continuous=False), STEPS)[:34], "was cut: the description of its behavior"),
    ],
)
def test_file_that_is_no_demonstration_is_refused(tmp_path, content, said):
    path = tmp_path / "a.demo"
    path.write_bytes(content)
    with pytest.raises(DemonstrationError, match=said):
        read_demo(path)


def test_every_place_at_which_a_file_may_be_cut_is_refused_or_read(tmp_path):
    content, path = demo_bytes(old_brain([3], continuous=False), STEPS), tmp_path / "a.demo"
    end = end_of_records(content)
    for size in range(end):
        path.write_bytes(content[:size])
        with pytest.raises(DemonstrationError, match=r"a\.demo"):
            read_demo(Path(path))
    path.write_bytes(content[:end])
    assert len(read_demo(path)) == 4


def test_flipped_bytes_never_end_in_another_error(tmp_path):
    content, path = demo_bytes(old_brain([3], continuous=False), STEPS), tmp_path / "a.demo"
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with contextlib.suppress(DemonstrationError):
            read_demo(path)
