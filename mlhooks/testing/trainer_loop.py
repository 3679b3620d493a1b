"""A trainer and an environment without a run around them: the same loop, open to inspection."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mlagents_envs.base_env import BaseEnv, BehaviorSpec

from mlhooks.plugins import PluginManager
from mlhooks.testing.managers import load_options
from mlhooks.testing.scripted import BEHAVIOR, ScriptedEnv
from mlhooks.training.carried import CarriedMemories
from mlhooks.training.trainer import Trainer

NEVER_READY = "in 200,000 ticks there were too few updates: does ready_to_update() ever say yes?"


def make_trainer(manager: PluginManager, spec: BehaviorSpec, settings: Mapping[str, Any], *, seed: int = 1) -> Trainer:
    """Return the trainer that a run with `seed` would make for a behavior.

    Args:
        manager: the plugins.
        spec: the behavior's observations and actions.
        settings: its settings as in YAML, `trainer_type` included.
        seed: of all randomness.
    """
    seed_everything(seed)
    options = load_options(manager, {"behaviors": {BEHAVIOR: dict(settings)}}, {"torch_settings.device": "cpu"})
    resolved = options.settings_for(BEHAVIOR)
    trainer_type: type[Trainer] = manager.collect_mapping("get_trainer_types")[resolved.trainer_type]
    return trainer_type(
        behavior_name=BEHAVIOR,
        behavior_spec=spec,
        settings=resolved,
        plugins=manager,
        device=torch.device("cpu"),
        seed=seed,
    )


def seed_everything(seed: int) -> None:
    """Seed the global generators as a run does."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - Plugins may use the global generator.
    torch.manual_seed(seed)


class Play:
    """Lets a trainer act and learn in an environment, tick by tick as the training loop does.

    Attributes:
        losses: what each update returned.
        steps: where set to a list, the decision and terminal steps of each tick.
    """

    def __init__(self, trainer: Trainer, env: BaseEnv, *, learning: bool = True, behavior: str = BEHAVIOR) -> None:
        self.trainer, self.env, self.learning, self.behavior = trainer, env, learning, behavior
        self.losses: list[dict[str, float]] = []
        self.steps: list[Any] | None = None
        env.reset()
        self._observe()

    def _observe(self) -> None:
        steps = self.env.get_steps(self.behavior)
        if self.steps is not None:
            self.steps.append(steps)
        self.trainer.observe(0, self.behavior, *steps)

    def act(self) -> None:
        """Make one decision of every agent that waits."""
        for _, behavior_id, action in self.trainer.act():
            self.env.set_actions(behavior_id, action)
        self.env.step()
        self._observe()

    def tick(self) -> None:
        """Make one decision of every agent that waits, and an update where one is due."""
        self.act()
        if self.learning and self.trainer.ready_to_update():
            losses = self.trainer.update()
            if losses is not None:
                self.losses.append(losses)
        elif not self.learning:
            self.trainer.discard()

    def until(self, step: int) -> Play:
        """Play until the trainer has counted so many agent steps."""
        while self.trainer.step < step:
            before = self.trainer.step
            for _ in range(1000):
                self.tick()
                if self.trainer.step >= step:
                    break
            else:
                if self.trainer.step == before:
                    raise AssertionError("trainer.step does not grow: 1000 ticks passed without a completed row")
        return self

    def until_ready(self) -> Play:
        """Play until an update is due, and leave it to the caller."""
        for _ in range(200_000):
            self.act()
            if self.trainer.ready_to_update():
                return self
        raise AssertionError(NEVER_READY)

    def updates(self, count: int) -> Play:
        """Play until there were so many more updates."""
        wanted = len(self.losses) + count
        for _ in range(200_000):
            self.tick()
            if len(self.losses) >= wanted:
                return self
        raise AssertionError(NEVER_READY)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return a copy of all tensors that a checkpoint of the trainer holds, by name."""
    return {
        f"{name}.{key}": tensor.detach().clone()
        for name, module in trainer.modules().items()
        for key, tensor in module.state_dict().items()
    }


def parameters(trainer: Trainer) -> dict[str, torch.nn.Parameter]:
    """Return all trainable parameters of a trainer, by name, each once."""
    named = {
        f"{name}.{key}": parameter
        for name, module in trainer.modules().items()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    once = {id(parameter): name for name, parameter in reversed(named.items())}
    return {name: named[name] for name in named if once[id(named[name])] == name}


def differing(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> list[str]:
    """Return names of tensors that are not equal bit for bit."""
    return [
        name for name in sorted(a.keys() | b.keys()) if name not in a or name not in b or not a[name].equal(b[name])
    ]


def score(trainer: Trainer, env: ScriptedEnv, episodes: int = 64) -> float:
    """Return the mean return of the trainer's policy, acting deterministically in a fresh environment."""
    policy, rng = trainer.policy, np.random.default_rng(0)
    before, policy.deterministic = policy.deterministic, True
    carried = CarriedMemories(policy)
    env.reset()
    try:
        for _ in range(1000):
            decisions, terminals = env.get_steps(BEHAVIOR)
            carried.forget(terminals.agent_id)
            mask = None if decisions.action_mask is None else np.concatenate(decisions.action_mask, axis=1)
            env.set_actions(BEHAVIOR, policy.action_tuple(carried.act(decisions.agent_id, decisions.obs, mask, rng)))
            env.step()
            if len(env.audit.returns) >= episodes:
                break
    finally:
        policy.deterministic = before
    return float(np.mean(env.audit.returns)) if env.audit.returns else float("-inf")
