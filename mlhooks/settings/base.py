"""The base of all settings models: strict about keys, lenient about spellings of numbers, dumped as ML-Agents does."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import PureWindowsPath
from typing import Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from mlhooks.finding import Severity
from mlhooks.names import file_name
from mlhooks.settings.findings import KeyPath
from mlhooks.settings.reading import read_as

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
_LARGEST_INTEGER = 2**63 - 1  # arrays and torch take no larger one
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
