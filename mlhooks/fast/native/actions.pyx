# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernels for discrete actions: choices, their log-probabilities and entropies."""

from libc.math cimport expf, logf

cimport numpy as cnp
from mlhooks.fast.native.arrays cimport empty, pointer, plain, whole

cnp.import_array()


def are_indices(actions, sizes):
    """Compute what `actions.are_indices` does."""
    cdef long rows = len(actions), branches = len(sizes), r, b
    if not cnp.PyArray_Check(actions) or cnp.PyArray_TYPE(actions) != cnp.NPY_INT32:
        return NotImplemented
    if not cnp.PyArray_ISCARRAY_RO(actions) or cnp.PyArray_SIZE(actions) != rows * branches:
        return NotImplemented
    cdef const cnp.int32_t* action = <const cnp.int32_t*>cnp.PyArray_DATA(actions)
    cdef long size
    for b in range(branches):
        size = sizes[b]
        for r in range(rows):
            if not 0 <= action[r * branches + b] < size:
                return False
    return True


def choose(logits, arrivals):
    """Compute what `heads.choose` does."""
    logits = plain(logits, 2)
    cdef long rows = len(logits), size = logits.shape[1], r, c, best
    if size == 0:
        raise ValueError("a choice among no categories")
    cdef const float* scores = pointer(logits, rows, size)
    cdef const float* times = NULL if arrivals is None else pointer(arrivals, size, rows)
    cdef cnp.npy_intp count = rows
    cdef cnp.ndarray choices = cnp.PyArray_EMPTY(1, &count, cnp.NPY_INT64, 0)
    cdef cnp.ndarray log_probs = empty(rows, 1)
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
    """The derivatives of `categorical`."""

    cdef object probs, log_probs, entropies, actions  # [rows, size] twice, [rows, 1] twice

    def of_log_prob(self, g):
        cdef long rows = len(self.probs), size = self.probs.shape[1], r, c
        cdef cnp.ndarray gradients = empty(rows, size)
        cdef float* gradient = <float*>cnp.PyArray_DATA(gradients)
        cdef const float* prob = pointer(self.probs, rows, size)
        cdef const cnp.int64_t* action = whole(self.actions, rows)
        g = plain(g, 2)
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
        g = plain(g, 2)
        cdef const float* above = pointer(g, rows, 1)
        for r in range(rows):
            for c in range(size):
                i = r * size + c
                gradient[i] = -prob[i] * above[r] * (log_prob[i] + entropy[r])
        return gradients


def categorical(logits, actions):
    """Return log-probabilities of actions [rows, 1] and entropies, each [rows, 1], for logits [rows, size].

    Each comes with a function that maps its gradient to that of the logits.
    """
    logits, actions = plain(logits, 2), cnp.PyArray_ContiguousFromAny(actions, cnp.NPY_INT64, 2, 2)
    cdef long rows = len(logits), size = logits.shape[1], r, c
    cdef const float* x = pointer(logits, rows, size)
    cdef const cnp.int64_t* action = whole(actions, rows)
    cdef cnp.ndarray probs = empty(rows, size), log_probs = empty(rows, size)
    cdef cnp.ndarray taken = empty(rows, 1), entropies = empty(rows, 1)
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
