# cython: language_level=3
"""The choice between a native function and its plain twin, made at each call."""


def chooser(twin, function, switch):
    """Return a function that calls `twin`; or `function`, where the switch says so or `twin` takes no such arguments."""

    def chosen(*args):
        if switch.plain:
            return function(*args)
        result = twin(*args)
        return function(*args) if result is NotImplemented else result

    return chosen
