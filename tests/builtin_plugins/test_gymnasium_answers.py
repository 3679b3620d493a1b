"""What environments answer that is not what Gymnasium's interface or their own spaces allow."""

from __future__ import annotations

import inspect
import re

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from mlagents_envs.base_env import ActionTuple

from builtin_plugins.gymnasium_copies import GymnasiumCopies
from builtin_plugins.gymnasium_vector import GymnasiumVector
from mlhooks.errors import ContractBroken, EnvironmentFailure

WHITE = np.full((6, 5, 3), 255, np.uint8)
BYTES = spaces.Box(0, 255, (6, 5, 3), np.uint8)
FRAMES = spaces.Box(0, 255, (3, 6, 5), np.uint8)
UNIT = spaces.Box(-1.0, 1.0, (2,), np.float32)


class Scripted(gymnasium.Env):
    """Shows what it is told to: `first` after a reset, `then` after each step, `last` when an episode ends."""

    action_space = spaces.Discrete(2)

    def __init__(self, space, first, length=3, **answers):
        self.observation_space = space
        self.first, self.then = first, answers.pop("then", first)
        self.last = answers.pop("last", self.then)
        self.length, self.answers = length, answers
        self.t = 0

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.answers.get("reset", (self.first, {}))

    def step(self, action):
        self.t += 1
        if "step" in self.answers:
            return self.answers["step"]
        over = self.t >= self.length
        parts = {"reward": 1.0, "terminated": over, "truncated": False} | self.answers
        shown = self.last if over else self.then
        return shown, parts["reward"], parts["terminated"], parts["truncated"], {}


def copies(*envs, check="first"):
    return GymnasiumCopies(*envs, behavior_name="Told", title="gymnasium:Told-v0", seed=1, check=check)


def play(env, steps=6):
    env.reset()
    for _ in range(steps):
        env.step()
        assert len(env.get_steps("Told")[0])


def said_of(bad, space, *, good, where="first", check="first", steps=6):
    """Return what is said when the second of three copies shows it; the others behave."""
    shown = {"first": good, "then": good, "last": good} | {where: bad}
    env = copies(Scripted(space, good), Scripted(space, **shown), Scripted(space, good), check=check)
    with pytest.raises(EnvironmentFailure) as caught:
        play(env, steps)
    return str(caught.value)


BENT = {
    "floats as bytes": (BYTES, np.full((6, 5, 3), 0.9, np.float32), WHITE, "float32 of shape (6, 5, 3), from 0.9"),
    "whole floats as bytes": (BYTES, np.ones((6, 5, 3)), WHITE, "float64 of shape (6, 5, 3), from 1 to 1"),
    "300 as a byte": (BYTES, np.full((6, 5, 3), 300), WHITE, "int64 of shape (6, 5, 3), from 300 to 300"),
    "-1 as a byte": (BYTES, np.full((6, 5, 3), -1, np.int8), WHITE, "int8 of shape (6, 5, 3), from -1 to -1"),
    "channels last": (FRAMES, WHITE, np.moveaxis(WHITE, -1, 0), "uint8 of shape (6, 5, 3)"),
    "another shape": (UNIT, np.zeros((1, 2)), np.zeros(2), "float64 of shape (1, 2)"),
    "a text": (UNIT, ["0.5", "0.5"], np.zeros(2), "of shape (2,), given as a list"),
    "None": (UNIT, [None, 0.5], np.zeros(2), "object of shape (2,), given as a list"),
    "nothing": (UNIT, None, np.zeros(2), "None (NoneType)"),
    "complex numbers": (UNIT, np.zeros(2, complex), np.zeros(2), "complex128 of shape (2,)"),
    "ragged lists": (UNIT, [[0.0], [0.0, 1.0]], np.zeros(2), "a list of 2, whose parts differ in shape"),
    "a fraction as a whole": (spaces.Box(0, 9, (2,), np.int64), np.array([0.5, 1]), np.zeros(2, int), "[0.5, 1.0]"),
    "a whole beyond": (spaces.Box(0, 9, (2,), np.uint8), np.array([300, 1]), np.zeros(2, np.uint8), "[300, 1]"),
    "class -1": (spaces.Discrete(4), -1, 0, "-1 (int)"),
    "class 4": (spaces.Discrete(4), np.int64(4), 0, "np.int64(4) (int64)"),
    "class 0 of those from 5": (spaces.Discrete(3, start=5), 0, 5, "0 (int)"),
    "half a class": (spaces.Discrete(4), 0.5, 0, "0.5 (float)"),
    "an array as a class": (spaces.Discrete(4), np.array([1]), 0, "int64 of shape (1,), [1]"),
    "a neighbour's value": (spaces.MultiDiscrete([2, 3]), np.array([2, 0]), np.array([0, 0]), "[2, 0]"),
    "below a start": (spaces.MultiDiscrete([2, 3], start=[1, 1]), np.array([1, 0]), np.array([1, 1]), "[1, 0]"),
    "2 as a bit": (
        spaces.MultiBinary(2),
        np.array([2, 0], np.int8),
        np.array([1, 0], np.int8),
        "int8 of shape (2,), [2, 0]",
    ),
    "half a bit": (spaces.MultiBinary(2), np.array([0.5, 0]), np.array([1, 0], np.int8), "[0.5, 0.0]"),
}


