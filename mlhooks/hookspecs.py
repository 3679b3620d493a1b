"""The contract between mlhooks and its plugins: every hook, when it is called, with what, and what a failure does.

Three kinds of hook differ in what a result and a failure mean:

* *collect*: every plugin answers. A failure, or two plugins that claim one name, stops the run before training.
* *firstresult*: the first answer that is not None wins. A failure stops the run.
* *observe*: the result is ignored. An exception is logged once with hook, plugin, distribution and version, the other
  plugins still get the call, and after three failures in a row the plugin is taken out. `--strict-plugins` makes
  every such failure fatal.

What a hook returns is checked at once (`mlhooks.answers`), and a wrong answer is a failure. So is whatever a plugin
raises, `sys.exit()` included; only Ctrl-C passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click
    from mlagents_envs.base_env import BaseEnv, BehaviorSpec
    from mlagents_envs.side_channel.side_channel import SideChannel
    from pydantic import BaseModel

    from mlhooks.envs.manager import EnvManager, Worker
    from mlhooks.plugins import PluginManager
    from mlhooks.settings import RewardSignalSettings, RunOptions
    from mlhooks.stats import StatsAggregationMethod, StatsPropertyType, StatsSummary
    from mlhooks.training.checkpoints import Checkpoint
    from mlhooks.training.optimizer import Optimizer
    from mlhooks.training.outcome import RunOutcome
    from mlhooks.training.policy import Policy
    from mlhooks.training.reward_signals import RewardSignal
    from mlhooks.training.run import Run
    from mlhooks.training.trainer import Trainer

hookspec = pluggy.HookspecMarker("mlhooks")


@hookspec(historic=True)
def configure(pluginmanager: PluginManager, options: RunOptions) -> None:
    """Set a plugin up, once the run options are known; a plugin with state registers its object here.

    Historic: a plugin registered later gets the call at its registration. The options are a copy for this plugin. A
    failure stops the run before training with the culprit's name.
    """


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands or options to the command line, when `mlhooks` starts and before it parses its arguments.

    Collect: a failure, or a command name that is taken, is an error that names the plugin.
    """


@hookspec
def get_env_types() -> Mapping[str, Callable[..., BaseEnv]]:
    """Return environment kinds: scheme -> factory, as `gymnasium` in `--env gymnasium:CartPole-v1`.

    A factory is called as `make(name, *, worker_id, seed, num_areas, options, side_channels)` with the text behind
    the scheme and returns a `BaseEnv`, which may offer more: `set_parameters` for environment parameters, `take_stats`,
    `state_dict` and `load_state_dict`, and `behavior_spaces` for what `predict` takes and gives. An
    `mlhooks.plugin.EnvironmentKind` is a factory that can also refuse a wrong name, and tell its behaviors'
    names, before a run changes anything; and run classes of users that have an `mlhooks.plugin.Interface`. Collected
    before the run starts; a failure, or two plugins that claim one scheme, stops the run.
    """


@hookspec
def get_trainer_types() -> Mapping[str, type[Trainer]]:
    """Return trainer types: the `trainer_type` of a configuration -> trainer class.

    The class names the model of its hyperparameters as `hyperparameters_type`. Collected once, before the
    configuration is read; a failure, or two plugins that claim one name, stops the run.
    """


@hookspec
def get_reward_signals() -> Mapping[str, tuple[type[RewardSignal], type[RewardSignalSettings]]]:
    """Return reward signals: the name under `reward_signals` -> its class and the model of its settings.

    Collected once, before the configuration is read; a failure, or two plugins that claim one name, stops the run.
    """


@hookspec
def get_plugin_settings() -> Mapping[str, type[BaseModel]]:
    """Return settings of a plugin's own: the name under `plugins.settings` in a configuration -> their pydantic model.

    Name them as the plugin. They are checked as all other settings are, and the run's options hold the model, with its
    defaults where the configuration says nothing: `options.plugins.settings["name"]`, as in `configure`. A subclass of
    `mlhooks.plugin.SettingsModel` reads numbers as the rest of a configuration does; any other pydantic model without
    aliases will do. Give each setting a default.
    Collected once, before the configuration is read; a failure, or two plugins that claim one name, stops the run.
    """


@hookspec(firstresult=True)
def create_env_manager(options: RunOptions, make_env: Callable[[int], BaseEnv]) -> EnvManager | None:
    """Return the manager that decides where and how environment workers run; `make_env(worker_id)` makes one.

    `make_env` can be sent to another process by cloudpickle, which loads the run's plugins there; the options that it
    holds there lack the behaviors. A manager without `set_parameters` is refused where a curriculum would change
    environment parameters.
    Called once when the run starts; the first answer wins and the built-in manager answers last. A failure stops the
    run before training.
    """


