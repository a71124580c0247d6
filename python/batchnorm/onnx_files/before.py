# SPDX-License-Identifier: Apache-2.0
"""A batch norm becomes a part of the layers after it, of all of them or of none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..deploy.scale_shift import ScaleShift
from ._onnx import attributes, is_a
from .norms import is_norm
from .patterns import LINEAR, linear
from .patterns.linear import Linear
from .report import Fold, NoLayerError, NotFoldedError, Report, label
from .scope import Scope
from .steps import Step, composed, is_idle


def fold_before(scope: Scope, steps: list[Step], report: Report) -> list[Any]:
    """Folds steps into the nodes that take their output, and gives those; NotFoldedError if one of them can not."""
    output, source = steps[-1].node.output[0], steps[0].node.input[0]
    if scope.shown(output):
        seen = "is an output of the graph" if output in scope.outputs else "is used in a subgraph"
        raise NoLayerError(f"its output {seen}")
    form = composed(steps)
    changes = [(layer, layer.before(wide)) for layer, wide in _targets(scope, output, form)]
    if not changes:
        raise NoLayerError("nothing uses its output")
    tensors = tuple(layer.node.output[0] for layer, _ in changes)
    for user in list(scope.users[output]):
        scope.set_input(user, list(user.input).index(output), source)
    for step in reversed(steps):
        scope.remove(step.node)
    for layer, folded in changes:
        layer.write(folded)
    titles = " and ".join(layer.title for layer, _ in changes)
    for step in steps:
        if is_norm(step.node):
            report.folded.append(Fold(label(step.node), f"into {titles} after it", tensors, scope.outer is None))
    return [layer.node for layer, _ in changes]


def _targets(scope: Scope, name: str, form: ScaleShift) -> Iterator[tuple[Linear, ScaleShift]]:
    """The layers that take a tensor, with the scale and shift of their inputs; an error if any other node takes it."""
    for user in scope.users.get(name, []):
        if is_a(user, "Flatten", "Reshape") and user.input[0] == name and not scope.shown(user.output[0]):
            if not _keeps_batch(scope, user):
                raise NoLayerError(f"before {user.op_type} {label(user)!r}, which may mix up channels")
            for layer, seen in _targets(scope, user.output[0], form):
                yield layer, _repeated(layer, seen)
        elif is_idle(scope, user) and not scope.shown(user.output[0]):
            yield from _targets(scope, user.output[0], form)
        elif not is_a(user, *LINEAR):
            raise NoLayerError(f"before {user.op_type} {label(user)!r}")
        elif list(user.input).index(name) != 0 or list(user.input).count(name) > 1:
            raise NotFoldedError(f"before {user.op_type} {label(user)!r}, as its weight")
        else:
            yield linear(scope, user), form


def _keeps_batch(scope: Scope, node: Any) -> bool:
    """True if a node makes (N, C * ...) of (N, C, ...)."""
    if is_a(node, "Flatten"):
        return bool(attributes(node).get("axis", 1) == 1)
    shape = scope.constants.get(node.input[1]) if len(node.input) > 1 else np.array(attributes(node).get("shape", ()))
    return shape is not None and shape.size == 2 and shape[0] == 0 and not attributes(node).get("allowzero", 0)


def _repeated(layer: Linear, form: ScaleShift) -> ScaleShift:
    """The form of a tensor that was flattened, in which each channel is several inputs in a row."""
    inputs = layer.weight.shape[1] if layer.told.get("transB", 0) else layer.weight.shape[0]
    if layer.rank != 2 or inputs % form.scale.size:
        raise NotFoldedError(f"before {layer.title}, whose inputs are not {form.scale.size} channels")
    return ScaleShift(*(np.repeat(each, inputs // form.scale.size) for each in form))
