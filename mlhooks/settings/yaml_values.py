"""From YAML nodes to plain values: as PyYAML's safe loader makes them, within limits, and never by code of a file."""

from __future__ import annotations

import re
from typing import Any

import yaml

from mlhooks.finding import Finding
from mlhooks.settings.findings import KeyPath, dotted, shown

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
_CHARACTERS_OF_A_VALUE = 100  # a longer text counts as several values, because aliases may repeat it


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
        if len(self._open) > MAX_DEPTH:  # aliases of aliases may nest deeper than the text does
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
                str(value)  # it raises for numbers with more digits than Python writes
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
        if id(node) in self._flat:  # an aliased mapping comes here again
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
