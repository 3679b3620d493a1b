"""Class attributes that are made when they are first asked for."""

from __future__ import annotations

from typing import Any


class Deferred:
    """Base of a descriptor that stands for something that takes long to make, such as a model of a package's settings.

    Who checks a class that has one leaves it alone, and checks what it gives when that is used.
    """

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Return what it stands for."""
        raise NotImplementedError
