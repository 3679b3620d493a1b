"""Pickle what makes environments, wherever it was defined."""

from __future__ import annotations

import sys
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from mlhooks.plugin_sources import FILES


def pickled(make_env: Any) -> bytes:
    """Pickle a factory; functions of scripts and of plugin files, which other processes cannot import, go by value."""
    files = [module for name, module in sys.modules.items() if name.startswith(f"{FILES}.")]
    for module in files:
        cloudpickle.register_pickle_by_value(module)
    try:
        data: bytes = cloudpickle.dumps(make_env)
    finally:
        for module in files:
            cloudpickle.unregister_pickle_by_value(module)
    return data
