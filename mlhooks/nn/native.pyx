# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Passes through small networks, compiled: what `passes.py` computes, in one call and half the time."""

from cpython.contextvars cimport get_value
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport expf, logf, sqrt
from libc.string cimport memset

cimport numpy as cnp

cnp.import_array()

cdef extern from "kernels.h" nogil:
    const long WIDTH
    void product(long, long, long, const float*, long, long, const float*, long, float*, long, const float*, int)
    void activate(int, long, float*, float*)
    void activate_backward(int, long, float*, const float*, const float*)
    void add_rows(long, long, const float*, float*)
    void dots(long, long, long, const float*, long, const float*, const float*, float*, long)
    void turn(long, long, const float*, long, float*, long, int)
    void copy(long, long, const float*, long, float*, long, int)
    void operate(int, long, const float*, long, const float*, long, float*)
    void operate_backward(
        int, int, long, const float*, const float*, long, const float*, long, const float*, float*)
    void adam(long, float*, const float*, float*, float*, float, float, float, float, float)

KINDS = {"tanh": 0, "relu": 1, "leaky_relu": 2, "elu": 3, "swish": 4}
cdef enum:
    SWISH = 4
    FEW = 4  # rows or outputs, for which a weight is not turned around
    BLOCK = 1 << 14  # numbers of a layer's results that stay in the cache with those of its neighbours


cdef inline long padded(long size) noexcept nogil:
    return (size + WIDTH - 1) // WIDTH * WIDTH


cdef float* pointer(array, long rows, long columns) except NULL:
    """Where the numbers of a float32 array are that has these, row after row."""
    if not cnp.PyArray_Check(array):
        raise TypeError("not an array")
    cdef cnp.ndarray known = <cnp.ndarray>array
    if cnp.PyArray_TYPE(known) != cnp.NPY_FLOAT32 or not cnp.PyArray_IS_C_CONTIGUOUS(known):
        raise TypeError("not a contiguous array of float32")
    if cnp.PyArray_SIZE(known) != rows * columns:
        raise ValueError("an array of another size")
    return <float*>cnp.PyArray_DATA(known)


cdef cnp.ndarray empty(long rows, long columns):
    cdef cnp.npy_intp[2] shape
    shape[0], shape[1] = rows, columns
    return cnp.PyArray_EMPTY(2, shape, cnp.NPY_FLOAT32, 0)


cdef struct Layer:
    long inputs, outputs  # sizes
    long depth, width  # the same, padded
    float* weight  # [outputs, inputs], torch's
    float* bias  # [outputs], torch's
    float* turned  # [inputs, width], the weight the other way round
    float* start  # [width], the bias
    float* straight  # [outputs, depth], the weight with padded rows
    float* gradient  # [outputs, depth], of the weight; [inputs, width] of the first layer's
    float* bias_gradient  # [width]


cdef class Room:
    """Numbers that are let go of with the object."""

    cdef float* numbers
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size):
        self.numbers = <float*>PyMem_Malloc(max(size, 1) * sizeof(float))
        if self.numbers is NULL:
            raise MemoryError
        self.size = size
        memset(self.numbers, 0, size * sizeof(float))

    def __dealloc__(self):
        PyMem_Free(self.numbers)


cdef class Passed:
    """What a forward pass leaves behind for the backward pass.

    Its room holds, layer after layer, the results [rows, width] and, for swish, as many sigmoids behind all of them.
    """

    cdef Room room
    cdef object features
    cdef long rows


