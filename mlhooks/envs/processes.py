"""Environments in worker processes: none waits for the slowest, and one that fails is started again meanwhile."""

from __future__ import annotations

import atexit
import time
from collections.abc import Sequence
from multiprocessing.connection import wait

from mlagents_envs.base_env import ActionTuple

from mlhooks.envs.manager import EnvManager, Worker, WorkerFailure, WorkerLost, WorkerStep
from mlhooks.envs.parameters import Parameters
from mlhooks.envs.restarts import RestartPolicy
from mlhooks.envs.worker import Recipe
from mlhooks.envs.worker_process import WorkerProcess
from mlhooks.errors import MlhooksError


class ProcessManager(EnvManager):
    """Runs each environment in a process of its own.

    A worker steps from the moment at which `ready` is called after its actions were sent until its answer is taken, so
    while the learner updates, too. A worker whose first start fails is started again only if another one came up: what
    keeps all of them from starting will not pass.

    Args:
        recipes: what each worker is made from.
        timeout: seconds in which an environment must be made, and answer each step.
        restarts: decides whether a failed worker is started again.
    """

    def __init__(self, recipes: Sequence[Recipe], *, timeout: float, restarts: RestartPolicy) -> None:
        self._restarts = restarts
        self._to_restart: list[WorkerProcess] = []  # They are restarted once their processes are gone.
        self._unstarted: list[tuple[WorkerProcess, Exception]] = []
        self._workers = [WorkerProcess(recipe, timeout) for recipe in recipes]
        atexit.register(self.close)  # It has to run before multiprocessing waits for its processes.
        try:
            for worker in self._workers:
                worker.start()
        except BaseException:
            self.close()
            raise

    def ready(self) -> list[WorkerStep | WorkerLost]:
        """Let all workers go on, and wait for the first answers.

        Raises:
            WorkerFailure: a worker failed for good.
        """
        for worker in self._workers:
            worker.send_actions()
        events: list[WorkerStep | WorkerLost] = []
        while not events:
            self._wait()
            for worker in self._workers:
                if worker.stepping:
                    events += self._answers(worker)
                elif worker in self._to_restart and (worker.gone or worker.overdue):
                    self._to_restart.remove(worker)
                    worker.end()
                    worker.start()
            events += self._judge_unstarted()
        return events

    def _wait(self) -> None:
        awaited = [worker for worker in self._workers if worker.stepping or worker in self._to_restart]
        busy = {worker.waitable: worker for worker in awaited}
        first = min((worker.deadline for worker in busy.values()), default=0.0)
        wait(list(busy), max(0.0, first - time.monotonic()))

    def _answers(self, worker: WorkerProcess) -> list[WorkerStep | WorkerLost]:
        try:
            step = worker.answer()
        except Exception as error:
            worker.ask_to_end()
            if not worker.came_up:
                self._unstarted.append((worker, error))
                return []
            return [self._restart(worker, error)]
        return [] if step is None else [step]

    def _judge_unstarted(self) -> list[WorkerLost]:
        """Decide about workers that failed before their first step, once another worker has shown how it goes."""
        came_up = any(worker.came_up for worker in self._workers)
        if not came_up and len(self._unstarted) < len(self._workers):
            return []
        failures, self._unstarted = self._unstarted, []
        if not came_up:
            worker, error = failures[0]
            if isinstance(error, MlhooksError):
                raise error
            raise WorkerFailure(Worker(worker.recipe.index), error) from error
        return [self._restart(worker, error) for worker, error in failures]

    def _restart(self, worker: WorkerProcess, error: Exception) -> WorkerLost:
        begun = any(each.worked for each in self._workers) or not worker.came_up
        steps = max(0, worker.answers - 1)
        lost = self._restarts.restart(Worker(worker.recipe.index), error, steps=steps, begun=begun)
        self._to_restart.append(worker)
        return lost

    def fail(self, worker: Worker, error: Exception) -> WorkerLost:
        """Start a worker again, because what it sent cannot be used.

        Raises:
            WorkerFailure: the limits of restarts are reached.
        """
        self._workers[worker.index].ask_to_end()
        return self._restart(self._workers[worker.index], error)

    def send(self, worker: Worker, behavior_id: str, action: ActionTuple) -> None:
        """Keep the actions for the worker, which gets those of all its behaviors at once."""
        self._workers[worker.index].set_actions(behavior_id, action)

    def reset(self, worker: Worker) -> None:
        """Begin new episodes; the answer to a step that is under way is passed over."""
        self._workers[worker.index].reset()

    def set_parameters(self, parameters: Parameters, *, reset: bool = False) -> None:
        """Hand the parameters to all workers, each of which takes them when its step is done."""
        for worker in self._workers:
            worker.set_parameters(parameters)
            if reset:
                worker.reset()

    def close(self) -> None:
        """End all workers, with some seconds for all of them together to close their environments."""
        atexit.unregister(self.close)
        try:
            for worker in self._workers:
                if worker.running and not worker.leaving:
                    worker.ask_to_end()
            while busy := [worker for worker in self._workers if worker.running and not worker.gone]:
                if all(worker.overdue for worker in busy):
                    break
                first = min(worker.deadline for worker in busy if not worker.overdue)
                wait([worker.waitable for worker in busy], max(0.0, first - time.monotonic()))
        finally:
            for worker in self._workers:
                worker.end()
