# SPDX-License-Identifier: Apache-2.0
"""JAX: the formulas, compiled. It returns new arrays, but reads ours where they are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.problem import EPS, MOMENTUM, Array, Problem
from harness.system import Caller, Trial
from harness.timing import repeated
from harness.workloads import Operation

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")


class Jax:
    """jit of composed operations. The threads are as many as the process has CPUs, which is what it was granted."""

    name = "jax"
    version = str(jax.__version__)
    caller: Caller = "python"
    composed = True

    def __init__(self, threads: int) -> None:
        del threads

    def prepare(self, problem: Problem, operation: Operation) -> Trial:
        p = problem
        axes = tuple(axis for axis in range(len(p.shape)) if axis != p.axis % len(p.shape))
        row = [1] * len(p.shape)
        row[p.axis] = p.workload.c

        def affine(x: Any, mean: Any, var: Any, gamma: Any, beta: Any) -> Any:
            invstd = jax.lax.rsqrt(var + EPS)
            scale = (gamma * invstd).reshape(row)
            return (x - mean.reshape(row)) * scale + beta.reshape(row), invstd

        def training(x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any) -> Any:
            mean = jnp.mean(x, axes)
            var = jnp.mean(jnp.square(x - mean.reshape(row)), axes)
            y, invstd = affine(x, mean, var, gamma, beta)
            new_mean, new_var = (
                (1 - MOMENTUM) * old + MOMENTUM * new for old, new in ((running_mean, mean), (running_var, var))
            )
            return y, mean, invstd, new_mean, new_var

        def inference(x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any) -> Any:
            return affine(x, running_mean, running_var, gamma, beta)[:1]

        def backward(dy: Any, x: Any, gamma: Any, mean: Any, invstd: Any) -> Any:
            x_hat = (x - mean.reshape(row)) * invstd.reshape(row)
            dbeta, dgamma = jnp.sum(dy, axes), jnp.sum(dy * x_hat, axes)
            count = x.size // p.workload.c
            centred = dy - dbeta.reshape(row) / count - x_hat * dgamma.reshape(row) / count
            return (gamma * invstd).reshape(row) * centred, dgamma, dbeta

        x, dy = (jax.dlpack.from_dlpack(flat.reshape(p.shape)) for flat in (p.x, p.dy))
        gamma, beta, mean, var = (jnp.array(a) for a in (p.gamma, p.beta, p.running_mean, p.running_var))
        if operation == "backward":
            saved = (jnp.array(value.astype(p.dtype)) for value in p.statistics)
            function, arguments = jax.jit(backward), (dy, x, gamma, *saved)
        else:
            function = jax.jit(training if operation == "training" else inference)
            arguments = (x, gamma, beta, mean, var)

        def call() -> object:
            return jax.block_until_ready(function(*arguments))

        def result() -> Array:
            return np.asarray(function(*arguments)[0]).reshape(-1)

        return Trial(repeated(call), result)
