# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernels for rows of experience, of which each step handles a few."""

from libc.stdint cimport int64_t
from libc.string cimport memmove

cimport numpy as cnp
from mlhooks.fast.native.arrays cimport empty, is_plain, pointer, plain, vector, whole
from mlhooks.fast.native.loops cimport loops

cnp.import_array()

ctypedef cnp.int64_t integer

cdef enum:  # as `store.End`
    NONE = 0
    TERMINAL = 1
    INTERRUPTED = 2
    HORIZON = 3

cdef enum:
    MOST = 8  # dimensions of a column
    WORKER_BITS = 32  # It must equal `store.WORKER_BITS`.


cdef const cnp.int8_t* ends_of(store, long rows) except NULL:
    """Return the memory of the ends, of which there must be one for each row."""
    ends = store.end
    if not cnp.PyArray_Check(ends) or cnp.PyArray_TYPE(ends) != cnp.NPY_INT8 or not cnp.PyArray_ISCARRAY_RO(ends):
        raise TypeError("not a contiguous array of int8")
    if cnp.PyArray_SIZE(ends) < rows:
        raise ValueError("rows without an end")
    return <const cnp.int8_t*>cnp.PyArray_DATA(ends)


cdef bint is_row(array) except -1:
    """Return whether a value is a contiguous float32 array of one dimension."""
    return is_plain(array) and cnp.PyArray_NDIM(array) == 1


def have_rows(columns, Py_ssize_t rows):
    """Compute what `step_checks.have_rows` does."""
    for column in columns:
        if len(column) != rows:
            return False
    return True


def all_finite(arrays):
    """Compute what `step_checks.all_finite` does, for bytes, contiguous float32 and images with channels last."""
    for array in arrays:
        if not cnp.PyArray_Check(array):
            return NotImplemented
        if cnp.PyArray_TYPE(array) == cnp.NPY_UINT8:
            continue
        if cnp.PyArray_NDIM(array) == 4 and not is_plain(array):
            array = array.transpose(0, 2, 3, 1)
        if not is_plain(array):
            return NotImplemented
        if not loops.are_finite(cnp.PyArray_SIZE(array), <const float*>cnp.PyArray_DATA(<cnp.ndarray>array)):
            return False
    return True


def decided(returns, lengths, slots, rewards):
    """Compute what `episodes.decided` does."""
    if not is_row(rewards) or cnp.PyArray_TYPE(returns) != cnp.NPY_FLOAT64 or not cnp.PyArray_ISCARRAY(returns):
        return NotImplemented
    cdef long agents = len(slots), size = len(returns), i
    cdef const integer* slot = whole(slots, agents)
    cdef double* total = <double*>cnp.PyArray_DATA(returns)
    cdef integer* length = whole(lengths, size)
    cdef const float* reward = pointer(rewards, agents, 1)
    for i in range(agents):
        if not 0 <= slot[i] < size:
            raise IndexError("a slot is beyond the reserved ones")
        total[slot[i]] += reward[i]
        length[slot[i]] += 1


