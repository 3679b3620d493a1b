# cython: language_level=3
"""The choice among the loops for several kinds of processors."""

from mlhooks.fast.native.loops cimport Loops

cdef extern from "loops.h" nogil:
    enum: MOST_KINDS
    long usable_loops(const Loops** found)

cdef const Loops* found[MOST_KINDS]
cdef long count = usable_loops(found)
loops = found[0]


def kinds():
    """What this processor can run, the fastest first."""
    return [found[index].kind.decode() for index in range(count)]


def use(kind):
    """Have all modules use the loops of one of these kinds; for tests."""
    global loops
    loops = found[kinds().index(kind)]
