"""Build the sections whose models depend on plugins or on what is written: behaviors, parameters, plugins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from mlhooks.mlagents_wheel.offers import HOW_TO_GET, OWN_TYPES, PREFIX, is_installed
from mlhooks.plugin_sources import is_file
from mlhooks.settings.behaviors import (
    DEFAULT_TRAINER_TYPE,
    RewardSignalSettings,
    TrainerSettings,
)
from mlhooks.settings.building import Report, build, report_no_section
from mlhooks.settings.environment_parameters import (
    SAMPLERS,
    ConstantSettings,
    EnvironmentParameterSettings,
    Lesson,
    ParameterRandomizationSettings,
)
from mlhooks.settings.findings import KeyPath, nearest, shown
from mlhooks.settings.hyperparameters import HyperparameterSettings
from mlhooks.settings.networks import replaced_by
from mlhooks.settings.run_options import BlockedSettings, PluginsSettings
from mlhooks.settings.schema import SettingsRegistry

if TYPE_CHECKING:
    from mlhooks.settings.resolve import Configuration


def lacking(trainer_type: object) -> tuple[str, str]:
    """Return what a trainer type of ML-Agents' kind lacks, and what brings it; empty texts for any other."""
    if not isinstance(trainer_type, str):
        return "", ""
    if trainer_type.removeprefix(PREFIX) in OWN_TYPES:
        if is_installed():
            return "is one of ML-Agents' own package, which is installed and not loaded", "remove -p no:mlagents"
        return "is one of ML-Agents' own package, which is not installed", HOW_TO_GET
    if trainer_type.startswith(PREFIX) and not is_installed():
        return "is one for ML-Agents, whose package mlagents is not installed", HOW_TO_GET
    return "", ""


@dataclass(frozen=True)
class DefaultSettings:
    """The resolved `default_settings`, and the hyperparameters as they were written."""

    settings: TrainerSettings
    written_hyperparameters: Mapping[str, Any]

    def base_for(self, trainer_type: str, model: type[HyperparameterSettings] | None) -> dict[str, Any]:
        """Return what a behavior of `trainer_type` starts from.

        As in ML-Agents that is the resolved section, with its defaults filled in. Hyperparameters of another trainer
        type count only where they were written, and where the behavior's own type has them too.
        """
        values = self.settings.as_dict()
        if trainer_type != self.settings.trainer_type:
            fields = model.model_fields if model is not None else {}
            values["hyperparameters"] = {
                key: value for key, value in self.written_hyperparameters.items() if key in fields
            }
        return values


def build_defaults(raw: Any, registry: SettingsRegistry, report: Report) -> DefaultSettings | None:
    """Build the section `default_settings`; None if it has errors, which are then in the report."""
    settings = build_behavior(raw, ("default_settings",), registry, report, None)
    return None if settings is None else DefaultSettings(settings, dict(raw.get("hyperparameters", {})))


def build_behavior(
    raw: Any, path: KeyPath, registry: SettingsRegistry, report: Report, defaults: DefaultSettings | None
) -> TrainerSettings | None:
    """Build one behavior's entry; None if it has errors, which are then in the report."""
    if not isinstance(raw, Mapping):
        report_no_section(raw, path, report, TrainerSettings.model_fields)
        return None
    values = dict(raw)
    if "framework" in values:
        del values["framework"]
        report.add(
            (*path, "framework"),
            "framework is deprecated and ignored, everything runs on PyTorch; remove it",
            severity="warning",
            of_key=True,
        )
    written_type = values.get("trainer_type", defaults.settings.trainer_type if defaults else DEFAULT_TRAINER_TYPE)
    trainer_type = _trainer_type(written_type, path, registry, report)
    model = None if trainer_type is None else registry.hyperparameters(trainer_type)
    if "hyperparameters" in values and "trainer_type" not in values and defaults is None:
        report.add(
            (*path, "hyperparameters"),
            f"hyperparameters without a trainer_type are read as {DEFAULT_TRAINER_TYPE}'s; ML-Agents refuses that, "
            f"so add trainer_type: {DEFAULT_TRAINER_TYPE}",
            severity="warning",
            of_key=True,
        )
    if defaults is not None:
        base = defaults.base_for(str(written_type if trainer_type is None else trainer_type), model)
        values = _merged(base, values)
    ready: dict[str, Any] = {"hyperparameters": None}
    if model is not None:
        written = values.get("hyperparameters", {})
        ready["hyperparameters"] = build(model, written, (*path, "hyperparameters"), report)
    if trainer_type != written_type:  # It is reported already.
        values["trainer_type"] = trainer_type or DEFAULT_TRAINER_TYPE
    if "reward_signals" in values:
        ready["reward_signals"] = _reward_signals(values["reward_signals"], path, registry, report)
    return build(TrainerSettings, values, path, report, ready)


