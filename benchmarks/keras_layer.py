# SPDX-License-Identifier: Apache-2.0
"""A training step of Keras's layer over PyTorch beside that of batchnorm.keras: channels last, float32, one thread.

The two take turns. A row has the medians of both, forward and backward together, in µs.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import batchnorm as bn
import keras
import torch
from batchnorm.keras import BatchNormalization

SHAPES = [(8, 16), (64, 256), (8, 8, 8, 32), (32, 14, 14, 128), (32, 28, 28, 64), (32, 56, 56, 64)]


def step(layer: Any, x: Any, dy: Any) -> float:
    """µs of a call and its backward pass."""
    x.grad = None
    start = time.perf_counter_ns()
    layer(x, training=True).backward(dy)
    return (time.perf_counter_ns() - start) / 1000


def row(shape: tuple[int, ...]) -> str:
    x, dy = torch.randn(shape, requires_grad=True), torch.randn(shape)
    times: dict[Any, list[float]] = {keras.layers.BatchNormalization(): [], BatchNormalization(): []}
    for _ in range(201 if x.numel() < 1_000_000 else 31):
        for layer, taken in times.items():
            taken.append(step(layer, x, dy))
    theirs, ours = map(statistics.median, times.values())
    return f"{'x'.join(map(str, shape)):12} {theirs:8.0f} {ours:8.0f} {theirs / ours:6.2f}"


def main() -> None:
    torch.set_num_threads(1)
    bn.set_num_threads(1)
    print(f"{'shape':12}    Keras     here  ratio")
    for shape in SHAPES:
        print(row(shape), flush=True)


if __name__ == "__main__":
    main()