def open_rows(store, slots, steps, integer worker):
    """Compute what `ExperienceStore._open` does."""
    cdef long i
    rewards, group_rewards, groups = steps.reward, steps.group_reward, steps.group_id
    if not (is_row(rewards) and is_row(group_rewards)):
        return NotImplemented
    if not cnp.PyArray_Check(groups) or cnp.PyArray_TYPE(groups) != cnp.NPY_INT32:
        return NotImplemented
    if not cnp.PyArray_ISCARRAY_RO(groups) or cnp.PyArray_SIZE(groups) != len(slots):
        return NotImplemented
    cdef long agents = len(slots), size = len(store.open_row), rows = len(store.reward)
    cdef integer slot, row, new = store.size, clock = store.clock, horizon = store.time_horizon
    cdef integer trajectories = store.trajectories, complete = 0
    cdef const integer* slot_of = whole(slots, agents)
    cdef const float* reward_of = pointer(rewards, agents, 1)
    cdef const float* group_reward_of = pointer(group_rewards, agents, 1)
    cdef bint grouped = store.grouped
    cdef integer* open_row = whole(store.open_row, size)
    cdef integer* slot_trajectory = whole(store.slot_trajectory, size)
    cdef integer* slot_length = whole(store.slot_length, size)
    cdef float* reward = pointer(store.reward, rows, 1)
    cdef float* group_reward = pointer(store.group_reward, rows, 1)
    cdef integer* successor = whole(store.successor, rows)
    cdef integer* slots_of = whole(store.slot, rows)
    cdef integer* trajectory = whole(store.trajectory, rows)
    cdef integer* tick = whole(store.tick, rows)
    cdef integer* group = whole(store.group, rows)
    cdef const cnp.int32_t* group_of = <const cnp.int32_t*>cnp.PyArray_DATA(<cnp.ndarray>groups)
    cdef cnp.int8_t* end = <cnp.int8_t*>ends_of(store, rows)
    if new + agents > rows:
        raise IndexError("the store has no space for the new rows")
    for i in range(agents):
        if not 0 <= slot_of[i] < size or open_row[slot_of[i]] >= rows:
            raise IndexError("a slot is beyond the reserved ones, or its row beyond the store")
        grouped |= group_reward_of[i] != 0
    for i in range(agents):
        slot = slot_of[i]
        row = open_row[slot]
        if row >= 0:
            reward[row], successor[row] = reward_of[i], new
            if grouped:
                group_reward[row] = group_reward_of[i]
            complete += 1
        if row < 0 or slot_length[slot] >= horizon:
            if row >= 0:
                end[row] = HORIZON
            slot_trajectory[slot], slot_length[slot] = trajectories, 0
            trajectories += 1
        slots_of[new], trajectory[new], tick[new] = slot, slot_trajectory[slot], clock
        group[new] = group_of[i] + (worker << WORKER_BITS) if group_of[i] > 0 else 0
        slot_length[slot] += 1
        open_row[slot] = new
        new += 1
    store.complete += complete
    store.trajectories, store.size, store.grouped = trajectories, new, bool(grouped)


def needs_finals(store, ignores_ends):
    """Compute what `advantages.needs_finals` does."""
    cdef long rows = store.size, row
    cdef const cnp.int8_t* end = ends_of(store, rows)
    cdef bint any_ignores = bool(ignores_ends.any())
    for row in range(rows):
        if end[row] == INTERRUPTED or (any_ignores and end[row] == TERMINAL):
            return True
    return False


def next_values(store, values, final_values, ignores_ends):
    """Compute what `advantages.next_values` does."""
    cdef long rows = store.size, signals = values.shape[1], finals = len(final_values), row, s, source
    if not (is_plain(values) and is_plain(final_values)):
        return NotImplemented
    cdef const integer* successor = whole(store.successor[:rows], rows)
    cdef const integer* final = whole(store.final[:rows], rows)
    cdef const cnp.int8_t* end = ends_of(store, rows)
    cdef const cnp.npy_bool* ignores = <const cnp.npy_bool*>bools(ignores_ends, signals)
    cdef const float* value = pointer(values, rows, signals)
    cdef const float* final_value = pointer(final_values, finals, signals)
    cdef cnp.ndarray results = empty(rows, signals)
    cdef float* following = <float*>cnp.PyArray_DATA(results)
    for row in range(rows):
        for s in range(signals):
            following[s] = 0
            if end[row] == INTERRUPTED or (end[row] == TERMINAL and ignores[s]):
                if not 0 <= final[row] < finals:
                    raise IndexError("a final observation without a value")
                following[s] = final_value[final[row] * signals + s]
            elif successor[row] >= 0:
                if successor[row] >= rows:
                    raise IndexError("a successor that is not in use")
                following[s] = value[successor[row] * signals + s]
        following += signals
    return results


def generalized_advantages(store, rewards, values, following, gamma, double lambd):
    """Compute what `advantages.generalized_advantages` does, where a successor comes after its row."""
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
            raise IndexError("a successor comes before its row")
        for s in range(signals):
            i, total = row * signals + s, 0
            if successor[row] >= 0 or end[row] != NONE:
                total = reward[i] + discount[s] * after[i] - value[i]
            if successor[row] >= 0 and end[row] == NONE:
                total += discount[s] * lambd * advantage[successor[row] * signals + s]
            advantage[i] = total
    return results


