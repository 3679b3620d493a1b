"""Read YAML as PyYAML's safe loader does, and remember where every key and value stands."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from mlhooks.errors import SettingsError
from mlhooks.settings.findings import Finding, KeyPath, dotted, error_from

# PyYAML follows YAML 1.1, which asks for a dot and a sign before it sees a number in 5e6 or 5.0e6.
_EXPONENT_TAG = "tag:mlhooks,2025:exponent"
_EXPONENT = re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
_EXPONENT_STARTS = list("-+.0123456789")
_MAX_VALUES = 100_000


class WrittenFloat(float):
    """A float that keeps its spelling, for settings that are text: `run_id: 1e5` is the run named 1e5."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Read the number that `text` spells."""
        number = super().__new__(cls, text.replace("_", ""))
        number.text = text
        return number


class _Loader(yaml.SafeLoader):
    def written_float(self, node: yaml.ScalarNode) -> WrittenFloat:
        return WrittenFloat(node.value)

    def written_text(self, node: yaml.ScalarNode) -> str:
        return str(node.value)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        # Outside double quotes PyYAML folds these breaks into spaces.
        style = '"' if any(character in value for character in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style)


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(_EXPONENT_TAG, _EXPONENT, _EXPONENT_STARTS)
_Loader.add_constructor(_EXPONENT_TAG, _Loader.written_float)
_Dumper.add_representer(str, _Dumper.text)
# No setting is a date; a run named 2025-01-31 is text.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.written_text)


def dump_yaml(value: Any) -> str:
    """Write plain values as YAML that `parse_yaml` reads back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


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
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _single(Finding(severity="error", file=file, message="there is no such file")) from None
    except OSError as error:
        reason = "is a folder, not a file" if path.is_dir() else f"cannot be read: {error.strerror}"
        raise _single(Finding(severity="error", file=file, message=reason)) from None
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, errors="replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"the file is not UTF-8 text (byte 0x{data[error.start]:02x}); save it with UTF-8 encoding"
        raise _single(Finding(severity="error", file=file, line=line, column=column, message=message)) from None
    return parse_yaml(text, file=file)


def parse_yaml(text: str, *, file: str | None = None, option: str | None = None) -> Document:
    """Parse YAML text; `file` or `option` says in errors where it comes from.

    Raises:
        SettingsError: the text is not valid YAML.
    """
    findings: list[Finding] = []
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        value = _Builder(loader, findings, file, option).build(root) if root is not None else None
    except yaml.YAMLError as error:
        raise error_from(SettingsError, [*findings, _syntax_finding(error, text, file, option)]) from None
    return Document(value, root, findings)


class _Builder:
    """Turns nodes into plain values, with every mapping key as the text that was written."""

    def __init__(self, loader: _Loader, findings: list[Finding], file: str | None, option: str | None) -> None:
        self.loader, self.findings, self.file, self.option = loader, findings, file, option
        self.open: set[int] = set()
        self.flat: set[int] = set()
        self.count = 0

    def build(self, node: yaml.Node, path: KeyPath = ()) -> Any:
        self.count += 1
        if id(node) in self.open or self.count > _MAX_VALUES:
            reason = "an alias contains itself" if id(node) in self.open else f"more than {_MAX_VALUES} values"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            try:
                return self.loader.construct_object(node)
            except (ValueError, OverflowError) as error:
                raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None
        if not isinstance(node, yaml.CollectionNode) or node.tag not in (
            yaml.resolver.Resolver.DEFAULT_MAPPING_TAG,
            yaml.resolver.Resolver.DEFAULT_SEQUENCE_TAG,
        ):
            raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is not allowed", node.start_mark)
        self.open.add(id(node))
        value: Any
        if isinstance(node, yaml.MappingNode):
            value = {key.value: self.build(child, (*path, key.value)) for key, child in self.entries(node, path)}
        else:
            value = [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        self.open.discard(id(node))
        return value

    def entries(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        if id(node) not in self.flat:  # an aliased mapping comes here again, with its merge keys resolved
            self.flat.add(id(node))
            first: dict[str, int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(None, None, "a key must be a single word", key.start_mark)
                if key.value in first:
                    self._repeated(key, path, first[key.value])
                first.setdefault(key.value, key.start_mark.line + 1)
            self.loader.flatten_mapping(node)
        yield from node.value

    def _repeated(self, key: yaml.ScalarNode, path: KeyPath, first_line: int) -> None:
        place = Position.of(key.start_mark)
        message = f"the key {key.value} appears twice in one mapping (first in line {first_line}); remove one"
        self.findings.append(
            Finding(
                severity="error",
                file=self.file,
                option=self.option,
                line=place.line,
                column=place.column,
                key=dotted((*path, key.value)),
                message=message,
            )
        )


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
    hint = ""
    if "unknown escape" in problem:
        hint = "; inside double quotes a backslash starts an escape: use single quotes for paths"
    elif "'\\t'" in problem:
        hint = "; indent with spaces, not tabs"
    return Finding(
        severity="error",
        file=file,
        option=option,
        line=place.line if place else None,
        column=place.column if place else None,
        message=f"this is not valid YAML: {problem}{hint}",
    )


def _single(finding: Finding) -> SettingsError:
    return error_from(SettingsError, [finding])
