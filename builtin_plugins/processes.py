"""Environments in processes of their own, where there are several."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlhooks.describing import named
from mlhooks.plugin import PluginError, hookimpl

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv

    from mlhooks.plugin import EnvManager, RunOptions


@hookimpl(trylast=True)
def create_env_manager(options: RunOptions, make_env: Callable[[int], BaseEnv]) -> EnvManager | None:
    """Run several workers in a process each.

    Raises:
        PluginError: the environment's factory cannot be sent to another process.
    """
    settings = options.env_settings
    if settings.num_envs == 1:
        return None
    # Here, so that who runs one environment does not wait for multiprocessing.
    from mlhooks.envs.pickling import pickled
    from mlhooks.envs.processes import ProcessManager
    from mlhooks.envs.restarts import RestartPolicy
    from mlhooks.envs.worker import Recipe

    try:
        factory = pickled(make_env)
    except Exception as error:
        raise PluginError(
            f"The environment cannot be sent to worker processes: {named(error)}. Run without "
            "--num-envs, or in one process by -p no:processes."
        ) from error
    level = logging.getLogger("mlhooks").getEffectiveLevel()
    recipes = [Recipe(factory, index, settings.seed, level) for index in range(settings.num_envs)]
    return ProcessManager(recipes, timeout=settings.timeout_wait, restarts=RestartPolicy.from_settings(settings))
