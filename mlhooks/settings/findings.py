"""The findings about a configuration, and the places of its settings."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypedDict, TypeVar

from mlhooks.errors import UsageError
from mlhooks.finding import Finding
from mlhooks.shortening import cut

if TYPE_CHECKING:
    from mlhooks.settings.yaml_source import Document

KeyPath: TypeAlias = tuple[str | int, ...]
SHOWN = 20
"""How many findings are shown to a person at once; a file with more is mostly one mistake."""
UsageErrorT = TypeVar("UsageErrorT", bound=UsageError)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by line and column and drop repeats; what has no line (options, Python values) comes last."""
    last = float("inf")
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda finding: (finding.line or last, finding.column or last))


def error_from(kind: type[UsageErrorT], findings: Sequence[Finding]) -> UsageErrorT:
    """Return an error of `kind` whose text lists every error, and whose `findings` holds the warnings as well."""
    findings = in_order(findings)
    errors = [finding for finding in findings if finding.severity == "error"]
    text = str(errors[0]) if len(errors) == 1 else f"{len(errors)} errors in the configuration:"
    text = "\n  ".join([text, *(lines(errors) if len(errors) > 1 else [])])
    error = kind(text)
    error.findings = tuple(findings)
    return error


def lines(findings: Sequence[Finding], text: Callable[[Finding], str] = str) -> list[str]:
    """Return a line for each finding, and one that counts the rest where there are more than a person reads."""
    rest = len(findings) - SHOWN
    more = [f"and {rest} more; mlhooks config check --json lists all"] if rest > 0 else []
    return [*map(text, findings[:SHOWN]), *more]


def dotted(path: KeyPath) -> str:
    """Write a key path as `--set` reads it: `behaviors."My Agent".max_steps`."""
    return ".".join(f'"{part}"' if any(c in str(part) for c in ' ."=') else str(part) for part in path)


def nearest(found: object, valid: Iterable[str]) -> str | None:
    """Return the valid spelling closest to what was found, if one is close."""
    folded = {_fold(name): name for name in valid}
    close = difflib.get_close_matches(_fold(str(found)), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def _fold(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def shown(value: object) -> str:
    """Show a value the way a person wrote it in YAML; long ones are cut."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    try:
        return cut(repr(value) if isinstance(value, str) else str(value), 60)
    except ValueError:  # The number has more digits than Python writes.
        return "a number of thousands of digits"


class Place(TypedDict, total=False):
    """The part of a Finding that says where to look."""

    key: str
    file: str | None
    option: str | None
    line: int | None
    column: int | None


class Origin:
    """The sources of one configuration.

    Args:
        file: the name of the file as the user gave it, if there is one.
        document: its text with positions.
    """

    def __init__(self, file: str | None = None, document: Document | None = None) -> None:
        self.file = file
        self.document = document
        self._options: dict[KeyPath, tuple[str, Document | None]] = {}
        self._renamed: dict[KeyPath, KeyPath] = {}  # The file calls these differently.

    def rename(self, section: str, name: str, new: str) -> None:
        """Note that an entry of a section of the file counts under another name."""
        self._renamed[section, new] = section, name

    def set_by_option(self, path: KeyPath, option: str, document: Document | None = None) -> None:
        """Note that an option brought the value at `path`, and its document where it was written in YAML."""
        for key in [key for key in self._options if key[: len(path)] == path]:
            del self._options[key]
        self._options[path] = option, document

    def text(self, path: KeyPath) -> str | None:
        """Return what the file or an option says at `path` in so many characters; None where nobody wrote it."""
        path = self._source(path)
        for length in range(len(path), 0, -1):
            if path[:length] in self._options:
                document = self._options[path[:length]][1]
                return None if document is None else document.text(path[length:])
        return None if self.document is None else self.document.text(self._written(path))

    def place(self, path: KeyPath, *, of_key: bool = False) -> Place:
        """Return the place of the value (or key) at `path`, or of the nearest section around it.

        A behavior's setting that its entry lacks came from `default_settings`, and is placed there.
        """
        path = self._source(path)
        if option := self._option(path):
            return Place(key=dotted(path), option=option)
        for length in range(len(path), -1, -1):
            exact = length == len(path)
            position = self.document and self.document.position(
                self._written(path[:length]), of_key=of_key or not exact
            )
            if position:
                return Place(key=dotted(path), file=self.file, line=position.line, column=position.column)
        return Place(key=dotted(path), file=self.file)

    def _source(self, path: KeyPath) -> KeyPath:
        """Return the path from which a behavior that lacks the value at `path` has it."""
        inherited = ("default_settings", *path[2:])
        if len(path) > 2 and path[0] == "behaviors" and not self._holds(path) and self._holds(inherited):
            return inherited
        return path

    def is_option(self, path: KeyPath) -> bool:
        """Return whether the value at `path` was given as a flag or override, alone or with the section around it."""
        return any(path[:length] in self._options for length in range(1, len(path) + 1))

    def _option(self, path: KeyPath) -> str | None:
        """Return the option that brought the value at `path`, or the section there if the file has none."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._options:
                return self._options[path[:length]][0]
        if not path or self._in_file(path):
            return None
        return next((option for key, (option, _) in self._options.items() if key[: len(path)] == path), None)

    def _in_file(self, path: KeyPath) -> bool:
        return self.document is not None and self.document.position(self._written(path)) is not None

    def _written(self, path: KeyPath) -> KeyPath:
        """Return the path by which the file calls what is at `path`."""
        return (*self._renamed.get(path[:2], path[:2]), *path[2:])

    def _holds(self, path: KeyPath) -> bool:
        return self._option(path) is not None or self._in_file(path)
