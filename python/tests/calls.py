# SPDX-License-Identifier: Apache-2.0
"""Calls of the package beside calls of the oracle: the same values in any layout and dtype, and how near they must be.

The oracle's tensors are (samples, channels, positions). Here they become arrays of four axes, or two; what comes back
is compared element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import oracle
from oracle import PARAMETERS, RUNNING, STATISTICS, Call, Real

import batchnorm as bn

Array = np.ndarray[Any, Any]

DTYPES = {"f8": np.float64, "f4": np.float32, "f2": np.float16, "bf16": ml_dtypes.bfloat16}
ACTIVATIONS = [
    ("identity",),
    ("relu",),
    ("leaky", 0.1),
    ("leaky", 0.0),
    ("clip", 0.0, 6.0),
    ("clip", -0.75, 0.5),
    ("hard_swish",),
    ("silu",),
]
PLANES = {1: (1, 1), 7: (7, 1), 49: (7, 7), 100: (10, 10)}


def _last(x: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def _every_second(x: Array) -> Array:
    larger = np.full((2 * len(x), *x.shape[1:]), np.nan, x.dtype)
    larger[::2] = x
    return larger[::2]


# Each layout turns (samples, channels, rows, columns) into an array, and has a channel axis.
LAYOUTS: dict[str, tuple[Callable[[Array], Array], int]] = {
    "NCHW": (np.ascontiguousarray, 1),
    "NHWC": (_last, -1),
    "NHWC, seen as NCHW": (lambda x: np.moveaxis(_last(x), -1, 1), 1),
    "Fortran": (np.asfortranarray, 1),
    "every second sample": (_every_second, 1),
    "backwards": (lambda x: x[::-1].copy()[::-1], 1),
}


class Given:
    """Arrays for the package, of a call of the oracle."""

    def __init__(self, call: Call, dtype: str, layout: str = "NCHW") -> None:
        self.call, self.dtype = call, np.dtype(DTYPES[dtype])
        self.param = self.dtype if self.dtype.itemsize > 2 else np.dtype(np.float32)
        self.layout, self.axis = LAYOUTS[layout]
        self.shape = call.x.shape

    def tensor(self, values: Array) -> Array:
        """In the layout; of two axes where there is but one position."""
        n, c, i = self.shape
        return self.layout(values.astype(self.dtype).reshape(n, c, *(PLANES[i] if i > 1 else ())))

    def back(self, array: Array) -> Array:
        return np.moveaxis(np.asarray(array), self.axis, 1).reshape(self.shape).astype(Real)

    def weights(self) -> Any:
        """The weights, without an axis for channels; any dtype that holds them will do."""
        n, _, i = self.shape
        w = self.call.weights
        return None if w is None else np.asarray(w, float).reshape(n, *(PLANES[i] if i > 1 else ()))

    def rows(self, values: Array, what: int) -> Array:
        """A row per group, or the only one by itself."""
        has_rows = self.call.of_sample is not None and self.call.per_group & what
        return (values if has_rows else values[0]).astype(self.param)

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of forward_training(), but for groups and running policies."""
        call = self.call
        given = [self.tensor(call.x), self.rows(call.gamma, PARAMETERS), self.rows(call.beta, PARAMETERS)]
        given += [self.rows(each, RUNNING) for each in (call.running_mean, call.running_var)]
        told = {"axis": self.axis, "eps": call.eps, "momentum": call.momentum, "unbiased": call.unbiased}
        told.update(self.epilogue())
        if call.source != ("batch",):
            told["source"] = source_of(call.source)
        return given, told

    def epilogue(self) -> dict[str, Any]:
        """Activation, residual and weights."""
        call, told = self.call, {}
        if call.activation != ("identity",):
            told["activation"] = activation_of(call.activation)
        if call.residual is not None:
            told["residual"] = self.tensor(call.residual)
        if call.weights is not None:
            told.update(weights=self.weights(), masked=call.masked)
        return told


def activation_of(activation: tuple[Any, ...]) -> Any:
    kind, *numbers = activation
    return {"leaky": bn.LeakyReLU, "clip": bn.Clip}.get(kind, lambda: kind)(*numbers)


