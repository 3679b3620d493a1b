"""The Python that RL Zoo's files hold as text, such as `dict(net_arch=[64, 64])`, read without running any of it."""

from __future__ import annotations

import ast
import operator
from typing import Any, NamedTuple

MOST = 10_000
"""More characters than any setting has."""
_ARITHMETIC: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
"""The operations between two numbers that are computed."""


class Name(NamedTuple):
    """A name that the text refers to, such as `nn.ReLU`."""

    text: str

    @property
    def last(self) -> str:
        """The part behind the last dot, in lower case."""
        return self.text.rpartition(".")[2].lower()


def read(text: str) -> Any:
    """Return the plain value of an expression of literals, `dict(...)`, and names, which become `Name`.

    Raises:
        ValueError: it is none, and says what it is.
    """
    if len(text) > MOST:
        raise ValueError(f"it has {len(text):,} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _value(tree.body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"it is no Python expression: {error.args[0] if error.args else error}") from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_key(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        named = {keyword.arg: _value(keyword.value) for keyword in node.keywords}
        if None not in named:
            return named
    if isinstance(node, ast.Name | ast.Attribute):
        return Name(_dotted(node))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _number(node.operand)
        return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        try:
            return _ARITHMETIC[type(node.op)](_number(node.left), _number(node.right))
        except (ZeroDivisionError, OverflowError) as error:
            raise ValueError(f"{ast.unparse(node)}: {error}") from error
    raise ValueError(f"{ast.unparse(node):.80} is neither a literal, nor dict(...), nor a name")


def _key(node: ast.expr | None) -> str:
    value = None if node is None else _value(node)
    if not isinstance(value, str):
        raise ValueError("a key is no text")  # noqa: TRY004
    return value


def _number(node: ast.expr) -> Any:
    value = _value(node)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{ast.unparse(node):.80} is no number")  # noqa: TRY004
    return value


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError(f"{ast.unparse(node):.80} is no name")
