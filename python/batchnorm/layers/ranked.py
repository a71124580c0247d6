# SPDX-License-Identifier: Apache-2.0
"""BatchNorm for inputs of a given rank, as PyTorch has it: the channel axis is 1.

Positional arguments are in PyTorch's order, but that there is no `device`. PyTorch's are also the argument `bias`, the
properties `weight` and `bias`, extra_repr() and the keys of state_dict().
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .._core.options import DEFAULT_MOMENTUM, flag
from .._core.public import publish
from ..settings.activations import Activation
from ..settings.groups import Groups
from ..settings.running import Running
from ..settings.sources import Source
from .layer import BatchNorm


class _RankedBatchNorm(BatchNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = DEFAULT_MOMENTUM,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: DTypeLike | None = np.float32,
        *,
        bias: bool = True,
        decay: float | None = None,
        unbiased: bool = True,
        param_dtype: DTypeLike | None = None,
        activation: Activation | None = None,
        running: Running | None = None,
        source: Source | None = None,
        groups: Groups | None = None,
        frozen: bool = False,
    ) -> None:
        more: dict[str, Any] = {"decay": decay, "unbiased": unbiased, "param_dtype": param_dtype}
        more.update(activation=activation, running=running, source=source, groups=groups, frozen=frozen)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, **more)
        if not flag(bias, "bias"):
            self.beta = None

    def _check_rank(self, rank: int) -> None:
        if rank not in self.ranks:
            expected = " or ".join(f"{rank}D" for rank in self.ranks)
            raise ValueError(f"expected {expected} input (got {rank}D input){_advice(self.ranks, rank)}")

    def extra_repr(self) -> str:
        """The text that repr() has between the brackets, under PyTorch's name."""
        text = super().__repr__().partition("(")[2][:-1]
        return text + (", bias=False" if self.affine and self._beta is None else "")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def _repr_axis(self) -> str:
        return ""


def _advice(ranks: tuple[int, ...], rank: int) -> str:
    """Advice about an x of another rank: take another layer, or make a batch of one sample."""
    others = [kind.__name__ for kind in (BatchNorm1d, BatchNorm2d, BatchNorm3d) if rank in kind.ranks]
    advice = [f"{name} takes {rank}D" for name in others] or ["BatchNorm takes any rank"] * (rank > 1)
    if rank + 1 == ranks[0]:
        advice.append("x[np.newaxis] makes a batch of one sample")
    return ": " + "; ".join(advice) if advice else ""


@publish
class BatchNorm1d(_RankedBatchNorm):
    """BatchNorm for x of shape (N, C) or (N, C, L), as torch.nn.BatchNorm1d.

    Parameters
    ----------
    num_features : int
        Number of channels, C.
    eps, momentum, affine, track_running_stats, dtype
        As in BatchNorm.
    bias : bool, default True
        Without it an affine layer has gamma alone, and beta is None.
    decay, unbiased, param_dtype, activation, running, source, groups, frozen
        As in BatchNorm.

    Raises
    ------
    ValueError, TypeError
        An argument is out of its range, or of a wrong type. By a call: x is of another rank, dtype or number of
        channels, or has one value per channel in training.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> layer = bn.BatchNorm1d(2, eps=0, momentum=None, affine=False)
    >>> print(layer(np.float32([[1, 10], [3, 30]])))
    [[-1. -1.]
     [ 1.  1.]]
    >>> print(layer.running_mean, layer.running_var)
    [ 2. 20.] [  2. 200.]
    """

    ranks = (2, 3)


@publish
class BatchNorm2d(_RankedBatchNorm):
    """BatchNorm for x of shape (N, C, H, W), as torch.nn.BatchNorm2d. Arguments and errors are those of BatchNorm1d.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> layer = bn.BatchNorm2d(3, bias=False)
    >>> y = layer(np.ones((2, 3, 4, 4), np.float32))
    >>> dx = layer.backward(np.ones_like(y))
    >>> print(y.shape, layer.num_batches_tracked, layer.grad_gamma, layer.grad_beta)
    (2, 3, 4, 4) 1 [0. 0. 0.] None
    >>> print(*layer.state_dict())
    weight running_mean running_var num_batches_tracked
    """

    ranks = (4,)


@publish
class BatchNorm3d(_RankedBatchNorm):
    """BatchNorm for x of shape (N, C, D, H, W), as torch.nn.BatchNorm3d. Arguments and errors are those of BatchNorm1d.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> layer = bn.BatchNorm3d(3)
    >>> layer(np.ones((2, 3, 4, 4), np.float32))
    Traceback (most recent call last):
    ...
    ValueError: expected 5D input (got 4D input): BatchNorm2d takes 4D; x[np.newaxis] makes a batch of one sample
    """

    ranks = (5,)
