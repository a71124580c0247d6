# SPDX-License-Identifier: Apache-2.0
"""Trains a network with batch norm in JAX, its batches spread over all devices; four parts of the CPU if not told else.

The values that enter are far from 0, which a batch norm of sums of squares would not survive. Prints the loss of the
first and of the last step, and the accuracy with running statistics.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")

import batchnorm.jax as bj
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

MESH = Mesh(jax.devices(), ("batch",))
FEATURES, HIDDEN, CLASSES, MOMENTUM, RATE = 16, 32, 4, 0.8, 0.3


def start(key: Any) -> tuple[Any, Any]:
    """Parameters, and running statistics."""
    first, second = jax.random.split(key)
    params = {
        "gamma": jnp.ones(FEATURES),
        "beta": jnp.zeros(FEATURES),
        "inner": jax.random.normal(first, (FEATURES, HIDDEN)) / FEATURES**0.5,
        "outer": jax.random.normal(second, (HIDDEN, CLASSES)) / HIDDEN**0.5,
    }
    return params, bj.BatchStatistics(jnp.zeros(FEATURES), jnp.ones(FEATURES))


def network(params: Any, x: Any, running: Any = None) -> tuple[Any, Any]:
    """Scores of the classes, and the statistics of the batch on all devices; or scores by running statistics."""
    if running is None:
        x, batch = bj.batch_norm(x, params["gamma"], params["beta"], axis_name="batch")
    else:
        batch = running
        x = bj.batch_norm_inference(x, params["gamma"], params["beta"], mean=batch.mean, var=batch.var)
    return jax.nn.relu(x @ params["inner"]) @ params["outer"], batch


def loss(params: Any, x: Any, labels: Any) -> tuple[Any, Any]:
    """The mean over all devices."""
    scores, batch = network(params, x)
    right = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1)
    return jax.lax.pmean(-right.mean(), "batch"), batch


@jax.jit
@jax.shard_map(mesh=MESH, in_specs=(P(), P(), P("batch"), P("batch")), out_specs=P())
def step(params: Any, running: Any, x: Any, labels: Any) -> tuple[Any, Any, Any]:
    """shard_map adds up the gradients of parameters, which are the same on every device."""
    (value, batch), gradients = jax.value_and_grad(loss, has_aux=True)(params, x, labels)
    params = jax.tree.map(lambda old, slope: old - RATE * slope, params, gradients)
    running = jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, running, batch)
    return params, running, value


def data(key: Any, count: int) -> tuple[Any, Any]:
    """Points around a centre for each class, 5,000 standard deviations from 0."""
    centres = 5_000 + 2 * jax.random.normal(jax.random.key(1), (CLASSES, FEATURES))
    labels = jax.random.randint(key, (count,), 0, CLASSES)
    return centres[labels] + jax.random.normal(key, (count, FEATURES)), labels


def main() -> None:
    params, running = start(jax.random.key(0))
    values = []
    for key in jax.random.split(jax.random.key(2), 60):
        params, running, value = step(params, running, *data(key, 64))
        values.append(float(value))
    x, labels = data(jax.random.key(3), 1000)
    right = network(params, x, running)[0].argmax(-1) == labels
    print(f"{jax.device_count()} devices: loss {values[0]:.3f} -> {values[-1]:.3f}, {float(right.mean()):.1%} right")


if __name__ == "__main__":
    main()
