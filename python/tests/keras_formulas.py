# SPDX-License-Identifier: Apache-2.0
"""Keras's layer as a call of the oracle, and layers to hold to it."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from oracle import back, backward, forward, plain, rows

from batchnorm.interop.keras import BatchNormalization

Array = np.ndarray[Any, Any]

NAMES = "gamma", "beta", "moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev"
# The dtypes of x and y and of the weights, and the distance of each from the formulas, relative to the terms of a sum.
POLICIES: dict[str, tuple[Any, Any, float, float]] = {
    "float32": (np.float32, np.float32, 2e-6, 2e-6),
    "float64": (np.float64, np.float64, 1e-13, 1e-13),
    "float16": (np.float16, np.float16, 2e-3, 2e-3),
    "bfloat16": (ml_dtypes.bfloat16, ml_dtypes.bfloat16, 2e-2, 2e-2),
    "mixed_float16": (np.float16, np.float32, 2e-3, 2e-6),
    "mixed_bfloat16": (ml_dtypes.bfloat16, np.float32, 2e-2, 2e-6),
}


class Formulas:
    """Keras's layer as its documentation has it, with the weights that the layer has now: a call of the oracle."""

    def __init__(self, layer: BatchNormalization, x: Array, mask: Any, training: bool) -> None:
        self.layer, self.x, self.training = layer, x, training and layer.trainable
        self.weights = {name: None if (a := getattr(layer, name)) is None else a.astype(float) for name in NAMES}
        told: dict[str, Any] = {"eps": layer.epsilon, "frozen": not self.training}
        statistics = self.weights["moving_mean"], self.weights["moving_variance"]
        if self.training and layer.renorm:
            limits, root = layer.renorm_clipping or {}, np.sqrt(layer.epsilon)
            told["source"] = "renorm", limits.get("rmax", np.inf), limits.get("dmax", np.inf), limits.get("rmin", 0)
            spread = np.maximum(self.weights["renorm_stddev"], root) ** 2 - layer.epsilon
            statistics = self.weights["renorm_mean"], spread
        told["running_mean"], told["running_var"] = statistics
        given = {name: 1 - i if self.weights[name] is None else self.weights[name] for i, name in enumerate(NAMES[:2])}
        self.call = plain(x, axes=(layer.axis,), **given, **told)
        counted = np.broadcast_to(True if mask is None else np.asarray(mask, bool)[..., None], x.shape)
        # With no value that counts the mean and the variance are those of nothing: 0.
        self.call.weights = np.moveaxis(counted, layer.axis, 0)[:1].reshape(1, -1).astype(float)

    def result(self) -> tuple[Array, dict[str, Any]]:
        """y, and what the weights become."""
        new, layer, found = dict(self.weights), self.layer, forward(self.call)
        if self.training and self.call.w.any():
            [batch] = found.of_groups
            std = np.sqrt(batch.var + layer.epsilon)
            averaged = {"moving_mean": (batch.mean, layer.momentum), "moving_variance": (batch.var, layer.momentum)}
            if layer.renorm:
                averaged = {"moving_mean": (batch.mean, layer.momentum), "moving_stddev": (std, layer.momentum)}
                averaged["renorm_mean"] = batch.mean, layer.renorm_momentum
                averaged["renorm_stddev"] = std, layer.renorm_momentum
            for name, (value, momentum) in averaged.items():
                new[name] = momentum * self.weights[name] + (1 - momentum) * value
            if layer.renorm:
                new["moving_variance"] = np.maximum(new["moving_stddev"] ** 2 - layer.epsilon, 0)
        return back(found.y, self.x, (layer.axis,)), new

    def gradients(self, dy: Array) -> list[Any]:
        """The gradients of sum(dy * y) with respect to x, gamma and beta."""
        dx, dgamma, dbeta, _ = backward(self.call, rows(dy, (self.layer.axis,))[None])
        named = zip(NAMES, (dgamma[0], dbeta[0]))
        return [
            back(dx, dy, (self.layer.axis,)),
            *(None if self.weights[name] is None else values for name, values in named),
        ]


def near(ours: Any, expected: Any, tolerance: float, size: float) -> None:
    if expected is None:
        assert ours is None
        return
    assert ours.shape == expected.shape
    worst, bound = abs(ours.astype(float) - expected), tolerance * (size + abs(expected))
    assert (worst <= bound).all(), f"{worst.max()} beyond {bound.flat[worst.argmax()]}"


def randomize(rng: np.random.Generator, layer: BatchNormalization) -> None:
    for name in NAMES:
        array = getattr(layer, name)
        if array is not None:
            positive = name in ("moving_variance", "moving_stddev", "renorm_stddev")
            array[...] = rng.uniform(0.5, 2, array.shape) if positive else rng.normal(size=array.shape)


def state(layer: BatchNormalization) -> list[Any]:
    """All that a call may change."""
    arrays = [getattr(layer, name) for name in (*NAMES, "grad_gamma", "grad_beta")]
    told = layer.get_config(), layer.built, layer.trainable, layer._x is None, layer._last
    return [*told, *(None if a is None else (id(a), a.dtype, a.tolist()) for a in arrays)]


def some_x(rng: np.random.Generator) -> Array:
    return rng.normal(2, 3, size=(4, 5, 3)).astype(np.float32)


def trained(rng: np.random.Generator, x: Array) -> BatchNormalization:
    """One that has been trained, with renorm, so that it has everything."""
    layer = BatchNormalization(renorm=True, renorm_clipping={"rmax": 2.0})
    layer.build(x.shape)
    randomize(rng, layer)
    layer(x, training=True)
    layer.backward(x)
    return layer
