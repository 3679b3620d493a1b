"""Runs in environments of PettingZoo, from the command line: settings, teams, classes of one's own, and loading."""

from __future__ import annotations

import json
from textwrap import dedent

import numpy as np
import pytest

import mlhooks
from mlhooks.cli import main
from mlhooks.plugins import load_plugins
from mlhooks.settings import RunOptions
from mlhooks.training.environment_scheme import make_factory

NIM, HUNT = ("pettingzoo:builtin_plugins.pettingzoo_samples:" + name for name in ("Nim", "Hunt"))
SHORT = [
    f"--set=behaviors.*.{key}={value}"
    for key, value in {
        "max_steps": 300,
        "summary_freq": 150,
        "hyperparameters.buffer_size": 128,
        "hyperparameters.batch_size": 64,
        "hyperparameters.num_epoch": 1,
    }.items()
]
SHORT += ["--seed=1", *(f"-pno:{plugin}" for plugin in ("tensorboard", "curve", "onnx_export"))]

OWN = """
    from builtin_plugins.pettingzoo_samples import Hunt

    class Chase(Hunt):
        def __init__(self, hounds=3):
            super().__init__(hounds)

    def small():
        return Chase(1)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "chase.py").write_text(dedent(OWN), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_set_of_agents_trains_without_a_file(folder, capsys):
    assert main(["run", "--env", HUNT, "--run-id", "hunt", *SHORT]) == 0
    said = capsys.readouterr().out
    assert "hound" in said
    assert "hare" in said
    assert {path.name for path in (folder / "results" / "hunt").glob("*.policy.pt")} == {
        "hound.policy.pt",
        "hare.policy.pt",
    }


BOARD = """
    import numpy as np
    from gymnasium.spaces import Box, Discrete
    from pettingzoo import ParallelEnv

    class Board(ParallelEnv):
        metadata = {"name": "board_v0"}
        possible_agents = ["one", "two"]

        def observation_space(self, agent):
            return Box(0, 1, (6, 7, 2), np.int8)

        def action_space(self, agent):
            return Discrete(7)

        def show(self):
            return {agent: np.ones((6, 7, 2), np.int8) for agent in self.agents}, {agent: {} for agent in self.agents}

        def reset(self, seed=None, options=None):
            self.agents = self.possible_agents[:]
            return self.show()

        def step(self, actions):
            seen, infos = self.show()
            ends = {agent: True for agent in self.agents}
            self.agents = []
            return seen, {agent: float(actions[agent] == 3) for agent in seen}, ends, dict.fromkeys(ends, False), infos
"""


@pytest.mark.parametrize("grids", [True, False])
def test_board_is_a_grid_for_encoders_of_images_where_the_settings_say_so(folder, capsys, grids):
    (folder / "board.py").write_text(dedent(BOARD), encoding="utf-8")
    flags = ["--set=env_settings.grid_observations=true"] if grids else []
    flags += ["--set=behaviors.*.network_settings.vis_encode_type=match3"]
    assert main(["run", "--env", "board.py:Board", "--run-id", "board", *SHORT, *flags]) == 0
    assert ("observations 2 x 6 x 7" if grids else "observations 84") in capsys.readouterr().out
    policy = mlhooks.load("results/board")
    board = np.zeros((6, 7, 2), np.int8)
    assert policy.predict(board) in range(7)
    assert policy.predict(np.stack([board, board])).shape == (2,)


def test_policy_takes_what_the_agent_sees_and_the_mask(folder):
    assert main(["run", "--env", NIM, "--run-id", "nim", "--num-areas", "4", *SHORT]) == 0
    policy = mlhooks.load("results/nim")
    moves = {policy.predict(7, action_mask=np.array([1, 0, 0]), deterministic=False).item() for _ in range(30)}
    assert moves == {1, 2}


def test_class_of_ones_own_trains_by_its_file(folder):
    assert main(["run", "--env", "chase.py:Chase", "--run-id", "own", *SHORT]) == 0
    rows = [json.loads(line) for line in (folder / "results" / "own" / "stats.jsonl").read_text().splitlines()]
    assert {row["category"] for row in rows} == {"hound", "hare"}


@pytest.mark.parametrize(("env", "agents"), [("chase.py:Chase", 3), ("chase.py:small", 1), ("chase:Chase", 3)])
def test_class_of_ones_own_is_made_whatever_its_spelling(folder, env, agents):
    options = RunOptions.model_validate({"env_settings": {"env_path": env, "num_areas": 2, "seed": 1}})
    factory = make_factory(options, load_plugins(autoload=False))
    factory.check()
    assert factory.behavior_names() == ["hound", "hare"]
    made = factory(0)
    made.reset()
    assert len(made.get_steps("hound")[0]) == 2 * agents
    made.close()


def check(folder, capsys, text):
    (folder / "run.yaml").write_text(dedent(text), encoding="utf-8")
    code = main(["config", "check", "run.yaml"])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_names_of_behaviors_are_known_before_a_run(folder, capsys):
    text = "behaviors: {{hond: {{}}, hare: {{}}}}\nenv_settings: {{env_path: {}}}\n"
    for env in (HUNT, "chase.py:Chase", "chase.py:small"):
        code, said = check(folder, capsys, text.format(env))
        assert code == 2
        assert "run.yaml:1:13: error: behaviors.hond: the environment" in said
        assert "did you mean hound?" in said


def test_teams_that_do_not_fit_are_told_before_a_run(folder, capsys):
    text = "default_settings: {{}}\nenv_settings: {{env_path: {}, teams: [{{agents: [wolf]}}]}}\n"
    code, said = check(folder, capsys, text.format(HUNT))
    assert code == 2
    assert "has no agent 'wolf', which env_settings.teams[0].agents[0] names; there are: hound_0, hound_1, hare" in said


def test_doctor_says_whether_the_environment_is_there(folder, capsys):
    assert main(["doctor", "--env", HUNT, "--json"]) == 0
    assert main(["doctor", "--env", "pettingzoo:conect_four", "--json"]) == 1
    found = json.loads(capsys.readouterr().out.rpartition('{\n  "mlhooks"')[2].join(['{"mlhooks"', ""]))
    problems = [each["text"] for each in found["checks"] if each["state"] == "problem"]
    assert "connect_four_v3" in problems[0]
