# SPDX-License-Identifier: Apache-2.0
"""Ghost batches: groups of samples that are normalized with statistics of their own (arXiv:1705.08741)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._core.options import at_least_one
from ..settings import Ghost
from .composed import Composed, is_one_call
from .functional import batch_norm
from .layers import BatchNorm1d, BatchNorm2d, BatchNorm3d, Trained


class Ghostly(Trained):
    """The call in training, which the three classes have."""

    def __init__(self, num_features: int, size: int, **named: Any) -> None:
        super().__init__(num_features, **named)
        at_least_one(size, "size")
        self.size = size

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name for it
        self._check_input_dim(input)
        groups, left = divmod(len(input), self.size)
        if not self._is_of_batch() or groups + (left > 0) < 2:
            return super().forward(input)
        self._check_groups(input, left)
        whole = input.narrow(0, 0, len(input) - left) if left else input
        given = whole, self.running_mean, self.running_var, self.weight, self.bias
        if groups < 2 or self.momentum is None or not is_one_call(*given):
            return torch.cat([super(Ghostly, self).forward(part) for part in input.split(self.size)])
        y = self._of_groups(whole, groups)
        return torch.cat([y, super().forward(input.narrow(0, len(whole), left))]) if left else y

    def _check_groups(self, x: Tensor, left: int) -> None:
        """An error, in PyTorch's words, if one of them has a single value per channel; before another is counted."""
        least = min(self.size, left or self.size)
        if least == 1 and x.shape[2:].numel() == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got {list(x.shape)} in groups of {self.size}"
            )

    def _of_groups(self, x: Tensor, groups: int) -> Tensor:
        eps, size = self.eps, self.size

        def steps(x: Tensor, weight: Any, bias: Any) -> Tensor:
            return torch.cat([batch_norm(part, None, None, weight, bias, True, eps=eps) for part in x.split(size)])

        momentum, *running = self._count(groups)
        told = {"groups": Ghost(size)}
        y: Tensor = Composed.apply(x, self.weight, self.bias, *running, momentum, eps, told, steps)
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, size={self.size}"


class GhostBatchNorm1d(Ghostly, BatchNorm1d):
    """BatchNorm1d of ghost batches.

    In training each `size` samples, and what is left of them at the end, are normalized with their own mean and
    variance. Running statistics move once for each, in order, and num_batches_tracked counts them. The result is that
    of a BatchNorm called with one after the other, in one pass over all of them. In evaluation it is a BatchNorm.

    Parameters
    ----------
    num_features : int
    size : int
        Samples of a ghost batch: at least 1.
    **named
        As of torch.nn.BatchNorm1d.
    """


class GhostBatchNorm2d(Ghostly, BatchNorm2d):
    """BatchNorm2d of ghost batches; see GhostBatchNorm1d."""


class GhostBatchNorm3d(Ghostly, BatchNorm3d):
    """BatchNorm3d of ghost batches; see GhostBatchNorm1d."""


for kind in (GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d):
    kind.__module__ = __package__
