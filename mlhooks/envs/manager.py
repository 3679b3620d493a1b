"""The interface between the training loop and the workers that step environments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.describing import described
from mlhooks.envs.parameters import Parameters
from mlhooks.envs.spaces import Spaces
from mlhooks.envs.told import Stat
from mlhooks.errors import EnvironmentFailure, EnvironmentPaused


@dataclass(frozen=True, slots=True)
class Worker:
    """One environment process or player; `index` counts from 0."""

    index: int


class WorkerStep(NamedTuple):
    """A step of one worker: the specs of its behaviors, the steps of each behavior id, and its own statistics.

    `spaces` has what agents see and do in the environment's own terms, by behavior id, where these are not ML-Agents'.
    """

    worker: Worker
    specs: Mapping[str, BehaviorSpec]
    steps: Mapping[str, tuple[DecisionSteps, TerminalSteps]]
    stats: Sequence[Stat] = ()
    spaces: Mapping[str, Spaces] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker whose environment failed and is being started again; its agents' episodes will never be finished.

    So will those of an environment that a person stopped and may start again: it is `paused`, and did not fail.
    """

    worker: Worker
    error: Exception

    @property
    def paused(self) -> bool:
        """Whether the worker waits for a person, and goes on by itself then."""
        return isinstance(self.error, EnvironmentPaused)

    def __str__(self) -> str:
        text = f"The environment of worker {self.worker.index} failed: {described(self.error)}"
        return text if text.endswith((".", "!", "?")) or "\n" in text else f"{text}."


class WorkerFailure(EnvironmentFailure):
    """A worker whose environment failed and that cannot go on; `why_final` says why it is not started again."""

    def __init__(self, worker: Worker, error: Exception, why_final: str = "") -> None:
        text = str(WorkerLost(worker, error))
        between = "\n" if "\n" in text else " "  # The lines may be the end of a player's log.
        super().__init__(f"{text}{between}{why_final}".rstrip())
        self.worker, self.error = worker, error


def as_exception(error: BaseException) -> Exception:
    """Turn what an environment raised, `sys.exit()` included, into an error after which it can be started again.

    Raises:
        KeyboardInterrupt: it is Ctrl-C, and no failure.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    return as_failure(error)


def as_failure(error: BaseException) -> Exception:
    """Do as `as_exception` where signals have handlers of their own: a KeyboardInterrupt is no Ctrl-C there."""
    if isinstance(error, Exception):
        return error
    failure = EnvironmentFailure(described(error))
    failure.__cause__ = error
    return failure


class EnvManager(ABC):
    """Decides where and how workers run: in process, in subprocesses, on a cluster."""

    @abstractmethod
    def ready(self) -> Iterable[WorkerStep | WorkerLost]:
        """Return the workers whose steps wait, and those that were lost; block until there is at least one.

        The arrays of a step may be views of memory that changes after the worker was sent actions: copy what is to
        last.

        Raises:
            WorkerFailure: a worker failed for good.
        """

    @abstractmethod
    def send(self, worker: Worker, behavior_id: str, action: ActionTuple) -> None:
        """Give a worker the actions of all agents of one behavior id that asked for a decision."""

    @abstractmethod
    def reset(self, worker: Worker) -> None:
        """Begin new episodes in a worker; its next step is ready after that."""

    def set_parameters(self, parameters: Parameters, *, reset: bool = False) -> None:
        """Give all environments, also those that are made again later, other environment parameters.

        With which ones environments start, `make_env` sees to. A manager without this method cannot run a curriculum,
        whose lessons change them, and is refused with one before training.

        Args:
            parameters: all of them, for the episodes that begin from now on.
            reset: let all workers begin new episodes; steps that are under way are not given any more.
        """
        raise NotImplementedError(f"{type(self).__name__} offers no set_parameters.")

    def fail(self, worker: Worker, error: Exception) -> WorkerLost:
        """Start a worker's environment again, because what it sent cannot be used.

        Raises:
            WorkerFailure: it is not to be started again, which is what a manager without restarts always says.
        """
        raise WorkerFailure(worker, error) from error

    @abstractmethod
    def close(self) -> None:
        """End all workers; may be called more than once."""

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of all environments, or None where they cannot be restored."""
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in place of a reset."""
        raise NotImplementedError(f"{type(self).__name__} offers no state_dict, so there is none to load.")
