# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Small multilayer perceptrons, with linear heads or without: forward and backward passes, each in one call."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport memset

cimport numpy as cnp
from mlhooks.fast.native.arrays cimport empty, pointer, plain
from mlhooks.fast.native.loops cimport ELU, LEAKY_RELU, RELU, SWISH, TANH, loops
from mlhooks.fast.native.buffers cimport AlignedBuffer, borrowed, padded, panel_padded, returned

cnp.import_array()

KINDS = {"tanh": TANH, "relu": RELU, "leaky_relu": LEAKY_RELU, "elu": ELU, "swish": SWISH}
cdef enum:
    FEW = 4  # Up to so many rows or outputs, transposing a weight does not pay.
    BLOCK = 1 << 14  # So many results of a layer fit into the cache with those of its neighbours.
    WIDE = 128  # From so many numbers in a row on, columns are read in panels: the L1 cache holds too few rows.


cdef struct Layer:
    long inputs, outputs  # sizes
    long depth, width  # the same, padded
    float* weight  # [outputs, inputs], torch's
    float* bias  # [outputs], torch's
    float* transposed  # [inputs, width] in panels, the transpose of the weight
    float* start  # [width], the bias
    float* packed_weight  # [outputs, depth] in panels, the weight
    float* gradient  # [outputs, depth], of the weight; [inputs, width] of the first layer's
    float* bias_gradient  # [width]
    # The weight's gradient is accumulated here: in `gradient`, or in the sink where its rows are as long; NULL if frozen.
    float* sums


