"""mlhooks from Python: `train` does what the command line does, and `load` uses the result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlhooks.describing import with_article
from mlhooks.envs.references import reference_to
from mlhooks.errors import UsageError
from mlhooks.example_configs import examples_folder, find_config, is_nothing
from mlhooks.general_settings import choose, refuse_other_type
from mlhooks.names import best_stem, file_name
from mlhooks.plugins import PluginManager, load_plugins
from mlhooks.settings import (
    CheckpointSettings,
    LoadedOptions,
    RunOptions,
    read_configuration,
)
from mlhooks.settings.findings import lines
from mlhooks.training.admission import admit
from mlhooks.training.checkpoints import read_state
from mlhooks.training.environment_scheme import make_factory
from mlhooks.training.exporting import export_models
from mlhooks.training.named_plugins import name_all_plugins
from mlhooks.training.prediction import LoadedPolicy
from mlhooks.training.provenance import loading_from
from mlhooks.training.restoring import policies_of, restored
from mlhooks.training.results_folder import check_folder, claimed_folder
from mlhooks.training.run import Run
from mlhooks.training.saved_policies import file_of_behavior, files_of
from mlhooks.training.trainer import Trainer
from mlhooks.training.untrusted import around_import

logger = logging.getLogger("mlhooks")

_NOTHING = (
    "There is nothing to run. Name an example, as mlhooks.train('cartpole_ppo'), a configuration file, or an "
    "environment: env='gymnasium:CartPole-v1', or a class of your own, env=Corridor. "
    "flags={'env_settings.env_path': None} waits for the Unity Editor."
)
_WHICH_RUN = ("run_id", "results_dir", "resume", "inference")


def train(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    env: str | Path | Callable[..., Any] | None = None,
    algo: str | None = None,
    run_id: str | None = None,
    results_dir: str | Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    force: bool = False,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[object] = (),
    plugin_names: Sequence[str | Path] | Path = (),
    plugins_dir: str | Path | None = None,
    strict_plugins: bool = False,
    trace_hooks: bool = False,
    episodes: int | None = None,
    eval_every: int | None = None,
    policy: Literal["last", "best"] = "last",
    opponent: str | Path | None = None,
) -> Run:
    """Train as `mlhooks run` does, until `max_steps`, Ctrl-C or a failure.

    Args:
        config: a YAML file, the name of an example, or a mapping with the content of a file. Without one, a run that
            is resumed goes on with the configuration that it was started with, and another one is trained with the
            settings of the example for its environment, or general ones, as `mlhooks config show --env` prints them.
        env: the environment, as `--env`; or a class of `gymnasium.Env` or `BaseEnv`, or a function that makes one; it
            gets `env_settings.env_kwargs`.
        algo: the trainer type, as `--algo`.
        run_id: name of the run, as `--run-id`.
        results_dir: folder of all runs, as `--results-dir`.
        seed: seed of all randomness, as `--seed`.
        resume: go on with the run of this name, as `--resume`.
        force: overwrite the run of this name, as `--force`.
        flags: more settings by dotted key, such as `{"env_settings.num_areas": 8}`.
        overrides: `KEY.PATH=VALUE` strings, as `--set`.
        plugins: plugin objects to register besides the installed ones. Worker processes import the modules in which
            their classes are defined.
        plugin_names: names as `-p` takes them.
        plugins_dir: a folder of .py files to load as plugins, as `--plugins-dir`.
        strict_plugins: let every failure of a plugin end the run, as `--strict-plugins`.
        trace_hooks: write every hook call to stderr, as `--trace-hooks`.
        episodes: with inference, how many episodes of each behavior to run.
        eval_every: agent steps between evaluations of each behavior, as `--eval-every`.
        policy: with inference, whether the last policy of the run acts or the best one of its evaluations.
        opponent: with inference, a run or checkpoint whose policies play the other teams, as `--opponent`.

    Returns:
        The run: `run.outcome`, `run.path`, `run.trainers`, `run.evaluations.best` with the best evaluated policies,
        and `run.evaluation` with inference.

    Raises:
        SettingsError, UsageError: nothing was started.
        MlhooksError: the run failed; what was learned until then is saved.
    """
    env = str(env) if isinstance(env, Path) else env
    environment = None if env is None or isinstance(env, str) else _maker(env)
    given = {
        "env_settings.env_path": env if environment is None else reference_to(environment),
        "checkpoint_settings.run_id": run_id,
        "checkpoint_settings.results_dir": None if results_dir is None else str(results_dir),
        "env_settings.seed": seed,
        "checkpoint_settings.resume": resume or None,
        "checkpoint_settings.force": force or None,
        "behaviors.*.evaluation.interval": eval_every,
    }
    started_in = Path.cwd()  # A plugin may change it later.
    flags = {key: value for key, value in given.items() if value is not None} | dict(flags or {})
    if is_nothing(config, flags, overrides):
        raise UsageError(_NOTHING)
    source = find_config(config) if isinstance(config, str | Path) else config
    if isinstance(source, Path) and source.parent == examples_folder():
        logger.info("Using the example configuration %s.", source)
    described = "" if config is None or isinstance(config, Mapping) else str(config)
    if isinstance(source, Path) and source.parent == examples_folder():
        described = f"those of the example {source.stem}"
    if unnamed := source is None:
        source, flags = _configuration_of_run(flags)
        described = "" if source is None else "those of the run"
    named = name_all_plugins(
        read_configuration(source),
        flags=flags,
        overrides=overrides,
        names=_texts(plugin_names),
        plugins_dir=None if plugins_dir is None else Path(plugins_dir),
        stored=unnamed and source is not None,
    )
    manager = named.load(strict=strict_plugins, trace=trace_hooks)
    for plugin in plugins:
        manager.register(plugin)
    configuration = named.configuration
    if not configuration.given:
        chosen = choose(manager, algo, flags=flags, overrides=overrides, environment=environment)
        configuration, described = chosen.in_place_of(configuration), chosen.text
    options = _seeded(admit(configuration, manager, flags=flags, overrides=overrides, environment=environment))
    refuse_other_type(options, algo)
    options.checkpoint_settings.anchor(started_in)
    if episodes is not None and not options.checkpoint_settings.inference:
        raise UsageError("--episodes ends a run with --inference; for training, set max_steps.")
    if policy != "last" and not options.checkpoint_settings.inference:
        raise UsageError("--policy best is for --inference; a run that is resumed goes on with the last policy.")
    if opponent is not None and not options.checkpoint_settings.inference:
        raise UsageError("--opponent is for --inference; in training, self_play lets earlier policies play.")
    with claimed_folder(options) as folder:
        opponents = None if opponent is None else policies_of(opponent, options, manager)
        make_factory(options, manager).check()  # Nothing is written yet, nor removed by --force.
        check_folder(options, folder)
        manager.configure(options)
        run = Run(
            options,
            manager,
            episodes=episodes,
            folder=folder,
            started_in=started_in,
            policy=policy,
            opponents=opponents,
        )
        run.configuration = described
        run.execute()
    return run


def _texts(names: Sequence[str | Path] | Path) -> list[str]:
    return [str(name) for name in ([names] if isinstance(names, str | Path) else names)]


def _maker(env: Any) -> Callable[..., Any]:
    if not callable(env) or hasattr(env, "step"):
        if isinstance(env, type):
            return env
        if not hasattr(env, "step"):
            raise UsageError(
                f"env is {with_article(env)}; it must be a name such as 'gymnasium:CartPole-v1', or a class or "
                "function that makes environments."
            )
        raise UsageError(
            f"env is {with_article(env)} that was made already, and a run makes its environments itself, several where "
            f"it has to. Hand over what makes one: {_what_makes(env)}."
        )
    return env  # type: ignore[no-any-return]


def _what_makes(env: Any) -> str:
    """Say what to hand over in place of an environment that was made: its registered name, its class or a function."""
    if isinstance(registered := getattr(getattr(env, "spec", None), "id", None), str):
        return f"env='gymnasium:{registered}', or a function if you wrapped it"
    if getattr(env, "unwrapped", env) is env:
        return f"env={type(env).__name__}, or a function"
    return "a function that makes and wraps one, as env=make_env"


def _configuration_of_run(flags: Mapping[str, Any]) -> tuple[Path | None, Mapping[str, Any]]:
    """Return the configuration of a run that is to be resumed or watched, and flags that say where it is now."""
    given = {key: flags[f"checkpoint_settings.{key}"] for key in _WHICH_RUN if f"checkpoint_settings.{key}" in flags}
    settings = CheckpointSettings().model_copy(update=given)
    path = Path(settings.write_path, "configuration.yaml")
    if not (settings.resume or settings.inference) or not path.is_file():
        return None, flags
    logger.info("Going on with the configuration of the run, %s.", path)
    place = {"run_id": settings.run_id, "results_dir": settings.results_dir}  # It may have been moved.
    return path, {f"checkpoint_settings.{key}": value for key, value in place.items()} | dict(flags)


def _seeded(loaded: LoadedOptions) -> RunOptions:
    """Log the warnings, and return the options with a seed."""
    for line in lines(loaded.warnings):
        logger.warning("%s", line)
    if loaded.options.env_settings.seed < 0:
        loaded.options.env_settings.seed = int(np.random.default_rng().integers(0, 10_000))
    return loaded.options


def load(
    path: str | Path,
    behavior: str | None = None,
    *,
    best: bool = False,
    plugins: Sequence[object] = (),
    plugin_names: Sequence[str | Path] | Path = (),
    plugins_dir: str | Path | None = None,
) -> LoadedPolicy:
    """Load a trained policy to use it.

    Nothing of a run's folder is executed, and plugins that its configuration names are not imported: installed plugins
    are loaded, and those that are named here. Where that is not enough, the error names the plugins of the run.

    Args:
        path: a run's folder, or a `.pt` file that a run wrote.
        behavior: which behavior, where a folder holds several.
        best: of a folder, take the best policy of the run's evaluations in place of the newest checkpoint.
        plugins: plugin objects to register besides the installed ones.
        plugin_names: names as `-p` takes them.
        plugins_dir: a folder of .py files to load as plugins, as `--plugins-dir`.

    Raises:
        CheckpointError: there is no checkpoint there, it is damaged, or another tool wrote it.
        UsageError: the folder holds several behaviors and none or an unknown one is named, or `best` is said of a file;
            or a plugin lies in the folder of a run.
    """
    path = Path(path)
    manager = _plugins_beside(path, plugins, plugin_names, plugins_dir)
    files = files_of(path, best)
    if behavior is None and len(files) == 1:
        (behavior,) = files
    if path.is_dir():
        path = file_of_behavior(files, behavior, path)
    with loading_from(path, manager):
        trainer = restored(read_state(path), manager)
        return LoadedPolicy(trainer.behavior_name, trainer.behavior_spec, trainer.policy, trainer.spaces)


def export(
    path: str | Path,
    behavior: str | None = None,
    *,
    best: bool = False,
    output: str | Path | None = None,
    only: str | None = None,
    opset: int | None = None,
    plugins: Sequence[object] = (),
    plugin_names: Sequence[str | Path] | Path = (),
    plugins_dir: str | Path | None = None,
) -> list[Path]:
    """Write the models of trained policies again, by exporters of the installed plugins, and return the files.

    Args:
        path: a run's folder, or a `.pt` file that a run wrote.
        behavior: which behavior of a folder; all by default.
        best: as for `load`.
        output: the folder to write into; by default the models lie where the run itself writes them.
        only: the name of the plugin that exports; by default all do.
        opset: version of the operators of ONNX models; by default that of the run's settings.
        plugins: as for `load`.
        plugin_names: as for `load`.
        plugins_dir: as for `load`.

    Raises:
        CheckpointError, UsageError: as by `load`; or a run goes on in the folder that is written to.
        PluginError: an exporter fails, or there is none.
    """
    path = Path(path)
    manager = _plugins_beside(path, plugins, plugin_names, plugins_dir)
    files = files_of(path, best)
    if behavior is not None and path.is_dir():
        files = {behavior: file_of_behavior(files, behavior, path)}
    trainers: dict[Path, Trainer] = {}
    for file in files.values():
        with loading_from(file, manager):
            trainer = restored(read_state(file), manager)
        if opset is not None:
            trainer.settings.onnx_opset = opset
        name = file_name(trainer.behavior_name)
        stem = file.with_name(file.name.removesuffix(".pt").removesuffix(".policy"))
        if path.is_dir():
            stem = best_stem(path, trainer.behavior_name) if best else path / name
        trainers[stem if output is None else Path(output) / stem.name] = trainer
    return export_models(manager, trainers, only=only)


def _plugins_beside(
    path: Path,
    plugins: Sequence[object],
    plugin_names: Sequence[str | Path] | Path,
    plugins_dir: str | Path | None,
) -> PluginManager:
    """Load plugins, of which none may lie in the folder of a run."""
    own = [path] if path.is_dir() else []
    folder = None if plugins_dir is None else Path(plugins_dir)
    manager = load_plugins(names=_texts(plugin_names), plugins_dir=folder, around=partial(around_import, own=own))
    for plugin in plugins:
        manager.register(plugin)
    return manager
