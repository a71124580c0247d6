# SPDX-License-Identifier: Apache-2.0
"""Batch renormalization: training with x_hat * r + d, which evaluation has as well (arXiv:1702.03275)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..settings import Renorm
from .composed import Composed, is_one_call
from .functional import batch_norm
from .layers import BatchNorm1d, BatchNorm2d, BatchNorm3d, Trained


class Renormed(Trained):
    """The call in training, which the three classes have."""

    def __init__(
        self, num_features: int, *, r_max: float = 3.0, d_max: float = 5.0, momentum: float = 0.01, **named: Any
    ) -> None:
        super().__init__(num_features, momentum=momentum, **named)
        if not self.track_running_stats:
            raise ValueError("track_running_stats is False, but r and d are of the running statistics")
        Renorm(r_max, d_max)
        self.r_max, self.d_max = r_max, d_max

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name for it
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        eps, limits, before = self.eps, Renorm(self.r_max, self.d_max), (self.running_mean, self.running_var)
        is_fused = is_one_call(input, *before, self.weight, self.bias)
        if is_fused:
            before = tuple(each.clone() for each in before)

        def steps(x: Tensor, weight: Any, bias: Any) -> Tensor:
            return in_steps(x, weight, bias, _constants(x, *before, eps, limits), eps)

        if is_fused:
            momentum, *running = self._count()
            told = {"source": limits}
            y: Tensor = Composed.apply(input, self.weight, self.bias, *running, momentum, eps, told, steps)
            return y
        y = steps(input, self.weight, self.bias)
        self._move(input)
        return y

    def _move(self, x: Tensor) -> None:
        """The running statistics, by PyTorch's operator, whose output nobody needs."""
        super().forward(x.detach())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"


def _constants(x: Tensor, running_mean: Any, running_var: Any, eps: float, limits: Renorm) -> tuple[Tensor, Tensor]:
    """r and d."""
    kind = torch.float32 if x.element_size() == 2 else x.dtype
    var, mean = torch.var_mean(x.detach().to(kind), [0, *range(2, x.dim())], correction=0)
    std, running_std = (torch.sqrt(each.to(kind) + eps) for each in (var, running_var))
    r = (std / running_std).clamp(limits.least_r, limits.r_max)
    return r, ((mean - running_mean.to(kind)) / running_std).clamp(-limits.d_max, limits.d_max)


def in_steps(x: Tensor, weight: Any, bias: Any, constants: tuple[Tensor, Tensor], eps: float) -> Tensor:
    """gamma * (x_hat * r + d) + beta, a batch norm with gamma * r and gamma * d + beta."""
    r, d = constants
    if weight is not None:
        r, d = r * weight, d * weight
    if bias is not None:
        d = d + bias
    return batch_norm(x, None, None, r, d, True, eps=eps)


class BatchRenorm1d(Renormed, BatchNorm1d):
    """BatchNorm1d that trains with batch renormalization.

    ::

        y = weight * (x_hat * r + d) + bias                 r and d are constants to the gradient
        r = std / running_std                               clipped to 1 / r_max and r_max
        d = (mean - running_mean) / running_std             clipped to -d_max and d_max

    The running statistics of r and d are those before the call. The attributes r_max and d_max may be changed while it
    trains: bn.renorm_limits(step) has the paper's schedule, which begins with a batch norm, r_max 1 and d_max 0.

    Parameters
    ----------
    num_features : int
    r_max : float, default 3
        At least 1.
    d_max : float, default 5
        At least 0.
    momentum : float, default 0.01
    **named
        As of torch.nn.BatchNorm1d; track_running_stats is True.
    """


class BatchRenorm2d(Renormed, BatchNorm2d):
    """BatchNorm2d that trains with batch renormalization; see BatchRenorm1d."""


class BatchRenorm3d(Renormed, BatchNorm3d):
    """BatchNorm3d that trains with batch renormalization; see BatchRenorm1d."""


for kind in (BatchRenorm1d, BatchRenorm2d, BatchRenorm3d):
    kind.__module__ = __package__
