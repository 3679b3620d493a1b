"""Packages that others wrote for `mlagents` 1.1.0, unmodified, with the package itself."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mlhooks.errors import PluginError, SettingsError
from tests.mlagents_wheel.real import MARKS, SMALL, _nothing_stays, entry, learned, statistics, train

__all__ = ["_nothing_stays"]
pytestmark = MARKS
GROUP = "mlagents.trainer_type"


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
