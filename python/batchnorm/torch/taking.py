# SPDX-License-Identifier: Apache-2.0
"""The tensors that this library takes; all others are PyTorch's."""

from __future__ import annotations

import torch
from torch import Tensor

# Below so many elements PyTorch is as fast, as a Function written in Python takes some 40 µs more per step. Forward and
# backward, PyTorch's time over ours (benchmarks/torch_layers.py, one thread of an EPYC; medians of 201, in turn):
#
#     elements    C order: float32    bfloat16    channels last: float32    bfloat16
#         8192                0.76        0.67                      0.63        0.64
#        32768                0.99        0.77                      0.71        0.71
#       131072                1.62        0.81                      0.94        0.94
#       401408                1.23        0.86                      1.59        1.00
_SMALLEST_PLANES, _SMALLEST_OTHERS = 32_768, 131_072
PLAIN = Tensor, torch.nn.Parameter
# The dtypes of parameters and running statistics, which are one, beside an x of each.
_BESIDE = {
    torch.float32: (torch.float32,),
    torch.float64: (torch.float64,),
    torch.float16: (torch.float16, torch.float32),
    torch.bfloat16: (torch.bfloat16, torch.float32),
}


class Smallest:
    """The least number of elements that set_smallest() has set, if it has."""

    told: int | None = None


def takes(
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    least: int | None = None,
) -> bool:
    """True if a call in training is this library's by way of Python; `least` is in place of set_smallest()."""
    if type(x) not in PLAIN or x.device.type != "cpu" or x.layout is not torch.strided:
        return False
    if least is None:
        least = Smallest.told
    if least is None:
        least = _SMALLEST_PLANES if x.element_size() > 2 and x.is_contiguous() else _SMALLEST_OTHERS
    if x.numel() < least or not all(each is None or type(each) in PLAIN for each in (weight, bias, mean, var)):
        return False
    return is_right(x, mean, var, weight, bias)


def is_right(x: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> bool:
    """True if shapes and dtypes are such as the library takes: what is not, is told in PyTorch's words."""
    kinds = _BESIDE.get(x.dtype)
    if kinds is None or x.dim() < 2 or x.numel() <= x.shape[1] or (mean is None) != (var is None):
        return False
    vectors = [each for each in (weight, bias, mean, var) if each is not None]
    return all(
        each.shape == (x.shape[1],)
        and each.dtype in kinds
        and each.dtype is vectors[0].dtype
        and each.device.type == "cpu"
        for each in vectors
    )
