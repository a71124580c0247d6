# SPDX-License-Identifier: Apache-2.0
"""Batch normalization over the devices of a process of its own: prints what test_jax_devices.py compares, as JSON.

Each result is a list of arrays in hexadecimal: y, mean, var, dx, dgamma and dbeta, for 1, 2 and 4 of the devices.
"""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import batchnorm.jax as bj

AXES = P("rows"), P(), P()


def spread(devices: int, axis: int, **told: Any) -> Any:
    """A function of x, gamma and beta whose batch lies on so many devices."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("rows",))

    def local(x: Any, gamma: Any, beta: Any) -> Any:
        y, (mean, var) = bj.batch_norm(x, gamma, beta, axis, axis_name="rows", reproducible=told["reproducible"])
        return y, mean, var

    mapped = jax.shard_map(local, mesh=mesh, in_specs=AXES, out_specs=AXES, check_vma=told["check"])
    return lambda *given: mapped(*given)


def whole(axis: int) -> Any:
    def local(x: Any, gamma: Any, beta: Any) -> Any:
        y, (mean, var) = bj.batch_norm(x, gamma, beta, axis)
        return y, mean, var

    return local


def results(function: Any, given: Any, weights: Any) -> list[str]:
    def loss(*given: Any) -> Any:
        y, mean, var = function(*given)
        return (jnp.sin(y.astype("float32")) * weights).sum() + (mean * var).sum(), (y, mean, var)

    gradients, found = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*given)
    return [np.asarray(each).tobytes().hex() for each in (*found, *gradients)]


def second(function: Any, given: Any, weights: Any) -> list[list[float]]:
    """A product with the Hessian in each order of modes, in float64."""

    def loss(*given: Any) -> Any:
        y, mean, var = function(*given)
        return (jnp.sin(y) * weights).sum() + (mean * var).sum()

    along = jax.tree.map(jnp.cos, given)
    gradient = jax.grad(loss, (0, 1, 2))
    products = (
        lambda *given: jax.jvp(gradient, given, along)[1],
        jax.grad(lambda *given: jax.jvp(loss, given, along)[1], (0, 1, 2)),
        jax.grad(lambda *given: sum((a * b).sum() for a, b in zip(gradient(*given), along)), (0, 1, 2)),
    )
    return [np.asarray(each).ravel().tolist() for product in products for each in jax.jit(product)(*given)]


def batch(rng: np.random.Generator, offset: float, shape: Any, axis: int, dtype: str) -> Any:
    x = jnp.asarray(rng.normal(offset, 1, shape), dtype)
    gamma, beta = rng.uniform(0.5, 2, shape[axis]), rng.normal(size=shape[axis])
    wide = "float64" if dtype == "float64" else "float32"
    return (x, jnp.asarray(gamma, wide), jnp.asarray(beta, wide)), jnp.asarray(rng.normal(size=shape), wide)


def main() -> None:
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    cases = [(0, (8, 5, 5, 6), -1, "float32"), (1_000, (8, 6, 7), 1, "float32"), (30_000, (8, 5, 6), -1, "float32")]
    cases += [(3, (16, 6), -1, "bfloat16"), (3, (8, 3, 2), -1, "float16")]
    for offset, shape, axis, dtype in cases:
        given, weights = batch(rng, offset, shape, axis, dtype)
        case = f"{dtype} {shape} at {offset}"
        found[case] = {"whole": results(whole(axis), given, weights)}
        for check in (True, False):
            for reproducible in (False, True):
                for devices in (1, 2, 4):
                    function = spread(devices, axis, check=check, reproducible=reproducible)
                    name = f"{devices}{' checked' if check else ''}{' reproducible' if reproducible else ''}"
                    found[case][name] = results(function, given, weights)
    jax.config.update("jax_enable_x64", True)
    given, weights = batch(rng, 3, (8, 3, 2), -1, "float64")
    functions = {"whole": whole(-1), **{str(n): spread(n, -1, check=True, reproducible=False) for n in (2, 4)}}
    found["second"] = {name: second(function, given, weights) for name, function in functions.items()}
    given, weights = batch(rng, 3, (8, 7, 5, 3), -1, "float64")
    found["float64"] = [
        results(spread(devices, -1, check=True, reproducible=True), given, weights) for devices in (1, 2, 4)
    ]
    found["refused"] = refused()
    print(json.dumps(found))


def refused() -> str:
    """gamma is sharded over the axis of the batch."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("rows",))
    specs = P("rows"), P("rows")
    mapped = jax.shard_map(
        lambda x, gamma: bj.batch_norm(x, gamma, axis_name="rows")[0], mesh=mesh, in_specs=specs, out_specs=P("rows")
    )
    try:
        mapped(jnp.ones((4, 3)), jnp.ones(6))
    except ValueError as error:
        return str(error).splitlines()[0]
    return ""


if __name__ == "__main__":
    main()
