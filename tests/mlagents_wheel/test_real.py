"""The unmodified package `mlagents` 1.1.0, where it is: `nox -s mlagents` installs it and runs these tests."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import mlhooks
from mlhooks.errors import PluginError, SettingsError
from mlhooks.mlagents_wheel import patches
from mlhooks.mlagents_wheel.offers import is_installed
from tests.mlagents_wheel.teams import Teams

if not is_installed():
    pytest.skip("needs the package mlagents", allow_module_level=True)
pytestmark = [pytest.mark.mlagents, pytest.mark.filterwarnings("ignore")]
patches.install()

QUIET = ["no:console", "no:curve", "no:tensorboard"]
SMALL = {"batch_size": 32, "buffer_size": 128}
OFF_POLICY = {"batch_size": 32, "buffer_size": 1000, "buffer_init_steps": 50, "steps_per_update": 10}
GROUP = "mlagents.trainer_type"


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch, tmp_path):
    """Leave the modules of the package where they are, unlike the tests with a tiny one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", raising=False)


def entry(trainer_type, **more):
    return {
        "trainer_type": trainer_type,
        "hyperparameters": OFF_POLICY if trainer_type.endswith("sac") else SMALL,
        "network_settings": {"normalize": True, "hidden_units": 8, "num_layers": 1},
        "max_steps": 405,
        "time_horizon": 8,
        "summary_freq": 200,
        **more,
    }


def train(settings, env="sim:Basic", *, name=None, run_id="run", plugins=(), **more):
    name = name or ("Soccer" if callable(env) else env.partition(":")[2])
    config = {"behaviors": {name: settings}}
    return mlhooks.train(config, env=env, run_id=run_id, seed=5, plugin_names=[*QUIET, *plugins], **more)


def learned(run):
    (trainer,) = run.trainers.values()
    return trainer.learner


def teams(count=1):
    return lambda seed=0: Teams(count)


def statistics(run):
    found = defaultdict(list)
    for line in (run.path / "stats.jsonl").read_text(encoding="utf-8").splitlines():
        for key, value in json.loads(line)["values"].items():
            found[key].append(value)
    return found


def as_mlagents_learns(env, settings, seed):
    """Train by the package's own controller, in process, and return its trainer."""
    from mlagents.plugins.trainer_type import get_default_trainer_types
    from mlagents.trainers.environment_parameter_manager import EnvironmentParameterManager
    from mlagents.trainers.settings import RunOptions, TrainerSettings
    from mlagents.trainers.simple_env_manager import SimpleEnvManager
    from mlagents.trainers.stats import StatsReporter
    from mlagents.trainers.trainer import TrainerFactory
    from mlagents.trainers.trainer_controller import TrainerController
    from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel

    get_default_trainer_types()
    TrainerSettings.default_override = None
    options = RunOptions.from_dict({"behaviors": {"Soccer": settings}})
    parameters = EnvironmentParameterManager(None, seed, restore=False)
    factory = TrainerFactory(options.behaviors, "reference", True, False, seed, parameters)
    controller = TrainerController(factory, "reference", "run", parameters, True, seed)
    controller.start_learning(SimpleEnvManager(env, EnvironmentParametersChannel()))
    StatsReporter.stats_dict.clear()
    return controller.trainers["Soccer"]


@pytest.mark.parametrize("kind", ["ppo", "sac", "poca"])
def test_learns_bit_for_bit_as_mlagents_learn_does(kind):
    wanted = as_mlagents_learns(Teams(), entry(kind), 5)
    run = train(entry(f"mlagents:{kind}"), teams())
    got = learned(run).inner
    assert got.get_step == wanted.get_step > 405
    weights, expected = got.policy.actor.state_dict(), wanted.policy.actor.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


