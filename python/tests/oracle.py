# SPDX-License-Identifier: Apache-2.0
"""The oracle for all that a call may be told: the formulas of batchnorm.h in NumPy's longest floats, sample by sample.

Tensors are (samples, channels, positions) and weights (samples, positions). An array with a row per group is (rows,
channels), with one row if all groups share it. Nothing here is shared with the library or with its package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

# With the 64-bit mantissa of x86 its own errors, some M * 2**-64, are far below what the tests look at.
Real = np.longdouble
Array = np.ndarray[Any, Any]

STATISTICS, RUNNING, PARAMETERS = 1, 2, 4


@dataclass
class Call:
    """The arguments of a call. Arrays are of Real, and so is everything that is computed from them."""

    x: Array
    gamma: Array
    beta: Array
    running_mean: Array
    running_var: Array
    eps: float = 1e-5
    momentum: float = 0.1
    unbiased: bool = True
    activation: tuple[Any, ...] = ("identity",)
    residual: Array | None = None
    weights: Array | None = None
    masked: str = "normalize"
    average: str = "exponential"
    single_value: str = "error"
    nonfinite: str = "propagate"
    source: tuple[Any, ...] = ("batch",)
    of_sample: Array | None = None
    per_group: int = STATISTICS
    averaged: bool = False
    num_batches: Array = field(default_factory=lambda: np.zeros(1, int))
    frozen: bool = False

    @property
    def groups(self) -> list[Array]:
        """The samples that share statistics, one list for each group."""
        if self.of_sample is None or not self.per_group & STATISTICS:
            return [np.arange(len(self.x))]
        return [np.flatnonzero(self.of_sample == group) for group in range(self.count)]

    count: int = 1

    def row(self, sample: int, what: int) -> int:
        """The row of arrays of which there is one for each group."""
        return int(self.of_sample[sample]) if self.of_sample is not None and self.per_group & what else 0

    @property
    def w(self) -> Array:
        shape = len(self.x), self.x.shape[2]
        return np.ones(shape, Real) if self.weights is None else self.weights.astype(Real)


def rows(x: Any, axes: tuple[int, ...] = (1,)) -> Array:
    """A row per channel of an array with any channel axes."""
    channels = int(np.prod([x.shape[a] for a in axes]))
    return np.moveaxis(np.asarray(x), axes, range(len(axes))).reshape(channels, -1).astype(Real)


def back(of_rows: Array, x: Array, axes: tuple[int, ...] = (1,)) -> Array:
    """An array of rows(x) in the shape of x."""
    moved = np.moveaxis(x, axes, range(len(axes)))
    return np.moveaxis(of_rows.reshape(moved.shape), range(len(axes)), axes)


def plain(x: Array, gamma: Any = 1, beta: Any = 0, axes: tuple[int, ...] = (1,), **told: Any) -> Call:
    """A call with one sample: what rows() makes of x. Its results are for rows, too."""
    each = {"gamma": gamma, "beta": beta, "running_mean": 0, "running_var": 1, **told}
    x = rows(x, axes)[None]
    of_channels = ("gamma", "beta", "running_mean", "running_var")
    each.update({name: np.zeros((1, x.shape[1]), Real) + np.asarray(each[name], Real).ravel() for name in of_channels})
    return Call(x, **each)


def activate(u: Array, activation: tuple[Any, ...]) -> Array:
    kind, *numbers = activation
    if kind == "relu":
        return np.where(u > 0, u, 0)
    if kind == "leaky":
        return np.where(u > 0, u, Real(numbers[0]) * u)
    if kind == "clip":
        return np.clip(u, *numbers)
    if kind == "hard_swish":
        return u * np.clip(u + 3, 0, 6) / 6
    if kind == "silu":
        return u / (1 + np.exp(-u))
    return u


def slope(u: Array, activation: tuple[Any, ...]) -> Array:
    """The derivative of activate()."""
    kind, *numbers = activation
    if kind == "relu":
        return np.where(u > 0, Real(1), 0)
    if kind == "leaky":
        return np.where(u > 0, 1, Real(numbers[0]))
    if kind == "clip":
        return np.where((u > numbers[0]) & (u < numbers[1]), Real(1), 0)
    if kind == "hard_swish":
        return np.where(u <= -3, 0, np.where(u >= 3, 1, (2 * u + 3) / 6))
    if kind == "silu":
        sigmoid = 1 / (1 + np.exp(-u))
        return sigmoid * (1 + u * (1 - sigmoid))
    return np.ones_like(u)


def distance_to_kinks(u: Array, activation: tuple[Any, ...]) -> Array:
    """The distance of u from the places where slope() jumps, or nearly so."""
    kind, *numbers = activation
    kinks = {"relu": [0], "leaky": [0], "clip": numbers, "hard_swish": [-3, 3]}.get(kind, [])
    return np.min([np.full_like(u, np.inf), *(abs(u - kink) for kink in kinks)], axis=0)


@dataclass
class Statistics:
    """Statistics of one group: W, mean and biased variance per channel, and those that x is normalized with.

    The mean and the variance in use are a constant plus `of_mean`, or `of_var`, times those of the group; y is of
    x_hat * r + d.
    """

    w: Any
    mean: Array
    var: Array
    mean_used: Array
    var_used: Array
    of_mean: Any
    of_var: Any
    r: Any
    d: Any
    outcome: str = "used"


def moments(x: Array, w: Array) -> tuple[Any, Array, Array]:
    """W, mean and variance of (samples, channels, positions) with weights; what has none is not looked at."""
    total = w.sum()
    wide, seen = w[:, None, :], np.where(w[:, None, :] > 0, x, 0)
    if total == 0:
        return total, np.zeros(x.shape[1], Real), np.zeros(x.shape[1], Real)
    mean = (wide * seen).sum(axis=(0, 2)) / total
    return total, mean, (wide * (seen - mean[:, None]) ** 2).sum(axis=(0, 2)) / total


def weight_of_new(call: Call, n: int) -> Any:
    """The weight of the n-th batch in the running statistics."""
    m, n = Real(call.momentum), Real(n)
    weights = {"exponential": m, "cumulative": 1 / n, "windowed": max(1 / n, m), "filled": Real(1) if n == 1 else m}
    return m / (1 - (1 - m) ** n) if call.average == "debiased" else weights[call.average]


def statistics(call: Call, samples: Array, group: int) -> Statistics:
    """The statistics of one group, which takes its own row of running statistics, or the only one."""
    row = group if call.of_sample is not None and call.per_group & RUNNING else 0
    running_mean, running_var = call.running_mean[row], call.running_var[row]
    w, mean, var = moments(call.x[samples], call.w[samples])
    ones = int((call.w[samples] > 0).sum())
    given: dict[str, Any] = {"w": w, "mean": mean, "var": var, "of_mean": 1, "of_var": 1, "r": 1, "d": 0}
    if call.frozen:
        return Statistics(**{**given, "of_mean": 0, "of_var": 0}, mean_used=running_mean, var_used=running_var)
    if ones == 0:
        given["outcome"] = "empty"
        if call.source[0] != "renorm":
            return Statistics(**given, mean_used=mean, var_used=var)
    if ones == 1 and call.single_value == "running":
        constants = {**given, "of_mean": 0, "of_var": 0, "outcome": "running"}
        return Statistics(**constants, mean_used=running_mean, var_used=running_var)
    if ones == 1 and call.single_value == "beta":
        return Statistics(**given, mean_used=mean, var_used=var, outcome="beta")
    if call.nonfinite == "skip" and not (np.isfinite(mean) & np.isfinite(var)).all():
        given["outcome"] = "nonfinite"
    kind, *numbers = call.source
    if kind == "blend":
        p = Real(numbers[0])
        given.update(outcome="blended" if ones == 1 else given.get("outcome", "used"))
        given.update(of_mean=w / (p + w), of_var=w / (p + w))
        blended = ((p * old + w * new) / (p + w) for old, new in ((running_mean, mean), (running_var, var)))
        return Statistics(**given, **dict(zip(("mean_used", "var_used"), blended)))
    if kind == "renorm":
        r_max, d_max, r_min = numbers
        std, running_std = np.sqrt(var + Real(call.eps)), np.sqrt(running_var + Real(call.eps))
        given.update(
            r=np.clip(std / running_std, r_min, r_max), d=np.clip((mean - running_mean) / running_std, -d_max, d_max)
        )
    if kind == "updated":
        m = weight_of_new(call, int(call.num_batches[row]) + 1)
        factor = w / (w - 1) if call.unbiased else Real(1)
        given.update(of_mean=m, of_var=m * factor)
        used = (1 - m) * running_mean + m * mean, (1 - m) * running_var + m * factor * var
        return Statistics(**given, mean_used=used[0], var_used=used[1])
    return Statistics(**given, mean_used=mean, var_used=var)


@dataclass
class Result:
    y: Array
    u: Array
    x_hat: Array  # times r, plus d
    of_groups: list[Statistics]


def forward(call: Call, constants: Sequence[tuple[Any, Any]] = ()) -> Result:
    """With these r and d, if any, of each group."""
    u, x_hat = np.zeros_like(call.x), np.zeros_like(call.x)
    of_groups = [statistics(call, samples, group) for group, samples in enumerate(call.groups)]
    for found, (r, d) in zip(of_groups, constants):
        found.r, found.d = r, d
    for samples, found in zip(call.groups, of_groups):
        invstd = inverse(found.var_used, call.eps)
        for i in samples:
            gamma, beta = (each[call.row(i, PARAMETERS)][:, None] for each in (call.gamma, call.beta))
            r, d = (np.broadcast_to(each, invstd.shape)[:, None] for each in (found.r, found.d))
            x_hat[i] = (call.x[i] - found.mean_used[:, None]) * invstd[:, None] * r + d
            u[i] = gamma * x_hat[i] + beta + (0 if call.residual is None else call.residual[i])
    y, out = activate(u, call.activation), call.w[:, None, :] == 0
    if call.masked != "normalize":
        y = np.where(out, call.x if call.masked == "keep" else 0, y)
    return Result(y, u, x_hat, of_groups)


def found(call: Call) -> tuple[Array, Array, Array]:
    """y, mean and invstd of a plain call."""
    result = forward(call)
    [each] = result.of_groups
    return result.y[0], each.mean_used, inverse(each.var_used, call.eps)


def inverse(var: Array, eps: float) -> Array:
    std = np.sqrt(var + Real(eps))
    return np.where(std > 0, 1 / np.where(std > 0, std, 1), 0)


def backward(call: Call, dy: Array) -> tuple[Array, Array, Array, Array]:
    """dx, dgamma, dbeta and dz, by the chain rule: through x itself, through the mean, and through the variance."""
    result = forward(call)
    rows = call.count if call.per_group & PARAMETERS and call.of_sample is not None else 1
    dz = dy.astype(Real) * slope(result.u, call.activation)
    depends = np.ones_like(call.w, bool) if call.masked == "normalize" else call.w > 0
    dz = np.where(depends[:, None, :], dz, 0)
    dx, dgamma, dbeta = np.zeros_like(call.x), *np.zeros((2, rows, call.x.shape[1]), Real)
    for samples, found in zip(call.groups, result.of_groups):
        invstd = inverse(found.var_used, call.eps)
        by_x_hat = np.zeros_like(call.x)
        for i in samples:
            row = call.row(i, PARAMETERS)
            hats = np.where(depends[i], result.x_hat[i], 0)
            dgamma[row] += (dz[i] * hats).sum(axis=1)
            dbeta[row] += dz[i].sum(axis=1)
            by_x_hat[i] = dz[i] * call.gamma[row][:, None] * np.broadcast_to(found.r, invstd.shape)[:, None]
        away = np.where(depends[:, None, :], call.x - found.mean_used[:, None], 0)
        by_mean = -(by_x_hat * invstd[:, None]).sum(axis=(0, 2))
        by_var = -((by_x_hat * away).sum(axis=(0, 2)) * invstd**3) / 2
        for i in samples:
            w = call.w[i]
            share = w / found.w if found.w > 0 else np.zeros_like(w)
            deviation = np.where(w > 0, call.x[i] - found.mean[:, None], 0)
            dx[i] = by_x_hat[i] * invstd[:, None]
            dx[i] += share * found.of_mean * by_mean[:, None]
            dx[i] += share * 2 * found.of_var * by_var[:, None] * deviation
    if call.masked != "normalize":
        dx = np.where(depends[:, None, :], dx, dy if call.masked == "keep" else 0)
    return dx, dgamma, dbeta, dz


def by_differences(call: Call, dy: Array, name: str, step: float = 1e-6) -> Array:
    """The gradient of sum(dy * y) by an array of the call, from central differences: good to some step**2.

    Where x is kept, y - x is looked at: what is kept has a gradient that is dy by definition. r and d, constants to the
    gradient, stay as they are.
    """
    variable = getattr(call, name)
    gradient = np.zeros(variable.shape, Real)
    constants = [(found.r, found.d) for found in forward(call).of_groups]
    for index in np.ndindex(variable.shape):
        values = []
        for sign in (1, -1):
            moved = variable.copy()
            moved[index] += sign * Real(step)
            values.append((dy * forward(replace(call, **{name: moved}), constants).y).sum())
        gradient[index] = (values[0] - values[1]) / (2 * Real(step))
    return gradient


def updated(call: Call) -> tuple[Array, Array, Array]:
    """running_mean, running_var and num_batches after the call."""
    mean, var, counts = call.running_mean.copy(), call.running_var.copy(), call.num_batches.copy()
    found = [statistics(call, samples, group) for group, samples in enumerate(call.groups)]
    batches = []
    for group, each in enumerate(found):
        if each.outcome == "used":
            row = group if call.of_sample is not None and call.per_group & RUNNING else 0
            batches.append((row, each.mean, each.var * (each.w / (each.w - 1) if call.unbiased else 1)))
    if call.averaged and batches:
        batches = [(0, *(sum(each) / Real(len(batches)) for each in list(zip(*batches))[1:]))]
    for row, batch_mean, batch_var in batches:
        counts[row] += 1
        m = weight_of_new(call, int(counts[row]))
        mean[row] = (1 - m) * mean[row] + m * batch_mean
        var[row] = (1 - m) * var[row] + m * batch_var
    return mean, var, counts
