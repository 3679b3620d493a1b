"""A module of an environment, as PettingZoo's are."""

from __future__ import annotations

from builtin_plugins.pettingzoo_samples import Hunt


class Own(Hunt):
    """A class of one's own."""


def env(**arguments):
    raise AssertionError("all agents act at once where that is offered")


def parallel_env(**arguments):
    """Make the environment."""
    return Own(**arguments)
