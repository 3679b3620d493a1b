"""`LoadedPolicy.predict` in the terms of the environment that a policy was trained in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

import mlhooks
from mlhooks.envs.spaces import Box, Discrete, Spaces
from mlhooks.errors import CheckpointError, EnvironmentFailure, UsageError
from mlhooks.training.checkpoints import read_state, write_state
from mlhooks.training.prediction import LoadedPolicy
from mlhooks.training.run import Run
from tests.builtin_plugins.gymnasium_envs import Short
from tests.scripted import Corridor, Env, config, train

PIXELS = spaces.Box(0, 255, (20, 24, 3), np.uint8)
FRAMES = spaces.Box(0, 255, (4, 20, 20), np.uint8)
SEEN = {
    "box": spaces.Box(-1, 1, (3,), np.float32),
    "float64": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    "number": spaces.Box(-1, 1, (), np.float32),
    "integers": spaces.Box(-5, 5, (2,), np.int64),
    "bytes": spaces.Box(0, 255, (6,), np.uint8),
    "discrete": spaces.Discrete(4, start=-1),
    "multi discrete": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, -2], [0, 5]]),
    "multi binary": spaces.MultiBinary((2, 2)),
    "pixels": PIXELS,
    "frames": FRAMES,
    "sequence": spaces.Dict({"near": Short(spaces.Box(-1, 1, (2,))), "x": spaces.Box(-1, 1, ())}),
    "tuple": spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (2,))]),
    "dict": spaces.Dict(
        {"b": spaces.Discrete(3), "a": spaces.Tuple([PIXELS, spaces.Dict({"x": spaces.Box(0, 1, ())})])}
    ),
}
TAKEN = {
    "half the torque": spaces.Box(-2.0, 2.0, (1,), np.float32),
    "from 10 to 20": spaces.Box(10.0, 20.0, (2,), np.float64),
    "number": spaces.Box(-8.0, -2.0, (), np.float32),
    "matrix": spaces.Box(np.array([[0.1, -3.0]], np.float32), np.array([[0.7, np.inf]], np.float32)),
    "no bounds": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "from 5": spaces.Discrete(3, start=5),
    "int32": spaces.Discrete(4, dtype=np.int32),
    "branches": spaces.MultiDiscrete([3, 4]),
    "branches from": spaces.MultiDiscrete([[2, 3]], start=[[-1, 10]], dtype=np.int32),
}
PAIRS = [
    *(("box", taken) for taken in TAKEN),
    *((seen, "from 5") for seen in SEEN if seen not in ("box", "pixels", "frames", "dict", "sequence")),
    *((seen, "matrix") for seen in ("pixels", "frames", "dict", "sequence")),  # A small network decides alike on noise.
]


class Noted(gymnasium.Env[Any, Any]):
    """Shows samples of a space, and notes what was done upon them."""

    metadata: ClassVar[dict[str, Any]] = {}
    notes: ClassVar[list[tuple[Any, Any]]] = []

    def __init__(self, seen: str, taken: str) -> None:
        self.observation_space, self.action_space = SEEN[seen], TAKEN[taken]

    def _show(self) -> Any:
        self.shown = self.observation_space.sample()
        return self.shown

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self._show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.notes.append((self.shown, action))
        self.t += 1
        return self._show(), float(np.sum(action)), self.t == 8, False, {}


gymnasium.register("mlhooks-tests/Noted-v0", Noted)


def play(folder: Path, seen: str, taken: str, *, steps: int = 32, **arguments: Any) -> Run:
    settings = config("Noted", "gymnasium:mlhooks-tests/Noted-v0", max_steps=steps)
    settings["behaviors"]["Noted"]["hyperparameters"] |= {"buffer_size": 32, "batch_size": 16, "learning_rate": 0.01}
    settings["behaviors"]["Noted"]["network_settings"] |= {"deterministic": True, "vis_encode_type": "match3"}
    settings["env_settings"] |= {"env_kwargs": {"seen": seen, "taken": taken}, "num_areas": 2}
    return train(settings, folder, **arguments)


WATCH = {"flags": {"checkpoint_settings.inference": True}, "episodes": 4}


def batch_of(space: spaces.Space[Any], observations: Sequence[Any]) -> Any:
    """Return a batch as a vector environment of Gymnasium makes it."""
    return concatenate(space, observations, create_empty_array(space, len(observations)))


@pytest.mark.parametrize(("seen", "taken"), PAIRS)
def test_actions_are_those_that_inference_sends_to_the_environment(tmp_path: Path, seen: str, taken: str) -> None:
    run = play(tmp_path, seen, taken)
    Noted.notes.clear()
    play(tmp_path, seen, taken, **WATCH)
    notes = Noted.notes[:]
    assert len(notes) == 32
    policy = mlhooks.load(run.path)
    space, sample = TAKEN[taken], TAKEN[taken].sample()
    for observation, sent in notes:
        action = policy.predict(observation)
        np.testing.assert_allclose(action, sent, rtol=1e-5, atol=1e-5)
        assert space.contains(action)
        assert type(action) is type(sent) is type(sample)
        assert (action.dtype, action.shape) == (sample.dtype, sample.shape)
    batch = policy.predict(batch_of(SEEN[seen], [observation for observation, _ in notes]))
    assert batch_space(space, len(notes)).contains(batch)
    np.testing.assert_allclose(batch, [sent for _, sent in notes], rtol=1e-5, atol=1e-5)
    if seen != "number":  # Samples of a number are equal where nothing differs.
        assert len(np.unique(np.reshape(batch, (len(notes), -1)), axis=0)) > 1


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedPolicy]:
    pairs = {"discrete": "from 5", "tuple": "branches from", "dict": "half the torque", "frames": "from 5"}
    return {seen: mlhooks.load(play(tmp_path_factory.mktemp(seen), seen, taken).path) for seen, taken in pairs.items()}


def test_what_is_given_may_be_plain_python(policies: dict[str, LoadedPolicy]) -> None:
    numbers, parts = policies["discrete"], policies["tuple"]
    assert numbers.predict(2) == numbers.predict(np.int64(2)) == numbers.predict(np.array([-1, 2]))[1]
    assert numbers.predict([-1, 0, 1, 2]).shape == (4,)
    assert numbers.predict([0]).shape == (1,)
    one = parts.predict((1, [0.5, -0.5]))
    assert one.shape == (1, 2)
    assert (one == parts.predict(([0, 1], [[0.0, 0.0], [0.5, -0.5]]))[1]).all()


WRONG = [
    ("discrete", 3, "the observation is not in its space. Found: 3 (int). Declared: Discrete(4, start=-1)."),
    ("discrete", [0, 3], "Found: 3 (int). Declared"),
    ("discrete", [], "Found: float64 of shape (0,), given as a list. Declared: Discrete(4, start=-1), or a batch."),
    (
        "discrete",
        [[0]],
        "Found: int64 of shape (1, 1), [[0]], given as a list. Declared: Discrete(4, start=-1), or a b",
    ),
    ("tuple", (0, [0.0]), 'observation "1" is not in its space. Found: float64 of shape (1,)'),
    ("tuple", ([0, 1], [0.0, 0.0]), "Found: parts of batches of different sizes: 2, one. Declared: Tuple(Discrete(2),"),
    ("tuple", [0, [0.0, 0.0], 1], "a list of 3, whose parts differ in shape. Declared: a tuple of 2"),
    ("tuple", np.zeros(2), "Found: float64 of shape (2,), [0.0, 0.0]. Declared: a tuple of 2"),
    ("dict", [0.0], "Declared: a dict with the keys 'a', 'b'"),
    ("dict", {"b": 0}, "Found: a dict with the keys 'b'. Declared: a dict with the keys 'a', 'b'"),
    ("frames", np.zeros((20, 20, 4), np.uint8), "Found: uint8 of shape (20, 20, 4), from 0 to 0. Declared: Box(0, 255"),
    ("frames", np.zeros((4, 20, 20)), "Found: float64 of shape (4, 20, 20), from 0 to 0. Declared: Box(0, 255"),
]


@pytest.mark.parametrize(("seen", "observation", "said"), WRONG)
def test_what_does_not_fit_is_refused_with_part_found_and_declared(
    policies: dict[str, LoadedPolicy], seen: str, observation: Any, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        policies[seen].predict(observation)
    assert str(caught.value).startswith("Behavior 'Noted': ")
    assert said in str(caught.value)


@pytest.mark.parametrize("given", ["x", None, [[1.0], [1.0, 2.0]], ["a", "b", "c", "d"]])
def test_raw_observation_of_no_numbers_is_refused_with_what_was_found(
    policies: dict[str, LoadedPolicy], given: Any
) -> None:
    with pytest.raises(UsageError, match="Behavior 'Noted' takes "):
        policies["discrete"].predict(given, raw=True)


@pytest.mark.parametrize(
    ("seen", "observation", "mask", "said"),
    [
        (
            "discrete",
            0,
            [0, 0],
            r"action_mask is int64 of shape \(2,\), .* must be of shape \(3,\), True where an action",
        ),
        ("discrete", [0, 1], [0, 0, 1], r".* must be of shape \(2, 3\)"),
        ("discrete", 0, "x", r"action_mask is 'x' \(str\)"),
        ("discrete", 0, [[0], [0, 1]], "action_mask is a list of 2, whose parts differ in shape"),
        ("discrete", 0, [0.5, 0.5, 0.0], "action_mask is float64"),
        ("discrete", 0, [1, 1, 1], "action_mask forbids all actions of branch 0"),
        ("tuple", (0, [0.0, 0.0]), [0, 0, 1, 1, 1], "action_mask forbids all actions of branch 1"),
        ("dict", None, [0], "action_mask is .*, and must be left out"),
    ],
)
def test_mask_that_does_not_fit_is_refused(
    policies: dict[str, LoadedPolicy], seen: str, observation: Any, mask: Any, said: str
) -> None:
    with pytest.raises(UsageError, match=f"Behavior 'Noted': {said}"):
        policies[seen].predict(SEEN[seen].sample() if observation is None else observation, action_mask=mask)


NOT_FINITE = [
    (lambda: (0, [0.0, np.nan]), False, 'observation "1" holds nan at [1]. A policy'),
    (
        lambda: ([0, 1], [[0.0, 0.0], [-np.inf, 0.0]]),
        False,
        'observation "1" holds -inf at [0], in row 1 of the batch.',
    ),
    (lambda: (1, [0.0, 1e300]), False, 'observation "1" holds inf at [1].'),
    (lambda: [np.zeros(2), np.array([np.nan, 0.0])], True, 'observation "1" holds nan at [0]. A'),
    (lambda: [np.full((2, 2), np.inf), np.zeros((2, 2))], True, 'observation "0" holds inf at [0], in row 0 of the'),
]


@pytest.mark.parametrize(("observation", "raw", "said"), NOT_FINITE)
def test_observation_that_is_not_finite_is_refused_with_part_and_index(
    policies: dict[str, LoadedPolicy], observation: Callable[[], Any], raw: bool, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        policies["tuple"].predict(observation(), raw=raw)
    assert str(caught.value).startswith("Behavior 'Noted': ")
    assert said in str(caught.value)


def test_infinite_number_is_refused_although_the_space_has_no_bounds_and_told_by_its_place_in_the_space(
    tmp_path: Path,
) -> None:
    policy = mlhooks.load(play(tmp_path, "float64", "from 5").path)
    with pytest.raises(UsageError, match=r"the observation holds inf at \[1, 0\]\."):
        policy.predict(np.array([[0.0, 1.0], [np.inf, 0.0]]))


def test_policy_shows_what_it_takes_and_gives(policies: dict[str, LoadedPolicy], tmp_path: Path) -> None:
    assert repr(policies["discrete"]) == "LoadedPolicy('Noted', Discrete(4, start=-1) -> Discrete(3, start=5))"
    policy = mlhooks.load(train(config("Corridor", "test:x", max_steps=100), tmp_path, Env()).path)
    assert str(policy) == "LoadedPolicy('Corridor', observations (3,) -> actions discrete (2,))"


def test_loaded_policy_has_the_bound_of_normalized_observations_that_it_was_trained_with(tmp_path: Path) -> None:
    network = {"hidden_units": 8, "num_layers": 1, "normalize": True, "normalize_clip": 0.25}
    run = train(config("Corridor", "test:x", max_steps=100, network_settings=network), tmp_path, Env())
    inputs = mlhooks.load(run.path)._policy.inputs
    assert np.abs(inputs.features([np.full((1, 3), 9.0, np.float32)])).max() == 0.25


def test_raw_takes_and_gives_what_mlagents_does(policies: dict[str, LoadedPolicy]) -> None:
    classes = np.eye(4, dtype=np.float32)
    numbers = policies["discrete"]
    assert type(numbers.predict(classes[0], raw=True)) is int
    raw = numbers.predict(classes, raw=True)
    assert raw.shape == (4, 1)
    assert (raw[:, 0] + 5).tolist() == numbers.predict([-1, 0, 1, 2]).tolist()
    seen = SEEN["dict"].sample()
    torque = policies["dict"]
    arrays = [np.moveaxis(seen["a"][0], -1, 0), [seen["a"][1]["x"]], np.eye(3, dtype=np.float32)[seen["b"]]]
    np.testing.assert_allclose(2 * torque.predict(arrays, raw=True), torque.predict(seen), rtol=1e-5)


def test_masks_and_random_actions_are_in_the_environments_terms(policies: dict[str, LoadedPolicy]) -> None:
    numbers = policies["discrete"]
    for allowed in range(3):
        mask = np.arange(3) != allowed
        assert numbers.predict(0, action_mask=mask) == allowed + 5
        assert numbers.predict([0, 1], action_mask=[mask] * 2).tolist() == [allowed + 5] * 2
    drawn = {int(numbers.predict(0, deterministic=False)) for _ in range(200)}
    assert drawn == {5, 6, 7}
    branches = policies["tuple"].predict((0, [0.0, 0.0]), action_mask=[True, False, True, False, True])
    assert branches.tolist() == [[0, 11]]


def without_description(path: Path) -> Path:
    state = read_state(path)
    del state["mlhooks"]["spaces"]
    write_state(path.with_name("old.pt"), state)
    return path.with_name("old.pt")


def test_file_that_knows_no_spaces_acts_as_mlagents_does_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = play(tmp_path, "discrete", "from 5").path
    policy = mlhooks.load(without_description(path / "Noted.policy.pt"))
    assert policy.predict(np.eye(4, dtype=np.float32)[0]) in (0, 1, 2)
    policy.predict(np.eye(4, dtype=np.float32))
    told = [message for message in caplog.messages if "does not know the spaces of its environment" in message]
    assert len(told) == 1
    assert "'Noted'" in told[0]


def test_environment_that_speaks_as_mlagents_does_gets_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = mlhooks.load(train(config("Corridor", "test:x", max_steps=100), tmp_path, Env()).path)
    assert policy.spaces is None
    assert policy.predict(np.zeros((7, 3))).shape == (7, 1)
    assert caplog.messages == [message for message in caplog.messages if "spaces" not in message]


def test_worker_processes_hand_on_the_spaces(tmp_path: Path) -> None:
    settings = config("Pendulum", "gymnasium:Pendulum-v1", max_steps=100)
    run = train(settings, tmp_path, flags={"env_settings.num_envs": 2})
    policy = mlhooks.load(run.path)
    assert policy.spaces is not None
    assert policy.spaces.action == Box(-2.0, 2.0, (1,))


@pytest.mark.parametrize("how", [{"resume": True, "steps": 64}, WATCH], ids=["resume", "inference"])
def test_other_action_space_with_the_same_numbers_is_refused(tmp_path: Path, how: dict[str, Any]) -> None:
    play(tmp_path, "box", "half the torque")
    TAKEN["twice the torque"] = spaces.Box(-4.0, 4.0, (1,), np.float32)
    said = r"learned to act in Box\(-2, 2, \(1,\), float32\), and the environment takes Box\(-4, 4, \(1,\), float32\)\."
    with pytest.raises(UsageError, match=said):
        play(tmp_path, "box", "twice the torque", **how)
    assert mlhooks.load(tmp_path / "run").spaces.action == Box(-2.0, 2.0, (1,))  # type: ignore[union-attr]


def test_other_observation_space_with_the_same_numbers_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    play(tmp_path, "box", "from 5")
    SEEN["wide box"] = spaces.Box(-2, 2, (3,), np.float32)
    play(tmp_path, "wide box", "from 5", resume=True, steps=64)
    told = [message for message in caplog.messages if message.startswith("The spaces of behavior 'Noted' have changed")]
    assert len(told) == 1
    assert mlhooks.load(tmp_path / "run").spaces == Spaces(Box(-2, 2, (3,)), Discrete(3, 5))


LIES = [
    ({"n": 4}, r"Discrete\(4, start=5\), whose actions are not the behavior's: 0 continuous ones and \[3\]"),
    ({"n": "3"}, r"n is '3', and no whole number"),
    ({"space": "Discreet"}, r"a dict of 4, which describes no space"),
    ({"dtype": "O"}, r"the type 'O', which is none of"),
]


@pytest.mark.parametrize(("change", "said"), LIES)
def test_description_that_lies_is_a_damaged_checkpoint(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = play(tmp_path, "box", "from 5").path / "Noted.policy.pt"
    state = read_state(path)
    state["mlhooks"]["spaces"]["action"] |= change
    write_state(path, state)
    with pytest.raises(CheckpointError, match=rf"Noted\.policy\.pt .*: it describes the spaces .* as {said}"):
        mlhooks.load(path)


@pytest.mark.parametrize(
    ("spoken", "said"),
    [
        ({"Corridor": "Box(3)"}, r"as a str; it must be a mlhooks\.plugin\.Spaces"),
        ({"Corridor": Spaces(Box(-1, 1, (3,)), Discrete(9))}, r"whose actions are not the behavior's"),
        ({"Corridor": Spaces(Box(-1, 1, (4,)), Discrete(2))}, r"makes observations of the shapes \[\[4\]\] and not"),
    ],
)
def test_environment_that_describes_other_spaces_than_it_has_is_refused(
    tmp_path: Path, spoken: dict[str, Any], said: str
) -> None:
    class Speaking(Corridor):
        behavior_spaces = spoken

    with pytest.raises(EnvironmentFailure, match=said):
        train(config("Corridor", "test:x", max_steps=100), tmp_path, Env(Speaking))


def test_environment_of_a_plugin_may_describe_its_spaces(tmp_path: Path) -> None:
    class Speaking(Corridor):
        behavior_spaces: ClassVar[dict[str, Spaces]] = {"Corridor": Spaces(Box(0, 9, (3,)), Discrete(2, start=7))}

    policy = mlhooks.load(train(config("Corridor", "test:x", max_steps=400), tmp_path, Env(Speaking)).path)
    assert policy.predict(np.zeros(3)) in (7, 8)
    assert policy.predict(np.zeros(3)) == policy.predict(np.zeros(3), raw=True) + 7


ROOT = Path(__file__).parents[2]


def test_examples_in_python_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/python.md"))
    snippets = [text for text in re.findall(r"```python\n(.*?)```", pages, re.DOTALL) if "predict" in text]
    assert len(snippets) == 3
    names: dict[str, Any] = {}
    short = ["behaviors.CartPole.max_steps=200"]
    real = mlhooks.train
    monkeypatch.setattr(mlhooks, "train", lambda *args, **kwargs: real(*args, overrides=short, **kwargs))
    for snippet in snippets:
        exec(snippet, names)
    assert names["env"].action_space.contains(names["action"])
    assert names["envs"].action_space.contains(names["actions"])
