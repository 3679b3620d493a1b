"""Plugin managers and runs for tests: quiet, strict, and with scripted environments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlhooks import hookimpl, plugin_sources
from mlhooks.errors import MlhooksError
from mlhooks.plugins import PluginManager

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv

    from mlhooks.settings import RunOptions
    from mlhooks.training.run import Run

WRITERS = ("console", "tensorboard", "jsonl", "curve", "onnx_export")
"""The built-in plugins that write; tests are quiet and quick unless they ask for them."""
SCHEME = "scripted"


class ScriptedEnvs:
    """Offers the scripted environments as `scripted:NAME`.

    Args:
        more: other environments by name, each a function without arguments or with `agents` and `seed`.
    """

    def __init__(self, more: Mapping[str, Callable[..., BaseEnv]] | None = None) -> None:
        self.more = dict(more or {})

    @hookimpl
    def get_env_types(self) -> Mapping[str, Callable[..., BaseEnv]]:
        """Return the scheme `scripted`."""
        return {SCHEME: self._make}

    def _make(self, name: str, *, worker_id: int, seed: int, options: RunOptions, **_: Any) -> BaseEnv:
        if name in self.more:
            return self.more[name]()
        from mlhooks.testing.tasks import TASKS

        return TASKS[name](seed=seed + worker_id, **(options.env_settings.env_kwargs or {}))


def make_manager(
    *plugins: object, strict: bool = True, blocked: Collection[str] = WRITERS, autoload: bool = False
) -> PluginManager:
    """Return a manager with the built-in plugins that are not blocked, and `plugins`.

    Args:
        plugins: modules or objects to register, as far as they are not there already.
        strict: whether the failure of an observer is raised.
        blocked: names of plugins to leave out.
        autoload: whether the plugins of installed packages are registered, too.
    """
    manager = PluginManager(strict=strict, blocked=blocked)
    installed = plugin_sources.from_entry_points() if autoload else []
    for candidate in [*plugin_sources.builtins(), *installed]:
        manager.add(candidate)
    for plugin in plugins:
        if not manager.is_registered(plugin):
            manager.register(plugin)
    manager.check_pending()
    return manager


def load_options(manager: PluginManager, config: Mapping[str, Any], flags: Mapping[str, Any]) -> RunOptions:
    """Resolve the options of a configuration, and refuse what a run would refuse."""
    from mlhooks.settings import SettingsRegistry, load_run_options
    from mlhooks.settings.support import refuse_unsupported

    registry = SettingsRegistry.from_plugins(manager)
    loaded = load_run_options(config, registry, flags=flags)
    refuse_unsupported(loaded, registry)
    return loaded.options


def as_config(settings: Mapping[str, Any], behavior: str) -> Mapping[str, Any]:
    """Return a configuration, made from the settings of one behavior where it is not one already."""
    return settings if "behaviors" in settings else {"behaviors": {behavior: dict(settings)}}


def train_in(
    folder: Path,
    manager: PluginManager,
    settings: Mapping[str, Any],
    *,
    env: str = f"{SCHEME}:one_step",
    seed: int = 1,
    behavior: str = "Scripted",
    flags: Mapping[str, Any] | None = None,
    episodes: int | None = None,
) -> Run:
    """Train as `mlhooks run` does, with the plugins of `manager`; the results folder is `folder`/run.

    Args:
        folder: the folder of all results.
        manager: the plugins; each manager can be used for one run.
        settings: settings of one behavior as in YAML, or a whole configuration.
        env: what `--env` names.
        seed: seed of the run.
        behavior: name of the behavior, where `settings` is of one.
        flags: more settings by dotted key, such as `{"checkpoint_settings.resume": True}`.
        episodes: with inference, how many episodes to run.
    """
    import torch

    from mlhooks.training.results_folder import check_folder, claimed_folder
    from mlhooks.training.run import Run

    given = {
        "env_settings.env_path": env,
        "env_settings.seed": seed,
        "checkpoint_settings.run_id": "run",
        "checkpoint_settings.results_dir": str(folder),
        "torch_settings.device": "cpu",
    }
    options = load_options(manager, as_config(settings, behavior), {**given, **(flags or {})})
    with claimed_folder(options) as results:
        check_folder(options, results)
        manager.configure(options)
        run = Run(options, manager, episodes=episodes, folder=results)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            run.execute()
        finally:
            torch.set_num_threads(threads)
    return run


def offered(plugin: object, hook: str) -> dict[str, Any]:
    """Return what a plugin offers in a collect hook such as `get_trainer_types`; nothing where it cannot be asked."""
    manager = PluginManager(strict=True)
    try:
        manager.register(plugin)
        return manager.collect_mapping(hook)
    except MlhooksError:
        return {}
