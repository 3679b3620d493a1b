"""The one verdict of `mlhooks run` and `mlhooks config check` on whether a run may begin with its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlhooks.errors import MlhooksError, SettingsError, UsageError
from mlhooks.mlagents_plugins import tell_namesakes
from mlhooks.plugins import PluginManager
from mlhooks.settings import (
    Finding,
    LoadedOptions,
    RunOptions,
    SettingsRegistry,
    TrainerSettings,
    load_run_options,
)
from mlhooks.settings.findings import KeyPath, error_from, in_order, nearest
from mlhooks.settings.resolve import Configuration, Source
from mlhooks.settings.run_options import EnvironmentSettings
from mlhooks.settings.support import refuse_unsupported
from mlhooks.training.environment_scheme import environment_name, make_factory
from mlhooks.training.name_limits import refuse_long_names
from mlhooks.training.named_demonstrations import refuse_unfit_demonstrations


def admit(
    source: Source | Configuration,
    plugins: PluginManager,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    environment: Callable[..., Any] | None = None,
) -> LoadedOptions:
    """Load a configuration, and refuse what a run on this machine would refuse.

    It does not look at what may change in a minute, such as a port that is taken or an earlier run of that name, nor at
    what only a running environment tells: the behaviors of a Unity scene, their observations and actions.

    Args:
        source: as `load_run_options` takes it, and so are `flags` and `overrides`.
        plugins: those of the run.
        flags: settings by dotted key.
        overrides: `KEY.PATH=VALUE` texts.
        environment: a class or function that makes the environment, where it was handed over and not named.

    Returns:
        The options and all that is worth a warning.

    Raises:
        MlhooksError: a run would refuse it, with the exit code of a UsageError; it has every error in its
            `findings`, except where there is a single one that has no place.
        PluginError: a plugin does not answer as it must.
    """
    registry = SettingsRegistry.from_plugins(plugins)

    def behavior_names(settings: EnvironmentSettings) -> Sequence[str] | None:
        options = RunOptions(env_settings=settings)
        options.own_environment = environment
        try:
            return make_factory(options, plugins).behavior_names()
        except MlhooksError:  # This is told below.
            return None

    loaded = load_run_options(
        source, registry, flags=flags, overrides=overrides, for_run=True, behavior_names=behavior_names
    )
    loaded.options.own_environment = environment
    tell_namesakes(loaded.options.trainer_types, plugins)
    options, warnings = loaded.options, list(loaded.warnings)
    looks: dict[KeyPath, Callable[[], list[Finding] | None]] = {
        (): partial(refuse_unsupported, loaded, registry),
        ("checkpoint_settings", "run_id"): partial(_refuse_long_names, options),
        ("torch_settings", "device"): partial(_refuse_device, options),
        ("env_settings", "env_path"): partial(_refuse_environment, options, plugins),
        ("evaluation",): partial(_refuse_evaluation_in_the_editor, options),
        ("behavioral_cloning",): partial(refuse_unfit_demonstrations, options, plugins),
    }
    refused: dict[KeyPath, MlhooksError] = {}
    for key, look in looks.items():
        try:
            warnings += look() or ()
        except MlhooksError as error:
            if error.exit_code != UsageError.exit_code:
                raise
            refused[key] = error
    if len(refused) > 1:
        findings = [finding for key, error in refused.items() for finding in findings_of(error, options, key)]
        raise error_from(UsageError, [*warnings, *findings])
    if refused:
        raise next(iter(refused.values()))
    return LoadedOptions(options, in_order(warnings))


def findings_of(error: MlhooksError, options: RunOptions | None = None, key: KeyPath = ()) -> list[Finding]:
    """Return what an error found; one that lists nothing is a finding itself, about the setting at `key`."""
    place = options.place_of(key) if options is not None else {}
    return list(getattr(error, "findings", ())) or [Finding(severity="error", message=str(error), **place)]


def _refuse_long_names(options: RunOptions) -> None:
    refuse_long_names(Path(options.checkpoint_settings.write_path).absolute(), options)


def _refuse_device(options: RunOptions) -> None:
    name = options.torch_settings.device
    if name is not None and name != "cpu":
        # Here, because torch takes a second to import and only files that name a device need it.
        from mlhooks.training.device import device_named

        device_named(name)


def _refuse_environment(options: RunOptions, plugins: PluginManager) -> None:
    factory = make_factory(options, plugins)
    try:
        factory.check()
    except MlhooksError as error:
        if error.exit_code == UsageError.exit_code:
            raise
    names = factory.behavior_names()
    if names is not None:
        refuse_other_behaviors(options, names)


def _refuse_evaluation_in_the_editor(options: RunOptions) -> None:
    if options.env_settings.env_path is not None or not options.evaluations:
        return
    entries: dict[KeyPath, TrainerSettings | None] = {("behaviors", name): e for name, e in options.behaviors.items()}
    entries["default_settings",] = options.default_settings
    raise error_from(
        SettingsError,
        [
            Finding(
                severity="error",
                message="an evaluation needs an environment beside that of training, and the Unity Editor is a single "
                "one: build a player and name it by --env, or remove the evaluation",
                **options.place_of((*path, "evaluation"), of_key=True),
            )
            for path, entry in entries.items()
            if entry is not None and entry.evaluation is not None
        ],
    )


def refuse_other_behaviors(options: RunOptions, names: Sequence[str]) -> None:
    """Refuse settings for behaviors that the environment will never show, and behaviors without settings.

    Args:
        options: of the run.
        names: all behaviors that the environment has.

    Raises:
        SettingsError: lists them, each with its place.
    """
    asked: dict[KeyPath, str] = {("behaviors", name): name for name in options.behaviors}
    for parameter, settings in (options.environment_parameters or {}).items():
        for index, lesson in enumerate(settings.curriculum):
            if lesson.completion_criteria is not None:
                path = ("environment_parameters", parameter, "curriculum", index, "completion_criteria", "behavior")
                asked[path] = lesson.completion_criteria.behavior
    findings = [
        Finding(
            severity="error",
            message=f"the environment {environment_name(options)} has no behavior of this name",
            found=name,
            allowed=", ".join(names),
            nearest=nearest(name, names),
            **options.place_of(path, of_key=path[0] == "behaviors"),
        )
        for path, name in asked.items()
        if name not in names
    ]
    if findings:
        raise error_from(SettingsError, findings)
    for name in names:
        options.settings_for(name)
