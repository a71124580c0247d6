# SPDX-License-Identifier: Apache-2.0
"""Batch normalization as functions of arrays: forward, backward, in steps, and derivatives beyond the gradient."""

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