cdef class Passes:
    """As `passes.Passes`; see there."""

    cdef list arrays  # keeps the parameters' memory
    cdef Room room, scratch
    cdef Layer* layers
    cdef long hidden, heads, widest, units, block
    cdef int kind
    cdef list free

    def __cinit__(self, hidden, heads, activation):
        cdef long size, index, total = 0
        cdef Layer* layer
        self.arrays = [*hidden, *heads]
        self.hidden, self.heads, self.kind = len(hidden), len(heads), KINDS[activation]
        self.layers = <Layer*>PyMem_Malloc(len(self.arrays) * sizeof(Layer))
        if self.layers is NULL:
            raise MemoryError
        self.free = []
        for index, (weight, bias) in enumerate(self.arrays):
            layer = &self.layers[index]
            layer.outputs, layer.inputs = weight.shape
            layer.weight, layer.bias = pointer(weight, layer.outputs, layer.inputs), pointer(bias, 1, layer.outputs)
            layer.depth, layer.width = padded(layer.inputs), padded(layer.outputs)
            self.widest = max(self.widest, layer.width, layer.depth if index else 0)
            if index < self.hidden:
                self.units += layer.width
            total += 2 * layer.inputs * layer.width + 2 * layer.width + 2 * layer.outputs * layer.depth
        self.block = max(BLOCK // self.widest, 96)
        self.room = Room(total)
        self.scratch = Room(3 * self.block * self.widest)
        cdef float* next = self.room.numbers
        for index in range(self.hidden + self.heads):
            layer = &self.layers[index]
            size = layer.inputs * layer.width
            layer.turned, layer.start, layer.bias_gradient = next, next + size, next + size + layer.width
            next += size + 2 * layer.width
            layer.straight = next
            layer.gradient = next + layer.outputs * layer.depth
            next = layer.gradient + max(layer.outputs * layer.depth, size)

    def __dealloc__(self):
        PyMem_Free(self.layers)

    def forward(self, features):
        """The output of each head, for float32 features [rows, size]."""
        return self._outputs(features, None)

    def record(self, features):
        """As `forward`, with what `backward` needs."""
        cdef long rows = len(features), size = rows * self.units * (2 if self.kind == SWISH else 1)
        cdef Passed passed = self.free.pop() if self.free else Passed()
        if passed.room is None or passed.room.size < size:
            passed.room = Room(size)
        passed.features, passed.rows = features, rows
        return self._outputs(features, passed), passed

    def release(self, Passed passed):
        """Let the next pass use the memory."""
        passed.features = None
        self.free.append(passed)

    cdef list _outputs(self, features, Passed passed):
        cdef long rows = len(features), start = 0, index
        cdef float* x = pointer(features, rows, self.layers[0].inputs)
        cdef list outputs = [empty(rows, self.layers[self.hidden + index].outputs) for index in range(self.heads)]
        cdef float* kept = NULL if passed is None else passed.room.numbers
        cdef float* places[64]
        if self.heads > 64:
            raise ValueError("more than 64 heads")
        for index in range(self.heads):
            places[index] = <float*>cnp.PyArray_DATA(<cnp.ndarray>outputs[index])
        with nogil:
            if rows > FEW:
                self._prepare_forward()
            while start < rows:
                self._forward(min(self.block, rows - start), rows, x + start * self.layers[0].inputs, kept, start, places)
                start += self.block
        return outputs

    cdef void _prepare_forward(self) noexcept nogil:
        cdef Layer* layer
        for index in range(self.hidden + self.heads):
            layer = &self.layers[index]
            if index < self.hidden or layer.outputs > FEW:
                turn(layer.outputs, layer.inputs, layer.weight, layer.inputs, layer.turned, layer.width, 0)
                copy(1, layer.outputs, layer.bias, layer.outputs, layer.start, layer.width, 0)

    cdef void _forward(
        self, long rows, long all_rows, const float* x, float* kept_rows, long start, float** outputs
    ) noexcept nogil:
        """A block of rows; what is kept goes into the memory of all rows, or else into scratch."""
        cdef long index, ldx = self.layers[0].inputs
        cdef Layer* layer
        cdef float* y
        cdef float* sigmoids = NULL
        cdef float* behind = kept_rows
        for index in range(self.hidden):
            layer = &self.layers[index]
            if kept_rows is NULL:
                y = self.scratch.numbers + (index % 2) * self.block * self.widest
                sigmoids = self.scratch.numbers + 2 * self.block * self.widest
            else:
                y = behind + start * layer.width
                sigmoids = y + all_rows * self.units
                behind += all_rows * layer.width
            if all_rows > FEW:
                product(rows, layer.width, layer.inputs, x, ldx, 1, layer.turned, layer.width, y, layer.width,
                        layer.start, 0)
            else:
                memset(y, 0, rows * layer.width * sizeof(float))
                dots(rows, layer.inputs, layer.outputs, x, ldx, layer.weight, layer.bias, y, layer.width)
            activate(self.kind, rows * layer.width, y, sigmoids)
            x, ldx = y, layer.width
        for index in range(self.heads):
            layer = &self.layers[self.hidden + index]
            if all_rows > FEW and layer.outputs > FEW:
                y = self.scratch.numbers + 2 * self.block * self.widest
                product(rows, layer.width, layer.inputs, x, ldx, 1, layer.turned, layer.width, y, layer.width,
                        layer.start, 0)
                copy(rows, layer.outputs, y, layer.width, outputs[index] + start * layer.outputs, layer.outputs, 0)
            else:
                dots(rows, layer.inputs, layer.outputs, x, ldx, layer.weight, layer.bias,
                     outputs[index] + start * layer.outputs, layer.outputs)

    def backward(self, Passed passed, gradients, sinks):
        """Add the gradients of the parameters to arrays; see `passes.Passes.backward`."""
        cdef long index, start = 0, rows = passed.rows
        cdef Layer* layer
        cdef float* places[64]
        cdef float* sink
        cdef float* x = pointer(passed.features, rows, self.layers[0].inputs)
        cdef list kept = []  # alive until the end
        for index in range(self.heads):
            places[index] = NULL
            if gradients[index] is not None:
                gradient = cnp.PyArray_ContiguousFromAny(gradients[index], cnp.NPY_FLOAT32, 2, 2)
                places[index] = pointer(gradient, rows, self.layers[self.hidden + index].outputs)
                kept.append(gradient)
        with nogil:
            self._prepare_backward(places)
            while start < rows:
                self._backward(
                    min(self.block, rows - start), rows, x + start * self.layers[0].inputs, passed.room.numbers, start,
                    places,
                )
                start += self.block
        for index in range(self.hidden + self.heads):
            layer = &self.layers[index]
            if index >= self.hidden and places[index - self.hidden] is NULL:
                continue
            weight, bias = sinks[index]
            if weight is not None:
                sink = pointer(weight, layer.outputs, layer.inputs)
                if index:
                    copy(layer.outputs, layer.inputs, layer.gradient, layer.depth, sink, layer.inputs, 1)
                else:
                    turn(layer.inputs, layer.outputs, layer.gradient, layer.width, sink, layer.inputs, 1)
            if bias is not None:
                sink = pointer(bias, 1, layer.outputs)
                copy(1, layer.outputs, layer.bias_gradient, layer.width, sink, layer.outputs, 1)

    cdef void _prepare_backward(self, float** gradients) noexcept nogil:
        cdef long index
        cdef Layer* layer
        for index in range(self.hidden + self.heads):
            layer = &self.layers[index]
            memset(layer.bias_gradient, 0, layer.width * sizeof(float))
            if index:
                memset(layer.gradient, 0, layer.outputs * layer.depth * sizeof(float))
                copy(layer.outputs, layer.inputs, layer.weight, layer.inputs, layer.straight, layer.depth, 0)
            else:
                memset(layer.gradient, 0, layer.inputs * layer.width * sizeof(float))

    cdef void _backward(
        self, long rows, long all_rows, const float* features, float* kept_rows, long start, float** gradients
    ) noexcept nogil:
        """A block of rows."""
        cdef long index, r, o, added = 0
        cdef Layer* layer
        cdef Layer* last = &self.layers[self.hidden - 1]
        cdef float* y = kept_rows + all_rows * (self.units - last.width) + start * last.width
        cdef float* above = self.scratch.numbers
        cdef float* below = above + self.block * self.widest
        cdef float* gradient
        for index in range(self.heads):
            if gradients[index] is NULL:
                continue
            layer = &self.layers[self.hidden + index]
            gradient = gradients[index] + start * layer.outputs
            product(layer.outputs, layer.depth, rows, gradient, 1, layer.outputs, y, last.width, layer.gradient,
                    layer.depth, NULL, 1)
            product(rows, layer.depth, layer.outputs, gradient, layer.outputs, 1, layer.straight, layer.depth, above,
                    last.width, NULL, added)
            for r in range(rows):
                for o in range(layer.outputs):
                    layer.bias_gradient[o] += gradient[r * layer.outputs + o]
            added = 1
        for index in range(self.hidden - 1, -1, -1):
            layer = &self.layers[index]
            activate_backward(self.kind, rows * layer.width, above, y, y + all_rows * self.units)
            add_rows(rows, layer.width, above, layer.bias_gradient)
            if index:
                y = kept_rows + self._before(index - 1) * all_rows + start * layer.depth
                product(layer.outputs, layer.depth, rows, above, 1, layer.width, y, layer.depth, layer.gradient,
                        layer.depth, NULL, 1)
                product(rows, layer.depth, layer.outputs, above, layer.width, 1, layer.straight, layer.depth, below,
                        layer.depth, NULL, 0)
                above, below = below, above
            else:
                product(layer.inputs, layer.width, rows, features, 1, layer.inputs, above, layer.width, layer.gradient,
                        layer.width, NULL, 1)

    cdef long _before(self, long index) noexcept nogil:
        """Columns of all layers before one."""
        cdef long columns = 0
        for before in range(index):
            columns += self.layers[before].width
        return columns


def adam_step(data, grad, mean, square, double lr, double beta1, double beta2, double eps, long steps):
    """A step of Adam on float32 arrays of one size, which it changes; `steps` counts from 1."""
    cdef long size = data.size
    cdef float* d = pointer(data, size, 1)
    cdef float* g = pointer(grad, size, 1)
    cdef float* m = pointer(mean, size, 1)
    cdef float* s = pointer(square, size, 1)
    adam(size, d, g, m, s, beta1, beta2, lr / (1 - beta1**steps), sqrt(1 - beta2**steps), eps)


cdef cnp.ndarray vector(long rows):
    cdef cnp.npy_intp size = rows
    return cnp.PyArray_EMPTY(1, &size, cnp.NPY_FLOAT32, 0)


cdef const cnp.int64_t* whole(array, long size) except NULL:
    """Where the numbers of a contiguous int64 array are."""
    if not cnp.PyArray_Check(array) or cnp.PyArray_TYPE(array) != cnp.NPY_INT64:
        raise TypeError("not an array of int64")
    if not cnp.PyArray_IS_C_CONTIGUOUS(array) or cnp.PyArray_SIZE(array) != size:
        raise TypeError("not a contiguous array of that size")
    return <const cnp.int64_t*>cnp.PyArray_DATA(array)


cdef object rows_of(array):
    """The array, float32 [rows, columns], row after row."""
    return cnp.PyArray_ContiguousFromAny(array, cnp.NPY_FLOAT32, 2, 2)


def choose(logits, arrivals):
    """As `heads.choose`."""
    logits = rows_of(logits)
    cdef long rows = len(logits), size = logits.shape[1], r, c, best
    cdef const float* scores = pointer(logits, rows, size)
    cdef const float* times = NULL if arrivals is None else pointer(arrivals, size, rows)
    cdef cnp.npy_intp count = rows
    cdef cnp.ndarray choices = cnp.PyArray_EMPTY(1, &count, cnp.NPY_INT64, 0)
    cdef cnp.ndarray log_probs = vector(rows)
    cdef cnp.int64_t* choice = <cnp.int64_t*>cnp.PyArray_DATA(choices)
    cdef float* log_prob = <float*>cnp.PyArray_DATA(log_probs)
    cdef float most, total, weight, rate, fastest, chosen
    with nogil:
        for r in range(rows):
            most = scores[0]
            for c in range(1, size):
                if not scores[c] <= most:
                    most = scores[c]
            total, fastest, chosen, best = 0, -1, 0, 0
            for c in range(size):
                weight = expf(scores[c] - most)
                total += weight
                rate = weight if times is NULL else weight / max(times[c * rows + r], 1e-30)
                if not rate <= fastest:
                    best, fastest, chosen = c, rate, weight
            choice[r], log_prob[r] = best, logf(chosen / total)
            scores += size
    return choices, log_probs


cdef class Categorical:
    """The gradients of `operations.categorical`."""

    cdef object probs, log_probs, entropies, actions  # [rows, size] twice, [rows], [rows, 1]

    def of_log_prob(self, g):
        cdef long rows = len(self.probs), size = self.probs.shape[1], r, c
        cdef cnp.ndarray gradients = empty(rows, size)
        cdef float* gradient = <float*>cnp.PyArray_DATA(gradients)
        cdef const float* prob = pointer(self.probs, rows, size)
        cdef const cnp.int64_t* action = whole(self.actions, rows)
        g = cnp.PyArray_ContiguousFromAny(g, cnp.NPY_FLOAT32, 1, 1)
        cdef const float* above = pointer(g, rows, 1)
        for r in range(rows):
            for c in range(size):
                gradient[r * size + c] = -prob[r * size + c] * above[r]
            gradient[r * size + action[r]] += above[r]
        return gradients

    def of_entropy(self, g):
        cdef long rows = len(self.probs), size = self.probs.shape[1], r, c, i
        cdef cnp.ndarray gradients = empty(rows, size)
        cdef float* gradient = <float*>cnp.PyArray_DATA(gradients)
        cdef const float* prob = pointer(self.probs, rows, size)
        cdef const float* log_prob = pointer(self.log_probs, rows, size)
        cdef const float* entropy = pointer(self.entropies, rows, 1)
        g = cnp.PyArray_ContiguousFromAny(g, cnp.NPY_FLOAT32, 1, 1)
        cdef const float* above = pointer(g, rows, 1)
        for r in range(rows):
            for c in range(size):
                i = r * size + c
                gradient[i] = -prob[i] * above[r] * (log_prob[i] + entropy[r])
        return gradients


def categorical(logits, actions):
    """As `operations.categorical`."""
    logits, actions = rows_of(logits), cnp.PyArray_ContiguousFromAny(actions, cnp.NPY_INT64, 2, 2)
    cdef long rows = len(logits), size = logits.shape[1], r, c
    cdef const float* x = pointer(logits, rows, size)
    cdef const cnp.int64_t* action = whole(actions, rows)
    cdef cnp.ndarray probs = empty(rows, size), log_probs = empty(rows, size)
    cdef cnp.ndarray taken = vector(rows), entropies = vector(rows)
    cdef float* prob = <float*>cnp.PyArray_DATA(probs)
    cdef float* log_prob = <float*>cnp.PyArray_DATA(log_probs)
    cdef float* chosen = <float*>cnp.PyArray_DATA(taken)
    cdef float* entropy = <float*>cnp.PyArray_DATA(entropies)
    cdef float most, total
    for r in range(rows):
        if not 0 <= action[r] < size:
            raise IndexError(f"an index is not between 0 and {size - 1}")
        most = x[0]
        for c in range(1, size):
            if not x[c] <= most:
                most = x[c]
        total = 0
        for c in range(size):
            prob[c] = expf(x[c] - most)
            total += prob[c]
        entropy[r], most = 0, most + logf(total)
        for c in range(size):
            prob[c] /= total
            log_prob[c] = x[c] - most
            entropy[r] -= prob[c] * log_prob[c]
        chosen[r] = log_prob[action[r]]
        x, prob, log_prob = x + size, prob + size, log_prob + size
    cdef Categorical made = Categorical()
    made.probs, made.log_probs, made.entropies, made.actions = probs, log_probs, entropies, actions
    return (taken, (made.of_log_prob,)), (entropies, (made.of_entropy,))


cdef extern from "kernels.h":
    const int ADD, SUBTRACT, MULTIPLY, DIVIDE, MINIMUM, MAXIMUM, HUBER, SQUARED_ERROR, NEGATE, EXPONENTIAL, SQUARE, CLAMP, MEAN, SUM

OPERATIONS = {
    "add": ADD, "sub": SUBTRACT, "mul": MULTIPLY, "div": DIVIDE, "minimum": MINIMUM, "maximum": MAXIMUM, "neg": NEGATE,
    "exp": EXPONENTIAL, "square": SQUARE, "smooth_l1_loss": HUBER, "mse_loss": SQUARED_ERROR,
}
cdef object made, entered, gradients_wanted, tensor, float32, otherwise
cdef dict functions


def connect(kind, record, wanted, tensor_kind, tensor_type, dict known, dict left):
    """Tell this module what it cannot import.

    Args:
        kind: the class of results, `Recorded`.
        record: the context variable of the record that is entered.
        wanted: whether gradients are, `torch.is_grad_enabled`.
        tensor_kind, tensor_type: `torch.Tensor`, `torch.float32`.
        known: names in `OPERATIONS` by torch's functions.
        left: methods of `kind` by name, for what is not computed here.
    """
    global made, entered, gradients_wanted, tensor, float32, functions, otherwise
    made, entered, gradients_wanted = kind, record, wanted
    tensor, float32, otherwise = tensor_kind, tensor_type, left
    functions = {function: OPERATIONS[name] for function, name in known.items()}


def call(function, tuple args, dict options):
    """The result of torch's function, recorded; None where it is not computed here."""
    code = functions.get(function)
    if code is None:
        return None
    cdef int operation = code
    if operation == HUBER or operation == SQUARED_ERROR:
        return loss(operation, args, options)
    if options:
        return None
    if len(args) == 2 and operation < NEGATE:
        return operated(operation, args[0], args[1])
    return operated(operation, args[0], None) if len(args) == 1 and operation >= NEGATE else None


cdef object loss(int operation, tuple args, dict options):
    """The errors of an input and a target of its shape, or their mean."""
    if len(args) != 2 or getattr(args[0], "shape", None) != getattr(args[1], "shape", None):
        return None
    for name, value in options.items():
        if value is not None and name != "reduction" and not (name == "beta" and value == 1.0):
            return None
    reduction = options.get("reduction", "mean")
    if reduction != "mean" and reduction != "none":
        return None
    errors = operated(operation, args[0], args[1])
    return errors if errors is None or reduction == "none" else operated(MEAN, errors, None)


cdef object operand(value):
    """The numbers of an operand: an array, or one of Python's; None where they are not for here."""
    if isinstance(value, Arithmetic):
        array = None if (<Arithmetic>value)._tensor is not None else (<Arithmetic>value).array
    elif type(value) is float or type(value) is int:
        return value
    elif type(value) is tensor and value.dtype is float32 and value.is_cpu and not value.requires_grad:
        array = value.numpy()
    else:
        return None
    return array if is_plain(array) else None


cdef inline bint is_plain(array):
    """Whether it is a contiguous array of float32."""
    if not cnp.PyArray_Check(array) or cnp.PyArray_TYPE(<cnp.ndarray>array) != cnp.NPY_FLOAT32:
        return False
    return cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>array)


