"""A tape for learning: the loss stays plain torch, and small networks below it compute without torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from contextvars import Token
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.nn.mirror import LARGE, Mirror, ParameterGradient
from mlhooks.nn.recorded import Record, Recorded


class _Pass(NamedTuple):
    """Features went through a mirror."""

    mirror: Mirror
    passed: Any
    outputs: list[Recorded]

    def hand_on(self) -> None:
        self.mirror.backward(self.passed, [output.received() for output in self.outputs])


class _Use(NamedTuple):
    """A parameter was used beside networks."""

    gradient: ParameterGradient
    recorded: Recorded

    def hand_on(self) -> None:
        gradient = self.recorded.received()
        sink = None if gradient is None else self.gradient.sink()
        if sink is not None:
            sink += gradient
            self.gradient.hand_on()


class GradientTape(Record):
    """While it is entered, networks made of plain layers run as mirrors, and what they return is `Recorded`.

    So a loss is written in plain torch, and `backward` gets its gradients as `loss.backward()` would. The networks must
    have no inputs that need gradients themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mirrors: dict[tuple[nn.Module, ...], Mirror | None] = {}
        self._seen: set[tuple[nn.Module, ...]] = set()  # whose mirrors are known to be current
        self._entries: list[Token[Record | None]] = []
        self._encodings: dict[tuple[nn.Module, bool], tuple[Tensor, int, Tensor]] = {}
        self._gradients: dict[nn.Parameter, ParameterGradient] = {}
        self._learns = False  # whether gradients were wanted when it was entered

    def __enter__(self) -> GradientTape:
        if not self._entries:  # else a loss asks for something that enters the tape too
            self._forget()
            self._learns = torch.is_grad_enabled()
        self._entries.append(self.entered.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        self.entered.reset(self._entries.pop())
        if not self._entries:
            self._encodings = {}

    def backward(self, loss: Tensor | Recorded) -> None:
        """Add the gradients of the loss to all parameters' `.grad`."""
        # what is not finite is found and named before the step
        with np.errstate(all="ignore") if self.in_numpy else nullcontext():
            loss.backward()
            self.hand_on()
        self._forget()

    def _forget(self) -> None:
        for step in self.steps:
            if type(step) is _Pass:
                step.mirror.release(step.passed)
        self.steps, self.views, self.in_numpy = [], {}, False

    @classmethod
    def outputs(cls, encoder: nn.Module, heads: Sequence[nn.Linear], features: Tensor) -> list[Tensor]:
        """Each head's output on the encoder's for features [rows, size]: by the tape that is entered, or by torch."""
        tape = cls.entered.get()
        if not isinstance(tape, GradientTape):
            return _outputs(heads, encoder(features))
        mirror = tape._mirror(encoder, heads)
        rows = None if mirror is None else _rows(mirror, features)
        if mirror is None or rows is None:
            return _outputs(heads, tape._encoding(encoder, features))
        if not torch.is_grad_enabled() or mirror.is_frozen:
            computed = mirror(rows)
            if not tape._learns:
                return [torch.from_numpy(output) for output in computed]
            return cast("list[Tensor]", [Recorded(output, constant=True) for output in computed])
        arrays, passed = mirror.record(rows)
        outputs = [Recorded(array) for array in arrays]
        tape.steps.append(_Pass(mirror, passed, outputs))
        tape.in_numpy |= mirror.in_numpy
        return cast("list[Tensor]", outputs)

    @classmethod
    def parameter(cls, parameter: nn.Parameter, beside: Tensor) -> Tensor:
        """A parameter as what goes with an output of a network, in the tape that is entered or in torch."""
        tape = cls.active()
        if tape is None or not isinstance(beside, Recorded):
            return parameter
        if not parameter.requires_grad:
            return parameter.detach()
        recorded = Recorded(parameter.detach().numpy())
        if parameter not in tape._gradients:
            tape._gradients[parameter] = ParameterGradient(parameter)
        tape.steps.append(_Use(tape._gradients[parameter], recorded))
        tape.in_numpy = True
        return cast("Tensor", recorded)

    def _encoding(self, encoder: nn.Module, features: Tensor) -> Tensor:
        """What torch makes of the features; once where actor and critic share an encoder."""
        key = encoder, torch.is_grad_enabled()
        read, version, encoding = self._encodings.get(key, (None, 0, None))
        if read is not features or version != features._version or encoding is None:
            encoding = encoder(features)
            self._encodings[key] = features, features._version, encoding
        return encoding

    def look(self) -> None:
        """Look at networks again the next time that they are asked: whether they are still what their mirrors are."""
        self._seen = set()

    def _mirror(self, encoder: nn.Module, heads: Sequence[nn.Linear]) -> Mirror | None:
        key = (encoder, *heads)
        if key not in self._seen:
            self._mirrors[key] = Mirror.renewed(self._mirrors.get(key), lambda: (encoder, heads))
            self._seen.add(key)
        return self._mirrors[key]


def _rows(mirror: Mirror, features: Tensor) -> np.ndarray | None:
    """The features as an array; None where they are for torch."""
    if features.requires_grad or features.dtype is not torch.float32 or features.dim() != 2:
        return None
    rows = features.numpy()
    return None if len(rows) * mirror.encoding_size > LARGE and torch.get_num_threads() > 1 else rows


def _outputs(heads: Sequence[nn.Linear], encoding: Tensor) -> list[Tensor]:
    return [head(encoding) for head in heads]
