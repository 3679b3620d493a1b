"""Descriptions of spaces: their plain form, damaged ones, and what they hold, against Gymnasium's own spaces."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from mlagents_envs.base_env import ActionTuple

from builtin_plugins.gymnasium_spaces import Reading, describe_spaces
from mlhooks.envs.spaces import (
    ActionDecoder,
    Box,
    Dict,
    Discrete,
    Misfit,
    MultiDiscrete,
    ObservationEncoder,
    Sequence,
    Space,
    SpaceError,
    Spaces,
    Tuple,
)
from tests.builtin_plugins.gymnasium_envs import Short

SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def boxes(draw: st.DrawFn, types: tuple[type, ...] = (np.float32, np.float64, np.int64, np.uint8)) -> spaces.Box:
    shape, dtype = draw(SHAPES), draw(st.sampled_from(types))
    rng = np.random.default_rng(draw(SEEDS))
    low, high = sorted([rng.integers(0, 100, shape), rng.integers(0, 100, shape)], key=lambda bound: bound.sum())
    low, high = np.minimum(low, high), np.maximum(low, high)
    if np.issubdtype(dtype, np.floating):
        low = np.where(rng.random(shape) < 0.2, -np.inf, low / 7)
        high = np.where(rng.random(shape) < 0.2, np.inf, high / 7 + 1)
    return spaces.Box(low.astype(dtype), high.astype(dtype), shape, dtype)


DISCRETE = st.builds(
    lambda n, start, dtype: spaces.Discrete(n, start=start, dtype=dtype),
    st.integers(1, 6),
    st.integers(-5, 5),
    st.sampled_from([np.int64, np.int32, np.int16]),
)
MULTI_DISCRETE = st.builds(
    lambda shape, seed, dtype: spaces.MultiDiscrete(
        np.random.default_rng(seed).integers(1, 5, shape),
        dtype=dtype,
        start=np.random.default_rng(seed + 1).integers(-5, 5, shape),
    ),
    st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple),
    st.integers(0, 1000),
    st.sampled_from([np.int64, np.int32]),
)
PIXELS = st.sampled_from([(6, 5, 3), (4, 6, 6), (6, 5), (2, 6, 5, 3)]).map(lambda s: spaces.Box(0, 255, s, np.uint8))
GRIDS = st.sampled_from([(6, 5, 3), (4, 6, 6), (2, 6, 5, 3)]).map(lambda s: spaces.Box(-1, 1, s))
VECTORS = st.one_of(boxes(), DISCRETE, MULTI_DISCRETE, SHAPES.filter(len).map(spaces.MultiBinary))
SEEN: st.SearchStrategy[spaces.Space[Any]] = st.recursive(
    st.one_of(VECTORS, PIXELS, GRIDS, VECTORS.map(Short), VECTORS.map(lambda part: Short(part, stack=True))),
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.text("abc/", max_size=3), parts, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=5,
)
TAKEN = st.one_of(boxes((np.float32, np.float64)), DISCRETE, MULTI_DISCRETE)


@settings(max_examples=60, deadline=None)
@given(SEEN, TAKEN, SEEDS)
def test_every_space_keeps_its_meaning_in_a_file_and_on_the_way_to_another_process(
    seen: Any, taken: Any, seed: int
) -> None:
    known = describe_spaces(seen, taken, "it", Reading(grids=seed % 2 == 0))
    data = json.loads(json.dumps(known.to_data()))
    for again in (Spaces.from_data(data), pickle.loads(pickle.dumps(known))):
        assert again == known
        assert again.to_data() == known.to_data()
        seen.seed(seed % 2**31)
        samples = [seen.sample() for _ in range(3)]
        batch = gymnasium.vector.utils.concatenate(
            seen, samples, gymnasium.vector.utils.create_empty_array(seen, len(samples))
        )
        assert again.encode.count(samples[0]) is None
        assert again.encode.count(batch) == 3
        for one, all_at_once, before in zip(
            again.encode.each(samples), again.encode(batch, 3), known.encode.each(samples), strict=True
        ):
            np.testing.assert_array_equal(one, all_at_once)
            np.testing.assert_array_equal(one, before)
        for sample in samples:
            again.encode.check(sample)
        assert [spec.shape for spec in again.encode.specs] == [part.shape[1:] for part in again.encode(batch, 3)]


@settings(max_examples=60, deadline=None)
@given(TAKEN, SEEDS)
def test_actions_are_members_of_the_space_one_by_one_and_as_a_batch(taken: Any, seed: int) -> None:
    known = describe_spaces(spaces.Discrete(2), taken, "it")
    rng, spec = np.random.default_rng(seed), known.decode.spec
    continuous = rng.uniform(-1.5, 1.5, (4, spec.continuous_size)).astype(np.float32)
    discrete = np.array([[rng.integers(size) for size in spec.discrete_branches] for _ in range(4)], np.int32)
    action = ActionTuple(continuous, discrete.reshape(4, -1))
    batch = known.decode(action)
    assert gymnasium.vector.utils.batch_space(taken, 4).contains(batch)
    np.testing.assert_array_equal(batch, ActionDecoder(known.action, copies=4)(action))
    sample = taken.sample()
    for one in known.decode.each(batch):
        assert taken.contains(one)
        assert type(one) is type(sample)


JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    2**70,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "O",
    "float32",
    [],
    [[]],
    {},
    {"a": 1},
]
WHOLE = Spaces(
    Dict(
        {
            "eye": Box(0, 255, (6, 6, 3), np.uint8),
            "mood": Tuple([Discrete(3, 1), Sequence(Box([-1, 0], [1, np.inf], (2,)), 4)]),
        }
    ),
    MultiDiscrete([2, 3], (2,), [0, 5]),
).to_data()


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = data.keys() if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    return [path, *(below for key in keys for below in places(data[key], (*path, key)))]


@pytest.mark.parametrize("path", places(WHOLE)[1:], ids=str)
def test_damaged_description_is_refused_or_another_one_and_never_an_error_of_its_own(path: tuple[Any, ...]) -> None:
    for junk in [*JUNK, "remove"]:
        data = copy.deepcopy(WHOLE)
        owner = data
        for key in path[:-1]:
            owner = owner[key]
        if junk == "remove":
            del owner[path[-1]]
        else:
            owner[path[-1]] = junk
        try:
            known = Spaces.from_data(data)
        except SpaceError:
            continue
        assert Spaces.from_data(known.to_data()) == known


def test_description_deeper_than_anybody_needs_is_refused() -> None:
    data: Any = {"space": "Discrete", "n": 2, "start": 0, "dtype": "int64"}
    for _ in range(40):
        data = {"space": "Tuple", "parts": [data]}
    with pytest.raises(SpaceError, match="levels deep"):
        Space.from_data(data)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Box(1, 0, (2,)), "low of Box is above its high"),
        (lambda: Box(np.nan, 0, (2,)), "NaN|no float32"),
        (lambda: Box([0, 0, 0], 1, (2,)), "does not fit its shape"),
        (lambda: Box(0.5, 1, (2,), np.int64), "holds what is no int64"),
        (lambda: Box(0, 1, (2,), np.complex64), "Box of complex64"),
        (lambda: Box(0, 1, (2**40,)), "Box of the shape"),
        (lambda: Discrete(0), "n is 0"),
        (lambda: Discrete(2.0), "no whole number"),  # type: ignore[arg-type]
        (lambda: MultiDiscrete([2, 0], (2,)), "below 1"),
        (lambda: Dict({2.5: Discrete(2)}), "Dict with the key 2.5"),  # type: ignore[dict-item]
        (lambda: Sequence(Dict({"a": Discrete(2)}), 3), "Sequence of Dict"),
        (lambda: Sequence(Box(0, 255, (6, 6), np.uint8), 3), "which is no vector"),
        (lambda: Sequence(Box(0, 1, (2,)), 0), "max_length is 0"),
        (lambda: Sequence(Box(0, 1, (2**20,)), 2**20), "Sequence of the shape"),
        (lambda: Spaces(Discrete(2), Tuple([Discrete(2)])), "nobody can act"),
        (lambda: Spaces(Discrete(2), Box(0, 1, (2,), np.int64)), "nobody can act"),
    ],
)
def test_space_that_is_none_cannot_be_described(make: Any, said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        make()


def test_spaces_say_what_they_are() -> None:
    assert str(Box(-1, 1, (2,))) == "Box(-1, 1, (2,), float32)"
    assert str(Box([-1, 0], [1, np.inf], (2,))) == "Box(-1..0, 1..inf, (2,), float32)"
    assert str(Dict({"a": Tuple([Discrete(2), Discrete(3, 5)])})) == "Dict(a: Tuple(Discrete(2), Discrete(3, start=5)))"
    assert str(Sequence(Discrete(2), 8)) == "Sequence(Discrete(2), up to 8)"
    assert str(MultiDiscrete([2, 3], (2,), [0, 1])) == "MultiDiscrete([2, 3], start=[0, 1])"


def test_sequences_are_filled_up_with_zeros() -> None:
    encode = ObservationEncoder(Dict({"at": Sequence(Box(-1, 1, (2,)), 3), "kind": Sequence(Discrete(2), 2)}))
    assert [spec.shape for spec in encode.specs] == [(3, 2), (2, 2)]
    assert all([kind.name for kind in spec.dimension_property] == ["VARIABLE_SIZE", "NONE"] for spec in encode.specs)
    at, kind = encode.each([{"at": ([0.5, 1.0], [0.0, -1.0]), "kind": (1,)}, {"at": (), "kind": [0, 1]}])
    assert at.tolist() == [[[0.5, 1.0], [0.0, -1.0], [0.0, 0.0]], [[0.0, 0.0]] * 3]
    assert kind.tolist() == [[[0.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]]
    assert at.dtype == kind.dtype == np.float32


@pytest.mark.parametrize(
    ("sequence", "said"),
    [
        (([0.0, 0.0],) * 3, r"float64 of shape \(3, 2\).*Declared: Sequence\(Box.*up to 2"),
        (([0.0],), r"shape \(1, 1\)"),
        (([0.0, 0.0], [0.0]), "whose parts differ in shape"),
        (3.0, r"3.0 \(float\)"),
        (("a", "b"), "given as a tuple"),
        (([0.0, 2.0],), r"Declared: Sequence"),
    ],
)
def test_sequence_that_does_not_fit_is_refused_with_what_was_found(sequence: Any, said: str) -> None:
    encode = ObservationEncoder(Tuple([Sequence(Box(-1, 1, (2,)), 2)]))
    with pytest.raises(Misfit, match=said):
        encode.check((sequence,))
    encode.check((([0.0, 1.0],),))
    encode.check(((),))


@pytest.mark.parametrize(
    ("given", "count"),
    [((), None), (([1.0, 0.0],), None), (np.zeros((3, 2)), None), (((), ()), 2), ((([1.0, 0.0],), ()), 2)],
)
def test_batch_of_sequences_is_told_from_a_single_one(given: Any, count: int | None) -> None:
    assert ObservationEncoder(Sequence(Box(-1, 1, (2,)), 3)).count(given) == count
