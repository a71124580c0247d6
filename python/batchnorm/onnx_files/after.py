# SPDX-License-Identifier: Apache-2.0
"""A batch norm becomes a part of the layer before it."""

from __future__ import annotations

from typing import Any

from ._onnx import is_a
from .norms import is_norm
from .patterns import LINEAR, linear
from .patterns.linear import Linear
from .report import Fold, NotFoldedError, Report, label
from .scope import Scope
from .steps import ARITHMETIC, Layout, Step, composed, follow, is_written_out, trimmed


def fold_after(scope: Scope, node: Any, keep: frozenset[str], report: Report) -> None:
    """Folds what follows a layer into it, if that is a batch norm; else nothing happens."""
    try:
        layer, steps, folded = _folding(scope, node, keep)
    except NotFoldedError:
        return
    output = steps[-1].node.output[0]
    names = [label(step.node) for step in steps if is_norm(step.node)] or [label(steps[-1].node)]
    for step in steps:
        scope.remove(step.node)
    scope.rename_output(node, output)
    layer.write(folded)
    for name in names:
        report.folded.append(Fold(name, f"into {layer.title} before it", (output,), scope.outer is None))


def why_not_after(scope: Scope, norm: Any, keep: frozenset[str]) -> str:
    """The reason why a batch norm did not go into the layer before it; empty if there is no such layer."""
    maker = scope.makers.get(norm.input[0])
    while maker is not None and is_a(maker, *ARITHMETIC, "Identity", "Dropout"):
        computed = [name for name in maker.input if name and scope.constants.get(name) is None]
        maker = scope.makers.get(computed[0]) if len(computed) == 1 else None
    if maker is not None and is_a(maker, *LINEAR):
        try:
            _folding(scope, maker, keep)
        except NotFoldedError as reason:
            return str(reason)
    return ""


def _folding(scope: Scope, node: Any, keep: frozenset[str]) -> tuple[Linear, list[Step], Any]:
    layer = linear(scope, node)
    output = node.output[0]
    if scope.only_user(output) is None:
        raise NotFoldedError(f"the output of {layer.title} {_users(scope, output)}")
    steps = trimmed(follow(scope, output, Layout(layer.rank, layer.axis, layer.channels), keep))
    if not any(is_norm(step.node) for step in steps) and not is_written_out(steps):
        user = scope.only_user(steps[-1].node.output[0] if steps else output)
        where = f"{layer.title} has its channels at axis {layer.axis} of {layer.rank}, and the batch norm elsewhere"
        raise NotFoldedError(where if user is not None and is_norm(user) else "")
    return layer, steps, layer.after(composed(steps))


def _users(scope: Scope, name: str) -> str:
    if name in scope.outputs:
        return "is an output of the graph as well"
    return "is used in a subgraph as well" if scope.captured[name] else "is used elsewhere as well"
