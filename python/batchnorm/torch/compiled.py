# SPDX-License-Identifier: Apache-2.0
"""Batch normalization by the operators in C++, whose derivatives beyond the gradient are those of the Python way.

A layer with a small tensor takes as long as the Python code around its operators. So the operators look at shapes and
dtypes, and count the batches; what they refuse goes the Python way, which says what is wrong.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.graph import increment_version

from ..functional import SavedStatistics
from . import operators
from .differentiation import Backward
from .taking import PLAIN, Smallest
from .threads import follow
from .watching import has_tangents, is_transformed, is_watched

_VECTORS = *PLAIN, type(None)

# Without what PyTorch wraps around them in Python.
forward: Any = operators.found("forward_training")
backward: Any = operators.found("backward")


class RefusedError(Exception):
    """The operator does not take these arguments, and has written nothing."""


def trained(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    tracked: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor | None:
    """y in training, and `tracked` counted up; None if the operators are not to have these arguments."""
    if not takes(x, weight, bias, mean, var):
        return None
    if tracked is not None and tracked.is_inference():  # it has no version to count up
        return None
    follow()
    try:
        y: Tensor = _apply(x, weight, bias, (mean, var, tracked, momentum, eps))
    except RefusedError:
        return None
    if tracked is not None:
        increment_version(tracked)
    return y


def takes(x: Tensor, *vectors: Tensor | None, least: int | None = None) -> bool:
    """True if the operators may be given these; `least` is in place of set_smallest()."""
    if not operators.THERE or is_watched() or is_transformed() or has_tangents() or type(x) not in PLAIN:
        return False
    if not x.is_cpu or x.numel() < ((Smallest.told or 0) if least is None else least):
        return False
    weight, bias, mean, var = map(type, vectors)
    return weight in _VECTORS and bias in _VECTORS and mean in _VECTORS and var in _VECTORS


class Compiled(Function):
    """y of tensors that no transform has wrapped, and that have no tangents.

    Each argument of a Function costs time, forward and backward: what is not differentiated comes as one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, others: tuple[Any, ...]) -> Tensor:
        try:
            y, statistics = forward(x, weight, bias, *others)
        except (RuntimeError, TypeError, ValueError) as error:
            raise RefusedError from error
        ctx.save_for_backward(x, weight, bias, statistics)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, bias, statistics = ctx.saved_tensors
        if torch.is_grad_enabled() or is_transformed():
            dx, dweight, dbias = Backward.apply(dy, x, weight, bias, _known(x, weight, bias, statistics))
        else:
            follow()
            dx, dweight, dbias = backward(dy, x, weight, bias, statistics)
        return dx, None if weight is None else dweight, None if bias is None else dbias, None


def _known(x: Tensor, weight: Tensor | None, bias: Tensor | None, statistics: Tensor) -> SavedStatistics:
    """The operator's statistics, as the calls of the Python way want them."""
    gamma, beta = (each if each is None else each.detach() for each in (weight, bias))
    saved = SavedStatistics((x.shape[1],), False, 1 if x.is_contiguous() else -1, gamma=gamma, beta=beta)
    saved.mean[...], saved.invstd[...] = statistics.numpy()
    return saved


# Function.apply() without its questions about transforms, which have been asked, nor a copy of the arguments: 4 µs.
_apply: Any = super(Function, Compiled).apply if operators.THERE else None
