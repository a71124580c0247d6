# SPDX-License-Identifier: Apache-2.0
"""Calls with an activation, by the operators in C++ or by Python: with tensors that no transform has wrapped."""

from __future__ import annotations

from typing import Any, Union

from torch import Tensor

from ..functional import SavedStatistics
from ..functional import backward as library_backward
from ..settings import Activation
from ..settings.activations import resolve
from . import calls, operators
from .threads import follow

_forward, _forward_in_place, _backward = map(
    operators.found, ("forward_activated", "forward_activated_", "backward_activated")
)

# Each gradient goes the way that its forward call went: by the operators, or by Python.
Saved = Union[Tensor, SavedStatistics]
Vector = Union[Tensor, None]


def forward(
    x: Tensor,
    weight: Vector,
    bias: Vector,
    residual: Tensor | None,
    running: tuple[Vector, Vector],
    momentum: float,
    eps: float,
    activation: Activation,
) -> tuple[Tensor, Saved]:
    """y, and what backward() needs beside its tensors."""
    follow()
    if _forward is not None:
        try:
            kind, *numbers = resolve(activation)
            found: tuple[Tensor, Tensor] = _forward(
                x, weight, bias, residual, *running, None, momentum, eps, int(kind), *numbers
            )
            return found
        except RuntimeError:
            pass  # nothing was written; what is wrong is told below
    return calls.forward(x, weight, bias, *running, momentum, eps, residual=residual, activation=activation)


def forward_in_place(
    x: Tensor,
    weight: Vector,
    bias: Vector,
    running: tuple[Vector, Vector],
    momentum: float,
    eps: float,
    activation: Activation,
) -> Saved:
    """Writes y over x."""
    follow()
    if _forward_in_place is not None:
        try:
            kind, *numbers = resolve(activation)
            saved: Tensor = _forward_in_place(x, weight, bias, *running, None, momentum, eps, int(kind), *numbers)
            return saved
        except RuntimeError:
            pass
    return calls.forward(x, weight, bias, *running, momentum, eps, out=x, activation=activation)[1]


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Vector,
    bias: Vector,
    residual: Tensor | None,
    saved: Saved,
    activation: Activation,
    from_output: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """dx, dgamma, dbeta, and the gradient of the residual, if there was one; with `from_output` x is y."""
    follow()
    if isinstance(saved, Tensor):
        kind, *numbers = resolve(activation)
        dx, dgamma, dbeta, *dz = _backward(dy, x, weight, bias, residual, saved, int(kind), *numbers, from_output)
    else:
        given: Any = library_backward
        axis = 1 if x.is_contiguous() else -1
        found = given(calls.as_seen(dy, axis), calls.as_seen(x, axis), saved, from_output=from_output)
        dx, dgamma, dbeta, *dz = [each if each.ndim == 1 else calls.as_given(each, axis) for each in found]
    return dx, dgamma, dbeta, None if residual is None else dz[0]
