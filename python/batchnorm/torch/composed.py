# SPDX-License-Identifier: Apache-2.0
"""One call of the library with more than a batch norm in it, which PyTorch's operators can do in several.

The library has its value and its gradient. The gradient of the gradient, and whatever else is derived, is that of the
operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import torch
from torch import Tensor
from torch.autograd import Function

from . import calls
from .taking import takes
from .watching import is_looked_into

Steps = Callable[[Tensor, Any, Any], Tensor]


class Composed(Function):
    """y of a call that is told something, and of `steps`, which make it of x, weight and bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, *options: Any) -> Tensor:
        momentum, eps, told, ctx.steps = options
        y, ctx.statistics = calls.forward(x, weight, bias, mean, var, momentum, eps, **told)
        ctx.save_for_backward(x, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, bias = given = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants the gradient of this one
            return *gradients(ctx.steps(*given), given, dy, ctx.needs_input_grad), *[None] * 6
        dx, dweight, dbias = calls.backward(dy, x, ctx.statistics)
        return dx, None if weight is None else dweight, None if bias is None else dbias, *[None] * 6


def gradients(y: Tensor, given: Sequence[Any], dy: Tensor, needed: Sequence[bool]) -> list[Any]:
    """Those of y with respect to what needs one, with graphs of their own."""
    wanted = [each for each, is_needed in zip(given, needed) if is_needed]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
    return [next(found) if is_needed else None for is_needed in needed[: len(given)]]


def is_one_call(x: Tensor, mean: Any, var: Any, weight: Any, bias: Any) -> bool:
    """True if the library takes them, however small, and nobody looks at what is in the call."""
    return not is_looked_into() and takes(x, mean, var, weight, bias, least=0)
