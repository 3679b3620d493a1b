# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Long short-term memory over sequences: forward and backward passes, each in one call.

Gates lie in torch's order: input, forget, cell, output. All arrays of numbers are float32; their rows are sequence after
sequence, without padding.
"""

from libc.string cimport memcpy

cimport numpy as cnp
import numpy as np

from mlhooks.fast.native.arrays cimport empty, pointer, whole
from mlhooks.fast.native.buffers cimport AlignedBuffer, padded, panel_padded
from mlhooks.fast.native.loops cimport SWISH, TANH, loops

cnp.import_array()

ctypedef cnp.int64_t integer


cdef class Sequences:
    """Where sequences lie, and which of them have a row at a time: the longest ones come first in `order`."""

    cdef long count, longest, rows
    cdef integer* start
    cdef integer* length
    cdef integer* order
    cdef tuple arrays

    def __cinit__(self, lengths):
        self.count = len(lengths)
        self.rows = lengths.sum()
        self.longest = lengths.max() if self.count else 0
        if self.count and lengths.min() < 1:
            raise ValueError("an empty sequence")
        starts, order = np.cumsum(lengths) - lengths, np.argsort(-lengths, kind="stable")
        self.arrays = starts, lengths, order
        self.start, self.length = whole(starts, self.count), whole(lengths, self.count)
        self.order = whole(order, self.count)

    cdef long going(self, long t, long before) noexcept nogil:
        """Return how many sequences are longer than t, of which there are at most `before`."""
        while before and self.length[self.order[before - 1]] <= t:
            before -= 1
        return before


def forward(gates, memory, weight, bias, lengths):
    """Pass through sequences.

    Args:
        gates: [rows, 4 * size], what encodings add to the gates; it becomes the activations of the gates.
        memory: [sequences, 2 * size], outputs and cells before the first row of each.
        weight, bias: [4 * size, size] and [4 * size], by which the output of a row acts on the gates of the next one.
        lengths: [sequences] int64, the rows of each, at least one.

    Returns:
        The outputs and the cells of all rows, each [rows, size].
    """
    cdef Sequences sequences = Sequences(lengths)
    cdef long count = sequences.count, size = weight.shape[1], rows = len(gates), four = 4 * size, t, r, j, row, going
    if rows != sequences.rows:
        raise ValueError("sequences of another size")
    cdef float* gate = pointer(gates, rows, four)
    cdef const float* before = pointer(memory, count, 2 * size)
    cdef const float* w = pointer(weight, four, size)
    cdef const float* b = pointer(bias, 1, four)
    cdef cnp.ndarray outputs = empty(rows, size), cells = empty(rows, size)
    cdef float* output = <float*>cnp.PyArray_DATA(outputs)
    cdef float* cell = <float*>cnp.PyArray_DATA(cells)
    cdef long wide = padded(four)
    cdef AlignedBuffer packed = AlignedBuffer(size * panel_padded(four))
    cdef AlignedBuffer scratch = AlignedBuffer(count * (wide + size) + padded(size) + wide)
    cdef float* added = scratch.numbers  # [sequences, wide], what the rows before add to the gates
    cdef float* last = added + count * wide  # [sequences, size], the outputs of the rows before
    cdef float* squashed = last + count * size
    cdef float* logistic = squashed + padded(size)
    cdef float* g
    cdef float* c
    cdef float* y
    cdef float* a
    cdef const float* kept
    going = count
    with nogil:
        loops.pack_transposed(four, size, w, size, packed.numbers)
        for t in range(sequences.longest):
            going = sequences.going(t, going)
            for r in range(going):
                row = sequences.start[sequences.order[r]] + t
                kept = output + (row - 1) * size if t else before + sequences.order[r] * 2 * size
                memcpy(last + r * size, kept, size * sizeof(float))
            loops.product(going, wide, 1, size, last, size, 0, 1, packed.numbers, size, loops.panel, added, wide,
                          NULL, 0)
            for r in range(going):
                row = sequences.start[sequences.order[r]] + t
                g, c, y, a = gate + row * four, cell + row * size, output + row * size, added + r * wide
                kept = c - size if t else before + sequences.order[r] * 2 * size + size
                for j in range(four):
                    a[j] += g[j] + b[j]
                memcpy(squashed, a + 2 * size, size * sizeof(float))
                loops.activate(TANH, padded(size), squashed, NULL, squashed)
                # Swish has the logistic function beside it, exact also where a gate is nearly closed.
                loops.activate(SWISH, wide, a, logistic, a)
                memcpy(g, logistic, four * sizeof(float))
                memcpy(g + 2 * size, squashed, size * sizeof(float))
                for j in range(size):
                    c[j] = g[size + j] * kept[j] + g[j] * g[2 * size + j]
                    squashed[j] = c[j]
                loops.activate(TANH, padded(size), squashed, NULL, squashed)
                for j in range(size):
                    y[j] = g[3 * size + j] * squashed[j]
    return outputs, cells


def backward(gates, memory, weight, cells, gradient, lengths):
    """Turn the activations of the gates into the gradient of what came into them.

    Args:
        gates: [rows, 4 * size], as `forward` left them; they become the gradient.
        memory, weight, lengths: what `forward` got.
        cells: what it returned.
        gradient: [rows, size], of the outputs.
    """
    cdef Sequences sequences = Sequences(lengths)
    cdef long count = sequences.count, size = weight.shape[1], rows = len(gates), four = 4 * size, t, r, j, row, going
    if rows != sequences.rows:
        raise ValueError("sequences of another size")
    cdef float* gate = pointer(gates, rows, four)
    cdef const float* before = pointer(memory, count, 2 * size)
    cdef const float* w = pointer(weight, four, size)
    cdef const float* cell = pointer(cells, rows, size)
    cdef const float* above = pointer(gradient, rows, size)
    cdef long wide = padded(size)
    cdef AlignedBuffer packed = AlignedBuffer(four * panel_padded(wide))
    cdef AlignedBuffer scratch = AlignedBuffer(count * (2 * wide + four) + wide)
    cdef float* of_output = scratch.numbers  # [sequences, wide] in order, what the next rows add to the gradient
    cdef float* of_cell = of_output + count * wide  # [sequences, wide], the same of the cell
    cdef float* of_gates = of_cell + count * wide  # [sequences, 4 * size]
    cdef float* squashed = of_gates + count * four
    cdef float admit, keep, new, show, d, dc
    cdef float* g
    cdef float* o
    cdef float* more
    cdef float* carried
    cdef const float* c
    cdef const float* kept
    with nogil:
        loops.pack(four, size, w, size, packed.numbers)
        for t in range(sequences.longest - 1, -1, -1):
            going = sequences.going(t, count)
            for r in range(going):
                row = sequences.start[sequences.order[r]] + t
                g, c = gate + row * four, cell + row * size
                kept = c - size if t else before + sequences.order[r] * 2 * size + size
                more, carried, o = of_output + r * wide, of_cell + r * wide, of_gates + r * four
                memcpy(squashed, c, size * sizeof(float))
                loops.activate(TANH, wide, squashed, NULL, squashed)
                for j in range(size):
                    admit, keep, new, show = g[j], g[size + j], g[2 * size + j], g[3 * size + j]
                    d = more[j] + above[row * size + j]
                    dc = carried[j] + d * show * (1 - squashed[j] * squashed[j])
                    g[j] = dc * new * admit * (1 - admit)
                    g[size + j] = dc * kept[j] * keep * (1 - keep)
                    g[2 * size + j] = dc * admit * (1 - new * new)
                    g[3 * size + j] = d * squashed[j] * show * (1 - show)
                    carried[j] = dc * keep
                memcpy(o, g, four * sizeof(float))
            if t:
                loops.product(going, wide, 1, four, of_gates, four, 0, 1, packed.numbers, four, loops.panel, of_output,
                              wide, NULL, 0)
