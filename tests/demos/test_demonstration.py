"""The transitions of an expert, of one file or a folder, and demonstrations that do not fit a behavior."""

from __future__ import annotations

import numpy as np
import pytest
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType

from mlhooks.demos.demonstration import load_demonstration, read_demos
from mlhooks.errors import DemonstrationError
from tests.demos.made import new_brain, old_brain, pair, written

OLD = [
    pair([10.0], 0.0, old=[2]),
    pair([11.0], -0.5, old=[2]),
    pair([10.0], 1.0, old=[0], done=True),  # It is the first observation of the next episode.
    pair([9.0], -0.25, old=[1]),
    pair([8.0], 0.5),
]
NEW = [
    pair([20.0], 0.0, discrete=[1]),
    pair([21.0], 0.5, discrete=[2]),
    pair([22.0], 1.0, discrete=[0], done=True),  # It is the final observation.
    pair([30.0], 0.0, discrete=[2]),
    pair([31.0], 2.0, discrete=[0], done=True),
]


@pytest.fixture
def old(tmp_path):
    return written(tmp_path / "b old.demo", old_brain([3], continuous=False), OLD)


@pytest.fixture
def new(tmp_path):
    return written(tmp_path / "c new.demo", new_brain(0, [3]), NEW)


def behavior(*shapes: tuple[int, ...], actions: ActionSpec | None = None) -> BehaviorSpec:
    specs = [ObservationSpec(s, (DimensionProperty.NONE,) * len(s), ObservationType.DEFAULT, "eye") for s in shapes]
    return BehaviorSpec(specs, actions or ActionSpec(0, (3,)))


def test_old_file_pairs_each_record_with_the_reward_and_end_of_the_next(old):
    demonstration = load_demonstration(old)
    assert len(demonstration) == 4
    assert demonstration.obs()[0][:, 0].tolist() == [10, 11, 10, 9]
    assert demonstration.discrete[:, 0].tolist() == [2, 2, 0, 1]
    assert demonstration.rewards.tolist() == [-0.5, 1.0, -0.25, 0.5]
    assert demonstration.ended.tolist() == [False, True, False, False]
    assert demonstration.trajectory.tolist() == [0, 0, 1, 1]


def test_new_file_has_no_transition_from_a_final_observation(new):
    demonstration = load_demonstration(new)
    assert demonstration.obs()[0][:, 0].tolist() == [20, 21, 30]
    assert demonstration.next_obs()[0][:, 0].tolist() == [21, 22, 31]
    assert demonstration.discrete[:, 0].tolist() == [1, 2, 2]
    assert demonstration.rewards.tolist() == [0.5, 1.0, 2.0]
    assert demonstration.ended.tolist() == [False, True, True]
    assert demonstration.trajectory.tolist() == [0, 0, 1]


def test_folder_is_one_demonstration_without_a_transition_between_files(tmp_path, old, new):
    (tmp_path / "notes.txt").write_text("no demonstration")
    (tmp_path / f"._{new.name}").write_text("of a system, beside that file")
    demonstration = load_demonstration(tmp_path)
    assert demonstration.obs()[0][:, 0].tolist() == [10, 11, 10, 9, 20, 21, 30]
    assert demonstration.next_obs()[0][:, 0].tolist() == [11, 10, 9, 8, 21, 22, 31]
    assert demonstration.trajectory.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert [file.name for file in read_demos(tmp_path)] == [old.name, new.name]


def test_file_that_begins_with_the_end_of_an_episode_goes_on_with_none_of_the_file_before(tmp_path):
    going_on = [pair([1.0], 0.0, discrete=[1]), pair([2.0], 0.0, discrete=[2]), pair([3.0], 0.0, discrete=[0])]
    written(tmp_path / "a.demo", new_brain(0, [3]), going_on)
    written(tmp_path / "b.demo", new_brain(0, [3]), [pair([19.0], 1.0, discrete=[0], done=True), *NEW])
    demonstration = load_demonstration(tmp_path)
    assert demonstration.obs()[0][:, 0].tolist() == [1, 2, 20, 21, 30]
    assert demonstration.trajectory.tolist() == [0, 0, 1, 1, 2]


def test_rows_are_taken_by_index(new):
    demonstration = load_demonstration(new)
    assert demonstration.obs(np.array([2, 0, 2]))[0][:, 0].tolist() == [30, 20, 30]
    assert demonstration.next_obs(np.array([1]))[0].tolist() == [[22.0]]


def test_relative_path_with_backslashes_belongs_to_the_folder(tmp_path, new):
    (tmp_path / "demos").mkdir()
    new.rename(tmp_path / "demos" / "walk.demo")
    assert len(load_demonstration("demos\\walk.demo", folder=tmp_path)) == 3


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (behavior((1,), actions=ActionSpec(2, ())), "it has 0 continuous actions in place of 2"),
        (behavior((1,), actions=ActionSpec(0, (5,))), "it has the discrete branches [3] in place of [5]"),
        (behavior((4,)), "its observation 0 has the shape (1,) in place of (4,)"),
        (behavior((1,), (2,)), "it has 1 observations in place of 2"),
    ],
)
def test_demonstration_of_another_behavior_is_refused_with_the_difference(new, spec, said):
    with pytest.raises(DemonstrationError) as raised:
        load_demonstration(new, "Climb", spec)
    assert f"{new}, of the behavior 'Walk', does not fit the behavior 'Climb'" in str(raised.value)
    assert said in str(raised.value)


def test_files_of_different_behaviors_are_not_one_demonstration(tmp_path, new):
    other = written(tmp_path / "other.demo", new_brain(0, [2]), [pair([0.0], discrete=[1])] * 2)
    with pytest.raises(DemonstrationError) as raised:
        load_demonstration(tmp_path)
    assert str(other) in str(raised.value)
    assert str(new) in str(raised.value)


def test_missing_file_is_named_with_the_nearest(new):
    with pytest.raises(DemonstrationError, match=r"no demonstration .*c nev\.demo; did you mean c new\.demo\?"):
        load_demonstration(new.with_name("c nev.demo"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "empty", "holds no demonstrations"),
        (lambda folder: folder / "nowhere" / "a.demo", "nor a folder"),
        (lambda folder: folder / ("x" * 5000), "x cannot be read|no demonstration .*x"),
        (lambda folder: folder / "notes.txt", "is no demonstration: those are called NAME.demo"),
    ],
)
def test_what_is_no_demonstration_is_refused(tmp_path, make, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DemonstrationError, match=said):
        load_demonstration(make(tmp_path))


def test_single_record_is_too_short(tmp_path):
    path = written(tmp_path / "a.demo", new_brain(0, [3]), NEW[:1])
    with pytest.raises(DemonstrationError, match="is too short"):
        load_demonstration(path)
