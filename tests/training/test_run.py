from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple

import mlhooks
from mlhooks import hookimpl
from mlhooks.envs.single_behavior import SingleBehaviorEnv
from mlhooks.errors import MlhooksError, PluginError, UsageError
from mlhooks.training.evaluation import Evaluation
from tests.scripted import QUIET, Corridor, Env, config, train
from tests.training.recorder import Recorder


def test_run_calls_the_hooks_in_order_and_leaves_the_files(tmp_path: Path) -> None:
    recorder = Recorder()
    run = train(config("Corridor", "test:x", max_steps=400), tmp_path, Env(), recorder)
    assert recorder.calls == [
        "configure",
        "run_started",
        "behavior_added Corridor",
        "add_property",
        "update_finished 100",
        "update_finished 200",
        "write_stats 200",
        "checkpoint_saved 200",
        "update_finished 300",
        "update_finished 400",
        "write_stats 400",
        "checkpoint_saved 400",
        "run_finished finished",
    ]
    files = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    assert files == {
        "configuration.yaml",
        "stats.jsonl",
        "Corridor.policy.pt",
        "run_logs/timers.json",
        "run_logs/training_status.json",
        *(f"run_logs/state-{step}.pt" for step in (200, 400)),
        *(f"Corridor/Corridor-{step}{kind}.pt" for step in (200, 400) for kind in ("", ".policy")),
    }
    timers = json.loads((run.path / "run_logs" / "timers.json").read_text())
    assert {"act", "env_step", "update", "summary", "checkpoint"} <= set(timers["children"])


def test_trained_agent_takes_the_rewarded_action_and_loads_again(tmp_path: Path) -> None:
    fast = {"learning_rate": 0.02}
    run = train(config("Corridor", "test:x", max_steps=4000, hyperparameters=fast), tmp_path, Env())
    assert run.trainers["Corridor"].mean_reward == pytest.approx(5.0, abs=0.5)
    for path in (run.path, run.path / "Corridor.policy.pt", run.path / "Corridor" / "Corridor-4000.pt"):
        policy = mlhooks.load(path)
        assert [policy.predict(np.full(3, float(i))) for i in range(5)] == [1, 1, 1, 1, 1]
        assert policy.predict(np.zeros((7, 3))).tolist() == [[1]] * 7
    with pytest.raises(UsageError, match=r"takes observations of shapes \[\(3,\)\].*got \[\(4,\)\]"):
        policy.predict(np.zeros(4))


def test_environment_gets_continuous_actions_clipped_and_scaled(tmp_path: Path) -> None:
    policy = mlhooks.load(train(config("3DBall", "sim:3DBall", max_steps=120), tmp_path).path)
    drawn = np.array([policy.predict(np.ones(8), deterministic=False) for _ in range(2000)])
    assert drawn.shape == (2000, 2)
    assert np.abs(drawn).max() <= 1.0
    assert (np.abs(drawn) == 1.0).any()  # A deviation of 1 passes 3 now and then.
    assert drawn.std(0) == pytest.approx(1 / 3, rel=0.1)


def test_several_workers_fill_one_rollout(tmp_path: Path) -> None:
    made = []

    def make() -> Corridor:
        made.append(Corridor())
        return made[-1]

    flags = {"env_settings.num_envs": 3}
    names = [*QUIET, "no:processes"]
    run = train(config("Corridor", "test:x", max_steps=600), tmp_path, Env(make), flags=flags, plugin_names=names)
    assert [env.steps for env in made] == [50, 50, 50]  # 3 workers of 4 agents
    assert run.trainers["Corridor"].pool.size == 12
    assert run.trainers["Corridor"].updates == 5  # A rollout ends at the first tick with 100 rows: 108.


