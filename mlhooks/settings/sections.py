"""Build settings models from sections of the configuration, and report all that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mlhooks.plugin_sources import is_file
from mlhooks.settings.base import COLLECT_PROBLEMS, SettingsModel
from mlhooks.settings.configuration import BlockedSettings, Configuration, PluginsSettings
from mlhooks.settings.environment_parameters import (
    SAMPLERS,
    ConstantSettings,
    EnvironmentParameterSettings,
    Lesson,
    ParameterRandomizationSettings,
)
from mlhooks.settings.findings import KeyPath, nearest, shown
from mlhooks.settings.reading import allowed_values, as_written, choices
from mlhooks.settings.registry import SettingsRegistry
from mlhooks.settings.report import Report
from mlhooks.shortening import cut

ModelT = TypeVar("ModelT", bound=BaseModel)


def build(
    model: type[ModelT],
    raw: Any,
    path: KeyPath,
    report: Report,
    ready: Mapping[str, Any] | None = None,
) -> ModelT | None:
    """Return `raw` as `model`, or None if it has errors, which are then in the report.

    Args:
        model: what the section should be.
        raw: what the configuration says.
        path: where it says so.
        report: where findings go.
        ready: parts that the caller built already, with None for those that failed.
    """
    if not isinstance(raw, Mapping):
        report_no_section(raw, path, report, model.model_fields)
        return None
    values, failed = dict(raw), set()
    for key in raw:
        if key not in model.model_fields:
            _report_unknown_key(key, model, path, report)
            del values[key]
    for key, field in model.model_fields.items():
        if key in raw:
            values[key] = as_written(raw[key], field.annotation, (*path, key), report.origin.text)
        section = _section_model(field, raw[key]) if key in raw else None
        if key in (ready := ready or {}):
            values[key] = ready[key]
        elif section is not None:
            values[key] = build(section, raw[key], (*path, key), report)
        else:
            continue
        if values[key] is None:
            failed.add(key)
            del values[key]
    try:
        settings = model.model_validate(values, context=COLLECT_PROBLEMS)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            if not details["loc"] or details["loc"][0] not in failed:
                _report_details(details, model, raw, path, report)
        return None
    if failed:
        return None
    problems = list(settings.problems()) if isinstance(settings, SettingsModel) else []
    for problem in problems:
        report.add((*path, *problem.key), problem.message, severity=problem.severity)
    return None if any(problem.severity == "error" for problem in problems) else settings


def report_no_section(raw: Any, path: KeyPath, report: Report, keys: Mapping[str, Any]) -> None:
    """Report something that is not a mapping where one belongs."""
    message = "must be a section, with keys below it"
    if raw is None:
        message = "is empty; remove it, or write {} for its defaults"
    report.add(path, message, found=shown(raw), allowed=", ".join(keys) or None)


def _section_model(field: FieldInfo, value: Any) -> type[BaseModel] | None:
    """Return the model of a field that is a section, unless it may be null and is."""
    kinds = get_args(field.annotation) or (field.annotation,)
    if value is None and type(None) in kinds:
        return None
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return models[0] if len(models) == 1 else None


def _report_unknown_key(key: str, model: type[BaseModel], path: KeyPath, report: Report) -> None:
    ignored = issubclass(model, SettingsModel) and model.ignores_unknown_keys
    message = "unknown key, which ML-Agents ignores here" if ignored else "unknown key"
    report.add(
        (*path, key),
        message,
        severity="warning" if ignored else "error",
        of_key=True,
        allowed=", ".join(model.model_fields),
        nearest=report.home_of(key, path) or nearest(key, model.model_fields),
    )


def _report_details(
    details: ErrorDetails, model: type[BaseModel], raw: Mapping[str, Any], path: KeyPath, report: Report
) -> None:
    location, kind = details["loc"], details["type"]
    if not location:
        report.add(path, _reason(details))
        return
    name = str(location[0])
    field = model.model_fields[name]
    if kind == "missing" and len(location) == 1:
        report.add(
            (*path, name), "a required key is missing", allowed=allowed_values(field), at=path, of_key=bool(path)
        )
        return
    location, found = _existing(raw, location)
    # A number is shown as it is written: 1e9, not 1000000000.0.
    written = report.origin.text((*path, *location)) if type(found) in (int, float) else None
    words = shown(found) if written is None else cut(written, 60)
    if kind in {"value_error", "assertion_error"}:
        report.add((*path, *location), _reason(details), found=words)
        return
    report.add(
        (*path, *location),
        "not a finite number" if kind == "finite_number" else "not a valid value",
        found=words,
        allowed=allowed_values(field),
        nearest=nearest(found, choices(field.annotation)),
    )


def _reason(details: ErrorDetails) -> str:
    error = details.get("ctx", {}).get("error")
    return str(error) if error is not None else details["msg"]


def _existing(raw: Any, location: KeyPath) -> tuple[KeyPath, Any]:
    """Return the part of `location` that `raw` has, and the value there."""
    for depth, part in enumerate(location):
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return location[:depth], raw
    return location, raw


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
