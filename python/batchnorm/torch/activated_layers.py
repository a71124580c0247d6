# SPDX-License-Identifier: Apache-2.0
"""Layers with an activation, which follows normalization in the same pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..settings import Activation, LeakyReLU
from ..settings.activations import resolve
from .activated import Fused, InPlace, activate
from .layers import BatchNorm2d
from .taking import takes
from .watching import is_looked_into


class BatchNormAct2d(BatchNorm2d):
    """BatchNorm2d, then a residual if one is given, and an activation: layer(x, residual).

    One pass over memory has all three, and one pass their gradient. Its state is that of a BatchNorm2d. A tool that
    takes it for one loses the activation: torch.nn.SyncBatchNorm.convert_sync_batchnorm does.

    Parameters
    ----------
    num_features : int
    activation : str, LeakyReLU or Clip, default "relu"
        As of bn.forward_training(): "relu", "relu6", "hard_swish", "silu", bn.LeakyReLU(slope) or bn.Clip(low, high);
        None or "identity" for none.
    residual : Tensor, optional
        An argument of the call: added before the activation, of x's shape and dtype. Any other that broadcasts is added
        by PyTorch.
    **named
        As of torch.nn.BatchNorm2d.
    """

    def __init__(self, num_features: int, *, activation: Activation | None = "relu", **named: Any) -> None:
        super().__init__(num_features, **named)
        self.activation = checked(activation)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:  # noqa: A002 - PyTorch's name for it
        if not self._is_fused(input) or (residual is not None and not _fits(residual, input)):
            u = super().forward(input)
            return activate(u if residual is None else u + residual, self.activation)
        self._check_input_dim(input)
        momentum, *running = self._count()
        y: Tensor = Fused.apply(input, self.weight, self.bias, residual, *running, momentum, self.eps, self.activation)
        return y

    def _is_fused(self, x: Tensor) -> bool:
        if not self._is_of_batch() or is_looked_into():
            return False
        return takes(x, self.running_mean, self.running_var, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation!r}"


class InPlaceABN(BatchNorm2d):
    """Batch normalization and a leaky ReLU, written over the input (arXiv:1712.02616).

    Training keeps y alone, and finds from it what the gradient needs: PyTorch's two layers keep their two inputs. The
    input is gone after the call, so that nothing before it may need it. No element of weight may be 0.

    Parameters
    ----------
    num_features : int
    slope : float, default 0.01
        Of the leaky ReLU: above 0. 1 is no activation.
    **named
        As of torch.nn.BatchNorm2d.
    """

    def __init__(self, num_features: int, *, slope: float = 0.01, **named: Any) -> None:
        super().__init__(num_features, **named)
        self.activation = LeakyReLU(slope)
        if not slope > 0:
            raise ValueError(f"slope is {slope}, expected above 0: y has to tell what it was made of")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name for it
        is_over = self._is_of_batch() and not is_looked_into() and _is_dense(input)
        if not (is_over and takes(input, self.running_mean, self.running_var, self.weight, self.bias, least=0)):
            return functional.leaky_relu(super().forward(input), self.activation.slope)
        self._check_input_dim(input)
        if input.is_leaf and input.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "input is a leaf Variable that requires grad, which cannot be written over: give a copy of it"
            )
        momentum, *running = self._count()
        y: Tensor = InPlace.apply(input, self.weight, self.bias, *running, momentum, self.eps, self.activation)
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, slope={self.activation.slope}"


def checked(activation: Activation | None) -> Activation:
    """The activation, if there is one of this name; None is the identity."""
    resolve(activation)
    return "identity" if activation is None else activation


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.movedim(1, -1).is_contiguous()


def _fits(residual: Tensor, x: Tensor) -> bool:
    return type(residual) is Tensor and residual.shape == x.shape and residual.dtype is x.dtype and residual.is_cpu


for kind in (BatchNormAct2d, InPlaceABN):
    kind.__module__ = __package__
