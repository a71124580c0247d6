# SPDX-License-Identifier: Apache-2.0
"""Elements of sixteen bits: float16, bfloat16 as a dtype of ml_dtypes, and bfloat16 as the bits in uint16.

The oracles are NumPy's and ml_dtypes's own conversions, which round to nearest, ties to even; and the formulas in
float64 on the values that the elements stand for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import digest, python

import batchnorm as bn

ml_dtypes = pytest.importorskip("ml_dtypes")

Array = np.ndarray[Any, Any]
FLOAT16 = np.dtype(np.float16)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HALVES = [FLOAT16, BFLOAT16]
# The distance between 1 and the next number of the dtype.
EPS = {FLOAT16: 2.0**-10, BFLOAT16: 2.0**-7}
LEAST = {FLOAT16: 2.0**-24, BFLOAT16: 2.0**-133}

SHAPES = [(8, 6, 16, 16), (3, 5, 7), (64, 33, 7, 7), (2, 4, 33), (4, 2, 130 * 131)]
SHAPES += [(1000, 3), (257, 100), (5000, 1), (40, 700)]


def everything(dtype: np.dtype[Any]) -> Array:
    """Every element that there is, NaN and infinity among them, but -0, which a shift of 0 makes 0."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    bits[0x8000] = 0
    return bits.view(dtype)


def same_bits(a: Array, b: Array) -> bool:
    """Returns True if the bits are the same, but for the sign and the payload of a NaN."""
    nan = np.isnan(a.astype("f4"))
    return np.array_equal(nan, np.isnan(b.astype("f4"))) and np.array_equal(a.view("u2")[~nan], b.view("u2")[~nan])


def inferred(x: Array, scale: float) -> Array:
    """x times a scale, computed in float32."""
    zeros, ones = np.zeros(1, "f4"), np.ones(1, "f4")
    return bn.forward_inference(
        x.reshape(-1, 1), np.float32([scale]), None, running_mean=zeros, running_var=ones, eps=0
    ).reshape(x.shape)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_element_goes_through_unchanged(dtype: np.dtype[Any]) -> None:
    x = everything(dtype)
    assert same_bits(inferred(x, 1), x)


@pytest.mark.parametrize("scale", [1 / 3, -0.7, 1 + 2**-9, 1 + 2**-12, 2**-8, 2**-16, 1.99, 3e4, 1e-5])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_stores_round_to_nearest_even(dtype: np.dtype[Any], scale: float) -> None:
    x = everything(dtype)
    with np.errstate(all="ignore"):
        product = x.astype("f4") * np.float32(scale) + np.float32(0)
        assert same_bits(inferred(x, scale), product.astype(dtype))


def print_every_product() -> None:
    for dtype in HALVES:
        print(digest([inferred(everything(dtype)[:length], 1.01) for length in (1 << 16, 7, 65521)]))


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_instructions_and_integers_agree(isa: str) -> None:
    code = "import test_halves; test_halves.print_every_product()"
    done, baseline = (python(code, BATCHNORM_ISA=name) for name in (isa, "baseline"))
    if "BATCHNORM_ISA" in done.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 2
    assert done.stdout == baseline.stdout


def values(dtype: np.dtype[Any], shape: tuple[int, ...], seed: int) -> Array:
    rng = np.random.default_rng(seed)
    channels = np.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    return (rng.normal(size=shape) * (0.5 + channels % 3) + channels % 7 * 4).astype(dtype)


def wide(array: Array) -> Array:
    return array.astype("f8")


