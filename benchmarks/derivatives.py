# SPDX-License-Identifier: Apache-2.0
"""The cost of derivatives beyond the gradient: forward mode and double backward, beside PyTorch's and a copy of x.

PyTorch's are those of its own automatic differentiation, its double backward with a graph that is already there.
Prints a table, of one thread: times over that of a copy, and PyTorch's over ours.
"""

from __future__ import annotations

from functools import partial

import batchnorm as bn
import numpy as np
import torch

from harness.problem import EPS, Problem, aligned, fill
from harness.system import Trial
from harness.timing import measure, repeated
from harness.variants import SHAPES
from harness.workloads import Layout, Workload
from peers.pytorch import PyTorch
from reporting.markdown import ratio, table

SECONDS = 6  # of a shape


def trials(workload: Workload, layout: Layout) -> dict[str, Trial]:
    """One call each."""
    p = Problem(workload, layout)
    direction = aligned(workload.elements, p.dtype)
    fill(direction, 7)
    x, dy, u, y = (flat.reshape(p.shape) for flat in (p.x, p.dy, direction, p.y))
    _, saved = bn.forward_training(x, p.gamma, axis=p.axis, eps=EPS)
    vectors = {"gamma": p.running_var, "beta": p.running_mean}
    tangents = {f"{name}_tangent": values for name, values in vectors.items()}
    grads = {f"grad_d{name}": values for name, values in vectors.items()}

    theirs = [PyTorch.tensor(p, flat) for flat in (p.x, p.dy, direction)]
    tx, tdy, tu = (tensor.detach().requires_grad_(n < 2) for n, tensor in enumerate(theirs))
    gamma, beta = (torch.from_numpy(a).requires_grad_() for a in (p.gamma, p.beta))
    by = tu, *(torch.from_numpy(a) for a in vectors.values())

    def batch_norm(*inputs: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.batch_norm(inputs[0], None, None, *inputs[1:], True, 0.0, EPS)

    first = torch.autograd.grad(batch_norm(tx, gamma, beta), (tx, gamma, beta), tdy, create_graph=True)
    point = tuple(tensor.detach() for tensor in (tx, gamma, beta))
    calls = {
        "copy": partial(np.copyto, y, x),
        "backward": partial(bn.backward, dy, x, saved),
        "jvp": partial(bn.jvp, x, saved, x_tangent=u, **tangents),
        "jvp, torch": partial(torch.func.jvp, batch_norm, point, by),
        "double": partial(bn.double_backward, dy, x, saved, grad_dx=u, **grads),
        "double, torch": partial(torch.autograd.grad, first, (tdy, tx, gamma), by, retain_graph=True),
    }
    return {name: Trial(repeated(call)) for name, call in calls.items()}


def main() -> None:
    torch.set_num_threads(1)
    bn.set_num_threads(1)
    body = []
    for workload, layout in SHAPES:
        median = {name: sample.median for name, sample in measure(trials(workload, layout), SECONDS, 1).items()}
        cells = [ratio(median[name] / median["copy"]) for name in ("backward", "jvp", "double")]
        cells += [ratio(median[f"{name}, torch"] / median[name]) for name in ("jvp", "double")]
        body.append([workload.name, layout, *cells])
    print(f"{bn.isa()}, torch {torch.__version__}\n")
    head = ["backward / copy", "jvp / copy", "double / copy", "torch / ours, jvp", "torch / ours, double"]
    print(table(["workload", "layout", *head], body, words=2))


if __name__ == "__main__":
    main()
