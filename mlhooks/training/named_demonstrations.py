"""The demonstrations that a configuration names, looked at before a run begins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mlhooks.errors import DemonstrationError, MlhooksError, SettingsError
from mlhooks.plugins import PluginManager
from mlhooks.settings import Finding, RunOptions, TrainerSettings
from mlhooks.settings.findings import KeyPath, error_from
from mlhooks.training.environment_scheme import make_factory

if TYPE_CHECKING:
    from mlagents_envs.base_env import BehaviorSpec


def refuse_unfit_demonstrations(options: RunOptions, plugins: PluginManager) -> None:
    """Refuse demonstrations that are missing, damaged, or of another behavior.

    What a behavior's observations and actions are is known before the run where its environment is made quickly;
    otherwise the demonstration is compared when the behavior appears.

    Raises:
        SettingsError: lists them, each with its place.
    """
    entries: dict[KeyPath, TrainerSettings] = {("behaviors", name): entry for name, entry in options.behaviors.items()}
    if options.default_settings is not None:
        entries["default_settings",] = options.default_settings
    named = {key: demo for path, entry in entries.items() for key, demo in _named(path, entry)}
    if not named or options.checkpoint_settings.inference:
        return
    from mlhooks.demos.demonstration import load_demonstration  # Few runs need it; protobuf is slow to import.

    specs, findings = _specs(options, plugins), []
    for key, demo in named.items():
        others = [name for name in specs if name not in options.behaviors]
        for name in [str(key[1])] if key[0] == "behaviors" else others or [""]:
            try:
                load_demonstration(demo, name, specs.get(name))
            except DemonstrationError as error:
                findings.append(Finding(severity="error", message=str(error), **options.place_of(key)))
    if findings:
        raise error_from(SettingsError, findings)


def _named(path: KeyPath, settings: TrainerSettings) -> Iterator[tuple[KeyPath, str]]:
    """Yield the keys of a behavior's demonstrations, and what they name."""
    if settings.behavioral_cloning is not None:
        yield (*path, "behavioral_cloning", "demo_path"), settings.behavioral_cloning.demo_path
    for name, signal in settings.reward_signals.items():
        demo = getattr(signal, "demo_path", None)
        if isinstance(demo, str):
            yield (*path, "reward_signals", name, "demo_path"), demo


def _specs(options: RunOptions, plugins: PluginManager) -> Mapping[str, BehaviorSpec]:
    """Return the behaviors that the environment shows, where it tells them quickly."""
    with contextlib.suppress(MlhooksError):  # What is wrong with the environment is said by others.
        seen = make_factory(options, plugins).inspect_behaviors()
        return {name.partition("?")[0]: spec for name, (spec, _) in (seen or {}).items()}
    return {}
