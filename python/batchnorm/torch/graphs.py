# SPDX-License-Identifier: Apache-2.0
"""The operators as PyTorch's graphs know them: shapes and dtypes of results, and the gradient of the functional one."""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import Tensor

from . import operators


class Chosen:
    """The choice of set_in_graphs()."""

    operator = False


def has_operator() -> bool:
    """True while torch.compile or torch.export makes a graph that is to hold this library's operator."""
    return Chosen.operator and operators.THERE and torch.compiler.is_compiling()


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """y in training, by an operator that writes none of its arguments: no other may have a gradient in a graph."""
    if not (x.is_contiguous() or x.movedim(1, -1).is_contiguous()):
        x = x.contiguous()
    weight, bias, *running = (each if each is None else each.contiguous() for each in (weight, bias, mean, var))
    y, _, new_mean, new_var = torch.ops.batchnorm.forward_functional(x, weight, bias, *running, momentum, eps)
    if mean is not None and var is not None:
        mean.copy_(new_mean)
        var.copy_(new_var)
    return y


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    # Buffers that they are copied into would become part of the graph.
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:3], output[1])


def _gradient(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
    if dy is None:
        return (None,) * 7
    x, weight, bias, statistics = ctx.saved_tensors
    dx, dweight, dbias = torch.ops.batchnorm.backward(dy, x, weight, bias, statistics)
    return dx, None if weight is None else dweight, None if bias is None else dbias, None, None, None, None


def _statistics(x: Tensor) -> Tensor:
    return x.new_empty((2, x.shape[1]), dtype=torch.float64)


def _like(x: Tensor, *vectors: Tensor | None) -> list[Tensor]:
    """Results beside each vector, which are empty where there is none."""
    return [x.new_empty(0) if each is None else torch.empty_like(each) for each in vectors]


def _forward(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _statistics(x)


def _forward_functional(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, *_: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(x), _statistics(x), *_like(x, mean, var)


def _backward(dy: Tensor, x: Tensor, weight: Any, bias: Any, *_: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(x), *_like(x, weight, bias)


def _backward_activated(dy: Tensor, x: Tensor, weight: Any, bias: Any, residual: Any, *_: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(x), *_like(x, weight, bias), *((x.new_empty(0),) if residual is None else _like(x, x))


_FAKE: dict[str, Callable[..., Any]] = {
    "forward_training": _forward,
    "forward_activated": _forward,
    "forward_activated_": lambda x, *_: _statistics(x),
    "forward_functional": _forward_functional,
    "backward": _backward,
    "backward_activated": _backward_activated,
}


def _on_one_device(fake: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which PyTorch takes for the operator where one argument is on the device "meta"."""

    def call(*given: Any) -> Any:
        devices = {each.device for each in given if isinstance(each, Tensor)}
        if len(devices) > 1:
            raise RuntimeError(f"tensors are on {' and '.join(sorted(map(str, devices)))}, expected one device")
        return fake(*given)

    return call


if operators.THERE:
    for name, fake in _FAKE.items():
        torch.library.register_fake(f"batchnorm::{name}", _on_one_device(fake))
    torch.library.register_autograd("batchnorm::forward_functional", _gradient, setup_context=_keep)
