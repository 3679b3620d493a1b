"""Check that the plugins of a run load and go together."""

from __future__ import annotations

from collections.abc import Iterator

from mlhooks.doctor.check import Check, Questions
from mlhooks.plugin_sources import BUILTIN


def checks(questions: Questions) -> Iterator[Check]:
    """Check the plugins that a run would load."""
    from mlhooks.containment import OFFERING
    from mlhooks.errors import MlhooksError
    from mlhooks.mlagents_wheel.offers import HOW_TO_GET
    from mlhooks.plugins import PluginManager, find_plugins, load_plugins
    from mlhooks.training.untrusted import around_import, refuse_in_run

    names, folder = questions.plugin_names, questions.plugins_dir
    try:
        candidates, blocked = find_plugins(names=names, plugins_dir=folder)
    except MlhooksError as error:
        yield Check("plugins", "problem", str(error))
        return
    failed = False
    for candidate in candidates:
        alone = PluginManager(blocked=blocked)
        try:
            if not alone.is_blocked(candidate.origin.name):
                refuse_in_run(candidate, ())
            alone.add(candidate)
        except MlhooksError as error:
            failed = True
            yield Check(f"plugin {candidate.origin.name}", "problem", str(error))
            continue
        plugin = alone.get_plugin(candidate.origin.name)
        if getattr(plugin, "is_left_out", False):
            text = "It needs the Python package mlagents, which is not installed, and is left out"
            advice = f"Block it by -p no:{candidate.origin.name}, or: {HOW_TO_GET}"
            yield Check(f"plugin {candidate.origin.name}", "warning", text, advice)
    if failed:
        return
    try:
        together = load_plugins(names=names, plugins_dir=folder, around=around_import)
        for hook in OFFERING:
            together.collect_mapping(hook)
    except MlhooksError as error:
        yield Check("plugins", "problem", str(error))
    else:
        loaded = [row for row in together.describe() if not row.blocked]
        others = [row.name for row in loaded if row.source != BUILTIN]
        text = f"all {len(loaded)} load" + (f"; not built in: {', '.join(others)}" if others else "")
        yield Check("plugins", "ok", text)
