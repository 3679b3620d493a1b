"""Read YAML as PyYAML's safe loader does, and remember where every key and value stands."""

from __future__ import annotations

import codecs
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlhooks.errors import SettingsError
from mlhooks.finding import Finding
from mlhooks.settings.findings import KeyPath, dotted, error_from, shown

# PyYAML follows YAML 1.1, which asks for a dot and a sign before it sees a number in 5e6 or 5.0e6.
_EXPONENT_TAG = "tag:mlhooks,2025:exponent"
_EXPONENT = re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
_EXPONENT_STARTS = list("-+.0123456789")
_YAML = "tag:yaml.org,2002:"
_NUMBERS = {_EXPONENT_TAG, f"{_YAML}int", f"{_YAML}float"}
_TEXTS = {f"{_YAML}{kind}" for kind in ("str", "timestamp", "value", "merge")}
"""No setting is a date; a run named 2025-01-31, or =, is text."""
_MERGE = f"{_YAML}merge"
MAX_DEPTH = 100
TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"
_MAX_VALUES = 100_000
_CHARACTERS_OF_A_VALUE = 100  # A longer text counts as several values, because aliases may repeat it.


def refusal(message: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    """Return the error that says what is wrong with a node, at its place."""
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also reads `5e6` as a number and does not nest deeper than any configuration does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node and what it holds; each level costs Python frames, whose number is limited."""
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, TOO_DEEP, mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def exponent(self, node: yaml.ScalarNode) -> float:
        """Read a number such as 5e6."""
        return float(node.value.replace("_", ""))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        # Outside double quotes PyYAML folds these breaks into spaces.
        style = '"' if any(character in value for character in "\x85\u2028\u2029") else None
        return self.represent_scalar(f"{_YAML}str", value, style)


for _side in (Loader, _Dumper):
    _side.add_implicit_resolver(_EXPONENT_TAG, _EXPONENT, _EXPONENT_STARTS)
Loader.add_constructor(_EXPONENT_TAG, Loader.exponent)
_Dumper.add_representer(str, _Dumper.text)


def dump_yaml(value: Any) -> str:
    """Write plain values as YAML that `parse_yaml` reads back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class Builder:
    """Turns nodes into plain values, with every mapping key as the text that was written.

    Merge keys (`<<`) are resolved in the nodes, too: those of a merge stand first, and the mapping's own win.

    Args:
        loader: what composed the nodes.
        findings: gets an error for each key that is twice in one mapping.
        place: `file` or `option` of these findings.
    """

    def __init__(self, loader: Loader, findings: list[Finding], **place: str | None) -> None:
        self._loader, self._findings, self._place = loader, findings, place
        self._open: set[int] = set()
        self._flat: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node, path: KeyPath = ()) -> Any:
        """Return the value of a node.

        Raises:
            yaml.constructor.ConstructorError: it has none that a configuration may hold.
        """
        self._add(1, node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in (f"{_YAML}map", f"{_YAML}seq") or not isinstance(node, yaml.CollectionNode):
            raise refusal(f"the tag {node.tag} is not allowed", node)
        self._enter(node)
        value: Any
        if isinstance(node, yaml.MappingNode):
            self._flatten(node, path)
            value = {_text(key): self.build(child, (*path, key.value)) for key, child in node.value}
        else:
            value = [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        self._open.discard(id(node))
        return value

    def _enter(self, node: yaml.Node) -> None:
        if id(node) in self._open:
            raise refusal("an alias contains itself", node)
        if len(self._open) > MAX_DEPTH:  # Aliases of aliases may nest deeper than the text does.
            raise refusal(TOO_DEEP, node)
        self._open.add(id(node))

    def _add(self, count: int, node: yaml.Node) -> None:
        self._count += count
        if self._count > _MAX_VALUES:
            raise refusal(f"there are more than {_MAX_VALUES} values, each alias counted", node)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = _text(node)
        self._add(len(text) // _CHARACTERS_OF_A_VALUE, node)
        if node.tag in _TEXTS:
            return text
        try:
            value = self._loader.construct_object(node)
            if isinstance(value, int):
                str(value)  # It raises for numbers with more digits than Python writes.
        except yaml.constructor.ConstructorError as error:
            raise refusal(f"the tag {node.tag} is not allowed", node) from error
        except Exception as error:
            # PyYAML has no checks of its own, so this comes from int(), float() or a lookup in a table.
            plain = self._loader.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
            if plain in _NUMBERS:
                return text  # 0x_ or 5,000 digits, for example, only look like a number
            tag = node.tag.replace(_YAML, "!!")
            raise refusal(f"{shown(text)} is not a value of the tag {tag}", node) from error
        if isinstance(value, bytes):
            raise refusal(f"the tag {node.tag} is not allowed", node)
        return value

    def _flatten(self, node: yaml.MappingNode, path: KeyPath) -> None:
        if id(node) in self._flat:  # An aliased mapping comes here again.
            return
        self._flat.add(id(node))
        first: dict[str, int] = {}
        merged: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
        own: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise refusal("a key must be a single word", key)
            if key.value in first:
                self._repeated(key, path, first[key.value])
            first.setdefault(key.value, key.start_mark.line + 1)
            if key.tag == _MERGE:
                for source in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
                    merged |= self._merged(source, path)
            else:
                own[key.value] = key, value
        node.value = list((merged | own).values())

    def _merged(self, source: yaml.Node, path: KeyPath) -> dict[str, tuple[yaml.ScalarNode, yaml.Node]]:
        if not isinstance(source, yaml.MappingNode):
            raise refusal("what << merges must be a mapping, or a list of mappings", source)
        self._enter(source)
        self._flatten(source, path)
        self._open.discard(id(source))
        self._add(len(source.value), source)
        return {key.value: (key, value) for key, value in source.value}

    def _repeated(self, key: yaml.ScalarNode, path: KeyPath, first_line: int) -> None:
        self._findings.append(
            Finding(
                severity="error",
                line=key.start_mark.line + 1,
                column=key.start_mark.column + 1,
                key=dotted((*path, key.value)),
                message=f"the key {shown(key.value)} appears twice in one mapping (first in line {first_line}); "
                "remove one",
                **self._place,
            )
        )


def _text(node: yaml.ScalarNode) -> str:
    """Return what a scalar spells, where it can be written to a file again."""
    text: str = node.value
    try:
        text.encode()
    except UnicodeEncodeError:
        try:  # "\ud83d\ude00" is how JSON writes one character
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            raise refusal("it holds one half of a pair of surrogates, which is no character", node) from None
    return text


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
    except (OSError, ValueError) as error:  # A ValueError is about a name that no file can have.
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
