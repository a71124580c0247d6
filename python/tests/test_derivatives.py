# SPDX-License-Identifier: Apache-2.0
"""jvp() and double_backward(): beside finite differences, of any dtype, axes and strides, and with what is None."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest

import batchnorm as bn

ml_dtypes = pytest.importorskip("ml_dtypes")
SEED = 20261121
Array = np.ndarray[Any, Any]


def draw(shape: Any, axis: Any, dtype: Any, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng([SEED, seed])
    axes = axis if isinstance(axis, tuple) else (axis,)
    channels = tuple(shape[a] for a in axes)
    param = np.float32 if np.dtype(dtype).itemsize == 2 else dtype
    tensors = {name: rng.normal(size=shape) for name in ("x", "dy", "grad_dx")}
    vectors = {name: rng.normal(size=channels) for name in ("gamma", "grad_dgamma", "grad_dbeta")}
    return {name: a.astype(dtype) for name, a in tensors.items()} | {n: a.astype(param) for n, a in vectors.items()}


def statistics(data: dict[str, Array], axis: Any, frozen: bool) -> bn.SavedStatistics:
    if not frozen:
        return bn.forward_training(data["x"], data["gamma"], axis=axis)[1]
    rng = np.random.default_rng(SEED)
    shape = data["gamma"].shape
    return bn.frozen_statistics(rng.normal(size=shape), rng.uniform(0.5, 2, shape))


def compute(data: dict[str, Array], saved: bn.SavedStatistics, axis: Any) -> tuple[Array, ...]:
    given = {"gamma": data["gamma"], "axis": axis}
    tangents = {"x_tangent": "grad_dx", "gamma_tangent": "grad_dgamma", "beta_tangent": "grad_dbeta"}
    tangent = bn.jvp(data["x"], saved, **given, **{name: data[source] for name, source in tangents.items()})
    grads = {name: data[name] for name in ("grad_dx", "grad_dgamma", "grad_dbeta")}
    return tangent, *bn.double_backward(data["dy"], data["x"], saved, **given, **grads)


def close(results: tuple[Array, ...], wanted: tuple[Array, ...], unit: float = 2.0**-24) -> None:
    """Within some roundings of terms that are as large as the largest value: C tests have sharp bounds."""
    for name, ours, true in zip(("y_tangent", "grad_dy", "grad_x", "grad_gamma"), results, wanted):
        np.testing.assert_allclose(ours.astype(float), true.astype(float), 0, 64 * unit * abs(true).max(), err_msg=name)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((64, 130), 1), ((3, 4, 6, 5), -1), ((6, 2, 3, 5), (1, 2))])
def test_dtypes(shape: Any, axis: Any, frozen: bool) -> None:
    """All give what float64 gives, of which finite differences know what it should be."""
    for dtype, unit in ((np.float32, 2.0**-24), (np.float16, 2.0**-11), (ml_dtypes.bfloat16, 2.0**-8)):
        data = draw(shape, axis, dtype, 1)
        saved = statistics(data, axis, frozen)
        results = compute(data, saved, axis)
        assert [a.dtype for a in results] == [dtype] * 3 + [data["gamma"].dtype]
        wide = {name: a.astype(np.float64) for name, a in data.items()}
        close(results, compute(wide, statistics(wide, axis, frozen), axis), unit)


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
    close(compute({**data, **dict.fromkeys(missing)}, saved, 1), compute({**data, **zeros}, saved, 1))


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


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0)])
def test_empty(shape: Any) -> None:
    data = draw(shape, 1, np.float32, 6)
    saved = bn.forward_training(data["x"], data["gamma"])[1]
    tangent, grad_dy, grad_x, grad_gamma = compute(data, saved, 1)
    assert tangent.shape == grad_dy.shape == grad_x.shape == shape
    assert (grad_gamma == 0).all()


@pytest.mark.parametrize("strided", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("shape", [(90, 3), (30, 3, 7), (6, 3, 50)])
def test_strides(shape: Any, strided: tuple[bool, ...]) -> None:
    data = draw(shape, 1, np.float32, 11)
    saved = statistics(data, 1, False)
    wanted = compute(data, saved, 1)
    for name, is_strided in zip(("x", "dy", "grad_dx"), strided):
        if is_strided:
            larger = np.full((2 * shape[0], *shape[1:]), np.float32(np.nan))
            larger[::2] = data[name]
            data[name] = larger[::2]
    close(compute(data, saved, 1), wanted)
    data["dy"] = np.asfortranarray(data["dy"])
    close(compute(data, saved, 1), wanted)


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


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x_tangent": np.zeros((4, 3, 9), np.float32)}, ValueError, r"x_tangent has shape \(4, 3, 9\), expected"),
        ({"x_tangent": np.zeros((4, 3, 10))}, TypeError, "x_tangent has dtype float64, expected float32"),
        ({"gamma_tangent": np.zeros(4, np.float32)}, ValueError, r"gamma_tangent has shape \(4,\), expected \(3,\)"),
        ({"beta_tangent": np.zeros(3, complex)}, TypeError, "beta_tangent has dtype complex128, expected real numbers"),
        ({"saved": None}, TypeError, "saved is of type NoneType"),
        ({"out": np.zeros((4, 3, 9), np.float32)}, ValueError, "out has shape"),
        ({"axis": 5}, ValueError, "axis"),
    ],
)
def test_refused_by_jvp(change: dict[str, Any], error: type[Exception], message: str) -> None:
    x = np.zeros((4, 3, 10), np.float32)
    given = {"x": x, "saved": bn.forward_training(x)[1], "x_tangent": x, **change}
    with pytest.raises(error, match=message):
        bn.jvp(**given)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grad_dx": np.zeros((4, 3, 9), np.float32)}, ValueError, r"grad_dx has shape \(4, 3, 9\), expected"),
        ({"dy": np.zeros((4, 3, 10))}, TypeError, "dy has dtype float64, expected float32"),
        ({"grad_dgamma": np.zeros(4, np.float32)}, ValueError, r"grad_dgamma has shape \(4,\), expected \(3,\)"),
        ({"grad_dbeta": np.zeros(3, complex)}, TypeError, "grad_dbeta has dtype complex128, expected real numbers"),
        (
            {"gamma": np.full(3, 2, np.float32)},
            ValueError,
            "gamma is 2 in channel 0, expected 1, as the forward call had no",
        ),
        ({"axis": 2}, ValueError, "axis is 2, expected 1, the axis of the forward call"),
        ({"saved": bn.frozen_statistics(np.zeros(4), np.ones(4))}, ValueError, "saved is of 4 channels, but x has 3"),
    ],
)
def test_refused_by_double_backward(change: dict[str, Any], error: type[Exception], message: str) -> None:
    x = np.zeros((4, 3, 10), np.float32)
    given = {"dy": x, "x": x, "saved": bn.forward_training(x)[1], **change}
    with pytest.raises(error, match=message):
        bn.double_backward(**given)


@pytest.mark.parametrize(
    "told",
    [
        {"activation": "relu"},
        {"residual": np.zeros((4, 3, 10))},
        {"weights": np.ones((4, 10))},
        {"source": bn.Blend(1.0), "running_mean": np.zeros(3), "running_var": np.ones(3)},
    ],
)
def test_calls_that_were_told_more_are_refused(rng: np.random.Generator, told: dict[str, Any]) -> None:
    x = rng.normal(size=(4, 3, 10))
    _, saved = bn.forward_training(x, **told)
    assert not saved.is_plain
    with pytest.raises(ValueError, match="an activation, residual, weights or source, expected a call without"):
        bn.jvp(x, saved, x_tangent=x)
    with pytest.raises(ValueError, match="an activation, residual, weights or source, expected a call without"):
        bn.double_backward(x, x, saved, grad_dx=x)


def test_a_call_with_a_policy_is_plain(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 10))
    statistics = {"running_mean": np.zeros(3), "running_var": np.ones(3)}
    _, saved = bn.forward_training(x, **statistics, running=bn.Running(nonfinite="skip"))
    assert saved.is_plain
    wanted = bn.jvp(x, bn.forward_training(x)[1], x_tangent=x**2)
    assert bn.jvp(x, saved, x_tangent=x**2).tobytes() == wanted.tobytes()
