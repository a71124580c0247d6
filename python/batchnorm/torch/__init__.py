# SPDX-License-Identifier: Apache-2.0
"""PyTorch's batch norms, trained by this library on the CPU. It needs PyTorch 2.10 or newer.

>>> import torch
>>> import batchnorm.torch as bt
>>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
>>> bt.convert(model)[1]
BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)

The layers are PyTorch's own classes, with another call in training: whatever PyTorch knows of its batch norms holds for
them. They train exactly where PyTorch loses digits, and give the same bits for any number of threads; small tensors are
PyTorch's unless the package batchnorm-torch is installed, or functional.set_smallest(0) is called.
"""

from . import require  # isort: skip - before all that imports torch
from . import functional
from .activated_layers import BatchNormAct2d, InPlaceABN
from .conversion import convert, converted
from .frozen_layers import FrozenBatchNorm2d, freeze
from .ghost_layers import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from .layers import BatchNorm1d, BatchNorm2d, BatchNorm3d, LazyBatchNorm1d, LazyBatchNorm2d, LazyBatchNorm3d
from .renorm_layers import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from .synchronized_layer import SyncBatchNorm

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormAct2d",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "FrozenBatchNorm2d",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "InPlaceABN",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "SyncBatchNorm",
    "convert",
    "converted",
    "freeze",
    "functional",
]

require.know()
