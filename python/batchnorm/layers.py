# SPDX-License-Identifier: Apache-2.0
"""BatchNorm for inputs of a given rank, as networks are usually written: the channel axis is 1."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ._arrays import Array
from ._options import DEFAULT_MOMENTUM
from .activations import Activation
from .groups import Groups
from .layer import BatchNorm
from .policies import Running
from .sources import Source


class _RankedBatchNorm(BatchNorm):
    ranks: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = DEFAULT_MOMENTUM,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: DTypeLike = np.float32,
        *,
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
        super().__init__(num_features, 1, eps, momentum, affine, track_running_stats, dtype, **more)

    def __call__(self, x: ArrayLike, out: Array | None = None, **told: Any) -> Array:
        """See BatchNorm.__call__()."""
        rank = np.ndim(x)
        if rank not in self.ranks:
            expected = " or ".join(f"{rank}D" for rank in self.ranks)
            raise ValueError(f"expected {expected} input (got {rank}D input)")
        return super().__call__(x, out, **told)

    def _repr_axis(self) -> str:
        return ""


class BatchNorm1d(_RankedBatchNorm):
    """BatchNorm for x of shape (N, C) or (N, C, L)."""

    ranks = (2, 3)


class BatchNorm2d(_RankedBatchNorm):
    """BatchNorm for x of shape (N, C, H, W)."""

    ranks = (4,)


class BatchNorm3d(_RankedBatchNorm):
    """BatchNorm for x of shape (N, C, D, H, W)."""

    ranks = (5,)
