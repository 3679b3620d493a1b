"""The plugins of a run: its configuration's and the command line's, and none that lies in the folder of a run."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlhooks.errors import MlhooksError, PluginError, PluginUnfit, SettingsError, UsageError
from mlhooks.places import shown_path
from mlhooks.plugin_sources import BUILTIN, Candidate, from_folder, is_file, name_of
from mlhooks.plugins import PluginManager, find_plugins, load_plugins
from mlhooks.settings import CheckpointSettings, Configuration, Finding, PluginsSettings, SettingsRegistry
from mlhooks.settings.findings import KeyPath, error_from, nearest
from mlhooks.settings.origin import Origin
from mlhooks.settings.overrides import apply_flags, apply_overrides
from mlhooks.settings.plugin_section import PATH, name_plugins
from mlhooks.settings.reading import copied
from mlhooks.settings.report import Report
from mlhooks.settings.resolve import is_configuration
from mlhooks.settings.sections import build
from mlhooks.training.run_files import is_run


@dataclass(frozen=True)
class NamedPlugins:
    """What a configuration and the command line together say about plugins.

    Attributes:
        configuration: with what is to be loaded and blocked in its `plugins`.
        configured: values of `-p` that stand for the configuration's part.
        names, plugins_dir: what the command line says.
        places: where the configuration names a plugin, by `configured`.
        own: folders of runs, beside those that can be told by what is in them.
    """

    configuration: Configuration
    configured: list[str]
    names: Sequence[str]
    plugins_dir: Path | None
    places: Mapping[str, Mapping[str, Any]]
    own: Sequence[Path]

    def find(self) -> tuple[list[Candidate], list[str]]:
        """As `find_plugins`."""
        return find_plugins(names=self.names, plugins_dir=self.plugins_dir, configured=self.configured)

    def load(self, *, strict: bool = False, trace: bool = False) -> PluginManager:
        """As `load_plugins`.

        Raises:
            MlhooksError: as there; with the place in the configuration where that names the culprit.
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
            hint = ""
            beside = self.configuration.folder / f"{candidate.asked}.py"
            if candidate.asked and not is_file(candidate.asked) and beside.is_file():
                hint = f"; for the file beside the configuration, write {beside.name}"
            finding = Finding(severity="error", message=f"{error}{hint}", **place)
            if isinstance(error, PluginUnfit):
                raise error_from(PluginUnfit, [finding]) from error
            if isinstance(error, UsageError):
                raise error_from(SettingsError, [finding]) from error
            raise PluginError(str(finding)) from error


def name_all_plugins(
    configuration: Configuration,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    names: Sequence[str] = (),
    plugins_dir: Path | None = None,
    stored: bool = False,
) -> NamedPlugins:
    """Put together what a configuration and the command line say about plugins; nothing is imported.

    The command line wins: what it names is loaded from where it says and though the configuration blocks it, and what
    it blocks is not loaded.

    Args:
        configuration: of the run.
        flags: settings by dotted key, as `load_run_options` takes them.
        overrides: `KEY.PATH=VALUE` texts.
        names: values of `-p`.
        plugins_dir: a folder whose .py files are plugins.
        stored: whether the configuration is a run's own, in its folder, which nobody named.

    Raises:
        SettingsError: the section `plugins` is not valid.
        UsageError: there is no folder `plugins_dir`.
    """
    said: dict[str, bool] = {}
    asked: dict[str, str] = {}
    for text in names:
        name = name_of(text.removeprefix("no:"))
        said[name] = not text.startswith("no:")
        asked[name] = os.path.abspath(text) if is_file(text) else name  # noqa: PTH100 - a link stays one
    in_folder = {name_of(file.asked): file.asked for file in ([] if plugins_dir is None else from_folder(plugins_dir))}

    report = Report(Origin(configuration.file, configuration.document), SettingsRegistry({}))
    section, own = _written(configuration, flags or {}, overrides, report)
    absolute = name_plugins(section, configuration.folder, report).load
    kept = {
        text: (*PATH, "load", index)
        for index, text in enumerate(absolute)
        if name_of(text) not in said and name_of(text) not in in_folder
    }
    if stored:
        own = [*own, configuration.folder]
        _refuse_relative(section, kept.values(), report)
    block = [text for text in section.block if name_of(text) not in said]
    blocked = {name_of(text) for text in block} | {name for name, load in said.items() if not load}
    named = [asked[name] for name, load in said.items() if load]
    both = PluginsSettings.model_construct(
        load=[*kept, *named, *(path for name, path in in_folder.items() if name not in blocked | said.keys())],
        block=[*block, *(name for name, load in said.items() if not load)],
    )
    found = NamedPlugins(
        replace(configuration, plugins=both if both.load or both.block else None),
        [*kept, *(f"no:{text}" for text in block)],
        names,
        plugins_dir,
        {text: report.origin.place(path) for text, path in kept.items()},
        own,
    )
    _warn_of_unknown(found, section, block, report)
    return replace(found, configuration=replace(found.configuration, findings=tuple(report.findings)))


