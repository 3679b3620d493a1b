"""Read a YAML value as the type of its setting: whole numbers written 128.0 or 5e6, text that looks like a number."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic_core import PydanticCustomError

from mlhooks.settings.yaml_source import WrittenFloat


def read_as(value: Any, annotation: Any) -> Any:
    """Turn `value` into what `annotation` asks for, where that loses nothing; otherwise return it as it is.

    Raises:
        PydanticCustomError: pydantic would take the value, as something that its author may not mean.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return read_as(value, arguments[0])
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in arguments if kind is not type(None)]
        return value if value is None or len(kinds) != 1 else read_as(value, kinds[0])
    if annotation is bool and isinstance(value, str):
        # ML-Agents reads every text as true, pydantic 'false' as false.
        raise PydanticCustomError("bool_type", "must be true or false, without quotes")
    if annotation in (int, float):
        return _number(value, whole=annotation is int)
    if annotation is str:
        return _text(value)
    if annotation is Any:
        return copied(value, _own_number)
    if origin is list and isinstance(value, list | tuple):
        return [read_as(item, arguments[0]) for item in value]
    if origin is tuple and isinstance(value, list | tuple) and len(value) == len(arguments):
        return tuple(read_as(item, kind) for item, kind in zip(value, arguments, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return {str(key): read_as(item, arguments[1]) for key, item in value.items()}
    return value


def _number(value: Any, *, whole: bool) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "must be a number, not true or false")
    if isinstance(value, str):
        try:
            value = int(value) if whole else float(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return value
    if isinstance(value, Integral):
        return int(value) if whole else float(value)
    if isinstance(value, Real):
        value = float(value)
        return int(value) if whole and value.is_integer() else value
    return value


def _text(value: Any) -> Any:
    if isinstance(value, WrittenFloat):
        return value.text
    return str(value) if isinstance(value, Real) and not isinstance(value, bool) else value


def _own_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def copied(value: Any, leaf: Callable[[Any], Any] = lambda value: value) -> Any:
    """Return nested mappings and sequences as dicts (with text as keys) and lists of their own."""
    if isinstance(value, Mapping):
        return {str(key): copied(item, leaf) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copied(item, leaf) for item in value]
    return leaf(value)
