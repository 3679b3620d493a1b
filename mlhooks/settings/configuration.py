"""A configuration that was read but not resolved, because the plugins that it names must be loaded first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mlhooks.finding import Finding
from mlhooks.settings.plugins import PluginsSettings
from mlhooks.settings.yaml_source import Document, read_yaml

Source: TypeAlias = Path | str | Mapping[str, Any] | None


@dataclass(frozen=True)
class Configuration:
    """The content of a file or a mapping; a file is read only once, because it may be a pipe.

    Attributes:
        document: the values and their places.
        file: the name of the file as the user gave it, if there is one.
        given: whether there is a configuration; a run may have none.
        folder: the folder of the file, to which relative paths of plugins belong.
        plugins: the plugins to load and block, the command line included; None before these were combined.
        findings: problems that were found so far.
    """

    document: Document
    file: str | None
    given: bool
    folder: Path
    plugins: PluginsSettings | None = None
    findings: tuple[Finding, ...] = ()


def read_configuration(source: Source | Configuration) -> Configuration:
    """Read a configuration.

    Args:
        source: a YAML file, its content as a mapping, or None for a run without a configuration.

    Raises:
        SettingsError: the file is missing, unreadable, or not YAML.
    """
    if isinstance(source, Configuration):
        return source
    if isinstance(source, Path | str):
        path = Path(source)
        return Configuration(read_yaml(path), str(source), True, path.absolute().parent)
    return Configuration(Document({} if source is None else source, None), None, source is not None, Path.cwd())
