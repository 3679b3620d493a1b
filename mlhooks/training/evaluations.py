"""Evaluations of behaviors while they are trained: when one is due, what it came to, the best policy, early stops."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlhooks.describing import described
from mlhooks.envs.manager import as_exception
from mlhooks.errors import PluginError
from mlhooks.settings.behaviors import EvaluationSettings
from mlhooks.stat_keys import EVALUATED_LENGTH_KEY, EVALUATED_REWARD_KEY
from mlhooks.state_checks import number, whole
from mlhooks.stats import StatsAggregationMethod, StatsReporter
from mlhooks.training.evaluation import Evaluation
from mlhooks.training.evaluator import Evaluator
from mlhooks.training.trainer import Trainer

if TYPE_CHECKING:
    from mlhooks.envs.factory import EnvironmentFactory
    from mlhooks.training.run import Run

logger = logging.getLogger("mlhooks")

MAX_FAILURES = 3
"""Evaluations in a row that may fail; after them there is none any more."""

Modules = dict[str, dict[str, Any]]


@dataclass
class BestPolicy:
    """The policy that had the highest mean reward of all evaluations.

    Attributes:
        step: at which it was evaluated; mean_reward: what it reached.
        modules: its weights, as `Trainer.modules` names them.
        files: what was exported of it.
    """

    step: int
    mean_reward: float
    modules: Modules = field(repr=False)
    files: list[Path]


@dataclass
class _Course:
    """The course of a behavior's evaluations so far."""

    at: int  # This is the step of the last one.
    without_best: int = 0  # So many evaluations were made since the best one.
    best: BestPolicy | None = None
    is_exported: bool = True  # Otherwise the best policy's file may be of another course.


