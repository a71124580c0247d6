# SPDX-License-Identifier: Apache-2.0
"""Batch norms that evaluate, folded into the layers beside them or merged."""

from .folded import Folded
from .folding import fold_conv, fold_into_conv, fold_into_linear, fold_linear
from .scale_shift import ScaleShift, merge_batch_norms, scale_shift

__all__ = [
    "Folded",
    "ScaleShift",
    "fold_conv",
    "fold_into_conv",
    "fold_into_linear",
    "fold_linear",
    "merge_batch_norms",
    "scale_shift",
]
