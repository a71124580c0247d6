# SPDX-License-Identifier: Apache-2.0
"""The library's calls with tensors that no transform has wrapped, and without gradients.

Running statistics are updated in place. As with PyTorch's own operator, autograd does not hear of it: the gradient of
an earlier call in evaluation is then that with the new ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..functional import SavedStatistics, forward_training
from ..functional import backward as library_backward
from ..functional import double_backward as library_double_backward
from ..functional import jvp as library_jvp
from .threads import follow


def forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    **told: Any,
) -> tuple[Tensor, SavedStatistics]:
    """y, and what backward() needs beside x. `told` are other arguments of forward_training()."""
    follow()
    given: Any = forward_training
    axis = 1 if x.is_contiguous() else -1
    y = told.pop("out", None)
    # A result that autograd takes for a view could not be changed in place by what follows.
    y = torch.empty_like(x) if y is None else y
    if told.get("residual") is not None:
        told["residual"] = as_seen(told["residual"], axis)
    # As .data they have a version of their own.
    mean, var = (each if each is None else each.data.contiguous() for each in (running_mean, running_var))
    running = {"running_mean": mean, "running_var": var, "momentum": momentum}
    _, saved = given(as_seen(x, axis), weight, bias, **running, axis=axis, eps=eps, out=as_seen(y, axis), **told)
    for each, moved in ((running_mean, mean), (running_var, var)):
        if each is not None and moved is not None and not each.is_contiguous():
            each.data.copy_(moved)
    return y, saved


def backward(dy: Tensor, x: Tensor, saved: SavedStatistics) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dgamma and dbeta."""
    follow()
    given: Any = library_backward
    axis = 1 if x.is_contiguous() else -1
    dx = torch.empty_like(x)
    _, dgamma, dbeta = given(as_seen(dy, axis), as_seen(x, axis), saved, out=as_seen(dx, axis))
    return dx, dgamma, dbeta


def double_backward(
    dy: Tensor, x: Tensor, saved: SavedStatistics, dx: Tensor | None, dgamma: Tensor | None, dbeta: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to dy, x and gamma, given those with respect to dx, dgamma and dbeta."""
    follow()
    given: Any = library_double_backward
    axis = 1 if x.is_contiguous() else -1
    named = {"grad_dx": seen(dx, axis), "grad_dgamma": known(dgamma), "grad_dbeta": known(dbeta)}
    ddy, ddx, ddgamma = given(as_seen(dy, axis), as_seen(x, axis), saved, **named)
    return as_given(ddy, axis), as_given(ddx, axis), ddgamma


def jvp(x: Tensor, saved: SavedStatistics, tx: Tensor | None, tgamma: Tensor | None, tbeta: Tensor | None) -> Tensor:
    """The tangent of y."""
    follow()
    given: Any = library_jvp
    axis = 1 if x.is_contiguous() else -1
    named = {"x_tangent": seen(tx, axis), "gamma_tangent": known(tgamma), "beta_tangent": known(tbeta)}
    ty = torch.empty_like(x)
    given(as_seen(x, axis), saved, **named, out=as_seen(ty, axis))
    return ty


def as_seen(value: Tensor, axis: int) -> Tensor:
    """A tensor with its channels where the library is told that they are.

    With channels_last they are last: built-in functions read tensors that are dense in the order of their dimensions.
    """
    return value if axis == 1 else value.movedim(1, -1)


def as_given(value: Tensor, axis: int) -> Tensor:
    """A result with its channels where PyTorch has them."""
    return value if axis == 1 else value.movedim(-1, 1)


def seen(value: Tensor | None, axis: int) -> Tensor | None:
    given = known(value)
    return None if given is None else as_seen(given, axis)


def known(value: Tensor | None) -> Tensor | None:
    """None for a tensor of zeros that has no memory: PyTorch's forward mode has such ones for what does not move."""
    return None if value is None or value._is_zerotensor() else value
