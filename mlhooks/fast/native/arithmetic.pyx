# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The operations that losses use most often, with their gradients."""

from cpython.contextvars cimport get_value
from libc.string cimport memset

cimport numpy as cnp
from mlhooks.fast.native.arrays cimport empty, is_plain, like, pointer, plain, vector, whole
from mlhooks.fast.native.loops cimport (
    ADD, CLAMP, DIVIDE, EXPONENTIAL, HUBER, MAXIMUM, MEAN, MINIMUM, MULTIPLY, NEGATE, NONE, SQUARE, SQUARED_ERROR,
    SUBTRACT, SUM, loops
)

cnp.import_array()

OPERATIONS = {
    "add": ADD, "sub": SUBTRACT, "mul": MULTIPLY, "div": DIVIDE, "minimum": MINIMUM, "maximum": MAXIMUM, "neg": NEGATE,
    "exp": EXPONENTIAL, "square": SQUARE, "smooth_l1_loss": HUBER, "mse_loss": SQUARED_ERROR,
}
cdef object made, entered, gradients_wanted, tensor, float32, fallbacks
cdef dict functions


def connect(kind, record, wanted, tensor_kind, tensor_type, dict known, dict methods):
    """Set what this module cannot import.

    Args:
        kind: the class of results, `ArrayTensor`.
        record: the context variable of the entered record.
        wanted: `torch.is_grad_enabled`.
        tensor_kind, tensor_type: `torch.Tensor`, `torch.float32`.
        known: names in `OPERATIONS` by torch's functions.
        methods: methods of `kind` by name, which compute what this module does not.
    """
    global made, entered, gradients_wanted, tensor, float32, functions, fallbacks
    made, entered, gradients_wanted = kind, record, wanted
    tensor, float32, fallbacks = tensor_kind, tensor_type, methods
    functions = {function: OPERATIONS[name] for function, name in known.items()}


def call(function, tuple args, dict options):
    """Return the result of torch's function, recorded; None where this module does not compute it."""
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
    """Return the errors of an input and a target of its shape, or their mean."""
    if len(args) != 2 or is_number(args[0]) or is_number(args[1]):
        return None
    for name, value in options.items():
        if value is not None and name != "reduction" and not (name == "beta" and value == 1.0):
            return None
    reduction = options.get("reduction", "mean")
    if reduction != "mean" and reduction != "none":
        return None
    errors = operated(operation, args[0], args[1])
    return errors if errors is None or reduction == "none" else operated(MEAN, errors, None)


cdef inline bint is_number(value):
    return type(value) is float or type(value) is int


cdef object operand(value):
    """Return an operand as an array or a number of Python; None where this module does not support it."""
    if isinstance(value, Arithmetic):
        array = None if (<Arithmetic>value)._tensor is not None else (<Arithmetic>value).array
    elif is_number(value):
        return value
    elif type(value) is tensor and value.dtype is float32 and value.is_cpu and not value.requires_grad:
        try:
            array = value.numpy()
        except (TypeError, RuntimeError):  # Sparse tensors raise these, for example.
            return None
    else:
        return None
    return array if is_plain(array) else None


cdef const float* numbers(value, float* one):
    """Return where an operand's numbers are; a number of Python is put into `one`."""
    if cnp.PyArray_Check(value):
        return <const float*>cnp.PyArray_DATA(<cnp.ndarray>value)
    one[0] = <float><double>value
    return one


cdef object operated(int operation, a, b, double low=0, double high=0):
    """Return the result of an operation on one or two operands; None where this module does not compute it."""
    record = get_value(entered)
    if record is None:
        return None
    x, y = operand(a), operand(b) if operation < NEGATE else 0.0
    if x is None or y is None:
        return None
    shaped = x if cnp.PyArray_Check(x) else y
    if not cnp.PyArray_Check(shaped):
        return None
    if cnp.PyArray_Check(x) and cnp.PyArray_Check(y):
        if not cnp.PyArray_SAMESHAPE(x, y):
            return None
    elif operation == MINIMUM or operation == MAXIMUM:
        return None  # torch.max(x, 1) is something else.
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
    loops.operate(operation, size, numbers(x, &ones[0]), cnp.PyArray_Check(x), second, cnp.PyArray_Check(y),
                  <float*>cnp.PyArray_DATA(result))
    cdef Arithmetic recorded = made.__new__(made)
    recorded.array = result
    recorded.constant = not ((depends(a) or depends(b)) and gradients_wanted())
    if not recorded.constant:
        recorded.operation, recorded.x, recorded.y, recorded.inputs = operation, x, y, (a, b)
        record.steps.append(recorded)
    return recorded


