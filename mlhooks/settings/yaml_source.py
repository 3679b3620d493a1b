"""Read YAML as PyYAML's safe loader does, and remember where every key and value stands."""

from __future__ import annotations

import codecs
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlhooks.errors import SettingsError
from mlhooks.finding import Finding
from mlhooks.settings.findings import KeyPath, error_from
from mlhooks.settings.yaml_values import TOO_DEEP, Builder, Loader

_MAX_BYTES = 4_000_000
"""More than a configuration ever has, and as much as PyYAML reads in half a minute."""
_ESCAPES = ("unknown escape", "expected escape sequence", "out of range")


@dataclass(frozen=True)
class Position:
    """Line and column, counted from 1."""

    line: int
    column: int

    @classmethod
    def of(cls, mark: yaml.Mark) -> Position:
        """Return the position of a PyYAML mark."""
        return cls(mark.line + 1, mark.column + 1)


@dataclass
class Document:
    """A parsed YAML text: its plain value, the tree that knows the positions, and the keys that are there twice."""

    value: Any
    root: yaml.Node | None
    findings: list[Finding] = field(default_factory=list)

    def position(self, path: KeyPath, *, of_key: bool = False) -> Position | None:
        """Return where the value at `path` (or its key) starts, or None if the text has no such path."""
        key, node = None, self.root
        for part in path:
            key, node = _child(node, part)
            if node is None:
                return None
        if node is None:
            return None
        # A value that was left out has no place of its own.
        left_out = node.start_mark.index == node.end_mark.index
        return Position.of(key.start_mark if key is not None and (of_key or left_out) else node.start_mark)

    def text(self, path: KeyPath) -> str | None:
        """Return what is written at `path`, before YAML takes it for a number, a date or the like."""
        node = self.root
        for part in path:
            node = _child(node, part)[1]
        return node.value if isinstance(node, yaml.ScalarNode) else None


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and 0 <= part < len(node.value):
        return None, node.value[part]
    if isinstance(node, yaml.MappingNode):
        # Backwards, because the keys of a merge (<<) stand first once it is resolved, and the mapping's own win.
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == part:
                return key, value
    return None, None


def read_yaml(path: Path) -> Document:
    """Read and parse a file.

    Raises:
        SettingsError: the file is missing, unreadable, not UTF-8 (or UTF-16 with a byte order mark), or not YAML.
    """
    file = str(path)
    data = _bytes(path)
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        read = error.object  # The mark of utf-8-sig is not part of it.
        before = read[: error.start].decode(encoding, errors="replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"the file is not UTF-8 text (byte 0x{read[error.start]:02x}); save it with UTF-8 encoding"
        raise _single(Finding(severity="error", file=file, line=line, column=column, message=message)) from None
    return parse_yaml(text, file=file)


def _bytes(path: Path) -> bytes:
    """Return what a file holds; a pipe that is open already, as the shell's <(...) gives it, is read, too."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            reason = "is a folder, not a file"
        elif not stat.S_ISREG(kind) and path.resolve().exists():  # Reading may never end there, or never begin.
            reason = "is a pipe or a device, not a file"
        else:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
            if len(data) <= _MAX_BYTES:
                return data
            reason = f"is larger than {_MAX_BYTES / 1e6:g} MB, which no configuration is"
    except FileNotFoundError:
        reason = "there is no such file"
    except (OSError, ValueError) as error:  # a ValueError is about a name that no file can have
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    raise _single(Finding(severity="error", file=str(path), message=reason)) from None


def parse_yaml(text: str, *, file: str | None = None, option: str | None = None) -> Document:
    """Parse YAML text; `file` or `option` says in errors where it comes from.

    Raises:
        SettingsError: the text is not valid YAML.
    """
    findings: list[Finding] = []
    try:
        loader = Loader(text)
        root = _composed(loader)
        value = Builder(loader, findings, file=file, option=option).build(root) if root is not None else None
    except yaml.YAMLError as error:
        raise error_from(SettingsError, [*findings, _syntax_finding(error, text, file, option)]) from None
    return Document(value, root, findings)


def _composed(loader: Loader) -> yaml.Node | None:
    try:
        root: yaml.Node | None = loader.get_single_node()
    except (ValueError, ArithmeticError, LookupError) as error:
        # PyYAML hands these to int() and chr() unseen: "\\UFFFFFFFF", or %YAML 1. and 5,000 digits.
        reason = "the escape or number in front of this place is out of range"
        raise yaml.scanner.ScannerError(None, None, reason, loader.get_mark()) from error
    return root


def _syntax_finding(error: yaml.YAMLError, text: str, file: str | None, option: str | None) -> Finding:
    place, problem = None, str(error)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = Position.of(mark) if mark is not None else None
        problem = " ".join(part for part in (error.context, error.problem) if part)
    elif isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        place = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        problem = f"the character U+{ord(text[error.position]):04X} is not allowed"
        if text[error.position] == "\0":
            problem += " (is the file saved with UTF-8 encoding?)"
    hint = ""
    if any(words in problem for words in _ESCAPES):
        hint = "; inside double quotes a backslash starts an escape: use single quotes for paths"
    elif "'\\t'" in problem:
        hint = "; indent with spaces, not tabs"
    ours = isinstance(error, yaml.constructor.ConstructorError) or problem == TOO_DEEP
    return Finding(
        severity="error",
        file=file,
        option=option,
        line=place.line if place else None,
        column=place.column if place else None,
        message=f"{'this cannot be read' if ours else 'this is not valid YAML'}: {problem}{hint}",
    )


def _single(finding: Finding) -> SettingsError:
    return error_from(SettingsError, [finding])
