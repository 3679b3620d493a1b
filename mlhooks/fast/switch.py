"""The switch between this package and plain torch and numpy, and the functions that it chooses between."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar, cast

VARIABLE = "MLHOOKS_PLAIN"
"""The environment variable that switches this package off for a whole process, and for those that it starts."""
Function = TypeVar("Function", bound=Callable[..., Any])


class _Switch:
    """The switch that says whether plain torch and numpy are wanted now, and by how many blocks."""

    blocks = 0
    lock = threading.Lock()
    plain = always = os.environ.get(VARIABLE, "").strip().lower() not in {"", "0", "false", "no", "off"}


_switch = _Switch()


def is_plain() -> bool:
    """Return whether everything is computed in plain torch and numpy now."""
    return _switch.plain


@contextmanager
def plain(wanted: bool = True) -> Iterator[None]:
    """Compute everything in plain torch and numpy, in all threads of this process, until the end of the block.

    Args:
        wanted: False changes nothing, so that a setting can be handed on.
    """
    _change(wanted)  # It counts, because blocks of several threads end in any order.
    try:
        yield
    finally:
        _change(-wanted)


def _change(blocks: int) -> None:
    with _switch.lock:
        _switch.blocks += blocks
        _switch.plain = _switch.always or _switch.blocks > 0


def native(name: str) -> ModuleType | None:
    """Return a module of the native extension, or None where mlhooks was installed without a C compiler."""
    try:
        return import_module(f"mlhooks.fast.native.{name}")
    except ImportError:
        return None


def kernel(module: str, name: str = "") -> Callable[[Function], Function]:
    """Replace a function or method by its native twin, where there is one and the switch allows it.

    The native function gets the same arguments, all by position. For arguments that it does not support it returns
    NotImplemented before it changes anything, and the plain function is called instead.

    Args:
        module: the module of the native extension.
        name: the native function's name; by default that of the plain one.
    """

    def replace(function: Function) -> Function:
        twin, choice = getattr(native(module), name or function.__name__, None), native("switch")
        if twin is None or choice is None:
            return function
        return cast("Function", wraps(function)(choice.chooser(twin, function, _switch)))

    return replace
