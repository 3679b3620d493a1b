"""One run of skrl for `speed.py`: its agents, memories and sequential trainer, as its examples put them together."""

from __future__ import annotations

import contextlib
from time import perf_counter
from typing import Any

import torch
from adapter import ReachedError, Returns, finished, layers, rounds, script, single_environment, vector_environment
from gymnasium import spaces
from skrl.agents.torch.a2c import A2C, A2C_CFG
from skrl.agents.torch.base import Agent, ExperimentCfg
from skrl.agents.torch.dqn import DQN, DQN_CFG
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch.gymnasium_envs import GymnasiumWrapper
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR


class Environments(GymnasiumWrapper):
    """skrl's wrapper, with an ear on the returns."""

    returns: Returns
    steps = 0

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Any]:
        """Step all copies."""
        result = super().step(actions)
        self.steps += self.num_envs
        self.returns.add(finished(result[-1]))
        if self.returns.reached:
            raise ReachedError
        return result


class Network(Model):
    """A network on observations; the mixins make models of it."""

    def __init__(self, settings: dict[str, Any], env: Environments, outputs: int, gain: float | None = None) -> None:
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device="cpu")
        self.net = nn.Sequential(*layers(settings, self.num_observations, outputs, gain))

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:  # noqa: ARG002
        """Return the network's outputs."""
        return self.net(inputs["observations"]), {}


class Value(DeterministicMixin, Network):
    """The critic; or values of actions."""

    def __init__(self, *arguments: Any) -> None:
        Network.__init__(self, *arguments)
        DeterministicMixin.__init__(self)


class Discrete(CategoricalMixin, Network):
    """An actor."""

    def __init__(self, *arguments: Any) -> None:
        Network.__init__(self, *arguments)
        CategoricalMixin.__init__(self)


class Continuous(GaussianMixin, Network):
    """An actor."""

    def __init__(self, *arguments: Any) -> None:
        Network.__init__(self, *arguments)
        GaussianMixin.__init__(self)
        self.log_std = nn.Parameter(torch.zeros(self.num_actions))

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Return the network's outputs, and the logarithms of standard deviations."""
        return super().compute(inputs, role)[0], {"log_std": self.log_std}


def agent(settings: dict[str, Any], env: Environments) -> Agent:
    """Return the algorithm with its models and its memory; without files."""
    discrete = isinstance(env.action_space, spaces.Discrete)
    actions = env.action_space.n if discrete else env.action_space.shape[0]
    quiet = ExperimentCfg(write_interval=0, checkpoint_interval=0)
    shared = {"discount_factor": settings["gamma"], "learning_rate": settings["learning_rate"], "experiment": quiet}
    space = {"observation_space": env.observation_space, "action_space": env.action_space, "device": "cpu"}
    if settings["algorithm"] == "dqn":
        final, over = settings["final_epsilon"], settings["exploration_steps"]
        config = DQN_CFG(
            **shared,
            batch_size=settings["batch_size"],
            polyak=1.0,
            learning_starts=settings["learning_starts"],
            update_interval=settings["steps_per_update"],
            target_update_interval=settings["target_update_interval"],
            exploration_scheduler=lambda step, _: 1.0 + min(step / over, 1.0) * (final - 1.0),
        )
        models = {name: Value(settings, env, actions) for name in ("q_network", "target_q_network")}
        memory = RandomMemory(memory_size=settings["buffer_size"], num_envs=1, device="cpu")
        return DQN(models=models, memory=memory, cfg=config, **space)
    rows = settings["environments"] * settings["rollout"]
    shared |= {
        "rollouts": settings["rollout"],
        "mini_batches": rows // settings["batch_size"],
        "gae_lambda": settings["lambda"],
        "grad_norm_clip": settings["max_grad_norm"],
        "entropy_loss_scale": settings["entropy"],
    }
    if settings["decay"]:
        falls = {"start_factor": 1.0, "end_factor": 0.0, "total_iters": rounds(settings) * settings["epochs"]}
        shared |= {"learning_rate_scheduler": LinearLR, "learning_rate_scheduler_kwargs": falls}
    actor = Discrete if discrete else Continuous
    models = {"policy": actor(settings, env, actions, 0.01), "value": Value(settings, env, 1, 1.0)}
    memory = RandomMemory(memory_size=settings["rollout"], num_envs=env.num_envs, device="cpu")
    if settings["algorithm"] == "a2c":
        return A2C(models=models, memory=memory, cfg=A2C_CFG(**shared), **space)
    ppo = PPO_CFG(
        **shared,
        learning_epochs=settings["epochs"],
        ratio_clip=settings["clip"],
        value_clip=0.0,
        value_loss_scale=0.5,
    )
    return PPO(models=models, memory=memory, cfg=ppo, **space)


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    set_seed(settings["seed"])
    one = settings["environments"] == 1
    env = Environments(single_environment(settings["environment"]) if one else vector_environment(settings))
    env.returns = Returns(settings)
    calls = settings["steps"] if one else rounds(settings) * settings["rollout"]
    quiet = {"timesteps": calls, "headless": True, "disable_progressbar": True}
    trainer = SequentialTrainer(cfg=quiet, env=env, agents=agent(settings, env))
    started = perf_counter()
    with contextlib.suppress(ReachedError):
        trainer.train()
    return {"steps": env.steps, "loop_seconds": perf_counter() - started, "mean_return": env.returns.mean}


if __name__ == "__main__":
    script(train, "skrl")
