"""One entry of a file of RL Zoo: its values, taken one after the other, and what no configuration can say."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlhooks.errors import UsageError
from mlhooks.settings.findings import error_from
from mlhooks.settings.yaml_source import read_yaml
from mlhooks.zoo.python_text import Name, read

ATARI = "atari"
"""The entry for all Atari games that have none of their own."""
AS_TEXT = ("policy_kwargs", "normalize", "replay_buffer_kwargs", "replay_buffer_class", "monitor_kwargs", "env_kwargs")
"""The keys whose text RL Zoo evaluates as Python."""


class Entry:
    """The values of an entry.

    Args:
        title: its name in messages.
        values: by key, as YAML has them.

    Attributes:
        missing: what is in it and mlhooks cannot express.
        assumed: what the conversion took for granted.
    """

    def __init__(self, title: str, values: Mapping[str, Any]) -> None:
        self.title, self._values = title, dict(values)
        self.missing: list[str] = []
        self.assumed: list[str] = []

    def take(self, key: str, default: Any = None) -> Any:
        """Return a value, which counts as expressed then, or the default; text of Python as what it means.

        Raises:
            UsageError: it is text of Python, and more than literals, `dict` and names.
        """
        if key not in self._values:
            return default
        value = self._values.pop(key)
        if key not in AS_TEXT or not isinstance(value, str):
            return value
        try:
            return read(value)
        except ValueError as error:
            raise self.wrong(key, value, f"cannot be read: {error}") from error

    def has(self, key: str) -> bool:
        """Return whether a value is there and was not taken yet."""
        return key in self._values

    def written(self, key: str) -> Any:
        """Return a value as the entry has it, without taking it; None where it has none."""
        return self._values.get(key)

    def number(self, key: str, default: float) -> float:
        """Return a number, whole where it is one, which may be written as text, as YAML reads 1e-4.

        Raises:
            UsageError: it is none.
        """
        value = self.take(key, default)
        return as_number(self._plain_number(key, value))

    def number_or_none(self, key: str, default: float | None) -> float | None:
        """Return a number as `number` does, or None where the entry says null.

        Raises:
            UsageError: it is neither.
        """
        value = self.take(key, default)
        return None if value is None else as_number(self._plain_number(key, value))

    def whole(self, key: str, default: int, least: int = 1) -> int:
        """Return a whole number of at least `least`.

        Raises:
            UsageError: it is none.
        """
        value = self.number(key, default)
        if not isinstance(value, int) or value < least:
            raise self.wrong(key, value, f"must be a whole number of at least {least}")
        return value

    def schedule(self, key: str, default: float | None) -> tuple[float, bool] | None:
        """Return a value and whether it falls linearly to 0, as `lin_0.001` does; None where there is none.

        Raises:
            UsageError: it is neither.
        """
        value = self.take(key, default)
        if value is None or (not isinstance(value, str) and self._plain_number(key, value) < 0):
            return None
        kind, _, initial = value.rpartition("_") if isinstance(value, str) else ("", "", value)
        if "_" in kind:
            raise self.wrong(key, value, "is no schedule, which is a kind and a number, as in lin_0.001")
        number = self._plain_number(key, initial)
        if number < 0:
            raise self.wrong(key, value, "must not be negative")
        return as_number(number), bool(kind)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false.

        Raises:
            UsageError: it is neither.
        """
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "must be true or false")
        return value

    def lacks(self, what: str) -> None:
        """Note something that mlhooks cannot express."""
        self.missing.append(what)

    def assumes(self, what: str) -> None:
        """Note something that the entry does not say."""
        self.assumed.append(what)

    def wrong(self, key: str, value: Any, why: str) -> UsageError:
        """Return the error about a value."""
        return UsageError(f"{self.title}: {key}: {value!r:.60} {why}.")

    def rest(self) -> None:
        """Note all keys that nothing has taken."""
        for key, value in self._values.items():
            self.lacks(f"{key}: {plain(value)}")
        self._values = {}

    def _plain_number(self, key: str, value: Any) -> float:
        number = value if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        try:
            found = float(number)
        except (ValueError, OverflowError):
            found = math.nan
        if not math.isfinite(found):
            raise self.wrong(key, value, "is no number")
        return found


def as_number(value: float) -> float:
    """Return a number as a whole one where it is."""
    return int(value) if float(value).is_integer() else float(value)


def plain(value: Any) -> str:
    """Return a value as people write it."""
    if isinstance(value, Name):
        return value.text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(plain, value)) + "]" if isinstance(value, list) else str(value)


def entries_of(file: Path) -> dict[str, dict[str, Any]]:
    """Return all entries of a file of RL Zoo, such as its hyperparams/ppo.yml.

    Raises:
        SettingsError: it cannot be read, or is no such file.
    """
    found = _document(file)
    entries = {name: entry for name, entry in found.items() if isinstance(entry, dict) and "n_timesteps" in entry}
    if not entries:
        raise UsageError(
            f"{file} holds no settings of RL Zoo: an entry is an environment's name with n_timesteps and "
            "hyperparameters below it, as in hyperparams/ppo.yml."
        )
    return entries


def _document(file: Path) -> dict[str, Any]:
    document = read_yaml(file)
    if document.findings:
        raise error_from(UsageError, document.findings)
    return document.value if isinstance(document.value, dict) else {}


def find_entry(file: Path, name: str, *, is_atari: bool) -> Entry:
    """Return the entry of an environment, or that of all Atari games for one of these.

    Raises:
        UsageError: there is none, or it is that of all Atari games.
    """
    entries = entries_of(file)
    if name == ATARI and name in entries:
        raise UsageError(f"{file}: the entry {ATARI} is for all Atari games. Name one, such as PongNoFrameskip-v4.")
    found = name if name in entries else ATARI if is_atari and ATARI in entries else None
    if found is None and name in _document(file):
        raise UsageError(f"{file}: the entry {name} has no n_timesteps. Say there how many steps it trains for.")
    if found is None:
        near = difflib.get_close_matches(name, entries, 3, 0.6)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(entries)}."
        raise UsageError(f"{file} has no entry {name}. {hint}")
    return Entry(f"{file.name}, {found}", entries[found])