cdef inline bint few(long rows, const Layer* layer, bint hidden) noexcept nogil:
    """Return whether dot products are faster than transposing the weight; with wider layers they are for more rows."""
    return rows <= max(FEW, layer.inputs // 16) or (layer.outputs <= FEW and not hidden)


cdef class SavedActivations:
    """What a forward pass saves for the backward pass.

    Its buffer holds, layer after layer, the results [rows, width] and, for swish, as many sigmoids behind all of them.
    """

    cdef AlignedBuffer buffer
    cdef object features
    cdef long rows


cdef class MLP:
    """Hidden layers with one activation, and linear heads on the last of them.

    Without heads there is one output: the results of the last hidden layer, which are an encoding.

    Args:
        hidden, heads: (weight [out, in], bias [out]) of each layer, whose memory is read again in every pass.
        activation: one of `KINDS`, of the hidden layers.
    """

    cdef list arrays  # It keeps the parameters' memory.
    cdef float* scratch  # [block * (2 * widest + panel_padded(widest))]
    cdef float* input_scratch  # [block, depth of the first layer] behind it
    cdef Layer* layers
    cdef long hidden, heads, widest, units, block, size
    cdef int kind
    cdef list free

    def __cinit__(self, hidden, heads, activation):
        cdef long index
        cdef Layer* layer
        self.arrays = [*hidden, *heads]
        self.hidden, self.heads, self.kind = len(hidden), len(heads), KINDS[activation]
        if self.hidden == 0 or self.heads > 64:
            raise ValueError("no hidden layers, or more than 64 heads")
        self.layers = <Layer*>PyMem_Malloc(len(self.arrays) * sizeof(Layer))
        if self.layers is NULL:
            raise MemoryError
        self.free = []
        for index, (weight, bias) in enumerate(self.arrays):
            layer = &self.layers[index]
            layer.outputs, layer.inputs = weight.shape
            if layer.inputs != (self.layers[min(index, self.hidden) - 1].outputs if index else layer.inputs):
                raise ValueError("a layer's inputs have another size than the outputs of the layer before it")
            layer.weight, layer.bias = pointer(weight, layer.outputs, layer.inputs), pointer(bias, 1, layer.outputs)
            layer.depth, layer.width = padded(layer.inputs), padded(layer.outputs)
            self.widest = max(self.widest, layer.width, layer.depth if index else 0)
            if index < self.hidden:
                self.units += layer.width
        self.block = max(BLOCK // max(self.widest, 1), 96)
        self.size = self._place(NULL)

    cdef long _place(self, float* start) noexcept nogil:
        """Place what passes compute in, from an address on, and return its size."""
        cdef float* next = start
        cdef Layer* layer
        for index in range(self.hidden + self.heads):
            layer = &self.layers[index]
            # A pass needs only one of the two.
            layer.transposed = layer.packed_weight = next
            next += max(layer.inputs * panel_padded(layer.width), layer.outputs * panel_padded(layer.depth))
            layer.start = next
            layer.bias_gradient = layer.start + layer.width
            layer.gradient = layer.bias_gradient + layer.width
            next = layer.gradient + max(layer.outputs * layer.depth, layer.inputs * layer.width)
        # It holds gradients above and below a layer, or results of two layers, and behind them panels or sigmoids.
        self.scratch = next
        self.input_scratch = self.scratch + self.block * (2 * self.widest + panel_padded(self.widest))
        return self.input_scratch + self.block * self.layers[0].depth - start

    def __dealloc__(self):
        PyMem_Free(self.layers)

    def forward(self, features):
        """Return the output of each head, or else the encoding in a list, for float32 features [rows, size]."""
        return self._outputs(features, None)

    def record(self, features):
        """Return what `forward` does, and the activations that `backward` needs."""
        cdef long rows = len(features), size = rows * self.units * (2 if self.kind == SWISH else 1)
        cdef SavedActivations passed = self.free.pop() if self.free else SavedActivations()
        if passed.buffer is None or passed.buffer.size < size:
            passed.buffer = AlignedBuffer(size)
        passed.features, passed.rows = features, rows
        return self._outputs(features, passed), passed

    def release(self, SavedActivations passed not None):
        """Let the next pass reuse the memory of saved activations."""
        passed.features = None
        self.free.append(passed)

    cdef list _outputs(self, features, SavedActivations passed):
        cdef long rows = len(features), start = 0, index
        cdef float* x = pointer(features, rows, self.layers[0].inputs)
        cdef list outputs = [empty(rows, self._outputs_of(index).outputs) for index in range(max(self.heads, 1))]
        cdef float* kept = NULL if passed is None else passed.buffer.numbers
        cdef float* places[64]
        for index in range(len(outputs)):
            places[index] = <float*>cnp.PyArray_DATA(<cnp.ndarray>outputs[index])
        cdef AlignedBuffer buffer = borrowed(self.size)
        self._place(buffer.numbers)
        with nogil:
            self._prepare_forward(rows)
            while start < rows:
                self._forward(
                    min(self.block, rows - start), rows, x + start * self.layers[0].inputs, kept, start, places
                )
                start += self.block
        returned(buffer)
        return outputs

    cdef const Layer* _outputs_of(self, long index) noexcept nogil:
        """Return the layer that gives an output: a head, or the last hidden layer."""
        return &self.layers[self.hidden + index if self.heads else self.hidden - 1]

    cdef void _prepare_forward(self, long rows) noexcept nogil:
        cdef Layer* layer
        for index in range(self.hidden + self.heads):
            layer = &self.layers[index]
            if not few(rows, layer, index < self.hidden):
                loops.pack_transposed(layer.outputs, layer.inputs, layer.weight, layer.inputs, layer.transposed)
                loops.pack(1, layer.outputs, layer.bias, layer.outputs, layer.start)

    cdef void _forward(
        self, long rows, long all_rows, const float* x, float* kept_rows, long start, float** outputs
    ) noexcept nogil:
        """Compute a block of rows; activations go to `kept_rows`, or to scratch memory if that is NULL."""
        cdef long index, ldx = self.layers[0].inputs
        cdef Layer* layer
        cdef float* y
        cdef float* sigmoids = NULL
        cdef float* behind = kept_rows
        cdef const float* prefetched
        for index in range(self.hidden):
            layer = &self.layers[index]
            if kept_rows is NULL:
                y = self.scratch + (index % 2) * self.block * self.widest
                sigmoids = self.scratch + 2 * self.block * self.widest
            else:
                y = behind + start * layer.width
                sigmoids = y + all_rows * self.units
                behind += all_rows * layer.width
            if not few(all_rows, layer, True):
                loops.product(rows, layer.width, 1, layer.inputs, x, ldx, 0, 1, layer.transposed, layer.inputs,
                              loops.panel, y, layer.width, layer.start, 0)
            else:
                memset(y, 0, rows * layer.width * sizeof(float))
                loops.dots(rows, layer.inputs, layer.outputs, x, ldx, layer.weight, layer.bias, y, layer.width)
            prefetched = y
            if kept_rows is not NULL:  # The next layer has results, or the first layer for the next block.
                prefetched = kept_rows + (start + rows) * self.layers[0].width
                if index + 1 < self.hidden:
                    prefetched = behind + start * self.layers[index + 1].width
            loops.activate(self.kind, rows * layer.width, y, sigmoids, prefetched)
            x, ldx = y, layer.width
        if self.heads == 0:
            loops.copy(rows, layer.outputs, x, ldx, outputs[0] + start * layer.outputs, layer.outputs, 0)
        for index in range(self.heads):
            layer = &self.layers[self.hidden + index]
            if not few(all_rows, layer, False):
                y = self.scratch + 2 * self.block * self.widest
                loops.product(rows, layer.width, 1, layer.inputs, x, ldx, 0, 1, layer.transposed, layer.inputs,
                              loops.panel, y, layer.width, layer.start, 0)
                loops.copy(rows, layer.outputs, y, layer.width, outputs[index] + start * layer.outputs, layer.outputs,
                           0)
            else:
                loops.dots(rows, layer.inputs, layer.outputs, x, ldx, layer.weight, layer.bias,
                     outputs[index] + start * layer.outputs, layer.outputs)

    def backward(self, SavedActivations passed not None, gradients, sinks, inputs=None):
        """Add the gradients of the parameters to arrays.

        Args:
            passed: what `record` returned.
            gradients: [rows, out] of the loss with respect to each output; None where the loss does not use it.
            sinks: (weight, bias) of each layer, hidden ones first: arrays to which its gradients are added, or None for
                a frozen parameter. A head without a gradient adds nothing.
            inputs: [rows, size], which becomes the gradient of the features; None where nobody needs it.
        """
        cdef long index, start = 0, rows = passed.rows
        cdef Layer* layer = &self.layers[0]
        cdef float* places[64]
        cdef float* sink
        cdef float* below = NULL if inputs is None else pointer(inputs, rows, layer.inputs)
        cdef float* x = pointer(passed.features, rows, layer.inputs)
        cdef list kept = []  # It keeps the memory at `places` alive.
        cdef AlignedBuffer buffer = borrowed(self.size)
        self._place(buffer.numbers)
        for index in range(self.hidden + self.heads):
            layer = &self.layers[index]
            weight = sinks[index][0]
            layer.sums = NULL if weight is None else layer.gradient
            if index and layer.depth == layer.inputs and weight is not None:
                layer.sums = pointer(weight, layer.outputs, layer.inputs)
        for index in range(max(self.heads, 1)):
            places[index] = NULL
            if gradients[index] is not None:
                gradient = plain(gradients[index], 2)
                places[index] = pointer(gradient, rows, self._outputs_of(index).outputs)
                kept.append(gradient)
        if not kept:
            if inputs is not None:
                inputs.fill(0.0)
            returned(buffer)
            return
        with nogil:
            self._prepare_backward(below is not NULL)
            while start < rows:
                self._backward(
                    min(self.block, rows - start), rows, x + start * self.layers[0].inputs, passed.buffer.numbers, start,
                    places, NULL if below is NULL else below + start * self.layers[0].inputs,
                )
                start += self.block
        for index in range(self.hidden + self.heads):
            layer = &self.layers[index]
            if index >= self.hidden and places[index - self.hidden] is NULL:
                continue
            weight, bias = sinks[index]
            if weight is not None and layer.sums is layer.gradient:
                sink = pointer(weight, layer.outputs, layer.inputs)
                if index:
                    loops.copy(layer.outputs, layer.inputs, layer.gradient, layer.depth, sink, layer.inputs, 1)
                else:
                    loops.transpose(layer.inputs, layer.outputs, layer.gradient, layer.width, sink, layer.inputs, 1)
            if bias is not None:
                sink = pointer(bias, 1, layer.outputs)
                loops.copy(1, layer.outputs, layer.bias_gradient, layer.width, sink, layer.outputs, 1)
        returned(buffer)

    cdef void _prepare_backward(self, bint inputs) noexcept nogil:
        cdef long index
        cdef Layer* layer
        for index in range(self.hidden + self.heads):
            layer = &self.layers[index]
            memset(layer.bias_gradient, 0, layer.width * sizeof(float))
            if layer.sums is layer.gradient:
                memset(layer.gradient, 0, (layer.outputs * layer.depth if index else layer.inputs * layer.width)
                       * sizeof(float))
            if index or inputs:
                loops.pack(layer.outputs, layer.inputs, layer.weight, layer.inputs, layer.packed_weight)

    cdef void _backward(
        self, long rows, long all_rows, const float* features, float* kept_rows, long start, float** gradients,
        float* inputs
    ) noexcept nogil:
        """Compute the gradients of a block of rows; that of their features goes to `inputs`, or nowhere if it is NULL."""
        cdef long index, r, o, added = 0
        cdef Layer* layer
        cdef Layer* last = &self.layers[self.hidden - 1]
        cdef const float* x
        cdef const float* prefetched
        cdef const float* results = kept_rows + all_rows * (self.units - last.width) + start * last.width
        cdef const float* y = results
        cdef float* above = self.scratch
        cdef float* below = above + self.block * self.widest
        cdef float total
        cdef float* gradient
        cdef float* packed = below + self.block * self.widest
        if self.heads == 0:
            memset(above, 0, rows * last.width * sizeof(float))
            loops.copy(rows, last.outputs, gradients[0] + start * last.outputs, last.outputs, above, last.width, 0)
        for index in range(self.heads):
            if gradients[index] is NULL:
                continue
            layer = &self.layers[self.hidden + index]
            gradient = gradients[index] + start * layer.outputs
            if layer.sums is not NULL:
                loops.product(layer.outputs, layer.depth, 1, rows, gradient, 1, 0, layer.outputs, y, 1, last.width,
                              layer.sums, layer.depth, NULL, 1)
            loops.product(rows, layer.depth, 1, layer.outputs, gradient, layer.outputs, 0, 1, layer.packed_weight,
                          layer.outputs, loops.panel, above, last.width, NULL, added)
            for o in range(layer.outputs):
                total = 0
                for r in range(rows):
                    total += gradient[r * layer.outputs + o]
                layer.bias_gradient[o] += total
            added = 1
        for index in range(self.hidden - 1, -1, -1):
            layer = &self.layers[index]
            if index:
                prefetched = x = kept_rows + self._before(index - 1) * all_rows + start * layer.depth
            else:
                prefetched = results + rows * last.width  # These are those of the next block.
            loops.activate_backward(self.kind, rows, layer.width, above, y, y + all_rows * self.units,
                                    layer.bias_gradient, prefetched)
            if index:
                if layer.sums is not NULL and layer.depth < WIDE:
                    loops.product(layer.outputs, layer.depth, 1, rows, above, 1, 0, layer.width, x, 1, layer.depth,
                                  layer.sums, layer.depth, NULL, 1)
                elif layer.sums is not NULL:
                    loops.pack(rows, layer.depth, x, layer.depth, packed)
                    loops.product(layer.outputs, layer.depth, 1, rows, above, 1, 0, layer.width, packed, rows,
                                  loops.panel, layer.sums, layer.depth, NULL, 1)
                loops.product(rows, layer.depth, 1, layer.outputs, above, layer.width, 0, 1, layer.packed_weight,
                              layer.outputs, loops.panel, below, layer.depth, NULL, 0)
                above, below, y = below, above, x
                continue
            if layer.sums is not NULL:
                loops.product(layer.inputs, layer.width, 1, rows, features, 1, 0, layer.inputs, above, 1, layer.width,
                              layer.gradient, layer.width, NULL, 1)
            if inputs is not NULL:
                below = self.input_scratch
                loops.product(rows, layer.depth, 1, layer.outputs, above, layer.width, 0, 1, layer.packed_weight,
                              layer.outputs, loops.panel, below, layer.depth, NULL, 0)
                loops.copy(rows, layer.inputs, below, layer.depth, inputs, layer.inputs, 0)

    cdef long _before(self, long index) noexcept nogil:
        """Return the columns of all layers before one."""
        cdef long columns = 0
        for before in range(index):
            columns += self.layers[before].width
        return columns
