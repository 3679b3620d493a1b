"""Put flags and `--set KEY.PATH=VALUE` of the command line over what the file says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlhooks.errors import SettingsError
from mlhooks.settings.findings import Finding, KeyPath, dotted, nearest
from mlhooks.settings.reading import copied
from mlhooks.settings.report import Report
from mlhooks.settings.yaml_source import Document, parse_yaml
from mlhooks.settings.yaml_values import MAX_DEPTH

_PART = re.compile(r'"([^"]*)"|\'([^\']*)\'|([^."\'=]+)')
_FLAGS = {"env_settings.env_path": "--env", "torch_settings.device": "--torch-device"}
EVERY = "*"
"""In the place of a behavior name: every behavior of the file, and default_settings."""


def apply_flags(raw: dict[str, Any], flags: Mapping[str, Any], report: Report) -> None:
    """Set the flags that were given, by dotted key, in place."""
    for key, value in flags.items():
        label = _FLAGS.get(key, "--" + key.rpartition(".")[2].replace("_", "-"))
        _set(raw, tuple(key.split(".")), value, label, report, None)


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str], report: Report) -> None:
    """Set the values of `KEY.PATH=VALUE` texts, in order and in place; VALUE is YAML."""
    for text in overrides:
        label = f"--set {text}"
        path, rest = _split_path(text)
        if not path or len(path) > MAX_DEPTH or not rest.startswith("="):
            _error(report, label, 'must read KEY.PATH=VALUE, with quotes around names with dots: a."b.c".d=1')
            continue
        try:
            document = parse_yaml(rest[1:], option=label)
        except SettingsError as error:
            report.findings.extend(error.findings)
            continue
        _warn_of_new_behavior(raw, path, label, report)
        report.findings.extend(document.findings)
        _set(raw, path, document.value, label, report, document)


def _split_path(text: str) -> tuple[KeyPath, str]:
    parts: list[str] = []
    while match := _PART.match(text):
        parts.append(next(group for group in match.groups() if group is not None).strip())
        text = text[match.end() :]
        if not text.startswith("."):
            break
        text = text[1:]
    return tuple(parts), text


def _warn_of_new_behavior(raw: Mapping[str, Any], path: KeyPath, label: str, report: Report) -> None:
    behaviors = raw.get("behaviors")
    if len(path) < 2 or path[0] != "behaviors" or path[1] == EVERY or not isinstance(behaviors, Mapping):
        return
    name = str(path[1])
    if behaviors and name not in behaviors:
        report.findings.append(
            Finding(
                severity="warning",
                option=label,
                key=dotted(path[:2]),
                message="this behavior is new, the configuration has others",
                found=name,
                allowed=", ".join(behaviors),
                nearest=nearest(name, behaviors),
            )
        )


def _set(raw: dict[str, Any], path: KeyPath, value: Any, label: str, report: Report, document: Document | None) -> None:
    if path[:2] == ("behaviors", EVERY):
        if not raw.get("behaviors") and not raw.get("default_settings"):
            # Behaviors that only the environment names start from default_settings.
            raw["default_settings"] = {}
        behaviors = raw.get("behaviors")
        for name in behaviors if isinstance(behaviors, Mapping) else ():
            _set(raw, ("behaviors", name, *path[2:]), copied(value), label, report, document)
        if raw.get("default_settings") is not None:
            _set(raw, ("default_settings", *path[2:]), copied(value), label, report, document)
        return
    section: Any = raw
    place: KeyPath = ()
    for depth, part in enumerate(path):
        key: Any = int(part) if isinstance(section, list) and str(part).isdigit() else part
        place = (*place, key)
        if isinstance(section, list) and not (isinstance(key, int) and key < len(section)):
            _error(
                report, label, f"{dotted(path[:depth])} is a list of {len(section)}, counted from 0", found=str(part)
            )
            return
        if not isinstance(section, dict | list):
            _error(report, label, f"{dotted(path[:depth])} has no keys below it")
            return
        if depth == len(path) - 1:
            section[key] = value
        elif isinstance(section, dict) and section.get(key) is None:
            section[key] = {}
        section = section[key]
    report.origin.set_by_option(place, label, document)


def _error(report: Report, label: str, message: str, found: str | None = None) -> None:
    report.findings.append(Finding(severity="error", option=label, message=message, found=found))
