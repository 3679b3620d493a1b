"""What an encoder or a decoder of spaces did is undone."""

from __future__ import annotations

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple

from mlhooks.envs.spaces import ActionDecoder, Box, Dict, Discrete, MultiBinary, MultiDiscrete, ObservationEncoder
from mlhooks.envs.spaces import Tuple as TupleSpace
from mlhooks.envs.spaces.inverse import ActionMisfit, action_of, observation_of

RNG = np.random.default_rng(0)


def pixels(*shape: int) -> tuple[Box, np.ndarray]:
    return Box(0, 255, shape, np.uint8), RNG.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("space", "member"),
    [
        (Box(-1, 1, (2, 3)), RNG.uniform(-1, 1, (2, 3)).astype(np.float32)),
        (Box(0, 9, (2,), np.int64), np.array([3, 9])),
        (Discrete(5, start=2), np.int64(4)),
        (MultiDiscrete([[2, 3], [4, 2]], (2, 2), [[0, 1], [0, 0]]), np.array([[1, 3], [2, 0]])),
        (MultiBinary((2, 2)), np.array([[0, 1], [1, 0]], np.int8)),
        pixels(6, 5),
        pixels(6, 5, 3),
        pixels(2, 6, 5, 3),
        pixels(4, 6, 5),
        (Box(0, 1, (6, 7, 2), np.int8, grid=True), RNG.integers(0, 2, (6, 7, 2)).astype(np.int8)),
        (Box(0, 1, (5, 3, 3), bool, grid=True), RNG.integers(0, 2, (5, 3, 3)).astype(bool)),
        (Box(-1, 1, (2, 4, 3, 2), grid=True), RNG.uniform(-1, 1, (2, 4, 3, 2)).astype(np.float32)),
    ],
    ids=str,
)
def test_observation_comes_back_as_the_environment_showed_it(space, member):
    encoded = ObservationEncoder(space).each([member])
    back = observation_of(space, [array[0] for array in encoded])
    assert np.array_equal(back, member)
    assert np.asarray(back).dtype == np.asarray(member).dtype


def test_parts_of_dicts_and_tuples_come_back_to_their_places():
    space = Dict({"speed": Box(-1, 1, (2,)), "rest": TupleSpace([Discrete(3), Box(-1, 1, (1,))])})
    member = {"speed": np.array([0.5, -0.5], np.float32), "rest": (np.int64(2), np.array([0.25], np.float32))}
    back = observation_of(space, [array[0] for array in ObservationEncoder(space).each([member])])
    assert back["speed"].tolist() == [0.5, -0.5]
    assert back["rest"][0] == 2
    assert back["rest"][1].tolist() == [0.25]


BOX = Box([-2, 0, -np.inf], [2, 1, np.inf], (3,))


@pytest.mark.parametrize(
    ("space", "action", "numbers"),
    [
        (BOX, [1.0, 0.25, 7.0], [0.5, -0.5, 7.0]),
        (BOX, np.array([-3, 2, 0]), [-1.0, 1.0, 0.0]),  # They are beyond the bounds.
        (Box(-2, 2, ()), 1.0, [0.5]),
        (Discrete(3, start=5), 6, [1]),
        (MultiDiscrete([2, 3], (2,), [0, 1]), (1, 3), [1, 2]),
    ],
)
def test_action_of_the_environment_is_that_of_the_behavior(space, action, numbers):
    assert action_of(space, action).tolist() == numbers


def test_decoder_gives_the_action_again():
    for space, action in [(BOX, [1.0, 0.25, 7.0]), (MultiDiscrete([2, 3], (2,), [0, 1]), [1, 3])]:
        numbers = action_of(space, action)[None]
        nothing = np.zeros((1, 0))
        given = ActionTuple(numbers, nothing) if isinstance(space, Box) else ActionTuple(nothing, numbers)
        assert ActionDecoder(space)(given)[0].tolist() == action


@pytest.mark.parametrize(
    ("space", "action"),
    [
        *((BOX, action) for action in ([1.0], [np.nan, 0, 0], "left", None, [[1], [2, 3], 4])),
        *((Discrete(3), action) for action in (3, -1, 0.5, [1])),
        (MultiDiscrete([2, 3], (2,)), [2, 0]),
    ],
)
def test_what_is_no_action_of_the_space_is_refused(space, action):
    with pytest.raises(ActionMisfit, match="which"):
        action_of(space, action)
