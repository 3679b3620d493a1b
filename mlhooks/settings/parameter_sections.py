"""Build environment parameters: a number, a sampler, or a curriculum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mlhooks.settings.environment_parameters import (
    SAMPLERS,
    ConstantSettings,
    EnvironmentParameterSettings,
    Lesson,
    ParameterRandomizationSettings,
)
from mlhooks.settings.findings import KeyPath, nearest, shown
from mlhooks.settings.report import Report
from mlhooks.settings.sections import build

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
