# SPDX-License-Identifier: Apache-2.0
"""Derivatives of batchnorm.jax, first and second, in both modes, beside those that JAX makes of the formula."""

from __future__ import annotations

import itertools
from typing import Any, Callable

import numpy as np
import pytest
from in_jax import jax, jnp
from jax.test_util import check_grads
from jax_formulas import DTYPES, batch, formula, near

import batchnorm.jax as bj

Given = Any
# Either mode, then either mode: forward over reverse is jacfwd of jacrev.
MODES = [jax.jacfwd, jax.jacrev]
SECOND = list(itertools.product(MODES, MODES))


def ours(x: Any, gamma: Any, beta: Any, axis: int = -1, eps: float = 1e-5) -> Any:
    y, (mean, var) = bj.batch_norm(x, gamma, beta, axis, eps)
    return y, mean, var


def loss(function: Any, weights: Any, axis: int = -1, eps: float = 1e-5) -> Callable[..., Any]:
    """A number that depends on y and on both statistics in a way that is not linear."""

    def computed(*given: Any) -> Any:
        y, mean, var = function(*given, axis, eps)
        return (jnp.sin(y) * weights).sum() + jnp.sin(mean).sum() + (var**2).sum()

    return computed


def at_once(function: Any, given: Any) -> Any:
    """The result as one program: JAX compiles each operation otherwise."""
    return jax.jit(function)(*given)


def twice(outer: Any, inner: Any, which: Any) -> Any:
    """A function that makes the second derivative of another."""
    return lambda f: outer(inner(f, which), which)


@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 3), -1), ((3, 4, 2, 3), 1), ((2, 3, 3, 4), -1), ((4, 6), 0), ((9, 1), 1)]
)
@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_first(rng: np.random.Generator, shape: Any, axis: int, eps: float) -> None:
    given, weights = batch(rng, shape, axis), rng.normal(size=shape)
    f, g = (loss(each, weights, axis, eps) for each in (ours, formula))
    wanted = at_once(jax.grad(g, (0, 1, 2)), given)
    near(jax.grad(f, (0, 1, 2))(*given), wanted)
    near(at_once(jax.grad(f, (0, 1, 2)), given), wanted)
    near(at_once(jax.jacfwd(f, (0, 1, 2)), given), wanted)
    near(jax.linearize(f, *given)[1](*given), jax.jvp(g, given, given)[1])


@pytest.mark.parametrize("which", [c for n in (1, 2) for c in itertools.combinations(range(3), n)])
def test_of_some_arguments(rng: np.random.Generator, which: tuple[int, ...]) -> None:
    """A result that nobody asks for is not computed, and changes nothing."""
    given, weights = batch(rng, (6, 4)), rng.normal(size=(6, 4))
    f, g = loss(ours, weights), loss(formula, weights)
    for derivative in (lambda f: jax.grad(f, which), *(twice(*modes, which) for modes in SECOND)):
        near(at_once(derivative(f), given), at_once(derivative(g), given))


@pytest.mark.parametrize(("outer", "inner"), SECOND, ids=[f"{a.__name__} of {b.__name__}" for a, b in SECOND])
@pytest.mark.parametrize(("shape", "axis"), [((4, 2), -1), ((2, 3, 3), 1), ((3, 2, 2, 2), -1)])
def test_second(rng: np.random.Generator, outer: Any, inner: Any, shape: Any, axis: int) -> None:
    given, weights = batch(rng, shape, axis), rng.normal(size=shape)
    f, g = (loss(each, weights, axis) for each in (ours, formula))
    everything = (0, 1, 2)
    both = twice(outer, inner, everything)
    near(at_once(both(f), given), at_once(both(g), given))


