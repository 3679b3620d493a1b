"""Build settings models from sections of the configuration, and report all that is wrong with them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mlhooks.finding import Finding, Severity
from mlhooks.settings.base import COLLECT_PROBLEMS, SettingsModel, allowed_values, as_written, choices
from mlhooks.settings.findings import KeyPath, Origin, dotted, nearest, shown
from mlhooks.settings.schema import Homes, SettingsRegistry
from mlhooks.shortening import cut


class Report:
    """The findings so far.

    Args:
        origin: the sources of the configuration.
        registry: what the plugins add to the schema; it tells where a misplaced key belongs.
    """

    def __init__(self, origin: Origin, registry: SettingsRegistry) -> None:
        self.origin = origin
        self.findings: list[Finding] = []
        self._homes = Homes(registry)

    def aside(self, origin: Origin) -> Report:
        """Return an empty report with the same knowledge, for findings that are not to be told."""
        other = copy.copy(self)
        other.origin, other.findings = origin, []
        return other

    def add(
        self,
        path: KeyPath,
        message: str,
        *,
        severity: Severity = "error",
        at: KeyPath | None = None,
        of_key: bool = False,
        found: str | None = None,
        allowed: str | None = None,
        nearest: str | None = None,
    ) -> None:
        """Add a finding about `path`; `at` is the place to show where it differs, `of_key` shows the key's."""
        place = self.origin.place(path if at is None else at, of_key=of_key)
        if at is not None:
            place["key"] = dotted(path)
        finding = Finding(severity=severity, message=message, found=found, allowed=allowed, nearest=nearest, **place)
        self.findings.append(finding)

    def home_of(self, key: str, path: KeyPath, trainer_types: Collection[str] = ()) -> str | None:
        """Return the full key path where a key that is unknown at `path` belongs, if there is one; as `Homes.of`."""
        return self._homes.of(key, path, trainer_types)

    @property
    def failed(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.severity == "error" for finding in self.findings)


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
        item = _item_model(field) if key in raw and isinstance(raw[key], list) else None
        if key in (ready := ready or {}):
            values[key] = ready[key]
        elif section is not None:
            values[key] = build(section, raw[key], (*path, key), report)
        elif item is not None:
            built = [build(item, part, (*path, key, index), report) for index, part in enumerate(raw[key])]
            values[key] = None if None in built else built
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


def _item_model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of the items of a field that is a list of sections, and may be null."""
    for kind in get_args(field.annotation):
        item = next(iter(get_args(kind)), None) if get_origin(kind) is list else None
        if isinstance(item, type) and issubclass(item, BaseModel):
            return item
    return None


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