@pytest.mark.parametrize("where", ["first", "then", "last"])
@pytest.mark.parametrize(("space", "bad", "good", "found"), BENT.values(), ids=BENT)
def test_what_would_be_bent_is_refused_always_with_what_was_found_and_declared(space, bad, good, found, where):
    said = said_of(bad, space, good=good, where=where, check="never")
    method = "reset" if where == "first" else "step"
    place = f"{__file__.rpartition('/')[2]}:{inspect.getsourcelines(getattr(Scripted, method))[1]}"
    assert said.startswith(f"gymnasium:Told-v0 failed in {method}() of copy 1: the observation is not in its space. ")
    assert f"{found}" in said.partition("Found: ")[2].partition(". Declared: ")[0]
    assert place in said
    assert "check=never" not in said


NESTED = spaces.Dict({"eye": spaces.Dict({"left": BYTES}), "mood": spaces.Tuple([spaces.Discrete(2), UNIT])})
FINE = {"eye": {"left": WHITE}, "mood": (1, np.zeros(2))}


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        ({**FINE, "eye": {"left": WHITE / 255}}, 'observation "eye/left" is not in its space. Found: float64'),
        ({**FINE, "mood": (2, np.zeros(2))}, 'observation "mood/0" is not in its space. Found: 2 (int). Declared: D'),
        ({**FINE, "mood": (1,)}, 'observation "mood" is not in its space. Found: int64 of shape (1,), [1], given as a'),
        ({**FINE, "mood": 1}, 'observation "mood" is not in its space. Found: 1 (int). Declared: a tuple of 2'),
        ({"mood": FINE["mood"]}, "Found: a dict with the keys 'mood'. Declared: a dict with the keys 'eye', 'mood'"),
        (WHITE, "Found: uint8 of shape (6, 5, 3), from 255 to 255. Declared: a dict with the keys 'eye', 'mood'"),
    ],
)
def test_the_part_of_a_nested_observation_is_named(bad, found):
    assert found in said_of(bad, NESTED, good=FINE, check="never")


STRICT = {
    "beyond a bound": (UNIT, np.array([1.5, 0.0]), np.zeros(2), "[1.5, 0.0]. Declared: Box(-1, 1, (2,), float32)"),
    "beyond a whole bound": (spaces.Box(0, 9, (2,), np.int64), np.array([0, 10]), np.zeros(2, int), "[0, 10]"),
    "a key too many": (spaces.Dict({"a": UNIT}), {"a": np.zeros(2), "b": 1}, {"a": np.zeros(2)}, "keys 'a', 'b'"),
}


@pytest.mark.parametrize(("space", "bad", "good", "found"), STRICT.values(), ids=STRICT)
def test_what_is_not_bent_is_warned_of_once_at_the_ends_of_episodes(space, bad, good, found, caplog):
    play(copies(Scripted(space, good, last=bad), Scripted(space, good, length=2, last=bad)), steps=8)
    (said,) = caplog.messages
    assert said.startswith("gymnasium:Told-v0: at the end of an episode the observation is not in its space. Found: ")
    assert found in said
    assert said.endswith(". Training goes on with it.")
    with pytest.raises(EnvironmentFailure, match=r"in step\(\) of copy 1: the observation is not in its space"):
        play(copies(*[Scripted(space, good), Scripted(space, good, last=bad)], check="always"))