cdef cnp.ndarray like(array):
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), cnp.NPY_FLOAT32, 0)


cdef const float* numbers(value, float* one):
    """Where an operand's numbers are, of which one of Python's is put into `one`."""
    if cnp.PyArray_Check(value):
        return <const float*>cnp.PyArray_DATA(<cnp.ndarray>value)
    one[0] = <float><double>value
    return one


cdef object operated(int operation, a, b, double low=0, double high=0):
    """The result of an operation on one or two operands, recorded; None where it is not computed here."""
    record = get_value(entered)
    if record is None or not gradients_wanted():
        return None
    x, y = operand(a), 0.0 if b is None else operand(b)
    if x is None or y is None:
        return None
    shaped = x if cnp.PyArray_Check(x) else y
    if not cnp.PyArray_Check(shaped):
        return None
    if cnp.PyArray_Check(x) and cnp.PyArray_Check(y) and not cnp.PyArray_SAMESHAPE(x, y):
        return None
    cdef long size = cnp.PyArray_SIZE(shaped)
    if operation >= MEAN and size == 0:
        return None
    cdef cnp.ndarray result = cnp.PyArray_EMPTY(0, NULL, cnp.NPY_FLOAT32, 0) if operation >= MEAN else like(shaped)
    cdef float ones[2]
    cdef float bounds[2]
    bounds[0], bounds[1] = low, high
    cdef const float* second = numbers(y, &ones[1])
    if operation == CLAMP:
        second = &bounds[0]
    operate(operation, size, numbers(x, &ones[0]), cnp.PyArray_Check(x), second, cnp.PyArray_Check(y),
            <float*>cnp.PyArray_DATA(result))
    cdef Arithmetic recorded = made.__new__(made)
    recorded.array, recorded.operation, recorded.x, recorded.y = result, operation, x, y
    recorded.inputs = (a, b)
    record.steps.append(recorded)
    return recorded


