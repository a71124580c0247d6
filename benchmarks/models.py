# SPDX-License-Identifier: Apache-2.0
"""Whole training steps of torchvision's models: PyTorch's batch norms beside those of batchnorm.torch, in one process.

The layers of one model are converted and converted back between steps, so that the two take turns on the same
parameters. A row has the medians, PyTorch's time over ours, and the part of a step that the batch norms take with
either, by PyTorch's profiler. It goes to a CSV file as soon as it is known.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import batchnorm as bn
import batchnorm.torch as bt
import torch
from torch.profiler import ProfilerActivity, profile

MODELS = ["resnet18", "resnet50", "mobilenet_v2", "densenet121"]
CONFIGS = ["float32", "channels_last", "bfloat16"]
COLUMNS = [
    "model",
    "config",
    "threads",
    "steps",
    "operators",
    "torch_ms",
    "ours_ms",
    "ratio",
    "torch_share",
    "ours_share",
]
# The events of a profile that are of batch norms, but for those of the layers themselves.
OF_NORMS = (
    "aten::native_batch_norm", "aten::native_batch_norm_backward", "aten::batch_norm", "aten::_batch_norm_impl_index",
    "NativeBatchNormBackward0", "Compiled", "CompiledBackward", "Eager", "EagerBackward", "batchnorm::forward_training",
    "batchnorm::backward",
)  # fmt: skip


def models() -> Any:
    """torchvision.models, also of a torchvision that was compiled for another build of PyTorch."""
    try:
        import torchvision
    except RuntimeError:  # its operators are missing
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")
        import torchvision
    return torchvision.models


def training(model: Any, config: str, batch: int, size: int) -> Callable[[], None]:
    """A step of SGD on random images."""
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 100, (batch,))
    if config == "channels_last":
        model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=config == "bfloat16"):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def share(step: Callable[[], None]) -> float:
    """The part of a step's time that is spent in batch norms."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    events = seen.key_averages()
    norms = sum(event.self_cpu_time_total for event in events if event.key in OF_NORMS)
    return norms / sum(event.self_cpu_time_total for event in events)


def row(name: str, config: str, threads: int, told: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(threads)
    bn.set_num_threads(threads)
    torch.manual_seed(0)
    model = getattr(models(), name)(num_classes=100)
    step = training(model, config, told.batch, told.size)
    taken: dict[str, list[float]] = {"torch": [], "ours": []}
    shares = {}
    for turn in range(1 + told.steps):
        for system, times in taken.items():
            bt.convert(model, back=system == "torch")
            start = time.perf_counter()
            step()
            if turn:  # the first one fills caches
                times.append(1000 * (time.perf_counter() - start))
            if turn == told.steps:
                shares[system] = share(step)
    theirs, ours = (statistics.median(times) for times in taken.values())
    found = [
        name,
        config,
        threads,
        told.steps,
        bt.operators.THERE,
        f"{theirs:.1f}",
        f"{ours:.1f}",
        f"{theirs / ours:.3f}",
    ]
    return dict(zip(COLUMNS, [*found, *(f"{shares[system]:.3f}" for system in taken)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="names in torchvision.models")
    parser.add_argument("--configs", nargs="+", default=CONFIGS, choices=CONFIGS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=9, help="of each of the two (default: 9)")
    parser.add_argument("--batch", type=int, default=8, help="images (default: 8)")
    parser.add_argument("--size", type=int, default=96, help="their height and width (default: 96)")
    parser.add_argument("--output", type=Path, default=Path(".build-bench/models.csv"))
    told = parser.parse_args()
    told.output.parent.mkdir(parents=True, exist_ok=True)
    with told.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        print(*COLUMNS)
        for threads in told.threads:
            for name in told.models:
                for config in told.configs:
                    found = row(name, config, threads, told)
                    writer.writerow(found)
                    file.flush()
                    print(*found.values(), flush=True)


if __name__ == "__main__":
    main()
