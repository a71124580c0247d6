# SPDX-License-Identifier: Apache-2.0
"""jvp() and double_backward() beside formulas in long double, and beside finite differences."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest

import batchnorm as bn

ml_dtypes = pytest.importorskip("ml_dtypes")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SEED = 20261121
Array = np.ndarray[Any, Any]
DTYPES = [np.float32, np.float64, np.float16, BFLOAT16]
SHAPES = [
    ((5, 3), 1),
    ((4, 3, 7), 1),
    ((3, 5, 4, 6), 1),
    ((3, 4, 6, 5), -1),
    ((2, 3, 2, 3, 4), 2),
    ((64, 130), 1),
    ((2, 3, 40, 50), 1),
    ((9, 21, 7, 7), 1),
    ((1, 4, 9), 1),
    ((6, 2, 3, 5), (1, 2)),
]


class Formula:
    """The formulas in long double, of tensors with a row per channel."""

    def __init__(self, x: Array, gamma: Array, mean: Array, invstd: Array, frozen: bool) -> None:
        self.gamma, self.s = (long(a)[:, None] for a in (gamma, invstd))
        self.x_hat = (long(x) - long(mean)[:, None]) * self.s
        self.frozen = frozen

    def p(self, v: Array) -> Array:
        """The directions of x_hat that belong to directions v of x."""
        if self.frozen:
            return self.s * v
        return self.s * (v - v.mean(1, keepdims=True) - self.x_hat * (v * self.x_hat).mean(1, keepdims=True))

    def jvp(self, v: Array, gamma: Array, beta: Array) -> Array:
        return self.gamma * self.p(v) + gamma[:, None] * self.x_hat + beta[:, None]

    def double_backward(self, g: Array, u: Array, a: Array, b: Array) -> tuple[Array, Array, Array]:
        m, x_hat, s, gamma, a = g.shape[1], self.x_hat, self.s, self.gamma, a[:, None]
        grad_dy = gamma * self.p(u) + a * x_hat + b[:, None]
        grad_gamma = (u * self.p(g)).sum(1)
        if self.frozen:
            return grad_dy, a * s * g, grad_gamma
        # By the chain rule, and not in the closed form that is implemented: of the loss
        #   Σ u · gamma · s · (g - mean(g) - q · mean(g · q)) + Σ a · g · q
        # by q = x_hat and by s, each of which depends on x.
        q = x_hat
        by_q = -gamma * s * (u * mean(g * q) + g * mean(u * q)) + a * g
        by_s = (u * gamma * (g - mean(g) - q * mean(g * q))).sum(1, keepdims=True)
        # q = (x - mean) · s and s = (var + eps)^(-1/2): dq/dx is P, ds/dx_i = -s² · q_i / m.
        return grad_dy, self.p(by_q) - by_s * s**2 * q / m, grad_gamma


def mean(t: Array) -> Array:
    return np.asarray(t.mean(1, keepdims=True))


def long(a: Array) -> Array:
    return a.astype(np.float64).astype(np.longdouble)


def by_channel(t: Array, axis: Any) -> Array:
    """One row per channel."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    return np.moveaxis(np.asarray(t), axes, range(len(axes))).reshape(np.prod([t.shape[a] for a in axes]), -1)


def draw(shape: Any, axis: Any, dtype: Any, seed: int, offset: float = 0.0) -> dict[str, Array]:
    rng = np.random.default_rng([SEED, seed])
    axes = axis if isinstance(axis, tuple) else (axis,)
    channels = tuple(shape[a] for a in axes)
    param = np.float32 if np.dtype(dtype).itemsize == 2 else dtype
    tensors = {name: rng.normal(size=shape) for name in ("x", "dy", "grad_dx")}
    tensors["x"] += offset
    tensors["dy"] += offset / 10
    vectors = {name: rng.normal(size=channels) for name in ("gamma", "grad_dgamma", "grad_dbeta")}
    return {name: a.astype(dtype) for name, a in tensors.items()} | {n: a.astype(param) for n, a in vectors.items()}


def statistics(data: dict[str, Array], axis: Any, frozen: bool) -> bn.SavedStatistics:
    if not frozen:
        return bn.forward_training(data["x"], data["gamma"], axis=axis)[1]
    rng = np.random.default_rng(SEED)
    shape = data["gamma"].shape
    return bn.frozen_statistics(rng.normal(size=shape), rng.uniform(0.5, 2, shape))


