"""Plugins that put their own optimizer and network into PPO, without a trainer of their own."""

from __future__ import annotations

import pickle
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from builtin_plugins.ppo import PPOOptimizer, PPOTrainer
from mlhooks import hookimpl
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.heads import ActionHeads, ActionParameters
from mlhooks.nn.networks import Actor
from mlhooks.settings import TrainerSettings
from mlhooks.training.policy import ActorPolicy
from tests.scripted import Env, config, train
from tests.steps import make_spec


class Linear(nn.Module):
    """A network that none of mlhooks' own code knows."""

    def __init__(self, inputs, action_spec):
        super().__init__()
        self.encoder = nn.Linear(inputs, 8)
        self.heads = ActionHeads(8, action_spec, "orthogonal")

    def forward(self, features):
        return self.heads(self.encoder(features))


class OwnNetwork:
    @hookimpl
    def create_policy(self, trainer, behavior_spec):
        actor = Linear(behavior_spec.observation_specs[0].shape[0], behavior_spec.action_spec)
        return ActorPolicy(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device, actor)


class DecayOptimizer(PPOOptimizer):
    def loss(self, batch):
        losses = super().loss(batch)
        term = batch.mean(self.values(batch).square())
        return {**losses, "loss": losses["loss"] + 0.1 * term, "Losses/Value Size": term}

    def create_torch_optimizer(self, parameters):
        return torch.optim.AdamW(parameters.parameters, lr=self.learning_rate(0), weight_decay=0.1)


class OwnOptimizer:
    @hookimpl
    def create_optimizer(self, trainer, policy):
        return DecayOptimizer(policy, trainer.settings) if isinstance(trainer, PPOTrainer) else None


class Losses:
    def __init__(self):
        self.keys = set()

    @hookimpl
    def update_finished(self, losses):
        self.keys |= losses.keys()


class StopAtUpdate:
    """Asks the run to stop, as Ctrl-C does."""

    @hookimpl
    def run_started(self, run):
        self.run = run

    @hookimpl
    def update_finished(self, trainer):
        self.run.stop.requested = trainer.updates == 2


class Negated(Actor):
    def forward(self, features):
        return ActionParameters(*(None if part is None else -part for part in super().forward(features)))


def test_actor_that_computes_something_else_acts_by_it() -> None:
    spec = make_spec(observation=3, continuous=0, branches=(4,))
    settings = TrainerSettings(trainer_type="ppo", network_settings={"hidden_units": 8, "num_layers": 1})
    layout = FeatureLayout("B", spec)
    actor = Negated(layout, spec.action_spec, settings.network_settings)
    policy = ActorPolicy("B", spec, settings, torch.device("cpu"), actor)
    policy.deterministic = True
    observations = [np.random.default_rng(0).normal(0, 3, (20, 3)).astype(np.float32)]
    features = torch.from_numpy(policy.inputs.features(observations))
    wanted = Actor.forward(actor, features).logits.argmin(1)
    acted = policy.act(observations, None, np.random.default_rng(0)).discrete[:, 0]
    np.testing.assert_array_equal(acted, wanted.numpy())


def test_policy_that_has_acted_can_be_copied() -> None:
    settings = TrainerSettings(trainer_type="ppo", network_settings={"hidden_units": 8, "num_layers": 1})
    policy = ActorPolicy("B", make_spec(observation=3, continuous=0, branches=(4,)), settings, torch.device("cpu"))
    observations, rng = [np.ones((5, 3), np.float32)], np.random.default_rng(0)
    policy.deterministic = True
    policy.act(observations, None, rng)
    for copied in (deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        with torch.no_grad():
            copied.actor.heads.logits.bias[:] = torch.tensor([0.0, 0.0, 9.0, 0.0])
        assert copied.act(observations, None, rng).discrete.tolist() == [[2]] * 5


def test_plugin_replaces_loss_and_torch_optimizer(tmp_path: Path) -> None:
    losses = Losses()
    run = train(config("Corridor", "test:x"), tmp_path, Env(), OwnOptimizer(), losses)
    trainer = run.trainers["Corridor"]
    assert type(trainer) is PPOTrainer
    assert isinstance(trainer.optimizer.torch_optimizer, torch.optim.AdamW)
    assert "Losses/Value Size" in losses.keys
    rates = {group["lr"] for group in trainer.optimizer.torch_optimizer.param_groups}
    assert rates == {trainer.optimizer.learning_rate(trainer.step)}


def test_network_of_a_plugin_learns(tmp_path: Path) -> None:
    fast = {"learning_rate": 0.02}
    run = train(config("Corridor", "test:x", max_steps=4000, hyperparameters=fast), tmp_path, Env(), OwnNetwork())
    assert isinstance(run.trainers["Corridor"].policy.actor, Linear)
    assert run.trainers["Corridor"].mean_reward > 4.2  # 2.5 by chance, 5 at best


def test_run_with_both_goes_on_exactly_where_it_stopped(tmp_path: Path) -> None:
    plugins = [OwnNetwork(), OwnOptimizer()]
    balls = config("3DBall", "sim:3DBall")  # With continuous actions the deviation is a parameter beside the network.
    whole = train(balls, tmp_path, *plugins, run_id="whole")
    stopped = train(balls, tmp_path, *plugins, StopAtUpdate(), run_id="parts")
    assert stopped.trainers["3DBall"].step < 600
    parts = train(balls, tmp_path, *plugins, run_id="parts", resume=True)
    weights = [run.trainers["3DBall"].optimizer.flat.data for run in (whole, parts)]
    assert torch.equal(*weights)


def test_plugin_that_was_loaded_later_answers_first(tmp_path: Path) -> None:
    class Later(OwnOptimizer):
        @hookimpl
        def create_optimizer(self, trainer, policy):
            return PPOOptimizer(policy, trainer.settings)

    run = train(config("Corridor", "test:x", max_steps=100), tmp_path, Env(), OwnOptimizer(), Later())
    assert type(run.trainers["Corridor"].optimizer) is PPOOptimizer
