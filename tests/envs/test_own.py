"""Environment classes and functions of one's own: named by file or module, or handed over in Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import gymnasium
import pytest

import mlhooks
from mlhooks.envs.own import accepts
from mlhooks.envs.references import find, is_file_reference, load_file, reference_to
from mlhooks.errors import EnvironmentFailure, MlhooksError, UsageError
from mlhooks.plugin import EnvironmentKind, Interface, hookimpl
from mlhooks.plugins import load_plugins
from mlhooks.settings import RunOptions
from mlhooks.training.environment_scheme import make_factory, scheme_and_name
from tests.builtin_plugins.gymnasium_envs import Walk
from tests.scripted import QUIET
from tests.scripted import Corridor as Batched

SOURCE = """
    import gymnasium as gym
    import numpy as np
    from mlagents_envs.base_env import BaseEnv

    from tests.scripted import Corridor as Batched

    class Corridor(gym.Env):
        observation_space = gym.spaces.Box(0.0, 9.0, (1,), np.float32)
        action_space = gym.spaces.Discrete(2)

        def __init__(self, length=3):
            self.length = length

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.at = 0
            return np.array([self.at], np.float32), {}

        def step(self, action):
            self.at = max(0, self.at + (1 if action == 1 else -1))
            done = self.at >= self.length
            return np.array([self.at], np.float32), 1.0 if done else -0.1, done, False, {}

    class Wings:
        class Left(Corridor):
            pass

    class Team(Batched):
        def __init__(self, num_areas=1, seed=0, worker_id=0):
            super().__init__("Runner", agents=3 * num_areas)
            self.given = seed, worker_id

    class Alone(Batched):
        pass

    class Needs(Corridor):
        def __init__(self, size):
            super().__init__()

    class Fails(Corridor):
        def __init__(self):
            raise ValueError("no map")

    class NoSpace(gym.Env):
        pass

    class NoEnv:
        pass

    def make_env(length=4):
        return gym.wrappers.TimeLimit(Corridor(length), 20)

    def make_team():
        return Team(2)

    def make_registered():
        return gym.make("CartPole-v1")

    def make_two():
        return gym.vector.SyncVectorEnv([Corridor, Corridor])

    def make_nothing():
        return 5

    number = 5
    ready = Corridor()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "envs").mkdir()
    for name in ("corridor", "envs/hallway"):
        (tmp_path / f"{name}.py").write_text(dedent(SOURCE), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def factory(env_path: str, *, maker: Any = None, **settings: Any):
    options = RunOptions.model_validate({"env_settings": {"env_path": env_path, "seed": 3, **settings}})
    options.own_environment = maker
    made = make_factory(options, load_plugins(names=QUIET))
    made.check()
    return made


def behaviors(env_path: str, **settings: Any) -> dict[str, int]:
    """Return how many agents each behavior of worker 1 has."""
    env = factory(env_path, **settings)(1)
    env.reset()
    agents = {name: len(env.get_steps(name)[0]) for name in env.behavior_specs}
    env.close()
    return agents


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("corridor.py:Corridor", True),
        ("envs/corridor.py:Corridor", True),
        (r"C:\envs\corridor.py:Corridor", True),
        ("C:/my envs/corridor.py:Corridor", True),
        (r"..\corridor.py:Outer.Inner", True),
        ("corridor.py", False),
        (r"C:\Builds\Game.exe", False),
        ("gymnasium:corridor.py:Corridor", False),
        ("gymnasium:CartPole-v1", False),
    ],
)
def test_class_of_a_file_is_told_from_players_and_schemes(text, named):
    assert is_file_reference(text) == named
    assert (scheme_and_name(text) == ("python", text)) == named


