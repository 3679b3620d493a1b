"""Memory behind an encoder: what an agent has seen before, in numbers that it carries from decision to decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mlhooks.settings import NetworkSettings

FORGET = 1
"""The place of the forget gate among the four blocks of weights: input, forget, cell, output."""


class Memory(nn.Module):
    """One layer of long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000), as ML-Agents has it.

    The first half of an agent's memory is the layer's output, and the second half its cell. Initial weights are
    Xavier-uniform in each gate, or orthogonal where the settings say so. Both biases of the forget gate begin at 1, so
    that most of a memory is kept at first. With `torch` all begin as torch has them.

    Args:
        inputs: size of the encoding that it reads.
        size: size of the memory, an even number.
        initialization: `network_settings.initialization`.

    Attributes:
        size: of the memory; output_size: of the output, which is one half of it.
        lstm: torch's layer.
    """

    def __init__(self, inputs: int, size: int, initialization: str) -> None:
        super().__init__()
        self.size, self.output_size = size, size // 2
        self.lstm = nn.LSTM(inputs, self.output_size, batch_first=True)
        if initialization == "torch":
            return
        draw = nn.init.orthogonal_ if initialization == "orthogonal" else nn.init.xavier_uniform_
        with torch.no_grad():
            for parameter in self.lstm.parameters():
                if parameter.dim() == 1:
                    parameter.zero_().view(4, -1)[FORGET] = 1.0
                else:
                    for block in parameter.view(4, self.output_size, -1):
                        draw(block)

    def forward(
        self, encoding: Tensor, memory: Tensor | None = None, width: int = 1, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pass over units of consecutive rows, each unit with a memory of its own.

        Args:
            encoding: [units * width, inputs], unit after unit, each with its padding at the end.
            memory: the memory before each unit, [units, size] or [units, 1, size]; or before each row, [units * width,
                size], of which only that of a unit's first row is read; None for zeros, as when an episode begins.
            width: rows of a unit.
            lengths: [units] int64 on the CPU, the rows of each unit without its padding; by default all.

        Returns:
            The output [units * width, output_size]; and the memory after the last row of each unit that is not padding,
            [units, size], or [units, 1, size] where it was given so.
        """
        rows = encoding.view(-1, width, self.lstm.input_size)
        if memory is None:
            memory = encoding.new_zeros(len(rows), self.size)
        elif width > 1 and len(memory) > len(rows):
            memory = memory.view(-1, width, self.size)[:, 0]
        half = self.output_size
        # Exported models give memories an axis for time, and halve them along the last axis, as those of ML-Agents do.
        timed = memory.dim() == 3
        carried = memory.transpose(0, 1) if timed else memory.unsqueeze(0)  # [1, units, size]
        state = carried[:, :, :half].contiguous(), carried[:, :, half:].contiguous()
        if lengths is None:
            output, (last, cell) = self.lstm(rows, state)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
            packed, (last, cell) = self.lstm(packed, state)
            output, _ = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=width)
        after = torch.cat([last, cell], 2)
        return output.reshape(-1, half), after.transpose(0, 1) if timed else after.squeeze(0)


def make_memory(inputs: int, settings: NetworkSettings) -> Memory | None:
    """Return the memory that a network's settings ask for, behind an encoding of that size; None for none."""
    if settings.memory is None:
        return None
    return Memory(inputs, settings.memory.memory_size, settings.initialization)
