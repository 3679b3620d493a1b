"""Say in words what a setting accepts."""

from __future__ import annotations

import types
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Any: "any value"}
_LIMITS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))


def allowed_values(field: FieldInfo) -> str:
    """Return what a field accepts, such as `a whole number, at least 1`."""
    return _in_words(field.annotation, field.metadata)


def choices(annotation: Any) -> list[str]:
    """Return the spellings of an enumeration; none for other types."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    return [choice for part in get_args(annotation) for choice in choices(part)]


def _in_words(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _in_words(arguments[0], arguments[1:])
    if origin in (Union, types.UnionType):
        parts = [_in_words(kind, metadata) for kind in arguments if kind is not type(None)]
        return " or ".join([*parts, "null"] if type(None) in arguments else parts)
    if origin is list:
        return f"a list [{_in_words(arguments[0])}, ...]"
    if origin is tuple:
        return f"a list of {len(arguments)} values"
    if origin is dict:
        return "a mapping"
    if named := choices(annotation):
        return ", ".join(named)
    limits = [
        f"{word} {limit:g}" if isinstance(limit := getattr(item, name), float) else f"{word} {limit}"
        for name, word in _LIMITS
        for item in metadata
        if hasattr(item, name)
    ]
    if annotation is str and any(getattr(item, "min_length", None) for item in metadata):
        return "text that is not empty"
    return ", ".join([_NAMES.get(annotation, "a mapping" if hasattr(annotation, "model_fields") else "text"), *limits])