class Pair(SingleBehaviorEnv):
    """Two behaviors, the second of which appears after some steps."""

    def __init__(self) -> None:
        self.first, self.second = Corridor("First"), Corridor("Second")

    @property
    def behavior_specs(self) -> Mapping[str, Any]:
        both = {**self.first.behavior_specs, **self.second.behavior_specs}
        return both if self.first.steps >= 20 else self.first.behavior_specs

    def reset(self) -> None:
        self.first.reset()
        self.second.reset()

    def step(self) -> None:
        if "Second" in self.behavior_specs:
            self.second.step()
        self.first.step()

    def get_steps(self, behavior_name: str) -> Any:
        return getattr(self, behavior_name.lower()).get_steps(behavior_name)

    def set_actions(self, behavior_name: str, action: ActionTuple) -> None:
        getattr(self, behavior_name.lower()).set_actions(behavior_name, action)

    def close(self) -> None:
        self.first.close()

    def _restart(self) -> None: ...

    def _advance(self, action: ActionTuple) -> None: ...


def pair_config() -> dict[str, Any]:
    first, second = config("First", "test:x", max_steps=300), config("Second", "test:x", max_steps=600)
    return {**first, "behaviors": {**first["behaviors"], **second["behaviors"]}}


def test_two_behaviors_train_to_their_own_max_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = train(pair_config(), tmp_path, Env(Pair))
    assert {name: trainer.step for name, trainer in run.trainers.items()} == {"First": 300, "Second": 600}
    assert {name: trainer.updates for name, trainer in run.trainers.items()} == {"First": 3, "Second": 6}
    assert "has not shown 'Second'" in caplog.text
    with pytest.raises(UsageError, match="holds the behaviors First, Second"):
        mlhooks.load(run.path)
    assert mlhooks.load(run.path, "Second").behavior_name == "Second"


def test_optimizer_that_fails_for_a_late_behavior_saves_the_others_first(tmp_path: Path) -> None:
    class Broken:
        @hookimpl
        def create_optimizer(self, trainer: Any) -> None:
            if trainer.behavior_name == "Second":
                raise ValueError("no idea")

    with pytest.raises(PluginError, match=r"create_optimizer.*no idea"):
        train(pair_config(), tmp_path, Env(Pair), Broken())
    assert mlhooks.load(tmp_path / "run", "First").behavior_name == "First"


def test_plugin_taken_out_is_named_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        @hookimpl
        def update_finished(self) -> None:
            raise ValueError("broken sink")

    run = train(config("Corridor", "test:x"), tmp_path, Env(), Bad())
    assert run.outcome.status == "finished"
    last = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING][-1]
    assert "Bad" in last
    with pytest.raises(MlhooksError, match="broken sink"):
        train(config("Corridor", "test:x"), tmp_path, Env(), Bad(), run_id="strict", strict_plugins=True)


def test_inference_runs_the_asked_episodes_and_changes_nothing(tmp_path: Path) -> None:
    train(config("Corridor", "test:x", hyperparameters={"learning_rate": 0.02}, max_steps=4000), tmp_path, Env())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    flags = {
        "checkpoint_settings.inference": True,
        "behaviors.*.network_settings.deterministic": True,
    }
    run = train(config("Corridor", "test:x"), tmp_path, Env(), flags=flags, episodes=10)
    assert run.evaluation is not None
    assert run.evaluation.returns == {"Corridor": [5.0] * 10}
    assert str(run.evaluation) == "Corridor  10 episodes: mean reward 5.000, deviation 0.000, minimum 5.000"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_agents_that_end_no_more_episodes_leave_their_share_to_others(caplog: pytest.LogCaptureFixture) -> None:
    evaluation = Evaluation(4)
    evaluation.expect("A")
    evaluation.ended("A", 2, np.array([0, 1]), np.array([1.0, 2.0]))
    for number in range(1 + 20 * 4):  # The second agent is gone, and the first has had its two.
        evaluation.ended("A", 2, np.array([0]), np.array([10.0 + number]))
    assert evaluation.returns["A"] == [1.0, 2.0, 10.0]
    assert not caplog.records
    evaluation.ended("A", 2, np.array([0]), np.array([-1.0]))
    assert evaluation.returns["A"] == [1.0, 2.0, 10.0, -1.0]
    assert evaluation.complete()
    assert "'A': 3 episodes count, and 81 more ended of agents that have had their share" in caplog.text
    evaluation.ended("A", 2, np.array([0]), np.array([-2.0]))
    assert len(evaluation.returns["A"]) == 4


