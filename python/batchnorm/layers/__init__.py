# SPDX-License-Identifier: Apache-2.0
"""Batch normalization as layers, and the recalibration of their running statistics."""

from .frozen import FrozenBatchNorm2d
from .layer import BatchNorm
from .lazy import LazyBatchNorm1d, LazyBatchNorm2d, LazyBatchNorm3d
from .ranked import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .recalibration import recalibrate

__all__ = [
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "FrozenBatchNorm2d",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "recalibrate",
]
