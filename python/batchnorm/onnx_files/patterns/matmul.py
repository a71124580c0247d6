# SPDX-License-Identifier: Apache-2.0
"""MatMul by a matrix, the Dense of Keras, whose bias is an Add of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...deploy.folded import Folded
from ...deploy.folding import fold_into_linear, fold_linear
from ...deploy.scale_shift import ScaleShift
from .._onnx import attributes, is_a, onnx
from ..report import NotFoldedError, label
from ..scope import Scope
from .linear import Linear, leaving, spread


class MatMul(Linear):
    """A linear layer over the last axis of x, without a bias."""

    def __init__(self, scope: Scope, node: Any) -> None:
        super().__init__(scope, node)
        if self.weight.ndim != 2:
            raise NotFoldedError(f"the weight of {self.title} has shape {self.weight.shape}, expected two axes")
        rank = scope.rank(node.output[0]) or scope.rank(node.input[0])
        if rank is None or rank < 2:
            raise NotFoldedError(f"the shape of what goes into {self.title} is not known")
        self.rank, self.axis, self.channels = rank, rank - 1, self.weight.shape[1]
        self.add: tuple[Any, int] | None = None

    def after(self, form: ScaleShift) -> Folded:
        with leaving(f"after {self.title}"):
            return _columns(fold_linear(self.weight.T, None, spread(form, self.channels)))

    def before(self, form: ScaleShift) -> Folded:
        if self.rank != 2:
            raise NotFoldedError(
                f"before {self.title}: x has {self.rank} axes, and the channels are not what it sums over"
            )
        self._find_add()
        with leaving(f"before {self.title}"):
            return _columns(fold_into_linear(spread(form, self.weight.shape[0]), self.weight.T, self.bias))

    def _find_add(self) -> None:
        """The Add of a bias behind the MatMul, which can take the new bias."""
        add = self.scope.only_user(self.node.output[0])
        if add is None or not is_a(add, "Add"):
            return
        index = 1 - list(add.input).index(self.node.output[0])
        bias = self.scope.constants.get(add.input[index])
        along = attributes(add).get("axis", 1)  # before opset 7, where it is the axis of the output
        if bias is not None and bias.shape == (self.channels,) and along in (1, -1):
            self.add, self.bias = (add, index), bias

    def write(self, folded: Folded) -> None:
        """The bias goes into an Add behind it: a new one has the name of the output."""
        scope, output = self.scope, self.node.output[0]
        scope.put(self.node, 1, folded.weight, f"{label(self.node)}_weight")
        if self.add is not None:
            scope.put(*self.add, folded.bias, label(self.add[0]))
            return
        inner, bias = scope.fresh(f"{output}_product"), scope.fresh(f"{output}_bias")
        scope.rename_output(self.node, inner)
        scope.add_constant(bias, folded.bias)
        added = onnx.helper.make_node("Add", [inner, bias], [output], name=scope.fresh(f"{label(self.node)}_bias"))
        if scope.opset < 7:
            added.attribute.append(onnx.helper.make_attribute("broadcast", 1))
        scope.insert_after(self.node, added)


def _columns(folded: Folded) -> Folded:
    return Folded(np.ascontiguousarray(folded.weight.T), folded.bias)
