# SPDX-License-Identifier: Apache-2.0
"""batchnorm.jax's functions: their numbers, dtypes and shapes, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from in_jax import jax, jnp
from jax_formulas import DTYPES, along, batch, exact, others, same
from ml_dtypes import finfo

import batchnorm as bn
import batchnorm.jax as bj

# Shape and axis: vectors, sequences, images either way, volumes, channels first of all, one channel, one position.
SHAPES = [
    ((7, 5), -1),
    ((3, 5), 1),
    ((4, 3, 9), 1),
    ((4, 9, 3), -1),
    ((2, 6, 5, 7), 1),
    ((2, 5, 7, 6), 3),
    ((2, 3, 2, 3, 4), -4),
    ((6, 3, 4), 0),
    ((5, 1, 4, 4), 1),
    ((4, 33), 0),
    ((64,), -1),
    ((2, 1), 1),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), [case for case in SHAPES if np.prod(case[0]) > case[0][case[1]]])
def test_training(rng: np.random.Generator, dtype: str, shape: Any, axis: int) -> None:
    x, gamma, beta = batch(rng, shape, axis, dtype)
    eager = bj.batch_norm(x, gamma, beta, axis)
    y, (mean, var) = jax.jit(lambda *given: bj.batch_norm(*given, axis))(x, gamma, beta)
    same(eager, (y, (mean, var)))
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert mean.dtype == var.dtype == gamma.dtype
    wanted, wanted_mean, wanted_var, size = exact(x, gamma, beta, axis)
    # A rounding to dtype, and a few in the numbers that y is computed in.
    step, own = float(finfo(dtype).eps), float(finfo(gamma.dtype).eps)
    assert (abs(np.asarray(y).astype(np.longdouble) - wanted) <= (step / 2 + 4 * own) * size).all()
    # The sums are of doubles, some units of whose last place are lost.
    lost = 2.0**-48
    assert (abs(np.asarray(mean) - wanted_mean) <= own * abs(wanted_mean) + lost).all()
    assert (abs(np.asarray(var) - wanted_var) <= (own + lost) * wanted_var).all()
    # NumPy's call has the same bits.
    ours, _ = bn.forward_training(np.asarray(x), np.asarray(gamma), np.asarray(beta), axis=axis)
    same(y, ours)


@pytest.mark.parametrize("offset", [0, 1_000, 30_000])
def test_any_offset(rng: np.random.Generator, offset: float) -> None:
    """y is within 3 units in the last place of the largest, where E[x^2] - E[x]^2 in float32 has no digit left."""
    x = jnp.asarray(rng.normal(offset, 1, (64, 5)), "float32")
    y, _ = jax.jit(bj.batch_norm)(x)
    wanted, *_ = exact(x, np.ones(5), np.zeros(5), -1)
    assert abs(np.asarray(y) - wanted).max() < 3 * 2.0**-23 * 4
    variance = jnp.maximum(0, (x * x).mean(0) - x.mean(0) ** 2)
    naive = (x - x.mean(0)) * jax.lax.rsqrt(variance + 1e-5)
    assert (abs(np.asarray(naive) - wanted).max() > 0.1) == (offset > 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_inference(rng: np.random.Generator, dtype: str, shape: Any, axis: int) -> None:
    x, gamma, beta = batch(rng, shape, axis, dtype)
    mean = jnp.asarray(rng.normal(size=shape[axis]), gamma.dtype)
    var = jnp.asarray(rng.uniform(0.5, 2, shape[axis]), gamma.dtype)
    y = bj.batch_norm_inference(x, gamma, beta, mean=mean, var=var, axis=axis)
    given = {"running_mean": np.asarray(mean), "running_var": np.asarray(var)}
    same(y, bn.forward_inference(np.asarray(x), np.asarray(gamma), np.asarray(beta), **given, axis=axis))


def test_parameters_may_be_missing_or_narrow(rng: np.random.Generator) -> None:
    x, gamma, beta = batch(rng, (6, 4), dtype="float32")
    same(bj.batch_norm(x), bj.batch_norm(x, jnp.ones(4, "float32"), jnp.zeros(4, "float32")))
    same(bj.batch_norm(x, None, beta), bj.batch_norm(x, jnp.ones(4, "float32"), beta))
    same(bj.batch_norm(x, gamma), bj.batch_norm(x, gamma, jnp.zeros(4, "float32")))
    narrow = gamma.astype("bfloat16")
    same(bj.batch_norm(x, narrow), bj.batch_norm(x, narrow.astype("float32")))
    wide = x.astype("float64")
    same(bj.batch_norm(wide, gamma), bj.batch_norm(wide, gamma.astype("float64")))


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
def test_eps_is_exact(rng: np.random.Generator, eps: float) -> None:
    x = rng.normal(size=(9, 4))
    same(bj.batch_norm(x, eps=eps)[0], bn.forward_training(x, eps=eps)[0])


@pytest.mark.parametrize("shape", [(0, 3), (0, 4, 3), (2, 0, 3)])
def test_an_empty_batch(shape: tuple[int, ...]) -> None:
    x = jnp.zeros(shape, "float32")
    y, (mean, var) = jax.jit(bj.batch_norm)(x)
    assert y.shape == shape
    assert (mean == 0).all()
    assert (var == 0).all()
    dx, dgamma = jax.grad(lambda x, gamma: bj.batch_norm(x, gamma)[0].sum(), (0, 1))(x, jnp.ones(3, "float32"))
    assert dx.shape == shape
    assert (dgamma == 0).all()


def test_nan_stays_in_its_channel(rng: np.random.Generator) -> None:
    x = rng.normal(size=(8, 3)).astype("float32")
    x[2, 1] = np.nan
    y, (mean, _) = bj.batch_norm(x)
    assert np.isnan(y).all(0).tolist() == np.isnan(mean).tolist() == [False, True, False]
    assert np.isfinite(np.asarray(y)[:, [0, 2]]).all()


def test_without_float64(rng: np.random.Generator) -> None:
    """JAX as it is by default: statistics are exact all the same."""
    x = rng.normal(30_000, 1, (64, 5)).astype("float32")
    with jax.enable_x64(False):
        y, (mean, _) = jax.jit(bj.batch_norm)(x)
        dx = jax.jit(jax.grad(lambda x: jnp.sin(bj.batch_norm(x)[0]).sum()))(x)
        tangent = jax.jvp(jax.grad(lambda x: jnp.sin(bj.batch_norm(x)[0]).sum()), (x,), (x[::-1],))[1]
    assert mean.dtype == "float32"
    assert dx.dtype == tangent.dtype == "float32"
    same(y, bn.forward_training(x)[0])
    wide = jax.grad(lambda x: jnp.sin(bj.batch_norm(x)[0]).sum())
    assert abs(dx - wide(x.astype("float64"))).max() < 1e-5
    of_wide = jax.jvp(wide, (x.astype("float64"),), (x[::-1].astype("float64"),))[1]
    assert abs(tangent - of_wide).max() < 1e-4 * abs(of_wide).max()


def test_of_a_traced_batch_in_a_loop(rng: np.random.Generator) -> None:
    """scan, remat and cond hand the primitives on as they are."""
    x = rng.normal(size=(3, 8, 4))

    def step(total: Any, each: Any) -> Any:
        y = jax.lax.cond(total[0, 0] > 1e9, lambda x: x, lambda x: jax.checkpoint(bj.batch_norm)(x)[0], each)
        return total + y, y.sum(0)

    def loss(x: Any) -> Any:
        return jnp.sin(jax.lax.scan(step, jnp.zeros((8, 4)), x)[0]).sum()

    def unrolled(x: Any) -> Any:
        return jnp.sin(sum(bj.batch_norm(each)[0] for each in x)).sum()

    found, wanted = jax.jit(jax.grad(loss))(x), jax.grad(unrolled)(x)
    assert abs(found - wanted).max() < 1e-13


def test_export(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 4)).astype("float32")
    function = jax.jit(lambda x: bj.batch_norm(x)[0])
    allowed = [jax.export.DisabledSafetyCheck.custom_call("batchnorm_xla_forward")]
    same(jax.export.export(function, disabled_checks=allowed)(jnp.asarray(x)).call(x), function(x))


X = np.ones((4, 3), "float32")
REFUSED = [
    (TypeError, "x has dtype int32, expected float32, float64, float16 or bfloat16", X.astype("int32"), {}),
    (TypeError, "x has dtype complex64", X.astype("complex64"), {}),
    (TypeError, "x has dtype float8_e4m3fn", jnp.ones((4, 3), "float8_e4m3fn"), {}),
    (ValueError, r"x has shape \(\), expected an axis of channels", np.float32(1), {}),
    (ValueError, r"axis is 2, but x has shape \(4, 3\); expected -2 to 1", X, {"axis": 2}),
    (ValueError, r"axis is -3, but x has shape \(4, 3\); expected -2 to 1", X, {"axis": -3}),
    (TypeError, r"axis is 1.0, expected an integer", X, {"axis": 1.0}),
    (TypeError, r"axis is True, expected an integer", X, {"axis": True}),
    (TypeError, r"axis is \(0, 1\), expected an integer", X, {"axis": (0, 1)}),
    (ValueError, r"x has shape \(4, 0\): axis -1 has no channels", X[:, :0], {}),
    (ValueError, r"gamma has shape \(4,\), expected \(3,\): x has 3 channels along axis 1", X, {"gamma": X[:, 0]}),
    (ValueError, r"beta has shape \(1, 3\), expected \(3,\)", X, {"beta": np.ones((1, 3), "f4")}),
    (TypeError, "gamma has dtype float64, expected a floating-point one up to float32", X, {"gamma": np.ones(3)}),
    (TypeError, "beta has dtype int32, expected a floating-point one", X, {"beta": np.ones(3, "int32")}),
    (ValueError, "eps is -1.0, expected a finite number, at least 0", X, {"eps": -1}),
    (ValueError, "eps is nan, expected a finite number", X, {"eps": float("nan")}),
    (ValueError, "eps is inf, expected a finite number", X, {"eps": float("inf")}),
    (ValueError, r"x has shape \(1, 3\): one value per channel has no variance to normalize with", X[:1], {}),
    (ValueError, "axis_name is 'rows', expected an axis of jax.shard_map, jax.pmap or", X, {"axis_name": "rows"}),
    (ValueError, r"axis_name is \('a', 'b'\), expected an axis", X, {"axis_name": ("a", "b")}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "words", "x", "told"), REFUSED, ids=[case[1][:40] for case in REFUSED])
def test_refused(error: Any, words: str, x: Any, told: Any) -> None:
    with pytest.raises(error, match="^" + words):
        bj.batch_norm(x, **told)
    with pytest.raises(error, match="^" + words):
        jax.jit(lambda x: bj.batch_norm(x, **told))(x)
    if "axis_name" in told or "one value" in words:
        return
    statistics = {"mean": np.zeros(x.shape[-1:], "f4"), "var": np.ones(x.shape[-1:], "f4")}
    with pytest.raises(error, match="^" + words):
        bj.batch_norm_inference(x, **statistics, **told)


def test_inference_refuses() -> None:
    good = np.ones(3, "float32")
    with pytest.raises(ValueError, match=r"^var has shape \(4,\), expected \(3,\)"):
        bj.batch_norm_inference(X, mean=good, var=np.ones(4, "float32"))
    with pytest.raises(TypeError, match="^mean has dtype float64"):
        bj.batch_norm_inference(X, mean=np.ones(3), var=good)


def test_other_platforms_are_refused() -> None:
    x = jax.ShapeDtypeStruct((4, 3), "float32")
    for platform in ("cuda", "tpu"):
        with pytest.raises(
            NotImplementedError, match=f"^batchnorm.jax computes on the CPU, but this is compiled for {platform}"
        ):
            jax.export.export(jax.jit(bj.batch_norm), platforms=[platform])(x)


def test_errors_of_the_library_come_through() -> None:
    """A fault that only a run can find: the library's environment, in a process of its own."""
    from helpers import python

    code = "import jax.numpy as jnp, batchnorm.jax as bj\nbj.batch_norm(jnp.ones((4, 3)))[0].block_until_ready()"
    run = python(code, BATCHNORM_ISA="avx9000")
    assert run.returncode == 1
    assert "BATCHNORM_ISA is 'avx9000'" in run.stderr.splitlines()[-1] or "BATCHNORM_ISA is 'avx9000'" in run.stderr


def test_an_old_jax_is_refused() -> None:
    from batchnorm.jax import require

    with pytest.raises(ImportError, match=r"^batchnorm.jax works with JAX 0.10 and newer, but this is 0.9.1$"):
        require.check("0.9.1")
    for version in ("0.10.0", "0.11.0.dev2026", "1.0"):
        require.check(version)


def test_statistics_are_of_the_other_axes(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4, 5))
    for axis in range(-3, 3):
        _, (mean, var) = bj.batch_norm(x, axis=axis)
        assert np.allclose(mean, x.mean(others(x, axis)), 1e-14)
        assert np.allclose(along(var, x, axis), x.var(others(x, axis), keepdims=True), 1e-14)