@pytest.mark.parametrize("where", ["first", "then"])
@pytest.mark.parametrize(("space", "bad", "good", "found"), STRICT.values(), ids=STRICT)
def test_what_is_not_bent_is_refused_when_observations_are_looked_at_in_full(space, bad, good, found, where):
    said = said_of(bad, space, good=good, where=where)
    assert found in said
    assert "or turn this check off by --set env_settings.check=never." in said
    play(copies(*[Scripted(space, **({"first": good, "then": good, "last": good} | {where: bad}))] * 2, check="never"))


def test_the_first_observations_are_looked_at_or_all_or_none():
    class Late(Scripted):
        def step(self, action):
            shown, *rest = super().step(action)
            return shown + 2.0 * (self.t == 2), *rest

    play(copies(Late(UNIT, np.zeros(2))))
    play(copies(Late(UNIT, np.zeros(2)), check="never"))
    with pytest.raises(EnvironmentFailure, match=r"Found: float64 of shape \(2,\), \[2\.0, 2\.0\]"):
        play(copies(Late(UNIT, np.zeros(2)), check="always"))


LOSSLESS = {
    "float64": (UNIT, np.array([0.5, -1.0])),
    "a list": (UNIT, [0.5, -1.0]),
    "whole numbers as floats": (UNIT, np.array([1, -1])),
    "bools as floats": (UNIT, np.array([True, False])),
    "rounded past a bound": (UNIT, np.array([1.0000001, -1.0])),
    "rounded past a large bound": (spaces.Box(-4.8e4, 4.8e4, (2,), np.float32), np.array([48000.1, 0.0])),
    "a list of bytes": (BYTES, WHITE.tolist()),
    "bytes as int64": (BYTES, WHITE.astype(np.int64)),
    "bools as bytes": (BYTES, WHITE > 3),
    "floats of whole numbers": (spaces.Box(0, 9, (2,), np.int64), np.array([3.0, 9.0])),
    "a class as int32": (spaces.Discrete(4), np.int32(3)),
    "a class as an array": (spaces.Discrete(4), np.array(3)),
    "a list of classes": (spaces.MultiDiscrete([2, 3]), [1, 2]),
    "bools as bits": (spaces.MultiBinary(2), np.array([True, False])),
    "a number as a Box of one": (spaces.Box(-1, 1, (), np.float32), 0.25),
    "no bounds": (spaces.Box(-np.inf, np.inf, (1,), np.float32), np.array([3e30])),
}


@pytest.mark.parametrize(("space", "shown"), LOSSLESS.values(), ids=LOSSLESS)
def test_what_loses_nothing_is_taken(space, shown):
    env = copies(Scripted(space, shown), Scripted(space, shown), check="always")
    play(env)
    (obs,) = env.get_steps("Told")[0].obs
    if isinstance(space, spaces.Box):
        flat = np.moveaxis(np.asarray(shown), -1, 0) if space is BYTES else np.asarray(shown, np.float32).ravel()
        np.testing.assert_array_equal(obs[1], flat)


def said_of_answers(**answers):
    env = copies(Scripted(UNIT, np.zeros(2)), Scripted(UNIT, np.zeros(2), **answers))
    with pytest.raises(EnvironmentFailure) as caught:
        play(env)
    return str(caught.value)


@pytest.mark.parametrize(
    ("reward", "found"),
    [
        (None, "None (NoneType)"),
        ("1.5", "'1.5' (str)"),
        (np.array([1.0]), "float64 of shape (1,), [1.0]"),
        ([1.0], "float64 of shape (1,), [1.0], given as a list"),
        (1j, "1j (complex)"),
        (np.complex64(1), "complex64"),
        (10**400, "(int)"),
        ({"a": 1.0}, "a dict with the keys 'a'"),
    ],
)
def test_reward_that_is_no_number_is_refused_in_words(reward, found):
    said = said_of_answers(reward=reward)
    place = f"test_gymnasium_answers.py:{inspect.getsourcelines(Scripted.step)[1]}"
    assert said.startswith("gymnasium:Told-v0 failed in step() of copy 1: step() returned the reward ")
    assert found in said
    assert "a reward must be a single number, as float(reward) makes it" in said
    assert said.endswith(f"{place}).")


