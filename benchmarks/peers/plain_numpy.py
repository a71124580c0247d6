# SPDX-License-Identifier: Apache-2.0
"""NumPy: the formulas as a careful user would write them, with one array for what comes in between."""

from __future__ import annotations

import numpy as np

from harness.problem import EPS, MOMENTUM, Problem
from harness.system import Caller, Trial
from harness.timing import repeated
from harness.workloads import Operation


class NumPy:
    """Composed operations in the dtype of the tensor, on one thread."""

    name = "numpy"
    version = np.__version__
    caller: Caller = "python"
    composed = True

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def prepare(self, problem: Problem, operation: Operation) -> Trial | None:
        if self.threads > 1:
            return None
        p = problem
        x, dy, y, dx = (flat.reshape(p.shape) for flat in (p.x, p.dy, p.y, p.dx))
        axes = tuple(axis for axis in range(len(p.shape)) if axis != p.axis % len(p.shape))
        row = [1] * len(p.shape)
        row[p.axis] = p.workload.c
        gamma, beta = p.gamma.reshape(row), p.beta.reshape(row)
        running_mean, running_var = p.running_mean.reshape(row), p.running_var.reshape(row)
        between = np.empty_like(x)
        eps = p.dtype.type(EPS)

        def training() -> None:
            mean = x.mean(axes, keepdims=True)
            np.subtract(x, mean, out=y)
            np.square(y, out=between)
            var = between.mean(axes, keepdims=True)
            running_mean[...] += MOMENTUM * (mean - running_mean)
            running_var[...] += MOMENTUM * (var - running_var)
            np.multiply(y, gamma / np.sqrt(var + eps), out=y)
            np.add(y, beta, out=y)

        def inference() -> None:
            np.subtract(x, running_mean, out=y)
            np.multiply(y, gamma / np.sqrt(running_var + eps), out=y)
            np.add(y, beta, out=y)

        mean, invstd = (value.astype(p.dtype).reshape(row) for value in p.statistics)

        def backward() -> None:
            count = x.size // p.workload.c
            np.subtract(x, mean, out=between)
            np.multiply(between, invstd, out=between)
            np.multiply(between, dy, out=dx)
            dgamma = dx.sum(axes, keepdims=True)
            dbeta = dy.sum(axes, keepdims=True)
            np.multiply(between, dgamma / count, out=between)
            np.subtract(dy, dbeta / count, out=dx)
            np.subtract(dx, between, out=dx)
            np.multiply(dx, gamma * invstd, out=dx)

        call = {"training": training, "inference": inference, "backward": backward}[operation]
        return Trial(repeated(call), lambda: p.dx if operation == "backward" else p.y)
