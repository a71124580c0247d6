# SPDX-License-Identifier: Apache-2.0
"""The places where a Python source can be broken, and the changes there.

Places are found in the syntax tree and changed in the text, so that a mutant is the source but for one place. Left
alone are annotations, docstrings, what only a type checker sees, and f-strings, in which nodes know their position from
Python 3.12 on.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Union

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
}
# One of these the other way round is the same as the condition around it inverted.
OPPOSITES = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)

Node = Union[ast.stmt, ast.expr]
Change = tuple[str, int, int, bytes]  # a kind, from where to where, and what stands there then


class Source:
    """A source as bytes, which is what the tree counts columns in."""

    def __init__(self, text: str) -> None:
        self.bytes = text.encode()
        self.tree = ast.parse(text)
        self._lines = [0]
        for line in self.bytes.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def start(self, node: Node) -> int:
        return self._lines[node.lineno - 1] + node.col_offset

    def end(self, node: Node) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._lines[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: Node) -> bytes:
        return self.bytes[self.start(node) : self.end(node)]

    def operator(self, kind: str, left: Node, right: Node, old: str, new: str) -> Iterator[Change]:
        """An operator between two operands, which may have parentheses of their own."""
        gap = self.bytes[self.end(left) : self.start(right)]
        found = re.search(re.escape(old).replace(r"\ ", r"\s+").encode(), gap)
        if found and b"#" not in gap:
            yield kind, self.end(left) + found.start(), self.end(left) + found.end(), new.encode()

    def replaced(self, kind: str, node: Node, new: bytes) -> Change:
        return kind, self.start(node), self.end(node), new


def changes(text: str) -> list[Change]:
    """Every single change of a source that leaves it one that Python can read."""
    source = Source(text)
    return [change for node in _reached(source.tree) for change in _of(source, node)]


def applied(text: str, change: Change) -> str:
    _, start, end, new = change
    whole = text.encode()
    return (whole[:start] + new + whole[end:]).decode()


def _reached(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_left_alone(child):
                yield from _reached(child)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.FunctionDef):
        return any(isinstance(each, ast.Name) and each.id == "overload" for each in node.decorator_list)
    return isinstance(node, ast.JoinedStr)


def _of(source: Source, node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, operands, operands[1:]):
            yield from source.operator("comparison", left, right, *COMPARISONS[type(operator)])
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield from source.operator("arithmetic", node.left, node.right, *ARITHMETIC[type(node.op)])
    elif isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            yield from source.operator("and/or", left, right, old, new)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield source.replaced("not", node, b"(" + source.text(node.operand) + b")")
    elif isinstance(node, ast.Constant):
        yield from _of_constant(source, node)
    elif isinstance(node, ast.Call):
        yield from _of_arguments(source, node)
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield from _inverted(source, node.test)
    elif isinstance(node, ast.comprehension):
        for each in node.ifs:
            yield from _inverted(source, each)
    elif isinstance(node, ast.stmt):
        yield from _of_statement(source, node)


def _of_constant(source: Source, node: ast.Constant) -> Iterator[Change]:
    if isinstance(node.value, bool):
        yield source.replaced("constant", node, str(not node.value).encode())
    elif isinstance(node.value, (int, float)):
        for step in (-1, 1):
            if node.value + step != node.value:
                yield source.replaced("constant", node, repr(node.value + step).encode())


def _of_arguments(source: Source, node: ast.Call) -> Iterator[Change]:
    for first, second in zip(node.args, node.args[1:]):
        texts = source.text(first), source.text(second)
        if texts[0] != texts[1] and not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
            between = source.bytes[source.end(first) : source.start(second)]
            yield "arguments", source.start(first), source.end(second), texts[1] + between + texts[0]


def _inverted(source: Source, test: ast.expr) -> Iterator[Change]:
    is_opposite = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], OPPOSITES)
    if not is_opposite and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
        yield source.replaced("condition", test, b"(not (" + source.text(test) + b"))")


def _of_statement(source: Source, node: ast.stmt) -> Iterator[Change]:
    if isinstance(node, ast.Return) and node.value is not None and source.text(node.value) != b"None":
        yield source.replaced("return", node, b"return None")
    elif isinstance(node, ast.Raise):
        yield source.replaced("raise", node, b"pass")
    elif isinstance(node, ast.Assign) or (isinstance(node, ast.AnnAssign) and node.value is not None):
        yield source.replaced("assignment", node, b"pass")
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield source.replaced("call", node, b"pass")
    elif isinstance(node, ast.AugAssign):
        yield source.replaced("assignment", node, b"pass")
        if type(node.op) in ARITHMETIC:
            old, new = ARITHMETIC[type(node.op)]
            yield from source.operator("arithmetic", node.target, node.value, old + "=", new + "=")
