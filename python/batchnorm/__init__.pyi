# SPDX-License-Identifier: Apache-2.0
# The names of the package for type checkers; __init__.py loads them when they are used.

from . import deploy as deploy
from . import distributed as distributed
from . import functional as functional
from . import interop as interop
from . import jax as jax
from . import keras as keras
from . import layers as layers
from . import settings as settings
from . import sklearn as sklearn
from . import statistics as statistics
from . import torch as torch
from ._core.errors import StateError as StateError
from ._core.structs import Outcome as Outcome
from ._core.threads import get_num_threads as get_num_threads
from ._core.threads import isa as isa
from ._core.threads import set_num_threads as set_num_threads
from ._version import __version__ as __version__
from .deploy import Folded as Folded
from .deploy import ScaleShift as ScaleShift
from .deploy import fold_conv as fold_conv
from .deploy import fold_into_conv as fold_into_conv
from .deploy import fold_into_linear as fold_into_linear
from .deploy import fold_linear as fold_linear
from .deploy import merge_batch_norms as merge_batch_norms
from .deploy import scale_shift as scale_shift
from .functional import MicroBatches as MicroBatches
from .functional import SavedStatistics as SavedStatistics
from .functional import Sums as Sums
from .functional import backward as backward
from .functional import backward_apply as backward_apply
from .functional import backward_reduce as backward_reduce
from .functional import batch_norm as batch_norm
from .functional import double_backward as double_backward
from .functional import forward_inference as forward_inference
from .functional import forward_training as forward_training
from .functional import frozen_statistics as frozen_statistics
from .functional import jvp as jvp
from .functional import normalize as normalize
from .interop import FrameworkState as FrameworkState
from .interop import from_state as from_state
from .interop import onnx as onnx
from .interop import read_state as read_state
from .interop import to_state as to_state
from .interop import write_state as write_state
from .layers import BatchNorm as BatchNorm
from .layers import BatchNorm1d as BatchNorm1d
from .layers import BatchNorm2d as BatchNorm2d
from .layers import BatchNorm3d as BatchNorm3d
from .layers import FrozenBatchNorm2d as FrozenBatchNorm2d
from .layers import LazyBatchNorm1d as LazyBatchNorm1d
from .layers import LazyBatchNorm2d as LazyBatchNorm2d
from .layers import LazyBatchNorm3d as LazyBatchNorm3d
from .layers import recalibrate as recalibrate
from .settings import Blend as Blend
from .settings import Clip as Clip
from .settings import Conditional as Conditional
from .settings import Ghost as Ghost
from .settings import LeakyReLU as LeakyReLU
from .settings import Renorm as Renorm
from .settings import Running as Running
from .settings import Segments as Segments
from .settings import Split as Split
from .settings import Updated as Updated
from .settings import renorm_limits as renorm_limits
from .statistics import Moments as Moments
from .statistics import inverse_std as inverse_std
from .statistics import merge_moments as merge_moments
from .statistics import moments as moments
from .statistics import update_running as update_running

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
