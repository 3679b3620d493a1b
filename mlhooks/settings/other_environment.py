"""Use the configuration of one behavior for the one behavior of another environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from mlhooks.settings.origin import Origin
from mlhooks.settings.overrides import apply_flags, apply_overrides
from mlhooks.settings.reading import copied
from mlhooks.settings.report import Report
from mlhooks.settings.run_options import EnvironmentSettings
from mlhooks.settings.sections import build

BehaviorNames: TypeAlias = Callable[[EnvironmentSettings], Sequence[str] | None]
"""A function that returns the names of an environment's behaviors, or None if they are unknown before it runs."""
_SECTION = "env_settings"


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
    behaviors, written = values.get("behaviors"), values.get(_SECTION)
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
    raw = {_SECTION: copied(written)} if isinstance(written, Mapping) else {}
    aside = report.beside(Origin())
    apply_flags(raw, {key: value for key, value in flags.items() if key.startswith(f"{_SECTION}.")}, aside)
    apply_overrides(raw, [text for text in overrides if text.startswith(_SECTION)], aside)
    settings = build(EnvironmentSettings, raw.get(_SECTION, {}), (_SECTION,), aside)
    return None if aside.failed else settings