@pytest.mark.parametrize("reward", [2, True, np.float32(1.5), np.int8(3), np.array(2.5), np.bool_(True), 1.25])
def test_reward_of_every_numeric_type_is_taken(reward):
    env = copies(Scripted(UNIT, np.zeros(2), reward=reward))
    play(env, 1)
    assert env.get_steps("Told")[0].reward.tolist() == [float(reward)]


@pytest.mark.parametrize("name", ["terminated", "truncated"])
@pytest.mark.parametrize("value", [None, np.array([True]), "no", 2, 0.5, [], {"a": True}])
def test_end_that_is_neither_true_nor_false_is_refused(name, value):
    assert f" as {name}, which must be True or False" in said_of_answers(**{name: value})


@pytest.mark.parametrize("value", [1, np.bool_(True), np.array(True), np.int64(1)])
def test_ends_of_every_type_of_truth_are_taken(value):
    env = copies(Scripted(UNIT, np.zeros(2), truncated=value))
    play(env, 1)
    assert env.get_steps("Told")[1].interrupted.tolist() == [True]


@pytest.mark.parametrize("observation", [np.zeros(2), {"a": 1, "b": 2}, (np.zeros(2), np.zeros(2)), [0.0, 0.0], 3])
def test_reset_that_returns_the_observation_alone_is_told_what_to_return(observation):
    said = said_of_answers(reset=observation)
    assert "failed in reset() of copy 1: reset() must return (observation, info), with a dict as info, and" in said
    assert "Gym before 0.26" in said
    assert "write `return observation, {}`" in said


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((np.zeros(2), 1.0, False, {}), "returned 4 values. If they are (observation, reward, done, info), this is"),
        ((np.zeros(2), 1.0, False), "returned 3 values"),
        (np.zeros(2), "returned float64 of shape (2,), [0.0, 0.0]"),
        (None, "returned None (NoneType)"),
    ],
)
def test_step_that_returns_something_else_is_told_what_to_return(answer, found):
    said = said_of_answers(step=answer)
    assert f"step() must return (observation, reward, terminated, truncated, info) and {found}" in said


def test_old_interface_below_gymnasiums_own_wrappers_is_named():
    class Old(Scripted):
        def reset(self):
            return self.first

    said = []
    for told in (Old(UNIT, np.zeros(2)), Scripted(UNIT, np.zeros(2), step=(np.zeros(2), 1.0, False, {}))):
        env = copies(gymnasium.wrappers.TimeLimit(told, 9))
        with pytest.raises(ContractBroken) as caught:
            play(env)
        said.append(str(caught.value))
    assert "reset() must take the keyword arguments seed and options; without them, this is the int" in said[0]
    assert f"test_gymnasium_answers.py:{inspect.getsourcelines(Old.reset)[1]})" in said[0]
    assert "step() (observation, reward, terminated, truncated, info); with fewer values, this is the int" in said[1]
    assert f"test_gymnasium_answers.py:{inspect.getsourcelines(Scripted.step)[1]})" in said[1]


def test_place_is_that_of_the_environment_below_wrappers():
    wrapped = gymnasium.wrappers.TimeLimit(Scripted(UNIT, np.zeros((1, 2))), 9)
    with pytest.raises(EnvironmentFailure) as caught:
        copies(wrapped).reset()
    assert f"test_gymnasium_answers.py:{inspect.getsourcelines(Scripted.reset)[1]})" in str(caught.value)


class Fleet(gymnasium.vector.VectorEnv):
    """A vector environment that shows what it is told to."""

    def __init__(self, mode=AutoresetMode.SAME_STEP, **answers):
        self.num_envs = 3
        self.metadata = {"autoreset_mode": mode}
        self.single_observation_space, self.single_action_space = UNIT, spaces.Discrete(2)
        self.answers, self.t = answers, 0

    def reset(self, *, seed=None, options=None):
        return self.answers.get("reset", (np.zeros((3, 2)), {}))

    def step(self, actions):
        self.t += 1
        over = np.array([False, self.t % 3 == 0, False])
        parts = {"obs": np.zeros((3, 2)), "rewards": np.ones(3), "terminated": over, "truncated": over & False}
        parts |= self.answers
        info = {"final_obs": self.answers.get("final", np.zeros((3, 2)))}
        return *(parts[name] for name in ("obs", "rewards", "terminated", "truncated")), info


