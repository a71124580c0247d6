# SPDX-License-Identifier: Apache-2.0
"""Calls with something more than batch norm in them, or with smaller elements: what they are, and their buffers."""

from __future__ import annotations

from math import prod
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from .problem import SEED, Array, Problem, aligned, fill
from .system import Trial
from .workloads import Layout, Operation, Workload

Variant = Literal["plain", "relu", "add + relu", "silu", "masked"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
# "plain" has nothing more; "add + relu" adds a residual before, and backward gives its gradient, too; "masked" leaves a
# quarter of the positions out of the statistics and makes them zero.

Element = Literal["float32", "bfloat16", "float16"]
ELEMENTS: tuple[Element, ...] = get_args(Element)
STORED: dict[Element, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(np.uint16),  # its bits: NumPy has no such dtype
    "float16": np.dtype(np.float16),
}

SHAPES: tuple[tuple[Workload, Layout], ...] = (
    (Workload("resnet-50", 8, 64, (112, 112)), "NCHW"),
    (Workload("resnet-50", 8, 256, (56, 56)), "NCHW"),
    (Workload("resnet-50", 8, 512, (28, 28)), "NCHW"),
    (Workload("resnet-50", 8, 1024, (14, 14)), "NCHW"),
    (Workload("resnet-50", 8, 2048, (7, 7)), "NCHW"),
    (Workload("resnet-50", 8, 64, (56, 56)), "NHWC"),
    (Workload("resnet-50", 8, 512, (28, 28)), "NHWC"),
    (Workload("tabular", 1024, 784, ()), "NC"),
    (Workload("tiny", 8, 16, (8, 8)), "NCHW"),
)


class Operands(Problem):
    """A problem with a residual and a mask, and with elements of any size; its parameters are float32."""

    def __init__(self, workload: Workload, layout: Layout, element: Element) -> None:
        super().__init__(workload, layout)
        self.element = element
        self.residual, self.dresidual = (aligned(workload.elements, self.dtype) for _ in range(2))
        fill(self.residual, SEED + 4)
        self.dtype = STORED[element]
        self.x, self.dy, self.y, self.dx = (stored(flat, element) for flat in (self.x, self.dy, self.y, self.dx))
        self.residual, self.dresidual = (stored(flat, element) for flat in (self.residual, self.dresidual))
        # In no order, as the worst case: padding would come in long runs.
        positions = np.random.default_rng(SEED + 5).permutation(workload.n * prod(workload.spatial))
        self.mask: NDArray[np.bool_] = (positions % 4 != 0).reshape(workload.n, *workload.spatial)

    def values(self, flat: Array) -> NDArray[np.float32]:
        """Elements as numbers that NumPy knows."""
        if self.element == "bfloat16":
            return (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.astype(np.float32)


def stored(flat: Array, element: Element) -> Array:
    """Numbers of float32 as such elements, rounded to the nearest."""
    if element == "float32":
        return flat
    result = aligned(flat.size, STORED[element])
    if element == "bfloat16":
        bits = flat.view(np.uint32)
        result[:] = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    else:
        result[:] = flat
    return result


class VariantSystem(Protocol):
    """The interface of a system under measurement with fused variants."""

    name: str

    def variant(self, operands: Operands, operation: Operation, variant: Variant) -> Trial | None:
        """A variant of an operation, or None if the system does not have it."""
