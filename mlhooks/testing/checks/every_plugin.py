"""Checks of every plugin: a quiet import, hooks that fit, and nothing left behind."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlhooks.containment import OFFERING
from mlhooks.errors import MlhooksError
from mlhooks.plugin_sources import nearest
from mlhooks.plugins import PluginManager
from mlhooks.testing.assertions import demand, fail
from mlhooks.testing.collection import ENVIRONMENT, names_of_tests
from mlhooks.testing.managers import ScriptedEnvs, offered, train_in
from mlhooks.testing.process_state import changes, process_state
from mlhooks.testing.short_runs import PPO, STEPS, short_run
from mlhooks.testing.side_effects import Belongings, import_changes
from mlhooks.testing.target import Target
from mlhooks.testing.trainer_obstacles import READ_OF_PLUGINS, READ_OF_TRAINERS, classes_of, misspelt
from mlhooks.testing.unmarked_hooks import unmarked

IMPORT_CHANGES: pytest.StashKey[dict[str, dict[str, list[str]]]] = pytest.StashKey()


def test_it_imports(mlhooks_target: Target) -> None:
    """The plugin imports, and is a module or an object with hook implementations."""
    try:
        plugin = mlhooks_target.plugin
    except Exception as error:
        fail(f"{error}")
    demand(plugin is not None, "The import gave None: the entry point must name a module or an object.")


@pytest.mark.parametrize("aspect", ["torch", "random states", "warnings", "signals", "logging", "process"])
def test_import_has_no_side_effects(mlhooks_target: Target, aspect: str, request: pytest.FixtureRequest) -> None:
    """Importing the plugin leaves torch's settings, random states, warnings filters, signals and logging alone."""
    found = _import_changes(mlhooks_target, request.config)[aspect]
    demand(
        not found,
        f"Importing the plugin changes the process ({aspect}): {'; '.join(found)}. Do that in `configure` or where it "
        "is needed, and undo it in `run_finished`: an import must not touch what belongs to others.",
    )


def test_hooks_fit_their_specifications(mlhooks_target: Target) -> None:
    """Every hook exists under its name and takes arguments that the hook has."""
    manager = PluginManager(strict=True)
    try:
        manager.add(mlhooks_target.candidate)
        manager.check_pending()
    except MlhooksError as error:
        fail(f"{error}")
    demand(manager.has_plugin(mlhooks_target.name), "The plugin was not registered.")


def test_offers_are_what_hooks_must_return(mlhooks_target: Target) -> None:
    """Trainer types, environment kinds, reward signals and settings are what a run takes from their hooks."""
    manager = PluginManager(strict=True)
    manager.register(mlhooks_target.plugin, mlhooks_target.name, origin=mlhooks_target.candidate.origin)
    try:
        _offers(manager)
    except MlhooksError as error:
        fail(f"{error}")


def test_settings_have_defaults(mlhooks_target: Target) -> None:
    """A configuration that says nothing about the plugin's own settings is valid."""
    for name, model in offered(mlhooks_target.plugin, "get_plugin_settings").items():
        try:
            model()
        except ValueError as error:
            fail(f"The settings {name!r} are not valid without a configuration: {error}")


def test_hooks_are_marked(mlhooks_target: Target) -> None:
    """No function that has a hook's name lacks the mark `@hookimpl`, without which it is never called."""
    found = unmarked(mlhooks_target.plugin)
    demand(
        not found,
        f"{', '.join(found)}: mlhooks never calls a function without the mark. Add @hookimpl (from mlhooks import "
        "hookimpl), or choose another name for what is no hook.",
    )


def test_attributes_are_spelt_right(mlhooks_target: Target) -> None:
    """No attribute of the plugin or of its trainer classes has nearly the name of one that mlhooks reads."""
    plugin = mlhooks_target.plugin
    slips = [f"{wrong} (did you mean {right}?)" for wrong, right in misspelt(plugin, READ_OF_PLUGINS).items()]
    for kind in offered(plugin, "get_trainer_types").values():
        for each in classes_of(kind) if isinstance(kind, type) else []:
            found = misspelt(each, READ_OF_TRAINERS).items()
            slips += [f"{each.__name__}.{wrong} (did you mean {right}?)" for wrong, right in found]
    demand(not slips, f"mlhooks reads no attribute of this name: {', '.join(dict.fromkeys(slips))}.")


def test_exemptions_name_tests(mlhooks_target: Target) -> None:
    """`conformance_exempt` maps names of tests to reasons."""
    plugin, known = mlhooks_target.plugin, names_of_tests()
    for owner in (plugin, *offered(plugin, "get_trainer_types").values()):
        exempt = getattr(owner, "conformance_exempt", {})
        where = f"conformance_exempt of {getattr(owner, '__name__', owner)}"
        demand(isinstance(exempt, Mapping), f"{where} must be a mapping from names of tests to reasons.")
        for name, reason in exempt.items():
            guess = nearest(str(name), known) or "."
            demand(name in known, f"{where} names {name!r}, which is no conformance test{guess}")
            demand(reason and isinstance(reason, str), f"{where} needs a reason for {name}: a text that says why.")


