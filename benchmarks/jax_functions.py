# SPDX-License-Identifier: Apache-2.0
"""Batch norm in JAX on the CPU: flax's layer, the formula in jnp, and batchnorm.jax, forward and with gradients.

The three take turns in one process, compiled by jax.jit, with one thread. A row has the medians in µs, of y and the
statistics, and of these with the gradients of x, gamma and beta.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import batchnorm as bn
import batchnorm.jax as bj
import flax.linen
import jax
import jax.numpy as jnp

SHAPES = [(1, 2, 2, 4), (32, 64), (8, 14, 14, 16), (32, 28, 28, 64), (32, 56, 56, 64), (4096, 512)]


def of_flax(x: Any, gamma: Any, beta: Any) -> Any:
    layer = flax.linen.BatchNorm(use_running_average=False, momentum=0.0, dtype=x.dtype)
    zeros = jnp.zeros(gamma.shape)
    variables = {"params": {"scale": gamma, "bias": beta}, "batch_stats": {"mean": zeros, "var": zeros}}
    y, updated = layer.apply(variables, x, mutable=["batch_stats"])
    return y, updated["batch_stats"]


def of_formula(x: Any, gamma: Any, beta: Any) -> Any:
    """In two passes, so that nothing cancels."""
    wide, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    mean, var = wide.mean(axes), wide.var(axes)
    return ((wide - mean) * (jax.lax.rsqrt(var + 1e-5) * gamma) + beta).astype(x.dtype), (mean, var)


CALLS: dict[str, Callable[..., Any]] = {"flax": of_flax, "jnp": of_formula, "ours": bj.batch_norm}


def with_gradients(call: Callable[..., Any]) -> Callable[..., Any]:
    """y, and the gradients for a dy that is given."""

    def step(x: Any, gamma: Any, beta: Any, dy: Any) -> Any:
        y, pull, told = jax.vjp(call, x, gamma, beta, has_aux=True)
        return y, told, pull(dy)

    return step


def medians(functions: dict[str, Any], given: Any) -> list[float]:
    """µs of each, which take turns."""
    compiled = {name: jax.jit(function) for name, function in functions.items()}
    for function in compiled.values():
        jax.block_until_ready(function(*given))
    times: dict[str, list[int]] = {name: [] for name in compiled}
    for _ in range(201 if given[0].size < 1_000_000 else 21):
        for name, function in compiled.items():
            start = time.perf_counter_ns()
            jax.block_until_ready(function(*given))
            times[name].append(time.perf_counter_ns() - start)
    return [statistics.median(each) / 1000 for each in times.values()]


def row(shape: tuple[int, ...], dtype: Any) -> str:
    keys = jax.random.split(jax.random.key(0), 2)
    x, dy = (jax.random.normal(key, shape, dtype) for key in keys)
    given = x, jnp.ones(shape[-1]), jnp.zeros(shape[-1])
    forward = medians(CALLS, given)
    both = medians({name: with_gradients(call) for name, call in CALLS.items()}, (*given, dy))
    told = "".join(f"{each:10.1f}" for each in (*forward, *both))
    return f"{'x'.join(map(str, shape)):12} {dtype.__name__:9}{told}"


def main() -> None:
    bn.set_num_threads(1)
    columns = "".join(f"{name:>10}" for name in [*CALLS, *(f"{name}+grad" for name in CALLS)])
    print(f"{'shape':12} {'dtype':9}{columns}")
    for shape in SHAPES:
        for dtype in (jnp.float32, jnp.bfloat16):
            print(row(shape, dtype), flush=True)


if __name__ == "__main__":
    main()