def expected(data: dict[str, Array], saved: bn.SavedStatistics, axis: Any) -> tuple[Array, Array, Array, Array]:
    formula = Formula(
        by_channel(data["x"], axis), data["gamma"].ravel(), saved.mean.ravel(), saved.invstd.ravel(), saved.frozen
    )
    g, u = (long(by_channel(data[name], axis)) for name in ("dy", "grad_dx"))
    a, b = (long(data[name].ravel()) for name in ("grad_dgamma", "grad_dbeta"))
    return formula.jvp(u, a, b), *formula.double_backward(g, u, a, b)


def compute(data: dict[str, Array], saved: bn.SavedStatistics, axis: Any) -> tuple[Array, ...]:
    given = {"gamma": data["gamma"], "axis": axis}
    tangents = {"x_tangent": "grad_dx", "gamma_tangent": "grad_dgamma", "beta_tangent": "grad_dbeta"}
    tangent = bn.jvp(data["x"], saved, **given, **{name: data[source] for name, source in tangents.items()})
    grads = {name: data[name] for name in ("grad_dx", "grad_dgamma", "grad_dbeta")}
    return tangent, *bn.double_backward(data["dy"], data["x"], saved, **given, **grads)


def eps_of(dtype: Any) -> float:
    return {2: 2.0**-11, 4: 2.0**-24, 8: 2.0**-53}[np.dtype(dtype).itemsize] * (8 if dtype == BFLOAT16 else 1)


def close(results: tuple[Array, ...], wanted: tuple[Array, ...], axis: Any, dtype: Any, terms: float = 40) -> None:
    """Within so many roundings of terms that are as large as the result's largest, and one of the result."""
    for name, ours, true in zip(("y_tangent", "grad_dy", "grad_x", "grad_gamma"), results, wanted):
        narrow = np.dtype(ours.dtype).itemsize == 2
        ours = by_channel(ours, axis) if ours.ndim > (len(axis) if isinstance(axis, tuple) else 1) else ours.ravel()
        unit = eps_of(np.float32 if narrow else dtype if np.dtype(dtype).itemsize > 2 else np.float32)
        size = abs(true).max(-1, keepdims=true.ndim > 1) + abs(true).max() * 1e-3
        bound = terms * unit * size + (1.01 * eps_of(dtype) * abs(true) if narrow else 0) + 1e-30
        bound = bound + (6e-8 if dtype == np.float16 else 0)
        error = abs(long(ours) - true)
        assert (error <= bound).all(), f"{name}: {float((error / bound).max()):.3g} times the bound"


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_formulas(shape: Any, axis: Any, dtype: Any, frozen: bool) -> None:
    data = draw(shape, axis, dtype, 1)
    saved = statistics(data, axis, frozen)
    close(compute(data, saved, axis), expected(data, saved, axis), axis, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), [((6, 3, 40), 1), ((200, 5), 1)])
def test_large_means_cost_nothing(shape: Any, axis: Any, dtype: Any) -> None:
    # x far from 0 beside its spread, and dy as well: what is not centred loses these digits.
    data = draw(shape, axis, dtype, 2, offset=1e4)
    saved = statistics(data, axis, False)
    # saved.mean is one double, of which a rounding is so many units of float64 beside the spread.
    terms = 1e4 if dtype == np.float64 else 40
    close(compute(data, saved, axis), expected(data, saved, axis), axis, dtype, terms)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_means_of_both_gradients_cost_nothing(dtype: Any) -> None:
    # grad_gamma is a sum of products of which each loses as many digits as the means have.
    rng = np.random.default_rng([SEED, 14])
    for rows in (8, 4001):
        x, dy, grad_dx = (rng.normal(size=(rows, 2)).astype(dtype) for _ in range(3))
        dy, grad_dx = dy + dtype(1e6), grad_dx + dtype(1e6)
        saved = bn.forward_training(x)[1]
        ones = np.ones(2, dtype)
        _, grad_x, grad_gamma = bn.double_backward(dy, x, saved, grad_dx=grad_dx)
        formula = Formula(x.T, ones, saved.mean, saved.invstd, False)
        g, u = (long(t.T) - mean(long(t.T)) for t in (dy, grad_dx))
        _, true_x, true_gamma = formula.double_backward(g, u, np.zeros(2), np.zeros(2))
        size = abs(u * g).sum(1) * saved.invstd
        # What is left is what the saved mean's rounding does to sums with x_hat: it is 0 to a unit of float64.
        assert (abs(grad_gamma - true_gamma) <= 4 * np.finfo(dtype).eps * size + 1e-9 * size).all()
        assert (abs(grad_x.T - true_x) <= 1e-6 * abs(true_x).max()).all()


