# SPDX-License-Identifier: Apache-2.0
"""PyTorch's layers that train by this library: subclasses of its own, with all that these have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .compiled import trained
from .functional import batch_norm


class Trained(torch.nn.modules.batchnorm._BatchNorm):
    """The call in training, which the layers have in place of PyTorch's."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that PyTorch has for it
        if not self._is_of_batch():
            evaluated: Tensor = super().forward(input)
            return evaluated
        self._check_input_dim(input)
        y = self._by_operators(input)
        if y is not None:
            return y
        momentum, mean, var = self._count()
        return batch_norm(input, mean, var, self.weight, self.bias, True, momentum, self.eps)

    def _by_operators(self, x: Tensor) -> Tensor | None:
        """y, if the operators give it; then they have counted the batch."""
        # Module's own way to parameters and buffers takes ten times as long. Subclasses may have them elsewhere.
        if type(self) not in KINDS or not (self.training and self.track_running_stats) or self.momentum is None:
            return None
        its, kept = self._parameters, self._buffers
        try:
            weight, bias = its["weight"], its["bias"]
            mean, var, tracked = kept["running_mean"], kept["running_var"], kept["num_batches_tracked"]
        except KeyError:  # as after pruning
            return None
        return trained(x, weight, bias, mean, var, tracked, self.momentum, self.eps)

    def _is_of_batch(self) -> bool:
        """True if a call normalizes with the statistics of its own batch."""
        return self.training or (self.running_mean is None and self.running_var is None)

    def _count(self, batches: int = 1) -> tuple[float, Tensor | None, Tensor | None]:
        """Counts batches; the weight of each in the running statistics, and those that they move."""
        momentum = 0.0 if self.momentum is None else self.momentum
        mean, var = self.running_mean, self.running_var
        if self.training and self.track_running_stats:
            tracked = self.num_batches_tracked
            if tracked is not None:
                tracked.add_(batches)
                if self.momentum is None:
                    momentum = 1.0 / float(tracked)
        else:
            mean = var = None
        return momentum, mean, var


class BatchNorm1d(Trained, torch.nn.BatchNorm1d):
    """torch.nn.BatchNorm1d, by this library where it trains."""


class BatchNorm2d(Trained, torch.nn.BatchNorm2d):
    """torch.nn.BatchNorm2d, by this library where it trains."""


class BatchNorm3d(Trained, torch.nn.BatchNorm3d):
    """torch.nn.BatchNorm3d, by this library where it trains."""


class LazyBatchNorm1d(Trained, torch.nn.LazyBatchNorm1d):
    """torch.nn.LazyBatchNorm1d, which becomes a BatchNorm1d of this package."""

    cls_to_become: Any = BatchNorm1d


class LazyBatchNorm2d(Trained, torch.nn.LazyBatchNorm2d):
    """torch.nn.LazyBatchNorm2d, which becomes a BatchNorm2d of this package."""

    cls_to_become: Any = BatchNorm2d


class LazyBatchNorm3d(Trained, torch.nn.LazyBatchNorm3d):
    """torch.nn.LazyBatchNorm3d, which becomes a BatchNorm3d of this package."""

    cls_to_become: Any = BatchNorm3d


KINDS = BatchNorm1d, BatchNorm2d, BatchNorm3d, LazyBatchNorm1d, LazyBatchNorm2d, LazyBatchNorm3d
for kind in KINDS:
    kind.__module__ = __package__  # pickles of models name it, wherever the code stands