@hookspec(firstresult=True)
def create_policy(trainer: Trainer, behavior_spec: BehaviorSpec) -> Policy | None:
    """Return the policy of a trainer's behavior, such as one with a network of your own.

    Called when a behavior is first seen; the first answer wins, and where there is none, the trainer class's
    `policy_type` is made. A failure stops the run; for a behavior that appears late, everything is saved first.
    """


@hookspec(firstresult=True)
def create_optimizer(trainer: Trainer, policy: Policy) -> Optimizer | None:
    """Return the optimizer of a trainer's behavior, such as one with another loss or another torch optimizer.

    Called right after `create_policy`; the first answer wins, and where there is none, the trainer class's
    `optimizer_type` is made. A failure stops the run; for a behavior that appears late, everything is saved first.
    """


@hookspec
def run_started(run: Run) -> None:
    """Observe the start of a run: options are resolved and the results folder exists; nothing has been stepped yet.

    A failure is contained.
    """


@hookspec
def run_finished(run: Run, outcome: RunOutcome) -> None:
    """Observe the end of a run, whatever happened: finished, interrupted or failed; close what you opened here.

    Called once, after the last checkpoint is written; also for a plugin that was taken out. The outcome is a copy for
    this plugin, whose `files` take the paths that people are to see. A failure is contained.
    """


@hookspec
def behavior_added(run: Run, behavior_name: str, behavior_spec: BehaviorSpec, trainer: Trainer) -> None:
    """Observe the first sight of a behavior, once its trainer, policy and optimizer exist.

    A failure is contained.
    """


@hookspec
def on_add_stat(category: str, key: str, value: float, aggregation: StatsAggregationMethod) -> None:
    """Observe one emitted statistic at once; `category` is the behavior name.

    Called very often: keep it short. A failure is contained.
    """


@hookspec
def write_stats(category: str, values: Mapping[str, StatsSummary], step: int) -> None:
    """Write one behavior's statistics of a summary period; `values` maps key -> StatsSummary.

    Called every `summary_freq` steps and once at the end if statistics are left. The mapping is a copy for this plugin,
    and summaries cannot be changed. A failure is contained.
    """


@hookspec
def summary_stats(trainer: Trainer, step: int) -> Mapping[str, float]:
    """Return more values for the summary that is about to be written: key -> number, NaN where there is none to tell.

    Collect: called at each summary period before `write_stats`; two plugins that return one key is an error, and so is
    a key that the run itself reports, such as `Environment/Cumulative Reward`. During training a failure is contained
    as an observer's.
    """


@hookspec
def add_property(category: str, property_type: StatsPropertyType, value: Any) -> None:
    """Observe a property of a behavior: its hyperparameters, or whether it trains by self-play.

    Called when the behavior is added. A failure is contained.
    """


@hookspec
def update_finished(trainer: Trainer, step: int, losses: Mapping[str, float]) -> None:
    """Observe a finished policy update with the means of its losses.

    A failure is contained.
    """


@hookspec
def evaluation_finished(run: Run, behavior_name: str, step: int, returns: Sequence[float]) -> None:
    """Observe an evaluation of a behavior while it is trained, with the returns of the episodes that count.

    Called after `write_stats` got them as `Evaluation/Cumulative Reward`; `run.evaluations.best[behavior_name]` is the
    best policy so far, which may be this one. Set `run.stop.requested` to end the run. A failure is contained.
    """


@hookspec
def checkpoint_saved(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Observe a checkpoint of one behavior, after its files are durable and the manifest names them.

    A failure is contained.
    """


@hookspec
def register_side_channels(options: RunOptions) -> Sequence[SideChannel]:
    """Return side channels to open to every player, beside the built-in ones.

    Collected once per worker, before it starts; with several workers in each one's process. A failure, or two plugins
    that claim one channel id, stops the run.
    """


@hookspec
def env_failed(worker: Worker, error: BaseException, will_restart: bool) -> None:
    """Observe a worker that crashed, hung or broke the protocol, and whether it will be restarted.

    A failure is contained.
    """


@hookspec
def export_model(trainer: Trainer, path: Path) -> Iterable[Path]:
    """Write a deployable model and return the files written; `path` is their stem, without a suffix.

    The files lie beside `path` or elsewhere in the run's folder; none of them may be the checkpoint, `path` with `.pt`.
    The policy goes on to learn: change a copy of it. What was changed is put back, and changed weights are a failure.

    Collect: called beside every checkpoint, once its files are durable and the manifest names them, and at the end of
    the run. During training a failure is contained as an observer's. `mlhooks export` calls it without a run, and so
    without what a plugin registers in `configure`.
    """