def _written(
    configuration: Configuration, flags: Mapping[str, Any], overrides: Sequence[str], report: Report
) -> tuple[PluginsSettings, list[Path]]:
    """Return what is written about plugins, and the folder of the run if that can be told.

    All else is checked later, with the plugins.
    """
    scratch = Report(report.origin, SettingsRegistry({}))
    raw = configuration.document.value
    values = {str(key): copied(value) for key, value in raw.items()} if is_configuration(raw, scratch) else {}
    apply_flags(values, flags, scratch)
    apply_overrides(values, overrides, scratch)
    written = values.get("plugins")
    section = build(PluginsSettings, {} if written is None else written, PATH, report, {"settings": {}})
    if section is None or report.failed:
        raise error_from(SettingsError, [*configuration.document.findings, *report.findings])
    checkpoint = values.get("checkpoint_settings") or {}
    run = build(CheckpointSettings, checkpoint, ("checkpoint_settings",), scratch)
    return section, [] if run is None else [Path(run.write_path)]


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


def _warn_of_unknown(found: NamedPlugins, section: PluginsSettings, block: Iterable[str], report: Report) -> None:
    known = {candidate.origin.name for candidate in found.find()[0]}
    for text in block:
        if name_of(text) not in known and (guess := nearest(text, known)):
            path = (*PATH, "block", section.block.index(text))
            report.add(path, "blocks nothing that is installed", severity="warning", found=text, nearest=guess)


def refuse_in_run(candidate: Candidate, own: Sequence[Path]) -> None:
    """Refuse a plugin that lies in the folder of a run, before it is imported; one of mlhooks' own lies elsewhere.

    Such a folder may come from somebody else, and nothing in it is executed. A file lies where its path says and also
    where the links on it lead.

    Args:
        candidate: the plugin.
        own: folders that count as runs', whatever is in them.

    Raises:
        UsageError: it lies there.
    """
    for path in _files(candidate) if candidate.origin.source != BUILTIN else ():
        for place in (os.path.abspath(path), os.path.realpath(path)):  # noqa: PTH100
            for folder in Path(place).parents:
                if is_run(folder) or any(_is_same(folder, other) for other in own):
                    raise UsageError(
                        f"{candidate.origin} lies in {shown_path(folder)}, the folder of a run. Such a folder may come "
                        "from somebody else, so nothing in it is imported: move the file elsewhere and name it there, "
                        f"or run without it: -p no:{candidate.origin.name}"
                    )


def _files(candidate: Candidate) -> Iterator[str]:
    """Yield where a plugin would be imported from; of a module first its packages, which finding it imports."""
    if not candidate.module:
        yield candidate.asked
        return
    parts = candidate.module.split(".")
    for count in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:count]))
        except KeyboardInterrupt:
            raise
        except BaseException:  # what is wrong with it is said when it is imported
            return
        if spec is None:
            return
        yield from [spec.origin] if spec.has_location and spec.origin else []
        yield from spec.submodule_search_locations or ()


def _is_same(folder: Path, other: Path) -> bool:
    try:
        return folder.samefile(other)
    except OSError:  # one of them is not there
        return False
