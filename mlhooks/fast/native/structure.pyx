# cython: language_level=3, boundscheck=False, wraparound=False
"""The comparison of modules with what they were."""

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject


def is_same(list modules, list hooks, list places):
    """Return whether modules are made of the same parts as before.

    Args:
        modules: (module, its class, the dictionary of the modules inside, these modules in a list).
        hooks: dictionaries that must be empty.
        places: (dictionary, key, the object that must be there, or None if nothing or None may be).
    """
    cdef PyObject* found
    cdef Py_ssize_t n
    for dictionary in hooks:
        if len(dictionary):
            return False
    for module, kind, inside, before in modules:
        if type(module) is not kind or len(inside) != len(before):
            return False
        n = 0
        for part in inside.values():
            if part is not (<list>before)[n]:
                return False
            n += 1
    for dictionary, key, value in places:
        found = PyDict_GetItem(dictionary, key)
        if found is not <PyObject*>value and not (found is NULL and value is None):
            return False
    return True
