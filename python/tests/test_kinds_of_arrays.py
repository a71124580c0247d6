# SPDX-License-Identifier: Apache-2.0
"""Arguments that people pass: lists, integers, float64 beside float32, memory maps, layers of parallel workers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import both, python

import batchnorm as bn

X = np.random.default_rng(20261206).normal(size=(6, 3, 4)).astype("f4")
GAMMA, BETA = np.float32([1, 2, 0.5]), np.float32([0, -1, 3])
CAST: dict[str, Any] = {
    "float64": np.float64,
    "float16": np.float16,
    "the other byte order": np.dtype("f4").newbyteorder(),
    "longdouble": np.longdouble,
}


@pytest.mark.parametrize("kind", CAST)
def test_what_is_only_read_is_cast(kind: str) -> None:
    gamma, beta = GAMMA.astype(CAST[kind]), BETA.astype(CAST[kind])
    expected, saved = bn.forward_training(X, GAMMA, BETA)
    y, got = bn.forward_training(X, gamma, beta)
    assert np.array_equal(y, expected)
    for one, other in zip(bn.backward(X, X, got, gamma=gamma), bn.backward(X, X, saved)):
        assert one.dtype == other.dtype == np.float32
        assert np.array_equal(one, other)
    running = both((beta, gamma))
    y = bn.forward_inference(X, gamma, beta, **running)
    assert np.array_equal(y, bn.forward_inference(X, GAMMA, BETA, **both((BETA, GAMMA))))
    pure = bn.Running(pure=True)
    assert bn.forward_training(X, gamma, beta, **running, running=pure)[1].running_mean.dtype == np.float32
    mean, invstd = np.zeros(3), np.ones(3)
    assert np.array_equal(bn.normalize(X, mean, invstd, gamma), bn.normalize(X, mean, invstd, GAMMA))
    layer = bn.BatchNorm1d(3)
    layer.gamma, layer.beta, layer.running_mean = gamma, beta, beta
    assert layer.gamma.dtype == layer.beta.dtype == layer.running_mean.dtype == np.float32
    assert layer.state_dict()["weight"].dtype == np.float32
    assert np.array_equal(layer(X), expected)


@pytest.mark.parametrize("dtype", ["i8", "u1", "i2"])
def test_integers_are_numbers_too(dtype: str) -> None:
    gamma = np.array([1, 2, 3], dtype)
    expected, _ = bn.forward_training(X, gamma.astype("f4"))
    assert np.array_equal(bn.forward_training(X, gamma)[0], expected)
    assert np.array_equal(bn.forward_training(X, [1, 2, 3])[0], expected)
    pixels = np.arange(72).reshape(6, 3, 4).astype(dtype)
    for own in (np.float32, np.float64):
        layer, other = bn.BatchNorm1d(3, dtype=own), bn.BatchNorm1d(3, dtype=own)
        assert np.array_equal(layer(pixels), other(pixels.astype(own)))
        assert np.array_equal(layer.backward(pixels), other.backward(pixels.astype(own)))


def test_a_value_beyond_the_dtype_is_refused() -> None:
    for value in (1e300, -1e300):
        with pytest.raises(ValueError, match=r"gamma has a value -?1e\+300, which is beyond float32"):
            bn.forward_training(X, np.array([1, value, 1]))
    y, _ = bn.forward_training(X, np.array([1, np.inf, 1]))
    assert not np.isfinite(y[:, 1]).any()
    with pytest.raises(ValueError, match="x has a value 70000, which is beyond float16"):
        bn.BatchNorm1d(3, dtype="f2")(np.full((6, 3), 70000))


def test_a_list_is_taken_in_the_layers_dtype() -> None:
    for values in (X.tolist(), [[1, 2, 3], [3, 2, 1]]):
        for dtype in (np.float32, np.float64, np.float16):
            layer, other = bn.BatchNorm1d(3, dtype=dtype), bn.BatchNorm1d(3, dtype=dtype)
            expected = other(np.array(values, dtype))
            assert np.array_equal(layer(values), expected)
            assert np.array_equal(layer.backward(values), other.backward(np.array(values, dtype)))
            relu = bn.BatchNorm1d(3, dtype=dtype, activation="relu")
            assert np.array_equal(relu(values), np.maximum(expected, 0))
            lazy = bn.LazyBatchNorm1d(dtype=dtype)
            assert np.array_equal(lazy(values), expected)
            frozen = bn.BatchNorm1d(3, dtype=dtype, frozen=True)
            assert np.array_equal(frozen(values), other.eval()(values) * 0 + frozen(np.array(values, dtype)))


def test_a_list_is_float64_to_functions_and_x_decides_for_the_others() -> None:
    y, saved = bn.forward_training([[1, 2, 3], [3, 2, 1]], GAMMA)
    assert y.dtype == np.float64
    assert bn.forward_training([[1.0, 2], [2, 1]])[0].dtype == np.float64
    assert bn.moments([[1, 2], [3, 4]]).mean.tolist() == [2, 3]
    _, saved = bn.forward_training(X, GAMMA)
    got = bn.backward(X.tolist(), X, saved)
    for one, other in zip(got, bn.backward(X, X, saved)):
        assert np.array_equal(one, other)
    y, _ = bn.forward_training(X, residual=X.tolist())
    assert y.dtype == np.float32
    with pytest.raises(TypeError, match="x has dtype int64, expected float32"):
        bn.forward_training(np.zeros((2, 3), "i8"))


def test_float64_beside_a_float32_layer_says_both_ways_out() -> None:
    x = X.astype(float)
    layer = bn.BatchNorm1d(3)
    with pytest.raises(
        TypeError, match=r"float32, the dtype of the layer: x\.astype\(np\.float32\), or dtype=np\.float64"
    ):
        layer(x)
    assert bn.BatchNorm1d(3, dtype=np.float64)(x).dtype == np.float64
    assert layer(x.astype(np.float32)).dtype == np.float32
    with pytest.raises(TypeError, match=r"expected float32, the dtype of the layer: .*dtype=np\.float64"):
        bn.BatchNorm1d(3, activation="relu")(x)


def test_texts_and_booleans_are_no_numbers() -> None:
    for wrong in ([["a", "b", "c"]] * 2, [[None, 1, 2]] * 2, [[True, False, True]] * 2, np.ones((2, 3), bool)):
        with pytest.raises(TypeError, match="x has dtype"):
            bn.BatchNorm1d(3)(wrong)
        with pytest.raises(TypeError, match="gamma has dtype"):
            bn.forward_training(X, wrong[0])


def test_beside_16_bits() -> None:
    x = X.astype("f2")
    half, single = GAMMA.astype("f2"), GAMMA
    expected, _ = bn.forward_training(x, single, BETA)
    assert np.array_equal(bn.forward_training(x, half, BETA)[0], expected)  # float32 holds all of float16
    assert np.array_equal(bn.forward_training(x, single.astype(float), BETA)[0], expected)
    _, saved = bn.forward_training(x, half, [0, -1, 3])
    assert bn.backward(x, x, saved)[1].dtype == np.float16
    _, saved = bn.forward_training(x, half, BETA)
    assert bn.backward(x, x, saved)[1].dtype == np.float32


def test_no_dtype_is_float32() -> None:
    assert bn.BatchNorm1d(3, dtype=None).dtype == np.float32
    assert bn.LazyBatchNorm1d(dtype=None).dtype == np.float32
    assert bn.FrozenBatchNorm2d(3, dtype=None).gamma.dtype == np.float32


def test_bfloat16_by_name() -> None:
    pytest.importorskip("ml_dtypes")
    code = (
        "import sys, batchnorm as bn; assert 'ml_dtypes' not in sys.modules;"
        "layer = bn.BatchNorm(4, dtype='bfloat16'); print(layer.dtype, layer([[1, 2, 3, 4], [4, 3, 2, 1]]).dtype)"
    )
    assert python(code).stdout.split() == ["bfloat16", "bfloat16"]
    missing = "import sys; sys.modules['ml_dtypes'] = None; import batchnorm as bn; bn.BatchNorm(4, dtype='bfloat16')"
    assert "TypeError: dtype is of bfloat16, a dtype of the package ml_dtypes, which is not" in python(missing).stderr


def mapped(path: Path, array: Any, mode: Any = "w+") -> Any:
    result = np.memmap(path, array.dtype, "w+", shape=array.shape)
    result[...] = array
    return result if mode == "w+" else np.memmap(path, array.dtype, mode, shape=array.shape)


def test_memory_maps_are_outputs_and_running_statistics(tmp_path: Path) -> None:
    out, dx = mapped(tmp_path / "y", X * 0), mapped(tmp_path / "dx", X * 0)
    mean, var = mapped(tmp_path / "mean", BETA), mapped(tmp_path / "var", GAMMA)
    plain = both((BETA.copy(), GAMMA.copy()))
    expected, saved = bn.forward_training(X, GAMMA, **plain)
    y, got = bn.forward_training(X, GAMMA, **both((mean, var)), out=out)
    assert y is out
    assert np.array_equal(out, expected)
    assert np.array_equal(mean, plain["running_mean"])
    assert np.array_equal(var, plain["running_var"])
    assert bn.backward(X, X, got, out=dx)[0] is dx
    assert np.array_equal(dx, bn.backward(X, X, saved)[0])
    count = mapped(tmp_path / "count", np.zeros((), "i8"))
    bn.forward_training(X, **both((mean, var)), running=bn.Running("cumulative", num_batches=count))
    assert count == 1
    residual_out = mapped(tmp_path / "dz", X * 0)
    y, got = bn.forward_training(X, residual=X, activation="relu", out=out)
    assert y is out
    assert bn.backward(X, X, got, residual_out=residual_out)[3] is residual_out
    bn.update_running(mean, var, *bn.moments(X))
    # An output that takes copies: its memory order is not that of x.
    bn.forward_training(np.asfortranarray(X), out=out)
    assert np.array_equal(out, bn.forward_training(X)[0])


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_layer_of_memory_maps(tmp_path: Path, mode: str) -> None:
    layer, other = bn.BatchNorm1d(3), bn.BatchNorm1d(3)
    other(X)
    for name in ("gamma", "beta", "running_mean", "running_var"):
        setattr(layer, name, mapped(tmp_path / name, getattr(other, name), mode))
    assert np.array_equal(layer.eval()(X), other.eval()(X))
    assert np.array_equal(layer.backward(X), other.backward(X))
    if mode == "r":
        with pytest.raises(ValueError, match="running_mean is read-only, but it is updated in place"):
            layer.train()(X)
        return
    assert np.array_equal(layer.train()(X), other.train()(X))
    assert np.array_equal(layer.running_mean, other.running_mean)
    layer.load_state_dict(other.state_dict())


def evaluate(layer: bn.BatchNorm, x: Any) -> Any:
    return layer(x), type(layer.gamma).__name__


def test_a_layer_from_joblib(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    layer = bn.BatchNorm1d(3).eval()
    layer.load_state_dict({**layer.state_dict(), "weight": GAMMA, "running_mean": BETA})
    joblib.dump(layer, tmp_path / "layer")
    for mode in ("r", "c", "r+", None):
        assert np.array_equal(joblib.load(tmp_path / "layer", mmap_mode=mode)(X), layer(X))


@pytest.mark.filterwarnings("default")
def test_parameters_that_joblib_shares() -> None:
    joblib = pytest.importorskip("joblib")
    channels = 300_000  # more than a megabyte, which is mapped for the workers
    x = np.random.default_rng(1).normal(size=(2, channels)).astype("f4")
    layer = bn.BatchNorm(channels).eval()
    layer.gamma += np.float32(0.5)
    results = joblib.Parallel(n_jobs=2)(joblib.delayed(evaluate)(layer, part) for part in (x[:1], x[1:]))
    assert [kind for _, kind in results] == ["memmap", "memmap"]
    assert np.array_equal(np.concatenate([y for y, _ in results]), layer(x))


def test_a_pickle_of_a_layer_of_memory_maps(tmp_path: Path) -> None:
    layer = bn.BatchNorm1d(3).eval()
    layer.gamma = mapped(tmp_path / "gamma", GAMMA)
    assert np.array_equal(pickle.loads(pickle.dumps(layer))(X), layer(X))