@pytest.mark.parametrize("kind", ["ppo", "sac", "poca"])
def test_writes_what_a_run_writes(kind):
    run = train(entry(f"mlagents:{kind}", checkpoint_interval=200), teams())
    assert run.outcome.status == "finished"
    step = run.trainers["Soccer"].step
    files = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*")}
    assert {f"Soccer/Soccer-{step}.pt", f"Soccer/Soccer-{step}.onnx", "Soccer.onnx", "Soccer.policy.pt"} <= files
    onnx = pytest.importorskip("onnx").load(run.path / "Soccer.onnx")
    assert onnx.opset_import[0].version == 9
    assert [node.name for node in onnx.graph.input] == ["obs_0", "action_masks"]
    found = statistics(run)
    assert {"Environment/Cumulative Reward", "Environment/Episode Length", "Losses/Policy Loss"} <= found.keys()
    assert "Step" not in found
    assert {stat["mean"] for stat in found["Environment/Episode Length"]} == {9.0}  # ML-Agents counts ten decisions so.
    manifest = json.loads((run.path / "run_logs" / "training_status.json").read_text(encoding="utf-8"))
    assert manifest["Soccer"]["final_checkpoint"]["steps"] == step


def test_bare_names_are_the_packages_where_there_is_no_native_trainer():
    assert type(train(entry("poca"), teams()).trainers["Soccer"]).__mro__[1].__name__ == "WheelTrainer"


@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_resumes_with_all_that_mlagents_keeps(kind):
    hyperparameters = {**OFF_POLICY, "save_replay_buffer": True} if kind == "sac" else SMALL
    settings = entry(f"mlagents:{kind}", hyperparameters=hyperparameters)
    before = learned(train(settings, "sim:3DBall")).inner
    run = train({**settings, "max_steps": 406}, "sim:3DBall", resume=True)  # That is reached already.
    after = learned(run).inner
    for key, value in before.policy.actor.state_dict().items():
        assert torch.equal(after.policy.actor.state_dict()[key], value)
    assert after.get_step == before.get_step
    optimizer = next(name for name in learned(run).parts() if "optimizer" in name)
    saved, loaded = (each.model_saver.modules[optimizer].state_dict()["state"] for each in (before, after))
    assert all(torch.equal(saved[key]["exp_avg"], loaded[key]["exp_avg"]) for key in saved)
    if kind == "sac":
        assert after.update_buffer.num_experiences == before.update_buffer.num_experiences > 50
        assert after.update_steps == before.update_steps
    more = train({**settings, "max_steps": 700}, "sim:3DBall", resume=True)
    assert more.trainers["3DBall"].step > 700


def test_episodes_that_a_resume_goes_on_with_keep_their_returns():
    run = train(entry("mlagents:ppo", time_horizon=500), "sim:3DBall", plugins=())
    trainer = run.trainers["3DBall"]
    state = trainer.state_dict()["wheel"]
    gone = run.resumed
    kept = state["rewards"]["environment"]
    running = {agent: trainer.episodes._return[slot] for agent, slot in _agents(trainer)}
    assert gone is False
    # The reward that came with the decision that waits is in no trajectory yet.
    assert kept.keys() >= {agent for agent, value in running.items() if value}
    assert all(kept[agent] == pytest.approx(value, abs=1e-4) for agent, value in running.items() if value)


def _agents(trainer):
    for (worker, _), slots in trainer._known.items():
        for agent, slot in slots._slot_of.items():
            yield f"agent_{worker}-{agent}", slot


def test_self_play_swaps_policies_and_goes_on_where_it_was():
    play = {"save_steps": 60, "team_change": 150, "swap_steps": 40, "window": 3}
    settings = entry("mlagents:poca", self_play=play)
    run = train(settings, teams(2))
    ghost = learned(run).ghost
    assert len(ghost.policy_snapshots) == 3
    assert {f"Soccer?team={team}" for team in (0, 1)} == set(ghost.policies)
    assert ghost.last_team_change > 0  # Another team has learned.
    assert len(statistics(run)["Self-play/ELO"]) >= 1
    again = learned(train({**settings, "max_steps": 406}, teams(2), resume=True)).ghost
    assert again.policy_elos == ghost.policy_elos
    assert again.ghost_step == ghost.ghost_step
    assert again.controller.get_learning_team == ghost.controller.get_learning_team
    for name, policy in ghost.policies.items():
        for key, value in policy.actor.state_dict().items():
            assert torch.equal(again.policies[name].actor.state_dict()[key], value)


