# SPDX-License-Identifier: Apache-2.0
"""The oracle for folding: convolutions tap by tap and batch norm by its formula, apart from the package.

Inputs are (N, channels, *positions), and what is computed is of NumPy's longest floats.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from oracle import Real

import batchnorm as bn

Array = np.ndarray[Any, Any]
NUMPYS = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def per_channel(values: Any, x: Array) -> Array:
    return np.asarray(values, Real).reshape(1, -1, *[1] * (x.ndim - 2))


def per_axis(value: Any, rank: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * rank


def convolved(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    groups: int = 1,
    stride: Any = 1,
    padding: Any = 0,
    padding_mode: str = "zeros",
    dilation: Any = 1,
) -> Array:
    """A convolution of x (N, in, *positions) as PyTorch defines it; at the borders of "same", the odd one is last."""
    rank = x.ndim - 2
    strides, dilations, kernel = per_axis(stride, rank), per_axis(dilation, rank), weight.shape[2:]
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilations, kernel)]
        ends = [(total // 2, total - total // 2) for total in totals]
    else:
        ends = [(p, p) for p in per_axis(0 if padding == "valid" else padding, rank)]
    x = np.pad(x, [(0, 0), (0, 0), *ends], NUMPYS[padding_mode])
    inputs, outputs = weight.shape[1], weight.shape[0] // groups
    extents = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(x.shape[2:], dilations, kernel, strides)]
    y = np.zeros((len(x), len(weight), *extents), Real)
    for group, position in itertools.product(range(groups), np.ndindex(*extents)):
        rows = slice(group * outputs, (group + 1) * outputs)
        for tap in np.ndindex(*kernel):
            at = tuple(p * s + t * d for p, s, t, d in zip(position, strides, tap, dilations))
            seen = x[(slice(None), slice(group * inputs, (group + 1) * inputs), *at)]
            y[(slice(None), rows, *position)] += seen @ weight[(rows, slice(None), *tap)].T
    return y if bias is None else y + per_channel(bias, y)


def transposed(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    groups: int = 1,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    output_padding: Any = 0,
) -> Array:
    """A transposed convolution: every input puts the kernel where it is, and `padding` is cut off."""
    rank = x.ndim - 2
    strides, dilations, cuts, more, kernel = (
        *(per_axis(value, rank) for value in (stride, dilation, padding, output_padding)),
        weight.shape[2:],
    )
    inputs, outputs = len(weight) // groups, weight.shape[1]
    whole = [(n - 1) * s + d * (k - 1) + 1 + m for n, s, d, k, m in zip(x.shape[2:], strides, dilations, kernel, more)]
    y = np.zeros((len(x), outputs * groups, *whole), Real)
    for group, position in itertools.product(range(groups), np.ndindex(*x.shape[2:])):
        rows = slice(group * inputs, (group + 1) * inputs)
        for tap in np.ndindex(*kernel):
            at = tuple(p * s + t * d for p, s, t, d in zip(position, strides, tap, dilations))
            columns = slice(group * outputs, (group + 1) * outputs)
            y[(slice(None), columns, *at)] += x[(slice(None), rows, *position)] @ weight[(rows, slice(None), *tap)]
    y = y[(slice(None), slice(None), *(slice(cut, n - cut) for cut, n in zip(cuts, whole)))]
    return y if bias is None else y + per_channel(bias, y)


class Norm:
    """A layer of random numbers, and its formula. Some gammas are 0 and negative; some variances vanish."""

    def __init__(self, rng: np.random.Generator, channels: int, dtype: Any = np.float64) -> None:
        affine, self.eps = bool(rng.random() < 0.8), float(rng.choice([1e-5, 1e-3, 0.5, 0]))
        self.layer = bn.BatchNorm(channels, eps=self.eps, affine=affine, dtype=dtype)
        self.layer.running_mean[...] = rng.normal(size=channels)
        self.layer.running_var[...] = rng.uniform(0.3, 4, channels) * (rng.random(channels) < 0.9)
        if affine:
            self.layer.gamma[...] = rng.normal(size=channels) * (rng.random(channels) < 0.8)
            self.layer.beta[...] = rng.normal(size=channels)
            if rng.random() < 0.2:
                self.layer.beta = None
        print(f"norm: {channels} channels, eps {self.eps}, affine {affine}, beta {self.layer.beta is not None}")

    def __call__(self, x: Array) -> Array:
        layer = self.layer
        std = np.sqrt(layer.running_var.astype(Real) + Real(layer.eps))
        x_hat = (x - per_channel(layer.running_mean, x)) * per_channel(np.where(std > 0, 1, 0) / (std + (std == 0)), x)
        gamma, beta = 1 if layer.gamma is None else layer.gamma, 0 if layer.beta is None else layer.beta
        return per_channel(np.broadcast_to(gamma, std.shape), x) * x_hat + per_channel(
            np.broadcast_to(beta, std.shape), x
        )

    def without_shift(self) -> Norm:
        """With a beta that makes the shift exactly 0, as a mean of 0 does."""
        self.layer.running_mean[...] = 0
        if self.layer.beta is not None:
            self.layer.beta[...] = 0
        return self


class Geometry:
    """A convolution of 1 to 3 dimensions of random settings, its weight and bias, and an input for it."""

    def __init__(self, rng: np.random.Generator, transpose: bool, rank: int | None = None) -> None:
        self.transposed, self.rank = transpose, rank or int(rng.integers(1, 4))
        self.groups = int(rng.choice([1, 1, 2, 3]))
        # A depthwise convolution, with or without several outputs per input, has one input per group.
        self.inputs = self.groups * int(rng.choice([1, 2, 3]))
        self.outputs = self.groups * int(rng.choice([1, 2, 3]))
        kernel = tuple(int(k) for k in rng.integers(1, 4 if self.rank < 3 else 3, self.rank))
        self.told: dict[str, Any] = {"groups": self.groups}
        for name, most in (("stride", 3), ("dilation", 3)):
            self.told[name] = tuple(int(v) for v in rng.integers(1, most, self.rank))
        shape = (self.inputs, self.outputs // self.groups) if transpose else (self.outputs, self.inputs // self.groups)
        self.weight = rng.normal(size=(*shape, *kernel))
        self.bias = rng.normal(size=self.outputs) if rng.random() < 0.5 else None
        self.x = rng.normal(size=(2, self.inputs, *rng.integers(5, 8 if self.rank < 3 else 6, self.rank)))
        print(f"x {self.x.shape}, weight {self.weight.shape}, {self.told}, bias {self.bias is not None}")

    def padded(self, rng: np.random.Generator) -> Geometry:
        self.told["padding"] = tuple(int(v) for v in rng.integers(0, 3, self.rank))
        if self.transposed:
            self.told["output_padding"] = tuple(int(v) for v in rng.integers(0, 2, self.rank))
        print(self.told)
        return self

    def __call__(self, x: Array, weight: Array | None = None, bias: Array | None = None) -> Array:
        if weight is None:
            weight, bias = self.weight, self.bias
        return (transposed if self.transposed else convolved)(x, weight, bias, **self.told)


def close(actual: Array, expected: Array, times: float = 400) -> None:
    """Asserts that arrays are as near as float64 gets with sums of some dozens of terms that are next to 1."""
    assert actual.shape == expected.shape
    assert actual.size
    bound = times * np.finfo(np.float64).eps * (1 + abs(expected).max())
    assert abs(actual - expected).max() <= bound
