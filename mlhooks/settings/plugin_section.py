"""Build the section `plugins`: paths made absolute, and settings by the models that plugins offer for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mlhooks.plugin_sources import is_file
from mlhooks.settings.configuration import Configuration
from mlhooks.settings.findings import KeyPath, nearest
from mlhooks.settings.plugins import BlockedSettings, PluginsSettings
from mlhooks.settings.registry import SettingsRegistry
from mlhooks.settings.report import Report
from mlhooks.settings.sections import build, report_no_section

PATH: KeyPath = ("plugins",)


def build_plugins(
    raw: Any, configuration: Configuration, registry: SettingsRegistry, report: Report
) -> PluginsSettings | None:
    """Return the section; None if it has errors, which are then in the report.

    `configuration.plugins`, which also has what the command line names, replaces `load` and `block` of the section.
    """
    ready = {}
    if isinstance(raw, Mapping):
        ready["settings"] = _own_settings(raw.get("settings", {}), registry, report)
    section = build(PluginsSettings, raw, PATH, report, ready)
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
        _absolute(text, Path() if report.origin.is_option((*PATH, "load", index)) else folder)
        for index, text in enumerate(section.load)
    ]
    return PluginsSettings.model_construct(load=load, block=section.block)


def _absolute(text: str, folder: Path) -> str:
    # `Path.resolve` would follow links, and the user means the path as it is written.
    return os.path.abspath(folder / text.replace("\\", "/")) if is_file(text) else text  # noqa: PTH100


def _own_settings(raw: Any, registry: SettingsRegistry, report: Report) -> dict[str, BaseModel] | None:
    path, models = (*PATH, "settings"), registry.plugin_settings
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
