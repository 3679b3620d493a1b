"""The interface between the training loop and the workers that step environments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.errors import EnvironmentFailure, MlhooksError


@dataclass(frozen=True, slots=True)
class Worker:
    """One environment process or player; `index` counts from 0."""

    index: int


@dataclass(frozen=True, slots=True)
class WorkerStep:
    """What one worker sent: the specs of its behaviors, and the steps of each behavior id."""

    worker: Worker
    specs: Mapping[str, BehaviorSpec]
    steps: Mapping[str, tuple[DecisionSteps, TerminalSteps]]


class WorkerFailure(EnvironmentFailure):
    """A worker whose environment failed and that cannot go on."""

    def __init__(self, worker: Worker, error: BaseException) -> None:
        what = str(error) if isinstance(error, MlhooksError) else f"{type(error).__name__}: {error}"
        super().__init__(f"The environment of worker {worker.index} failed: {what}")
        self.worker, self.error = worker, error


class EnvManager(ABC):
    """Decides where and how workers run: in process, in subprocesses, on a cluster."""

    @abstractmethod
    def ready(self) -> Iterable[WorkerStep]:
        """The workers whose steps wait; blocks until there is at least one.

        Raises:
            WorkerFailure: a worker failed for good.
        """

    @abstractmethod
    def send(self, worker: Worker, behavior_id: str, action: ActionTuple) -> None:
        """Give a worker the actions of all agents of one behavior id that asked for a decision."""

    @abstractmethod
    def reset(self, worker: Worker) -> None:
        """Begin new episodes in a worker; its next step is ready after that."""

    @abstractmethod
    def close(self) -> None:
        """End all workers; may be called more than once."""

    def state_dict(self) -> dict[str, Any] | None:
        """The state of all environments, or None where they cannot be restored."""
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in place of a reset."""
        raise NotImplementedError(f"{type(self).__name__} offers no state_dict, so there is none to load.")
