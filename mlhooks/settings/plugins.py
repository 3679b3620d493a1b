"""The section `plugins`: which plugins a configuration names, and the settings of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny

from mlhooks.plugin_sources import name_of
from mlhooks.settings.base import Problem, SettingsModel
from mlhooks.settings.paths import PathText


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