@pytest.mark.parametrize(
    ("env_path", "agents"),
    [
        ("corridor.py:Corridor", {"Corridor": 2}),
        ("envs/hallway.py:Corridor", {"Corridor": 2}),
        ("./corridor.py:Corridor", {"Corridor": 2}),
        ("corridor:Corridor", {"Corridor": 2}),
        ("envs.hallway:Corridor", {"Corridor": 2}),
        ("python:corridor:Corridor", {"Corridor": 2}),
        ("python:corridor.py:Corridor", {"Corridor": 2}),
        ("gymnasium:corridor:Corridor", {"Corridor": 2}),
        ("gymnasium:corridor.py:Corridor", {"Corridor": 2}),
        ("corridor.py:Wings.Left", {"Left": 2}),
        ("corridor.py:make_env", {"Corridor": 2}),
        ("corridor.py:make_registered", {"CartPole": 2}),
        ("corridor.py:Team", {"Runner": 6}),
    ],
)
def test_environment_of_ones_own_is_made_whatever_its_spelling_and_interface(folder, env_path, agents):
    assert behaviors(env_path, num_areas=2) == agents


@pytest.mark.parametrize(
    ("env_path", "agents"),
    [("corridor.py:make_team", {"Runner": 6}), ("corridor.py:Alone", {"Corridor": 4}), ("corridor.py:make_two", None)],
)
def test_environment_that_is_not_copied_has_the_agents_that_it_has(folder, env_path, agents):
    assert behaviors(env_path) == (agents or {"SyncVectorEnv": 2})