def test_by_finite_differences(rng: np.random.Generator) -> None:
    """JAX's own check, of both modes and orders, with no formula but the library's."""
    given = batch(rng, (5, 3, 2), 1)
    for order in (1, 2):
        check_grads(lambda *given: ours(*given, 1), given, order, modes=("fwd", "rev"), eps=1e-4, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_every_dtype(rng: np.random.Generator, dtype: str) -> None:
    """Gradients have the dtypes of their arguments, and the numbers of float64, up to their own roundings."""
    given, weights = batch(rng, (16, 5), dtype=dtype), rng.normal(size=(16, 5))
    exact = [each.astype("float64") for each in given]

    def summed(function: Any) -> Any:
        return lambda *given: (jnp.sin(function(*given)[0].astype("float64")) * weights).sum()

    found = jax.jit(jax.grad(summed(ours), (0, 1, 2)))(*given)
    wanted = jax.grad(summed(formula), (0, 1, 2))(*exact)
    assert [each.dtype for each in found] == [each.dtype for each in given]
    # y, whose sine is taken, is rounded, and dx too; sums are of 16 numbers.
    near([each.astype("float64") for each in found], wanted, 64 * float(jnp.finfo(dtype).eps))
    tangent = jax.jvp(summed(ours), given, given)[1]
    near(tangent, jax.jvp(summed(formula), exact, exact)[1], 256 * float(jnp.finfo(dtype).eps))


def test_gradients_are_exact_at_an_offset(rng: np.random.Generator) -> None:
    """The formula in float32 loses all digits of dx where the mean is 30,000 standard deviations."""
    x, weights = (rng.normal(size=(64, 3)) for _ in range(2))
    x = jnp.asarray(30_000 + x, "float32")

    def summed(function: Any) -> Any:
        return lambda x: (jnp.sin(function(x, jnp.ones(3, x.dtype), jnp.zeros(3, x.dtype))[0]) * weights).sum()

    wanted = jax.grad(summed(formula))(x.astype("float64"))
    found = jax.grad(summed(ours))(x)
    assert abs(found - wanted).max() < 1e-5 * abs(wanted).max()


def test_second_derivatives_are_linear_in_dy(rng: np.random.Generator) -> None:
    """A third derivative, by what y is multiplied with, is there: the second ones are transposed for it."""
    x, gamma, beta = batch(rng, (5, 3))
    weights = jnp.asarray(rng.normal(size=x.shape))
    along, dual = batch(rng, (5, 3)), batch(rng, (5, 3))

    def product(function: Any, weights: Any) -> Any:
        gradient = jax.grad(lambda *given: (function(*given)[0] * weights).sum(), (0, 1, 2))
        found = jax.jvp(gradient, (x, gamma, beta), tuple(along))[1]
        return sum((a * b).sum() for a, b in zip(found, dual))

    for derivative in (jax.grad, jax.jacfwd):
        near(*(at_once(derivative(lambda w, f=f: product(f, w)), (weights,)) for f in (ours, formula)))


def test_third_derivatives_are_refused(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    third = jax.grad(lambda x: jax.hessian(lambda x: jnp.sin(bj.batch_norm(x)[0]).sum())(x).sum())
    with pytest.raises(
        NotImplementedError, match="^batchnorm.jax has derivatives up to the second, and this is a third"
    ):
        third(x)


def test_of_inference(rng: np.random.Generator) -> None:
    """All arguments, the running statistics included, to the third order."""
    x, gamma, beta = batch(rng, (4, 2))
    given = x, gamma, beta, jnp.asarray(rng.normal(size=2)), jnp.asarray(rng.uniform(0.5, 2, 2))
    weights, everything = rng.normal(size=(4, 2)), (0, 1, 2, 3, 4)

    def f(x: Any, gamma: Any, beta: Any, mean: Any, var: Any) -> Any:
        return (jnp.sin(bj.batch_norm_inference(x, gamma, beta, mean=mean, var=var)) * weights).sum()

    def g(x: Any, gamma: Any, beta: Any, mean: Any, var: Any) -> Any:
        return (jnp.sin((x - mean) / jnp.sqrt(var + 1e-5) * gamma + beta) * weights).sum()

    third = lambda f: jax.jacfwd(jax.hessian(f, 4), 0)  # noqa: E731
    for derivative in (lambda f: jax.grad(f, everything), *(twice(*modes, everything) for modes in SECOND), third):
        near(at_once(derivative(f), given), at_once(derivative(g), given))


def test_unused_statistics_cost_nothing(rng: np.random.Generator) -> None:
    """A training step makes two calls of the library, forward and backward."""
    x, gamma, beta = batch(rng, (8, 4), dtype="float32")
    step = jax.jit(jax.grad(lambda *given: jnp.sin(bj.batch_norm(*given)[0]).sum(), (0, 1, 2)))
    compiled = step.lower(x, gamma, beta).compile().as_text()
    assert compiled.count('custom_call_target="batchnorm_xla_forward"') == 1
    assert compiled.count('custom_call_target="batchnorm_xla_') == 2
