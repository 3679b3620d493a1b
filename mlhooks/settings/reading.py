"""Read a YAML value as the type of its setting, such as a whole number written 5e6; say what that type accepts."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from mlhooks.settings.findings import KeyPath

Text: TypeAlias = Callable[[KeyPath], str | None]
"""What is written at a key path, character for character; None where it is not known."""
_NOT_EVEN_TEXT = ("", "~")


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


def as_written(value: Any, annotation: Any, path: KeyPath, text: Text) -> Any:
    """Turn what YAML took for a number, a date, true, false or null back into its text, where text is asked for.

    So `run_id: 007` is the run 007, and a lesson may be called No. Null stays null where a setting may be null.

    Args:
        value: what stands at `path`.
        annotation: the type of the setting.
        path: its key path.
        text: what is written at a key path.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return as_written(value, arguments[0], path, text)
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in arguments if kind is not type(None)]
        return value if value is None or len(kinds) != 1 else as_written(value, kinds[0], path, text)
    if origin is list and isinstance(value, list):
        return [as_written(item, arguments[0], (*path, index), text) for index, item in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {key: as_written(item, arguments[1], (*path, key), text) for key, item in value.items()}
    named = isinstance(annotation, type) and issubclass(annotation, Enum)
    if isinstance(value, str | list | Mapping) or not (annotation is str or named or origin is Literal):
        return value
    written = text(path)
    return value if written is None or written in _NOT_EVEN_TEXT else written


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
    if not isinstance(value, Real):
        return value
    if isinstance(value, Integral):
        try:
            return int(value) if whole else float(value)
        except OverflowError:
            return math.inf
    real = float(value)
    return _number(int(real), whole=True) if whole and real.is_integer() else real


def _text(value: Any) -> Any:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("holds the character U+0000, which is \\0 in YAML's double quotes: use single quotes")
        check_text(value)
        return value
    return str(value) if isinstance(value, Real) and not isinstance(value, bool) else value


def check_text(value: str) -> None:
    """Refuse text that a file cannot hold.

    Raises:
        ValueError: says so.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        # So Python hands on bytes of the command line that are not UTF-8.
        raise ValueError("holds what is not UTF-8 text, which configuration.yaml cannot store") from None


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
