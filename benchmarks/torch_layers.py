# SPDX-License-Identifier: Apache-2.0
"""Batch norm with gradients in PyTorch: its own function beside that of batchnorm.torch, from small tensors to large.

The two take turns, with one thread. A row has the medians of both, forward and backward, in µs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import batchnorm as bn
import batchnorm.torch as bt
import torch

SHAPES = [(2, 4, 2, 2), (8, 16, 4, 4), (8, 16, 8, 8), (8, 64, 8, 8), (8, 64, 16, 16), (8, 64, 28, 28), (8, 64, 56, 56)]
LAYOUTS = {"C order": torch.contiguous_format, "channels last": torch.channels_last}
CALLS: tuple[Callable[..., Any], ...] = (torch.nn.functional.batch_norm, bt.functional.batch_norm)


def step(call: Callable[..., Any], x: Any, parameters: list[Any], running: list[Any], dy: Any) -> tuple[float, float]:
    """µs of a call forward, and of its backward pass."""
    for each in (x, *parameters):
        each.grad = None
    start = time.perf_counter_ns()
    y = call(x, *running, *parameters, True)
    between = time.perf_counter_ns()
    y.backward(dy)
    return (between - start) / 1000, (time.perf_counter_ns() - between) / 1000


def row(shape: tuple[int, ...], layout: str, dtype: Any) -> str:
    x = torch.randn(shape).to(dtype).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    dy, channels = torch.randn_like(x), shape[1]
    parameters = [torch.ones(channels, requires_grad=True), torch.zeros(channels, requires_grad=True)]
    running = [torch.zeros(channels), torch.ones(channels)]
    times: dict[Any, list[tuple[float, float]]] = {call: [] for call in CALLS}
    for _ in range(201 if x.numel() < 1_000_000 else 41):
        for call, taken in times.items():
            taken.append(step(call, x, parameters, running, dy))
    theirs, ours = ([statistics.median(column) for column in zip(*taken)] for taken in times.values())
    told = f"{theirs[0]:8.1f} {theirs[1]:8.1f} {ours[0]:8.1f} {ours[1]:8.1f} {sum(theirs) / sum(ours):6.2f}"
    return f"{'x'.join(map(str, shape)):12} {x.numel():8} {layout:14} {str(dtype)[6:]:9} {told}"


def main() -> None:
    torch.set_num_threads(1)
    bn.set_num_threads(1)
    bt.functional.set_smallest(0)
    print(f"{'shape':12} elements {'layout':14} {'dtype':9}  torch fwd     bwd      fwd      bwd  ratio")
    for shape in SHAPES:
        for layout in LAYOUTS:
            for dtype in (torch.float32, torch.bfloat16):
                print(row(shape, layout, dtype), flush=True)


if __name__ == "__main__":
    main()