cdef class Arithmetic:
    """The part of `Recorded` that is asked most often, as `recorded.Arithmetic`."""

    cdef public object array, inputs, derivatives, gradient, _leaf, _tensor
    cdef object x, y
    cdef int operation

    def __cinit__(self, *_):
        self.operation = -1

    def __init__(self, array, inputs=(), derivatives=()):
        self.array, self.inputs, self.derivatives = array, inputs, derivatives

    def hand_on(self):
        """Hand on the gradient to what this was computed from."""
        gradient, self.gradient = self.gradient if self._leaf is None else otherwise["received"](self), None
        if gradient is None:
            return
        if self.operation < 0:
            for value, derivative in zip(self.inputs, self.derivatives):
                if derivative is not None and isinstance(value, Arithmetic):
                    (<Arithmetic>value).receive(derivative(gradient))
            return
        if not is_plain(gradient):
            gradient = cnp.PyArray_ContiguousFromAny(gradient, cnp.NPY_FLOAT32, 0, 0)
        for index in range(2):
            value = self.inputs[index]
            if isinstance(value, Arithmetic):
                (<Arithmetic>value).receive(self._gradient_of(index, gradient))

    cdef cnp.ndarray _gradient_of(self, int index, cnp.ndarray gradient):
        cdef cnp.ndarray found = like(self.y if index else self.x)
        cdef float ones[2]
        operate_backward(
            self.operation, index, cnp.PyArray_SIZE(found), <const float*>cnp.PyArray_DATA(gradient),
            numbers(self.x, &ones[0]), cnp.PyArray_Check(self.x), numbers(self.y, &ones[1]),
            cnp.PyArray_Check(self.y), <const float*>cnp.PyArray_DATA(self.array), <float*>cnp.PyArray_DATA(found))
        return found

    cpdef receive(self, gradient):
        """Add to the gradient; one of a broadcast result is summed to this shape."""
        cdef float unused
        if not (is_plain(gradient) and cnp.PyArray_Check(self.array) and cnp.PyArray_SAMESHAPE(gradient, self.array)
                and (self.gradient is None or is_plain(self.gradient))):
            otherwise["receive"](self, gradient)
        elif self.gradient is None:
            self.gradient = gradient
        else:
            added = like(gradient)
            operate(ADD, cnp.PyArray_SIZE(added), numbers(gradient, &unused), 1, numbers(self.gradient, &unused), 1,
                    <float*>cnp.PyArray_DATA(added))
            self.gradient = added

    def received(self):
        """The gradient, with what came through torch; it is taken away."""
        return otherwise["received"](self)

    def __neg__(self):
        result = operated(NEGATE, self, None)
        return otherwise["__neg__"](self) if result is None else result

    def __add__(self, other):
        result = operated(ADD, self, other)
        return otherwise["__add__"](self, other) if result is None else result

    def __radd__(self, other):
        result = operated(ADD, other, self)
        return otherwise["__radd__"](self, other) if result is None else result

    def __sub__(self, other):
        result = operated(SUBTRACT, self, other)
        return otherwise["__sub__"](self, other) if result is None else result

    def __rsub__(self, other):
        result = operated(SUBTRACT, other, self)
        return otherwise["__rsub__"](self, other) if result is None else result

    def __mul__(self, other):
        result = operated(MULTIPLY, self, other)
        return otherwise["__mul__"](self, other) if result is None else result

    def __rmul__(self, other):
        result = operated(MULTIPLY, other, self)
        return otherwise["__rmul__"](self, other) if result is None else result

    def __truediv__(self, other):
        result = operated(DIVIDE, self, other)
        return otherwise["__truediv__"](self, other) if result is None else result

    def __rtruediv__(self, other):
        result = operated(DIVIDE, other, self)
        return otherwise["__rtruediv__"](self, other) if result is None else result

    def exp(self):
        result = operated(EXPONENTIAL, self, None)
        return otherwise["exp"](self) if result is None else result

    def square(self):
        result = operated(SQUARE, self, None)
        return otherwise["square"](self) if result is None else result

    def clamp(self, *args, **kwargs):
        result = None
        if not kwargs and len(args) == 2 and type(args[0]) is float and type(args[1]) is float:
            result = operated(CLAMP, self, None, args[0], args[1])
        return otherwise["clamp"](self, *args, **kwargs) if result is None else result

    def gather(self, dim, index):
        result = gathered(self, index) if type(index) is tensor and (dim == 1 or dim == -1) else None
        return otherwise["gather"](self, dim, index) if result is None else result

    def mean(self, *args, **kwargs):
        result = None if args or kwargs else operated(MEAN, self, None)
        return otherwise["mean"](self, *args, **kwargs) if result is None else result

    def sum(self, *args, **kwargs):
        result = None if args or kwargs else operated(SUM, self, None)
        return otherwise["sum"](self, *args, **kwargs) if result is None else result