def test_absolute_path_needs_no_working_directory(folder, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert behaviors(f"{folder / 'envs' / 'hallway.py'}:Corridor") == {"Corridor": 1}


@pytest.mark.parametrize("env_path", ["results/run/evil.py:Evil", "results.run.evil:Evil"])
def test_nothing_in_the_folder_of_a_run_is_imported(folder, env_path):
    Path("results/run/run_logs").mkdir(parents=True)
    Path("results/run/run_logs/training_status.json").write_text("{}", encoding="utf-8")
    Path("results/run/evil.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"lies in results.run, the folder of a run"):
        factory(env_path)


def test_function_is_called_once_to_tell_what_it_makes(folder):
    calls = []

    def make():
        calls.append(1)
        return Walk()

    made = factory("python:x:make", maker=make)
    assert (made.behavior_names(), made.takes_areas(), made.behavior_names()) == (["Walk"], True, ["Walk"])
    assert len(calls) == 1


def test_names_are_known_before_an_environment_runs(folder):
    assert factory("corridor.py:Corridor").behavior_names() == ["Corridor"]
    assert factory("gymnasium:corridor:Corridor").behavior_names() == ["Corridor"]
    assert factory("corridor.py:make_env").behavior_names() == ["Corridor"]
    assert factory("corridor.py:Team").behavior_names() is None  # A BaseEnv names its own.


def test_arguments_are_those_of_the_constructor_and_of_gymnasium(folder):
    env = factory("corridor.py:Corridor", env_kwargs={"length": 7, "max_episode_steps": 11})(0)
    (copy,) = env._opened
    assert copy.unwrapped.length == 7
    assert (type(copy).__name__, copy._max_episode_steps) == ("TimeLimit", 11)
    env = factory("corridor.py:make_env", env_kwargs={"length": 7, "max_episode_steps": 11})(0)
    assert env._opened[0].unwrapped.length == 7


def test_base_env_gets_what_its_constructor_names(folder):
    assert factory("corridor.py:Team")(2).given == (3, 2)  # These are the seed and the worker's number.


def test_registered_id_outranks_a_class_of_the_module(folder):
    Path("twice.py").write_text(
        dedent(SOURCE) + "class Other(Corridor):\n    pass\n\n\ngym.register('Corridor', entry_point=Other)\n",
        encoding="utf-8",
    )
    try:
        env = factory("gymnasium:twice:Corridor")(0)
        assert type(env._opened[0].unwrapped).__name__ == "Other"
    finally:
        gymnasium.registry.pop("Corridor", None)


@pytest.mark.parametrize(
    ("env_path", "settings", "message"),
    [
        ("coridor.py:Corridor", {}, r"There is no file coridor.py; did you mean corridor.py\?"),
        ("nowhere/corridor.py:Corridor", {}, "There is no file nowhere.corridor.py, nor a folder"),
        ("corridor.py:Coridor", {}, r"corridor.py has no class or function 'Coridor'; did you mean Corridor\?"),
        ("corridor:Coridor", {}, r"did you mean Corridor\?"),
        ("corridor.py:", {}, "No class is named behind corridor.py: say which, as in corridor.py:Corridor"),
        ("python:nosuch:Corridor", {}, "There is no module 'nosuch'"),
        ("nosuch:Corridor", {}, "no environment kind 'nosuch'.*as in corridor.py:Corridor"),
        (
            "corridor.py:NoEnv",
            {},
            r"is a class \(corridor.py:\d+\) that is no environment: it must be a gymnasium.Env or",
        ),
        ("corridor.py:make_nothing", {}, "makes an int, which is no environment"),
        ("corridor.py:number", {}, "is an int; name a class, or a function"),
        ("corridor.py:ready", {}, "is a Corridor; name a class, or a function"),
        ("corridor.py:Needs", {}, r"needs arguments: missing a required argument: 'size' \(corridor.py:\d+\)"),
        ("corridor.py:Needs", {"env_kwargs": {"sise": 3}}, r"does not take the arguments \{'sise': 3\}"),
        ("corridor.py:make_env", {"env_kwargs": {"sise": 3}}, "got an unexpected keyword argument 'sise'"),
        ("corridor.py:Alone", {"num_areas": 2}, "takes no argument num_areas"),
    ],
)
def test_what_cannot_be_made_says_why_before_anything_is_written(folder, env_path, settings, message):
    with pytest.raises(UsageError, match=message):
        factory(env_path, **settings)(0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Fails", r"corridor.py:Fails does not start: ValueError: no map \(corridor.py:LINE\)"),
        ("NoSpace", r"corridor.py:NoSpace has no observation_space: set self.observation_space in __init__"),
    ],
)
def test_constructor_that_fails_is_named_with_its_line(folder, name, message):
    line = 1 + dedent(SOURCE).splitlines().index('        raise ValueError("no map")')
    with pytest.raises(EnvironmentFailure, match=message.replace("LINE", str(line))):
        factory(f"corridor.py:{name}")(0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nimport nosuchmodule\n", r"No module named 'nosuchmodule' \(broken.py:2\)"),
        ("\n1 / 0\n", r"ZeroDivisionError: division by zero \(broken.py:2\)"),
        ("x = (\n", r"SyntaxError: '\(' was never closed \(broken.py:1\)"),
        ("raise SystemExit(3)\n", r"SystemExit: 3 \(broken.py:1\)"),
        ("import gym\n", "gym has become gymnasium: write import gymnasium as gym"),
        ("from . import other\n", "A file of a package is named as its module is"),
    ],
)
def test_file_that_does_not_import_is_named_with_the_line(folder, monkeypatch, source, message):
    monkeypatch.setitem(sys.modules, "gym", None)
    Path("broken.py").write_text(source, encoding="utf-8")
    with pytest.raises(UsageError, match=r"broken.py does not import: .*" + message):
        find("broken.py:Corridor")


def test_file_is_imported_once_until_it_changes_and_imports_what_lies_beside_it(folder):
    Path("envs/sizes.py").write_text("SIZE = 4\n", encoding="utf-8")
    file = Path("envs/random.py")  # The standard library has a module of this name.
    file.write_text("from sizes import SIZE\nclass A:\n    size = SIZE\n", encoding="utf-8")
    first = load_file(file)
    assert (first.A.size, load_file(file)) == (4, first)
    file.write_text("class A:\n    size = 5\n", encoding="utf-8")
    os.utime(file, ns=(1, 1))
    assert load_file(file).A.size == 5
    import random

    assert hasattr(random, "shuffle")


