# SPDX-License-Identifier: Apache-2.0
"""Batch normalization for NumPy arrays, forward and backward, exact and fast.

>>> import batchnorm as bn
>>> layer = bn.BatchNorm2d(64)
>>> y = layer(x)
>>> dx = layer.backward(dy)

`functional` has the formulas and says which arrays are copied, `layer` is the layer, `steps` and `statistics` are the
layer in parts for a caller with an exchange of its own, `library` sets threads.
"""

from ._version import __version__
from .functional import backward, forward_inference, forward_training
from .layer import BatchNorm
from .layers import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .library import get_num_threads, isa, set_num_threads
from .saved import SavedStatistics, frozen_statistics
from .statistics import Moments, inverse_std, merge_moments, moments, update_running
from .steps import Sums, backward_apply, backward_reduce, normalize

__all__ = [
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Moments",
    "SavedStatistics",
    "Sums",
    "__version__",
    "backward",
    "backward_apply",
    "backward_reduce",
    "forward_inference",
    "forward_training",
    "frozen_statistics",
    "get_num_threads",
    "inverse_std",
    "isa",
    "merge_moments",
    "moments",
    "normalize",
    "set_num_threads",
    "update_running",
]
