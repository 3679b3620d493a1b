# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Convolutions with leaky ReLUs behind them, computed image by image in the processor's cache.

An image is stored as [height, width, channels]. The numbers that one row of a filter reads are contiguous, the filter's
rows are a row of the image apart, and the next position is a stride further: a convolution is a matrix product that
reads the image in place. Channels between layers are padded with zeros.
"""

from libc.string cimport memcpy, memset

cimport numpy as cnp
from mlhooks.fast.native.arrays cimport empty, pointer
from mlhooks.fast.native.loops cimport LEAKY_RELU, loops
from mlhooks.fast.native.buffers cimport AlignedBuffer, padded, panel_padded

cnp.import_array()

cdef enum:
    MAX_LAYERS = 8  # layers
    SOME = 48  # positions whose gradients are scattered at once


cdef struct Layer:
    long channels, height, width  # of the input, with padded channels
    long given  # channels of the input without padding
    long kernel, stride
    long rows, columns, positions  # of the results
    long outputs, filters  # without and with padding
    long run, depth  # contiguous numbers that a filter reads, and all numbers that it reads
    # The following are offsets of the packed parameters.
    long transposed  # [depth, filters] in panels, the weight
    long packed_weight  # [outputs, depth] in panels, the weight
    long start  # [filters], the bias


cdef class Convolutions:
    """Convolutions without padding, one after another.

    Args:
        shape: (channels, height, width) of images.
        layers: (outputs, kernel, stride) of each.

    Attributes:
        size: numbers of the results of an image.
    """

    cdef Layer layers[MAX_LAYERS]
    cdef long count, widest, deepest, most, pixels, packed_size
    cdef readonly long size

    def __cinit__(self, shape, layers):
        cdef long number
        cdef Layer* layer
        channels, height, width = given, *_ = shape
        if not 0 < len(layers) <= MAX_LAYERS:
            raise ValueError(f"there must be from 1 to {MAX_LAYERS} layers")
        self.count, self.pixels = len(layers), channels * height * width
        for number, (outputs, kernel, stride) in enumerate(layers):
            layer = &self.layers[number]
            layer.given, layer.channels, layer.height, layer.width = given, channels, height, width
            layer.outputs, layer.kernel, layer.stride, layer.filters = outputs, kernel, stride, padded(outputs)
            if min(given, outputs, stride) < 1 or not 1 <= kernel <= min(height, width):
                raise ValueError("a layer does not fit its input")
            layer.rows, layer.columns = (height - kernel) // stride + 1, (width - kernel) // stride + 1
            layer.positions = layer.rows * layer.columns
            layer.run = kernel * channels
            layer.depth = kernel * layer.run
            layer.transposed = self.packed_size
            layer.packed_weight = layer.transposed + layer.depth * panel_padded(layer.filters)
            layer.start = layer.packed_weight + layer.outputs * panel_padded(layer.depth)
            self.packed_size = layer.start + layer.filters
            self.most = max(self.most, layer.positions * panel_padded(layer.filters))
            self.deepest = max(self.deepest, layer.depth)
            self.widest = max(self.widest, layer.positions * layer.filters)
            given, channels, height, width = outputs, layer.filters, layer.rows, layer.columns
        self.size = given * height * width

    def pack(self, parameters):
        """Return (weight [outputs, channels, kernel, kernel], bias [outputs]) of each layer as passes read them."""
        cdef long number, size
        cdef Layer* layer
        cdef AlignedBuffer packed = AlignedBuffer(self.packed_size), ordered
        parameters = list(parameters)
        if len(parameters) != self.count:
            raise ValueError("not as many parameters as layers")
        for number, (weight, bias) in enumerate(parameters):
            layer = &self.layers[number]
            size = layer.outputs * layer.depth
            ordered = AlignedBuffer(size)
            _transpose_weight(layer, pointer(weight, layer.outputs, layer.given * layer.kernel * layer.kernel), ordered.numbers)
            loops.pack_transposed(layer.outputs, layer.depth, ordered.numbers, layer.depth, packed.numbers + layer.transposed)
            loops.pack(layer.outputs, layer.depth, ordered.numbers, layer.depth, packed.numbers + layer.packed_weight)
            memcpy(packed.numbers + layer.start, pointer(bias, layer.outputs, 1), layer.outputs * sizeof(float))
        return packed

    def forward(self, images, AlignedBuffer packed not None, bint keep):
        """Convolve images [rows, height * width * channels], float32 or bytes.

        Returns:
            The results [rows, size], channels first, and what `backward` needs of each layer; None unless `keep`.
        """
        cdef long rows = len(images), row, number
        cdef Source source = Source(self, images)
        self._check(packed)
        cdef cnp.ndarray results = empty(rows, self.size)
        cdef float* result = <float*>cnp.PyArray_DATA(results)
        cdef const float* x
        cdef float* y
        cdef float* places[MAX_LAYERS]
        cdef AlignedBuffer scratch = AlignedBuffer(self.count * self.widest)
        cdef Layer* layer = NULL
        cdef list kept = []
        for number in range(self.count):
            layer = &self.layers[number]
            places[number] = scratch.numbers + number * self.widest
            if keep:
                kept.append(empty(rows, layer.positions * layer.filters))
                places[number] = <float*>cnp.PyArray_DATA(<cnp.ndarray>kept[number])
        with nogil:
            for row in range(rows):
                x = source.floats(row)
                for number in range(self.count):
                    layer = &self.layers[number]
                    y = places[number] + (row * layer.positions * layer.filters if keep else 0)
                    self._convolve(layer, x, packed.numbers, y)
                    x = y
                loops.transpose(layer.positions, layer.outputs, x, layer.filters, result, layer.positions, 0)
                result += self.size
        return results, kept if keep else None

    cdef int _check(self, AlignedBuffer packed) except -1:
        if packed.size != self.packed_size:
            raise ValueError("the parameters were packed for other layers")
        return 0

    cdef void _convolve(self, Layer* layer, const float* x, const float* packed, float* y) noexcept nogil:
        cdef long row, start = 0, line = layer.width * layer.channels
        while start < layer.filters:  # one panel after the other stays in the cache
            for row in range(layer.rows):
                loops.product(layer.columns, min(loops.panel, layer.filters - start), layer.kernel, layer.run,
                              x + row * layer.stride * line, layer.stride * layer.channels, line, 1,
                              packed + layer.transposed + start * layer.depth, layer.depth, loops.panel,
                              y + row * layer.columns * layer.filters + start, layer.filters,
                              packed + layer.start + start, 0)
            start += loops.panel
        loops.activate(LEAKY_RELU, layer.positions * layer.filters, y, NULL, y)

    def backward(self, images, AlignedBuffer packed not None, kept, gradient):
        """Return the gradients of the parameters, in the layout that `pack` takes, given that of the results."""
        cdef long rows = len(images), row, number
        cdef Source source = Source(self, images)
        self._check(packed)
        cdef const float* above = pointer(gradient, rows, self.size)
        cdef const float* x
        cdef float* y
        cdef Layer* layer
        cdef AlignedBuffer scratch = AlignedBuffer(2 * self.widest + max(SOME * self.deepest, self.most))
        cdef float* here
        cdef float* there
        cdef list buffers = [
            AlignedBuffer((self.layers[number].depth + 1) * self.layers[number].filters) for number in range(self.count)
        ]
        cdef float* sums[MAX_LAYERS]
        cdef float* results[MAX_LAYERS]
        for number in range(self.count):
            layer = &self.layers[number]
            sums[number] = (<AlignedBuffer>buffers[number]).numbers
            results[number] = pointer(kept[number], rows, layer.positions * layer.filters)
        with nogil:
            for row in range(rows):
                here, there = scratch.numbers, scratch.numbers + self.widest
                layer = &self.layers[self.count - 1]
                loops.transpose(layer.outputs, layer.positions, above + row * self.size, layer.positions, here,
                           layer.filters, 0)
                for number in range(self.count - 1, -1, -1):
                    layer = &self.layers[number]
                    y = results[number] + row * layer.positions * layer.filters
                    if number:
                        x = results[number - 1] + row * layer.height * layer.width * layer.channels
                    else:
                        x = source.floats(row)
                    loops.activate_backward(LEAKY_RELU, layer.positions, layer.filters, here, y, NULL,
                                            sums[number] + layer.depth * layer.filters, x)
                    self._add_weight_gradient(layer, x, here, scratch.numbers + 2 * self.widest, sums[number])
                    if number:
                        self._input_gradient(layer, here, packed.numbers + layer.packed_weight, there,
                                     scratch.numbers + 2 * self.widest)
                        here, there = there, here
        return [
            self._parameter_gradients(&self.layers[number], (<AlignedBuffer>buffers[number]).numbers)
            for number in range(self.count)
        ]

    cdef void _add_weight_gradient(
        self, Layer* layer, const float* x, const float* gradient, float* packed, float* sums
    ) noexcept nogil:
        """Add an image's gradient of the weight to sums [depth, filters]."""
        cdef long number, line = layer.width * layer.channels
        loops.pack(layer.positions, layer.filters, gradient, layer.filters, packed)
        for number in range(layer.kernel):
            loops.product(layer.run, layer.filters, layer.rows, layer.columns, x + number * line, 1,
                          layer.stride * line, layer.stride * layer.channels, packed, layer.positions, loops.panel,
                          sums + number * layer.run * layer.filters, layer.filters, NULL, 1)

    cdef void _input_gradient(
        self, Layer* layer, const float* gradient, const float* weight, float* below, float* read
    ) noexcept nogil:
        """Compute the gradient of the layer's input, given that of its results."""
        cdef long start = 0, some, position, line = layer.width * layer.channels
        memset(below, 0, layer.height * line * sizeof(float))
        while start < layer.positions:
            some = min(SOME, layer.positions - start)
            loops.product(some, layer.depth, 1, layer.outputs, gradient + start * layer.filters, layer.filters, 0, 1,
                          weight, layer.outputs, loops.panel, read, layer.depth, NULL, 0)
            for position in range(start, start + some):
                loops.copy(layer.kernel, layer.run, read + (position - start) * layer.depth, layer.run,
                           below + position // layer.columns * layer.stride * line
                           + position % layer.columns * layer.stride * layer.channels, line, 1)
            start += some

    cdef tuple _parameter_gradients(self, Layer* layer, const float* sums):
        """Return the gradients of a layer's weight and bias, in torch's layout."""
        cdef long size = layer.kernel * layer.kernel, o, c, k
        cdef cnp.ndarray weight = empty(layer.outputs, layer.given * size), bias = empty(1, layer.outputs)
        cdef float* to = <float*>cnp.PyArray_DATA(weight)
        for o in range(layer.outputs):
            for c in range(layer.given):
                for k in range(size):
                    to[(o * layer.given + c) * size + k] = sums[(k * layer.channels + c) * layer.filters + o]
        memcpy(cnp.PyArray_DATA(bias), sums + layer.depth * layer.filters, layer.outputs * sizeof(float))
        return weight, bias[0]


