"""Build the settings of behaviors: defaults merged in, hyperparameters and reward signals by their plugins' models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlhooks.mlagents_wheel.offers import HOW_TO_GET, OWN_TYPES, PREFIX, is_installed
from mlhooks.settings.behaviors import DEFAULT_TRAINER_TYPE, RewardSignalSettings, TrainerSettings
from mlhooks.settings.findings import KeyPath, nearest, shown
from mlhooks.settings.hyperparameters import HyperparameterSettings
from mlhooks.settings.registry import SettingsRegistry
from mlhooks.settings.report import Report
from mlhooks.settings.sections import build, report_no_section


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

    def below(self, trainer_type: str, model: type[HyperparameterSettings] | None) -> dict[str, Any]:
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
        base = defaults.below(str(written_type if trainer_type is None else trainer_type), model)
        values = _merged(base, values)
    ready: dict[str, Any] = {"hyperparameters": None}
    if model is not None:
        written = values.get("hyperparameters", {})
        ready["hyperparameters"] = build(model, written, (*path, "hyperparameters"), report)
    if trainer_type != written_type:  # reported already
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


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`; mappings in both are merged."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _merged(below, value)
        result[key] = value
    return result
