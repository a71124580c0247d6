# SPDX-License-Identifier: Apache-2.0
"""Batch normalization for NumPy arrays, forward and backward, exact and fast.

>>> import numpy as np
>>> import batchnorm as bn
>>> layer = bn.BatchNorm2d(3)
>>> y = layer(np.zeros((8, 3, 5, 5), np.float32))
>>> dx = layer.backward(np.ones_like(y))
>>> print(dx.shape, layer.grad_beta)
(8, 3, 5, 5) [200. 200. 200.]

`functional` has the formulas and says which arrays are copied, `layer` is the layer, `steps` and `statistics` are the
layer in parts for a caller with an exchange of its own, `microbatches` accumulates gradients, `library` sets threads.
What else a call may be told is in `activations`, `policies`, `sources` and `groups`.

Around the layer: `population` and `recalibration` for statistics of all data, `derivatives` beyond the gradient,
`folding` and `affine` for deployment, `frameworks` and `files` for the state of other frameworks; `lazy`, `frozen`,
`keras` and `onnx` are layers and operators as they are known elsewhere.
"""

from . import keras
from . import onnx as onnx
from ._c_structs import Outcome
from ._errors import StateError
from ._foldable import Folded
from ._in_pytorchs_order import batch_norm
from ._public import publish
from ._version import __version__
from .activations import Clip, LeakyReLU
from .affine import ScaleShift, merge_batch_norms, scale_shift
from .derivatives import double_backward, jvp
from .files import read_state, write_state
from .folding import fold_conv, fold_into_conv, fold_into_linear, fold_linear
from .frameworks import FrameworkState, from_state, to_state
from .frozen import FrozenBatchNorm2d
from .functional import backward, forward_inference, forward_training
from .groups import Conditional, Ghost, Segments, Split
from .layer import BatchNorm
from .layers import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .lazy import LazyBatchNorm1d, LazyBatchNorm2d, LazyBatchNorm3d
from .library import get_num_threads, isa, set_num_threads
from .microbatches import MicroBatches
from .policies import Running
from .population import Moments
from .recalibration import recalibrate
from .saved import SavedStatistics, frozen_statistics
from .sources import Blend, Renorm, Updated, renorm_limits
from .statistics import inverse_std, merge_moments, moments, update_running
from .steps import Sums, backward_apply, backward_reduce, normalize

__all__ = [
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Blend",
    "Clip",
    "Conditional",
    "Folded",
    "FrameworkState",
    "FrozenBatchNorm2d",
    "Ghost",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LeakyReLU",
    "MicroBatches",
    "Moments",
    "Outcome",
    "Renorm",
    "Running",
    "SavedStatistics",
    "ScaleShift",
    "Segments",
    "Split",
    "StateError",
    "Sums",
    "Updated",
    "__version__",
    "backward",
    "backward_apply",
    "backward_reduce",
    "batch_norm",
    "double_backward",
    "fold_conv",
    "fold_into_conv",
    "fold_into_linear",
    "fold_linear",
    "forward_inference",
    "forward_training",
    "from_state",
    "frozen_statistics",
    "get_num_threads",
    "inverse_std",
    "isa",
    "jvp",
    "merge_batch_norms",
    "merge_moments",
    "moments",
    "normalize",
    "read_state",
    "recalibrate",
    "renorm_limits",
    "scale_shift",
    "set_num_threads",
    "to_state",
    "update_running",
    "write_state",
]

publish(__name__, [kind for kind in map(globals().get, __all__) if isinstance(kind, type)])
publish(keras.__name__, [keras.BatchNormalization])


def __dir__() -> list[str]:
    """What a user has a use for: the names above, and the modules that have more."""
    return sorted({*__all__, "keras", "onnx"})
