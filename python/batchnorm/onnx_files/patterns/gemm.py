# SPDX-License-Identifier: Apache-2.0
"""Gemm: alpha * A' * B' + beta * C, where B is the weight and C the bias."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._core.arrays import Doubles
from ..._core.rounding import rounded
from ...deploy.folded import Folded
from ...deploy.folding import fold_into_linear, fold_linear
from ...deploy.scale_shift import ScaleShift
from .._onnx import onnx
from ..report import NotFoldedError
from ..scope import Scope
from .linear import Array, Linear, leaving, spread


class Gemm(Linear):
    """A linear layer of two axes."""

    rank, axis = 2, 1

    def __init__(self, scope: Scope, node: Any) -> None:
        super().__init__(scope, node)
        self.flipped = not self.told.get("transB", 0)
        if self.weight.ndim != 2:
            raise NotFoldedError(f"the weight of {self.title} has shape {self.weight.shape}, expected two axes")
        rows = self.weight.T if self.flipped else self.weight
        # alpha and beta go into the numbers, in float64, and become 1.
        self.rows: Doubles = rows.astype(np.float64) * self.told.get("alpha", 1.0)
        self.channels = rows.shape[0]
        if len(node.input) > 2 and node.input[2]:
            self.bias = self._vector(self.constant(2, "bias"))

    def _vector(self, bias: Array) -> Array:
        if bias.size != 1 and bias.shape[-1] != bias.size:
            raise NotFoldedError(
                f"the bias of {self.title} has shape {bias.shape}, which is not one number for each output"
            )
        if bias.size not in (1, self.channels):
            raise NotFoldedError(f"the bias of {self.title} has shape {bias.shape}, expected {self.channels} numbers")
        scaled = bias.astype(np.float64).ravel() * self.told.get("beta", 1.0)
        return np.broadcast_to(scaled, (self.channels,))

    def after(self, form: ScaleShift) -> Folded:
        with leaving(f"after {self.title}"):
            return self._rounded(fold_linear(self.rows, self.bias, spread(form, self.channels)))

    def before(self, form: ScaleShift) -> Folded:
        if self.told.get("transA", 0):
            raise NotFoldedError(f"before {self.title}: it has transA=1, by which channels are not what it sums over")
        with leaving(f"before {self.title}"):
            return self._rounded(fold_into_linear(spread(form, self.rows.shape[1]), self.rows, self.bias))

    def _rounded(self, folded: Folded) -> Folded:
        dtype = self.weight.dtype
        weight, bias = (rounded(each.astype(np.float64), dtype, "a weight") for each in folded)
        return Folded(np.ascontiguousarray(weight.T) if self.flipped else weight, bias)

    def write(self, folded: Folded) -> None:
        super().write(folded)
        for index in reversed(range(len(self.node.attribute))):
            if self.node.attribute[index].name in ("alpha", "beta", "broadcast"):
                del self.node.attribute[index]
        if self.scope.opset < 7:
            self.node.attribute.append(onnx.helper.make_attribute("broadcast", 1))
