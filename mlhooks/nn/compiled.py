"""The compiled part of mlhooks, `native.pyx`: None where mlhooks was installed without a C compiler.

Whatever it computes, numpy or torch compute where it is missing.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

native: ModuleType | None
try:
    native = import_module("mlhooks.nn.native")
except ImportError:
    native = None
