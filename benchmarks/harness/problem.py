# SPDX-License-Identifier: Apache-2.0
"""One workload in memory: the buffers that every system reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .workloads import Layout, Workload

Array = NDArray[np.floating[Any]]

EPS = 1e-5
MOMENTUM = 0.1
SEED = 1


PAGE = 4096


def aligned(elements: int, dtype: np.dtype[Any], offset: int = 0, boundary: int = 64) -> Array:
    """Zeros at a boundary, of 64 bytes as JAX wants them if it is not to copy, or an offset in bytes behind it;
    written, so that they are there.
    """
    bytes_ = np.empty(elements * dtype.itemsize + offset + boundary, np.uint8)
    start = -bytes_.ctypes.data % boundary + offset
    flat: Array = bytes_[start : start + elements * dtype.itemsize].view(dtype)
    flat[:] = 0
    return flat


def fill(flat: Array, seed: int, mean: float = 0.0, std: float = 1.0) -> None:
    """Normal numbers; beyond a million they come again, because drawing them would take longer than the benchmark."""
    few = np.random.default_rng(seed).normal(mean, std, min(flat.size, 1_000_003))
    for start in range(0, flat.size, few.size):
        flat[start : start + few.size] = few[: flat.size - start]


@dataclass
class Problem:
    """Tensors and parameters of a workload in one layout and dtype."""

    workload: Workload
    layout: Layout
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    mean: float = 1.0  # of the values, in units of their standard deviation
    places: tuple[int, int, int, int] | None = None  # of x, dy, y and dx in their pages, bytes; None: as it comes

    def __post_init__(self) -> None:
        n, c = self.workload.elements, self.workload.c
        if self.places is None:
            offset = self.workload.offset * self.dtype.itemsize
            tensors = [aligned(n, self.dtype, offset) for _ in range(4)]
        else:
            tensors = [aligned(n, self.dtype, place, PAGE) for place in self.places]
        self.x, self.dy, self.y, self.dx = tensors
        fill(self.x, SEED, self.mean)
        fill(self.dy, SEED + 1)
        self.gamma, self.beta, self.running_mean, self.running_var = (aligned(c, self.dtype) for _ in range(4))
        fill(self.gamma, SEED + 2, 1, 0.1)
        fill(self.beta, SEED + 3, 0, 0.1)
        self.running_mean[:] = self.mean
        self.running_var[:] = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes in their order in memory."""
        w = self.workload
        return (w.n, *w.spatial, w.c) if self.layout == "NHWC" else (w.n, w.c, *w.spatial)

    @property
    def axis(self) -> int:
        return -1 if self.layout == "NHWC" else 1

    @property
    def core_shape(self) -> tuple[int, int, int]:
        """Outer, channels and inner, as the library counts them."""
        w = self.workload
        positions = prod(w.spatial)
        return (w.n * positions, w.c, 1) if self.layout == "NHWC" else (w.n, w.c, positions)

    @property
    def nbytes(self) -> int:
        """The bytes of one tensor."""
        return int(self.x.nbytes)

    @cached_property
    def statistics(self) -> tuple[Array, Array]:
        """The mean and the inverse standard deviation of each channel, for backward."""
        outer, _, inner = self.core_shape
        x = self.x.reshape(self.core_shape)
        mean = x.mean((0, 2), dtype=np.float64)
        # In one dot product per channel, without a float64 copy of a tensor that may fill the memory.
        second = np.einsum("nci,nci->c", x, x, dtype=np.float64) / (outer * inner)
        return mean, 1 / np.sqrt(second - mean**2 + EPS)
