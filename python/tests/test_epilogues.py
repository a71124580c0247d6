# SPDX-License-Identifier: Apache-2.0
"""Activation and residual: names and formulas, gradients from a mask and from y, in place, and what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import oracle
import pytest
from calls import DTYPES, LAYOUTS, Given, check_gradients, check_training, check_y, draw, gradient

import batchnorm as bn

Array = np.ndarray[Any, Any]


def inferred(x: Array, activation: Any, **told: Any) -> Array:
    """With statistics that leave x as it is, if eps is 0."""
    y: Array = bn.forward_inference(x, running_mean=np.zeros(1), running_var=np.ones(1), activation=activation, **told)
    return y


def test_activations_by_their_formulas() -> None:
    """Values that are exact."""
    x = np.array([[-4.0, -3, -2, -0.5, 0, 0.5, 3, 7]]).T
    expected = {
        "identity": x,
        "relu": [[0, 0, 0, 0, 0, 0.5, 3, 7]],
        "relu6": [[0, 0, 0, 0, 0, 0.5, 3, 6]],
        "hard_swish": [[0, 0, -1 / 3, -0.5 * 2.5 / 6, 0, 0.5 * 3.5 / 6, 3, 7]],
        bn.LeakyReLU(0.25): [[-1, -0.75, -0.5, -0.125, 0, 0.5, 3, 7]],
        bn.LeakyReLU(): np.where(x > 0, x, 0.01 * x).T,
        bn.Clip(-0.25, 3): [[-0.25, -0.25, -0.25, -0.25, 0, 0.5, 3, 3]],
    }
    for activation, values in expected.items():
        assert np.allclose(inferred(x, activation, eps=0), np.reshape(values, x.shape), rtol=1e-15, atol=0), activation
    assert np.allclose(inferred(x, "silu", eps=0), x / (1 + np.exp(-x)), rtol=1e-14, atol=0)


def test_nan_goes_through() -> None:
    x = np.array([[np.nan, 1, 2]]).T
    for activation in ("relu", "relu6", "hard_swish", "silu", bn.LeakyReLU()):
        y = inferred(x, activation)
        assert np.isnan(y[0, 0])
        assert np.isfinite(y[1:]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", [("relu",), ("clip", -0.75, 0.5)], ids=str)
def test_mask(rng: np.random.Generator, activation: Any, layout: str) -> None:
    """Bits of what oracle.slope() says, in the order of memory, by which the gradients are found without a residual."""
    call = draw(rng, (3, 3, 7), "f4", activation=activation, residual=True)
    given, saved = check_training(rng, call, "f4", layout, save_mask=True)
    assert saved._extras.residual is None
    u = oracle.forward(call).u
    passes, sure = oracle.slope(u, activation) == 1, oracle.distance_to_kinks(u, activation) > 1e-3 * (1 + abs(u))
    in_memory = np.argsort([-abs(stride) for stride in given.tensor(u).strides], kind="stable")
    expected, sure = (given.tensor(each).transpose(in_memory).ravel() == 1 for each in (passes, sure))
    found = np.unpackbits(saved.bits, bitorder="little")
    assert saved.bits.dtype == np.uint8
    assert len(saved.bits) == (call.x.size + 7) // 8
    assert not found[call.x.size :].any()
    assert np.array_equal(found[: call.x.size][sure], expected[sure])


def test_a_mask_serves_tensors_of_another_memory_order(rng: np.random.Generator) -> None:
    x, dy, z = rng.normal(size=(3, 4, 5, 7, 3))
    _, saved = bn.forward_training(np.asfortranarray(x), residual=z, activation="relu", save_mask=True)
    expected = bn.backward(np.asfortranarray(dy), np.asfortranarray(x), saved)
    for layout in (np.ascontiguousarray, lambda a: a[::-1].copy()[::-1], np.asfortranarray):
        for given, exact in zip(bn.backward(layout(dy), layout(x), saved), expected):
            assert np.array_equal(given, exact)
    with pytest.raises(ValueError, match="out has strides .* memory order of the forward call's tensors"):
        bn.backward(dy, x, saved, out=np.empty_like(x))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_from_output(rng: np.random.Generator, layout: str) -> None:
    for frozen in (False, True):
        call = draw(rng, (4, 17, 7), "f4", activation=("leaky", 0.1), frozen=frozen)
        # Far from 0, by which x_hat is divided, and of both signs; beta small, as digits are lost otherwise.
        call.gamma = np.sign(call.gamma) * np.round(1 + abs(call.gamma))
        call.beta = np.round(call.beta)
        given = Given(call, "f4", layout)
        (x, gamma, beta, mean, var), told = given.arguments()
        y = np.asarray(x).copy(order="K") if layout != "backwards" else x.copy()
        if frozen:
            told = {name: value for name, value in told.items() if name not in ("momentum", "unbiased")}
            bn.forward_inference(y, gamma, beta, running_mean=mean, running_var=var, **told, out=y)
            saved = bn.frozen_statistics(mean, var, call.eps, beta=beta, activation=told["activation"])
        else:
            _, saved = bn.forward_training(y, gamma, beta, running_mean=mean, running_var=var, **told, out=y)
        dy = gradient(rng, given)
        results = bn.backward(given.tensor(dy), y, saved, gamma=gamma, axis=given.axis, from_output=True)
        # x_hat is off by the rounding of y over gamma.
        check_gradients(given, dy, results, times=512)


def test_outputs_in_place(rng: np.random.Generator) -> None:
    for layout in ("NCHW", "NHWC", "Fortran", "every second sample"):
        call = draw(rng, (4, 17, 7), "f4", activation=("relu",), residual=True)
        given = Given(call, "f4", layout)
        (x, gamma, beta, _, _), told = given.arguments()
        expected, saved = bn.forward_training(x, gamma, beta, **told)
        y = given.tensor(call.x)
        out, _ = bn.forward_training(y, gamma, beta, **told, out=y)
        assert out is y
        assert np.array_equal(y, expected)
        dy = gradient(rng, given)
        gradients = bn.backward(given.tensor(dy), x, saved, gamma=gamma, axis=given.axis)
        for name in ("out", "residual_out"):
            target = given.tensor(dy)
            others = {"out": None, "residual_out": None, name: target}
            results = bn.backward(target, x, saved, gamma=gamma, axis=given.axis, **others)
            assert results[0 if name == "out" else 3] is target
            for one, other in zip(results, gradients):
                assert np.array_equal(one, other)


def test_bits_of_bfloat16(rng: np.random.Generator) -> None:
    """V2, as NumPy reads bfloat16 from a file without ml_dtypes, is taken for what it is."""
    x, dy, z = rng.normal(size=(3, 4, 5, 7)).astype(DTYPES["bf16"])
    y, saved = bn.forward_training(x, residual=z, activation="relu", save_mask=True)
    bits, of_bits = bn.forward_training(x.view("V2"), residual=z.view("V2"), activation="relu", save_mask=True)
    assert bits.tobytes() == y.tobytes()
    results = bn.backward(dy.view("V2"), x.view("V2"), of_bits)
    for given, expected in zip(results, bn.backward(dy, x, saved)):
        assert given.tobytes() == expected.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_normalize_in_steps(rng: np.random.Generator, layout: str) -> None:
    call = draw(rng, (4, 17, 7), "f4", activation=("relu",), residual=True)
    given = Given(call, "f4", layout)
    (x, gamma, beta, _, _), told = given.arguments()
    count, mean, m2 = bn.moments(x, given.axis)
    told = {name: told[name] for name in ("axis", "activation", "residual")}
    y = bn.normalize(x, mean, bn.inverse_std(count, m2, call.eps), gamma, beta, **told)
    check_y(given, y)
    out = np.empty_like(y)
    assert bn.normalize(x, mean, bn.inverse_std(count, m2, call.eps), gamma, beta, **told, out=out) is out
    assert np.array_equal(out, y)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda saved: pickle.loads(pickle.dumps(saved))])
def test_saved_statistics_are_copied_with_all_that_they_know(rng: np.random.Generator, duplicate: Any) -> None:
    x, dy, z = rng.normal(size=(3, 4, 3, 5))
    for more in ({}, {"save_mask": True}, {"weights": np.ones((4, 5))}):
        _, saved = bn.forward_training(x, residual=z, activation="relu", running=bn.Running(), **more)
        again = duplicate(saved)
        assert again.outcome == bn.Outcome.USED
        for given, expected in zip(bn.backward(dy, x, again), bn.backward(dy, x, saved)):
            assert np.array_equal(given, expected)
        saved.mean[...] = 7
        assert not (again.mean == 7).any()


def test_empty_tensors() -> None:
    for shape in ((0, 3, 5), (4, 3, 0)):
        x = np.zeros(shape)
        y, saved = bn.forward_training(x, residual=x, activation="relu", save_mask=True)
        assert y.shape == shape
        dx, dgamma, dbeta, dz = bn.backward(x, x, saved)
        assert dx.shape == dz.shape == shape
        assert dgamma.tolist() == dbeta.tolist() == [0, 0, 0]
        assert saved.bits.shape == (0,)


@pytest.mark.parametrize(
    ("told", "error", "message"),
    [
        (
            {"activation": "gelu"},
            ValueError,
            "activation is 'gelu', expected 'identity', 'relu', 'relu6', 'hard_swish'",
        ),
        ({"activation": 1}, TypeError, "activation is 1, expected"),
        ({"activation": bn.LeakyReLU}, TypeError, "activation is <class"),
        ({"residual": np.zeros((4, 3, 5, 2), "f8")}, TypeError, "residual has dtype float64, expected float32"),
        (
            {"residual": np.zeros((4, 3, 5), "f4")},
            ValueError,
            r"residual has shape \(4, 3, 5\), expected \(4, 3, 5, 2\)",
        ),
        ({"residual": np.ma.zeros((4, 3, 5, 2), "f4")}, TypeError, "residual is a masked array"),
        ({"residual": 1.0}, ValueError, "residual is a single number"),
        ({"activation": "silu", "save_mask": True}, ValueError, "save_mask is True, but the gradient of 'silu'"),
        ({"activation": "hard_swish", "save_mask": True}, ValueError, "save_mask is True"),
    ],
)
def test_what_is_refused(rng: np.random.Generator, told: Any, error: type[Exception], message: str) -> None:
    x = rng.normal(size=(4, 3, 5, 2)).astype("f4")
    mean, var, out = np.zeros(3, "f4"), np.ones(3, "f4"), np.full_like(x, 7)
    with pytest.raises(error, match=message):
        bn.forward_training(x, None, None, running_mean=mean, running_var=var, out=out, **told)
    if "save_mask" not in told:
        with pytest.raises(error, match=message):
            bn.forward_inference(x, None, None, running_mean=mean, running_var=var, out=out, **told)
        with pytest.raises(error, match=message):
            bn.normalize(x, np.zeros(3), np.ones(3), out=out, **told)
    assert (out == 7).all()
    assert (mean == 0).all()
    assert (var == 1).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bn.LeakyReLU(-0.1), ValueError, "slope is -0.1, expected a finite number of at least 0"),
        (lambda: bn.LeakyReLU(np.inf), ValueError, "slope is inf"),
        (lambda: bn.LeakyReLU(np.nan), ValueError, "slope is nan"),
        (lambda: bn.LeakyReLU("0.1"), TypeError, "slope is of type str, expected a number"),
        (lambda: bn.Clip(1, 1), ValueError, "low is 1.0 and high is 1.0, expected low below high"),
        (lambda: bn.Clip(0, np.nan), ValueError, "low is 0.0 and high is nan"),
        (lambda: bn.Clip([0], 1), TypeError, "low has shape"),
    ],
)
def test_activations_are_checked_at_once(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_overlapping_tensors_are_refused(rng: np.random.Generator) -> None:
    x, z, dy = rng.normal(size=(3, 4, 3, 8))
    kept = z.copy()
    for out in (z, z[:, :, ::-1]):
        with pytest.raises(ValueError, match="overlap|out has strides"):
            bn.forward_training(x, residual=z, activation="relu", out=out)
    with pytest.raises(ValueError, match="out overlaps residual, which cannot go to the library together"):
        bn.forward_training(x, residual=z[::-1], activation="relu", out=z)
    assert np.array_equal(z, kept)
    _, saved = bn.forward_training(x, residual=z, activation="relu")
    same = np.empty_like(x)
    for taken in ({"out": same, "residual_out": same}, {"residual_out": z}, {"residual_out": x}, {"out": z}):
        with pytest.raises(ValueError, match="overlap"):
            bn.backward(dy, x, saved, **taken)
    assert np.array_equal(z, kept)


def test_what_backward_refuses(rng: np.random.Generator) -> None:
    x, dy, z = rng.normal(size=(3, 4, 3, 8))
    _, plain = bn.forward_training(x)
    with pytest.raises(ValueError, match="residual_out is of type ndarray, but the forward call had no residual"):
        bn.backward(dy, x, plain, residual_out=np.empty_like(x))
    _, with_residual = bn.forward_training(x, residual=z, activation=bn.LeakyReLU(0.1))
    with pytest.raises(ValueError, match="from_output is True, but the forward call added a residual"):
        bn.backward(dy, x, with_residual, from_output=True)
    for activation in ("relu", "silu", bn.LeakyReLU(0), bn.Clip(0, 1)):
        _, saved = bn.forward_training(x, activation=activation)
        with pytest.raises(ValueError, match="from_output is True, but the forward call's activation has no inverse"):
            bn.backward(dy, x, saved, from_output=True)
    y, saved = bn.forward_training(x, np.array([1.0, 0, 2]), activation="identity")
    with pytest.raises(ValueError, match="gamma"):
        bn.backward(dy, y, saved, gamma=np.array([1.0, 0, 2]), from_output=True)
    with pytest.raises(ValueError, match=r"x has shape \(3, 3, 8\), expected \(4, 3, 8\), that of the forward call"):
        bn.backward(dy[:3], x[:3], saved)
    with pytest.raises(ValueError, match="axis is 2, expected 1, the axis of the forward call"):
        bn.backward(dy, x, saved, axis=2)
    with pytest.raises(TypeError, match="saved is of type tuple"):
        bn.backward(dy, x, (0, 1), residual_out=x)  # type: ignore[arg-type]
