# SPDX-License-Identifier: Apache-2.0
"""Folds the batch norms of a model: first into the layer before, then into those after, then into one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ._onnx import is_a, opset_of
from .after import fold_after, why_not_after
from .before import fold_before
from .merging import merge
from .norms import form_of, is_norm
from .patterns import LINEAR
from .ranks import ranks_of, with_shapes
from .report import NoLayerError, NotFoldedError, Report, label
from .scope import Scope, subgraphs
from .steps import Layout, Step, follow


def fold_model(model: Any, *, keep: Iterable[str] = (), overridable: bool = False) -> Report:
    """Folds the batch norms of a model, in place, and reports which, and the reasons why others are left.

    Parameters
    ----------
    model : onnx.ModelProto
        With its external data in it, as read_model() gives it. Its subgraphs are folded as well, its functions are not.
    keep : iterable of str, optional
        Batch norms to be left, by the name of the node or of its output.
    overridable : bool, default False
        True if initializers may change that are inputs of the graph as well, so that who runs the model may override
        them.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        No batch norm has a name of `keep`, or nodes are not in order.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import TensorProto, helper, numpy_helper
    >>> from batchnorm.onnx_files import fold_model
    >>> nodes = [
    ...     helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
    ...     helper.make_node("BatchNormalization", ["c", *"gbmv"], ["y"], name="norm"),
    ... ]
    >>> arrays = {"w": np.ones((2, 1, 1, 1)), **{name: np.ones(2) for name in "gbmv"}}
    >>> tensors = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]
    >>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    >>> model = helper.make_model(helper.make_graph(nodes, "graph", [x], [y], tensors))
    >>> print(fold_model(model).folded[0].how, [node.op_type for node in model.graph.node])
    into Conv 'conv' before it ['Conv']
    """
    kept, report = frozenset(keep), Report()
    names = {name for graph in _graphs(model) for node in graph.node if is_norm(node) for name in _both(node)}
    for name in sorted(kept - names):
        raise ValueError(f"no batch norm is called {name!r}")
    if model.training_info:  # its graphs name tensors of this one
        report.left.extend((label(node), _TRAINED) for graph in _graphs(model) for node in graph.node if is_norm(node))
        return report
    scopes = list(_scopes(model, model.graph, with_shapes(model).graph, None, overridable))
    for scope in scopes:
        _fold(scope, kept, report)
    for scope in reversed(scopes):  # from within: nodes are copied back with their subgraphs
        scope.finish()
    for function in model.functions:
        for node in function.node:
            if is_norm(node):
                report.left.append((f"{function.name}/{label(node)}", _IN_FUNCTION))
    return report


_TRAINED = "the model has training information, which names what would be folded"
_IN_FUNCTION = "it stands in a function of the model: onnx.inliner.inline_local_functions makes one graph of them"


def _fold(scope: Scope, keep: frozenset[str], report: Report) -> None:
    for node in list(scope.nodes):
        if is_a(node, *LINEAR):
            fold_after(scope, node, keep, report)
    for node in list(scope.nodes):
        if is_norm(node) and scope.makers.get(node.output[0]) is node:
            name, reason = label(node), _settle(scope, node, keep, report)
            if reason:
                report.left.append((name, reason))


def _settle(scope: Scope, node: Any, keep: frozenset[str], report: Report) -> str:
    """Folds a batch norm that no layer before it took, or says why not."""
    if keep & set(_both(node)):
        return "it is to be kept"
    try:
        first = Step(node, form_of(node, scope.opset, scope.constants))
    except NotFoldedError as reason:
        return str(reason)
    layout = Layout(scope.rank(node.output[0]), 1, first.form.scale.size)
    steps = [first, *follow(scope, node.output[0], layout, keep)]
    try:
        for layer in fold_before(scope, steps, report):
            fold_after(scope, layer, keep, report)  # by its new numbers it may hold what was too large before
        return ""
    except NoLayerError as reason:
        why = _between(scope, node, str(reason))
    except NotFoldedError as reason:
        why = str(reason)
    why = why_not_after(scope, node, keep) or why
    merge(scope, steps, report)
    return why


def _between(scope: Scope, norm: Any, before: str) -> str:
    maker = scope.makers.get(norm.input[0])
    after = f"{maker.op_type} {label(maker)!r}" if maker is not None else f"the input {norm.input[0]!r}"
    return f"no layer is beside it: after {after}, and {before}"


def _scopes(model: Any, graph: Any, shaped: Any, outer: Scope | None, overridable: bool) -> Iterator[Scope]:
    """A graph and all those within it."""
    scope = Scope(model, graph, opset_of(model.opset_import), ranks_of(shaped), outer, overridable)
    yield scope
    for node, twin in zip(graph.node, shaped.node):
        for inner, inner_twin in zip(subgraphs(node), subgraphs(twin)):
            yield from _scopes(model, inner, inner_twin, scope, overridable)


def _both(node: Any) -> tuple[str, str]:
    """Both names of a batch norm: its own, and that of its output."""
    return node.name, node.output[0]


def _graphs(model: Any) -> Iterator[Any]:
    todo = [model.graph]
    for graph in todo:
        yield graph
        todo.extend(inner for node in graph.node for inner in subgraphs(node))
