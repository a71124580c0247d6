# SPDX-License-Identifier: Apache-2.0
"""batch_norm() for tensors, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from . import compiled, operators
from .differentiation import normalized
from .watching import has_tangents, is_transformed, is_watched

__all__ = ["batch_norm", "set_smallest"]

# Below so many elements PyTorch is as fast, as a Function written in Python takes some 40 µs more per step. Forward and
# backward, PyTorch's time over ours (benchmarks/torch_layers.py, one thread of an EPYC; medians of 201, in turn):
#
#     elements    C order: float32    bfloat16    channels last: float32    bfloat16
#         8192                0.76        0.67                      0.63        0.64
#        32768                0.99        0.77                      0.71        0.71
#       131072                1.62        0.81                      0.94        0.94
#       401408                1.23        0.86                      1.59        1.00
_SMALLEST_PLANES, _SMALLEST_OTHERS = 32_768, 131_072
_smallest: int | None = None
_PLAIN = Tensor, torch.nn.Parameter
_VECTORS = *_PLAIN, type(None)
# The dtypes of parameters and running statistics, which are one, beside an x of each.
_BESIDE = {
    torch.float32: (torch.float32,),
    torch.float64: (torch.float64,),
    torch.float16: (torch.float16, torch.float32),
    torch.bfloat16: (torch.bfloat16, torch.float32),
}


def batch_norm(
    input: Tensor,  # noqa: A002 - the name that PyTorch has for it
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.batch_norm, by this library where it trains.

    A call goes to PyTorch's own function if it evaluates, if a graph is made of it (torch.compile, torch.export,
    torch.jit.trace), if the tensors are small, empty, on another device than the CPU, or none that this library takes,
    and if something is wrong with the arguments, for PyTorch's words about it.

    Parameters
    ----------
    input : Tensor of shape (N, C) or (N, C, ...)
        Of float32, float64, float16 or bfloat16. Its memory format stays.
    running_mean, running_var : Tensor of shape (C,), or None
        In training they are updated in place.
    weight, bias : Tensor of shape (C,), optional
        Of the dtype of `input`, or float32 beside one of 16 bits.
    training : bool, default False
        True if `input` is normalized with its own statistics.
    momentum : float, default 0.1
        Weight of the new batch.
    eps : float, default 1e-5
        Added to the variance.

    Returns
    -------
    Tensor
        With a gradient, whose own gradient is known as well, in either mode of differentiation, and under the
        transforms of torch.func. Third derivatives are not known.
    """
    if not training or is_watched():
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if operators.THERE and _are_plain(input, running_mean, running_var, weight, bias):
        try:
            return compiled.apply(input, weight, bias, running_mean, running_var, momentum, eps)
        except RuntimeError:
            pass  # nothing was written; what is wrong is told below, in better words
    if not takes(input, running_mean, running_var, weight, bias):
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return normalized(input, weight, bias, running_mean, running_var, momentum, eps)


def _are_plain(x: Tensor, *vectors: Tensor | None) -> bool:
    """True if the operators may be given these; they look at shapes and dtypes themselves, in less time."""
    if type(x) not in _PLAIN or not x.is_cpu or x.numel() < (_smallest or 0) or is_transformed() or has_tangents():
        return False
    mean, var, weight, bias = map(type, vectors)
    return mean in _VECTORS and var in _VECTORS and weight in _VECTORS and bias in _VECTORS


def set_smallest(elements: int | None) -> None:
    """Has tensors of fewer elements be PyTorch's in training.

    Parameters
    ----------
    elements : int or None
        0: none of them, so that all have this library's exactness. None: those in which PyTorch was found to be as
        fast, which is the default: 32,768 elements, or 131,072 for 16 bits and for channels_last.
    """
    global _smallest
    if elements is not None and elements < 0:
        raise ValueError(f"elements is {elements}, expected at least 0")
    _smallest = elements


def takes(
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    least: int | None = None,
) -> bool:
    """True if a call in training is this library's; `least` is in place of set_smallest()."""
    kinds = _BESIDE.get(x.dtype)
    if kinds is None or type(x) not in _PLAIN or x.device.type != "cpu" or x.layout is not torch.strided or x.dim() < 2:
        return False
    channels, count = x.shape[1], x.numel()
    least = _smallest if least is None else least
    if least is None:
        least = _SMALLEST_PLANES if x.element_size() > 2 and x.is_contiguous() else _SMALLEST_OTHERS
    if count < least or count <= channels or (mean is None) != (var is None):
        return False
    kind = None
    for each in (weight, bias, mean, var):
        if each is None:
            continue
        if type(each) not in _PLAIN or each.shape != (channels,) or each.dtype not in kinds:
            return False
        if each.dtype is not (kind or each.dtype) or each.device.type != "cpu":
            return False
        kind = each.dtype
    return True
