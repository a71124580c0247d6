# SPDX-License-Identifier: Apache-2.0
"""Folding: batch norm in inference becomes a part of the linear layer or convolution before or after it.

::

    after a layer      W' = scale[out] * W      b' = scale[out] * b + shift[out]
    before a layer     W' = W * scale[in]       b' = b + sum(W * shift[in])

All of it is computed in float64 and rounded once, to the dtype of the weight: float32, float64, float16 or bfloat16 (of
the package ml_dtypes). A layer without a bias gets one. The given arrays stay as they are; the returned ones are new.

`norm` is a layer, which is folded as it evaluates, or a ScaleShift. Its channels are those of the layer that
it is folded into: a BatchNorm has them at axis 1 or at the last axis of the tensors, or is refused. A weight does not
say which of the two its convolution works on: that is for the caller to know.

Weights are laid out as in PyTorch and ONNX: (out, in) of a linear layer, (out, in / groups, *kernel) of a convolution
and (in, out / groups, *kernel) of a transposed one. These expressions bring Keras's weights into this order:

::

    Dense                     kernel.T
    Conv, ConvTranspose       np.moveaxis(kernel, (-1, -2), (0, 1))
    DepthwiseConv             np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(out, 1, *kernel.shape[:-2])   groups: in
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core.rounding import index_of
from ..layers.layer import BatchNorm
from .folded import Foldable, Folded, check_norm
from .scale_shift import ScaleShift

Norm = Union[BatchNorm, ScaleShift]
PerAxis = Union[int, Sequence[int]]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def fold_linear(weight: ArrayLike, bias: ArrayLike | None, norm: Norm) -> Folded:
    """A linear layer that does what `norm` does to the output of the given one.

    Parameters
    ----------
    weight : array_like, (out, in)
    bias : array_like, (out,), or None
        Of the dtype of weight.
    norm : BatchNorm or ScaleShift
        Of `out` channels.

    Returns
    -------
    Folded
        (weight, bias) in the shapes and the dtype of weight.

    Raises
    ------
    ValueError
        A shape does not fit, a number is not finite, a result is beyond what the dtype holds, or `norm` is a layer of
        another axis, or one that ScaleShift.of() refuses.
    TypeError
        A dtype is none of the four, bias has another one than weight, or `norm` is neither layer nor ScaleShift.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> weight = np.array([[1, 2], [3, 4]], np.float32)
    >>> folded = bn.fold_linear(weight, None, bn.ScaleShift([10, 0.5], [7, 8]))
    >>> print(folded.weight.tolist(), folded.bias.tolist())
    [[10.0, 20.0], [1.5, 2.0]] [7.0, 8.0]
    """
    check_norm(norm, weight)
    return _after(Foldable(weight, bias, (2,)), norm)


def fold_conv(
    weight: ArrayLike, bias: ArrayLike | None, norm: Norm, *, groups: int = 1, transposed: bool = False
) -> Folded:
    """A convolution that does what `norm` does to the output of the given one, whatever its strides and paddings.

    Parameters
    ----------
    weight : array_like, (out, in / groups, *kernel), or transposed (in, out / groups, *kernel)
        With one to three axes of the kernel.
    bias : array_like, (out,), or None
        Of the dtype of weight.
    norm : BatchNorm or ScaleShift
        Of `out` channels.
    groups : int, default 1
        Divides both `in` and `out`; as many as there are inputs for a depthwise convolution.
    transposed : bool, default False

    Returns
    -------
    Folded
        (weight, bias) in the shapes and the dtype of weight.

    Raises
    ------
    ValueError, TypeError
        As of fold_linear(); and groups do not divide the channels.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> depthwise = np.ones((2, 1, 3), np.float32)
    >>> folded = bn.fold_conv(depthwise, [4, 4], bn.ScaleShift([10, 0.5], [7, 8]), groups=2)
    >>> print(folded.weight.tolist(), folded.bias.tolist())
    [[[10.0, 10.0, 10.0]], [[0.5, 0.5, 0.5]]] [47.0, 10.0]
    """
    check_norm(norm, weight)
    return _after(Foldable(weight, bias, (3, 4, 5), groups, transposed), norm)


def fold_into_linear(norm: Norm, weight: ArrayLike, bias: ArrayLike | None) -> Folded:
    """A linear layer that does what the given one does to the output of `norm`.

    If a tensor is flattened in between, each of its channels becomes several inputs in a row: fold a ScaleShift whose
    elements are repeated accordingly.

    Parameters
    ----------
    norm : BatchNorm or ScaleShift
        Of `in` channels.
    weight : array_like, (out, in)
    bias : array_like, (out,), or None
        Of the dtype of weight.

    Returns
    -------
    Folded
        (weight, bias) in the shapes and the dtype of weight.

    Raises
    ------
    ValueError, TypeError
        As of fold_linear().

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> norm, weight = bn.ScaleShift(np.array([10, 0.5]), np.array([7, 8])), np.ones((1, 6), np.float32)
    >>> flat = bn.ScaleShift(*(np.repeat(each, 3) for each in norm))  # (N, 2, 3) becomes (N, 6)
    >>> folded = bn.fold_into_linear(flat, weight, None)
    >>> print(folded.weight.tolist(), folded.bias.tolist())
    [[10.0, 10.0, 10.0, 0.5, 0.5, 0.5]] [45.0]
    """
    check_norm(norm, weight)
    return _before(Foldable(weight, bias, (2,)), norm)[0]


def fold_into_conv(
    norm: Norm,
    weight: ArrayLike,
    bias: ArrayLike | None,
    *,
    groups: int = 1,
    transposed: bool = False,
    padding: PerAxis | Literal["valid", "same"] = 0,
    padding_mode: PaddingMode = "zeros",
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    output_padding: PerAxis = 0,
) -> Folded:
    """A convolution that does what the given one does to the output of `norm`; an error where there is none.

    A shift adds sum(W * shift) to an output that all taps of the kernel go into. If the convolution pads with zeros,
    some taps of outputs at the border see a zero in place of an output of `norm`, and get no shift, so that no bias is
    right for all outputs: the shift of each channel that has a weight other than 0 must be 0 then. The other modes pad
    with outputs of `norm`.

    The outputs of a transposed convolution have all taps if, along each axis, the stride is 1 and what `padding` cuts
    off the border has them all: padding >= dilation * (kernel - 1) + output_padding, as of a kernel of 1 without
    output_padding. Otherwise, too, the shift has to be 0.

    Parameters
    ----------
    norm : BatchNorm or ScaleShift
        Of `in` channels.
    weight, bias, groups, transposed
        As of fold_conv().
    padding : int, one int per axis of the kernel, or "valid" or "same", default 0
        As PyTorch has it; "same" not with strides, nor transposed. If the two ends of an axis differ, the larger of
        them; transposed, the smaller.
    padding_mode : str, default "zeros"
        "zeros", "reflect", "replicate" or "circular"; transposed, "zeros".
    stride, dilation : int, or one int per axis of the kernel, default 1
    output_padding : int, or one int per axis of the kernel, default 0
        For transposed convolutions only.

    Returns
    -------
    Folded
        (weight, bias) in the shapes and the dtype of weight. All that was told holds for them, too.

    Raises
    ------
    ValueError, TypeError
        As of fold_conv(); a setting is not one that a convolution can have; and a shift that has to be 0 is not.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> norm, weight = bn.ScaleShift([10], [7]), np.ones((1, 1, 3), np.float32)
    >>> folded = bn.fold_into_conv(norm, weight, None, padding=1, padding_mode="circular")
    >>> print(folded.weight.tolist(), folded.bias.tolist())
    [[[10.0, 10.0, 10.0]]] [21.0]
    >>> bn.fold_into_conv(norm, weight, None, padding=1)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: norm has shift 7 at channel 0, expected 0: the convolution pads with zeros, ...
    """
    check_norm(norm, weight)
    layer = Foldable(weight, bias, (3, 4, 5), groups, transposed)
    strides = _per_axis(stride, "stride", layer.kernel, 1)
    dilations = _per_axis(dilation, "dilation", layer.kernel, 1)
    extra = _per_axis(output_padding, "output_padding", layer.kernel, 0)
    _check_mode(padding_mode, transposed)
    paddings = _paddings(padding, layer.kernel, strides, dilations, transposed)
    if any(extra) and not transposed:
        raise ValueError(f"output_padding is {output_padding}, expected 0 of a convolution that is not transposed")
    folded, matters = _before(layer, norm)
    if transposed:
        needed = tuple(d * (k - 1) + more for d, k, more in zip(dilations, layer.kernel, extra))
        all_taps = max(strides) == 1 and all(p >= least for p, least in zip(paddings, needed))
        why = f"outputs have taps of their own, unless stride is 1 and padding at least {needed}"
    else:
        all_taps = padding_mode != "zeros" or not any(paddings)
        why = f"the convolution pads with zeros, which the norm would have shifted (padding is {padding!r})"
    if matters.any() and not all_taps:
        channel = index_of(matters)[0]
        shift = layer.take(norm, layer.inputs)[1].ravel()[channel]
        raise ValueError(f"norm has shift {shift:g} at channel {channel}, expected 0: {why}")
    return folded


def _after(layer: Foldable, norm: Norm) -> Folded:
    scale, shift = layer.take(norm, layer.outputs)
    with np.errstate(all="ignore"):  # folded() looks at what becomes of it
        return layer.folded(layer.blocks * scale, layer.bias * scale.ravel() + shift.ravel())


def _before(layer: Foldable, norm: Norm) -> tuple[Folded, NDArray[np.bool_]]:
    """The folded layer, and for each input whether its shift goes into an output."""
    scale, shift = layer.take(norm, layer.inputs)
    with np.errstate(all="ignore"):
        shifts = layer.blocks * shift
        bias = layer.bias + shifts.sum(axis=(layer.inputs, 3)).ravel()
        folded = layer.folded(layer.blocks * scale, bias)
    return folded, shifts.any(axis=(layer.outputs, 3)).ravel()


def _check_mode(mode: Any, transposed: bool) -> None:
    modes = ("zeros",) if transposed else ("zeros", "reflect", "replicate", "circular")
    if not isinstance(mode, str):
        raise TypeError(f"padding_mode is of type {type(mode).__name__}, expected a text")
    if mode not in modes:
        kind = " of a transposed convolution" if transposed else ""
        raise ValueError(f"padding_mode is {mode!r}, expected {' or '.join(map(repr, modes))}{kind}")


def _paddings(
    padding: PerAxis | Literal["valid", "same"],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    transposed: bool,
) -> tuple[int, ...]:
    """Along each axis: how much is padded at one of its ends, or both."""
    if not isinstance(padding, str):
        return _per_axis(padding, "padding", kernel, 0)
    if transposed or padding not in ("valid", "same"):
        texts = "" if transposed else ", or 'valid' or 'same'"
        raise ValueError(f"padding is {padding!r}, expected an int, or one for each axis of the kernel{texts}")
    if padding == "same" and max(strides) > 1:
        raise ValueError(f"padding is 'same' and stride is {strides}, expected a stride of 1, or padding in numbers")
    return tuple(d * (k - 1) if padding == "same" else 0 for d, k in zip(dilations, kernel))


def _per_axis(value: Any, name: str, kernel: tuple[int, ...], least: int) -> tuple[int, ...]:
    """An int for each axis of the kernel."""
    given = value if isinstance(value, (tuple, list)) else [value] * len(kernel)
    try:
        numbers = tuple(operator.index(each) for each in given)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected an int, or one for each axis of the kernel") from None
    if len(numbers) != len(kernel):
        raise ValueError(f"{name} is {value!r}, expected an int, or {len(kernel)} for a kernel of shape {kernel}")
    if min(numbers) < least:
        raise ValueError(f"{name} is {value!r}, expected at least {least}")
    return numbers