def penalties(dy: Array, x: Array, gamma: Array, saved_of: Any, weights: dict[str, Array], axis: Any) -> float:
    """A loss by what backward() gives."""
    dx, dgamma, dbeta = bn.backward(dy, x, saved_of(x, gamma), gamma=gamma, axis=axis)
    return float(
        (weights["grad_dx"] * dx).sum()
        + (weights["grad_dgamma"] * dgamma).sum()
        + (weights["grad_dbeta"] * dbeta).sum()
    )


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((4, 3), 1), ((3, 2, 5), 1), ((3, 4, 2), 2), ((2, 2, 3, 2), (1, 2))])
def test_finite_differences(shape: Any, axis: Any, frozen: bool) -> None:
    data = draw(shape, axis, np.float64, 3)
    saved = statistics(data, axis, frozen)
    saved_of = (lambda x, _: saved) if frozen else (lambda x, gamma: bn.forward_training(x, gamma, axis=axis)[1])
    tangent, grad_dy, grad_x, grad_gamma = compute(data, saved, axis)
    point = {name: data[name] for name in ("dy", "x", "gamma")}
    for name, grad in (("dy", grad_dy), ("x", grad_x), ("gamma", grad_gamma)):
        for index in np.ndindex(*grad.shape):
            sides = []
            for step in (1e-6, -1e-6):
                moved = point[name].copy()
                moved[index] += step
                sides.append(penalties(**{**point, name: moved}, saved_of=saved_of, weights=data, axis=axis))
            slope = (sides[0] - sides[1]) / 2e-6
            assert grad[index] == pytest.approx(slope, rel=1e-5, abs=2e-7 * max(1, abs(grad).max())), (name, index)
    sides = []
    for step in (1e-6, -1e-6):
        x, gamma = data["x"] + step * data["grad_dx"], data["gamma"] + step * data["grad_dgamma"]
        beta = step * data["grad_dbeta"]
        mean, invstd = saved_of(x, gamma).mean, saved_of(x, gamma).invstd
        sides.append(bn.normalize(x, mean, invstd, gamma, beta, axis=axis))
    np.testing.assert_allclose(tangent, (sides[0] - sides[1]) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("left_out", list(itertools.product([False, True], repeat=4)))
def test_none_stands_for_zero(left_out: tuple[bool, ...], frozen: bool) -> None:
    data = draw((4, 3, 10), 1, np.float32, 4)
    names = ("grad_dx", "grad_dgamma", "grad_dbeta", "gamma")
    missing = [name for name, out in zip(names, left_out) if out]
    zeros = {name: np.zeros_like(data[name]) if name != "gamma" else np.ones_like(data[name]) for name in missing}
    saved = statistics({**data, "gamma": zeros.get("gamma", data["gamma"])}, 1, frozen)
    wanted = expected({**data, **zeros}, saved, 1)
    close(compute({**data, **dict.fromkeys(missing)}, saved, 1), wanted, 1, np.float32)


def test_what_has_no_part_in_it_is_not_looked_at() -> None:
    x = np.array([[1.0, np.inf], [2.0, np.nan]])
    saved = bn.frozen_statistics(np.zeros(2), np.ones(2), 0.0)
    ones = np.ones((2, 2))
    assert (bn.jvp(x, saved, x_tangent=ones) == 1).all()
    grad_dy, grad_x, grad_gamma = bn.double_backward(x, ones, saved, grad_dx=ones)
    assert (grad_x == 0).all()
    assert (grad_dy == 1).all()
    assert grad_gamma[0] == 3
    assert np.isnan(grad_gamma[1])


def test_a_channel_without_variance_and_eps() -> None:
    x = np.full((4, 1), 3.0)
    data = draw((4, 1), 1, np.float64, 5)
    _, saved = bn.forward_training(x, data["gamma"], eps=0.0)
    results = compute({**data, "x": x}, saved, 1)
    assert (results[0] == data["grad_dbeta"]).all()
    assert (results[1] == data["grad_dbeta"]).all()
    assert (results[2] == 0).all()
    assert results[3] == 0


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0)])
def test_empty(shape: Any) -> None:
    data = draw(shape, 1, np.float32, 6)
    saved = bn.forward_training(data["x"], data["gamma"])[1]
    tangent, grad_dy, grad_x, grad_gamma = compute(data, saved, 1)
    assert tangent.shape == grad_dy.shape == grad_x.shape == shape
    assert (grad_gamma == 0).all()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(dtype: Any, frozen: bool) -> None:
    data = draw((40, 24, 33, 7), 1, dtype, 7)
    saved = statistics(data, 1, frozen)
    threads = bn.get_num_threads()
    try:
        bn.set_num_threads(1)
        wanted = compute(data, saved, 1)
        for count in (2, 3, 5):
            bn.set_num_threads(count)
            for ours, one in zip(compute(data, saved, 1), wanted):
                assert ours.tobytes() == one.tobytes()
    finally:
        bn.set_num_threads(threads)


