# SPDX-License-Identifier: Apache-2.0
"""A linear layer or a convolution as folding takes it, and the one that folding gives; all of it checked."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._core.arrays import Array, Doubles, doubles, kind_of, plain, tensor
from .._core.layout import BITS
from .._core.options import flag
from .._core.public import publish
from .._core.rounding import finite, rounded
from ..layers.layer import BatchNorm
from .scale_shift import ScaleShift


@publish
class Folded(NamedTuple):
    """The weight and the bias of a layer that does what two did.

    Attributes
    ----------
    weight, bias : ndarray
        In the dtype of the weight that was folded, and in its shape and that of a bias, (out,).

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> weight, bias = bn.fold_linear(np.ones((2, 3), np.float32), None, bn.BatchNorm(2))
    >>> print(weight.shape, bias.shape, bias.dtype)
    (2, 3) (2,) float32
    """

    weight: Array
    bias: Array


class Foldable:
    """A layer's weight in float64 as `blocks` of (groups, rows per group, columns, taps), and its bias.

    A linear layer is a convolution with one tap. Its outputs are the rows and its inputs the columns; a transposed
    convolution has them the other way round. `inputs` and `outputs` are the axes of blocks.
    """

    def __init__(
        self,
        weight: ArrayLike,
        bias: ArrayLike | None,
        ranks: tuple[int, ...],
        groups: int = 1,
        transposed: bool = False,
    ) -> None:
        array = tensor(weight, "weight")
        if array.dtype == BITS:
            raise TypeError(f"weight has dtype {BITS}, expected a dtype of numbers: ml_dtypes has one for bfloat16")
        self.dtype, self.shape, self.kernel = array.dtype, array.shape, array.shape[2:]
        rows, columns = ("in", "out") if transposed else ("out", "in")
        if array.ndim not in ranks or 0 in array.shape:
            per_group, kernel = (" / groups", ", and a kernel of 1 to 3 axes") if 3 in ranks else ("", "")
            raise ValueError(f"weight has shape {array.shape}, expected ({rows}, {columns}{per_group}){kernel}, none 0")
        finite(array, "weight")
        groups = _divisor(groups, array.shape, rows)
        blocks = groups, array.shape[0] // groups, array.shape[1], math.prod(self.kernel)
        self.blocks: Doubles = array.astype(np.float64).reshape(blocks)
        self.inputs, self.outputs = (1, 2) if flag(transposed, "transposed") else (2, 1)
        self.bias: Doubles = np.zeros(groups * blocks[self.outputs]) if bias is None else self._checked(bias)

    def _checked(self, bias: ArrayLike) -> Doubles:
        array = plain(bias, "bias")
        if hasattr(bias, "dtype") and array.dtype != self.dtype:
            raise TypeError(f"bias has dtype {array.dtype}, expected {self.dtype}, the dtype of weight")
        expected = (self.blocks.shape[0] * self.blocks.shape[self.outputs],)
        if array.shape != expected:
            outputs = f"one element per output of weight {self.shape}"
            raise ValueError(f"bias has shape {array.shape}, expected {expected}: {outputs}")
        values = doubles(array, "bias", expected)
        finite(values, "bias")
        return values

    def take(self, norm: Any, axis: int) -> tuple[Doubles, Doubles]:
        """The scale and the shift of a norm's channels, which are those of this axis, shaped to go with blocks."""
        if isinstance(norm, ScaleShift):
            shape = np.shape(norm.scale)
            given = ScaleShift(doubles(norm.scale, "norm's scale", shape), doubles(norm.shift, "norm's shift", shape))
            finite(given.scale, "norm's scale")
            finite(given.shift, "norm's shift")
        else:
            check_norm(norm)
            given = ScaleShift.of(norm, "norm")
        expected = self.blocks.shape[0] * self.blocks.shape[axis]
        if given.scale.shape != (expected,):
            channels = given.scale.size if given.scale.ndim == 1 else given.scale.shape
            kind = "inputs" if axis == self.inputs else "outputs"
            raise ValueError(f"norm has {channels} channels, expected {expected}, the {kind} of weight {self.shape}")
        if isinstance(norm, BatchNorm):
            self._check_axis(norm)
        spread = tuple(length if a in (0, axis) else 1 for a, length in enumerate(self.blocks.shape))
        return given.scale.reshape(spread), given.shift.reshape(spread)

    def _check_axis(self, norm: BatchNorm) -> None:
        """ValueError unless the axis of the norm can be that of the layer's channels: axis 1, or the last one."""
        axis = norm.axis[0] if isinstance(norm.axis, tuple) else norm.axis
        rank = 2 + len(self.kernel)
        if self.kernel and axis in (1, rank - 1, -1, 1 - rank):
            return
        if not self.kernel and (axis >= 1 or axis == -1):
            return  # of tensors with more axes than two, the last one
        if self.kernel:
            expected, tensors = f"1 or -1, where a convolution of {rank - 2} axes has its channels", f"{rank} axes"
        else:
            expected, tensors = "-1, or 1 of two axes, where a linear layer has its channels", "another layout"
        raise ValueError(
            f"norm has its channels at axis {norm.axis}, expected {expected} "
            f"(if these are they, of tensors of {tensors}, fold ScaleShift.of(norm))"
        )

    def folded(self, blocks: Doubles, bias: Doubles) -> Folded:
        """The layer with other numbers."""
        return Folded(rounded(blocks.reshape(self.shape), self.dtype, "weight"), rounded(bias, self.dtype, "bias"))


def check_norm(norm: Any, weight: Any = None) -> None:
    """TypeError if `norm` is no norm, or if a norm is in the place of the weight."""
    if isinstance(weight, (BatchNorm, ScaleShift)):
        raise TypeError(f"weight is a {type(weight).__name__}, expected an array: were the arguments swapped?")
    if not isinstance(norm, (BatchNorm, ScaleShift)):
        raise TypeError(f"norm is of type {kind_of(norm)}, expected BatchNorm or ScaleShift")


def _divisor(groups: int, shape: tuple[int, ...], rows: str) -> int:
    try:
        groups = operator.index(groups)
    except TypeError:
        raise TypeError(f"groups is {groups!r}, expected an int") from None
    if groups < 1:
        raise ValueError(f"groups is {groups}, expected at least 1")
    if shape[0] % groups:
        raise ValueError(f"groups is {groups}, expected a divisor of {shape[0]}, the {rows}puts of weight {shape}")
    return groups
