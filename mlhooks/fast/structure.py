"""The structure of modules: everything that decides how torch computes them but the numbers in their parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard, TypeVar

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from mlhooks.fast.switch import native

KERNELS: Any = native("structure")
COMPUTING = ("__call__", "forward", "outputs", "unroll", "linear_heads", "_in_torch", "combine")
"""Methods by which networks compute."""
OF_ALL_MODULES = frozenset(vars(nn.Module()))
"""Attributes of torch's own, of which those that matter are compared by themselves."""
Kind = TypeVar("Kind", bound=nn.Module)


class Structure:
    """The parts of modules, as they were when this was made: submodules, parameters, and the code that computes them.

    Args:
        modules: all modules whose parts are compared.
        called: those that are called: on none of them a hook may wait, and none may get a `forward` of its own.
        deciding: those whose attributes decide what is computed.
        parameters: parameters that must stay where they are in memory.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        called: Iterable[nn.Module],
        deciding: Iterable[nn.Module],
        parameters: Iterable[Tensor],
    ) -> None:
        modules, called = list(dict.fromkeys(modules)), list(dict.fromkeys(called))
        self._parts = (
            [(module, type(module)) for module in modules],
            # A module with nothing inside computes something else only by other parameters, `forward` or class.
            [(module._modules, [*module._modules.values()]) for module in modules if module._modules],
            [hooks for module in called for hooks in hooks_of(module)],
            [
                *((module._parameters, name, p) for module in modules for name, p in module._parameters.items()),
                *((vars(module), "forward", None) for module in called),
                *((vars(m), n, vars(m).get(n)) for m in deciding for n in {*vars(m), *COMPUTING} - OF_ALL_MODULES),
            ],
            [(parameter, parameter.data_ptr()) for parameter in parameters],
        )

    @property
    def is_same(self) -> bool:
        """Whether all parts are what they were, and no hook waits; the values of parameters may have changed."""
        return not _has_any_global_hook() and KERNELS.is_same(*self._parts)


def has_hooks(module: nn.Module) -> bool:
    """Return whether something waits for a module to be called, or for gradients to pass it."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def hooks_of(module: nn.Module) -> tuple[Any, ...]:
    """Return what a module has of each kind of hooks."""
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def may_do_more(module: nn.Module) -> bool:
    """Return whether a call of the module may do more than its class: it has hooks, or a `forward` of its own."""
    return has_hooks(module) or "forward" in vars(module)


def computes_as(network: nn.Module, kind: type[Kind]) -> TypeGuard[Kind]:
    """Return whether a call of the network computes what this class says: nothing is overridden, and nobody listens."""
    if not isinstance(network, kind) or may_do_more(network):
        return False
    own = type(network)
    return own is kind or all(getattr(own, name, None) is getattr(kind, name, None) for name in COMPUTING)


def has_gradient_hooks(parameter: Tensor) -> bool:
    """Return whether something waits for the gradient of a parameter."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)