class Evaluations:
    """Evaluates the behaviors of a run whose settings ask for it, each `interval` steps and where its training ends.

    Training is as without: evaluations have an environment, random numbers and statistics of their own.

    Args:
        run: the run; one of inference has no evaluations.

    Attributes:
        best: behavior name -> its best policy so far.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._evaluator: Evaluator | None = None
        self._courses: dict[str, _Course] = {}
        self._saved: Mapping[str, Any] = {}
        self._watched: dict[str, tuple[Trainer, EvaluationSettings]] = {}
        self._failures = 0

    @property
    def best(self) -> dict[str, BestPolicy]:
        """The best policies so far, by behavior name."""
        return {name: course.best for name, course in self._courses.items() if course.best is not None}

    def open(self, make_env: EnvironmentFactory) -> None:
        """Make the environment, where there will be evaluations.

        Raises:
            MlhooksError: it cannot be made.
        """
        settings = self.run.options.evaluations
        if settings:
            own = make_env.for_evaluation(max(each.episodes for each in settings))
            self._evaluator = Evaluator(own, self.run.options.env_settings.num_envs, self.run.seed)
            self._evaluator.open()

    def watch(self, trainer: Trainer) -> None:
        """Begin with a behavior, or go on with it where the run goes on."""
        settings, name = trainer.settings.evaluation, trainer.behavior_name
        if settings is None or self.run.inference:
            return
        self._watched[name] = trainer, settings
        saved = self._saved.get(name)
        self._courses[name] = _Course(trainer.step) if saved is None else _course(saved)
        if trainer.training and self._is_over(name, settings):
            trainer.training = False

    @property
    def due(self) -> list[str]:
        """The behaviors that are to be evaluated now."""
        return [name for name, (trainer, settings) in self._watched.items() if self._is_due(name, trainer, settings)]

    def _is_due(self, name: str, trainer: Trainer, settings: EvaluationSettings) -> bool:
        step, last = trainer.step, self._courses[name].at
        return step > last and (trainer.done or step // settings.interval > last // settings.interval)

    def evaluate_if_due(self) -> bool:
        """Evaluate the behaviors that are due, and tell whether that was done.

        Where the run is to stop meanwhile, they stay due.
        """
        due = self.due if self._watched else []
        if not due or self._evaluator is None:
            return False
        run = self.run
        for trainer in run.trainers.values():
            run.finish_update(trainer)
        with run.timers("evaluation"):
            try:
                wanted = {name: self._watched[name][1] for name in due}
                played = self._evaluator.play(wanted, run.trainers, run.curriculum.values, lambda: run.stop.requested)
            except PluginError:
                raise
            except BaseException as error:
                self._tell_failure(due, as_exception(error))
                return False
            self._failures = 0
            for name, evaluation in (played or {}).items():
                self._record(name, evaluation)
            return played is not None

    def _tell_failure(self, due: list[str], error: Exception) -> None:
        self._failures += 1
        logger.debug("It failed like this:", exc_info=error)
        if self._failures == MAX_FAILURES:
            then = f"It is the {MAX_FAILURES}rd in a row, so there are no more, and training goes on"
            self._watched = {}
        else:
            then = "Training goes on"
        for name in due:
            trainer = self.run.trainers[name]
            self._courses[name].at = trainer.step
            logger.warning(
                "The evaluation of %r at step %s failed. %s. %s", name, f"{trainer.step:,}", then, described(error)
            )

    def _record(self, name: str, evaluation: Evaluation) -> None:
        """Report an evaluation, keep the policy if it is the best one, and end the training where that is asked."""
        run, (trainer, settings), course = self.run, self._watched[name], self._courses[name]
        returns = np.array(evaluation.returns[name])
        mean = float(returns.mean())
        course.at = trainer.step
        if course.best is None or mean > course.best.mean_reward:
            course.best, course.without_best = BestPolicy(trainer.step, mean, _copied(trainer), []), 0
            course.best.files = run.export_best(trainer)
            course.is_exported = True
        else:
            course.without_best += 1
        reporter = StatsReporter(name, run.plugins)
        reporter.add_stats(EVALUATED_REWARD_KEY, returns, StatsAggregationMethod.HISTOGRAM)
        reporter.add_stats(EVALUATED_LENGTH_KEY, np.array(evaluation.lengths[name]))
        reporter.write_stats(trainer.step)
        run.plugins.hook.evaluation_finished(
            run=run, behavior_name=name, step=trainer.step, returns=tuple(returns.tolist())
        )
        if trainer.training and (why := self._is_over(name, settings)):
            trainer.training = False
            logger.info("The training of %r ends at step %s: %s.", name, f"{trainer.step:,}", why)

    def _is_over(self, name: str, settings: EvaluationSettings) -> str:
        """Say why the training of a behavior ends before `max_steps`; nothing where it does not."""
        course = self._courses[name]
        best = course.best
        if best is not None and settings.stop_at is not None and best.mean_reward >= settings.stop_at:
            return f"an evaluation had a mean reward of {best.mean_reward:g}, and evaluation.stop_at is reached"
        if best is not None and settings.patience is not None and course.without_best >= settings.patience:
            return (
                f"no evaluation was better than {best.mean_reward:g} at step {best.step:,}, and evaluation.patience, "
                f"{settings.patience}, is used up"
            )
        return ""

    def why_over(self, name: str) -> str:
        """Say why the training of a behavior is over before `max_steps`; nothing where it is not."""
        return self._is_over(name, self._watched[name][1]) if name in self._watched else ""

    def export_best(self) -> None:
        """Export the best policies that a resumed run took over: their files may be of what came after the checkpoint.

        A trainer gets the best weights for that, and its own ones again.
        """
        for name, course in self._courses.items():
            best, trainer = course.best, self.run.trainers.get(name)
            if best is None or trainer is None or course.is_exported:
                continue
            course.is_exported = True
            own, step = _copied(trainer), trainer.step
            try:
                trainer.load_modules(best.modules)
                trainer.step = best.step
                best.files = self.run.export_best(trainer)
            except PluginError:
                raise
            except Exception as error:  # The settings of networks may have changed.
                logger.warning("The best policy of %r is not exported again: %s", name, described(error))
            finally:
                trainer.load_modules(own)
                trainer.step = step

    def close(self) -> None:
        """Close the environment."""
        if self._evaluator is not None:
            self._evaluator.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint; of behaviors that are not evaluated any more, what was taken over."""
        state = dict(self._saved)
        for name, course in self._courses.items():
            best = course.best
            kept = best and {"step": best.step, "mean_reward": best.mean_reward, "modules": best.modules}
            state[name] = {"at": course.at, "without_best": course.without_best, "best": kept}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, for behaviors that are watched after this."""
        for saved in state.values():
            _course(saved)
        self._saved = dict(state)


def _course(saved: Mapping[str, Any]) -> _Course:
    best = saved["best"]
    if best is not None:
        mean = number(best["mean_reward"], "the best mean reward")
        best = BestPolicy(whole(best["step"], "the step of the best policy"), mean, best["modules"], [])
    at = whole(saved["at"], "the step of the last evaluation")
    return _Course(at, whole(saved["without_best"], "evaluations"), best, is_exported=False)


def _copied(trainer: Trainer) -> Modules:
    """Return copies of a trainer's weights, which stay as they are."""
    return {
        name: {
            key: value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value
            for key, value in module.state_dict().items()
        }
        for name, module in trainer.modules().items()
    }
