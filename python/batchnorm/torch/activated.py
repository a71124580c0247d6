# SPDX-License-Identifier: Apache-2.0
"""Batch normalization, a residual and an activation in one pass over memory, with a gradient in one pass as well.

`Fused` keeps x and the residual for the gradient, as PyTorch's operators together do. `InPlace` writes y over x, and
finds all that the gradient needs from y: PyTorch keeps x and y, so that half of the memory is saved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..settings import Activation, Clip, LeakyReLU
from .activated_calls import backward, forward, forward_in_place
from .composed import gradients
from .differentiation import as_of
from .functional import batch_norm

_NAMED = {
    "identity": lambda u: u,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hard_swish": functional.hardswish,
    "silu": functional.silu,
}


def activate(u: Tensor, activation: Activation) -> Tensor:
    """The activation by PyTorch's operators."""
    if isinstance(activation, LeakyReLU):
        return functional.leaky_relu(u, activation.slope)
    if isinstance(activation, Clip):
        return functional.hardtanh(u, activation.low, activation.high)
    found: Tensor = _NAMED[activation](u)
    return found


class Fused(Function):
    """y = activation(gamma * x_hat + beta + residual)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Any, bias: Any, residual: Any, mean: Any, var: Any, *options: Any
    ) -> Tensor:
        momentum, ctx.eps, ctx.activation = options
        ctx.save_for_backward(x, weight, bias, residual)
        y, ctx.saved = forward(x, weight, bias, residual, (mean, var), momentum, ctx.eps, ctx.activation)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, bias, residual = given = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants the gradient of this one: the steps have it
            u = batch_norm(x, None, None, weight, bias, True, eps=ctx.eps)
            y = activate(u if residual is None else u + residual, ctx.activation)
            return *gradients(y, given, dy, ctx.needs_input_grad), *[None] * 5
        dx, dweight, dbias, dz = backward(dy, x, weight, bias, residual, ctx.saved, ctx.activation, False)
        return dx, as_of(dweight, weight), as_of(dbias, bias), dz, *[None] * 5


class InPlace(Function):
    """y = activation(gamma * x_hat + beta) over x, for activations that can be inverted."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, *options: Any) -> Tensor:
        momentum, eps, ctx.activation = options
        ctx.saved = forward_in_place(x, weight, bias, (mean, var), momentum, eps, ctx.activation)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x, weight, bias)
        return x

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> Any:
        y, weight, bias = ctx.saved_tensors
        dx, dweight, dbias, _ = backward(dy, y, weight, bias, None, ctx.saved, ctx.activation, True)
        return dx, as_of(dweight, weight), as_of(dbias, bias), *[None] * 5