def test_without_self_play_all_teams_are_one_policys():
    run = train(entry("mlagents:ppo"), teams(2))
    first, second = learned(run).sides.values()
    assert first.manager.policy is second.manager.policy
    assert first.offset != second.offset  # Agents with the same numbers stay apart by this.


def test_memory_and_intrinsic_rewards_and_lessons():
    network = {"hidden_units": 8, "num_layers": 1, "memory": {"sequence_length": 4, "memory_size": 8}}
    signals = {"extrinsic": {}, "curiosity": {"encoding_size": 8}, "rnd": {"strength": 0.1}}
    run = train(entry("mlagents:ppo", network_settings=network, reward_signals=signals), teams())
    found = statistics(run)
    assert {"Losses/Curiosity Forward Loss", "Losses/RND Loss", "Policy/Curiosity Reward"} <= found.keys()
    assert learned(run).inner.trainer_settings.reward_signals
    watched = train(entry("mlagents:ppo", network_settings=network), teams(), run_id="w")
    again = mlhooks.train(
        watched.path / "configuration.yaml",
        env=teams(),
        run_id="w",
        flags={"checkpoint_settings.inference": True},
        episodes=6,
        plugin_names=QUIET,
    )
    assert len(again.evaluation.returns["Soccer"]) >= 6
    assert learned(again).inner.get_step == 0  # Nothing was learned.


def test_policies_act_apart_from_training():
    settings = entry("mlagents:ppo", evaluation={"interval": 150, "episodes": 2})
    run = train(settings, "sim:3DBall")
    assert "Evaluation/Cumulative Reward" in statistics(run)
    policy = mlhooks.load(run.path)
    one = policy.predict(np.zeros(8, np.float32))
    assert one.shape == (2,)
    assert np.array_equal(one, policy.predict(np.zeros(8, np.float32)))
    assert np.abs(one).max() <= 1.0


def test_several_workers_and_one_that_is_lost():
    run = train(entry("mlagents:ppo"), "sim:Basic", flags={"env_settings.num_areas": 4})
    trainer = run.trainers["Basic"]
    (side,) = trainer.learner.sides.values()
    assert side.manager._last_step_result
    trainer.worker_failed(0)
    assert side.manager._last_step_result == {}
    assert side.manager._experience_buffers == {}
    assert side.waiting == {}
    assert list(trainer.act()) == []


def test_the_state_of_the_package_that_runs_share_is_let_go():
    from mlagents.trainers.stats import StatsReporter

    train(entry("mlagents:ppo"))
    assert StatsReporter.writers == []
    assert "Basic" not in StatsReporter.stats_dict
    assert torch.zeros(1).device.type == "cpu"


