"""Stats writers written for ML-Agents, as plugins of mlhooks.

ML-Agents calls the functions under the entry-point group `mlagents.stats_writer` with the run options and gets a list
of writers. A function here becomes a plugin that does so when it is configured and registers each writer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mlhooks import hookimpl, plugin_sources
from mlhooks.mlagents_wheel import entry_points
from mlhooks.mlagents_wheel.entry_points import imported, lacks_mlagents
from mlhooks.mlagents_wheel.offers import HOW_TO_GET, PACKAGE, PREFIX
from mlhooks.plugin_sources import Candidate, Origin

if TYPE_CHECKING:
    from mlhooks.plugins import PluginManager

GROUP = "mlagents.stats_writer"
MARK = "ML-Agents'"
"""The first word of the source of plugins of ML-Agents' kind."""
logger = logging.getLogger("mlhooks")


def from_entry_points() -> list[Candidate]:
    """Return the stats writers and trainers of installed packages.

    A name that is taken gets its distribution in front.
    """
    others = plugin_sources.builtins() + plugin_sources.from_entry_points()
    taken = {candidate.origin.name: candidate.origin for candidate in others}
    found = []
    for group in (GROUP, entry_points.GROUP):
        for candidate in plugin_sources.from_entry_points(group):
            made = _candidate(candidate, group, taken)
            if made is not None:
                taken[made.origin.name] = made.origin
                found.append(made)
    return found


def _candidate(candidate: Candidate, group: str, taken: Mapping[str, Origin]) -> Candidate | None:
    origin, trainers = candidate.origin, group == entry_points.GROUP
    if origin.distribution == PACKAGE:
        # ML-Agents' own writers do what built-in plugins do.
        return entry_points.trainer_types_of(candidate, replace(origin, name=PACKAGE)) if trainers else None
    if (other := taken.get(origin.name)) is not None:
        if other.distribution == origin.distribution and not other.source.startswith(MARK):
            return None  # A package that offers a plugin of mlhooks, too, means that one.
        origin = replace(origin, name=f"{origin.distribution}.{origin.name}")
    if origin.name in taken:  # The same package's other group has it.
        origin = replace(origin, name=f"{origin.name}.trainers")
    origin = replace(origin, source=f"{MARK} {group}: {candidate.origin.source}")
    if trainers:
        return entry_points.trainer_types_of(candidate, origin)
    return replace(candidate, origin=origin, importer=partial(_load, candidate, origin))


def tell_namesakes(trainer_types: Iterable[str], plugins: PluginManager) -> None:
    """Say of each trainer type whose name a package of ML-Agents' kind claims, too, whose it is, and how to get both.

    Args:
        trainer_types: those that a configuration names.
        plugins: of the run.
    """
    claims = plugins.collect_claims("get_trainer_types")
    for name in sorted(set(trainer_types) & claims.keys()):
        (origin, _), (other, _) = claims[name], claims.get(f"{PREFIX}{name}", claims[name])
        if other not in (origin, *_own_types(plugins)):
            logger.warning(
                "trainer_type %s is that of %s. %s has one of the same name: write trainer_type: %s%s for it, or block "
                "the other by -p no:%s.",
                *(name, origin, f"{other}"[0].upper() + f"{other}"[1:], PREFIX, name, origin.name),
            )


def _own_types(plugins: PluginManager) -> list[Origin]:
    found = [plugins.origin_of(plugin) for plugin in plugins.get_plugins() if isinstance(plugin, entry_points.OwnTypes)]
    return [origin for origin in found if origin is not None]


def _load(candidate: Candidate, origin: Origin) -> object:
    try:
        function = _with_stand_ins(imported, candidate, origin)
    except ImportError as error:
        if not lacks_mlagents(error):
            raise
        return StatsWriters(origin, None)
    if not callable(function):
        raise TypeError(f"{GROUP} wants a function that takes the run options, not {function!r}")
    return StatsWriters(origin, function)


def _with_stand_ins(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what imports `mlagents`; where that is not installed, again with the little that writers need of it."""
    try:
        return function(*arguments)
    except ImportError as error:
        if not lacks_mlagents(error):
            raise
        from mlhooks.mlagents_wheel import stand_ins  # Nobody else needs this import.

        stand_ins.install()
        return function(*arguments)


class StatsWriters:
    """The plugin that one entry point makes: asks its function for writers and registers them."""

    def __init__(self, origin: Origin, function: Callable[[Any], Iterable[object]] | None) -> None:
        self.origin = origin
        self.function = function

    @property
    def is_left_out(self) -> bool:
        """Whether it needs more of `mlagents` than is there."""
        return self.function is None

    @hookimpl
    def configure(self, pluginmanager: PluginManager, options: object) -> None:
        """Register what the function returns; without `mlagents`, warn that the writers are left out."""
        try:
            writers = None if self.function is None else _with_stand_ins(self.function, options)
        except ImportError as error:
            if not lacks_mlagents(error):
                raise
            self.function = None
        if self.function is None:
            logger.warning(
                "%s is left out: it needs more of the Python package mlagents, which is not installed, than mlhooks "
                "stands in for. Training goes on without its statistics writers. To use them: %s",
                self.origin,
                HOW_TO_GET,
            )
            return
        if not isinstance(writers, Iterable) or isinstance(writers, str):
            raise TypeError(f"the function returned {writers!r}, not a list of stats writers")
        for index, writer in enumerate(writers):
            pluginmanager.register(_adapt(writer), f"{self.origin.name}[{index}]")


def _adapt(writer: Any) -> object:
    from mlhooks.mlagents_wheel import as_mlagents  # Nobody needs this import without such a writer.

    if not callable(getattr(writer, "write_stats", None)):
        raise TypeError(f"{writer!r} is no stats writer: it has no method write_stats")

    class Adapter:
        """Has the hooks that the writer has, so that a hook nobody implements stays free."""

        @hookimpl
        def write_stats(self, category: str, values: Any, step: int) -> None:
            writer.write_stats(category, as_mlagents.summaries(values), step)

        if as_mlagents.overrides(writer, "on_add_stat"):

            @hookimpl
            def on_add_stat(self, category: str, key: str, value: float, aggregation: Any) -> None:
                writer.on_add_stat(category, key, value, as_mlagents.method(aggregation))

        if as_mlagents.overrides(writer, "add_property"):

            @hookimpl
            def add_property(self, category: str, property_type: Any, value: Any) -> None:
                writer.add_property(category, as_mlagents.property_type(property_type), value)

    return Adapter()
