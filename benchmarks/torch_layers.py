# SPDX-License-Identifier: Apache-2.0
"""Layers of PyTorch and of batchnorm.torch in training, forward and backward, from small tensors to large.

The two take turns, with one thread. A row has the medians of both, in µs. BATCHNORM_TORCH_OPERATORS=0 leaves out the
operators of batchnorm-torch.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import batchnorm as bn
import batchnorm.torch as bt
import torch

SHAPES = [
    (2, 4, 2, 2), (32, 64), (8, 16, 8, 8), (8, 64, 8, 8), (8, 512, 3, 3), (8, 64, 16, 16), (8, 64, 28, 28),
    (8, 64, 56, 56),
]  # fmt: skip
LAYOUTS = {"C order": torch.contiguous_format, "channels last": torch.channels_last}


def step(layer: torch.nn.Module, x: Any, dy: Any) -> tuple[float, float]:
    """µs of a call forward, and of its backward pass."""
    for each in (x, *layer.parameters()):
        each.grad = None
    start = time.perf_counter_ns()
    y = layer(x)
    between = time.perf_counter_ns()
    y.backward(dy)
    return (between - start) / 1000, (time.perf_counter_ns() - between) / 1000


def row(shape: tuple[int, ...], layout: str, dtype: Any) -> str:
    x = torch.randn(shape).to(dtype).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    dy = torch.randn_like(x)
    theirs = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(shape[1])
    times: dict[Any, list[tuple[float, float]]] = {layer: [] for layer in (theirs, bt.convert(theirs, inplace=False))}
    for _ in range(2001 if x.numel() < 100_000 else 201 if x.numel() < 1_000_000 else 41):
        for layer, taken in times.items():
            taken.append(step(layer, x, dy))
    them, us = ([statistics.median(column) for column in zip(*taken)] for taken in times.values())
    told = f"{them[0]:8.1f} {them[1]:8.1f} {us[0]:8.1f} {us[1]:8.1f} {sum(them) / sum(us):6.2f}"
    return f"{'x'.join(map(str, shape)):12} {x.numel():8} {layout:14} {str(dtype)[6:]:9} {told}"


def main() -> None:
    torch.set_num_threads(1)
    bn.set_num_threads(1)
    bt.functional.set_smallest(0)
    print(f"{'shape':12} elements {'layout':14} {'dtype':9}  torch fwd     bwd      fwd      bwd  ratio")
    for shape in SHAPES:
        for layout in list(LAYOUTS)[: len(shape) - 1]:
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                print(row(shape, layout, dtype), flush=True)


if __name__ == "__main__":
    main()
