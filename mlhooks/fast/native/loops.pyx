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
    """Return the kinds of loops that this processor can run, the fastest first."""
    return [found[index].kind.decode() for index in range(count)]


def use(kind):
    """Make all modules use the loops of one of these kinds; tests call it."""
    global loops
    loops = found[kinds().index(kind)]
