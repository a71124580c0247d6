# SPDX-License-Identifier: Apache-2.0
"""Keras's layer as formulas in float64, and layers to hold to them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from batchnorm.interop.keras import BatchNormalization

Array = np.ndarray[Any, Any]

NAMES = "gamma", "beta", "moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev"
# Of x and y and of the weights, and how near they are to the formulas, in parts of what is added up.
POLICIES: dict[str, tuple[Any, Any, float, float]] = {
    "float32": (np.float32, np.float32, 2e-6, 2e-6),
    "float64": (np.float64, np.float64, 1e-13, 1e-13),
    "float16": (np.float16, np.float16, 2e-3, 2e-3),
    "bfloat16": (ml_dtypes.bfloat16, ml_dtypes.bfloat16, 2e-2, 2e-2),
    "mixed_float16": (np.float16, np.float32, 2e-3, 2e-6),
    "mixed_bfloat16": (ml_dtypes.bfloat16, np.float32, 2e-2, 2e-6),
}


class Formulas:
    """Keras's layer as its documentation has it, in float64, with the weights that the layer has now."""

    def __init__(self, layer: BatchNormalization, x: Array, mask: Any, training: bool) -> None:
        self.layer, self.x, self.training = layer, x.astype(float), training and layer.trainable
        self.over = tuple(a for a in range(x.ndim) if a != layer.axis % x.ndim)
        self.counted = np.broadcast_to(True if mask is None else np.asarray(mask, bool)[..., None], x.shape)
        self.weights = {name: None if (a := getattr(layer, name)) is None else a.astype(float) for name in NAMES}

    def spread(self, values: Any) -> Array:
        shape = [1] * self.x.ndim
        shape[self.layer.axis] = -1
        return np.asarray(values).reshape(shape)

    def moments(self, x: Array) -> tuple[Array, Array]:
        if not self.training:
            return self.weights["moving_mean"], self.weights["moving_variance"]
        count = max(int(self.counted.sum(self.over).max()), 1)
        mean = np.where(self.counted, x, 0).sum(self.over) / count
        return mean, np.where(self.counted, (x - self.spread(mean)) ** 2, 0).sum(self.over) / count

    def constants(self) -> tuple[Array, Array]:
        """r and d."""
        if not (self.training and self.layer.renorm):
            return np.ones(1), np.zeros(1)
        (mean, var), eps, limits = self.moments(self.x), self.layer.epsilon, self.layer.renorm_clipping or {}
        s = np.maximum(self.weights["renorm_stddev"], np.sqrt(eps))
        r = np.clip(np.sqrt(var + eps) / s, limits.get("rmin", 0), limits.get("rmax", np.inf))
        most = limits.get("dmax", np.inf)
        return r, np.clip((mean - self.weights["renorm_mean"]) / s, -most, most)

    def y(self, x: Array, gamma: Any, beta: Any) -> Array:
        mean, var = self.moments(x)
        x_hat = (x - self.spread(mean)) / np.sqrt(self.spread(var) + self.layer.epsilon)
        r, d = self.constants()
        u = (x_hat * self.spread(r) + self.spread(d)) * (1 if gamma is None else self.spread(gamma))
        return u + (0 if beta is None else self.spread(beta))

    def result(self) -> tuple[Array, dict[str, Any]]:
        """y, and what the weights become."""
        new, layer = dict(self.weights), self.layer
        if self.training and self.counted.any():
            mean, var = self.moments(self.x)
            averaged = {"moving_mean": (mean, layer.momentum), "moving_variance": (var, layer.momentum)}
            if layer.renorm:
                std = np.sqrt(var + layer.epsilon)
                averaged = {"moving_mean": (mean, layer.momentum), "moving_stddev": (std, layer.momentum)}
                averaged["renorm_mean"], averaged["renorm_stddev"] = (
                    (value, layer.renorm_momentum) for value in (mean, std)
                )
            for name, (value, momentum) in averaged.items():
                new[name] = momentum * self.weights[name] + (1 - momentum) * value
            if layer.renorm:
                new["moving_variance"] = np.maximum(new["moving_stddev"] ** 2 - layer.epsilon, 0)
        return self.y(self.x, self.weights["gamma"], self.weights["beta"]), new

    def gradients(self, dy: Array) -> list[Any]:
        """Of sum(dy * y) by x, gamma and beta, by complex steps, which lose no digits."""
        given = [self.x, self.weights["gamma"], self.weights["beta"]]
        found: list[Any] = []
        for i, values in enumerate(given):
            found.append(None if values is None else np.zeros_like(values))
            for index in () if values is None else np.ndindex(values.shape):
                moved = [a if j != i else a.astype(complex) for j, a in enumerate(given)]
                moved[i][index] += 1e-100j
                found[i][index] = (dy.astype(float) * self.y(*moved)).sum().imag / 1e-100
        return found


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
