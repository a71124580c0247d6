# SPDX-License-Identifier: Apache-2.0
"""The shapes that are measured: those of real models and real tables, and some that nobody optimizes for."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

Operation = Literal["training", "inference", "backward"]
Layout = Literal["NCHW", "NHWC", "NC"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True)
class Workload:
    """A tensor of n samples, c channels and any number of spatial axes."""

    family: str
    n: int
    c: int
    spatial: tuple[int, ...]
    double: bool = False  # measured in float64 as well
    composed: bool = False  # measured with systems that have no batch norm of their own, too: they take long
    offset: int = 0  # elements from the start of a cache line to the first one of a tensor

    @property
    def name(self) -> str:
        shape = "x".join(map(str, (self.n, self.c, *self.spatial)))
        return f"{shape}+{self.offset}" if self.offset else shape

    @property
    def elements(self) -> int:
        return self.n * self.c * prod(self.spatial)

    @property
    def layouts(self) -> tuple[Layout, ...]:
        return ("NCHW", "NHWC") if self.spatial else ("NC",)


WORKLOADS = (
    Workload("resnet-50", 8, 64, (112, 112), composed=True),
    Workload("resnet-50", 8, 64, (56, 56)),
    Workload("resnet-50", 8, 256, (56, 56), double=True),
    Workload("resnet-50", 8, 512, (28, 28), composed=True),
    Workload("resnet-50", 8, 1024, (14, 14)),
    Workload("resnet-50", 8, 2048, (7, 7), double=True, composed=True),
    Workload("mobilenet", 8, 96, (112, 112)),
    Workload("mobilenet", 8, 144, (56, 56)),
    Workload("mobilenet", 8, 384, (14, 14)),
    Workload("mobilenet", 8, 1280, (7, 7)),
    Workload("densenet", 8, 128, (28, 28)),
    Workload("densenet", 8, 1024, (7, 7)),
    Workload("u-net", 1, 64, (256, 256)),
    Workload("u-net", 1, 512, (32, 32)),
    Workload("audio", 8, 64, (8000,), composed=True),
    Workload("audio", 16, 512, (250,)),
    Workload("video", 2, 64, (8, 56, 56), composed=True),
    Workload("video", 2, 256, (4, 14, 14)),
    Workload("tabular", 1024, 784, (), double=True, composed=True),
    Workload("tabular", 100_000, 30, (), composed=True),
    Workload("tabular", 256, 64, ()),
    Workload("tiny", 8, 16, (8, 8), double=True, composed=True),
    Workload("tiny", 2, 3, (4, 4), composed=True),
    # Slabs larger than a cache that they could stay in: two reads and one write are the limit of training.
    Workload("large batch", 32, 64, (112, 112)),
    Workload("large batch", 16, 8, (512, 512)),
    # Lengths that fill no vector, and no vector at all.
    Workload("awkward", 8, 1, (224, 224)),
    Workload("awkward", 8, 3, (224, 224)),
    Workload("awkward", 8, 7, (1000,)),
    Workload("awkward", 8, 24, (15, 15)),
    Workload("awkward", 8, 129, (1000,)),
    Workload("awkward", 64, 2048, (1, 1)),
    # NumPy's own arrays begin at such an offset.
    Workload("unaligned", 8, 256, (56, 56), offset=4),
    Workload("unaligned", 8, 1024, (14, 14), offset=4),
)

QUICK = ("8x64x56x56", "8x2048x7x7", "1024x784", "8x16x8x8")


def select(names: list[str] | None) -> list[Workload]:
    """The workloads of these names or families, all of them without any."""
    if not names:
        return list(WORKLOADS)
    known = {word for w in WORKLOADS for word in (w.name, w.family)}
    if unknown := sorted(set(names) - known):
        raise SystemExit(f"no workload is called {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    return [w for w in WORKLOADS if w.name in names or w.family in names]
