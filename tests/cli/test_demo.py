"""`mlhooks demo info` and `mlhooks demo record`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlhooks.cli import main
from mlhooks.demos.demonstration import load_demonstration
from mlhooks.demos.reading import read_demo
from tests.demos.made import new_brain, pair, written
from tests.scripted import config, train

SCRIPT = """
def right(observation):
    return 2

def swing(observation):
    return [2.0] if observation[2] > 0 else [-2.0]

class Stay:
    def __call__(self, observation):
        return 0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def record(*arguments: str, code: int = 0) -> None:
    assert main(["demo", "record", *arguments]) == code


def info(path: str, capsys) -> dict:
    capsys.readouterr()
    assert main(["demo", "info", path, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_info_tells_what_is_in_a_file(folder, capsys):
    pairs = [pair([0.0, 1.0], discrete=[1, 0]), pair([1.0, 1.0], 0.5, discrete=[0, 0], done=True)] * 2
    written(folder / "walk.demo", new_brain(0, [3, 2]), pairs)
    assert info("walk.demo", capsys) == {
        "path": "walk.demo",
        "behavior": "Walk",
        "observations": [{"name": "sensor", "shape": [2]}],
        "actions": {"continuous": 0, "discrete": [3, 2]},
        "steps": 4,
        "transitions": 2,
        "episodes": 2,
        "mean_reward": 0.5,
    }
    assert main(["demo", "info", "walk.demo"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "walk.demo: behavior 'Walk'",
        "  observation 0 (sensor): [2]",
        "  actions: 0 continuous, discrete branches [3, 2]",
        "  4 steps in 2 episodes, mean reward 0.500; 2 transitions to learn from",
    ]


def test_info_of_a_folder_tells_of_each_file(folder, capsys):
    (folder / "demos").mkdir()
    for name, branches in (("a", [3]), ("b", [2])):
        written(folder / "demos" / f"{name}.demo", new_brain(0, branches), [pair([0.0], discrete=[1])] * 2)
    described = info("demos", capsys)["files"]
    assert [Path(each["path"]).name for each in described] == ["a.demo", "b.demo"]
    assert [each["actions"]["discrete"] for each in described] == [[3], [2]]


@pytest.mark.parametrize("name", ["nothing.demo", "script.py", "empty"])
def test_info_refuses_what_is_no_demonstration(folder, capsys, name):
    (folder / "empty").mkdir()
    assert main(["demo", "info", name]) == 2
    assert name in capsys.readouterr().err


def test_scripted_policy_in_a_simulation(folder, capsys):
    record("--env", "sim:Basic", "--policy", "script.py:right", "--episodes", "3", "-o", "basic.demo")
    assert "basic.demo: 24 steps in 3 episodes, mean reward 0.930; 21 transitions" in capsys.readouterr().out
    assert info("basic.demo", capsys)["mean_reward"] == pytest.approx(0.93)
    demonstration = load_demonstration("basic.demo")
    assert demonstration.discrete[:, 0].tolist() == [2] * 21


def test_class_is_made_and_called(folder):
    record("--env", "sim:Basic", "--policy", "script.py:Stay", "--episodes", "1", "-o", "stay.demo")
    assert load_demonstration("stay.demo").discrete[:, 0].tolist() == [0] * 100


def test_scripted_policy_of_a_gymnasium_environment_acts_in_its_terms(folder):
    record("--env", "gymnasium:Pendulum-v1", "--policy", "script.py:swing", "--episodes", "1", "-o", "up.demo")
    demonstration = load_demonstration("up.demo")
    assert len(demonstration) == 200
    assert demonstration.ended.tolist() == [False] * 199 + [True]
    speed = demonstration.obs()[0][:, 2]
    assert np.array_equal(demonstration.continuous[:, 0], np.where(speed > 0, 1, -1))


def test_random_policy_is_reproducible(folder):
    for name in ("a", "b"):
        record("--env", "gymnasium:CartPole-v1", "--episodes", "2", "--seed", "4", "-o", f"{name}.demo")
    one, other = read_demo(folder / "a.demo"), read_demo(folder / "b.demo")
    assert one.obs[0].tolist() == other.obs[0].tolist()
    assert one.discrete.tolist() == other.discrete.tolist()
    assert set(one.discrete[:, 0].tolist()) == {0, 1}


def test_policy_of_a_run_acts_as_it_would(folder):
    run = train(config("Basic", "sim:Basic", max_steps=200, hyperparameters={"buffer_size": 50}), folder / "results")
    policy = run.trainers["Basic"].policy
    for name, where in (("a", [run.run_id]), ("b", [str(run.path)])):
        record(*where, "--episodes", "2", "-o", f"{name}.demo")
        demonstration = load_demonstration(f"{name}.demo")
        policy.deterministic = True
        expected = policy.act(demonstration.obs(), None, np.random.default_rng(0)).discrete
        assert demonstration.discrete.tolist() == expected.tolist()
    record(run.run_id, "--stochastic", "--seed", "1", "--episodes", "1", "-o", "c.demo")
    assert len(set(load_demonstration("c.demo").discrete[:, 0].tolist())) > 1
    record(run.run_id, "--env", "sim:3DBall", "--episodes", "1", "-o", "d.demo", code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name a RUN"),
        (["nothing"], "no run 'nothing'"),
        (["--env", "sim:Basik"], "There is no simulation"),
        (["--env", "sim:Basic", "--policy", "best"], "--policy best is that of a RUN"),
        (["--env", "sim:Basic", "--policy", "script.py:left"], "no class or function 'left'"),
        (["--env", "sim:Basic", "--behavior", "Walk"], "--behavior NAME"),
        (["--env", "sim:Basic", "-o", "x.txt"], "a demonstration is called NAME.demo"),
        (["--env", "sim:Basic", "-o", "there.demo"], "exists already"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_nothing_is_written(folder, capsys, arguments, said):
    (folder / "there.demo").write_text("")
    record(*arguments, *(() if "-o" in arguments else ("-o", "x.demo")), code=2)
    assert said in capsys.readouterr().err
    assert not (folder / "x.demo").exists()
    assert (folder / "there.demo").read_text() == ""


def test_force_replaces_a_file(folder):
    (folder / "there.demo").write_text("")
    record("--env", "sim:Basic", "--policy", "script.py:right", "--episodes", "1", "-o", "there.demo", "--force")
    assert len(load_demonstration("there.demo")) == 7
