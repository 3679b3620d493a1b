"""The training loop: environments, trainers and plugins together, from the first step to the last file."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import time
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mlhooks.describing import described
from mlhooks.envs.closing import close
from mlhooks.envs.manager import EnvManager, Worker, WorkerFailure, WorkerLost, WorkerStep
from mlhooks.envs.restarts import restart_report
from mlhooks.envs.shared_steps import check_steps
from mlhooks.errors import ContractBroken, EnvironmentFailure, MlhooksError, NonFiniteError, PluginError
from mlhooks.fast.switch import plain
from mlhooks.names import file_name
from mlhooks.places import keep_classes
from mlhooks.plugins import PluginManager
from mlhooks.settings import RunOptions
from mlhooks.stats import StatsAggregationMethod
from mlhooks.timers import Timers
from mlhooks.training.behaviors import Behaviors
from mlhooks.training.curriculum import Curriculum
from mlhooks.training.durable import write_durably, writing
from mlhooks.training.environment_scheme import environment_name, make_factory
from mlhooks.training.evaluation import Evaluation
from mlhooks.training.evaluations import Evaluations
from mlhooks.training.learning_checks import kinds_of_plugins, parts_of, warn_of_no_update
from mlhooks.training.match import GAMES, Match
from mlhooks.training.outcome import RunOutcome, nothing_left
from mlhooks.training.part_checks import check_update
from mlhooks.training.persistence import Persistence
from mlhooks.training.policy import Policy
from mlhooks.training.run_files import known
from mlhooks.training.run_folder import RunFolder
from mlhooks.training.silence import Silence
from mlhooks.training.stage import Stage
from mlhooks.training.stop_request import StopRequest
from mlhooks.training.summaries import Summaries
from mlhooks.training.teams import Teams
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
        opponents: with inference, behavior name -> the policy that plays the other teams in a match.

    Attributes:
        path: the results folder of the run, absolute; run_id: its name; env_name: what `--env` names.
        configuration: what the settings are, for people: a file, an example, or what was chosen without one.
        started_in: the folder to which relative paths of the options belong, whatever the working directory is now.
        trainers: behavior name -> trainer, as behaviors appear.
        manager: what steps the environments, once they run.
        curriculum: the environment parameters and their lessons.
        teams: those of behaviors with self-play, which learn in turns.
        policy: with inference, which policies act: the last ones, or the best ones of evaluations.
        resumed, inference: whether the run goes on from a checkpoint, and whether it only acts.
        evaluation: with inference, the returns of finished episodes by behavior, or the games of a match.
        evaluations: those of the behaviors while they are trained, with the best policies.
        behaviors, persistence, summaries: what makes trainers, checkpoints and summaries.
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
        opponents: Mapping[str, Policy] | None = None,
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
        self.teams = Teams()
        self.timers = Timers()
        self.stop = StopRequest(saves=not self.inference)
        self.outcome = RunOutcome()
        self.evaluation = Evaluation(episodes) if self.inference else None
        if opponents is not None:
            self.evaluation = Match(episodes or GAMES, opponents, self.teams, self.seed)
        self.evaluations = Evaluations(self)
        self.behaviors = Behaviors(self)
        self.persistence = Persistence(self, self._folder)
        self.summaries = Summaries(self)
        self._silence = Silence(self.env_name, options.env_settings.num_envs)
        self._stage = Stage.STARTING

    def execute(self) -> RunOutcome:
        """Run to the end; whatever happens, save, close and tell the plugins.

        Raises:
            MlhooksError: the run failed; what was learned is saved.
        """
        started = time.perf_counter()
        with self.stop, self.behaviors.threads, plain(self.options.torch_settings.plain):
            try:
                self._prepare()
                self.plugins.hook.run_started(run=self)
                if self.resumed or self.inference:
                    self.persistence.restore_trainers()
                    self.behaviors.awaited.await_behaviors(self.trainers)
                    self.persistence.restore_curriculum()
                if self._done():
                    logger.info("%s", nothing_left(self.trainers, self.evaluations.why_over))
                    self.persistence.write_models()
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
                with contextlib.suppress(PluginError):  # A strict run has failed already.
                    self.plugins.hook.env_failed(worker=lost.worker, error=lost.error, will_restart=False)
            except Exception as error:
                self.outcome.fail(error)
                with contextlib.suppress(Exception):  # It asks parts of plugins, and one of these may be what failed.
                    keep_classes(error, kinds_of_plugins(*chain.from_iterable(map(parts_of, self.trainers.values()))))
            except BaseException as error:  # Code of others may call sys.exit(), which is no end of a run.
                failure = MlhooksError(f"The run was ended by {described(error)}; only Ctrl-C and signals may end it.")
                failure.__cause__ = error
                self.outcome.fail(failure)
            self.stop.ending = True
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
                self._folder.put_back(self.started_in)
        if self.plugins.disabled:
            logger.warning("Taken out in this run: %s.", ", ".join(str(each.origin) for each in self.plugins.disabled))
        if self.outcome.restarts:
            logger.warning("%s", restart_report(self.outcome.restarts))
        if self.outcome.error is not None:
            raise self.outcome.error
        return self.outcome

    def _prepare(self) -> None:
        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)  # noqa: NPY002 - Environments and plugins may use the global generator.
        torch.manual_seed(self.seed)
        if self.inference:
            return
        if self.options.checkpoint_settings.force:
            self._folder.set_earlier_results_aside()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.write_options()

    def note_file(self, path: str | os.PathLike[str]) -> Path:
        """Note that a file in the run's folder is the run's, so that `--force` may remove it, and return its path.

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
            self.persistence.folder.note_file(name)
        return self.path / name

    def write_options(self) -> None:
        """Write what the run is made with; that of a run that is resumed stays until the resumed one has begun."""
        if self.resumed and not self._stage.saves:
            return
        write_durably(self.path / "configuration.yaml", self.options.to_store().to_yaml().encode())

    def _start_environments(self) -> None:
        self.curriculum.announce()
        make_env = make_factory(self.options, self.plugins)
        make_env.parameters = self.curriculum.values
        if self.behaviors.awaited.names:
            self.behaviors.awaited.refuse_elsewhere(make_env.behavior_names(), self._busy())
        with self.stop.ending_at_once():
            self.manager = self.plugins.hook.create_env_manager(options=self.options, make_env=make_env)
            self.evaluations.open(make_env)
        if self.manager is None:
            raise PluginError("No plugin answered create_env_manager; unblock the built-in one or install another.")
        if not self.inference:
            self.curriculum.refuse_unable(self.manager)
        if self.resumed:
            self.persistence.restore_environments()

    def _loop(self) -> None:
        assert self.manager is not None
        manager, timers, trainers = self.manager, self.timers, self.trainers
        awaited = self.behaviors.awaited
        worker_of, acting, stepping = cache(Worker), timers("act"), timers("env_step")
        named = False
        if self.evaluations.evaluate_if_due():  # A run that was interrupted may have left one undone.
            self._begin()
        while not self.stop.requested and not self._done():
            with acting:
                for trainer in trainers.values():
                    for worker, behavior_id, action in trainer.act():
                        manager.send(worker_of(worker), behavior_id, action)
            steps = 0
            with stepping:
                for event in self._awaited_events(manager) if self._stage.waits else manager.ready():
                    if isinstance(event, WorkerLost):
                        self._lose(event)
                    else:
                        self._observe(event, manager)
                        steps += 1
                        if not named:
                            self.behaviors.warn_of_missing()
                            named = True
            for trainer in trainers.values():
                self._learn(trainer)
            if self.teams.players and self.teams.advance():
                self._restart_environments(manager)
            if not self.inference:  # Inference stays in the lesson that was saved.
                self.curriculum.start_due_lessons(trainers, manager, steps)
            if awaited.names:
                awaited.count_steps(steps, self._busy())
            if self._silence.count_steps(steps) and self._silence.check(self._busy(), self.teams):
                self._restart_environments(manager)
            self.evaluations.evaluate_if_due()
            if self._stage.saves:
                self.persistence.save_if_due()
        for trainer in trainers.values():
            self.finish_update(trainer)

    def _restart_environments(self, manager: EnvManager) -> None:
        """Let all workers begin new episodes, because another team learns from now on."""
        for index in range(self.options.env_settings.num_envs):
            manager.reset(Worker(index))
        for trainer in self.trainers.values():
            trainer.environments_restarted()

    def finish_update(self, trainer: Trainer) -> None:
        """Finish an update of a trainer that goes on beside the environments' steps, and report it."""
        self._report(trainer, trainer.finish_update())

    def export_best(self, trainer: Trainer) -> list[Path]:
        """Export the policy of a trainer as its best one, as `export_model` does, and return the files."""
        return self.persistence.write_best(trainer)

    def _awaited_events(self, manager: EnvManager) -> Iterator[WorkerStep | WorkerLost]:
        """Yield what workers send; a signal ends the run at once until one of them sends something."""
        with self.stop.ending_at_once():
            events = iter(manager.ready())
            first = list(islice(events, 1))
        yield from first
        yield from events

    def _observe(self, step: WorkerStep, manager: EnvManager) -> None:
        """Hand what a worker sent to the trainers; a worker that sends what cannot be used is started again."""
        if self._stage.waits:
            self._stage = self._stage.changed(waits=False)
        for behavior_id, (decisions, terminals) in step.steps.items():
            trainer = self.behaviors.trainer_of.get(behavior_id) or self.behaviors.appear(behavior_id, step)
            try:
                trainer.observe(step.worker.index, behavior_id, decisions, terminals)
                if len(decisions.agent_id) and (trainer.sides is None or trainer.sides.heard(behavior_id)):
                    self._silence.note_decision(trainer.behavior_name)
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
        if not self._stage.saves and self.behaviors.awaited.begun:
            self._begin()
        for key, value, aggregation in step.stats:
            # Of values that replace each other, those of one environment count, as in ML-Agents.
            if aggregation is not StatsAggregationMethod.MOST_RECENT or step.worker.index == 0:
                for trainer in self.trainers.values():
                    trainer.stats.add_stat(key, value, aggregation)

    def _begin(self) -> None:
        """Let the run save what it has from now on; one that is resumed has more now than its checkpoint."""
        self._stage = self._stage.changed(saves=True)
        if self.resumed:
            self.write_options()

    def _lose(self, lost: WorkerLost) -> None:
        """Drop what a worker leaves unfinished that is being started again, or waits for a person to start it."""
        for trainer in self.trainers.values():
            trainer.check_acted()
            trainer.worker_failed(lost.worker.index)
        if lost.paused:
            logger.info("%s The run waits, and goes on when it is started again; Ctrl-C saves and ends.", lost.error)
            self._stage = self._stage.changed(waits=True)
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

    def _learn(self, trainer: Trainer) -> None:
        if not trainer.training:
            trainer.discard()
            return
        if trainer.ready_to_update():
            with self.timers("update"):
                try:
                    losses = trainer.update()
                except NonFiniteError:
                    trainer.check_acted()
                    raise
            check_update(trainer, losses)
            self._report(trainer, losses)
        self.summaries.write_if_due(trainer)
        trainer.training = not trainer.done
        if not trainer.training:
            warn_of_no_update(trainer)

    def _report(self, trainer: Trainer, losses: dict[str, float] | None) -> None:
        if losses is not None:
            self.plugins.hook.update_finished(trainer=trainer, step=trainer.step, losses=losses)

    def _finish(self) -> None:
        """Save what the last checkpoint lacks, write what is left, close the environments."""
        try:
            # A resumed run that never began would save less than the checkpoint that it found.
            if self._stage.saves and any(trainer.step for trainer in self.trainers.values()) and not self.inference:
                if self.outcome.status == "failed":
                    for trainer in self.trainers.values():
                        trainer.environments_restarted()
                try:
                    if self.outcome.status != "interrupted":  # The run that resumes it goes on with its periods.
                        self.summaries.write_last()
                finally:  # A plugin's failure that ends the run does not cost what was learned.
                    self.persistence.save_last()
        finally:
            self.evaluations.close()
            if self.manager is not None:
                close(self.manager, "The environment manager")
