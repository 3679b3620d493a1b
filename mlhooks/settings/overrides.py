"""Put the command line over what the file says: flags, `--set KEY.PATH=VALUE`, and another environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from mlhooks.errors import SettingsError
from mlhooks.finding import Finding
from mlhooks.settings.base import copied
from mlhooks.settings.behaviors import DEFAULT_TRAINER_TYPE
from mlhooks.settings.building import Report, build
from mlhooks.settings.findings import KeyPath, Origin, dotted, nearest
from mlhooks.settings.networks import replaced_by
from mlhooks.settings.run_options import EnvironmentSettings, RunOptions
from mlhooks.settings.yaml_source import MAX_DEPTH, Document, parse_yaml

_PART = re.compile(r'"([^"]*)"|\'([^\']*)\'|([^."\'=]+)')
_FLAGS = {
    "behaviors.*.evaluation.interval": "--eval-every",
    "env_settings.env_path": "--env",
    "torch_settings.device": "--torch-device",
}
EVERY = "*"
"""Stands in place of a behavior name, for every behavior of the file and default_settings."""
DEFAULTS = "default_settings"


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
        if not _is_of_a_section(raw, path, label, report) or not _is_of_a_behavior(raw, path, label, report):
            continue
        report.findings.extend(document.findings)
        _set(raw, path, document.value, label, report, document)
        if path[0] == DEFAULTS:
            _warn_of_own_keys(raw, path[1:], document.value, label, report)


def _split_path(text: str) -> tuple[KeyPath, str]:
    parts: list[str] = []
    while match := _PART.match(text):
        parts.append(next(group for group in match.groups() if group is not None).strip())
        text = text[match.end() :]
        if not text.startswith("."):
            break
        text = text[1:]
    return tuple(parts), text


def _is_of_a_section(raw: Mapping[str, Any], path: KeyPath, label: str, report: Report) -> bool:
    """Return whether a path begins with a section; what begins with something else gets the nearest path that does."""
    if path[0] in RunOptions.model_fields:
        return True
    behaviors = raw.get("behaviors")
    behaviors = behaviors if isinstance(behaviors, Mapping) else {}
    meant = dotted(("behaviors", *path)) if path[0] in behaviors else None
    if meant is None:
        kinds = {
            entry.get("trainer_type", DEFAULT_TRAINER_TYPE)
            for entry in behaviors.values()
            if isinstance(entry, Mapping)
        }
        meant = report.home_of(str(path[-1]), ("behaviors", EVERY, ""), {str(kind) for kind in kinds})
    if meant is None and (section := nearest(path[0], RunOptions.model_fields)):
        meant = dotted((section, *path[1:]))
    report.findings.append(
        Finding(
            severity="error",
            option=label,
            key=dotted(path),
            message="unknown key",
            allowed=f"paths that begin with {', '.join(RunOptions.model_fields)}",
            nearest=meant,
        )
    )
    return False


def _is_of_a_behavior(raw: Mapping[str, Any], path: KeyPath, label: str, report: Report) -> bool:
    """Return whether a path into `behaviors` names one that may be there; a misspelt one would be without effect."""
    behaviors = raw.get("behaviors")
    if len(path) < 2 or path[0] != "behaviors" or path[1] == EVERY or not isinstance(behaviors, Mapping):
        return True
    name = str(path[1])
    if not behaviors or name in behaviors:
        return True
    near = nearest(name, behaviors)
    # With default_settings, a file need not list all behaviors that there are.
    may_be = near is None and raw.get("default_settings") is not None
    report.findings.append(
        Finding(
            severity="warning" if may_be else "error",
            option=label,
            key=dotted(path[:2]),
            message="this behavior is new, the configuration has others" if may_be else "no behavior has this name",
            found=name,
            allowed=", ".join([*behaviors, *([] if may_be else [f"{EVERY} for all"])]),
            nearest=near,
        )
    )
    return may_be


def _warn_of_own_keys(raw: Mapping[str, Any], path: KeyPath, value: Any, label: str, report: Report) -> None:
    """Warn of behaviors that have a key of their own, which counts, where `default_settings` gets another value."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            _warn_of_own_keys(raw, (*path, key), item, label, report)
        return
    behaviors = raw.get("behaviors")
    entries = behaviors.items() if isinstance(behaviors, Mapping) and path else ()
    own = {str(name): key for name, entry in entries if (key := _own_key(entry, path)) is not None}
    if own:
        one, key = len(own) == 1, " or ".join(dict.fromkeys(own.values()))
        has = f"has its own {key}, which counts" if one else f"have their own {key}, which count"
        instead = dotted(("behaviors", *own, *path) if one else ("behaviors", EVERY, *path))
        message = f"{' and '.join(own)} {has} there; write {instead}=... to change that"
        finding = Finding(severity="warning", option=label, key=dotted((DEFAULTS, *path)), message=message)
        report.findings.append(finding)


