"""Environment parameters and their lessons: which values are in force, and when the next lesson starts."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlhooks.envs.manager import EnvManager
from mlhooks.errors import UnsupportedError
from mlhooks.settings.environment_parameters import (
    CompletionCriteriaSettings,
    EnvironmentParameterSettings,
    MeasureType,
    ParameterRandomizationSettings,
)
from mlhooks.state_checks import number, whole

if TYPE_CHECKING:
    from mlhooks.training.trainer import Trainer

logger = logging.getLogger("mlhooks")

SEEDS = 2**31
"""Seeds of samplers are below this, because a Unity player takes them as int32."""
OLD, NEW = 0.25, 0.75
"""What the smoothed reward before and the mean reward now contribute to the smoothed reward."""

Values = dict[str, ParameterRandomizationSettings]


class Curriculum:
    """The lesson that each environment parameter is in; a constant or a sampler is a single lesson.

    The rules are those of ML-Agents 1.1.0. A lesson is over when its behavior has finished `min_lesson_length` episodes
    since any parameter last changed its lesson, and the measure is above the threshold: the share of `max_steps` done,
    or the mean return of these episodes, at most as many as the largest `min_lesson_length` that waits for this
    behavior. `signal_smoothing` is carried on at every call of `advance`, through lessons.

    Args:
        parameters: the section `environment_parameters`.
        seed: of the run.

    Attributes:
        lessons: the number of each parameter's lesson, from 0.
    """

    def __init__(self, parameters: Mapping[str, EnvironmentParameterSettings] | None, seed: int) -> None:
        self._parameters = parameters or {}
        self._values = seeded_lessons(parameters, seed)
        self.lessons = dict.fromkeys(self._parameters, 0)
        self._smoothed = dict.fromkeys(self._parameters, 0.0)
        self._returns: dict[str, deque[float]] = {}
        windows: dict[str, int] = {}
        for _, criteria in self._all_criteria():
            windows[criteria.behavior] = max(windows.get(criteria.behavior, 1), criteria.min_lesson_length)
        for behavior, window in windows.items():
            self._returns[behavior] = deque(maxlen=window)

    def _all_criteria(self) -> Iterator[tuple[str, CompletionCriteriaSettings]]:
        for name, parameter in self._parameters.items():
            for lesson in parameter.curriculum:
                if lesson.completion_criteria is not None:
                    yield name, lesson.completion_criteria

    @property
    def values(self) -> Values:
        """The value of each parameter now, with a seed for those that are drawn."""
        return {name: lessons[self.lessons[name]] for name, lessons in self._values.items()}

    @property
    def changing(self) -> list[str]:
        """The parameters that have another lesson before them."""
        return [name for name, lesson in self.lessons.items() if lesson + 1 < len(self._values[name])]

    def watch(self, trainer: Trainer) -> None:
        """Take note of the episodes of a behavior from now on."""
        returns = self._returns.get(trainer.behavior_name)
        if returns is not None:
            trainer.episodes.listeners.append(lambda _, finished: returns.extend(finished.tolist()))

    def unmeasured(self, behaviors: Mapping[str, object]) -> dict[str, str]:
        """Return the parameters whose lesson waits for a behavior that is not among these, and which one."""
        waited = {name: criteria.behavior for name, criteria in self._waiting()}
        return {name: behavior for name, behavior in waited.items() if behavior not in behaviors}

    def _waiting(self) -> Iterator[tuple[str, CompletionCriteriaSettings]]:
        for name in self.changing:
            criteria = self._parameters[name].curriculum[self.lessons[name]].completion_criteria
            if criteria is not None:
                yield name, criteria

    def refuse_unable(self, manager: EnvManager) -> None:
        """Refuse a manager that cannot change environment parameters where there are lessons that do.

        Raises:
            UnsupportedError: names the parameters and the manager.
        """
        inherited = EnvManager.set_parameters
        if self.changing and getattr(type(manager), "set_parameters", inherited) is inherited:
            raise UnsupportedError(
                f"The lessons of {', '.join(self.changing)} change environment parameters during the run, and "
                f"{type(manager).__name__}, which runs the environments, has no set_parameters. Block the plugin that "
                "brings it, or give each of these parameters a single value."
            )

    def start_due_lessons(self, trainers: Mapping[str, Trainer], manager: EnvManager, steps: int) -> None:
        """Start the lessons that are due, and tell the environments.

        Args:
            trainers: of the behaviors that have appeared.
            manager: of the environments.
            steps: steps of workers since the last call; lessons are judged once for each, as in ML-Agents.
        """
        if not self.changing:
            return
        progress = {name: trainer.step / max(1, trainer.settings.max_steps) for name, trainer in trainers.items()}
        for _ in range(steps):
            reset = self.advance(progress)
            if reset is None:
                continue
            manager.set_parameters(self.values, reset=reset)
            if reset:
                for trainer in trainers.values():
                    trainer.environments_restarted()

    def advance(self, progress: Mapping[str, float]) -> bool | None:
        """Start the next lessons of all parameters whose lesson is over.

        Args:
            progress: of each behavior that has appeared, the share of its `max_steps`.

        Returns:
            None where no lesson started; otherwise whether the environments are to be reset, as the criteria of a
            lesson that is over demand.
        """
        over = [
            (name, criteria)
            for name, criteria in self._waiting()
            if criteria.behavior in progress and self._is_over(name, criteria, progress[criteria.behavior])
        ]
        if not over:
            return None
        for name, _ in over:
            self.lessons[name] += 1
            self._announce(name, "begins")
        for returns in self._returns.values():
            returns.clear()
        return any(criteria.require_reset for _, criteria in over)

    def _is_over(self, name: str, criteria: CompletionCriteriaSettings, progress: float) -> bool:
        returns = self._returns[criteria.behavior]
        if len(returns) < criteria.min_lesson_length:
            return False
        if criteria.measure is MeasureType.PROGRESS:
            return progress > criteria.threshold
        if not returns:
            return False
        reward = sum(returns) / len(returns)
        if criteria.signal_smoothing:
            reward = self._smoothed[name] = OLD * self._smoothed[name] + NEW * reward
        return reward > criteria.threshold

    def announce(self) -> None:
        """Log each parameter's lesson and value."""
        for name in self.lessons:
            self._announce(name, "is in")

    def _announce(self, name: str, verb: str) -> None:
        number, lessons = self.lessons[name], self._parameters[name].curriculum
        value = lessons[number].value
        if len(lessons) == 1:
            logger.info("Parameter %r is %s.", name, value)
        else:
            place = f"{lessons[number].name!r} ({number + 1} of {len(lessons)})"
            logger.info("Parameter %r %s lesson %s: %s.", name, verb, place, value)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: lessons, and what decides about the next ones."""
        returns = {behavior: list(returns) for behavior, returns in self._returns.items()}
        return {"lessons": dict(self.lessons), "smoothed": dict(self._smoothed), "returns": returns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, as far as the parameters are still there."""
        for name in self.lessons.keys() & state["lessons"].keys():
            saved, last = whole(state["lessons"][name], f"the lesson of {name}"), len(self._values[name]) - 1
            self.lessons[name] = min(saved, last)
            self._smoothed[name] = number(state["smoothed"][name], f"the smoothed reward of {name}")
            if saved > last:
                logger.warning(
                    "Parameter %r was in lesson %d, and there are only %d now: it goes on with the last.",
                    *(name, saved + 1, last + 1),
                )
        for behavior in self._returns.keys() & state["returns"].keys():
            self._returns[behavior].clear()
            self._returns[behavior].extend(number(value, "a return") for value in state["returns"][behavior])


def seeded_lessons(
    parameters: Mapping[str, EnvironmentParameterSettings] | None, seed: int
) -> dict[str, list[ParameterRandomizationSettings]]:
    """Return the value of every lesson of each environment parameter, with a seed for those that have none.

    Those count on from the run's seed, over all lessons of all parameters, as in ML-Agents.
    """
    lessons: dict[str, list[ParameterRandomizationSettings]] = {}
    for name, parameter in (parameters or {}).items():
        lessons[name] = []
        for lesson in parameter.curriculum:
            value = lesson.value
            if value.seed == -1:
                value, seed = value.model_copy(update={"seed": seed % SEEDS}), seed + 1
            lessons[name].append(value)
    return lessons