def test_registers_in_two_managers(mlhooks_target: Target, scratch: Path) -> None:
    """Two managers of one process each have the plugin, and runs in both succeed."""
    first, second = (mlhooks_target.manager(ScriptedEnvs()) for _ in range(2))
    offers = [_offers(manager) for manager in (first, second)]
    demand(offers[0] == offers[1], f"The plugin offers other things to a second manager: {offers[0]} and {offers[1]}.")
    for name, manager in (("first", first), ("second", second)):
        short_run(mlhooks_target, scratch / name, manager)


def test_survives_blocking(mlhooks_target: Target, scratch: Path) -> None:
    """Blocked, the plugin gets no call at all, and runs go on without it."""
    manager = PluginManager(strict=True, blocked=[mlhooks_target.name])
    manager.add(mlhooks_target.candidate)
    called = [name for name in vars(manager.hook) if manager.implemented(name)]
    demand(not called, f"Blocked by -p no:{mlhooks_target.name}, the plugin still implements {', '.join(called)}.")
    taken = mlhooks_target.manager(ScriptedEnvs())
    taken.set_blocked(mlhooks_target.name)
    demand(not taken.is_registered(mlhooks_target.plugin), "The plugin stays registered after it was blocked.")
    needed = {"get_trainer_types": "ppo", "get_reward_signals": "extrinsic"}
    other_manager = not mlhooks_target.implements("create_env_manager")
    if other_manager and all(taken.collect_mapping(h).get(n) for h, n in needed.items()):
        train_in(scratch, taken, {**PPO, "max_steps": STEPS})


def test_no_hook_raises_in_a_run(mlhooks_target: Target, scratch: Path) -> None:
    """A run with updates, summaries and checkpoints, a resumed one and an inference run call no hook that raises."""
    short_run(mlhooks_target, scratch)
    short_run(mlhooks_target, scratch, max_steps=2 * STEPS, flags={"checkpoint_settings.resume": True})
    short_run(mlhooks_target, scratch, flags={"checkpoint_settings.inference": True}, episodes=4)


@pytest.mark.parametrize("what", ["threads", "processes", "files", "sockets"])
def test_run_leaves_nothing_behind(mlhooks_target: Target, scratch: Path, what: str) -> None:
    """After a run there are no more threads, processes, open files or sockets than before it."""
    short_run(mlhooks_target, scratch / "warm")
    gc.collect()
    before = Belongings()
    kept = short_run(mlhooks_target, scratch / "run")  # What only the manager's end would close is open still.
    left = Belongings().more_than(before)[what]
    demand(not left, f"A run leaves {what} behind: {', '.join(left)}. Close them in `run_finished`.")
    del kept


def test_run_leaves_no_temporary_files(mlhooks_target: Target, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run puts into the folder for temporary files is gone when it ends."""
    folder = scratch / "temporary"
    folder.mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    short_run(mlhooks_target, scratch / "run")
    left = sorted(path.name for path in folder.rglob("*"))
    demand(not left, f"A run leaves temporary files behind: {', '.join(left)}. Delete them in `run_finished`.")


def test_run_leaves_the_process_as_it_was(mlhooks_target: Target, scratch: Path) -> None:
    """A run changes no global setting of torch, no warnings filter, signal handler, logger or environment variable."""
    short_run(mlhooks_target, scratch / "warm")
    before = process_state(generators=False)
    short_run(mlhooks_target, scratch / "run")
    found = [text for texts in changes(before, process_state(generators=False)).values() for text in texts]
    demand(not found, f"A run leaves the process changed: {'; '.join(found)}. Undo it in `run_finished`.")


def test_run_does_not_reset_the_global_seeds(mlhooks_target: Target, scratch: Path) -> None:
    """Runs with different seeds end with different states of the global generators: nothing reseeded them."""
    states = []
    for seed in (1, 2):
        short_run(mlhooks_target, scratch / str(seed), seed=seed)
        states.append(process_state()["random states"])
    same = sorted(name for name in states[0] if states[0][name] == states[1][name])
    demand(
        not same,
        f"After runs with the seeds 1 and 2 the global generator of {', '.join(same)} is in the same state, so "
        "something in the plugin seeds it. Use the trainer's `rng`, or a generator of your own.",
    )


def _offers(manager: PluginManager) -> dict[str, list[str]]:
    return {hook: sorted(manager.collect_mapping(hook)) for hook in OFFERING}


def _import_changes(target: Target, config: pytest.Config) -> dict[str, list[str]]:
    found = config.stash.setdefault(IMPORT_CHANGES, {})
    if target.name not in found:
        try:
            found[target.name] = import_changes(target, config.stash[ENVIRONMENT])
        except RuntimeError as error:
            fail(f"The plugin does not import in a fresh process: {error}")
    return found[target.name]