def of_element(row, value):
    batch = np.zeros((3, 2))
    batch[row] = value
    return batch


FLEET = {
    "reset": ({"reset": (of_element(2, 7.0), {})}, r"failed in reset\(\) of copy 2: .*\[7\.0, 7\.0\]"),
    "obs": ({"obs": of_element(1, -7.0)}, r"failed in step\(\) of copy 1: .*\[-7\.0, -7\.0\]"),
    "final": ({"final": of_element(1, 7.0)}, r"failed in step\(\) of copy 1: .*\[7\.0, 7\.0\]"),
    "objects": (
        {"final": np.array([None, [0.0, 7.0], None], object)},
        r"failed in step\(\) of copy 1: .*\[0\.0, 7\.0\], given as a list",
    ),
    "rows": (
        {"obs": np.zeros((2, 2))},
        r"step\(\): the observation .* Found: float64 of shape \(2, 2\), .* Declared: 3 times Box\(-1, 1",
    ),
    "old reset": ({"reset": np.zeros((3, 2))}, r"reset\(\) must return \(observation, info\)"),
    "rewards": ({"rewards": [None, 1.0, 1.0]}, r"object of shape \(3,\).* as rewards, which must be 3 numbers"),
    "reward": ({"rewards": 1.0}, r"1\.0 \(float\) as rewards, which must be 3 numbers"),
    "ends": ({"terminated": [None] * 3}, r"as terminated, which must be 3 times True or False"),
    "cuts": ({"truncated": False}, r"as truncated, which must be 3 times True or False"),
}


@pytest.mark.parametrize(("answers", "said"), FLEET.values(), ids=FLEET)
def test_vector_environments_are_looked_at_alike(answers, said):
    env = GymnasiumVector(Fleet(**answers), behavior_name="Told", title="gymnasium:Told-v0", seed=1, check="always")
    with pytest.raises(EnvironmentFailure, match=said):
        play(env)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environment_that_behaves_is_let_be(mode):
    play(GymnasiumVector(Fleet(mode), behavior_name="Told", title="gymnasium:Told-v0", seed=1, check="always"), 9)


def test_all_copies_are_closed_where_the_first_cannot_be():
    closed = []

    class Stuck(Scripted):
        def close(self):
            closed.append(self.length)
            raise RuntimeError(f"door {self.length}")

    env = copies(*[Stuck(UNIT, np.zeros(2), length=length) for length in (1, 2, 3)])
    with pytest.raises(RuntimeError, match="door 1"):
        env.close()
    env.close()
    assert closed == [1, 2, 3]


def test_actions_are_members_of_their_space_and_as_it_samples_them():
    kinds = [
        spaces.Box(-8.0, -2.0, (1,), np.float32),
        spaces.Box(0.1, 0.7, (2, 2), np.float64),
        spaces.Box(-1.0, 1.0, (), np.float32),
        spaces.Box(np.array([-np.inf, 0.0], np.float32), np.array([np.inf, np.inf], np.float32)),
        spaces.Discrete(3, start=5),
        spaces.Discrete(3, dtype=np.int32),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [10, -1]]),
        spaces.MultiDiscrete([2, 3], dtype=np.int16),
    ]
    for space in kinds:
        given = []

        class Takes(Scripted):
            action_space = space

            def step(self, action):
                given.append(action)  # noqa: B023
                return super().step(action)

        env = copies(Takes(UNIT, np.zeros(2)), Takes(UNIT, np.zeros(2)))
        env.reset()
        rng = np.random.default_rng(3)
        spec = env.behavior_specs["Told"].action_spec
        for _ in range(20):
            branches = [rng.integers(size, size=2) for size in spec.discrete_branches]
            discrete = np.stack(branches, axis=1) if branches else np.zeros((2, 0))
            continuous = rng.uniform(-1.0, 1.0, (2, spec.continuous_size))
            env.set_actions("Told", ActionTuple(continuous.astype(np.float32), discrete.astype(np.int32)))
            env.step()
        sample = space.sample()
        for action in given:
            assert space.contains(action)
            assert type(action) is type(sample)
            assert (action.dtype, action.shape) == (sample.dtype, sample.shape)
        assert len({re.sub(r"\s", "", str(action)) for action in given}) > 1
