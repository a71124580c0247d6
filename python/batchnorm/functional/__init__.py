# SPDX-License-Identifier: Apache-2.0
"""Batch normalization as functions of arrays (Ioffe and Szegedy, 2015, arXiv:1502.03167).

With M values x_c in channel c::

    mean_c = sum(x_c) / M        var_c = sum((x_c - mean_c)**2) / M
    x_hat  = (x - mean_c) * invstd_c        invstd_c = 1 / sqrt(var_c + eps)
    y      = gamma_c * x_hat + beta_c

An array goes to the library by pointer, without a copy, if it is dense in some order of its axes (C, Fortran,
transposed, channels-last views) or sliced along its outermost axes in memory only (every second sample, the first
channels of a channels-first array if the batch axis is the only one outside). Any other input is copied once: one that
is sliced along an inner axis, runs backwards, repeats elements, is misaligned, is a list, or has another memory order
than `out` or, without `out`, than x. Gamma, beta and statistics that are only read are copied if they are not
contiguous. Outputs and running statistics that are updated are written in place or refused, never copied.

Subclasses of ndarray, such as memmap, are taken for what they hold, as outputs and running statistics as well; new
arrays are plain ones. Masked arrays are refused. Arrays of one element per channel that are only read are cast to the
dtype that a call needs.

`forward`, `gradient` and `torch_order` have the calls of a layer, `saved` and `frozen` the statistics that backward()
reads, `steps` and `microbatches` the layer for a batch in parts, and `derivatives` the derivatives beyond the gradient.
"""

from .derivatives import double_backward, jvp
from .forward import forward_inference, forward_training
from .frozen import frozen_statistics
from .gradient import backward
from .microbatches import MicroBatches
from .saved import SavedStatistics
from .steps import Sums, backward_apply, backward_reduce, normalize
from .torch_order import batch_norm

__all__ = [
    "MicroBatches",
    "SavedStatistics",
    "Sums",
    "backward",
    "backward_apply",
    "backward_reduce",
    "batch_norm",
    "double_backward",
    "forward_inference",
    "forward_training",
    "frozen_statistics",
    "jvp",
    "normalize",
]
