# SPDX-License-Identifier: Apache-2.0
"""Training with tensors of PyTorch, and their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ..torch import calls
from ..torch.differentiation import Derivatives, keep
from ..torch.watching import is_transformed, is_watched
from .batch import POLICY, Batch, fits

_KNOWN = torch.float32, torch.float64, torch.float16, torch.bfloat16


def evaluated(layer: Any, x: Tensor) -> None:
    """Nothing: evaluation is Keras's."""


def takes(x: Tensor, mask: Any, axis: int) -> bool:
    if is_watched() or is_transformed() or x.device.type != "cpu" or x.layout is not torch.strided:
        return False
    return x.dtype in _KNOWN and x.dim() > 1 and (mask is None or fits(mask, x, axis))


def trained(x: Tensor, gamma: Any, beta: Any, axis: int, eps: float, mask: Any) -> Batch:
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    mean, variance = torch.zeros(2, x.shape[axis], dtype=kind).unbind()
    positions = None if mask is None else torch.as_tensor(mask).detach().ne(0).numpy()
    statistics: list[Any] = []
    y = Trained.apply(x.movedim(axis, 1), gamma, beta, mean, variance, eps, (positions, statistics))
    batch = Batch.of(y.movedim(1, axis), mean.numpy(), variance.numpy(), statistics[0])  # of the same memory
    return batch._replace(mean=mean, variance=variance)


class Trained(Derivatives, Function):
    """y. Mean and variance of the batch are written into `mean` and `variance`; others come to `beside`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Any, beta: Any, mean: Tensor, variance: Tensor, eps: float, beside: Any
    ) -> Tensor:
        positions, statistics = beside
        told: dict[str, Any] = {"unbiased": False}
        if positions is not None or x.numel() <= x.shape[1]:  # without, a call takes a tenth of the time
            told.update(running=POLICY, weights=positions)
        y, ctx.statistics = calls.forward(x, gamma, beta, mean, variance, 1.0, eps, **told)
        statistics.append(ctx.statistics)
        keep(ctx, (x, gamma, beta))
        return y
