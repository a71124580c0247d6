# SPDX-License-Identifier: Apache-2.0
"""States of a layer in the words of each framework, written out."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import batchnorm as bn

Array = np.ndarray[Any, Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# Each framework's keys of gamma, beta, mean and variance, written out; the layer is at "a", in "a/b" nested.
KEYS = {
    "pytorch": ["a.weight", "a.bias", "a.running_mean", "a.running_var"],
    "keras": ["a/gamma", "a/beta", "a/moving_mean", "a/moving_variance"],
    "flax": ["params/a/scale", "params/a/bias", "batch_stats/a/mean", "batch_stats/a/var"],
    "nnx": ["a/scale", "a/bias", "a/mean", "a/var"],
    "onnx": ["a.scale", "a.B", "a.input_mean", "a.input_var"],
    "mlx": ["a.weight", "a.bias", "a.running_mean", "a.running_var"],
}
FRAMEWORKS = list(KEYS)
# The defaults of a constructor: eps, weight of the new batch, whether unbiased, axis.
DEFAULTS = {
    "pytorch": (1e-5, 0.1, True, 1),
    "keras": (1e-3, 0.01, False, -1),
    "flax": (1e-5, 0.01, False, -1),
    "nnx": (1e-5, 0.01, False, -1),
    "onnx": (1e-5, 0.1, False, 1),
    "mlx": (1e-5, 0.1, True, -1),
}
EPS = {"pytorch": "eps", "mlx": "eps", "keras": "epsilon", "flax": "epsilon", "nnx": "epsilon", "onnx": "epsilon"}


def arrays_of(rng: np.random.Generator, channels: int = 3, dtype: Any = np.float32) -> list[Array]:
    """gamma, beta, mean and variance."""
    gamma, beta, mean = rng.normal(size=(3, channels))
    return [each.astype(dtype) for each in (gamma, beta, mean, rng.uniform(0.2, 3, channels))]


def state_of(framework: str, arrays: list[Array]) -> dict[str, Any]:
    return dict(zip(KEYS[framework], arrays))


def layer_for(framework: str, channels: int = 3, **told: Any) -> bn.BatchNorm:
    """A layer that the framework has words for."""
    return bn.BatchNorm(channels, **{"axis": DEFAULTS[framework][3], **told})


def attributes(layer: bn.BatchNorm) -> list[Any]:
    return [layer.gamma, layer.beta, layer.running_mean, layer.running_var]


def same(layer: bn.BatchNorm, arrays: list[Array]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(attributes(layer), arrays))
