"""A backup of a policy that an exporter gets, from which it is restored, so that training goes on with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mlhooks.training.policy import Policy

NAMED = 3
"""The number of parameters that are named."""


class PolicyBackup:
    """The policy of a trainer as it is now, to be restored later.

    Modes that exporters set, such as that of evaluation, `requires_grad` and torch's own, are restored without a word.

    Args:
        trainer: the trainer.
    """

    def __init__(self, trainer: Any) -> None:
        policy: Policy = trainer.policy
        self._policy, modules = policy, policy.modules()
        self._own = {k: v for k, v in vars(policy).items() if k == "deterministic" or isinstance(v, nn.Module)}
        self._tensors: list[tuple[str, Tensor, Tensor, Tensor, bool]] = []
        for name, module in modules.items():
            for inner, tensor in (*module.named_parameters(), *module.named_buffers()):
                if tensor.is_floating_point():
                    kept = f"{name}.{inner}", tensor, tensor.data, tensor.detach().clone(), tensor.requires_grad
                    self._tensors.append(kept)
        grads = ((tensor, tensor.grad) for _, tensor, *_ in self._tensors if isinstance(tensor, nn.Parameter))
        self._grads = [(tensor, grad, None if grad is None else grad.data) for tensor, grad in grads]
        """Gradients, whose memory the torch optimizer may have in one piece."""
        inside = [
            (f"{name}.{path}", inner) for name, module in modules.items() for path, inner in module.named_modules()
        ]
        self._parts = [
            (name.rstrip("."), parts, dict(parts))
            for name, inner in inside
            for parts in (inner._modules, inner._parameters, inner._buffers)
        ]
        self._training = [(inner, inner.training) for _, inner in inside]
        self._torch = torch.is_grad_enabled(), torch.get_default_dtype()

    def restore(self) -> str:
        """Make the policy what it was, and return which of its weights and networks had been changed, if any."""
        changed: list[str] = []
        torch.set_grad_enabled(self._torch[0])
        torch.set_default_dtype(self._torch[1])
        for attribute, value in self._own.items():
            if getattr(self._policy, attribute, None) is not value:
                setattr(self._policy, attribute, value)
                changed += [attribute] if isinstance(value, nn.Module) else []
        for name, parts, before in self._parts:
            if parts.keys() != before.keys() or any(parts[key] is not part for key, part in before.items()):
                changed.append(name)
                parts.clear()
                parts.update(before)
        for inner, training in self._training:
            inner.training = training
        for name, tensor, memory, values, learns in self._tensors:
            if tensor.dtype != values.dtype or tensor.device != values.device or not _equal(tensor, values):
                changed.append(name)
                tensor.data = memory
                memory.copy_(values)
            if tensor.requires_grad != learns:
                tensor.requires_grad_(learns)
        for tensor, grad, data in self._grads:
            tensor.grad = None  # A gradient must have the type of its tensor at any moment.
            if grad is not None and data is not None:
                grad.data = data
                tensor.grad = grad
        if changed:
            self._policy.weights_changed()
        return ", ".join(changed[:NAMED]) + (f" and {len(changed) - NAMED} more" if len(changed) > NAMED else "")


def _equal(tensor: Tensor, before: Tensor) -> bool:
    return tensor.shape == before.shape and torch.allclose(tensor, before, 0.0, 0.0, equal_nan=True)
