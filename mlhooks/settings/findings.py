"""What is wrong with a configuration: findings with file, line, column and key, and the error that lists them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from mlhooks.describing import cut
from mlhooks.errors import UsageError

KeyPath: TypeAlias = tuple[str | int, ...]
Severity: TypeAlias = Literal["error", "warning"]
SHOWN = 20
"""How many findings are shown to a person at once; a file with more is mostly one mistake."""
_LONGEST_HEAD, _LONGEST_MESSAGE = 300, 2000
UsageErrorT = TypeVar("UsageErrorT", bound=UsageError)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth a warning, at one place of a configuration.

    `option` is the command-line text (`--set ...` or a flag) that brought the value, where it does not come from a
    file. `allowed` says in words what would be accepted, `nearest` is the valid spelling closest to what was found.
    """

    severity: Severity
    message: str
    key: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    option: str | None = None
    found: str | None = None
    allowed: str | None = None
    nearest: str | None = None

    @property
    def place(self) -> str:
        """Where to look: `file:line:column`, or the command-line option; empty for settings given from Python."""
        if self.option is not None:
            return self.option
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)

    def as_line(self) -> str:
        """Return one line as compilers write them: `file:line:column: severity: key: message`."""
        return self._joined(self.place, self.severity, self.key)

    def __str__(self) -> str:
        return self._joined(self.place, self.key)

    def _joined(self, *head: str) -> str:
        head = tuple(cut(part, _LONGEST_HEAD) for part in head)
        parts = [cut(self.message, _LONGEST_MESSAGE)]
        if self.found is not None:
            parts.append(f"found {cut(self.found, _LONGEST_HEAD)}")
        if self.allowed is not None:
            parts.append(f"allowed: {self.allowed}")
        if self.nearest is not None:
            parts.append(f"did you mean {self.nearest}?")
        text = ": ".join([*filter(None, head), "; ".join(parts)])
        text = text.encode("utf-8", "backslashreplace").decode()  # halves of characters cannot be printed
        return "".join(c if c.isprintable() or (c == "\n" and c in self.message) else repr(c)[1:-1] for c in text)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


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
    except ValueError:  # the number has more digits than Python writes
        return "a number of thousands of digits"
