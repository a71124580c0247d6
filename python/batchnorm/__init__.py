# SPDX-License-Identifier: Apache-2.0
"""Batch normalization for NumPy arrays, forward and backward, exact and fast.

>>> import batchnorm as bn
>>> layer = bn.BatchNorm2d(64)
>>> y = layer(x)
>>> dx = layer.backward(dy)

`functional` has the formulas and says which arrays are copied, `layer` is the layer, `steps` and `statistics` are the
layer in parts for a caller with an exchange of its own, `microbatches` accumulates gradients, `library` sets threads.
What else a call may be told is in `activations`, `policies`, `sources` and `groups`.
"""

from ._c_structs import Outcome
from ._version import __version__
from .activations import Clip, LeakyReLU
from .functional import backward, forward_inference, forward_training
from .groups import Conditional, Ghost, Segments, Split
from .layer import BatchNorm
from .layers import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .library import get_num_threads, isa, set_num_threads
from .microbatches import MicroBatches
from .policies import Running
from .saved import SavedStatistics, frozen_statistics
from .sources import Blend, Renorm, Updated, renorm_limits
from .statistics import Moments, inverse_std, merge_moments, moments, update_running
from .steps import Sums, backward_apply, backward_reduce, normalize

__all__ = [
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Blend",
    "Clip",
    "Conditional",
    "Ghost",
    "LeakyReLU",
    "MicroBatches",
    "Moments",
    "Outcome",
    "Renorm",
    "Running",
    "SavedStatistics",
    "Segments",
    "Split",
    "Sums",
    "Updated",
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
    "renorm_limits",
    "set_num_threads",
    "update_running",
]
