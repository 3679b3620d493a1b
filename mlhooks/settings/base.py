"""The base of all settings models: strict about keys, lenient about spellings of numbers, dumped as ML-Agents does."""

from __future__ import annotations

import math
import os
import re
import types
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from numbers import Integral, Real
from pathlib import PureWindowsPath
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError, PydanticUndefined, to_jsonable_python

from mlhooks.finding import Severity
from mlhooks.names import file_name
from mlhooks.settings.findings import KeyPath

_ON_WINDOWS = os.name == "nt"


def _no_control_characters(value: str) -> str:
    # "results\run" in double quotes holds a carriage return and "C:\Nuts" a next line, which no one means in a path.
    if any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in value):
        raise ValueError(
            "holds a control character: in YAML's double quotes a backslash starts an escape, use single quotes"
        )
    return value


def _below(run_id: str) -> str:
    parts = re.split(r"[/\\]", run_id)
    # Windows' reading counts, too, because others may run the same file there.
    path = PureWindowsPath(run_id)
    if path.root and path.name not in {"", ".."}:
        raise ValueError(
            f"is an absolute path: give only what follows the results folder, as in {path.name!r}; --results-dir names "
            "the results folder"
        )
    if path.anchor or not parts[0] or {".", ".."} & set(parts):
        raise ValueError("leads out of the results folder: give a name, or several with slashes between them")
    if "\\" in run_id:
        raise ValueError("has a backslash, which is a slash to Windows only: say / between the names of folders")
    if "" in parts:
        raise ValueError("has a slash too many: every part between slashes is the name of a folder")
    for part in parts if _ON_WINDOWS else ():
        name = part.replace("%", "_")  # `file_name` keeps % for itself
        if file_name(name) != name:
            raise ValueError(
                f'has the part {part!r}, which Windows does not take for a name: it takes none of <>:"|?*, no dot or '
                "space at the end, and no con, nul, com1 and the like"
            )
    return _no_control_characters(run_id)


PathText: TypeAlias = Annotated[str, AfterValidator(_no_control_characters)]
"""A path as it was written; backslashes stay."""

RunId: TypeAlias = Annotated[str, AfterValidator(_below)]
"""The name of a run, or of a folder of runs and the name in it, with slashes between."""


_EXTENSION = "x-mlhooks-extension"
_COLLECT = "collect problems"
_LARGEST_INTEGER = 2**63 - 1  # Arrays and torch take no larger one.
COLLECT_PROBLEMS = {_COLLECT: True}
"""Validation context of a caller that asks `problems` itself, to report each at its own line."""


@dataclass(frozen=True)
class Problem:
    """Settings that do not fit each other; `key` is the path to the culprit below the model that says so."""

    key: KeyPath
    message: str
    severity: Severity = "error"


@dataclass(frozen=True)
class _Derived:
    compute: Callable[[Any], Any]


def extension(default: Any = PydanticUndefined, *, description: str, **constraints: Any) -> Any:
    """Declare an optional setting that ML-Agents does not have; it is dumped only when it was set."""
    return Field(default, description=description, json_schema_extra={_EXTENSION: True}, **constraints)


def derived(compute: Callable[[Any], Any], *, description: str, **constraints: Any) -> Any:
    """Declare a setting whose default comes from its siblings: `compute` gets the validated model.

    `beta_schedule: ScheduleType = derived(lambda settings: settings.learning_rate_schedule, description=...)`.
    """
    return Field(default_factory=lambda: _Derived(compute), description=description, **constraints)


def is_extension(field: FieldInfo) -> bool:
    """Return whether a field was declared with `extension`."""
    return isinstance(field.json_schema_extra, dict) and _EXTENSION in field.json_schema_extra


class SettingsModel(BaseModel):
    """Base of the settings models.

    Values are read as YAML people write them (`5e6` and `128.0` for whole numbers); non-finite numbers and unknown
    keys are refused. Settings that must fit each other are checked in `problems`.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, defer_build=True, protected_namespaces=())
    ignores_unknown_keys: ClassVar[bool] = False
    """ML-Agents ignores unknown keys in a few sections; there they are warnings, and errors when asked to be strict."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong, or worth a warning, between settings that are valid each on its own."""
        yield from ()

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        return read_as(value, cls.model_fields[str(info.field_name)].annotation)

    @field_validator("*", mode="after")
    @classmethod
    def _limit(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            raise ValueError(f"is too large; the limit of all whole numbers is {_LARGEST_INTEGER}")
        return value

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> Self:
        for name, value in self.__dict__.items():
            if isinstance(value, _Derived):
                self.__dict__[name] = value.compute(self)
        if not (info.context or {}).get(_COLLECT):
            for problem in self.problems():
                if problem.severity == "error":
                    raise ValueError(problem.message)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return plain values in ML-Agents' layout; extension keys appear only where they were set."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if name in self.model_fields_set or not is_extension(field)
        }


def _plain(value: Any) -> Any:
    if isinstance(value, SettingsModel):
        return value.as_dict()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    # Plugins' settings may be paths, dates and whatever else pydantic reads.
    return value if isinstance(value, str | int | float | None) else to_jsonable_python(value)


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
        inside = (item.metadata if isinstance(item, FieldInfo) else [item] for item in arguments[1:])
        return _in_words(arguments[0], [item for part in inside for item in part])
    if origin in (Union, types.UnionType):
        parts = [_in_words(kind, metadata) for kind in arguments if kind is not type(None)]
        return " or ".join([*parts, "null"] if type(None) in arguments else parts)
    if origin is list:
        words = f"a list [{_in_words(arguments[0])}, ...]"
        return f"{words} that is not empty" if any(getattr(item, "min_length", None) for item in metadata) else words
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