OVERRIDES = """
    from mlagents.trainers.ppo.trainer import PPOTrainer, PPOSettings
    from mlagents.trainers.stats import StatsReporter, TensorboardWriter

    class Mine(PPOTrainer):
        def _process_trajectory(self, trajectory):
            super()._process_trajectory(trajectory)
            self._stats_reporter.add_stat("Mine/Length", len(trajectory.steps))
            assert any(isinstance(writer, TensorboardWriter) for writer in StatsReporter.writers)

        @staticmethod
        def get_trainer_name():
            return "mine"

    def get_type_and_setting():
        return {"mine": Mine}, {"mine": PPOSettings}
"""
OWN_PARTS = """
    from __future__ import annotations
    from typing import Dict, List, Optional
    import attr
    import numpy as np
    from mlagents.torch_utils import torch, default_device
    from mlagents.trainers.policy.torch_policy import TorchPolicy
    from mlagents.trainers.ppo.optimizer_torch import TorchPPOOptimizer, PPOSettings
    from mlagents.trainers.ppo.trainer import PPOTrainer
    from mlagents.trainers.settings import ScheduleType
    from mlagents.trainers.torch_entities.components.reward_providers.base_reward_provider import BaseRewardProvider
    from mlagents.trainers.torch_entities.networks import SimpleActor

    @attr.s(auto_attribs=True)
    class MySettings(PPOSettings):
        beta: float = attr.ib(default=1e-2)
        clip: Optional[float] = None
        sizes: List[int] = attr.ib(factory=lambda: [4, 4])
        weights: Dict[str, float] = attr.ib(factory=dict)
        decay: ScheduleType = ScheduleType.CONSTANT

        @beta.validator
        def _check(self, attribute, value):
            if value > 1:
                raise ValueError("beta is a small number")

    class Novelty(BaseRewardProvider):
        def __init__(self, specs, settings):
            super().__init__(specs, settings)
            self._layer = torch.nn.Linear(1, 1)

        def evaluate(self, mini_batch):
            return np.ones(mini_batch.num_experiences, dtype=np.float32)

        def update(self, mini_batch):
            return {"Losses/Novelty Loss": 0.5}

        def get_modules(self):
            return {"Module:Novelty": self._layer}

    class MyActor(SimpleActor):
        def get_stats(self, *args, **kwargs):
            out = super().get_stats(*args, **kwargs)
            out["entropy"] = out["entropy"] * 0.5
            return out

    class MyOptimizer(TorchPPOOptimizer):
        def create_reward_signals(self, configs):
            super().create_reward_signals(configs)
            self.reward_signals["extrinsic"] = Novelty(self.policy.behavior_spec, next(iter(configs.values())))

        def get_modules(self):
            return {**super().get_modules(), "Optimizer:mine": torch.optim.SGD(self._critic.parameters(), lr=0.1)}

    class Mine(PPOTrainer):
        def create_policy(self, parsed_behavior_id, behavior_spec):
            kwargs = {"conditional_sigma": False, "tanh_squash": False}
            return TorchPolicy(self.seed, behavior_spec, self.trainer_settings.network_settings, MyActor, kwargs)

        def create_optimizer(self):
            return MyOptimizer(self.policy, self.trainer_settings)

        @staticmethod
        def get_settings_type():
            return MySettings

    def get_type_and_setting():
        return {"mine": Mine}, {"mine": Mine.get_settings_type()}
"""
SERVER = """
    import json, os, urllib.request
    from mlagents.trainers.ppo.trainer import PPOTrainer, PPOSettings

    class Mine(PPOTrainer):
        def __init__(self, behavior_name, reward_buff_cap, trainer_settings, training, load, seed, artifact_path):
            super().__init__(behavior_name, reward_buff_cap, trainer_settings, training, load, seed, artifact_path)
            self.asked = 0

        def _update_policy(self):
            body = json.dumps({"step": self.get_step, "behavior": self.brain_name}).encode()
            with urllib.request.urlopen(os.environ["MY_SERVER"], body) as answer:
                self.asked += json.load(answer)["one"]
            return super()._update_policy()

    def get_type_and_setting():
        return {"mine": Mine}, {"mine": PPOSettings}
"""


