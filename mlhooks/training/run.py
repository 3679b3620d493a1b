"""The training loop: environments, trainers and plugins together, from the first step to the last file."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import time
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from mlagents_envs.base_env import BehaviorSpec

from mlhooks.describing import described
from mlhooks.envs.closing import close
from mlhooks.envs.manager import EnvManager, Worker, WorkerFailure, WorkerLost, WorkerStep
from mlhooks.envs.restarts import restart_report
from mlhooks.envs.shared_steps import check_steps
from mlhooks.envs.specs import change_in_words, same_shape
from mlhooks.envs.told import check_spec
from mlhooks.errors import (
    ContractBroken,
    EnvironmentFailure,
    MlhooksError,
    NonFiniteError,
    PluginError,
    ResultsError,
    UsageError,
)
from mlhooks.fast.switch import plain
from mlhooks.names import file_name
from mlhooks.places import shown_path
from mlhooks.plugins import PluginManager
from mlhooks.settings import RunOptions
from mlhooks.stats import StatsAggregationMethod
from mlhooks.timers import Timers
from mlhooks.training.awaited_behaviors import Awaited
from mlhooks.training.curriculum import Curriculum
from mlhooks.training.device import device_named
from mlhooks.training.durable import write_durably, writing
from mlhooks.training.environment_scheme import environment_name, make_factory
from mlhooks.training.evaluation import Evaluation
from mlhooks.training.evaluations import Evaluations
from mlhooks.training.name_limits import refuse_long_behavior
from mlhooks.training.outcome import RunOutcome
from mlhooks.training.part_checks import check_update
from mlhooks.training.persistence import Persistence
from mlhooks.training.run_files import known
from mlhooks.training.run_folder import RunFolder
from mlhooks.training.silence import Silence
from mlhooks.training.spaces import take_spaces
from mlhooks.training.stop_request import StopRequest
from mlhooks.training.summaries import Summaries
from mlhooks.training.torch_setup import Computing, Threads
from mlhooks.training.trainer import Trainer

logger = logging.getLogger("mlhooks")


class Run:
    """One run of training or inference.

    Args:
        options: resolved options; `options.env_settings.seed` is the seed, not -1.
        plugins: the plugins, configured.
        episodes: with inference, the number of episodes of each behavior after which the run ends.
        folder: the folder of the run, held by the caller; without it nothing keeps other runs out.
        started_in: the folder to which relative paths of the options belong; the working directory without it.
        policy: with inference, which policies of the run act.

    Attributes:
        path: the results folder of the run, absolute; run_id: its name; env_name: what `--env` names.
        configuration: what the settings are, for people: a file, an example, or what was chosen without one.
        started_in: the folder to which relative paths of the options belong, whatever the working directory is now.
        trainers: behavior name -> trainer, as behaviors appear.
        manager: what steps the environments, once they run.
        curriculum: the environment parameters and their lessons.
        policy: with inference, which policies act: the last ones, or the best ones of evaluations.
        resumed, inference: whether the run goes on from a checkpoint, and whether it only acts.
        evaluation: with inference, the returns of finished episodes by behavior.
        evaluations: those of the behaviors while they are trained, with the best policies.
        stop: set its `requested` to end the run as Ctrl-C does.
    """

    def __init__(
        self,
        options: RunOptions,
        plugins: PluginManager,
        *,
        episodes: int | None = None,
        folder: RunFolder | None = None,
        started_in: Path | None = None,
        policy: Literal["last", "best"] = "last",
    ) -> None:
        checkpoint = options.checkpoint_settings
        self.options, self.plugins = options, plugins
        self.run_id = checkpoint.run_id
        self.configuration = ""
        self.started_in = started_in or Path.cwd()
        self._folder = folder or RunFolder(self.started_in / checkpoint.write_path, checkpoint.run_id)
        self.path = self._folder.path
        self.inference = checkpoint.inference
        self.resumed = checkpoint.resume and not self.inference
        self.policy = policy
        self.env_name = environment_name(options)
        self.seed: int = options.env_settings.seed
        self.trainers: dict[str, Trainer] = {}
        self.manager: EnvManager | None = None
        self.curriculum = Curriculum(options.environment_parameters, self.seed)
        self.timers = Timers()
        self.stop = StopRequest(saves=not self.inference)
        self.outcome = RunOutcome()
        self.evaluation = Evaluation(episodes) if self.inference else None
        self.evaluations = Evaluations(self)
        self._trainer_types = plugins.collect_mapping("get_trainer_types")
        self._threads = Threads(options.torch_settings.threads)
        self._device = device_named(options.torch_settings.device)
        self._computing = Computing(options.torch_settings, self._device)
        self._persistence = Persistence(self, self._folder)
        self._summaries = Summaries(self)
        self._awaited, self._silence = Awaited(self.env_name), Silence(self.env_name)
        self._known: dict[str, Trainer] = {}  # by the behavior ids that environments have shown
        self._begun = False  # whether an environment has shown what the trainers can learn from
        self._waits = True  # for environments to start, or for a person to start one again

    def execute(self) -> RunOutcome:
        """Run to the end; whatever happens, save, close and tell the plugins.

        Raises:
            MlhooksError: the run failed; what was learned is saved.
        """
        started = time.perf_counter()
        with self.stop, self._threads, plain(self.options.torch_settings.plain):
            try:
                self._prepare()
                self.plugins.hook.run_started(run=self)
                if self.resumed or self.inference:
                    self._persistence.restore_trainers()
                    self._awaited.restored(self.trainers)
                    self._persistence.restore_curriculum()
                if self._done():
                    self._tell_that_it_is_complete()
                else:
                    self._start_environments()
                    self._loop()
                if self.stop.requested and not self._done():
                    self.outcome.status = "interrupted"
            except KeyboardInterrupt:
                self.outcome.status = "interrupted"
            except WorkerFailure as lost:
                self.outcome.fail(lost)
                for trainer in self.trainers.values():
                    trainer.worker_failed(lost.worker.index)
                with contextlib.suppress(PluginError):  # a strict run has failed already
                    self.plugins.hook.env_failed(worker=lost.worker, error=lost.error, will_restart=False)
            except Exception as error:
                self.outcome.fail(error)
            except BaseException as error:  # sys.exit() and the like in code of others, which is no end of a run
                failure = MlhooksError(f"The run was ended by {described(error)}; only Ctrl-C and signals may end it.")
                failure.__cause__ = error
                self.outcome.fail(failure)
            self.stop.at_once, self.stop.ending = False, True
            try:
                self._finish()
            except MlhooksError as error:
                self.outcome.fail(error)
            except KeyboardInterrupt:
                self.outcome.status = "interrupted"
                raise
            finally:
                self.outcome.elapsed = time.perf_counter() - started
                self.plugins.hook.run_finished(run=self, outcome=self.outcome)
                self._bring_back()
        if self.plugins.disabled:
            logger.warning("Taken out in this run: %s.", ", ".join(str(each.origin) for each in self.plugins.disabled))
        if self.outcome.restarts:
            logger.warning("%s", restart_report(self.outcome.restarts))
        if self.outcome.error is not None:
            raise self.outcome.error
        return self.outcome

    def _prepare(self) -> None:
        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)  # noqa: NPY002 - environments and plugins may use the global generator
        torch.manual_seed(self.seed)
        if self.inference:
            return
        if self.options.checkpoint_settings.force:
            self._folder.put_aside()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._write_options()

    def _bring_back(self) -> None:
        """Put earlier results back where this run, which was to replace them, has saved nothing."""
        try:
            if self._folder.bring_back():
                logger.info("%s holds the earlier results, as before.", shown_path(self.path, self.started_in))
        except ResultsError as error:
            logger.warning(
                "The earlier results could not be put back yet; the next run in this folder tries again. %s", error
            )

    def note_file(self, path: str | os.PathLike[str]) -> Path:
        """Note that a file in the run's folder is the run's, so that `--force` may remove it; returns its path.

        A plugin that writes a file there notes it before, once: the note is durable at once, and in the manifest. A
        file that nobody noted counts as somebody else's, and `--force` refuses to touch a folder that holds one. With
        inference nothing is noted.

        Args:
            path: of the file, in `path`, where there may be none yet; a relative one is taken from there.

        Raises:
            UsageError: it lies elsewhere.
            ResultsError: the note cannot be written.
        """
        name = self._folder.name_inside(path)
        if not (self.inference or known(name, [file_name(behavior) for behavior in self.trainers])):
            self._persistence.folder.note_file(name)
        return self.path / name

    def _write_options(self) -> None:
        """Write what the run is made with; that of a run that is resumed stays until the resumed one has begun."""
        if self.resumed and not self._begun:
            return
        write_durably(self.path / "configuration.yaml", self.options.to_store().to_yaml().encode())

    def _tell_that_it_is_complete(self) -> None:
        steps = [f"{name!r} is at step {t.step:,} of {t.settings.max_steps:,}" for name, t in self.trainers.items()]
        reasons = [why for name in self.trainers if (why := self.evaluations.why_over(name))]
        logger.info(
            "There is nothing left to train: %s%s. To go on, raise %s, as by --set behaviors.%s.%s=N.",
            ", ".join(steps),
            f" ({'; '.join(reasons)})" if reasons else "",
            "what ended it" if reasons else "max_steps",
            next(iter(self.trainers)),
            "evaluation.stop_at" if reasons else "max_steps",
        )
        self._persistence.write_models()

    def _start_environments(self) -> None:
        self.curriculum.announce()
        make_env = make_factory(self.options, self.plugins)
        make_env.parameters = self.curriculum.values
        if self._awaited.names:
            self._awaited.refuse_elsewhere(make_env.behavior_names(), self._busy())
        self.stop.at_once = True
        self.manager = self.plugins.hook.create_env_manager(options=self.options, make_env=make_env)
        self.evaluations.open(make_env)
        self.stop.at_once = False
        if self.manager is None:
            raise PluginError("No plugin answered create_env_manager; unblock the built-in one or install another.")
        if not self.inference:
            self.curriculum.refuse_unable(self.manager)
        if self.resumed:
            self._persistence.restore_environments()

    def _trainer(self, behavior_id: str, step: WorkerStep) -> Trainer:
        """Return the trainer of a behavior id that an environment shows for the first time in this step."""
        specs = step.specs
        spec = specs[behavior_id]
        check_spec(behavior_id, spec)
        name = _name(behavior_id)
        trainer = self.trainers.get(name)
        if trainer is None:
            if not self.inference:
                refuse_long_behavior(self.path, name)
            trainer = self.make_trainer(name, spec)
            if not self._persistence.initialize(trainer) and self.inference:
                self._awaited.refuse_untrained(name, [_name(shown) for shown in specs])
            self.add_trainer(trainer)
        elif not same_shape(trainer.behavior_spec, spec):
            raise UsageError(change_in_words(behavior_id, "the run was saved", trainer.behavior_spec, spec))
        take_spaces(trainer, behavior_id, step.spaces.get(behavior_id))
        self._known[behavior_id] = trainer
        self._awaited.appeared(name)
        return trainer

    def make_trainer(self, name: str, spec: BehaviorSpec) -> Trainer:
        """Make the trainer that the settings ask for."""
        settings = self.options.settings_for(name)
        trainer_type: type[Trainer] = self._trainer_types[settings.trainer_type]
        trainer = trainer_type(
            behavior_name=name,
            behavior_spec=spec,
            settings=settings,
            plugins=self.plugins,
            device=self._device,
            seed=self.seed,
        )
        if not self.inference:
            trainer.learning.begin_training(self.started_in)
        return trainer

    def add_trainer(self, trainer: Trainer) -> None:
        """Take a trainer into the run, and tell the plugins."""
        name = trainer.behavior_name
        self.trainers[name] = trainer
        self._threads.adapt_to(trainer)
        self._computing.set_up(trainer.modules().values(), threaded=trainer.settings.threaded)
        trainer.training = not self.inference and not trainer.done
        self.evaluations.watch(trainer)
        self._summaries.watch(trainer)
        self.curriculum.watch(trainer)
        if self.evaluation is not None:
            self.evaluation.watch(trainer)
        else:
            self._record(trainer)
        self.plugins.hook.behavior_added(
            run=self, behavior_name=name, behavior_spec=trainer.behavior_spec, trainer=trainer
        )
        if not self.inference:
            trainer.report_properties()

    def _record(self, trainer: Trainer) -> None:
        """Write down what was chosen for a behavior, where its settings did not say it."""
        options, name = self.options, trainer.behavior_name
        if name not in options.behaviors or options.torch_settings.threads != self._threads.count:
            options.behaviors[name], options.torch_settings.threads = trainer.settings, self._threads.count
            self._write_options()

    def _loop(self) -> None:
        assert self.manager is not None
        manager, timers, trainers = self.manager, self.timers, self.trainers
        worker_of, acting, stepping = cache(Worker), timers("act"), timers("env_step")
        named = False
        if self.evaluations.evaluate_if_due():  # what a run that was interrupted then left undone
            self._begin()
        while not self.stop.requested and not self._done():
            with acting:
                for trainer in trainers.values():
                    for worker, behavior_id, action in trainer.act():
                        manager.send(worker_of(worker), behavior_id, action)
            steps = 0
            with stepping:
                self.stop.at_once = self._waits
                for event in manager.ready():
                    if isinstance(event, WorkerLost):
                        self._lose(event)
                    else:
                        self._observe(event, manager)
                        steps += 1
                        named = named or self._name_missing_behaviors()
                self.stop.at_once = False
            for trainer in trainers.values():
                self._learn(trainer)
            if not self.inference:  # which stays in the lesson that was saved
                self.curriculum.teach(trainers, manager, steps)
            if self._awaited.names:
                self._awaited.stepped(steps, self._busy())
            if self._silence.looks(steps):
                self._silence.check(self._busy())
            self.evaluations.evaluate_if_due()
            if self._begun:
                self._persistence.save_if_due()
        for trainer in trainers.values():
            self.settle(trainer)

    def settle(self, trainer: Trainer) -> None:
        """Finish an update of a trainer that goes on beside the environments' steps, and report it."""
        self._report(trainer, trainer.settle())

    def export_best(self, trainer: Trainer) -> list[Path]:
        """Export the policy of a trainer as its best one, as `export_model` does; returns the files."""
        return self._persistence.write_best(trainer)

    def _observe(self, step: WorkerStep, manager: EnvManager) -> None:
        """Hand what a worker sent to the trainers; a worker that sends what cannot be used is started again."""
        self._waits = self.stop.at_once = False
        for behavior_id, (decisions, terminals) in step.steps.items():
            trainer = self._known.get(behavior_id) or self._trainer(behavior_id, step)
            try:
                trainer.observe(step.worker.index, behavior_id, decisions, terminals)
                if len(decisions.agent_id):
                    self._silence.heard(trainer.behavior_name)
            except (NonFiniteError, ContractBroken) as error:
                self._lose(manager.fail(step.worker, error))
                return
            except Exception:
                try:
                    check_steps(behavior_id, step.specs[behavior_id], decisions, terminals)
                except EnvironmentFailure as reason:
                    self._lose(manager.fail(step.worker, reason))
                    return
                raise
        if not self._begun and self._awaited.begun:
            self._begin()
        for key, value, aggregation in step.stats:
            # of values that replace each other, one environment's count, as in ML-Agents
            if aggregation is not StatsAggregationMethod.MOST_RECENT or step.worker.index == 0:
                for trainer in self.trainers.values():
                    trainer.stats.add_stat(key, value, aggregation)

    def _begin(self) -> None:
        """Let the run save what it has from now on; one that is resumed has more now than its checkpoint."""
        self._begun = True
        if self.resumed:
            self._write_options()

    def _lose(self, lost: WorkerLost) -> None:
        """Drop what a worker leaves unfinished that is being started again, or waits for a person to start it."""
        self.stop.at_once = False
        for trainer in self.trainers.values():
            trainer.worker_failed(lost.worker.index)
        if lost.paused:
            logger.info("%s The run waits, and goes on when it is started again; Ctrl-C saves and ends.", lost.error)
            self._waits = True
            return
        logger.warning("Worker %d is started again, and the run goes on. %s", lost.worker.index, lost)
        self.outcome.restarts.append(lost)
        self.plugins.hook.env_failed(worker=lost.worker, error=lost.error, will_restart=True)

    def _done(self) -> bool:
        if self.evaluation is not None:
            return self.evaluation.complete()
        for trainer in self.trainers.values():
            if trainer.training:
                return False
        return bool(self.trainers) and not self.evaluations.due

    def _busy(self) -> list[str]:
        """Return the behaviors that are not done."""
        if self.evaluation is not None:
            return self.evaluation.incomplete()
        return [name for name, trainer in self.trainers.items() if trainer.training]

    def _name_missing_behaviors(self) -> bool:
        self._awaited.name_missing([*self.options.behaviors, *self.trainers])
        for name, behavior in self.curriculum.unmeasured(self.trainers).items():
            logger.warning("The lesson of parameter %r waits for behavior %r, which has not appeared.", name, behavior)
        return True

    def _learn(self, trainer: Trainer) -> None:
        if not trainer.training:
            trainer.discard()
            return
        if trainer.ready_to_update():
            with self.timers("update"):
                losses = trainer.update()
            check_update(trainer, losses)
            self._report(trainer, losses)
        self._summaries.write_if_due(trainer)
        trainer.training = not trainer.done

    def _report(self, trainer: Trainer, losses: dict[str, float] | None) -> None:
        if losses is not None:
            self.plugins.hook.update_finished(trainer=trainer, step=trainer.step, losses=losses)

    def _finish(self) -> None:
        """Save what the last checkpoint lacks, write what is left, close the environments."""
        try:
            # what a resumed run that never began would save is less than the checkpoint that it found
            if self._begun and any(trainer.step for trainer in self.trainers.values()) and not self.inference:
                if self.outcome.status == "failed":
                    for trainer in self.trainers.values():
                        trainer.environments_restarted()
                try:
                    if self.outcome.status != "interrupted":  # the run that resumes it goes on with its periods
                        self._summaries.write_last()
                finally:  # a plugin's failure that ends the run does not cost what was learned
                    self._persistence.save_last()
        finally:
            self.evaluations.close()
            if self.manager is not None:
                close(self.manager, "The environment manager")


def _name(behavior_id: str) -> str:
    """Return the behavior's name from a behavior id, which also says the team."""
    return behavior_id.partition("?")[0]