def close(given: Array, expected: Array, scale: Any = 1.0) -> bool:
    """Rounded once to sixteen bits, after some roundings of float32 of numbers of about `scale`."""
    binade = 2.0 ** np.floor(np.log2(np.maximum(np.abs(expected), 1e-300)))
    unit = np.maximum(binade * EPS[given.dtype], LEAST[given.dtype])
    return bool(np.all(np.abs(wide(given) - expected) <= 0.5 * unit + 4 * 2.0**-23 * (scale + np.abs(expected))))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("params", ["float32", "same"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_layer(dtype: np.dtype[Any], params: str, shape: tuple[int, ...]) -> None:
    param = np.dtype("f4") if params == "float32" else dtype
    rng = np.random.default_rng(2)
    x, dy = values(dtype, shape, 0), rng.normal(0.01, 0.5, shape).astype(dtype)
    gamma, beta, mean, var = (rng.uniform(0.5, 2, shape[1]).astype(param) for _ in range(4))
    before = wide(mean), wide(var)
    axes = tuple(a for a in range(len(shape)) if a != 1)
    column = (-1, *[1] * (len(shape) - 2))
    y, saved = bn.forward_training(x, gamma, beta, running_mean=mean, running_var=var)
    batch_mean, batch_var = wide(x).mean(axes), wide(x).var(axes)
    invstd = 1 / np.sqrt(batch_var + 1e-5)
    assert np.allclose(saved.mean, batch_mean, rtol=1e-12, atol=1e-12)
    assert np.allclose(saved.invstd, invstd, rtol=1e-9, atol=0)
    x_hat = (wide(x) - batch_mean.reshape(column)) * invstd.reshape(column)
    expected = wide(gamma).reshape(column) * x_hat + wide(beta).reshape(column)
    assert y.dtype == dtype
    assert close(y, expected, np.abs(wide(gamma).reshape(column) * x_hat) + 2)
    # Running statistics: the formula in double, rounded once.
    count = x.size // shape[1]
    assert np.array_equal(mean, (0.9 * before[0] + 0.1 * saved.mean).astype(param))
    close_to = (0.9 * before[1] + 0.1 * batch_var * count / (count - 1)).astype(param)
    assert np.allclose(wide(var), wide(close_to), rtol=float(EPS.get(param, 2e-7)), atol=0)
    # Gradients.
    dx, dgamma, dbeta = bn.backward(dy, x, saved, gamma=gamma)
    sums = wide(dy).sum(axes), (wide(dy) * x_hat).sum(axes)
    assert dx.dtype == dtype
    assert dgamma.dtype == dbeta.dtype == param
    natural = np.abs(wide(dy)).sum(axes), np.abs(wide(dy) * x_hat).sum(axes)
    unit = EPS.get(param, 2.0**-23)
    assert np.all(np.abs(wide(dbeta) - sums[0]) <= unit * np.abs(sums[0]) + 1e-12 * natural[0])
    assert np.all(np.abs(wide(dgamma) - sums[1]) <= unit * np.abs(sums[1]) + 1e-9 * natural[1])
    projected = wide(dy) - sums[0].reshape(column) / count - x_hat * sums[1].reshape(column) / count
    slope = (wide(gamma) * invstd).reshape(column)
    assert close(dx, slope * projected, slope * (np.abs(wide(dy)).max() + np.abs(x_hat) * 2))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_constant_channels_give_beta(dtype: np.dtype[Any]) -> None:
    for value in (0.0, 0.1, -3.7, 1000.0, 65504.0 if dtype == FLOAT16 else 3e38, float(LEAST[dtype])):
        for shape in ((17, 3), (4, 3, 7, 7), (3, 3, 20000)):
            x = np.full(shape, value, dtype)
            beta = np.float32([0.1, -2, 1e-3])
            y, saved = bn.forward_training(x, None, beta, eps=0.0)
            column = (1, 3, *[1] * (len(shape) - 2))
            assert np.array_equal(y, np.broadcast_to(beta.astype(dtype).reshape(column), shape))
            assert np.all(saved.invstd == 0)
            _, dgamma, _ = bn.backward(np.full(shape, 0.3, dtype), x, bn.forward_training(x)[1])
            assert np.all(dgamma == 0)


def _functions(x: Array, dy: Array, gamma: Array) -> list[Array]:
    mean, var = np.zeros(3, "f4"), np.ones(3, "f4")
    y, saved = bn.forward_training(x, running_mean=mean, running_var=var)
    out = np.empty_like(x)
    assert bn.forward_training(x, gamma, out=out)[0] is out
    inferred = bn.forward_inference(x, running_mean=mean, running_var=var)
    gradients = bn.backward(dy, x, saved)
    known = saved.mean, saved.invstd
    sums = bn.backward_reduce(dy, x, *known)
    applied = bn.backward_apply(dy, x, *known, np.full(3, 120), *sums, gamma)
    again = bn.double_backward(dy, x, saved, grad_dx=x)
    normalized = bn.normalize(x, *known, gamma), bn.jvp(x, saved, x_tangent=dy)
    return [y, out, inferred, *gradients, mean, var, *sums, applied, *again, *normalized, *bn.moments(x)]


def test_bits_of_bfloat16() -> None:
    """V2, as NumPy reads bfloat16 from a file without ml_dtypes, is taken for what it is."""
    x, dy = values(BFLOAT16, (4, 3, 5, 6), 4), values(BFLOAT16, (4, 3, 5, 6), 5)
    gamma = np.float32([1, 2, 3]).astype(BFLOAT16)
    for given, expected in zip(_functions(*(each.view("V2") for each in (x, dy, gamma))), _functions(x, dy, gamma)):
        assert given.dtype == ("V2" if expected.dtype == BFLOAT16 else expected.dtype)
        assert given.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: bn.forward_training(x), "x has dtype uint16, expected float32, float64, float16 or bfloat16"),
        (
            lambda x: bn.forward_training(
                x.view("f2"), np.ones(3, "f4"), running_mean=np.zeros(3, "f2"), running_var=np.ones(3, "f2")
            ),
            "running_mean has dtype float16, expected float32, for x of dtype float16",
        ),
        (
            lambda x: bn.forward_training(x.view("f2"), running_mean=np.zeros(3), running_var=np.ones(3)),
            "running_mean has dtype float64, expected float32, for x of dtype float16",
        ),
        (lambda x: bn.BatchNorm(3, dtype=np.float16, param_dtype=np.float64), "param_dtype is float64, expected"),
        (lambda x: bn.BatchNorm(3, param_dtype=np.float16), "param_dtype is float16, expected float32"),
        (lambda x: bn.BatchNorm(3, dtype=np.int16), "dtype is int16, expected float32, float64, float16 or bfloat16"),
    ],
)
def test_refusals(call: Callable[[Array], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(np.zeros((4, 3), np.uint16))


def test_bfloat16_into_a_layer_of_another_dtype() -> None:
    """Unlike the dtypes of NumPy, it has no name that a message could advise."""
    with pytest.raises(TypeError, match="^x has dtype bfloat16, expected float32, the dtype of the layer$"):
        bn.BatchNorm(3)(np.zeros((4, 3), BFLOAT16))


def test_parameters_in_bits_that_no_package_has_made_a_dtype_of() -> None:
    values = np.float32([1.5, -2, 3.25])
    bits = values.astype(BFLOAT16).view("V2")
    layer = bn.BatchNorm(3)
    layer.gamma = bits
    assert layer.gamma.dtype == np.float32
    assert np.array_equal(layer.gamma, values)


@pytest.mark.parametrize("param", [None, "same"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_layer_classes(dtype: np.dtype[Any], param: str | None) -> None:
    layer = bn.BatchNorm2d(3, dtype=dtype, param_dtype=dtype if param else None)
    expected = dtype if param else np.dtype("f4")
    assert {layer.gamma.dtype, layer.beta.dtype, layer.running_mean.dtype, layer.running_var.dtype} == {expected}
    x, dy = values(dtype, (4, 3, 5, 6), 4), values(dtype, (4, 3, 5, 6), 5)
    y, dx = layer(x), layer.backward(dy)
    assert np.array_equal(y, bn.forward_training(x)[0])
    assert np.array_equal(dx, bn.backward(dy, x, bn.forward_training(x)[1])[0])
    assert layer.grad_gamma.dtype == expected
    other = bn.BatchNorm2d(3, dtype=dtype, param_dtype=dtype if param else None)
    other.load_state_dict(layer.state_dict())
    assert np.array_equal(layer.eval()(x), other.eval()(x))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_steps(dtype: np.dtype[Any]) -> None:
    x, dy = values(dtype, (40, 3, 5), 6), values(dtype, (40, 3, 5), 7)
    gamma = np.float32([1, 2, 3]).astype(dtype)
    mean, var = np.zeros(3, dtype), np.ones(3, dtype)
    y, saved = bn.forward_training(x, gamma, None, running_mean=mean, running_var=var)
    count, _, m2 = bn.merge_moments([bn.moments(x[:13]), bn.moments(x[13:])])
    invstd = bn.inverse_std(count, m2)
    assert np.allclose(invstd, saved.invstd, rtol=1e-14)
    assert np.array_equal(bn.normalize(x, saved.mean, saved.invstd, gamma), y)
    sums = bn.backward_reduce(dy, x, saved.mean, saved.invstd)
    dx, dgamma, dbeta = bn.backward(dy, x, saved, gamma=gamma)
    assert np.array_equal(sums.sum_dy_x_hat.astype(dtype), dgamma)
    assert np.array_equal(sums.sum_dy.astype(dtype), dbeta)
    applied = bn.backward_apply(dy, x, saved.mean, saved.invstd, count, *sums, gamma)
    assert np.array_equal(applied, dx)
    updated = np.zeros(3, dtype), np.ones(3, dtype)
    bn.update_running(*updated, count, saved.mean, saved.mean * 0 + m2)
    assert np.allclose(wide(updated[0]), wide(mean), rtol=EPS[dtype])
    assert np.allclose(wide(updated[1]), wide(var), rtol=EPS[dtype])
