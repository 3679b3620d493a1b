"""Environments in the training process, stepped one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlagents_envs.base_env import ActionTuple, BaseEnv

from mlhooks.envs import players
from mlhooks.envs.closing import close
from mlhooks.envs.manager import WorkerFailure, WorkerLost, WorkerStep, as_exception
from mlhooks.envs.parameters import Parameters, set_parameters
from mlhooks.envs.restarts import RestartPolicy
from mlhooks.envs.told import spaces_of, stats_of, steps_of
from mlhooks.plugin import EnvironmentPaused, EnvManager, MlhooksError, RunOptions, Worker, hookimpl


class InProcessManager(EnvManager):
    """Workers without processes: a worker steps when the loop asks what is ready.

    Args:
        make_env: makes the environment of a worker.
        count: how many workers there are.
        restarts: decides whether an environment that failed is made again.
    """

    def __init__(self, make_env: Callable[[int], BaseEnv], count: int, restarts: RestartPolicy) -> None:
        self._make_env, self._restarts = make_env, restarts
        self._workers = tuple(Worker(index) for index in range(count))
        self._parameters: Parameters = {}  # These were set since the start.
        self._players: list[list[players.Process]] = [[] for _ in range(count)]
        self.envs: list[BaseEnv | None] = [None] * count
        self._steps = [0] * count  # These are steps since each environment was made.
        self._begun = False  # It becomes true when any of them makes a step.
        self._fresh = [True] * count  # A fresh worker's first step waits already.
        self._paused: set[int] = set()
        # These are failures between two steps, by worker, which `ready` reports.
        self._untold: dict[int, Exception] = {}
        try:
            for index in range(count):
                self._make(index)
            for index in range(count):
                self.reset(Worker(index))
        except BaseException as error:
            self.close()
            if isinstance(error, (MlhooksError, KeyboardInterrupt)):
                raise
            raise WorkerFailure(Worker(index), as_exception(error)) from error

    def _make(self, index: int) -> BaseEnv:
        with players.noticed() as self._players[index]:
            env = self.envs[index] = self._make_env(index)
        self._steps[index] = 0
        set_parameters(env, self._parameters, index)
        return env

    def ready(self) -> Iterator[WorkerStep | WorkerLost]:
        """Step every worker and yield what it sent; all decisions were made by now."""
        for worker in self._workers:
            try:
                step = self._step(worker)
            except BaseException as error:
                yield self.fail(worker, as_exception(error))
            else:
                yield step

    def _step(self, worker: Worker) -> WorkerStep:
        index = worker.index
        env = self.envs[index]
        if index in self._untold:
            raise self._untold.pop(index)
        if env is None:
            env = self._make(index)
            self._begin(index)
        elif index in self._paused:
            self._paused.remove(index)
            self._begin(index)
        if not self._fresh[index]:
            env.step()
            self._steps[index] += 1
            self._begun = True
        specs, steps = steps_of(env)
        self._fresh[index] = False
        return WorkerStep(worker, specs, steps, stats_of(env), spaces_of(env))

    def fail(self, worker: Worker, error: Exception) -> WorkerLost:
        """Close an environment that failed; the next call of `ready` makes it again, or waits for one that is paused.

        Raises:
            WorkerFailure: the limits of restarts are reached.
        """
        lost = self._restarts.restart(worker, error, steps=self._steps[worker.index], begun=self._begun)
        if lost.paused:
            self._paused.add(worker.index)
            return lost
        env, self.envs[worker.index] = self.envs[worker.index], None
        if env is not None:
            players.kill(self._players[worker.index])  # Closing the environment would wait for them.
            close(env, f"The environment of worker {worker.index}, which failed,")
        return lost

    def send(self, worker: Worker, behavior_id: str, action: ActionTuple) -> None:
        """Hand the actions to the environment."""
        env = self.envs[worker.index]
        assert env is not None
        try:
            env.set_actions(behavior_id, action)
        except BaseException as error:
            self._untold[worker.index] = as_exception(error)

    def reset(self, worker: Worker) -> None:
        """Reset the environment; one that is paused begins again in any case."""
        failed = self.envs[worker.index] is None  # It is made again in any case.
        if failed or worker.index in self._paused | self._untold.keys():
            return
        try:
            self._begin(worker.index)
        except EnvironmentPaused as pause:
            self._untold[worker.index] = pause

    def _begin(self, index: int) -> None:
        env = self.envs[index]
        assert env is not None
        env.reset()
        self._fresh[index] = True

    def set_parameters(self, parameters: Parameters, *, reset: bool = False) -> None:
        """Hand the parameters to all environments."""
        self._parameters = parameters
        for index, env in enumerate(self.envs):
            if env is not None:  # An environment that failed is made again with them.
                set_parameters(env, parameters, index)
                if reset:
                    self.reset(Worker(index))

    def close(self) -> None:
        """Close the environments."""
        for index, env in enumerate(self.envs):
            if env is not None:
                close(env, f"The environment of worker {index}")

    def state_dict(self) -> dict[str, Any] | None:
        """Return the states of all environments, where all of them offer one."""
        if not all(hasattr(env, "state_dict") for env in self.envs):
            return None
        return {"envs": [env.state_dict() for env in self.envs if env is not None], "fresh": list(self._fresh)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the environments; their last steps were taken in already, but for those that were just reset."""
        for env, env_state in zip(self.envs, state["envs"], strict=True):
            assert env is not None
            env.load_state_dict(env_state)
        self._fresh = list(state["fresh"])


@hookimpl(trylast=True)
def create_env_manager(options: RunOptions, make_env: Callable[[int], BaseEnv]) -> EnvManager:
    """Run the workers in process."""
    settings = options.env_settings
    return InProcessManager(make_env, settings.num_envs, RestartPolicy.from_settings(settings))