def overwrite(store, long start, long stop):
    """Compute what `replay.overwrite` does."""
    cdef long capacity = len(store.successor), size = len(store.open_row), row
    cdef integer* successor = whole(store.successor, capacity)
    cdef integer* final = whole(store.final, capacity)
    cdef const integer* slot = whole(store.slot, capacity)
    cdef integer* open_row = whole(store.open_row, size)
    cdef cnp.ndarray ends = store.end
    cdef cnp.int8_t* end = <cnp.int8_t*>cnp.PyArray_DATA(ends)
    cdef cnp.npy_bool* group_ended = <cnp.npy_bool*>bools(store.group_ended, capacity)
    cdef list finals = []
    if not 0 <= start <= stop <= min(capacity, len(ends)):
        raise IndexError("rows that do not exist")
    for row in range(start, stop):
        if final[row] >= 0:
            finals.append(final[row])
        if 0 <= slot[row] < size and open_row[slot[row]] == row:
            open_row[slot[row]] = -1
        end[row], successor[row], final[row], group_ended[row] = NONE, -1, -1, False
    return finals


def draw(store, places, rng):
    """Compute what `replay.draw` does, where all rows are complete."""
    cdef long count = len(places), capacity = len(store.successor), i
    cdef double filled = store.filled
    cdef const integer* successor = whole(store.successor, capacity)
    cdef const cnp.int8_t* end = ends_of(store, capacity)
    if cnp.PyArray_TYPE(places) != cnp.NPY_FLOAT64 or not cnp.PyArray_ISCARRAY_RO(places):
        raise TypeError("not a contiguous array of float64")
    cdef const double* place = <const double*>cnp.PyArray_DATA(places)
    cdef cnp.ndarray rows = integers(count, 0)
    cdef integer* row = <integer*>cnp.PyArray_DATA(rows)
    for i in range(count):
        row[i] = <integer>(place[i] * filled)
        if not 0 <= row[i] < capacity:
            raise IndexError("a row that does not exist")
        if successor[row[i]] < 0 and end[row[i]] == NONE:
            return NotImplemented
    return rows


def transitions(store, rows, powers, ignores_ends):
    """Compute what `replay.transitions` does."""
    rows = cnp.PyArray_ContiguousFromAny(rows, cnp.NPY_INT64, 1, 1)
    cdef long count = len(rows), capacity = len(store.successor), n = len(powers) - 1, i, k, length
    cdef long signals = powers.shape[1], s
    cdef const integer* row = whole(rows, count)
    cdef const integer* successor = whole(store.successor, capacity)
    cdef const integer* final = whole(store.final, capacity)
    cdef const float* power = pointer(powers, n + 1, signals)
    cdef const cnp.npy_bool* ignores = bools(ignores_ends, signals)
    cdef const cnp.int8_t* end = ends_of(store, capacity)
    cdef cnp.ndarray steps = integers(count, n), next_rows = integers(count, 0), finals = integers(count, 0)
    cdef cnp.ndarray discounts = empty(count, signals)
    cdef integer* step = <integer*>cnp.PyArray_DATA(steps)
    cdef integer* last = <integer*>cnp.PyArray_DATA(next_rows)
    cdef integer* shown = <integer*>cnp.PyArray_DATA(finals)
    cdef float* discount = <float*>cnp.PyArray_DATA(discounts)
    cdef integer at
    cdef bint are_shown = False, ignored = False, goes_on, terminal
    for s in range(signals):
        ignored |= ignores[s]
    for i in range(count):
        at, length, shown[i], terminal = row[i], 0, -1, False
        for k in range(n):
            if not -1 <= at < capacity:
                raise IndexError("a row that does not exist")
            if at < 0 or (successor[at] < 0 and end[at] == NONE):
                step[i * n + k] = -1
                continue
            step[i * n + k] = at
            length += 1
            terminal = end[at] == TERMINAL
            if end[at] == INTERRUPTED or (terminal and ignored):
                shown[i] = final[at]
            at = successor[at]
        last[i] = at
        are_shown |= shown[i] >= 0
        goes_on = at >= 0 or shown[i] >= 0
        for s in range(signals):
            discount[i * signals + s] = power[length * signals + s] if goes_on and (ignores[s] or not terminal) else 0
    return steps, discounts, next_rows, finals if are_shown else None


