"""Environments in the training process, stepped one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlagents_envs.base_env import ActionTuple, BaseEnv

from mlhooks import hookimpl
from mlhooks.envs.manager import EnvManager, Worker, WorkerFailure, WorkerStep
from mlhooks.settings import RunOptions


class InProcessManager(EnvManager):
    """`num_envs` workers without processes: a worker steps when the loop asks what is ready."""

    def __init__(self, envs: list[BaseEnv]) -> None:
        self.envs = envs
        self._fresh = [True] * len(envs)  # a fresh worker's first step waits already
        for env in envs:
            env.reset()

    def ready(self) -> Iterator[WorkerStep]:
        """Step every worker and give what it sent; all decisions were made by now."""
        for index, env in enumerate(self.envs):
            try:
                if not self._fresh[index]:
                    env.step()
                specs = env.behavior_specs
                steps = {name: env.get_steps(name) for name in specs}
            except Exception as error:
                raise WorkerFailure(Worker(index), error) from error
            self._fresh[index] = False
            yield WorkerStep(Worker(index), specs, steps)

    def send(self, worker: Worker, behavior_id: str, action: ActionTuple) -> None:
        """Hand the actions to the environment."""
        self.envs[worker.index].set_actions(behavior_id, action)

    def reset(self, worker: Worker) -> None:
        """Reset the environment."""
        self.envs[worker.index].reset()
        self._fresh[worker.index] = True

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def state_dict(self) -> dict[str, Any] | None:
        """The states of all environments, where all of them offer one."""
        if not all(hasattr(env, "state_dict") for env in self.envs):
            return None
        return {"envs": [env.state_dict() for env in self.envs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the environments; their last steps were already taken in."""
        for env, env_state in zip(self.envs, state["envs"], strict=True):
            env.load_state_dict(env_state)
        self._fresh = [False] * len(self.envs)


@hookimpl(trylast=True)
def create_env_manager(options: RunOptions, make_env: Callable[[int], BaseEnv]) -> EnvManager:
    """Run `num_envs` workers in process."""
    return InProcessManager([make_env(index) for index in range(options.env_settings.num_envs)])
