"""A tape for learning: the loss stays plain torch, and small networks below it compute in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Token
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.nn.mirror import LARGE, Mirror
from mlhooks.nn.recorded import Record, Recorded


class GradientTape(Record):
    """While it is entered, networks made of plain layers run as mirrors, and what they return is `Recorded`.

    So a loss is written in plain torch, and `backward` gets its gradients as `loss.backward()` would. The networks must
    have no inputs that need gradients themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mirrors: dict[tuple[nn.Module, ...], Mirror | None] = {}
        self._token: Token[Record | None] | None = None
        self._ignored: np.errstate | None = None
        self._encodings: dict[tuple[nn.Module, bool], tuple[Tensor, Tensor]] = {}

    def __enter__(self) -> GradientTape:
        self.steps = []
        self._token = self.entered.set(self)
        self._ignored = np.errstate(all="ignore")  # what is not finite is found and named before the step
        self._ignored.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        assert self._token is not None
        assert self._ignored is not None
        self._ignored.__exit__(*exception)
        self.entered.reset(self._token)
        self._encodings = {}

    def backward(self, loss: Tensor | Recorded) -> None:
        """Add the gradients of the loss to all parameters' `.grad`, which must exist."""
        with np.errstate(all="ignore"):
            loss.backward()
            for hand_on in reversed(self.steps):
                hand_on()
        self.steps = []

    @classmethod
    def outputs(cls, encoder: nn.Module, heads: Sequence[nn.Linear], features: Tensor) -> list[Tensor]:
        """Each head's output on the encoder's for features [rows, size]: by the tape that is entered, or by torch."""
        tape = cls.entered.get()
        if not isinstance(tape, GradientTape):
            return _outputs(heads, encoder(features))
        mirror = tape._mirror(encoder, heads, features)
        if mirror is None:
            return _outputs(heads, tape._encoding(encoder, features))
        if not torch.is_grad_enabled():
            return [torch.from_numpy(output) for output in mirror(features.numpy())]
        arrays, passed, encoding = mirror.record(features.numpy())
        outputs = [Recorded(array) for array in arrays]
        tape.steps.append(lambda: mirror.backward(passed, encoding, [output.received() for output in outputs]))
        return cast("list[Tensor]", outputs)

    @classmethod
    def parameter(cls, parameter: nn.Parameter, beside: Tensor) -> Tensor:
        """A parameter as what goes with an output of a network, in the tape that is entered or in torch."""
        tape = cls.active()
        if tape is None or not isinstance(beside, Recorded):
            return parameter
        recorded = Recorded(parameter.detach().numpy())

        def hand_on() -> None:
            gradient = recorded.received()
            if gradient is not None and parameter.grad is not None:
                parameter.grad += torch.from_numpy(gradient)

        tape.steps.append(hand_on)
        return cast("Tensor", recorded)

    def _encoding(self, encoder: nn.Module, features: Tensor) -> Tensor:
        """What torch makes of the features; once where actor and critic share an encoder."""
        key = encoder, torch.is_grad_enabled()
        read, encoding = self._encodings.get(key, (None, None))
        if read is not features or encoding is None:
            encoding = encoder(features)
            self._encodings[key] = features, encoding
        return encoding

    def _mirror(self, encoder: nn.Module, heads: Sequence[nn.Linear], features: Tensor) -> Mirror | None:
        key = (encoder, *heads)
        mirror = self._mirrors.get(key)
        if key not in self._mirrors or (mirror is not None and not mirror.is_current):
            mirror = self._mirrors[key] = Mirror(encoder, heads) if Mirror.supports(encoder) else None
        if mirror is None or features.requires_grad or len(features) * len(mirror.heads[0].weight) > LARGE:
            return None
        return mirror


def _outputs(heads: Sequence[nn.Linear], encoding: Tensor) -> list[Tensor]:
    return [head(encoding) for head in heads]
