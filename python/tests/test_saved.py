# SPDX-License-Identifier: Apache-2.0
"""backward() needs nothing that the forward call was given, whatever has become of it, and checks what it is given."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import both

import batchnorm as bn

Array = np.ndarray[Any, Any]
SHAPE = (6, 4, 4, 3)
PARAMETERS = ("gamma", "beta")


def drawn(rng: np.random.Generator, rows: int = 0) -> dict[str, Array]:
    shape = (rows, 4) if rows else (4,)
    return {"gamma": rng.uniform(0.5, 2, shape), "beta": rng.normal(size=shape)}


INDEX = np.array([0, 1, 1, 0, 1, 0])
CALLS: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "plain": drawn,
    "axis": lambda rng: {**drawn(rng), "axis": 2},
    "axis from the end": lambda rng: {**drawn(rng), "axis": -2},
    "relu": lambda rng: {**drawn(rng), "activation": "relu"},
    "relu, axis": lambda rng: {**drawn(rng), "activation": "relu", "axis": 2},
    "silu, residual": lambda rng: {**drawn(rng), "activation": "silu", "residual": rng.normal(size=SHAPE)},
    "weights": lambda rng: {**drawn(rng), "weights": rng.uniform(size=(6, 4, 3)), "masked": "zero"},
    "mask": lambda rng: {**drawn(rng), "weights": rng.uniform(size=(6, 4, 3)) > 0.3},
    "segments": lambda rng: {**drawn(rng, 2), "groups": bn.Segments(INDEX.copy(), 2)},
    "conditional": lambda rng: {**drawn(rng, 2), "groups": bn.Conditional(INDEX.copy(), 2), "activation": "relu"},
    "blend": lambda rng: {**drawn(rng), "source": bn.Blend(9), **both(rng.uniform(1, 2, (2, 4)))},
}


def spoiled(told: dict[str, Any]) -> None:
    """Everything that was given changed in place, but the residual."""
    for name, value in told.items():
        if isinstance(value, np.ndarray) and name != "residual":
            value[...] = 1 - value if value.dtype == bool else 3 - value
    if isinstance(told.get("groups"), (bn.Segments, bn.Conditional)):
        told["groups"].index[...] = 1 - told["groups"].index


def slope(told: dict[str, Any], x: Array, dy: Array, name: str, index: Any) -> float:
    """The loss sum(y * dy) along one element of x or of a parameter, by a central difference."""
    sides = []
    for step in (1e-6, -1e-6):
        moved = {"x": x.copy(), **copy.deepcopy(told)}
        moved[name][index] += step
        y, _ = bn.forward_training(**moved)
        sides.append(float((y.astype(np.longdouble) * dy).sum()))
    return (sides[0] - sides[1]) / 2e-6


@pytest.mark.parametrize("case", CALLS)
def test_backward_needs_dy_x_and_saved(rng: np.random.Generator, case: str) -> None:
    """Finite differences: with gamma or axis forgotten, another dbeta; with a beta that has changed, too."""
    told = CALLS[case](rng)
    x, dy = rng.normal(size=(2, *SHAPE))
    before = copy.deepcopy(told)
    _, saved = bn.forward_training(x, **told)
    spoiled(told)
    dx, dgamma, dbeta, *_ = bn.backward(dy, x, saved)
    for name, gradient in (("x", dx), ("gamma", dgamma), ("beta", dbeta)):
        indices = list(np.ndindex(gradient.shape))
        for number in rng.choice(len(indices), min(8, len(indices)), replace=False):
            expected = slope(before, x, dy, name, indices[number])
            assert gradient[indices[number]] == pytest.approx(expected, rel=1e-6, abs=1e-6), (name, indices[number])
    for name in PARAMETERS:
        assert np.array_equal(getattr(saved, name), before[name])
        with pytest.raises(ValueError, match="read-only|not writeable"):
            getattr(saved, name)[...] = 0
    assert saved.axis == before.get("axis", 1)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("case", [name for name in CALLS if name != "blend"])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda saved: pickle.loads(pickle.dumps(saved))])
def test_copies_know_the_same(rng: np.random.Generator, case: str, duplicate: Any, frozen: bool) -> None:
    told = CALLS[case](rng)
    x, dy = rng.normal(size=(2, *SHAPE))
    if frozen:
        rows = (2, 4) if case == "segments" else (4,)
        saved = bn.frozen_statistics(rng.normal(size=rows), rng.uniform(1, 2, rows), **told)
    else:
        _, saved = bn.forward_training(x, **told)
    expected = bn.backward(dy, x, saved)
    other = duplicate(saved)
    spoiled(told)
    for given, exact in zip(bn.backward(dy, x, other), expected):
        assert np.array_equal(given, exact)
    assert (other.axis, other.frozen, type(other)) == (saved.axis, saved.frozen, type(saved))
    assert all(np.array_equal(getattr(other, name), getattr(saved, name)) for name in PARAMETERS)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_what_is_given_again_is_checked(rng: np.random.Generator, activation: Any) -> None:
    x, dy = rng.normal(size=(2, 3, 4, 4))
    gamma = np.array([1.0, 2, 3, 4])
    _, saved = bn.forward_training(x, gamma, activation=activation)
    expected = bn.backward(dy, x, saved)
    for told in (
        {"gamma": gamma},
        {"gamma": gamma.tolist()},
        {"axis": 1},
        {"axis": -2},
        {"axis": (1,), "gamma": gamma},
    ):
        for given, exact in zip(bn.backward(dy, x, saved, **told), expected):
            assert np.array_equal(given, exact)
    out = np.full_like(x, 7)
    for told, message in (
        ({"gamma": [1.0, 2, 5, 4]}, "gamma is 5 in channel 2, expected 3, as in the forward call"),
        ({"gamma": [1.0, 2]}, r"gamma has shape \(2,\), expected \(4,\)"),
        ({"axis": 2}, "axis is 2, expected 1, the axis of the forward call"),
        ({"axis": 3}, "axis 3 is out of range for an array of rank 3"),
        (
            {"x": x[:2], "dy": dy[:2], "out": None},
            r"x has shape \(2, 4, 4\), expected \(3, 4, 4\), that of the forward",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            bn.backward(**{"dy": dy, "x": x, "saved": saved, "out": out, **told})
    with pytest.raises(TypeError, match="x has dtype float32, expected float64, that of the forward call"):
        bn.backward(dy.astype("f4"), x.astype("f4"), saved)
    gamma[0] = 9
    with pytest.raises(ValueError, match="gamma is 9 in channel 0, expected 1, as in the forward call"):
        bn.backward(dy, x, saved, gamma=gamma, out=out)
    assert (out == 7).all()
    _, saved = bn.forward_training(x, activation=activation)
    bn.backward(dy, x, saved, gamma=np.ones(4))
    with pytest.raises(ValueError, match="gamma is 9 in channel 0, expected 1, as the forward call had no gamma"):
        bn.backward(dy, x, saved, gamma=gamma)
    with pytest.raises(TypeError, match="positional"):
        bn.backward(dy, x, saved, gamma)  # type: ignore[misc]


def test_what_frozen_statistics_were_not_told_is_taken(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 3, 4, 4))
    gamma, mean, var = rng.uniform(1, 2, size=(3, 4))
    told = bn.frozen_statistics(mean, var, gamma=gamma, axis=2)
    untold = bn.frozen_statistics(mean, var)
    expected = bn.backward(dy, x, told)
    assert np.allclose(expected[0], dy * gamma / np.sqrt(var + 1e-5), rtol=1e-14)
    for given, exact in zip(bn.backward(dy, x, untold, gamma=gamma, axis=2), expected):
        assert np.array_equal(given, exact)
    with pytest.raises(ValueError, match="axis is 1, expected 2, the axis of the forward call"):
        bn.backward(dy, x, told, axis=1)
    with pytest.raises(ValueError, match="gamma is .* in channel 0, expected"):
        bn.backward(dy, x, told, gamma=gamma + 1)


@pytest.mark.parametrize("told", [{}, {"activation": "relu"}])
def test_frozen_statistics_of_other_channels(rng: np.random.Generator, told: dict[str, Any]) -> None:
    x = rng.normal(size=(4, 2, 5))
    for saved, axis in (
        (bn.frozen_statistics(np.zeros(3), np.ones(3), **told), None),
        (bn.frozen_statistics(np.zeros(2), np.ones(2), **told), 2),
    ):
        channels, own = len(saved.mean), 2 if axis is None else 5
        message = rf"saved has statistics of shape \({channels},\), expected \({own},\) beside this x"
        with pytest.raises(ValueError, match=message):
            bn.backward(x, x, saved, axis=axis)


def test_derivatives_know_gamma_and_axis(rng: np.random.Generator) -> None:
    x, dy, u = rng.normal(size=(3, 3, 4, 4))
    gamma = rng.uniform(1, 2, 4)
    _, saved = bn.forward_training(x, gamma, axis=2)
    sides = [bn.forward_training(x + step * u, gamma, axis=2)[0] for step in (1e-6, -1e-6)]
    assert np.allclose(bn.jvp(x, saved, x_tangent=u), (sides[0] - sides[1]) / 2e-6, rtol=1e-6, atol=1e-8)
    again = bn.double_backward(dy, x, saved, grad_dx=u, gamma=gamma, axis=-1)
    for given, exact in zip(bn.double_backward(dy, x, saved, grad_dx=u), again):
        assert np.array_equal(given, exact)
    for call in (bn.jvp, bn.double_backward):
        given = {"x": x, "saved": saved, **({"dy": dy} if call is bn.double_backward else {})}
        with pytest.raises(ValueError, match="axis is 1, expected 2, the axis of the forward call"):
            call(**given, axis=1)  # type: ignore[operator]
        with pytest.raises(ValueError, match="gamma is .* in channel 0, expected"):
            call(**given, gamma=gamma + 1)  # type: ignore[operator]


@pytest.mark.parametrize("told", [{}, {"activation": "relu"}, {"frozen": True}, {"frozen": True, "activation": "relu"}])
def test_a_layer_knows_its_parameters_as_they_were(rng: np.random.Generator, told: dict[str, Any]) -> None:
    x, dy = rng.normal(size=(2, 5, 3)).astype("f4")
    layer, other = (bn.BatchNorm1d(3, **told) for _ in range(2))
    for each in (layer, other):
        each.gamma[...], each.beta[...] = [1, 2, 3], [1, -1, 0.5]
        each(x)
    expected = layer.backward(dy)
    other.gamma *= 5
    other.beta -= 9
    assert np.array_equal(other.backward(dy), expected)
    assert np.array_equal(other.grad_gamma, layer.grad_gamma)
    assert np.array_equal(other.grad_beta, layer.grad_beta)
    other.beta = None
    assert np.array_equal(other.backward(dy), expected)
    assert np.array_equal(other.grad_beta, layer.grad_beta)


def test_micro_batches_know_gamma(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 6, 3))
    gamma = np.array([1.0, 2, 3])
    _, saved = bn.forward_training(x, gamma)
    expected, _, _ = bn.backward(dy, x, saved)
    batch = bn.MicroBatches()
    batch.add(x)
    batch.normalize(x[:2], gamma)
    batch.normalize(x[2:], gamma)
    with pytest.raises(ValueError, match=r"gamma is \[9 2 3\], expected \[1. 2. 3.\], as normalize\(\) was given it"):
        batch.normalize(x[2:], [9, 2, 3])
    batch.add_gradient(dy, x)
    assert np.allclose(batch.apply_gradient(dy, x, gamma), expected, rtol=1e-12)
    gamma[...] = 9
    assert np.allclose(batch.apply_gradient(dy, x), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="gamma is"):
        batch.apply_gradient(dy, x, gamma)
    alone = bn.MicroBatches()
    alone.add(x)
    alone.add_gradient(dy, x)
    assert np.allclose(alone.apply_gradient(dy, x, [1.0, 2, 3]), expected, rtol=1e-12)
    without, _, _ = bn.backward(dy, x, bn.forward_training(x)[1])
    assert np.allclose(alone.apply_gradient(dy, x), without, rtol=1e-12)


def test_from_output_after_a_call_without_activation(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 6, 3))
    y, saved = bn.forward_training(x, [1.0, -2, 3], [3.0, 2, 1])
    for given, exact in zip(bn.backward(dy, y, saved, from_output=True), bn.backward(dy, x, saved)):
        assert np.allclose(given, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("call", [bn.forward_training, bn.forward_inference])
def test_pytorchs_order_is_refused(call: Callable[..., Any]) -> None:
    """It wrote the running mean of its own into weight, and the variance into bias."""
    x = np.float32([[1, 2], [3, 5]])
    arrays = [np.float32(each) for each in ([0, 0], [1, 1], [1, 2], [0, 0])]
    before = [each.copy() for each in arrays]
    for count in (3, 4):
        with pytest.raises(TypeError, match=rf"by position, but {1 + count} .* given by name; .* bn.batch_norm\(\)"):
            call(x, *arrays[:count])
    assert np.array_equal(arrays, before)


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_in_pytorchs_order(rng: np.random.Generator, training: bool) -> None:
    x = rng.normal(size=(4, 3, 5)).astype("f4")
    weight, bias, mean, var = rng.uniform(1, 2, (4, 3)).astype("f4")
    running = both((mean.copy(), var.copy()))
    if training:
        expected, _ = bn.forward_training(x, weight, bias, **running, momentum=0.3, eps=1e-3)
    else:
        expected = bn.forward_inference(x, weight, bias, **running, eps=1e-3)
    assert np.array_equal(bn.batch_norm(x, mean, var, weight, bias, training, 0.3, 1e-3), expected)
    assert np.array_equal((mean, var), tuple(running.values()))
    if training:
        plain, _ = bn.forward_training(x)
        assert np.array_equal(bn.batch_norm(x, None, None, training=True), plain)
        with pytest.raises(TypeError, match="momentum is of type NoneType, expected a number"):
            bn.batch_norm(x, mean, var, training=True, momentum=None)  # type: ignore[arg-type]
    else:
        with pytest.raises(ValueError, match="running_mean is None, expected an array"):
            bn.batch_norm(x, None, None)
    with pytest.raises(TypeError, match="training is 0.1, expected True or False"):
        bn.batch_norm(x, mean, var, weight, bias, 0.1)  # type: ignore[arg-type]