def test_class_that_is_handed_over_is_named_by_its_module_and_of_a_script_by_its_file(folder, monkeypatch):
    assert reference_to(Walk) == "python:tests.builtin_plugins.gymnasium_envs:Walk"
    assert reference_to(find("corridor.py:Wings.Left")) == "corridor.py:Wings.Left"
    assert find(reference_to(Walk).removeprefix("python:")) is Walk
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(folder / "script.py"))
    monkeypatch.setattr(Walk, "__module__", "__main__")
    assert reference_to(Walk) == "script.py:Walk"
    with pytest.raises(UsageError, match=r"was handed to mlhooks.train and has no name"):
        find("corridor.py:<lambda>")


SHORT = ["behaviors.*.max_steps=60", "behaviors.*.hyperparameters.buffer_size=20"]
SHORT += ["behaviors.*.hyperparameters.batch_size=10"]


@pytest.mark.parametrize("workers", [1, 2])
def test_training_in_a_class_a_function_and_a_lambda(tmp_path, workers):
    class Local(Walk):
        pass

    for number, (env, behavior) in enumerate({Local: "Local", (lambda far=1.0: Walk(far)): "Walk"}.items()):
        run = mlhooks.train(
            env=env,
            run_id=str(number),
            results_dir=tmp_path,
            seed=1,
            flags={"env_settings.num_envs": workers, "env_settings.num_areas": 2},
            overrides=SHORT,
            plugin_names=QUIET,
        )
        assert run.outcome.status == "finished"
        assert list(run.trainers) == [behavior]


def test_training_in_several_processes_by_a_file(folder):
    flags = {"env_settings.num_envs": 2, "env_settings.num_areas": 2}
    run = mlhooks.train(env="envs/hallway.py:make_env", flags=flags, overrides=SHORT, plugin_names=QUIET)
    assert list(run.trainers) == ["Corridor"]
    assert "env_path: envs/hallway.py:make_env" in (run.path / "configuration.yaml").read_text(encoding="utf-8")


def test_what_cannot_be_sent_to_workers_says_so(tmp_path):
    with (tmp_path / "open").open("w") as file:

        def make():
            file.write("")
            return Walk()

        with pytest.raises(MlhooksError, match=r"The environment cannot be sent to worker processes: .*--num-envs"):
            mlhooks.train(
                env=make,
                results_dir=tmp_path,
                flags={"env_settings.num_envs": 2},
                overrides=SHORT,
                plugin_names=QUIET,
            )


def test_environment_that_was_made_already_is_refused(tmp_path):
    with pytest.raises(UsageError, match="env=Walk, or a function"):
        mlhooks.train(env=Walk(), results_dir=tmp_path)  # type: ignore[arg-type]


def test_batched_environment_can_be_handed_over(tmp_path):
    run = mlhooks.train(env=Batched, results_dir=tmp_path, overrides=SHORT, plugin_names=QUIET)
    assert list(run.trainers) == ["Corridor"]


def test_accepts_tells_named_arguments_only():
    assert accepts(lambda size: size, "size")
    assert not accepts(lambda **rest: rest, "size")


class Board:
    """An environment of an interface that only a plugin knows."""


def test_kind_of_a_plugin_runs_classes_of_its_own_interface(tmp_path):
    def adapt(maker, *, title, behavior_name, num_areas, **_):
        assert isinstance(maker(), Board)
        return Batched(behavior_name, agents=num_areas)

    class Kind:
        @hookimpl
        def get_env_types(self):
            interface = Interface(f"{__name__}.Board", adapt, lambda made: "Board")
            return {"boards": EnvironmentKind(lambda *_, **__: None, lambda *_: None, interfaces=[interface])}

    class Chess(Board):
        pass

    arguments = {"results_dir": tmp_path, "overrides": SHORT, "plugin_names": QUIET}
    run = mlhooks.train(env=Chess, plugins=[Kind()], **arguments)
    assert list(run.trainers) == ["Chess"]
    assert run.options.env_settings.num_areas == 8
    with pytest.raises(
        UsageError, match=r"no environment: it must be a gymnasium.Env or .*or mlagents_envs.base_env.BaseEnv"
    ):
        mlhooks.train(env=Chess, run_id="without", **arguments)