def installed(install, source, name="mine"):
    install("my-trainers", {name: "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=source)


def test_a_trainer_that_overrides_how_trajectories_are_processed(install):
    installed(install, OVERRIDES)
    run = train(entry("mine"))
    found = statistics(run)["Mine/Length"]
    assert sum(stat["sum"] for stat in found) == run.trainers["Basic"].step
    assert train(entry("mine", max_steps=600), resume=True).trainers["Basic"].step >= 600


def test_a_trainer_with_network_reward_optimizer_and_settings_of_its_own(install):
    installed(install, OWN_PARTS)
    hyperparameters = {**SMALL, "clip": "0.5", "sizes": [1, 2], "weights": {"a": 1}, "decay": "linear"}
    run = train(entry("mine", hyperparameters=hyperparameters))
    found = statistics(run)
    assert found["Losses/Novelty Loss"][0]["mean"] == 0.5
    assert "Policy/Novelty Reward" in found
    own = learned(run).inner.hyperparameters
    assert (own.clip, own.sizes, own.weights, own.decay.value, own.beta) == (0.5, [1, 2], {"a": 1.0}, "linear", 1e-2)
    assert "Module:Novelty" in run.trainers["Basic"].modules()
    assert train(entry("mine", max_steps=600), resume=True).trainers["Basic"].step >= 600
    with pytest.raises(SettingsError, match=r"\(my-trainers 1\.2\) refuses it: ValueError: beta is a small number"):
        train(entry("mine", hyperparameters={"beta": 2.0}), run_id="other")


def test_a_trainer_that_asks_a_server(install, monkeypatch):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"one": 1}')

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            monkeypatch.setenv("MY_SERVER", f"http://127.0.0.1:{server.server_port}")
            monkeypatch.setenv("no_proxy", "*")
            installed(install, SERVER)
            run = train(entry("mine"))
        finally:
            server.shutdown()
            thread.join()
    assert learned(run).inner.asked == len(asked) == run.trainers["Basic"].updates > 0
    assert {message["behavior"] for message in asked} == {"Basic"}


def test_a_trainer_that_fails_is_named_with_its_version_and_what_was_learned_is_saved(install):
    source = OVERRIDES.replace("super()._process_trajectory(trajectory)\n", "raise OSError('no disk')\n")
    installed(install, source)
    said = r"'mine' of plugin 'mine' \(my-trainers 1\.2\) failed.*no disk \(.*my_trainers\.py:\d+\)"
    with pytest.raises(PluginError, match=said):
        train(entry("mine"))


def test_a_writer_of_the_package_gets_its_own_types(install):
    source = """
        from mlagents.trainers.stats import StatsSummary, StatsWriter
        seen = []
        class Mine(StatsWriter):
            def write_stats(self, category, values, step):
                seen.extend(type(value) is StatsSummary for value in values.values())
        def writers(run_options):
            assert run_options.checkpoint_settings.write_path
            return [Mine()]
    """
    install("my-writers", {"mine": "my_writers:writers"}, group="mlagents.stats_writer", my_writers=source)
    train(entry("mlagents:ppo"))
    import my_writers

    assert my_writers.seen
    assert all(my_writers.seen)


def test_settings_resolve_to_those_of_mlagents_itself(tmp_path):
    from mlagents.trainers.settings import RunOptions, TrainerSettings

    from mlhooks.mlagents_wheel.settings import wheel_settings
    from mlhooks.plugins import load_plugins
    from mlhooks.settings import SettingsRegistry, load_run_options

    written = {
        "hyperparameters": {"batch_size": 64, "learning_rate_schedule": "constant", "beta": 0.01},
        "network_settings": {"vis_encode_type": "nature_cnn", "memory": {"memory_size": 16}},
        "reward_signals": {"extrinsic": {"gamma": 0.9}, "curiosity": {"encoding_size": 16, "strength": 0.02}},
        "self_play": {"save_steps": 100},
        "max_steps": "5e4",
        "even_checkpoints": True,
    }
    registry = SettingsRegistry.from_plugins(load_plugins())
    options = load_run_options({"behaviors": {"A": {"trainer_type": "mlagents:ppo", **written}}}, registry).options
    got = wheel_settings(options.behaviors["A"], registry.trainer_types["mlagents:ppo"].offer, Path()).as_dict()
    TrainerSettings.default_override = None
    wanted = RunOptions.from_dict({"behaviors": {"A": {"trainer_type": "ppo", **written}}}).behaviors["A"].as_dict()
    del wanted["reward_signals"]["curiosity"]["encoding_size"], got["reward_signals"]["curiosity"]["encoding_size"]
    assert got | {"even_checkpoints": True} == wanted


def test_a_trainer_that_saves_more_in_the_end(install):
    source = OVERRIDES.replace(
        "    @staticmethod",
        "    def save_model(self):\n"
        "            super().save_model()\n"
        "            with open(f'{self.artifact_path}/mine.txt', 'w') as file:\n"
        "                file.write('mine')\n\n        @staticmethod",
    )
    installed(install, source)
    run = train(entry("mine"))
    assert (run.path / "Basic" / "mine.txt").read_text() == "mine"
    assert train(entry("mine"), force=True).outcome.status == "finished"  # A run may remove what it wrote.


def test_a_field_that_cattrs_cannot_structure_is_named_where_a_file_sets_it(install):
    source = OWN_PARTS.replace("clip: Optional[float] = None", "clip: BaseRewardProvider = None")
    installed(install, source)
    assert train(entry("mine")).outcome.status == "finished"
    with pytest.raises(SettingsError, match=r"hyperparameters\.clip: MySettings of plugin 'mine' \(my-trainers 1\.2\)"):
        train(entry("mine", hyperparameters={**SMALL, "clip": "something"}), run_id="other")


BARE = """
    import numpy as np
    from mlagents_envs.base_env import ActionTuple
    from mlagents.trainers.action_info import ActionInfo
    from mlagents.trainers.policy import Policy
    from mlagents.trainers.settings import HyperparamSettings
    from mlagents.trainers.trainer import Trainer

    class Fixed(Policy):
        def get_action(self, decision_requests, worker_id=0):
            if len(decision_requests) == 0:
                return ActionInfo.empty()
            action = ActionTuple(discrete=np.full((len(decision_requests), 1), 2, dtype=np.int64))
            outputs = {"action": action}
            return ActionInfo(action, action, outputs, list(decision_requests.agent_id))

        def increment_step(self, n_steps): ...
        def get_current_step(self): return 0
        def load_weights(self, values): ...
        def get_weights(self): return []
        def init_load_weights(self): ...

    class Mine(Trainer):
        def __init__(self, name, reward_buff_cap, settings, training, load, seed, artifact_path):
            super().__init__(name, settings, training, load, artifact_path, reward_buff_cap)
            self.seed, self.actions = seed, []

        def create_policy(self, parsed_behavior_id, behavior_spec):
            return Fixed(self.seed, behavior_spec, self.trainer_settings.network_settings)

        def add_policy(self, parsed_behavior_id, policy):
            self.policies[parsed_behavior_id.behavior_id] = policy

        def advance(self):
            for queue in self.trajectory_queues:
                while queue.qsize():
                    trajectory = queue.get_nowait()
                    self.actions += [int(step.action.discrete[0]) for step in trajectory.steps]
                    self._step += len(trajectory.steps)

        def end_episode(self): ...
        def save_model(self): ...

    def get_type_and_setting():
        return {"mine": Mine}, {"mine": HyperparamSettings}
"""


def test_a_trainer_that_is_no_more_than_a_trainer(install):
    installed(install, BARE)
    run = train(entry("mine"))
    assert set(learned(run).inner.actions) == {2}
    assert len(learned(run).inner.actions) == run.trainers["Basic"].step >= 405
    assert train(entry("mine", max_steps=600), resume=True).trainers["Basic"].step >= 600


def test_a_package_that_asks_for_modules_that_are_gone(install):
    installed(install, "import pkg_resources\nfrom distutils.version import LooseVersion\n" + _dedented(OVERRIDES))
    assert train(entry("mine")).outcome.status == "finished"


def _dedented(source):
    return "\n".join(line[4:] for line in source.splitlines())


def test_behaviors_of_two_teams_learn_in_turns():
    play = {"save_steps": 60, "team_change": 100, "swap_steps": 40, "window": 3}
    settings = {name: entry("mlagents:ppo", self_play=play, max_steps=250) for name in ("Goalie", "Striker")}
    env = lambda seed=0: Teams(("Goalie?team=0", "Striker?team=1"))  # noqa: E731
    run = mlhooks.train({"behaviors": settings}, env=env, run_id="run", seed=5, plugin_names=QUIET)
    assert all(trainer.step >= 250 for trainer in run.trainers.values())
    controllers = {id(trainer.learner.ghost.controller) for trainer in run.trainers.values()}
    assert len(controllers) == 1
    again = mlhooks.train({"behaviors": settings}, env=env, run_id="run", seed=5, plugin_names=QUIET, resume=True)
    assert {name: t.step for name, t in again.trainers.items()} == {name: t.step for name, t in run.trainers.items()}