cdef void _transpose_weight(const Layer* layer, const float* weight, float* to) noexcept nogil:
    """Transpose a weight to the order in which filters read images, [outputs, kernel, kernel, channels]."""
    cdef long size = layer.kernel * layer.kernel, o, c, k
    for o in range(layer.outputs):
        for c in range(layer.given):
            for k in range(size):
                to[o * layer.depth + k * layer.channels + c] = weight[(o * layer.given + c) * size + k]


cdef class Source:
    """Images as float32; bytes become numbers from 0 to 1."""

    cdef object images
    cdef const float* numbers
    cdef const unsigned char* bytes
    cdef AlignedBuffer buffer
    cdef long pixels

    def __cinit__(self, Convolutions convolutions, images):
        cdef cnp.ndarray array = images
        self.images, self.pixels = images, convolutions.pixels
        if cnp.PyArray_TYPE(array) == cnp.NPY_UINT8:
            if not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_SIZE(array) != len(array) * self.pixels:
                raise ValueError("not a contiguous array of images of that size")
            self.bytes, self.buffer = <const unsigned char*>cnp.PyArray_DATA(array), AlignedBuffer(self.pixels)
        else:
            self.numbers = pointer(images, len(images), self.pixels)

    cdef const float* floats(self, long row) noexcept nogil:
        """Return an image as float32."""
        if self.bytes is NULL:
            return self.numbers + row * self.pixels
        loops.scale_bytes(self.pixels, self.bytes + row * self.pixels, 1.0 / 255.0, self.buffer.numbers)
        return self.buffer.numbers
