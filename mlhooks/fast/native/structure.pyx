# cython: language_level=3, boundscheck=False, wraparound=False
"""The comparison of modules with what they were."""

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject


def is_same(list modules, list inside, list hooks, list places, list memory):
    """Return whether modules are made of the same parts as before.

    Args:
        modules: (module, its class).
        inside: (dictionary of the modules inside a module, these modules in a list).
        hooks: dictionaries that must be empty.
        places: (dictionary, key, the object that must be there, or None if nothing or None may be).
        memory: (parameter, the address of its numbers).
    """
    cdef PyObject* found
    cdef Py_ssize_t n
    for dictionary in hooks:
        if len(dictionary):
            return False
    for module, kind in modules:
        if type(module) is not kind:
            return False
    for dictionary, before in inside:
        if len(dictionary) != len(before):
            return False
        n = 0
        for part in dictionary.values():
            if part is not (<list>before)[n]:
                return False
            n += 1
    for dictionary, key, value in places:
        found = PyDict_GetItem(dictionary, key)
        if found is not <PyObject*>value and not (found is NULL and value is None):
            return False
    for parameter, address in memory:
        if parameter.data_ptr() != address:
            return False
    return True


def are_in_place(list parameters, list gradients):
    """Return whether each parameter has a certain tensor as its `.grad`, to which anybody may add without telling torch.

    Args:
        parameters: the parameters.
        gradients: these tensors.
    """
    cdef Py_ssize_t n
    for n in range(len(parameters)):
        parameter = parameters[n]
        if parameter.grad is not gradients[n] or not parameter.requires_grad:
            return False
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return False
    return True


def has_gradient_hooks(list parameters):
    """Return whether something waits for the gradient of one of these parameters."""
    for parameter in parameters:
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return True
    return False
