"""What is wrong with a configuration: findings with file, line, column and key, and the error that lists them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from mlhooks.errors import UsageError
from mlhooks.finding import Finding
from mlhooks.shortening import cut

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
    except ValueError:  # the number has more digits than Python writes
        return "a number of thousands of digits"
