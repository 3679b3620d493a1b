"""Find the plugins of a run: the built-in ones, those of installed packages, and those that are named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mlhooks import mlagents_plugins, plugin_sources
from mlhooks.plugin_sources import Candidate, name_of, short_name


def find_plugins(
    *,
    names: Iterable[str] = (),
    plugins_dir: Path | None = None,
    autoload: bool | None = None,
    configured: Sequence[str] = (),
) -> tuple[list[Candidate], list[str]]:
    """Return all plugins that a run would load, in their order and not yet imported, and the names that are blocked.

    Args:
        names: The values of `-p`: `NAME` or `no:NAME`, of which the last one about a name counts.
        plugins_dir: A folder whose .py files are plugins.
        autoload: Whether entry points are loaded unasked; None asks MLHOOKS_DISABLE_PLUGIN_AUTOLOAD.
        configured: As `names`, and in front of them, from a configuration.
    """
    wanted: dict[str, bool] = {}
    for text in [*configured, *names]:
        name = short_name(text.removeprefix("no:"))
        wanted.pop(name, None)
        wanted[name] = not text.startswith("no:")
    installed = [*plugin_sources.from_entry_points(), *mlagents_plugins.from_entry_points()]
    if autoload is None:
        autoload = plugin_sources.autoload_enabled()
    found = plugin_sources.builtins() + (installed if autoload else [])
    known = {candidate.origin.name for candidate in [*found, *installed]}
    for name in (name for name, load in wanted.items() if load):
        if name not in {candidate.origin.name for candidate in found}:
            named = [candidate for candidate in installed if candidate.origin.name == name]
            option = "" if name in configured else "-p"
            found += named or [plugin_sources.from_name(name, known, option)]
    if plugins_dir is not None:
        found += plugin_sources.from_folder(plugins_dir)
    return found, [name if name in known else name_of(name) for name, load in wanted.items() if not load]
