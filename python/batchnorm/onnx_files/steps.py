# SPDX-License-Identifier: Apache-2.0
"""Nodes that multiply each channel by a number and add one, and runs of them.

Beside BatchNormalization these are Mul, Add, Sub and Div by a constant, as the Scale of Caffe, the bias of a Dense or a
batch norm that was written out; and Identity and Dropout, which do nothing in inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..deploy.scale_shift import ScaleShift
from ._onnx import attributes, is_a
from .norms import form_of, is_norm
from .report import NotFoldedError
from .scope import Scope

ARITHMETIC = "Mul", "Add", "Sub", "Div"


@dataclass(frozen=True)
class Step:
    """One of these nodes. Numbers that are the same for all channels may be one element."""

    node: Any
    form: ScaleShift

    @property
    def idle(self) -> bool:
        return is_a(self.node, "Identity", "Dropout")


@dataclass(frozen=True)
class Layout:
    """The channels of a tensor: `rank` is None if it is not known, `channels` if any number will do."""

    rank: int | None
    axis: int
    channels: int | None


def follow(scope: Scope, name: str, layout: Layout, keep: frozenset[str]) -> list[Step]:
    """The steps from a tensor on, as far as each has only the next one for user."""
    steps: list[Step] = []
    while (node := scope.only_user(name)) is not None:
        step = step_of(scope, node, name, layout, keep)
        if step is None:
            break
        steps.append(step)
        name = node.output[0]
    return steps


def trimmed(steps: list[Step]) -> list[Step]:
    """The steps without those at the end that do nothing."""
    return trimmed(steps[:-1]) if steps and steps[-1].idle else steps


def step_of(scope: Scope, node: Any, name: str, layout: Layout, keep: frozenset[str]) -> Step | None:
    """A node that takes the tensor `name` as a step; None if it is none."""
    form: ScaleShift | None = None
    if node.name in keep or (node.output and node.output[0] in keep):
        return None
    if is_norm(node) and node.input[0] == name and list(node.input).count(name) == 1:
        try:
            form = form_of(node, scope.opset, scope.constants)
        except NotFoldedError:
            return None
        if layout.axis != 1:
            return None
    elif is_a(node, *ARITHMETIC) and len(node.input) == 2 and layout.rank is not None:
        form = _arithmetic(scope, node, name, layout)
    elif is_idle(scope, node):
        form = ScaleShift(np.ones(1), np.zeros(1))
    if form is None or layout.channels is None or form.scale.size in (1, layout.channels):
        return None if form is None else Step(node, form)
    return None


def composed(steps: list[Step]) -> ScaleShift:
    """All steps as one."""
    scale, shift = np.ones(1), np.zeros(1)
    with np.errstate(all="ignore"):  # folding looks at what becomes of it
        for step in steps:
            scale, shift = scale * step.form.scale, shift * step.form.scale + step.form.shift
    return ScaleShift(*np.broadcast_arrays(scale, shift))


def is_written_out(steps: list[Step]) -> bool:
    """True if steps without a batch norm are one in other words: they scale channels, and shift them.

    An Add that comes first is the layer's bias.
    """
    counted = steps[1:] if steps and is_a(steps[0].node, "Add") else steps
    scales = any(is_a(step.node, "Mul", "Div") and step.form.scale.size > 1 for step in counted)
    return scales and any(is_a(step.node, "Add", "Sub") for step in counted)


def is_idle(scope: Scope, node: Any) -> bool:
    """True if a node does nothing in inference."""
    if not is_a(node, "Dropout"):
        return is_a(node, "Identity")
    told = scope.opset >= 7 or attributes(node).get("is_test", 0)
    return bool(told) and not any(list(node.input)[2:]) and not any(list(node.output)[1:])


def _arithmetic(scope: Scope, node: Any, name: str, layout: Layout) -> ScaleShift | None:
    index = list(node.input).index(name)
    values = scope.constants.get(node.input[1 - index])
    if values is None or values.dtype.kind not in "fV" or (scope.opset < 7 and index == 1):
        return None
    number = _per_channel(values, node, scope.opset, layout)
    if number is None:
        return None
    one, zero = np.ones_like(number), np.zeros_like(number)
    with np.errstate(all="ignore"):
        if is_a(node, "Mul"):
            return ScaleShift(number, zero)
        if is_a(node, "Add"):
            return ScaleShift(one, number)
        if is_a(node, "Sub"):
            return ScaleShift(-one, number) if index else ScaleShift(one, -number)
        return ScaleShift(1 / number, zero) if index == 0 else None


def _per_channel(values: NDArray[Any], node: Any, opset: int, layout: Layout) -> NDArray[np.float64] | None:
    """The constant as one element, or one per channel; None if it is laid out otherwise."""
    assert layout.rank is not None
    shape, told = values.shape, attributes(node)
    if opset < 7 and "axis" in told:  # as it was before the rules of NumPy: aligned from this axis on
        shape = shape + (1,) * (layout.rank - int(told["axis"]) % layout.rank - len(shape))
    if len(shape) > layout.rank:
        return None
    full = (1,) * (layout.rank - len(shape)) + shape
    if any(length != 1 for axis, length in enumerate(full) if axis != layout.axis):
        return None
    return values.astype(np.float64).ravel()
