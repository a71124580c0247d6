# SPDX-License-Identifier: Apache-2.0
"""The cost of a call with a small tensor: from Python and from C, as a function and as a layer, beside PyTorch's.

All ways take turns in this one process, with one thread and no gradients recorded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import batchnorm as bn
import torch

from harness import rows
from harness.problem import EPS, MOMENTUM, Problem
from harness.rows import CallRow
from harness.system import Trial
from harness.timing import measure, repeated
from harness.workloads import Layout, Workload
from peers.ours import OursFromC

SHAPES: tuple[tuple[Workload, Layout], ...] = (
    (Workload("small", 2, 4, ()), "NC"),
    (Workload("small", 4, 8, (2, 2)), "NCHW"),
    (Workload("small", 2, 16, (8, 8)), "NCHW"),
)
SECONDS = 6  # of a shape


def functions(p: Problem) -> dict[str, Callable[[], object]]:
    """Calls into outputs that exist, and layers, which make theirs."""
    x, y, dx = (flat.reshape(p.shape) for flat in (p.x, p.y, p.dx))
    tx, ty, tdx = map(torch.from_numpy, (x, y, dx))
    gamma, beta, mean, var = vectors = p.gamma, p.beta, p.running_mean, p.running_var
    t_gamma, t_beta, t_mean, t_var = map(torch.from_numpy, vectors)
    saved = torch.empty(p.workload.c), torch.empty(p.workload.c)
    for _ in range(2):  # of the first tensor it learns their kind
        _, of_arrays = bn.forward_training(x, gamma, beta)
        _, of_tensors = bn.forward_training(tx, t_gamma, t_beta)
    ours, theirs = bn.BatchNorm(p.workload.c), {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[x.ndim](p.workload.c)
    masks = [True, True, True]
    return {
        "training": lambda: bn.forward_training(x, gamma, beta, running_mean=mean, running_var=var, out=y),
        "training, tensors": lambda: bn.forward_training(
            tx, t_gamma, t_beta, running_mean=t_mean, running_var=t_var, out=ty
        ),
        "training, torch": lambda: torch.native_batch_norm(
            tx, t_gamma, t_beta, t_mean, t_var, True, MOMENTUM, EPS, out=(ty, *saved)
        ),
        "inference": lambda: bn.forward_inference(x, gamma, beta, running_mean=mean, running_var=var, out=y),
        "inference, tensors": lambda: bn.forward_inference(
            tx, t_gamma, t_beta, running_mean=t_mean, running_var=t_var, out=ty
        ),
        "inference, torch": lambda: torch.native_batch_norm(
            tx, t_gamma, t_beta, t_mean, t_var, False, MOMENTUM, EPS, out=(ty, *saved)
        ),
        "backward": lambda: bn.backward(x, x, of_arrays, out=dx),
        "backward, tensors": lambda: bn.backward(tx, tx, of_tensors, out=tdx),
        "backward, torch": lambda: torch.ops.aten.native_batch_norm_backward(
            tx, tx, t_gamma, t_mean, t_var, *saved, True, EPS, masks
        ),
        "layer": lambda: ours(x),
        "layer, torch": lambda: theirs(tx),
    }


def case(workload: Workload, layout: Layout) -> list[CallRow]:
    p = Problem(workload, layout)
    trials = {name: Trial(repeated(call)) for name, call in functions(p).items()}
    for operation in ("training", "inference", "backward"):
        found = OursFromC(1).prepare(Problem(workload, layout), operation)
        if found is not None:
            trials[f"{operation}, from C"] = found
    samples = measure(trials, SECONDS, 1)
    return [
        CallRow(workload.name, *name.partition(", ")[::2], 1e6 * sample.median, 1e6 * sample.mad, sample.rounds)
        for name, sample in samples.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="directory for calls.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    bn.set_num_threads(1)
    rows.write(options.output / "calls.csv", [row for shape in SHAPES for row in case(*shape)])


if __name__ == "__main__":
    main()