cdef inline bint depends(value):
    """Return whether a value depends on parameters."""
    return isinstance(value, Arithmetic) and not (<Arithmetic>value).constant


cdef class Arithmetic:
    """The base of `ArrayTensor`: the operations that losses use most often."""

    cdef public object array, inputs, derivatives, gradient, _leaf, _tensor
    cdef public bint constant
    cdef object x, y
    cdef int operation  # NONE where derivatives say how

    def __init__(self, array, inputs=(), derivatives=(), constant=False):
        self.array, self.inputs, self.derivatives, self.constant = array, inputs, derivatives, constant

    def propagate(self):
        """Pass the gradient on to the inputs, and clear it."""
        gradient = self.take_gradient()
        if gradient is None:
            return
        if self.operation == NONE:
            for value, derivative in zip(self.inputs, self.derivatives):
                if derivative is not None and depends(value):
                    (<Arithmetic>value).add_gradient(derivative(gradient))
            return
        if not is_plain(gradient):
            gradient = plain(gradient, 0)
        if not cnp.PyArray_SAMESHAPE(gradient, self.array):
            raise ValueError("a gradient has another shape than the result to which it belongs")
        for index in range(2):
            value = self.inputs[index]
            if depends(value):
                (<Arithmetic>value).add_gradient(self._gradient_of(index, gradient))

    cdef cnp.ndarray _gradient_of(self, int index, cnp.ndarray gradient):
        cdef cnp.ndarray found = like(self.y if index else self.x)
        cdef float ones[2]
        loops.operate_backward(
            self.operation, index, cnp.PyArray_SIZE(found), <const float*>cnp.PyArray_DATA(gradient),
            numbers(self.x, &ones[0]), cnp.PyArray_Check(self.x), numbers(self.y, &ones[1]),
            cnp.PyArray_Check(self.y), <const float*>cnp.PyArray_DATA(self.array), <float*>cnp.PyArray_DATA(found))
        return found

    cpdef add_gradient(self, gradient):
        """Add to the gradient; that of a broadcast result is summed to the shape of the array."""
        cdef float unused
        if not (is_plain(gradient) and cnp.PyArray_Check(self.array) and cnp.PyArray_SAMESHAPE(gradient, self.array)
                and (self.gradient is None or is_plain(self.gradient))):
            fallbacks["add_gradient"](self, gradient)
        elif self.gradient is None:
            self.gradient = gradient
        else:
            added = like(gradient)
            loops.operate(ADD, cnp.PyArray_SIZE(added), numbers(gradient, &unused), 1,
                          numbers(self.gradient, &unused), 1, <float*>cnp.PyArray_DATA(added))
            self.gradient = added

    cpdef take_gradient(self):
        """Return the gradient, including what came through torch, and clear it."""
        gradient, self.gradient = self.gradient if self._leaf is None else fallbacks["take_gradient"](self), None
        return gradient

    def __neg__(self):
        result = operated(NEGATE, self, None)
        return fallbacks["__neg__"](self) if result is None else result

    def __add__(self, other):
        result = operated(ADD, self, other)
        return fallbacks["__add__"](self, other) if result is None else result

    def __radd__(self, other):
        result = operated(ADD, other, self)
        return fallbacks["__radd__"](self, other) if result is None else result

    def __sub__(self, other):
        result = operated(SUBTRACT, self, other)
        return fallbacks["__sub__"](self, other) if result is None else result

    def __rsub__(self, other):
        result = operated(SUBTRACT, other, self)
        return fallbacks["__rsub__"](self, other) if result is None else result

    def __mul__(self, other):
        result = operated(MULTIPLY, self, other)
        return fallbacks["__mul__"](self, other) if result is None else result

    def __rmul__(self, other):
        result = operated(MULTIPLY, other, self)
        return fallbacks["__rmul__"](self, other) if result is None else result

    def __truediv__(self, other):
        result = operated(DIVIDE, self, other)
        return fallbacks["__truediv__"](self, other) if result is None else result

    def __rtruediv__(self, other):
        result = operated(DIVIDE, other, self)
        return fallbacks["__rtruediv__"](self, other) if result is None else result

    def exp(self):
        result = operated(EXPONENTIAL, self, None)
        return fallbacks["exp"](self) if result is None else result

    def square(self):
        result = operated(SQUARE, self, None)
        return fallbacks["square"](self) if result is None else result

    def clamp(self, *args, **kwargs):
        result = None
        if not kwargs and len(args) == 2 and type(args[0]) is float and type(args[1]) is float and args[0] <= args[1]:
            result = operated(CLAMP, self, None, args[0], args[1])
        return fallbacks["clamp"](self, *args, **kwargs) if result is None else result

    def gather(self, *args, **kwargs):
        result = None
        if not kwargs and len(args) == 2 and (args[0] == 1 or args[0] == -1):
            result = gathered(self, args[1])
        return fallbacks["gather"](self, *args, **kwargs) if result is None else result

    def amax(self, *args, **kwargs):
        result = largest(self) if self.constant and args == (1,) and not kwargs else None
        return fallbacks["amax"](self, *args, **kwargs) if result is None else result

    def unsqueeze(self, *args, **kwargs):
        result = None
        if self.constant and self._tensor is None and args == (1,) and cnp.PyArray_NDIM(self.array) == 1:
            result = made(self.array.reshape(-1, 1), constant=True)
        return fallbacks["unsqueeze"](self, *args, **kwargs) if result is None else result

    def expand_as(self, other):
        if self.constant and self._tensor is None and isinstance(other, Arithmetic):
            if self.array.shape == (<Arithmetic>other).array.shape:
                return self
        return fallbacks["expand_as"](self, other)

    def mean(self, *args, **kwargs):
        result = None if args or kwargs else operated(MEAN, self, None)
        return fallbacks["mean"](self, *args, **kwargs) if result is None else result

    def sum(self, *args, **kwargs):
        result = None if args or kwargs else operated(SUM, self, None)
        return fallbacks["sum"](self, *args, **kwargs) if result is None else result


