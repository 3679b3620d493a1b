# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Rows of experience: what is done to each of a few at every step."""

cimport numpy as cnp
from mlhooks.native.arrays cimport empty, is_plain, pointer, plain, whole

cnp.import_array()

cdef extern from "experience.h" nogil:
    int are_finite(long, const float*)

ctypedef cnp.int64_t integer

cdef enum:  # as `store.End`
    NONE = 0
    INTERRUPTED = 2
    HORIZON = 3


cdef const cnp.int8_t* ends_of(store, long rows) except NULL:
    """Where the ends of at least so many rows are."""
    ends = store.end
    if not cnp.PyArray_Check(ends) or cnp.PyArray_TYPE(ends) != cnp.NPY_INT8 or not cnp.PyArray_ISCARRAY_RO(ends):
        raise TypeError("not a contiguous array of int8")
    if cnp.PyArray_SIZE(ends) < rows:
        raise ValueError("rows without an end")
    return <const cnp.int8_t*>cnp.PyArray_DATA(ends)


def all_finite(array):
    """Whether all numbers of a contiguous float32 array are; False for others, too."""
    if not is_plain(array):
        return False
    return are_finite(cnp.PyArray_SIZE(array), <const float*>cnp.PyArray_DATA(<cnp.ndarray>array)) != 0


def decided(returns, lengths, slots, rewards):
    """Add to returns [slots] and lengths [slots]; False where that is for numpy."""
    if not is_plain(rewards) or cnp.PyArray_NDIM(rewards) != 1 or cnp.PyArray_TYPE(returns) != cnp.NPY_FLOAT64:
        return False
    if not cnp.PyArray_ISCARRAY(returns):
        return False
    cdef long agents = len(slots), size = len(returns), i
    cdef const integer* slot = whole(slots, agents)
    cdef double* total = <double*>cnp.PyArray_DATA(returns)
    cdef integer* length = whole(lengths, size)
    cdef const float* reward = pointer(rewards, agents, 1)
    for i in range(agents):
        if not 0 <= slot[i] < size:
            raise IndexError("a slot without room")
        total[slot[i]] += reward[i]
        length[slot[i]] += 1
    return True


def open_rows(store, slots, rewards):
    """`ExperienceStore._open`, where there are no group rewards; False where that is for numpy."""
    if not is_plain(rewards) or cnp.PyArray_NDIM(rewards) != 1:
        return False
    cdef long agents = len(slots), size = len(store.open_row), rows = len(store.reward), i
    cdef integer slot, row, new = store.size, clock = store.clock, horizon = store.time_horizon
    cdef integer trajectories = store.trajectories, complete = 0
    cdef const integer* slot_of = whole(slots, agents)
    cdef const float* reward_of = pointer(rewards, agents, 1)
    cdef integer* open_row = whole(store.open_row, size)
    cdef integer* slot_trajectory = whole(store.slot_trajectory, size)
    cdef integer* slot_length = whole(store.slot_length, size)
    cdef float* reward = pointer(store.reward, rows, 1)
    cdef integer* successor = whole(store.successor, rows)
    cdef integer* slots_of = whole(store.slot, rows)
    cdef integer* trajectory = whole(store.trajectory, rows)
    cdef integer* tick = whole(store.tick, rows)
    cdef cnp.int8_t* end = <cnp.int8_t*>ends_of(store, rows)
    if new + agents > rows:
        raise IndexError("no room for new rows")
    for i in range(agents):
        if not 0 <= slot_of[i] < size or open_row[slot_of[i]] >= rows:
            raise IndexError("a slot without room")
    for i in range(agents):
        slot = slot_of[i]
        row = open_row[slot]
        if row >= 0:
            reward[row], successor[row] = reward_of[i], new
            complete += 1
        if row < 0 or slot_length[slot] >= horizon:
            if row >= 0:
                end[row] = HORIZON
            slot_trajectory[slot], slot_length[slot] = trajectories, 0
            trajectories += 1
        slots_of[new], trajectory[new], tick[new] = slot, slot_trajectory[slot], clock
        slot_length[slot] += 1
        open_row[slot] = new
        new += 1
    store.complete += complete
    store.trajectories, store.size = trajectories, new
    return True


