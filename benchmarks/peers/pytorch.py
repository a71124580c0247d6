# SPDX-License-Identifier: Apache-2.0
"""PyTorch: the operators under torch.nn.BatchNorm, without autograd, into outputs that exist."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from harness.problem import EPS, MOMENTUM, Array, Problem
from harness.system import Caller, Trial
from harness.timing import fastest, repeated
from harness.workloads import Operation


class PyTorch:
    """native_batch_norm, with a channels-last tensor for NHWC."""

    name = "torch"
    version = str(torch.__version__)
    caller: Caller = "python"
    composed = False

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)

    @staticmethod
    def tensor(problem: Problem, flat: Array) -> torch.Tensor:
        """The buffer as N, C, H, W with the strides of its layout. One H and one W, because other ranks have no
        channels-last format that the fast paths know.
        """
        w = problem.workload
        if flat.dtype == np.uint16:  # the bits of bfloat16
            tensor = torch.from_numpy(flat.view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(flat)
        if problem.layout == "NC":
            return tensor.view(w.n, w.c)
        height = w.spatial[0] if len(w.spatial) > 1 else 1
        if problem.layout == "NCHW":
            return tensor.view(w.n, w.c, height, -1)
        return tensor.view(w.n, height, -1, w.c).permute(0, 3, 1, 2)

    def prepare(self, problem: Problem, operation: Operation) -> Trial | None:
        p = problem
        if operation != "backward":
            return Trial(repeated(self.forward(p, operation == "training")), lambda: p.y)
        x, dy, dx = (self.tensor(p, flat) for flat in (p.x, p.dy, p.dx))
        return self.backward(p, dy, x, dx, torch.from_numpy(p.gamma))

    def forward(self, p: Problem, training: bool) -> Callable[[], object]:
        x, y = self.tensor(p, p.x), self.tensor(p, p.y)
        gamma, beta, mean, var = map(torch.from_numpy, (p.gamma, p.beta, p.running_mean, p.running_var))
        saved = [torch.empty(p.workload.c if training else 0, dtype=gamma.dtype) for _ in range(2)]
        out = (y, *saved)

        def call() -> object:
            return torch.native_batch_norm(x, gamma, beta, mean, var, training, MOMENTUM, EPS, out=out)

        return call

    @staticmethod
    def backward(p: Problem, dy: torch.Tensor, x: torch.Tensor, dx: torch.Tensor, gamma: torch.Tensor) -> Trial | None:
        """The better of two: the variant with outputs computes elsewhere and copies."""
        operator = torch.ops.aten.native_batch_norm_backward
        mean, invstd = (torch.from_numpy(value.astype(p.dtype)) for value in p.statistics)
        arguments = (dy, x, gamma, None, None, mean, invstd, True, EPS, [True, True, True])
        outputs = {"out0": dx, "out1": torch.empty_like(gamma), "out2": torch.empty_like(gamma)}

        def result() -> Array:
            p.dx[:] = np.nan
            operator.out(*arguments, **outputs)
            return p.dx

        return fastest(
            Trial(repeated(call), result)
            for call in (lambda: operator.out(*arguments, **outputs), lambda: operator.default(*arguments))
        )
