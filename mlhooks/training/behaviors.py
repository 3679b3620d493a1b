"""The behaviors of a run: their trainers are made when an environment shows them, or a checkpoint has them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mlagents_envs.base_env import BehaviorSpec

from mlhooks.envs.manager import WorkerStep
from mlhooks.envs.specs import change_in_words, same_shape
from mlhooks.envs.told import check_spec
from mlhooks.errors import UsageError
from mlhooks.training.awaited_behaviors import Awaited
from mlhooks.training.device import device_named
from mlhooks.training.making import make_trainer
from mlhooks.training.name_limits import refuse_long_behavior
from mlhooks.training.spaces import set_spaces
from mlhooks.training.torch_setup import Computing, Threads
from mlhooks.training.trainer import Trainer

if TYPE_CHECKING:
    from mlhooks.training.run import Run

logger = logging.getLogger("mlhooks")


class Behaviors:
    """Makes the trainers of a run, and tells everybody of each new one.

    Args:
        run: the run, whose `trainers` get them.

    Attributes:
        trainer_of: behavior id -> trainer, as environments have shown them.
        awaited: the behaviors of the checkpoint that no environment has shown yet.
        threads: the number of threads that torch uses, which follows the largest networks.
    """

    def __init__(self, run: Run) -> None:
        torch_settings = run.options.torch_settings
        self._trainer_types = run.plugins.collect_mapping("get_trainer_types")
        self.run = run
        self.trainer_of: dict[str, Trainer] = {}
        self.awaited = Awaited(run.env_name)
        self.threads = Threads(torch_settings.threads)
        self._device = device_named(torch_settings.device)
        self._computing = Computing(torch_settings, self._device)

    def appear(self, behavior_id: str, step: WorkerStep) -> Trainer:
        """Return the trainer of a behavior id that an environment shows for the first time in this step.

        Raises:
            MlhooksError: it cannot be trained, or is not what the checkpoint has.
        """
        run, spec = self.run, step.specs[behavior_id]
        check_spec(behavior_id, spec)
        name = name_in(behavior_id)
        trainer = run.trainers.get(name)
        if trainer is None:
            if not run.inference:
                refuse_long_behavior(run.path, name)
            trainer = self.make_trainer(name, spec)
            if not run.persistence.initialize(trainer) and run.inference:
                self.awaited.refuse_untrained(name, [name_in(shown) for shown in step.specs])
            self.add(trainer)
        elif not same_shape(trainer.behavior_spec, spec):
            raise UsageError(change_in_words(behavior_id, "the run was saved", trainer.behavior_spec, spec))
        elif trainer.settings.self_play is None and not run.inference:
            self._warn_of_teams(behavior_id, name)
        set_spaces(trainer, behavior_id, step.spaces.get(behavior_id))
        self.trainer_of[behavior_id] = trainer
        self.awaited.note_behavior(name)
        return trainer

    def make_trainer(self, name: str, spec: BehaviorSpec) -> Trainer:
        """Make the trainer that the settings ask for."""
        settings = self.run.options.settings_for(name)
        trainer_type: type[Trainer] = self._trainer_types[settings.trainer_type]
        trainer = make_trainer(
            trainer_type,
            behavior_name=name,
            behavior_spec=spec,
            settings=settings,
            plugins=self.run.plugins,
            device=self._device,
            seed=self.run.seed,
        )
        if not self.run.inference:
            trainer.learning.begin_training(self.run.started_in)
            trainer.begin_self_play(self.run.teams)
        return trainer

    def _warn_of_teams(self, behavior_id: str, name: str) -> None:
        """Warn of a second team where all teams are one policy's; to be called for each behavior id that is new."""
        others = [known for known in self.trainer_of if name_in(known) == name]
        if len(others) == 1:
            logger.warning(
                "Behavior %r has several teams, %r and %r, and no self_play: one policy learns from all of them at "
                "once, also in games in which what one team wins the other loses. For such games, add self_play to "
                "its settings.",
                *(name, others[0], behavior_id),
            )

    def add(self, trainer: Trainer) -> None:
        """Add a trainer to the run, and tell the plugins."""
        run, name = self.run, trainer.behavior_name
        run.trainers[name] = trainer
        self.threads.adapt_to(trainer)
        self._computing.set_up(trainer.modules().values(), threaded=trainer.settings.threaded)
        trainer.training = not run.inference and not trainer.done
        run.evaluations.watch(trainer)
        run.summaries.watch(trainer)
        run.curriculum.watch(trainer)
        if run.evaluation is not None:
            run.evaluation.watch(trainer)
        else:
            self._record(trainer)
        run.plugins.hook.behavior_added(
            run=run, behavior_name=name, behavior_spec=trainer.behavior_spec, trainer=trainer
        )
        if not run.inference:
            trainer.report_properties()

    def _record(self, trainer: Trainer) -> None:
        """Write down what was chosen for a behavior, where its settings did not say it."""
        options, name, threads = self.run.options, trainer.behavior_name, self.threads.count
        if name not in options.behaviors or options.torch_settings.threads != threads:
            options.behaviors[name], options.torch_settings.threads = trainer.settings, threads
            self.run.write_options()

    def warn_of_missing(self) -> None:
        """Name the behaviors that the configuration has and no environment has shown, and a team that plays alone."""
        self.awaited.name_missing([*self.run.options.behaviors, *self.run.trainers])
        if self.run.evaluation is None and len(self.run.teams.known) == 1:
            logger.warning(
                "Behavior %s has self_play, and so far the environment shows a single team: there is nobody to play "
                "against. Give the other side's agents another team (in Unity, Team Id of Behavior Parameters).",
                " and ".join(map(repr, self.run.teams.players)),
            )
        for name, behavior in self.run.curriculum.unmeasured(self.run.trainers).items():
            logger.warning("The lesson of parameter %r waits for behavior %r, which has not appeared.", name, behavior)


def name_in(behavior_id: str) -> str:
    """Return the behavior's name from a behavior id, which also says the team."""
    return behavior_id.partition("?")[0]