cdef class Gathered:
    """The derivative of `gathered`."""

    cdef object index
    cdef long columns

    def __call__(self, g):
        """Return the gradient [rows, columns] of what was gathered from, given that of the result [rows, gathered]."""
        cdef long rows = len(self.index), size = self.index.shape[1], r, i
        cdef cnp.ndarray gradients = empty(rows, self.columns)
        cdef float* gradient = <float*>cnp.PyArray_DATA(gradients)
        cdef const cnp.int64_t* column = whole(self.index, rows * size)
        g = plain(g, 2)
        cdef const float* above = pointer(g, rows, size)
        memset(gradient, 0, rows * self.columns * sizeof(float))
        for r in range(rows):
            for i in range(size):
                gradient[r * self.columns + column[r * size + i]] += above[r * size + i]
        return gradients


cdef object table(Arithmetic source):
    """Return an array [rows, columns], such as some columns of another; None if it is anything else."""
    if get_value(entered) is None or source._tensor is not None or not cnp.PyArray_Check(source.array):
        return None
    if cnp.PyArray_NDIM(source.array) != 2:
        return None
    return plain(source.array, 2)


cdef object gathered(Arithmetic source, index):
    """Gather from the columns of [rows, columns], as `torch.gather`; None where this module does not compute it."""
    record = get_value(entered)
    x = table(source)
    if x is None:
        return None
    if type(index) is not tensor or not index.is_cpu or index.requires_grad:
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
            return None  # torch raises the better error.
    for r in range(rows):
        for i in range(size):
            result[r * size + i] = value[r * columns + column[r * size + i]]
    if source.constant or not gradients_wanted():
        return made(results, constant=True)
    cdef Gathered backward = Gathered()
    backward.index, backward.columns = index, columns
    recorded = made(results, (source,), (backward,))
    record.steps.append(recorded)
    return recorded


cdef object largest(Arithmetic source):
    """Return the largest number of each row of a constant; None where this module does not compute it."""
    x = table(source)
    if x is None or x.shape[1] == 0:
        return None
    cdef long rows = len(x), columns = x.shape[1], r, c
    cdef cnp.ndarray results = vector(rows)
    cdef float* most = <float*>cnp.PyArray_DATA(results)
    cdef const float* value = pointer(x, rows, columns)
    for r in range(rows):
        most[r] = value[r * columns]
        for c in range(1, columns):
            if most[r] == most[r] and not value[r * columns + c] <= most[r]:
                most[r] = value[r * columns + c]
    return made(results, constant=True)
