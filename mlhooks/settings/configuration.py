"""A configuration that was read but not resolved, because the plugins that it names must be loaded first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny

from mlhooks.finding import Finding
from mlhooks.plugin_sources import name_of
from mlhooks.settings.base import PathText, Problem, SettingsModel
from mlhooks.settings.yaml_source import Document, read_yaml


def _is_no_block(value: str) -> str:
    if value.startswith("no:"):
        raise ValueError("no: belongs to -p; what is to be kept out stands by its name alone under plugins.block")
    return value


PluginText: TypeAlias = Annotated[PathText, Field(min_length=1), AfterValidator(_is_no_block)]
"""The name of a plugin or module, or the path of a .py file."""


class BlockedSettings(BaseModel):
    """Settings of a blocked plugin, kept as they are written, because their model is not loaded."""

    model_config = ConfigDict(extra="allow")


class PluginsSettings(SettingsModel):
    """The plugins of a run beside the built-in and installed ones, and settings of plugins."""

    load: list[PluginText] = Field(
        default_factory=list, description="Plugins to load: names, modules, and .py files relative to this file."
    )
    block: list[PluginText] = Field(default_factory=list, description="Plugins to keep out, by their names.")
    settings: dict[str, SerializeAsAny[BaseModel]] = Field(
        default_factory=dict, description="Settings by the name under which a plugin offers them."
    )

    def problems(self) -> Iterator[Problem]:
        """Refuse a plugin that is both loaded and blocked."""
        loaded = {name_of(text) for text in self.load}
        for index, text in enumerate(self.block):
            if name_of(text) in loaded:
                yield Problem(("block", index), f"{text} is also under load; remove one of the two")


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
