"""One run of ML-Agents for `speed.py`: its own PPO, put together as `mlagents-learn` does, with copies in process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from itertools import count
from time import perf_counter
from typing import Any

import numpy as np
from adapter import ReachedError, Returns, script, single_environment
from gymnasium import spaces
from mlagents.plugins.trainer_type import register_trainer_plugins
from mlagents.trainers.env_manager import EnvManager
from mlagents.trainers.environment_parameter_manager import EnvironmentParameterManager
from mlagents.trainers.settings import RunOptions
from mlagents.trainers.simple_env_manager import SimpleEnvManager
from mlagents.trainers.trainer import TrainerFactory
from mlagents.trainers.trainer_controller import TrainerController
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BaseEnv,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
)
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel

BEHAVIOR = "Copies"
RESULTS = "results"


class Copies(BaseEnv):
    """Single copies of an environment, which are the agents of one behavior.

    As with a Unity player, an agent whose episode ends shows its terminal step, and in the same step the first decision
    step of its next episode, in which it has a new id.
    """

    def __init__(self, settings: dict[str, Any], returns: Returns) -> None:
        self.returns, self.steps = returns, 0
        self._envs = [single_environment(settings["environment"]) for _ in range(settings["environments"])]
        self._seed, self._new_id = settings["seed"], count()
        one = self._envs[0]
        properties = (DimensionProperty.NONE,), ObservationType.DEFAULT, "observation"
        self._box = one.action_space if isinstance(one.action_space, spaces.Box) else None
        actions = ActionSpec(self._box.shape[0], ()) if self._box else ActionSpec(0, (int(one.action_space.n),))
        self._spec = BehaviorSpec([ObservationSpec(one.observation_space.shape, *properties)], actions)

    @property
    def behavior_specs(self) -> Mapping[str, BehaviorSpec]:
        """The one behavior."""
        return {BEHAVIOR: self._spec}

    def reset(self) -> None:
        """Start an episode of every copy."""
        self._agents = [next(self._new_id) for _ in self._envs]
        observations = [env.reset(seed=self._seed + row)[0] for row, env in enumerate(self._envs)]
        self._show(observations, [0.0] * len(self._envs), [])

    def set_actions(self, behavior_name: str, action: ActionTuple) -> None:  # noqa: ARG002 - There is one behavior.
        """Keep what the next step is to do; [-1, 1] is mapped to the bounds of a box."""
        if self._box:
            low, high = self._box.low, self._box.high
            self._actions = low + (action.continuous + 1.0) * (0.5 * (high - low))
        else:
            self._actions = action.discrete[:, 0]

    def set_action_for_agent(self, behavior_name: str, agent_id: int, action: ActionTuple) -> None:
        """Refuse: nobody asks for it."""
        raise NotImplementedError

    def step(self) -> None:
        """Step all copies, and start an episode where one ended."""
        observations, rewards, ended = [], [], []
        for row, env in enumerate(self._envs):
            observation, reward, terminated, truncated, info = env.step(self._actions[row])
            if terminated or truncated:
                self.returns.add([info["episode"]["r"]])
                ended.append((observation, reward, not terminated, self._agents[row]))
                (observation, _), reward = env.reset(), 0.0
                self._agents[row] = next(self._new_id)
            observations.append(observation)
            rewards.append(reward)
        self.steps += len(self._envs)
        if self.returns.reached:
            raise ReachedError
        self._show(observations, rewards, ended)

    def _show(self, observations: list[Any], rewards: list[Any], ended: list[tuple[Any, Any, bool, int]]) -> None:
        """Make the steps that the trainer sees, in arrays that later steps leave alone."""
        agents = np.array(self._agents, np.int32)
        alone = np.zeros_like(agents), np.zeros(len(agents), np.float32)  # These are groups and their rewards.
        self._decisions = DecisionSteps([np.stack(observations)], np.array(rewards, np.float32), agents, None, *alone)
        self._terminals = TerminalSteps.empty(self._spec)
        if ended:
            last, reward, interrupted, gone = zip(*ended, strict=True)
            alone = np.zeros(len(gone), np.int32), np.zeros(len(gone), np.float32)
            rest = np.array(interrupted), np.array(gone, np.int32)
            self._terminals = TerminalSteps([np.stack(last)], np.array(reward, np.float32), *rest, *alone)

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:  # noqa: ARG002 - There is one behavior.
        """Return what the last step showed."""
        return self._decisions, self._terminals

    def close(self) -> None:
        """Close all copies."""
        for env in self._envs:
            env.close()


class Controller(TrainerController):
    """ML-Agents' training loop, timed from the first observation on, without the model files at its end."""

    started = 0.0

    def _reset_env(self, env_manager: EnvManager) -> None:
        super()._reset_env(env_manager)
        self.started = perf_counter()

    def _save_models(self) -> None:
        """Save nothing: the others save no models, and ML-Agents' need onnx."""


def options(settings: dict[str, Any]) -> RunOptions:
    """Return the settings in the words of a configuration file."""
    behavior = {
        "trainer_type": settings["algorithm"],
        "hyperparameters": {
            "batch_size": settings["batch_size"],
            "buffer_size": settings["environments"] * settings["rollout"],
            "learning_rate": settings["learning_rate"],
            "beta": settings["entropy"],
            "epsilon": settings["clip"],
            "lambd": settings["lambda"],
            "num_epoch": settings["epochs"],
            # This goes for beta and epsilon as well.
            "learning_rate_schedule": "linear" if settings["decay"] else "constant",
        },
        "network_settings": {"hidden_units": settings["layers"][0], "num_layers": len(settings["layers"])},
        "reward_signals": {"extrinsic": {"gamma": settings["gamma"]}},
        "time_horizon": settings["rollout"],
        "max_steps": settings["steps"],
        "checkpoint_interval": 2 * settings["steps"],  # It never writes one.
    }
    return RunOptions.from_dict({"behaviors": {BEHAVIOR: behavior}})


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    register_trainer_plugins()
    seed, env = settings["seed"], Copies(settings, Returns(settings))
    parameters = EnvironmentParameterManager(run_seed=seed)
    factory = TrainerFactory(options(settings).behaviors, RESULTS, True, False, seed, parameters)
    controller = Controller(factory, RESULTS, "run", parameters, True, seed)
    with contextlib.suppress(ReachedError):
        controller.start_learning(SimpleEnvManager(env, EnvironmentParametersChannel()))
    seconds = perf_counter() - controller.started
    return {"steps": env.steps, "loop_seconds": seconds, "mean_return": env.returns.mean}


if __name__ == "__main__":
    script(train, "mlagents")
