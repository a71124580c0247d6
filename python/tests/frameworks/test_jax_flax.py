# SPDX-License-Identifier: Apache-2.0
"""batchnorm.jax's layers beside flax's own: the same variables and conventions, and more digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import peer
from in_jax import jax, jnp
from jax_formulas import exact, near

import batchnorm.jax as bj

linen = peer("flax.linen")
nnx = peer("flax.nnx")
ABSENT: Any = {"use_bias": False, "use_scale": False}
TOLD = [
    {},
    {"momentum": 0.5, "epsilon": 0.01},
    {"axis": 1},
    {"axis": -2},
    ABSENT,
    {"use_scale": False},
    {"use_bias": False},
]


def close(mine: Any, theirs: Any) -> None:
    """Trees of the same structure, shapes and dtypes, and of the same numbers but for flax's roundings.

    flax adds up in float32, and its variance is a difference of sums, which cancel: some hundred units of the last
    place of the largest number.
    """
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    assert jax.tree.map(lambda each: each.dtype, mine) == jax.tree.map(lambda each: each.dtype, theirs)
    # A convolution's bias has gradient 0 before a batch norm, which is what is left of large terms.
    all_of_it = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (mine, theirs)]
    near(*all_of_it, 512 * 2.0**-23)


class Net(linen.Module):
    """A convolution, a layer of this kind, and a sum."""

    kind: Any
    told: Any

    @linen.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = linen.Conv(4, (3, 3), param_dtype=jnp.float32)(x)
        return jnp.sin(self.kind(use_running_average=not train, **self.told)(x)).sum()


@pytest.mark.parametrize("told", TOLD, ids=str)
def test_linen_in_a_network(rng: np.random.Generator, told: Any) -> None:
    """Variables of one are those of the other, through steps of training and in evaluation."""
    x = jnp.asarray(rng.normal(size=(8, 6, 5, 3)), "float32")
    nets = [Net(kind, told) for kind in (bj.linen.BatchNorm, linen.BatchNorm)]
    mine, theirs = (net.init(jax.random.key(0), x, True) for net in nets)
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), mine, theirs))
    statistics = [theirs["batch_stats"]] * 2
    for _ in range(3):
        steps = []
        for net, old in zip(nets, statistics):

            def loss(params: Any, x: Any, net: Any = net, old: Any = old) -> Any:
                return net.apply({"params": params, "batch_stats": old}, x, True, mutable=["batch_stats"])

            steps.append(jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(theirs["params"], x))
        close(*steps)
        statistics = [updated["batch_stats"] for (_, updated), _ in steps]
        x = x * 1.1 + 0.2
    evaluated = [net.apply({"params": theirs["params"], "batch_stats": statistics[1]}, x, False) for net in nets]
    close(*evaluated)


@pytest.mark.parametrize("param", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("given", ["float32", "bfloat16", "float16", "int32"])
def test_dtypes_of_linen(rng: np.random.Generator, given: str, dtype: Any, param: str) -> None:
    x = jnp.asarray(4 * rng.normal(size=(16, 5)), given)
    layers = [
        each(use_running_average=False, dtype=dtype, param_dtype=param)
        for each in (bj.linen.BatchNorm, linen.BatchNorm)
    ]
    variables = layers[0].init(jax.random.key(0), x)
    mine, theirs = (layer.apply(variables, x, mutable=["batch_stats"]) for layer in layers)
    assert mine[0].dtype == theirs[0].dtype
    # With parameters of float64 beside another x, y alone is of float64.
    near(
        mine[0].astype("float64"), theirs[0].astype("float64"), 8 * max(float(jnp.finfo(theirs[0].dtype).eps), 2.0**-23)
    )
    for name in ("mean", "var"):
        new, old = (each[1]["batch_stats"][name] for each in (mine, theirs))
        assert new.dtype == "float32"
        near(new, old.astype("float32"), 1e-2 if "float16" in f"{given}{dtype}" else 1e-5)


@pytest.mark.parametrize("offset", [1_000, 30_000])
def test_offsets_at_which_flax_has_no_digits(rng: np.random.Generator, offset: float) -> None:
    x = jnp.asarray(rng.normal(offset, 1, (256, 4)), "float32")
    wanted, *_ = exact(x, np.ones(4), np.zeros(4), -1)
    errors = {}
    for kind in (bj.linen.BatchNorm, linen.BatchNorm):
        layer = kind(use_running_average=False)
        y, _ = layer.apply(layer.init(jax.random.key(0), x), x, mutable=["batch_stats"])
        errors[kind.__module__.partition(".")[0]] = abs(np.asarray(y) - wanted).max()
    for module in (bj.nnx.BatchNorm, nnx.BatchNorm):
        y = module(4, rngs=nnx.Rngs(0))(x)
        errors[f"{module.__module__.partition('.')[0]} nnx"] = abs(np.asarray(y) - wanted).max()
    print(errors)
    assert max(errors["batchnorm"], errors["batchnorm nnx"]) < 2e-6
    assert min(errors["flax"], errors["flax nnx"]) > 0.1


def test_what_is_left_to_flax(rng: np.random.Generator) -> None:
    """A mask, several axes, running averages, and a batch of one value while variables are made."""
    x = jnp.asarray(rng.normal(size=(8, 3, 4)), "float32")
    mask = jnp.asarray(rng.random((8, 3, 1)) < 0.7)
    for told, call in (({}, {"mask": mask}), ({"axis": (1, 2)}, {}), ({}, {"use_running_average": True})):
        told = {"use_running_average": None if "use_running_average" in call else False, **told}
        layers = [kind(**told) for kind in (bj.linen.BatchNorm, linen.BatchNorm)]
        variables = layers[1].init(jax.random.key(0), x, **call)
        close(*(layer.apply(variables, x, mutable=["batch_stats"], **call) for layer in layers))
    layer = bj.linen.BatchNorm(use_running_average=False)
    variables = layer.init(jax.random.key(0), x[:1, 0])
    with pytest.raises(ValueError, match=r"^x has shape \(1, 4\): one value per channel has no variance"):
        layer.apply(variables, x[:1, 0], mutable=["batch_stats"])
    with pytest.raises(ValueError, match="use_running_average"):
        bj.linen.BatchNorm().apply(variables, x)
    with pytest.raises(ValueError, match="use_running_average"):
        layer.apply(variables, x, use_running_average=False)
    with pytest.raises(peer("flax.errors").ModifyScopeVariableError, match="batch_stats"):
        layer.apply(variables, x)


@pytest.mark.parametrize("told", TOLD, ids=str)
def test_nnx(rng: np.random.Generator, told: Any) -> None:
    x = jnp.asarray(rng.normal(1, 2, (8, 4, 4)), "float32")
    layers = [kind(4, rngs=nnx.Rngs(0), **told) for kind in (bj.nnx.BatchNorm, nnx.BatchNorm)]

    def step(layer: Any, x: Any) -> Any:
        return nnx.value_and_grad(lambda layer, x: jnp.sin(layer(x)).sum(), argnums=(0, 1))(layer, x)

    for _ in range(3):
        results = [nnx.jit(step)(layer, x) for layer in layers]
        close(*(jax.tree.leaves(result) for result in results))
        close(*(jax.tree.leaves(nnx.state(layer)) for layer in layers))
        x = x * 1.1 + 0.2
    for layer in layers:
        layer.eval()
    close(layers[0](x), layers[1](x))
    assert isinstance(layers[0], nnx.BatchNorm)
    for layer in layers:
        layer.train()
    mask = jnp.asarray(rng.random((8, 4, 4)) < 0.7)
    close(*(layer(x, mask=mask) for layer in layers))


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("given", ["float32", "bfloat16"])
def test_dtypes_of_nnx(rng: np.random.Generator, given: str, dtype: Any) -> None:
    x = jnp.asarray(rng.normal(size=(16, 4)), given)
    mine, theirs = (kind(4, dtype=dtype, rngs=nnx.Rngs(0)) for kind in (bj.nnx.BatchNorm, nnx.BatchNorm))
    y, wanted = mine(x), theirs(x)
    assert y.dtype == wanted.dtype
    near(y.astype("float64"), wanted.astype("float64"), 8 * float(jnp.finfo(wanted.dtype).eps))
    near(mine.mean[...], theirs.mean[...], 1e-3)
    assert mine.mean[...].dtype == "float32"


def test_one_batch_in_a_map(rng: np.random.Generator) -> None:
    """axis_name, as flax has it for pmap: here an axis of jax.vmap."""
    x = jnp.asarray(rng.normal(size=(4, 8, 3)), "float32")
    layers = [kind(use_running_average=False, axis_name="all") for kind in (bj.linen.BatchNorm, linen.BatchNorm)]
    variables = layers[1].init(jax.random.key(0), x[0])
    results = [
        jax.vmap(lambda x, layer=layer: layer.apply(variables, x, mutable=["batch_stats"]), axis_name="all")(x)
        for layer in layers
    ]
    close(*results)
