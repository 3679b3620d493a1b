"""Observations and actions of every kind of Gymnasium space, against Gymnasium's own flattening and bounds."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from mlagents_envs.base_env import ActionTuple, DimensionProperty

from mlhooks.envs.spaces import Box, ObservationEncoder
from mlhooks.errors import UnsupportedError
from tests.builtin_plugins.gymnasium_envs import Short, make

SPACES = "mlhooks-tests/Spaces-v0"


def members(env):
    opened = env._opened
    return [member.unwrapped for member in (opened[0].envs if isinstance(opened[0], VectorEnv) else opened)]


def encoded(space, name=SPACES, **settings):
    """Return specs, and pairs of what the adapter gave and what each of two copies had shown, over ten steps."""
    env = make(name, {"observation_space": space}, num_areas=2, **settings)
    (behavior,) = env.behavior_specs
    env.reset()
    pairs = []
    for _ in range(10):
        steps, ended = env.get_steps(behavior)
        shown = {agent: member.shown for agent, member in enumerate(members(env))}
        for row, agent in enumerate(steps.agent_id):
            pairs.append(([part[row] for part in steps.obs], shown[agent][-1]))
        for row, agent in enumerate(ended.agent_id):
            # Where the next episode has begun already, its first observation is the last one shown.
            begun = agent in steps.agent_id
            pairs.append(([part[row] for part in ended.obs], shown[agent][-2 if begun else -1]))
        env.step()
    return env.behavior_specs[behavior].observation_specs, pairs


LEAVES = [
    spaces.Box(-1, 1, (3,), np.float64),
    spaces.Box(-1, 1, (), np.float32),
    spaces.Box(-np.inf, np.inf, (2, 3), np.float32),
    spaces.Box(0, 4, (2, 2), np.uint8),
    spaces.Box(-5, 5, (2,), np.int64),
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, -2], [0, 5]]),
    spaces.MultiBinary(3),
    spaces.MultiBinary((2, 2)),
]


@pytest.mark.parametrize("space", LEAVES, ids=str)
def test_elementary_spaces_become_vectors(space):
    (spec,), pairs = encoded(space)
    assert spec.shape == (spaces.flatdim(space),)
    assert spec.name == "observation"
    for (given,), shown in pairs:
        assert given.dtype == np.float32
        start = getattr(space, "start", 0)
        unshifted = spaces.MultiDiscrete(space.nvec) if isinstance(space, spaces.MultiDiscrete) else space
        flat = spaces.flatten(unshifted, shown - start if unshifted is not space else shown)
        np.testing.assert_array_equal(given, np.asarray(flat, dtype=np.float32))


@pytest.mark.parametrize("name", [SPACES, *(f"mlhooks-tests/Spaces{mode.value}-v0" for mode in AutoresetMode)])
def test_parts_of_nested_spaces_are_observations_named_by_their_path(name):
    space = spaces.Dict(
        {
            "wheels": spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (2,))]),
            "arm": spaces.Dict({"joint": spaces.MultiBinary(2)}),
        }
    )
    specs, pairs = encoded(space, name)
    assert [(spec.name, spec.shape) for spec in specs] == [("arm/joint", (2,)), ("wheels/0", (2,)), ("wheels/1", (2,))]
    for (joint, first, second), shown in pairs:
        np.testing.assert_array_equal(joint, shown["arm"]["joint"])
        assert first.tolist() == [float(i == shown["wheels"][0]) for i in range(2)]
        np.testing.assert_array_equal(second, shown["wheels"][1])


@pytest.mark.parametrize(
    ("shape", "channels_first"),
    [
        ((6, 5, 3), (3, 6, 5)),
        ((4, 6, 6), (4, 6, 6)),
        ((6, 5), (1, 6, 5)),
        ((2, 6, 5, 3), (6, 6, 5)),
        ((4, 4, 6), (6, 4, 4)),  # There are more channels than a side has pixels.
        ((6, 4, 4), (6, 4, 4)),
    ],
)
def test_boxes_of_bytes_become_images_with_channels_first(shape, channels_first):
    (spec,), pairs = encoded(spaces.Box(0, 255, shape, np.uint8))
    assert spec.shape == channels_first
    moves = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
    assert spec.dimension_property == (DimensionProperty.NONE, moves, moves)
    for (given,), shown in pairs:
        assert np.moveaxis(given, 0, -1).flags.c_contiguous  # Experience is kept in this order.
        axes = {3: (2, 0, 1), 4: (0, 3, 1, 2)}.get(len(shape), (0, 1))
        expected = (shown if shape == channels_first else shown.transpose(axes)).reshape(channels_first)
        assert given.dtype == np.uint8
        np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("dtype", [np.int8, np.float64, bool])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((6, 7, 2), (2, 0, 1)),
        ((2, 6, 7), (0, 1, 2)),
        ((3, 3, 5), (2, 0, 1)),  # The channels of a small board outnumber its sides.
        ((5, 3, 3), (0, 1, 2)),
        ((2, 4, 3, 2), (0, 3, 1, 2)),
    ],
)
def test_boards_become_grids_with_channels_first_where_the_settings_say_so(shape, axes, dtype):
    space = spaces.Dict({"board": spaces.Box(0, 1, shape, dtype), "speed": spaces.Box(-1, 1, (2,))})
    flat, _ = encoded(space)
    assert [spec.shape for spec in flat] == [(np.prod(shape),), (2,)]
    (spec, speed), pairs = encoded(space, grid_observations=True)
    moves = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
    assert spec.dimension_property == (DimensionProperty.NONE, moves, moves)
    assert speed.shape == (2,)
    for (given, _), shown in pairs:
        assert given.dtype == np.float32
        assert given.shape == spec.shape
        np.testing.assert_array_equal(given, shown["board"].transpose(axes).reshape(spec.shape).astype(np.float32))


def test_images_vectors_and_members_of_sequences_are_no_grids():
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (6, 5, 3), np.uint8),
            "near": Short(spaces.Box(-1, 1, (2, 1, 1))),
            "table": spaces.Box(-1, 1, (4, 3)),
        }
    )
    specs, pairs = encoded(space, grid_observations=True)
    assert [spec.shape for spec in specs] == [(3, 6, 5), (3, 2), (12,)]
    assert pairs[0][0][0].dtype == np.uint8


@pytest.mark.parametrize("shape", [(6, 5, 3), (4, 6, 6), (6, 5), (2, 6, 5, 3)])
def test_images_are_copies_of_what_an_environment_may_write_over(shape):
    encode = ObservationEncoder(Box(0, 255, shape, np.uint8))
    buffer = np.full((2, *shape), 7, np.uint8)
    kept = [*encode(buffer, 2), *encode.each(list(buffer))]
    buffer[:] = 0
    assert all((images == 7).all() for images in kept)


@pytest.mark.parametrize("stack", [False, True])
@pytest.mark.parametrize("name", [SPACES, *(f"mlhooks-tests/Spaces{mode.value}-v0" for mode in AutoresetMode)])
def test_sequences_become_entities_and_zeros(name, stack):
    space = spaces.Dict({"near": Short(spaces.Box(-1, 1, (2,)), stack=stack), "speed": spaces.Box(-1, 1, (1,))})
    specs, pairs = encoded(space, name)
    assert [(spec.name, spec.shape) for spec in specs] == [("near", (3, 2)), ("speed", (1,))]
    assert specs[0].dimension_property == (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE)
    lengths = set()
    for (near, speed), shown in pairs:
        count = len(shown["near"])
        lengths.add(count)
        np.testing.assert_array_equal(near[:count], np.reshape(shown["near"], (count, 2)))
        assert not near[count:].any()
        np.testing.assert_array_equal(speed, shown["speed"])
    assert lengths == {1, 2, 3} | ({0} if not stack else set())


def test_sequence_without_a_maximum_is_refused_unless_the_settings_say_one():
    space = {"observation_space": spaces.Dict({"near": spaces.Sequence(spaces.Box(-1, 1, (2,)))})}
    with pytest.raises(UnsupportedError, match=r'"near" of .*Sequence.*max_length.*env_settings.max_entities'):
        make(SPACES, space)
    env = make(SPACES, space, max_entities=5)
    ((spec,),) = (found.observation_specs for found in env.behavior_specs.values())
    assert spec.shape == (5, 2)


@pytest.mark.parametrize(
    "space",
    [spaces.Graph(spaces.Box(-1, 1, (2,)), None), Short(spaces.Graph(spaces.Box(-1, 1, (2,)), None))],
    ids=["graph", "graphs"],
)
def test_graphs_are_refused_by_name(space):
    with pytest.raises(UnsupportedError, match=r'"b" of gymnasium:mlhooks-tests/Spaces-v0 has the space Graph'):
        make(SPACES, {"observation_space": spaces.Dict({"a": spaces.Discrete(2), "b": space})})


def test_sequence_of_images_is_refused_by_name():
    with pytest.raises(UnsupportedError, match=r"observation.*Sequence of Box.*no vector"):
        make(SPACES, {"observation_space": Short(spaces.Box(0, 255, (6, 6, 3), np.uint8))})


def test_unusable_observation_space_is_refused_by_name():
    with pytest.raises(UnsupportedError, match=r'"b" of gymnasium:mlhooks-tests/Spaces-v0 .*Text'):
        make(SPACES, {"observation_space": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Text(5)})})


def taken(space, action):
    """Return what each of three copies was given for a batch of actions."""
    env = make(SPACES, {"action_space": space}, num_areas=3)
    env.reset()
    env.set_actions("Spaces", action)
    env.step()
    return env.behavior_specs["Spaces"].action_spec, [member.given[-1] for member in members(env)]


def test_bounded_numbers_map_linearly_and_unbounded_ones_pass():
    space = spaces.Box(np.array([-2, 0, -np.inf, 1], np.float32), np.array([2, 10, np.inf, np.inf], np.float32))
    actions = np.array([[-1, -1, -1, -1], [0, 0, 0, 0.5], [1, 0.5, 7, 3]], np.float32)
    spec, given = taken(space, ActionTuple(continuous=actions))
    assert (spec.continuous_size, spec.discrete_branches) == (4, ())
    # The last number has a lower bound only.
    np.testing.assert_allclose(given, [[-2, 0, -1, 1], [0, 5, 0, 1], [2, 7.5, 7, 3]])


def test_actions_stay_within_bounds():
    # 0.1 and 0.7 do not add up in float32.
    space = spaces.Box(np.float32(0.1), np.float32(0.7), (2, 2), np.float32)
    spec, given = taken(space, ActionTuple(continuous=np.array([[1.0] * 4, [-1.0] * 4, [1.5, -1.5, 0.0, 1.0]])))
    assert spec.continuous_size == 4
    for action in given:
        assert action.shape == (2, 2)
        assert space.contains(action)
    np.testing.assert_allclose(given[2], [[0.7, 0.1], [0.4, 0.7]], rtol=1e-6)


def test_bounds_as_wide_as_numbers_go_are_none():
    space = spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (1,))
    _, given = taken(space, ActionTuple(continuous=np.array([[0.5], [-3.0], [100.0]])))
    assert np.ravel(given).tolist() == [0.5, -3.0, 100.0]


def test_discrete_actions_count_from_the_start_of_their_space():
    spec, given = taken(spaces.Discrete(3, start=-1), ActionTuple(discrete=np.array([[0], [1], [2]])))
    assert spec.discrete_branches == (3,)
    assert given == [-1, 0, 1]


def test_multi_discrete_actions_are_branches():
    space = spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [10, -1]])
    actions = np.array([[0, 0, 0, 0], [1, 2, 3, 4], [1, 0, 2, 0]])
    spec, given = taken(space, ActionTuple(discrete=actions))
    assert spec.discrete_branches == (2, 3, 4, 5)
    assert [action.tolist() for action in given] == [[[0, 1], [10, -1]], [[1, 3], [13, 3]], [[1, 1], [12, -1]]]


@pytest.mark.parametrize(
    "space", [spaces.MultiBinary(2), spaces.Box(0, 9, (1,), np.int64), spaces.Tuple([spaces.Discrete(2)])], ids=str
)
def test_unusable_action_space_is_refused_by_name(space):
    with pytest.raises(UnsupportedError) as caught:
        make(SPACES, {"action_space": space})
    assert str(space) in str(caught.value)


@pytest.mark.parametrize("name", ["CartPole", "Acrobot", "MountainCarContinuous", "Pendulum", "FrozenLake", "Taxi"])
def test_registered_environments_run_without_warnings(name):
    env = make(name, num_areas=2)
    env.reset()
    (behavior,) = env.behavior_specs
    shapes = [(2, *spec.shape) for spec in env.behavior_specs[behavior].observation_specs]
    for _ in range(5):
        env.step()
        decisions, _ = env.get_steps(behavior)
        assert [obs.shape for obs in decisions.obs] == shapes
        assert all(np.isfinite(obs).all() for obs in decisions.obs)
    env.close()