def source_of(source: tuple[Any, ...]) -> Any:
    kind, *numbers = source
    return {"blend": bn.Blend, "renorm": bn.Renorm, "updated": bn.Updated}[kind](*numbers)


def draw(
    rng: np.random.Generator, shape: tuple[int, int, int], dtype: str = "f8", groups: Any = None, **told: Any
) -> Call:
    """A call with values that the dtype holds; `groups` as the package has them. True stands for values to be drawn."""
    n, c, i = shape
    if groups is not None:
        told.update(groups_of(groups, n))
    rows = told.get("count", 1)
    per_group = told.get("per_group", 0) if groups is not None else 0
    param = DTYPES["f8" if dtype == "f8" else "f4"]

    def held(values: Array, kind: Any = param) -> Array:
        return values.astype(kind).astype(Real)

    call = Call(
        x=held(3 * rng.normal(size=shape) + rng.normal(size=(1, c, 1)), DTYPES[dtype]),
        gamma=held(rng.normal(size=(rows if per_group & PARAMETERS else 1, c))),
        beta=held(rng.normal(size=(rows if per_group & PARAMETERS else 1, c))),
        running_mean=held(rng.normal(size=(rows if per_group & RUNNING else 1, c))),
        running_var=held(rng.uniform(2, 9, (rows if per_group & RUNNING else 1, c))),
    )
    if told.get("residual") is True:
        told["residual"] = held(rng.normal(size=shape), DTYPES[dtype])
    if told.get("weights") is True:
        told["weights"] = rng.choice([0.0, 0, 0.5, 1, 2, 3.25], (n, i))
        if n * i > 1:  # two values, and a sum above 1: what there is a variance of
            told["weights"][0, 0], told["weights"][-1, -1] = 1, 2
    if "num_batches" not in told:
        told["num_batches"] = np.zeros(rows if per_group & RUNNING else 1, int)
    return replace(call, **told)


