"""Find out which code opts in to array arithmetic, in which arrays stand in for tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import nn

CONTAINERS = (nn.ModuleDict, nn.ModuleList)
"""Modules that compute nothing themselves."""


class ArrayArithmetic:
    """The base of classes whose code takes part in losses, and may opt in to array arithmetic in them.

    A subclass that overrides a method, itself or by a mixin, opts out again until it says otherwise itself: its author
    wrote for tensors.

    Attributes:
        array_arithmetic: whether arrays may stand in for tensors in its code (`docs/fast.md`).
    """

    array_arithmetic: ClassVar[bool] = False
    OUTSIDE_LOSSES: ClassVar[frozenset[str]] = frozenset()
    """Names that a subclass may override without opting out, because they take no part in a loss."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        lineage = cls.__mro__
        said = next(n for n, kind in enumerate(lineage) if "array_arithmetic" in vars(kind))
        inherited = {name for kind in lineage[said:-1] for name in vars(kind)}
        if any(_overrides(kind, inherited - cls.OUTSIDE_LOSSES) for kind in lineage[:said]):
            cls.array_arithmetic = False


def _overrides(kind: type, names: set[str]) -> bool:
    """Return whether a class defines code by one of these names: functions, properties and the like."""
    code = {name for name, value in vars(kind).items() if callable(value) or hasattr(type(value), "__get__")}
    return any(name == "__call__" or not name.startswith("__") for name in code & names)


def replaces_methods(owner: ArrayArithmetic) -> bool:
    """Return whether methods that take part in losses are replaced on this object, as by `owner.loss = mine`."""
    replaced = vars(owner).keys() - owner.OUTSIDE_LOSSES
    return any(callable(getattr(type(owner), name, None)) for name in replaced)


def opted_in(modules: Iterable[nn.Module]) -> frozenset[nn.Module]:
    """Return those of these modules, and of those inside, which are computed by code alone that opted in to arrays."""
    opted: set[nn.Module] = set()
    others: set[nn.Module] = set()
    for module in modules:
        _sort(module, True, opted, others)
    return frozenset(opted - others)


def _sort(module: nn.Module, above: bool, opted: set[nn.Module], others: set[nn.Module]) -> None:
    kind = type(module)
    (opted if above and "forward" not in vars(module) else others).add(module)
    opts_in = above and (getattr(kind, "array_arithmetic", False) or kind in CONTAINERS)
    for child in module.children():
        _sort(child, opts_in, opted, others)
