"""mlhooks: reinforcement-learning training in which everything is a pluggy hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from mlhooks.api import export, load, train

__version__ = "0.1.0"
__all__ = ["__version__", "export", "hookimpl", "load", "train"]

hookimpl = pluggy.HookimplMarker("mlhooks")
"""Decorator that marks a function of a plugin as the implementation of the hook of the same name."""


if not TYPE_CHECKING:  # Type checkers would accept any name otherwise.

    def __getattr__(name: str) -> Any:
        # These need torch, which takes longer to import than a plugin or the command line may wait.
        if name in {"export", "load", "train"}:
            from mlhooks import api

            return getattr(api, name)
        raise AttributeError(f"module 'mlhooks' has no attribute {name!r}")
