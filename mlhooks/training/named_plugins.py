"""The plugins of a run: those that its configuration names, and those of the command line, which wins."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlhooks.errors import MlhooksError, PluginError, PluginUnfit, SettingsError, UsageError
from mlhooks.plugin_sources import Candidate, from_folder, is_file, name_of
from mlhooks.plugins import PluginManager, find_plugins, load_plugins
from mlhooks.settings import CheckpointSettings, Configuration, Finding, PluginsSettings, SettingsRegistry
from mlhooks.settings.base import copied
from mlhooks.settings.building import Report, build
from mlhooks.settings.findings import KeyPath, Origin, error_from, nearest
from mlhooks.settings.overrides import apply_flags, apply_overrides
from mlhooks.settings.resolve import is_configuration
from mlhooks.settings.sections import PLUGINS, resolve_paths
from mlhooks.training.untrusted import refuse_in_run


@dataclass(frozen=True)
class NamedPlugins:
    """The plugins that a configuration and the command line together name.

    Attributes:
        configuration: the configuration, whose `plugins` say what is loaded and blocked in total.
        configured: values of `-p` that stand for the configuration's part.
        names: values of `-p`.
        plugins_dir: the folder of `--plugins-dir`, or None.
        places: the place in the configuration of each plugin that it names, by the text in `configured`.
        own: folders that count as folders of runs, whatever is in them.
        stored: whether the configuration is a run's own, which nobody named.
    """

    configuration: Configuration
    configured: list[str]
    names: Sequence[str]
    plugins_dir: Path | None
    places: Mapping[str, Mapping[str, Any]]
    own: Sequence[Path]
    stored: bool

    def find(self) -> tuple[list[Candidate], list[str]]:
        """Find the plugins, as `find_plugins` does."""
        return find_plugins(names=self.names, plugins_dir=self.plugins_dir, configured=self.configured)

    def load(self, *, strict: bool = False, trace: bool = False) -> PluginManager:
        """Load the plugins, as `load_plugins` does, but none that lies in the folder of a run.

        Raises:
            MlhooksError: as `load_plugins`, with the place in the configuration if that names the culprit.
        """
        return load_plugins(
            names=self.names,
            plugins_dir=self.plugins_dir,
            configured=self.configured,
            strict=strict,
            trace=trace,
            around=self._around,
        )

    @contextlib.contextmanager
    def _around(self, candidate: Candidate) -> Iterator[None]:
        try:
            refuse_in_run(candidate, self.own)
            yield
        except MlhooksError as error:
            place = self.places.get(candidate.asked or candidate.origin.name)
            if place is None:
                raise
            finding = Finding(severity="error", message=f"{error}{self._hint(candidate, error)}", **place)
            if isinstance(error, PluginUnfit):
                raise error_from(PluginUnfit, [finding]) from error
            if isinstance(error, UsageError):
                raise error_from(SettingsError, [finding]) from error
            raise PluginError(str(finding)) from error

    def _hint(self, candidate: Candidate, error: MlhooksError) -> str:
        """Return what to do about a plugin that does not exist; other errors say it themselves."""
        name = candidate.origin.name
        if type(error) is not UsageError or f"-p no:{name}" in str(error):
            return ""
        if self.stored:
            return f"; say where it is now by -p, or go on without it by -p no:{name}"
        beside = self.configuration.folder / f"{candidate.asked}.py"
        return f"; for the file beside the configuration, write {beside.name}" if beside.is_file() else ""


def name_all_plugins(
    configuration: Configuration,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    names: Sequence[str] = (),
    plugins_dir: Path | None = None,
    stored: bool = False,
) -> NamedPlugins:
    """Combine the plugins of a configuration with those of the command line, without importing any.

    The command line wins: a plugin that it names is loaded from where it says, even if the configuration blocks it, and
    a plugin that it blocks is not loaded.

    Args:
        configuration: the configuration of the run.
        flags: settings by dotted key, as `load_run_options` takes them.
        overrides: `KEY.PATH=VALUE` texts.
        names: values of `-p`.
        plugins_dir: a folder whose .py files are plugins.
        stored: whether the configuration is a run's own, in its folder, which nobody named.

    Raises:
        SettingsError: the section `plugins` is not valid.
        UsageError: there is no folder `plugins_dir`.
    """
    said = _from_command_line(names)
    in_folder = {name_of(file.asked): file.asked for file in ([] if plugins_dir is None else from_folder(plugins_dir))}
    report = Report(Origin(configuration.file, configuration.document), SettingsRegistry({}))
    section, own = _from_configuration(configuration, flags or {}, overrides, report)
    absolute = resolve_paths(section, configuration.folder, report).load
    kept = {
        text: (*PLUGINS, "load", index)
        for index, text in enumerate(absolute)
        if not said.get(name_of(text)) and name_of(text) not in in_folder
    }
    block = [text for text in section.block if name_of(text) not in said]
    blocked = {name_of(text) for text in block} | {name for name, text in said.items() if text is None}
    loaded = {text: path for text, path in kept.items() if name_of(text) not in blocked}
    if stored:
        own = [*own, configuration.folder]
        _refuse_relative(section, loaded.values(), report)
    named = [text for text in said.values() if text is not None]
    both = PluginsSettings.model_construct(
        load=[*loaded, *named, *(path for name, path in in_folder.items() if name not in blocked | said.keys())],
        block=[*block, *(name for name, text in said.items() if text is None)],
    )
    found = NamedPlugins(
        replace(configuration, plugins=both if both.load or both.block else None),
        [*kept, *(f"no:{text}" for text in block)],
        names,
        plugins_dir,
        {text: report.origin.place(path) for text, path in loaded.items()},
        own,
        stored,
    )
    _warn_of_unknown(found, section, block, report)
    return replace(found, configuration=replace(found.configuration, findings=tuple(report.findings)))


def _from_command_line(names: Iterable[str]) -> dict[str, str | None]:
    """Return for each plugin of the command line, by name, what loads it from any folder; None if it is blocked."""
    said: dict[str, str | None] = {}
    for text in names:
        name = name_of(text.removeprefix("no:"))
        said.pop(name, None)
        path = os.path.abspath(text) if is_file(text) else name  # noqa: PTH100 - A link stays one.
        said[name] = None if text.startswith("no:") else path
    return said


def _from_configuration(
    configuration: Configuration, flags: Mapping[str, Any], overrides: Sequence[str], report: Report
) -> tuple[PluginsSettings, list[Path]]:
    """Return the section `plugins` with flags and overrides, and the folder of the run if it is known.

    The other sections are checked later, when the plugins are loaded.
    """
    scratch = Report(report.origin, SettingsRegistry({}))
    raw = configuration.document.value
    values = {str(key): copied(value) for key, value in raw.items()} if is_configuration(raw, scratch) else {}
    apply_flags(values, flags, scratch)
    apply_overrides(values, overrides, scratch)
    written = values.get("plugins")
    section = build(PluginsSettings, {} if written is None else written, PLUGINS, report, {"settings": {}})
    if section is None or report.failed:
        raise error_from(SettingsError, [*configuration.document.findings, *report.findings])
    checkpoint = values.get("checkpoint_settings") or {}
    run = build(CheckpointSettings, checkpoint, ("checkpoint_settings",), scratch)
    return section, [] if run is None else [Path(run.write_path).absolute()]


def _refuse_relative(section: PluginsSettings, paths: Iterable[KeyPath], report: Report) -> None:
    for path in paths:
        text = section.load[int(path[-1])]
        if is_file(text) and not Path(text).is_absolute() and not report.origin.is_option(path):
            report.add(
                path,
                "a run stores absolute paths, and its folder may come from somebody else, so this one is not followed; "
                f"name the file by -p, or leave it out by -p no:{name_of(text)}",
                found=text,
            )
    if report.failed:
        raise error_from(SettingsError, report.findings)


def _warn_of_unknown(found: NamedPlugins, section: PluginsSettings, block: Sequence[str], report: Report) -> None:
    if not block:
        return
    known = {candidate.origin.name for candidate in found.find()[0]}
    for text in block:
        if name_of(text) not in known and (guess := nearest(text, known)):
            path = (*PLUGINS, "block", section.block.index(text))
            report.add(path, "blocks nothing that is installed", severity="warning", found=text, nearest=guess)