def _own_key(entry: Any, path: KeyPath) -> str | None:
    """Return the key at a path below an entry, or its equivalent; None where it has neither."""
    for part in path[:-1]:
        entry = entry.get(part) if isinstance(entry, Mapping) else None
    keys = (path[-1], replaced_by(path)) if isinstance(entry, Mapping) else ()
    # The equivalent counts only where it is set, as a null leaves the other key's value in force.
    return next((str(key) for key in keys if key in entry and (key == path[-1] or entry[key] is not None)), None)


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
            if value is not None and isinstance(section, dict):
                section.pop(replaced_by(path), None)
            section[key] = value
        elif isinstance(section, dict) and section.get(key) is None:
            section[key] = {}
        section = section[key]
    report.origin.set_by_option(place, label, document)


def _error(report: Report, label: str, message: str, found: str | None = None) -> None:
    report.findings.append(Finding(severity="error", option=label, message=message, found=found))


BehaviorNames: TypeAlias = Callable[[EnvironmentSettings], Sequence[str] | None]
"""A function that returns the names of an environment's behaviors, or None if they are unknown before it runs."""
ENVIRONMENT = "env_settings"


def use_for_other_environment(
    values: dict[str, Any],
    flags: Mapping[str, Any],
    overrides: Sequence[str],
    report: Report,
    behavior_names: BehaviorNames,
) -> None:
    """Rename the single behavior of a file to that of the environment that the command line names in its place.

    Args:
        values: the sections of the file, which are changed in place.
        flags: settings by dotted key.
        overrides: `KEY.PATH=VALUE` texts.
        report: the report, which gets a warning.
        behavior_names: returns the names of the environment's behaviors.
    """
    behaviors, written = values.get("behaviors"), values.get(ENVIRONMENT)
    if not isinstance(behaviors, dict) or len(behaviors) != 1 or values.get("default_settings") is not None:
        return
    settings = _environment(written, flags, overrides, report)
    path_of_file = written.get("env_path") if isinstance(written, Mapping) else None
    if settings is None or settings.env_path in (None, path_of_file):
        return
    names = behavior_names(settings)
    (name,) = behaviors
    if names is None or len(names) != 1 or name in names:
        return
    new = names[0]
    message = (
        f"these settings are used for the behavior {new!r} of {settings.env_path}; they are chosen for "
        f"{path_of_file or f'the behavior {name!r}'}, so that another environment may learn badly by them"
    )
    report.add(("behaviors", name), message, severity="warning", of_key=True)
    behaviors[new] = behaviors.pop(name)
    report.origin.rename("behaviors", name, new)


def _environment(
    written: Any, flags: Mapping[str, Any], overrides: Sequence[str], report: Report
) -> EnvironmentSettings | None:
    """Return the environment's settings with flags and overrides; None if they are invalid, which is reported later."""
    raw = {ENVIRONMENT: copied(written)} if isinstance(written, Mapping) else {}
    probe = report.aside(Origin())
    apply_flags(raw, {key: value for key, value in flags.items() if key.startswith(f"{ENVIRONMENT}.")}, probe)
    apply_overrides(raw, [text for text in overrides if text.startswith(ENVIRONMENT)], probe)
    settings = build(EnvironmentSettings, raw.get(ENVIRONMENT, {}), (ENVIRONMENT,), probe)
    return None if probe.failed else settings