def groups_of(groups: Any, samples: int) -> dict[str, Any]:
    """The oracle's arguments for groups."""
    order = np.arange(samples)
    if isinstance(groups, bn.Ghost):
        count = samples // groups.size
        of_sample = order % count if groups.interleaved else order // groups.size
        return {"of_sample": of_sample, "count": count, "per_group": STATISTICS, "averaged": groups.averaged}
    if isinstance(groups, bn.Split):
        per_group = STATISTICS | RUNNING | (0 if groups.shared_parameters else PARAMETERS)
        return {"of_sample": order // (samples // groups.groups), "count": groups.groups, "per_group": per_group}
    per_group = STATISTICS | RUNNING | PARAMETERS if isinstance(groups, bn.Segments) else PARAMETERS
    return {"of_sample": np.asarray(groups.index), "count": groups.groups, "per_group": per_group}


def near(given: Any, exact: Any, scale: Any, dtype: Any, times: float = 64) -> None:
    """One rounding to the dtype, and so many of what is computed with, relative to the terms of a sum."""
    dtype = np.dtype(dtype)
    rounding = float(ml_dtypes.finfo(dtype).eps) / 2
    unit = 2.0**-53 if dtype == np.float64 else 2.0**-24
    # Numbers below the normal ones of the dtype have an absolute rounding.
    least = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    given, exact = np.asarray(given).astype(Real), np.asarray(exact, Real)
    assert given.shape == exact.shape
    wrong = ~((abs(given - exact) <= 1.01 * rounding * abs(exact) + times * unit * scale + least) | (given == exact))
    wrong &= ~(np.isnan(given) & np.isnan(exact))
    assert not wrong.any(), (given[wrong][:5], exact[wrong][:5], np.argwhere(wrong)[:5], int(wrong.sum()))


def gradient(rng: np.random.Generator, given: Given, margin: float = 1e-3) -> Array:
    """A dy that is 0 where an activation's slope jumps: on which side a value is would be a matter of rounding."""
    margin = max(margin, float(ml_dtypes.finfo(given.dtype).eps))
    u = oracle.forward(given.call).u
    dy = rng.normal(size=given.shape).astype(given.dtype).astype(Real)
    return np.where(oracle.distance_to_kinks(u, given.call.activation) > margin * (1 + abs(u)), dy, 0)


def check_y(given: Given, y: Array) -> oracle.Result:
    result, call = oracle.forward(given.call), given.call
    finite = np.where(np.isfinite(result.u), abs(result.u), 0)
    scale = 1 + abs(call.gamma).max() * np.nan_to_num(abs(result.x_hat)).max() + abs(call.beta).max() + finite.max()
    near(given.back(y), result.y, scale * lost(given, result), given.dtype)
    return result


def lost(given: Given, result: oracle.Result) -> float:
    """Returns a factor for error bounds: in double, more than one rounding is lost where means exceed deviations."""
    ratios = [abs(each.mean) * oracle.inverse(each.var, given.call.eps) for each in result.of_groups]
    unit = 2.0**-53 if given.dtype == np.float64 else 2.0**-24
    return 1 + float(np.nan_to_num(np.max(ratios))) * 2.0**-53 / unit


def check_gradients(given: Given, dy: Array, results: Any, times: float = 64) -> None:
    """dx, dgamma, dbeta and, with a residual, dz."""
    call = given.call
    dx, dgamma, dbeta, dz = oracle.backward(call, dy)
    found = oracle.forward(call)
    hats = np.where(dz != 0, found.x_hat, 0)
    most = max(float(np.abs(oracle.inverse(each.var_used, call.eps)).max()) for each in found.of_groups)
    scale = abs(dy).max() * abs(call.gamma).max() * most * (1 + np.nan_to_num(abs(hats)).max()) ** 2 + 1
    times *= lost(given, found)
    assert len(results) == (4 if call.residual is not None else 3)
    near(given.back(results[0]), dx, scale, given.dtype, times)
    for array, exact, terms in ((results[1], dgamma, dz * hats), (results[2], dbeta, dz)):
        has_rows = call.of_sample is not None and call.per_group & PARAMETERS
        assert array.dtype == given.param
        near(array, exact if has_rows else exact[0], abs(terms).sum() + 1, given.param, times)
    if call.residual is not None:
        near(given.back(results[3]), dz, abs(dy).max(), given.dtype, times)


def check_saved(given: Given, saved: Any) -> None:
    found = oracle.forward(given.call).of_groups
    has_rows = given.call.of_sample is not None and given.call.per_group & STATISTICS
    mean = np.array([each.mean_used for each in found])
    invstd = np.array([oracle.inverse(each.var_used, given.call.eps) for each in found])
    # A variance loses what the mean is larger than the standard deviation.
    for name, exact, scale in (("mean", mean, 1 + abs(mean)), ("invstd", invstd, invstd * (1 + abs(mean) * invstd))):
        kept = slice(None) if has_rows else 0
        near(getattr(saved, name), exact[kept], scale[kept], np.float64, 256)


def check_running(given: Given, mean: Any, var: Any, counts: Any = None) -> None:
    expected = oracle.updated(given.call)
    has_rows = given.call.of_sample is not None and given.call.per_group & RUNNING
    for array, exact in zip((mean, var), expected):
        # A variance is good to some log2(M) bits less than a double.
        near(array, exact if has_rows else exact[0], 1 + np.nan_to_num(abs(exact)).max(), given.param, 256)
    if counts is not None:
        assert np.array_equal(np.ravel(counts), expected[2])


def check_training(
    rng: np.random.Generator, call: Call, dtype: str, layout: str = "NCHW", backward: Any = None, **more: Any
) -> tuple[Given, Any]:
    """Forward and backward of a training call against the oracle; `more` is passed on to forward_training()."""
    given = Given(call, dtype, layout)
    (x, gamma, beta, mean, var), told = given.arguments()
    y, saved = bn.forward_training(x, gamma, beta, running_mean=mean, running_var=var, **told, **more)
    check_y(given, y)
    if call.source == ("batch",):
        check_saved(given, saved)
    check_running(given, mean, var, more["running"].num_batches if "running" in more else None)
    dy = gradient(rng, given)
    check_gradients(
        given, dy, bn.backward(given.tensor(dy), x, saved, gamma=gamma, axis=given.axis, **(backward or {}))
    )
    return given, saved