@pytest.mark.parametrize("strided", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("shape", [(90, 3), (30, 3, 7), (6, 3, 50)])
def test_strides(shape: Any, strided: tuple[bool, ...]) -> None:
    data = draw(shape, 1, np.float32, 11)
    saved = statistics(data, 1, False)
    wanted = expected(data, saved, 1)
    for name, is_strided in zip(("x", "dy", "grad_dx"), strided):
        if is_strided:
            larger = np.full((2 * shape[0], *shape[1:]), np.float32(np.nan))
            larger[::2] = data[name]
            data[name] = larger[::2]
    close(compute(data, saved, 1), wanted, 1, np.float32)
    data["dy"] = np.asfortranarray(data["dy"])
    close(compute(data, saved, 1), wanted, 1, np.float32)


def test_in_place() -> None:
    data = draw((4, 3, 10), 1, np.float32, 8)
    saved = statistics(data, 1, False)
    wanted = bn.jvp(data["x"], saved, x_tangent=data["grad_dx"])
    tangent = data["grad_dx"].copy()
    assert bn.jvp(data["x"], saved, x_tangent=tangent, out=tangent) is tangent
    assert tangent.tobytes() == wanted.tobytes()
    with pytest.raises(ValueError, match="y_tangent .* x"):
        bn.jvp(data["x"], saved, x_tangent=wanted, out=data["x"])


def test_nothing_of_the_tensors_size_is_allocated_but_the_results() -> None:
    data = draw((40, 24, 33, 7), 1, np.float32, 15)
    saved = statistics(data, 1, False)
    compute(data, saved, 1)
    grads = {name: data[name] for name in ("grad_dx", "grad_dgamma", "grad_dbeta")}
    for call, results in (
        (lambda: bn.jvp(data["x"], saved, x_tangent=data["grad_dx"]), 1),
        (lambda: bn.double_backward(data["dy"], data["x"], saved, **grads), 2),
    ):
        tracemalloc.start()
        call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < (results + 0.1) * data["x"].nbytes


def test_coefficients_beyond_float32() -> None:
    # invstd² and what it is multiplied with leave float32's range, and the results do not.
    data = draw((5, 2, 30), 1, np.float32, 10)
    data["x"] = (data["x"] * np.float32(1e-25)).astype(np.float32)
    data["gamma"] = (data["gamma"] * np.float32(1e-20)).astype(np.float32)
    data["grad_dx"] = (data["grad_dx"] * np.float32(1e-25)).astype(np.float32)
    _, saved = bn.forward_training(data["x"], data["gamma"], eps=0.0)
    wanted = expected(data, saved, 1)
    tangents = {"x_tangent": data["grad_dx"], "beta_tangent": data["grad_dbeta"]}
    formula = Formula(by_channel(data["x"], 1), data["gamma"], saved.mean, saved.invstd, False)
    u = long(by_channel(data["grad_dx"], 1))
    true = formula.jvp(u, np.zeros(2), long(data["grad_dbeta"]))
    tangent = bn.jvp(data["x"], saved, gamma=data["gamma"], **tangents)
    np.testing.assert_allclose(by_channel(tangent, 1).astype(float), true.astype(float), rtol=1e-5)
    close(compute(data, saved, 1)[1:2], wanted[1:2], 1, np.float32)


def test_slopes_beyond_float32() -> None:
    # gamma_tangent · invstd overflows, and what it is multiplied with makes up for it.
    data = draw((5, 2, 30), 1, np.float32, 12)
    data["x"] = (data["x"] * np.float32(1e-39)).astype(np.float32)
    _, saved = bn.forward_training(data["x"], eps=0.0)
    tangent = bn.jvp(data["x"], saved, gamma_tangent=data["grad_dgamma"], x_tangent=np.zeros_like(data["x"]))
    x_hat = bn.normalize(data["x"], saved.mean, saved.invstd)
    np.testing.assert_allclose(tangent, x_hat * data["grad_dgamma"][:, None], rtol=1e-6)


def test_means_at_the_end_of_float32() -> None:
    # x less its mean would overflow.
    data = draw((6, 2, 30), 1, np.float32, 13)
    data["x"] = np.where(data["x"] > 0, np.float32(3.3e38), np.float32(-3.3e38))
    data["x"][:3] = np.float32(3.3e38)
    data["grad_dx"] = (data["grad_dx"] * np.float32(1e38)).astype(np.float32)
    saved = statistics(data, 1, False)
    wanted = expected(data, saved, 1)
    close(compute(data, saved, 1)[:2], wanted[:2], 1, np.float32)