@pytest.mark.parametrize(("count", "words"), [(1, "1 episode: mean"), (125_183, "125,183 episodes: mean")])
def test_evaluation_writes_its_count_for_people(count: int, words: str) -> None:
    evaluation = Evaluation(None)
    evaluation.returns["Basic"] = [1.0] * count
    assert words in str(evaluation)


def test_evaluation_counts_every_agents_first_episodes_not_the_shortest(tmp_path: Path) -> None:
    class Uneven(Corridor):
        """Agent 0 ends at every step with 1, the others every fifth with what they collected."""

        def _advance(self, action: ActionTuple) -> None:
            self.steps += 1
            obs, reward = self._obs(), np.ones(self.num_agents, np.float32)
            rows = np.arange(self.num_agents if self.steps % 5 == 0 else 1)
            self._terminals = self._end([obs[0][rows]], reward[rows], np.zeros(len(rows), np.bool_), rows)
            reward[rows] = 0.0
            self._decisions = self._decide(obs, reward)

    train(config("Corridor", "test:x", max_steps=100), tmp_path, Env(Uneven))
    flags = {"checkpoint_settings.inference": True}
    run = train(config("Corridor", "test:x"), tmp_path, Env(Uneven), flags=flags, episodes=8)
    assert run.evaluation is not None
    assert sorted(run.evaluation.returns["Corridor"]) == [1.0, 1.0] + [5.0] * 6


def test_evaluation_tells_behaviors_apart(tmp_path: Path) -> None:
    def pair() -> Pair:
        env = Pair()
        env.first.corrupt = lambda step, obs, reward: reward.fill(1.0)
        env.second.corrupt = lambda step, obs, reward: reward.fill(3.0)
        return env

    train(pair_config(), tmp_path, Env(pair))
    run = train(pair_config(), tmp_path, Env(pair), flags={"checkpoint_settings.inference": True}, episodes=6)
    assert str(run.evaluation).splitlines() == [
        "First  6 episodes: mean reward 5.000, deviation 0.000, minimum 5.000",
        "Second  6 episodes: mean reward 15.000, deviation 0.000, minimum 15.000",
    ]


def test_seed_of_an_unseeded_run_is_drawn_and_written(tmp_path: Path) -> None:
    settings = config("Corridor", "test:x", max_steps=100)
    settings["env_settings"]["seed"] = -1
    run = train(settings, tmp_path, Env())
    assert run.seed >= 0
    assert f"seed: {run.seed}" in (run.path / "configuration.yaml").read_text()


def test_third_party_optimizer_and_policy_replace_the_built_in_ones(tmp_path: Path) -> None:
    import torch

    from builtin_plugins.ppo import PPOOptimizer
    from mlhooks.training.policy import ActorPolicy

    class SGD(PPOOptimizer):
        def create_torch_optimizer(self, parameters: Any) -> Any:
            return torch.optim.SGD(parameters.parameters, lr=self.learning_rate(0))

    class Swap:
        @hookimpl
        def create_policy(self, trainer: Any, behavior_spec: Any) -> Any:
            self.policy = ActorPolicy(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)
            return self.policy

        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Any:
            return SGD(policy, trainer.settings)

    swap = Swap()
    run = train(config("Corridor", "test:x"), tmp_path, Env(), swap)
    trainer = run.trainers["Corridor"]
    assert trainer.policy is swap.policy
    assert isinstance(trainer.optimizer, SGD)
    assert isinstance(trainer.optimizer.torch_optimizer, torch.optim.SGD)
    resumed = train(config("Corridor", "test:x", max_steps=800), tmp_path, Env(), Swap(), resume=True)
    assert resumed.trainers["Corridor"].updates == 8
