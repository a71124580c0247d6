# SPDX-License-Identifier: Apache-2.0
"""Conv and ConvTranspose, with groups, along one to three axes."""

from __future__ import annotations

from typing import Any

from ...deploy.folded import Folded
from ...deploy.folding import fold_conv, fold_into_conv
from ...deploy.scale_shift import ScaleShift
from ..report import NotFoldedError
from ..scope import Scope
from .linear import Linear, leaving, spread


class Convolution(Linear):
    """A convolution, whose outputs have their channels at axis 1."""

    axis = 1

    def __init__(self, scope: Scope, node: Any) -> None:
        super().__init__(scope, node)
        if self.weight.ndim < 3:
            raise NotFoldedError(f"the weight of {self.title} has shape {self.weight.shape}, expected 3 axes or more")
        self.transposed = node.op_type == "ConvTranspose"
        self.rank = self.weight.ndim
        self.groups = int(self.told.get("group", 1))
        self.channels = self.weight.shape[1] * self.groups if self.transposed else self.weight.shape[0]
        if len(node.input) > 2 and node.input[2]:
            self.bias = self.constant(2, "bias")

    def after(self, form: ScaleShift) -> Folded:
        with leaving(f"after {self.title}"):
            of_outputs = spread(form, self.channels)
            return fold_conv(self.weight, self.bias, of_outputs, groups=self.groups, transposed=self.transposed)

    def before(self, form: ScaleShift) -> Folded:
        inputs = self.weight.shape[0] if self.transposed else self.weight.shape[1] * self.groups
        with leaving(f"before {self.title}"):
            told: dict[str, Any] = {"groups": self.groups, "padding": self._padding()}
            if self.transposed:
                axes = self.rank - 2
                told["transposed"] = True
                for key, name, default in (
                    ("stride", "strides", 1),
                    ("dilation", "dilations", 1),
                    ("output_padding", "output_padding", 0),
                ):
                    told[key] = tuple(int(each) for each in self.told.get(name, [default] * axes))
            return fold_into_conv(spread(form, inputs), self.weight, self.bias, **told)

    def _padding(self) -> tuple[int, ...]:
        """The padding along each axis: the larger end of what is added, or the smaller end of what is cut off."""
        kernel = self.weight.shape[2:]
        auto = self.told.get("auto_pad", b"NOTSET")
        if self.transposed and (auto not in (b"NOTSET", b"VALID") or "output_shape" in self.told):
            raise NotFoldedError(f"before {self.title}: its padding depends on the shape of x")
        if auto in (b"SAME_UPPER", b"SAME_LOWER"):
            return tuple(int(length > 1) for length in kernel)
        pads = [0] * 2 * len(kernel) if auto == b"VALID" else self.told.get("pads", [0] * 2 * len(kernel))
        ends = zip(pads[: len(kernel)], pads[len(kernel) :])
        return tuple(min(each) if self.transposed else max(each) for each in ends)