def put(columns, rows, arrays):
    """Compute what `store.put` does."""
    cdef long start = rows.start, stop = rows.stop
    cdef Py_ssize_t size
    for column, array in zip(columns, arrays, strict=True):
        if are_alike(column, array) and 0 <= start < stop <= len(column) and len(array) == stop - start:
            size = cnp.PyArray_NBYTES(array)
            memmove(cnp.PyArray_BYTES(column) + start * (size // (stop - start)), cnp.PyArray_DATA(array), size)
        else:
            column[start:stop] = array


def move_to_front(columns, long start, long rows):
    """Compute what `store.move_to_front` does."""
    cdef Py_ssize_t size
    for column in columns:
        if cnp.PyArray_Check(column) and cnp.PyArray_ISCARRAY(column) and 0 < start + rows <= len(column) and start >= 0:
            size = cnp.PyArray_NBYTES(column) // len(column)
            memmove(cnp.PyArray_DATA(column), cnp.PyArray_BYTES(column) + start * size, rows * size)
        else:
            column[:rows] = column[start:start + rows]


cdef bint are_alike(column, array) except -1:
    """Return whether two contiguous arrays of numbers have one type, and equal shapes but for the first dimension."""
    if not (cnp.PyArray_Check(column) and cnp.PyArray_Check(array)):
        return False
    cdef cnp.ndarray a = column, b = array
    cdef int dimension, dimensions = cnp.PyArray_NDIM(a)
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b) or not cnp.PyArray_ISNUMBER(a):
        return False
    if dimensions == 0 or dimensions != cnp.PyArray_NDIM(b):
        return False
    if not (cnp.PyArray_ISCARRAY(a) and cnp.PyArray_ISCARRAY_RO(b)):
        return False
    for dimension in range(1, dimensions):
        if cnp.PyArray_DIM(a, dimension) != cnp.PyArray_DIM(b, dimension):
            return False
    return True


def take(columns, rows):
    """Compute what `store.take` does, for columns of numbers."""
    rows = cnp.PyArray_ContiguousFromAny(rows, cnp.NPY_INT64, 1, 1)
    cdef long count = len(rows), least = 0, greatest = -1, capacity, i
    cdef size_t size
    cdef integer* row = whole(rows, count)
    cdef cnp.ndarray column, copies
    cdef cnp.npy_intp shape[MOST]
    cdef list taken = []
    for i in range(count):
        least, greatest = min(least, row[i]), max(greatest, row[i])
    for column in columns:
        if not (0 < cnp.PyArray_NDIM(column) <= MOST and cnp.PyArray_ISCARRAY_RO(column)):
            taken.append(column[rows])
            continue
        capacity = cnp.PyArray_DIM(column, 0)
        if least < -1 or greatest >= capacity or capacity == 0 < count:
            raise IndexError("a row that does not exist")
        shape[0] = count
        size = cnp.PyArray_ITEMSIZE(column)
        for i in range(1, cnp.PyArray_NDIM(column)):
            shape[i] = cnp.PyArray_DIM(column, i)
            size *= shape[i]
        copies = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(column), shape, cnp.PyArray_TYPE(column), 0)
        loops.gather(count, <const int64_t*>row, capacity - 1, size, <const char*>cnp.PyArray_DATA(column),
                     <char*>cnp.PyArray_DATA(copies))
        taken.append(copies)
    return taken


cdef const cnp.npy_bool* bools(array, long size) except NULL:
    """Return the memory of an array of that many bools, of which there must be one at least."""
    if not cnp.PyArray_Check(array) or cnp.PyArray_TYPE(array) != cnp.NPY_BOOL or not cnp.PyArray_ISCARRAY_RO(array):
        raise TypeError("not a contiguous array of bools")
    if cnp.PyArray_SIZE(array) != size:
        raise ValueError("an array of another size")
    return <const cnp.npy_bool*>cnp.PyArray_DATA(array)


cdef cnp.ndarray integers(long rows, long columns):
    """Return an int64 array [rows, columns], or [rows] where `columns` is 0."""
    cdef cnp.npy_intp shape[2]
    shape[0], shape[1] = rows, columns
    return cnp.PyArray_EMPTY(2 if columns else 1, shape, cnp.NPY_INT64, 0)