def _trainer_type(written: Any, path: KeyPath, registry: SettingsRegistry, report: Report) -> str | None:
    """Return the trainer type, or the one that is probably meant, as which the rest of the entry is checked."""
    if isinstance(written, str) and written in registry.trainer_types:
        return written
    lack, get = lacking(written)
    meant = None if lack else nearest(written, registry.trainer_types)
    message = "no installed plugin provides this trainer type (pip install the package that does, or load its module "
    message += "or file by -p)"
    if lack:  # It is spelled right, so no other spelling is meant.
        message = f"the trainer type {written} {lack}: {get}"
    if registry.left_out:
        message += f". {' and '.join(registry.left_out)} may bring it, and is left out without the package mlagents"
        message += "" if lack else f": {HOW_TO_GET}"
    report.add(
        (*path, "trainer_type"),
        message,
        found=shown(written),
        allowed=", ".join(sorted(registry.trainer_types)) or "none is installed",
        nearest=meant,
    )
    return meant


def _reward_signals(
    raw: Any, path: KeyPath, registry: SettingsRegistry, report: Report
) -> dict[str, RewardSignalSettings] | None:
    path = (*path, "reward_signals")
    models = registry.reward_signal_models()
    if not isinstance(raw, Mapping) or not raw:
        report.add(path, "must name at least one reward signal", found=shown(raw), allowed=", ".join(models))
        return None
    signals: dict[str, RewardSignalSettings | None] = {}
    for name, value in raw.items():
        if name in models:
            signals[name] = _reward_signal(models[name], value, (*path, name), report)
        else:
            signals[name] = None
            report.add(
                (*path, name),
                "no reward signal has this name",
                of_key=True,
                found=name,
                allowed=", ".join(models),
                nearest=nearest(name, models),
            )
    built = {name: settings for name, settings in signals.items() if settings is not None}
    return built if len(built) == len(signals) else None


def _reward_signal(
    model: type[RewardSignalSettings], raw: Any, path: KeyPath, report: Report
) -> RewardSignalSettings | None:
    settings = build(model, raw, path, report)
    encoding_size: int | None = getattr(settings, "encoding_size", None)
    if settings is not None and encoding_size is not None:
        instead = "is used as network_settings.hidden_units; write that instead"
        if "network_settings" in raw:
            instead = "is ignored, because network_settings is there too; remove it"
        else:
            settings.network_settings.hidden_units = encoding_size
        message = f"encoding_size is deprecated and {instead}"
        report.add((*path, "encoding_size"), message, severity="warning", of_key=True)
    return settings


