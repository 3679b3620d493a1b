"""Loading the run's plugins in other processes, in their order, before these use what plugins made.

A plugin may register more than hooks when it is imported, such as ids of Gymnasium or entries of `sys.path`. What came
with mlhooks is not loaded, and no hook is called: a worker process makes and steps an environment, and has no run.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from mlhooks.errors import MlhooksError, PluginError
from mlhooks.plugin_sources import Candidate

_HERE = uuid4().hex  # It marks this process and its forks, which have what it has loaded.


def with_plugins(plugins: Sequence[Candidate], thing: Any) -> tuple[Any, ...]:
    """Return a value for `__reduce__` that loads these plugins wherever `thing` is unpickled."""
    import cloudpickle  # type: ignore[import-untyped]  # Runs with one environment do not wait for it.

    return _load, (_HERE, tuple(plugins), cloudpickle.dumps(thing))


def _load(pickled_in: str, plugins: Sequence[Candidate], pickled: bytes) -> Any:
    for plugin in plugins if pickled_in != _HERE else ():
        try:
            plugin.load()
        except MlhooksError as error:
            raise PluginError(f"In a worker process, which loads the plugins of the run, too: {error}") from error
    return pickle.loads(pickled)
