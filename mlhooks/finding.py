"""A finding: one thing that is wrong with a configuration, or worth a warning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from mlhooks.shortening import cut

Severity: TypeAlias = Literal["error", "warning"]
_LONGEST_HEAD, _LONGEST_MESSAGE = 300, 2000


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
        text = text.encode("utf-8", "backslashreplace").decode()  # Halves of characters cannot be printed.
        return "".join(c if c.isprintable() or (c == "\n" and c in self.message) else repr(c)[1:-1] for c in text)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)
