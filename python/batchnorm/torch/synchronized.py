# SPDX-License-Identifier: Apache-2.0
"""A batch that lies in several processes, with its gradient: three numbers per channel forward, two backward.

They are gathered in float64, and merged in the order of the ranks, so that all processes have the same bits.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Callable

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .._core.arrays import Doubles
from .._core.foreign import view
from ..functional import steps
from ..statistics import inverse_std, merge_moments, moments, update_running
from .calls import as_seen
from .gathering import BACKWARD, GRADIENTS, Head, gathered, rank_in
from .threads import follow

_ALL = len(GRADIENTS) - 1


class Synchronized(Function):
    """gamma * x_hat + beta of this process's part, and the running statistics of the whole."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Any, bias: Any, count_batch: Any, *told: Any) -> Tensor:
        follow()
        group, head, refusal = told
        axis = 1 if refusal is not None or x.is_contiguous() else -1

        def own() -> Doubles:
            if refusal is not None:
                raise refusal
            array = _array(x, axis)
            return _rows(3, head, len(x), lambda part: moments(array[part], axis))

        parts = np.concatenate(gathered(group, head, own))
        count, mean, m2 = whole = merge_moments(parts if len(parts) else np.zeros((1, 3, head.channels)))
        if (count == 1).any():
            raise ValueError(
                "Expected more than 1 value per channel when training, got one in the batch of all processes together"
            )
        invstd, y, affine = inverse_std(count, m2, head.eps), torch.empty_like(x), (_array(weight), _array(bias))
        steps.normalize(_array(x, axis), mean, invstd, *affine, axis=axis, out=_array(y, axis, to_write=True))
        momentum, *running = count_batch()
        if running[0] is not None and count.all():
            kept = [each.data.contiguous() for each in running]
            update_running(*(_array(each, to_write=True) for each in kept), *whole, momentum=momentum)
            for each, moved in zip(running, kept):
                if not each.is_contiguous():
                    each.data.copy_(moved)
        ctx.save_for_backward(x, weight, bias)
        ctx.of_batch = group, head, mean, invstd, np.maximum(count, 1)  # no values have no sums to divide
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> Any:
        follow()
        x, weight, bias = ctx.saved_tensors
        group, head, mean, invstd, count = ctx.of_batch
        axis = 1 if x.is_contiguous() else -1
        given, seen, statistics = _array(dy, axis), _array(x, axis), (mean, invstd)

        def own() -> Doubles:
            return _rows(2, head, len(x), lambda at: steps.backward_reduce(given[at], seen[at], *statistics, axis=axis))

        dx, none = None, np.zeros((2, head.channels))
        if head.gradient == _ALL:
            parts, dx = gathered(group, head._replace(step=BACKWARD), own), torch.empty_like(x)
            part, (sum_dy, sum_hat) = parts[rank_in(group)], reduce(np.add, np.concatenate(parts), none)
            out = _array(dx, axis, to_write=True)
            sums = count, sum_dy, sum_hat, _array(weight)
            steps.backward_apply(given, seen, *statistics, *sums, axis=axis, out=out)
        else:
            part = own()
        dbias, dweight = (torch.from_numpy(each) for each in reduce(np.add, part, none))
        needed = ctx.needs_input_grad
        dweight = dweight.to(weight.dtype) if needed[1] else None
        return dx, dweight, dbias.to(bias.dtype) if needed[2] else None, *[None] * 4


def _array(value: Tensor | None, axis: int = 1, to_write: bool = False) -> Any:
    """The memory of a tensor: the steps take arrays with a fifth of the effort."""
    return None if value is None else view(as_seen(value.detach(), axis), "a tensor", to_write)


def _rows(numbers: int, head: Head, samples: int, of_part: Callable[[slice], Any]) -> Doubles:
    """Numbers per channel: those of all samples in one row, or those of each in a row, whose bits are the sample's."""
    parts = [slice(i, i + 1) for i in range(samples)] if head.reproducible else [slice(None)]
    rows = np.empty((len(parts), numbers, head.channels))
    for row, part in zip(rows, parts):
        row[...] = of_part(part)
    return rows
