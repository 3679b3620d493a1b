"""Class attributes that are made when they are first asked for."""

from __future__ import annotations

from typing import Any


class Deferred:
    """Base of a descriptor that stands for something that takes long to make, such as a model of a package's settings.

    Code that checks a class with such an attribute leaves it alone, and checks the thing itself once it is used.
    """

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Make the thing that it stands for, and return it."""
        raise NotImplementedError
