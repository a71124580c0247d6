# SPDX-License-Identifier: Apache-2.0
"""The tensors that this library takes; all others are PyTorch's."""

from __future__ import annotations

import torch
from torch import Tensor

# Below so many elements PyTorch is as fast as the Python way, which takes some 28 µs more per step. The operators take
# all. A layer forward and backward, PyTorch's time over ours (benchmarks/torch_layers.py: one thread, medians in turn):
#
#     elements    C order: float32   bfloat16   float16    channels last: float32   bfloat16   float16
#       by Python
#         8192                  0.76       0.68      0.67                      0.67       0.67      0.66
#        32768                  1.14       0.86      0.83                      0.77       0.77      0.73
#       131072                  2.00       1.09      1.03                      1.09       1.09      1.02
#       by the operators
#           32                  0.97       1.00      0.99                      1.01       1.04      1.03
#         8192                  1.23       1.07      1.05                      1.16       1.16      1.14
#        32768                  1.71       1.27      1.23                      1.24       1.23      1.19
#       131072                  2.66       1.41      1.36                      1.53       1.58      1.46
_SMALLEST_PLANES, _SMALLEST_OTHERS = 32_768, 131_072
PLAIN = Tensor, torch.nn.Parameter
# The dtypes of parameters and running statistics, which are one, beside an x of each.
BESIDE = {
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
    kinds = BESIDE.get(x.dtype)
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