def _merged(base: Mapping[str, Any], over: Mapping[str, Any], path: KeyPath = ()) -> dict[str, Any]:
    """Return `base` with the values of `over`, which are at a path; mappings in both are merged."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _merged(below, value, (*path, key))
        elif value is not None and (other := replaced_by((*path, key))) not in over:
            result.pop(other, None)
        result[key] = value
    return result


_SAMPLER_KEYS = ("sampler_type", "sampler_parameters")
_FORMS = "a number, a sampler (sampler_type and sampler_parameters), or a curriculum"


def build_parameter(name: str, raw: Any, path: KeyPath, report: Report) -> EnvironmentParameterSettings | None:
    """Build one environment parameter; None if it has errors, which are then in the report."""
    if isinstance(raw, Mapping) and "curriculum" in raw:
        lessons = raw["curriculum"]
        ready: list[Lesson | None] | None = None
        if isinstance(lessons, list):
            ready = [_lesson(lesson, (*path, "curriculum", index), report) for index, lesson in enumerate(lessons)]
        else:
            report.add((*path, "curriculum"), "must be a list of lessons, each after a dash", found=shown(lessons))
        complete = None if ready is None or None in ready else ready
        return build(EnvironmentParameterSettings, raw, path, report, {"curriculum": complete})
    sampler = _sampler(raw, path, report, _FORMS)
    return None if sampler is None else EnvironmentParameterSettings(curriculum=[Lesson(name=name, value=sampler)])


def _lesson(raw: Any, path: KeyPath, report: Report) -> Lesson | None:
    ready = {}
    if isinstance(raw, Mapping) and "value" in raw:
        ready["value"] = _sampler(raw["value"], (*path, "value"), report, "a number or a sampler")
    return build(Lesson, raw, path, report, ready)


def _sampler(raw: Any, path: KeyPath, report: Report, forms: str) -> ParameterRandomizationSettings | None:
    if not isinstance(raw, Mapping):
        try:
            return ConstantSettings(value=raw)
        except ValidationError:
            report.add(path, "not a valid value", found=shown(raw), allowed=forms)
            return None
    for key in raw:
        if key not in _SAMPLER_KEYS:
            message = "unknown key, which ML-Agents ignores here"
            guess = nearest(key, _SAMPLER_KEYS)
            allowed = ", ".join(_SAMPLER_KEYS)
            report.add((*path, key), message, severity="warning", of_key=True, allowed=allowed, nearest=guess)
    missing = [key for key in _SAMPLER_KEYS if key not in raw]
    for key in missing:
        report.add((*path, key), "a required key is missing", allowed=forms, at=path, of_key=True)
    if missing:
        return None
    kind = raw["sampler_type"]
    if not isinstance(kind, str) or kind not in SAMPLERS:
        report.add(
            (*path, "sampler_type"),
            "not a valid value",
            found=shown(kind),
            allowed=", ".join(SAMPLERS),
            nearest=nearest(kind, SAMPLERS),
        )
        return None
    return build(SAMPLERS[kind], raw["sampler_parameters"], (*path, "sampler_parameters"), report)


PLUGINS: KeyPath = ("plugins",)


def build_plugins(
    raw: Any, configuration: Configuration, registry: SettingsRegistry, report: Report
) -> PluginsSettings | None:
    """Return the section; None if it has errors, which are then in the report.

    `configuration.plugins`, which also has what the command line names, replaces `load` and `block` of the section.
    """
    ready = {}
    if isinstance(raw, Mapping):
        ready["settings"] = _own_settings(raw.get("settings", {}), registry, report)
    section = build(PluginsSettings, raw, PLUGINS, report, ready)
    if section is not None:
        named = configuration.plugins or resolve_paths(section, configuration.folder, report)
        section.load, section.block = list(named.load), list(named.block)
    return section


def resolve_paths(section: PluginsSettings, folder: Path, report: Report) -> PluginsSettings:
    """Return the section without settings, and with absolute paths.

    Args:
        section: the section as it was written.
        folder: the folder to which paths in the file are relative; those of `--set` belong to the working directory.
        report: the report, whose origin knows where each path was written.
    """
    load = [
        _absolute(text, Path() if report.origin.is_option((*PLUGINS, "load", index)) else folder)
        for index, text in enumerate(section.load)
    ]
    return PluginsSettings.model_construct(load=load, block=section.block)


def _absolute(text: str, folder: Path) -> str:
    # `Path.resolve` would follow links, and the user means the path as it is written.
    return os.path.abspath(folder / text.replace("\\", "/")) if is_file(text) else text  # noqa: PTH100


def _own_settings(raw: Any, registry: SettingsRegistry, report: Report) -> dict[str, BaseModel] | None:
    path, models = (*PLUGINS, "settings"), registry.plugin_settings
    if not isinstance(raw, Mapping):
        report_no_section(raw, path, report, models)
        return None
    built: dict[str, BaseModel | None] = {}
    for name, model in models.items():
        built[name] = build(model, raw.get(name, {}), (*path, name), report)
    for name in raw.keys() - models.keys():
        built[name] = None
        if name not in registry.blocked:
            report.add(
                (*path, name),
                "no plugin that is loaded has settings of this name",
                of_key=True,
                allowed=", ".join(models) or "none has any",
                nearest=nearest(name, models),
            )
        elif isinstance(raw[name], Mapping):
            built[name] = BlockedSettings.model_validate(raw[name])
        else:
            report_no_section(raw[name], (*path, name), report, {})
    valid = {name: value for name, value in built.items() if value is not None}
    return valid if len(valid) == len(built) else None