cdef class Gathered:
    """The gradient of what was gathered from rows."""

    cdef object index
    cdef long columns

    def __call__(self, g):
        """Back to where they were, [rows, columns], from [rows, gathered]."""
        cdef long rows = len(self.index), size = self.index.shape[1], r, i
        cdef cnp.ndarray gradients = empty(rows, self.columns)
        cdef float* gradient = <float*>cnp.PyArray_DATA(gradients)
        cdef const cnp.int64_t* column = whole(self.index, rows * size)
        g = rows_of(g)
        cdef const float* above = pointer(g, rows, size)
        memset(gradient, 0, rows * self.columns * sizeof(float))
        for r in range(rows):
            for i in range(size):
                gradient[r * self.columns + column[r * size + i]] += above[r * size + i]
        return gradients


cdef object gathered(Arithmetic source, index):
    """`torch.gather` from the columns of [rows, columns], recorded; None where it is not computed here."""
    record = get_value(entered)
    x = operand(source)
    if record is None or not gradients_wanted() or x is None or cnp.PyArray_NDIM(x) != 2:
        return None
    index = index.numpy()
    if cnp.PyArray_NDIM(index) != 2 or len(index) != len(x) or cnp.PyArray_TYPE(index) != cnp.NPY_INT64:
        return None
    index = cnp.PyArray_ContiguousFromAny(index, cnp.NPY_INT64, 2, 2)
    cdef long rows = len(index), size = index.shape[1], columns = x.shape[1], r, i
    cdef const cnp.int64_t* column = whole(index, rows * size)
    cdef cnp.ndarray results = empty(rows, size)
    cdef float* result = <float*>cnp.PyArray_DATA(results)
    cdef const float* value = pointer(x, rows, columns)
    for i in range(rows * size):
        if not 0 <= column[i] < columns:
            return None  # torch says better what is wrong
    for r in range(rows):
        for i in range(size):
            result[r * size + i] = value[r * columns + column[r * size + i]]
    cdef Gathered backward = Gathered()
    backward.index, backward.columns = index, columns
    recorded = made(results, (source,), (backward,))
    record.steps.append(recorded)
    return recorded


def standardize(array):
    """As `Batch.standardize`, of [rows]."""
    cdef long size = len(array), i
    cdef const float* x = pointer(array, size, 1)
    cdef cnp.ndarray results = vector(size)
    cdef float* result = <float*>cnp.PyArray_DATA(results)
    cdef double mean = 0, square = 0, scale
    for i in range(size):
        mean += x[i]
    mean /= size
    for i in range(size):
        square += (x[i] - mean) * (x[i] - mean)
    scale = 1.0 / sqrt(square / size + 1e-16)
    for i in range(size):
        result[i] = <float>((x[i] - mean) * scale)
    return results
