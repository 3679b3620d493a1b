"""The pytest plugin: `pytest --mlhooks-plugin TARGET`, and fixtures for the tests of plugins.

pytest imports this module wherever mlhooks is installed, so it imports nothing that takes time until it is used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv, BehaviorSpec

    from mlhooks.plugins import PluginManager
    from mlhooks.testing.recorder import StatsRecorder
    from mlhooks.testing.scripted import ScriptedEnv
    from mlhooks.training.run import Run


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("mlhooks", "conformance of mlhooks plugins")
    group.addoption(
        "--mlhooks-plugin",
        action="append",
        default=[],
        metavar="TARGET",
        help="Collect the conformance tests for a plugin: an installed plugin's name, a module, a .py file or a "
        "folder. May be given many times.",
    )
    group.addoption("--mlhooks-report", default="", help=argparse.SUPPRESS)  # `mlhooks plugins check` reads this file.
    group.addoption(
        "--mlhooks-env",
        action="append",
        default=[],
        metavar="SCHEME:NAME",
        help="An environment with which the environment kinds of a target are tried, as --env of mlhooks run takes it. "
        "By default those that the plugin lists as conformance_environments.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load the conformance tests where they are asked for."""
    if config.getoption("--mlhooks-plugin"):
        from mlhooks.testing import check_fixtures, collection

        config.pluginmanager.register(collection.Collection(config), "mlhooks-conformance")
        config.pluginmanager.register(check_fixtures, "mlhooks-check-fixtures")


@pytest.fixture
def plugin_manager() -> Callable[..., PluginManager]:
    """`plugin_manager(*plugins)`: a strict manager with the built-in plugins that write nothing, and yours.

    Keyword arguments: `strict=False` contains failures as runs do; `blocked` names plugins to leave out;
    `autoload=True` registers the plugins of installed packages.
    """

    def make(*plugins: object, **arguments: Any) -> PluginManager:
        from mlhooks.testing.managers import make_manager

        return make_manager(*plugins, **arguments)

    return make


@pytest.fixture
def run_training(tmp_path: Path) -> Callable[..., Run]:
    """`run_training(settings, *plugins, env="scripted:one_step")`: train in this test's `tmp_path` and return the run.

    `settings` are those of one behavior as in YAML, or a whole configuration. Every hook that fails fails the test,
    unless `strict=False`. `env` is what `--env` takes, a scripted environment's class, or a function that makes an
    environment. Other keyword arguments: `seed`, `behavior`, `flags` (settings by dotted key), `episodes`, `blocked`,
    `autoload`.
    """

    def run(
        settings: Mapping[str, Any],
        *plugins: object,
        env: str | Callable[[], BaseEnv] = "scripted:one_step",
        strict: bool = True,
        blocked: Collection[str] | None = None,
        autoload: bool = False,
        **arguments: Any,
    ) -> Run:
        from mlhooks.testing.managers import WRITERS, ScriptedEnvs, make_manager, train_in

        named, name = ({}, env) if isinstance(env, str) else ({"test": env}, "scripted:test")
        blocked = WRITERS if blocked is None else blocked
        manager = make_manager(ScriptedEnvs(named), *plugins, strict=strict, blocked=blocked, autoload=autoload)
        return train_in(tmp_path, manager, settings, env=name, **arguments)

    return run


@pytest.fixture
def stats_recorder() -> StatsRecorder:
    """A plugin that remembers statistics, summaries, properties, updates and checkpoints."""
    from mlhooks.testing.recorder import StatsRecorder

    return StatsRecorder()


@pytest.fixture
def make_behavior_spec() -> Callable[..., BehaviorSpec]:
    """`make_behavior_spec((3,), continuous=1, branches=(2,), goals=(1,))`: a behavior spec."""
    from mlhooks.testing import specs

    return specs.make_behavior_spec


@pytest.fixture
def scripted_environments() -> Mapping[str, type[ScriptedEnv]]:
    """The scripted environments by name; `run_training` takes one as `env="scripted:NAME"` or its class as `env`."""
    from mlhooks.testing.tasks import TASKS

    return TASKS
