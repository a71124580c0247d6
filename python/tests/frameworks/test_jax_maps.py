# SPDX-License-Identifier: Apache-2.0
"""batchnorm.jax under jax.vmap: an element of a map has the bits that it has on its own, however it is mapped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from in_jax import jax, jnp
from jax_formulas import batch, formula, near, same
from test_jax_derivatives import SECOND, at_once, loss, ours, twice

import batchnorm.jax as bj

SHAPE, AXIS = (4, 3, 2), 1


def of_several(rng: np.random.Generator, dims: tuple[Any, ...], count: int = 3) -> list[Any]:
    """Arguments with a dimension for a map where dims say so."""
    each = [batch(rng, SHAPE, AXIS) for _ in range(count)]
    return [column[0] if dim is None else jnp.stack(column, dim) for column, dim in zip(zip(*each), dims)]


def element(given: Any, dims: Any, index: int) -> list[Any]:
    return [value if dim is None else jnp.take(value, index, dim) for value, dim in zip(given, dims)]


DIMS = [(0, None, None), (0, 0, 0), (2, 1, 0), (-1, None, -1), (None, 0, None), (None, None, 1), (1, 0, None)]


@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize("jit", [False, True])
def test_has_the_bits_of_each(rng: np.random.Generator, dims: Any, jit: bool) -> None:
    given, weights = of_several(rng, dims), rng.normal(size=SHAPE)
    gradient = jax.value_and_grad(loss(ours, weights, AXIS), (0, 1, 2))

    def both(*given: Any) -> Any:
        return ours(*given, AXIS), gradient(*given)[1], jax.jvp(lambda *given: ours(*given, AXIS)[0], given, given)[1]

    mapped = jax.vmap(both, dims)
    found = (jax.jit(mapped) if jit else mapped)(*given)
    for index in range(3):
        single = (jax.jit(both) if jit else both)(*element(given, dims, index))
        near(jax.tree.map(lambda each, index=index: each[index], found), single, 1e-15 if jit else 1e-14)
        same(jax.tree.map(lambda each, index=index: each[index], found[0]), single[0])
        same(found[2][index], single[2])


@pytest.mark.parametrize("dims", DIMS[:6], ids=str)
def test_gradient_of_a_map(rng: np.random.Generator, dims: Any) -> None:
    """Arguments that all elements share have the sum of their gradients; second derivatives too."""
    given, weights = of_several(rng, dims, 2), rng.normal(size=SHAPE)
    everything = (0, 1, 2)
    f, g = (
        lambda *given, each=each: jax.vmap(loss(each, weights, AXIS), dims)(*given).sum() for each in (ours, formula)
    )
    for derivative in (lambda f: jax.grad(f, everything), *(twice(*modes, everything) for modes in SECOND)):
        near(at_once(derivative(f), given), at_once(derivative(g), given))


def test_maps_in_maps(rng: np.random.Generator) -> None:
    """Three of them, over x, gamma and beta, each alone and in its own place."""
    x = rng.normal(size=(2, 4, 3, 5, 2))
    gamma, beta = rng.normal(size=(3, 4)), rng.normal(size=(3, 2))

    def mapped(function: Any) -> Any:
        def computed(x: Any, gamma: Any, beta: Any) -> Any:
            return jnp.sin(function(x, gamma, beta, 1)[0]).sum((0, 2)), function(x, gamma, beta, 1)[2]

        twice = jax.vmap(jax.vmap(computed, (None, -1, None), 1), (None, None, 1), 0)
        return jax.vmap(jax.vmap(twice, (3, None, None), 0), (0, None, None), -1)

    given = x, gamma, beta
    near(mapped(ours)(*given), at_once(mapped(formula), given))
    near(at_once(mapped(ours), given), at_once(mapped(formula), given))
    squares = [lambda *given, f=f: sum((each**2).sum() for each in mapped(f)(*given)) for f in (ours, formula)]
    near(*(at_once(jax.grad(each, (0, 1, 2)), given) for each in squares))
    near(*(at_once(lambda *given, each=each: forward_over_reverse(each, given), given) for each in squares))


def test_per_example_gradients(rng: np.random.Generator) -> None:
    """x and its statistics stand for all elements of a map over directions, and are not repeated."""
    x, gamma, beta = batch(rng, SHAPE, AXIS)
    _, pull = jax.vjp(lambda *given: ours(*given, AXIS)[0], x, gamma, beta)
    text = str(jax.make_jaxpr(jax.vmap(pull))(jnp.ones((5, *SHAPE))))
    assert "batchnorm_backward" in text
    near(jax.vmap(pull)(jnp.ones((5, *SHAPE)))[2], jnp.full((5, 3), 8.0))
    near(
        jax.jacrev(lambda x: ours(x, gamma, beta, AXIS)[0])(x),
        jax.jacrev(lambda x: formula(x, gamma, beta, AXIS)[0])(x),
    )


def test_of_inference(rng: np.random.Generator) -> None:
    x, gamma, beta = batch(rng, (4, 3))
    mean, var = rng.normal(size=(5, 3)), rng.uniform(0.5, 2, (5, 3))
    found = jax.vmap(lambda mean, var: bj.batch_norm_inference(x, gamma, beta, mean=mean, var=var))(mean, var)
    for index in range(5):
        same(found[index], bj.batch_norm_inference(x, gamma, beta, mean=mean[index], var=var[index]))


def test_of_no_elements() -> None:
    y, mean, var = jax.vmap(lambda x: ours(x, None, None))(jnp.zeros((0, 4, 3)))
    assert (y.shape, mean.shape, var.shape) == ((0, 4, 3), (0, 3), (0, 3))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("reproducible", [False, True])
def test_over_the_axis_of_the_batch(rng: np.random.Generator, dim: int, reproducible: bool) -> None:
    """With axis_name the statistics are those of all elements: as if they were one batch."""
    given = x, gamma, beta = batch(rng, (2, 4, 5, 3))
    weights = rng.normal(size=x.shape)

    def spread(x: Any, gamma: Any, beta: Any, *_: Any) -> Any:
        def one(x: Any) -> Any:
            y, (mean, var) = bj.batch_norm(x, gamma, beta, axis_name="all", reproducible=reproducible)
            return y, mean, var

        y, mean, var = jax.vmap(one, dim, (dim, 0, 0), axis_name="all")(x)
        return y, mean[0], var[0]

    f, g = loss(spread, weights), loss(formula, weights)
    near(spread(*given), formula(*given))
    near(at_once(jax.grad(f, (0, 1, 2)), given), at_once(jax.grad(g, (0, 1, 2)), given))
    for product in (forward_over_reverse, reverse_over_forward, reverse_over_reverse, forward_over_forward):
        near(*(at_once(lambda *given, f=f, product=product: product(f, given), given) for f in (f, g)))
    scales = jnp.arange(1.0, 4)
    scaled = [jax.vmap(lambda scale, f=f: f(x * scale, gamma, beta))(scales) for f in (spread, formula)]
    near(*scaled)


def forward_over_reverse(f: Any, given: Any) -> Any:
    return jax.jvp(jax.grad(f, (0, 1, 2)), given, jax.tree.map(jnp.cos, given))[1]


def reverse_over_forward(f: Any, given: Any) -> Any:
    return jax.grad(lambda *given: jax.jvp(f, given, jax.tree.map(jnp.cos, given))[1], (0, 1, 2))(*given)


def reverse_over_reverse(f: Any, given: Any) -> Any:
    return jax.grad(lambda *given: sum(jnp.sin(g).sum() for g in jax.grad(f, (0, 1, 2))(*given)), (0, 1, 2))(*given)


def forward_over_forward(f: Any, given: Any) -> Any:
    return jax.jvp(lambda *given: jax.jvp(f, given, jax.tree.map(jnp.cos, given))[1], given, given)[1]


METHODS = ["expand_dims", "broadcast_all", "legacy_vectorized", "sequential"]


@pytest.mark.parametrize("method", METHODS)
def test_the_handlers_themselves_are_never_wrong(rng: np.random.Generator, method: str) -> None:
    """jax.ffi.ffi_call maps operands as it likes: the result is right, or an error."""
    x, gamma, beta = batch(rng, (4, 3))
    kinds = ((4, 3), x.dtype), ((2, 3, 2), "uint32"), ((3,), x.dtype), ((3,), x.dtype)
    shapes = [jax.ShapeDtypeStruct(*kind) for kind in kinds]
    eps = np.array(1e-5).view(np.int64)[()]
    told = {"rank": np.int64(2), "axis": np.int64(1), "given": np.int64(0), "eps": eps}
    call = jax.ffi.ffi_call("batchnorm_xla_forward", shapes, vmap_method=method)
    xs = jnp.stack([x, 2 * x, x - 1])
    found = jax.vmap(lambda x: call(x, gamma, beta, **told)[0])
    if method == "legacy_vectorized":
        with pytest.raises(jax.errors.JaxRuntimeError, match="expected a call by batchnorm.jax"):
            found(xs).block_until_ready()
    else:
        same(found(xs), jax.vmap(lambda x: bj.batch_norm(x, gamma, beta)[0])(xs))