def generalized_advantages(store, rewards, values, following, gamma, double lambd):
    """As `advantages.generalized_advantages`; rows follow those that they succeed."""
    cdef long rows = store.size, signals = values.shape[1], row, s, i
    cdef const integer* successor = whole(store.successor[:rows], rows)
    cdef const cnp.int8_t* end = ends_of(store, rows)
    rewards, values, following = plain(rewards, 2), plain(values, 2), plain(following, 2)
    gamma = plain(gamma, 1)
    cdef const float* reward = pointer(rewards, rows, signals)
    cdef const float* value = pointer(values, rows, signals)
    cdef const float* after = pointer(following, rows, signals)
    cdef const float* discount = pointer(gamma, signals, 1)
    cdef cnp.ndarray results = empty(rows, signals)
    cdef float* advantage = <float*>cnp.PyArray_DATA(results)
    cdef double total
    for row in range(rows - 1, -1, -1):
        if successor[row] >= 0 and not row < successor[row] < rows:
            raise IndexError("a row that is not after the one that it succeeds")
        for s in range(signals):
            i, total = row * signals + s, 0
            if successor[row] >= 0 or end[row] != NONE:
                total = reward[i] + discount[s] * after[i] - value[i]
            if successor[row] >= 0 and end[row] == NONE:
                total += discount[s] * lambd * advantage[successor[row] * signals + s]
            advantage[i] = total
    return results


def overwrite(store, long start, long stop):
    """Free rows from start to stop of their agents, and make them what new rows begin with; returns their finals."""
    cdef long room = len(store.successor), size = len(store.open_row), row
    cdef integer* successor = whole(store.successor, room)
    cdef integer* final = whole(store.final, room)
    cdef const integer* slot = whole(store.slot, room)
    cdef integer* open_row = whole(store.open_row, size)
    cdef cnp.ndarray ends = store.end
    cdef cnp.int8_t* end = <cnp.int8_t*>cnp.PyArray_DATA(ends)
    cdef list finals = []
    if not 0 <= start <= stop <= min(room, len(ends)):
        raise IndexError("rows that do not exist")
    for row in range(start, stop):
        if final[row] >= 0:
            finals.append(final[row])
        if 0 <= slot[row] < size and open_row[slot[row]] == row:
            open_row[slot[row]] = -1
        end[row], successor[row], final[row] = NONE, -1, -1
    return finals


def is_complete(store, rows):
    """As `ReplayBuffer.is_complete`, of int64 rows, -1 for none."""
    cdef long count = len(rows), room = len(store.successor), i
    cdef const integer* row = whole(rows, count)
    cdef const integer* successor = whole(store.successor, room)
    cdef const cnp.int8_t* end = ends_of(store, room)
    cdef cnp.npy_intp size = count
    cdef cnp.ndarray results = cnp.PyArray_EMPTY(1, &size, cnp.NPY_BOOL, 0)
    cdef cnp.npy_bool* result = <cnp.npy_bool*>cnp.PyArray_DATA(results)
    for i in range(count):
        if not -1 <= row[i] < room:
            raise IndexError("a row that does not exist")
        result[i] = row[i] >= 0 and (successor[row[i]] >= 0 or end[row[i]] != NONE)
    return results


def transitions(store, rows, long n):
    """As `ReplayBuffer.transitions`, of int64 rows."""
    cdef long count = len(rows), room = len(store.successor), i, k
    cdef const integer* row = whole(rows, count)
    cdef const integer* successor = whole(store.successor, room)
    cdef const integer* final = whole(store.final, room)
    cdef cnp.ndarray ends = store.end
    cdef const cnp.int8_t* end = <const cnp.int8_t*>cnp.PyArray_DATA(ends)
    cdef cnp.ndarray steps = integers(count, n), lengths = integers(count, 0)
    cdef cnp.ndarray next_rows = integers(count, 0), finals = integers(count, 0)
    cdef integer* step = <integer*>cnp.PyArray_DATA(steps)
    cdef integer* length = <integer*>cnp.PyArray_DATA(lengths)
    cdef integer* last = <integer*>cnp.PyArray_DATA(next_rows)
    cdef integer* shown = <integer*>cnp.PyArray_DATA(finals)
    cdef integer at
    for i in range(count):
        at, length[i], shown[i] = row[i], 0, -1
        for k in range(n):
            if not -1 <= at < room:
                raise IndexError("a row that does not exist")
            if at < 0 or (successor[at] < 0 and end[at] == NONE):
                step[i * n + k] = -1
                continue
            step[i * n + k] = at
            length[i] += 1
            if end[at] == INTERRUPTED:
                shown[i] = final[at]
            at = successor[at]
        last[i] = at
    return steps, lengths, next_rows, finals


cdef cnp.ndarray integers(long rows, long columns):
    """An array [rows, columns], or [rows] with no columns."""
    cdef cnp.npy_intp shape[2]
    shape[0], shape[1] = rows, columns
    return cnp.PyArray_EMPTY(2 if columns else 1, shape, cnp.NPY_INT64, 0)
