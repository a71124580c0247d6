# SPDX-License-Identifier: Apache-2.0
"""The Keras layer beside Keras's own, over PyTorch: arguments, weights, configs, and steps with the same data."""

from __future__ import annotations

import inspect
import json
import os
from typing import Any

import numpy as np
import pytest
from comparing import DTYPES, Batch, near, peer
from in_torch import array, tensor
from ml_dtypes import finfo

from batchnorm.interop.keras import BatchNormalization

os.environ["KERAS_BACKEND"] = "torch"
keras = peer("keras")

Theirs = keras.layers.BatchNormalization
COMPUTED = np.float32  # of any dtype: but with TensorFlow Keras knows no sums of float64
# The dtypes of x and y, and of the weights.
POLICIES = {
    **{name: (name, name) for name in DTYPES},
    "mixed_float16": ("float16", "float32"),
    "mixed_bfloat16": ("bfloat16", "float32"),
}


def both(batch: Batch, **told: Any) -> tuple[BatchNormalization, Any]:
    """Two layers with the same arguments and weights; those of the batch, and whatever they begin with."""
    print(told)
    ours, theirs = BatchNormalization(**told), Theirs(**told)
    ours.build(batch.shape)
    theirs.build(batch.shape)
    for name, value in (("gamma", batch.gamma), ("beta", batch.beta), ("moving_mean", batch.running_mean)):
        if getattr(theirs, name) is not None:
            getattr(theirs, name).assign(value)
    theirs.moving_variance.assign(batch.running_var)
    if ours.renorm:
        theirs.renorm_mean.assign(batch.running_mean / 2)
        theirs.renorm_stddev.assign(np.sqrt(batch.running_var + 1))
        theirs.moving_stddev.assign(np.sqrt(batch.running_var + batch.eps))
    ours.set_weights(weights_of(theirs))
    return ours, theirs


def weights_of(theirs: Any) -> list[Any]:
    return [array(variable.value).copy() for variable in theirs.weights]


def sizes_of(batch: Batch, ours: BatchNormalization, training: bool, mask: Any) -> Any:
    """The sizes to which roundings are proportional."""
    batch.gamma = np.ones_like(batch.gamma) if ours.gamma is None else ours.gamma
    batch.beta = np.zeros_like(batch.beta) if ours.beta is None else ours.beta
    batch.running_mean, batch.running_var = ours.moving_mean, ours.moving_variance
    if not training:
        return batch.sizes(frozen=True)
    # Without a mask the variance is E[x^2] - E[x]^2.
    sizes = batch.sizes(squares=mask is None, mask=True if mask is None else mask[..., None])
    if ours.renorm:
        # r and d magnify what there is by up to the ratio of the standard deviations.
        batch.running_mean, batch.running_var = ours.renorm_mean, ours.renorm_stddev.astype(float) ** 2 - batch.eps
        for name, value in vars(batch.sizes(frozen=True)).items():
            setattr(sizes, name, getattr(sizes, name) + 4 * value)
    if mask is not None:
        # Sums are divided by the count plus 1e-7: a relative error of that size in mean and variance.
        for name, value in vars(sizes).items():
            setattr(sizes, name, value * (1 + 1e-7 / float(finfo(COMPUTED).eps) / mask.sum()))
    return sizes


def step(batch: Batch, ours: BatchNormalization, theirs: Any, training: Any, mask: Any = None) -> None:
    """One call of both, its gradients, and the weights after it; ours then take theirs."""
    trained = bool(training) and ours.trainable
    sizes = sizes_of(batch, ours, trained, mask)
    print(f"training {training}, trainable {ours.trainable}, mask {None if mask is None else mask.sum()}")
    theirs.zero_grad()
    x = tensor(batch.x.copy(), gradient=True)
    y = theirs(x, training=training, mask=None if mask is None else tensor(mask))
    y.backward(tensor(batch.dy))
    told: dict[str, Any] = {"computed": COMPUTED, "count": batch.count}
    near(ours(batch.x, training=training, mask=mask), array(y), size=sizes.y, **told)
    near(ours.backward(batch.dy), array(x.grad), size=sizes.dx, **told)
    for name, size in (("gamma", sizes.dgamma), ("beta", sizes.dbeta)):
        variable = getattr(theirs, name)
        if variable is not None and theirs.trainable:
            near(getattr(ours, f"grad_{name}"), array(variable.value.grad), size=size, **told)
    size_of = {"moving_mean": sizes.mean, "renorm_mean": sizes.mean}
    for variable, mine, other in zip(theirs.weights, ours.weights, weights_of(theirs)):
        assert mine.dtype == other.dtype
        near(mine, other, size=size_of.get(variable.name, sizes.var + 4), **told)
    ours.set_weights(weights_of(theirs))


@pytest.mark.parametrize("dtype", POLICIES)
@pytest.mark.parametrize("case", range(12))
def test_steps(rng: np.random.Generator, dtype: str, case: int) -> None:
    """Any axis; training and inference in turns, with masks and without; with renorm, clipped and not."""
    compute, variable = POLICIES[dtype]
    masked = bool(rng.random() < 0.4)
    # Under a mask channels are last, and Keras squeezes the axis of a single channel as well, and then has none.
    channels = int(rng.integers(2, 20)) if masked else None
    batch = Batch(rng, compute, "last" if masked else "any", param=variable, channels=channels)
    told: dict[str, Any] = {
        "axis": batch.axis - len(batch.shape) * int(rng.random() < 0.5),
        "momentum": round(1 - batch.momentum, 2),
        "epsilon": batch.eps,
        "renorm_momentum": round(float(rng.uniform(0.1, 0.9)), 2),
        "dtype": dtype,
    }
    told.update({name: bool(rng.random() < p) for name, p in (("center", 0.7), ("scale", 0.7), ("renorm", 0.4))})
    limits = {"rmin": 0.5, "rmax": 1.5, "dmax": 0.75}
    told["renorm_clipping"] = {key: limits[key] for key in limits if rng.random() < 0.5} or None
    ours, theirs = both(batch, **told)
    for _ in range(4):
        ours.trainable = theirs.trainable = bool(rng.random() < 0.8)
        mask = None
        if masked and rng.random() < 0.7:
            mask = rng.random(batch.shape[:-1]) < 0.6
            mask.flat[:3] = True
        step(batch, ours, theirs, [True, True, True, False, None][int(rng.integers(5))], mask)
        batch.x = (batch.x.astype(float) * rng.uniform(0.7, 1.2) + rng.normal() / 2).astype(batch.dtype)


@pytest.mark.parametrize("renorm", [False, True], ids=["", "renorm"])
def test_one_value_per_channel(rng: np.random.Generator, renorm: bool) -> None:
    """It moves the averages; the variance is 0."""
    batch = Batch(rng, "float32", "last", ranks=(2,), channels=5)
    batch.x, batch.dy = batch.x[:1], batch.dy[:1]
    ours, theirs = both(batch, epsilon=batch.eps, renorm=renorm)
    step(batch, ours, theirs, training=True)


def test_arguments() -> None:
    """The same, in the same order, with the same defaults; of those that all layers of Keras have, three."""
    theirs = [p for p in inspect.signature(Theirs.__init__).parameters.values() if p.kind != p.VAR_KEYWORD]
    ours = list(inspect.signature(BatchNormalization.__init__).parameters.values())
    assert [(p.name, p.default) for p in ours[: len(theirs)]] == [(p.name, p.default) for p in theirs]
    assert [p.name for p in ours[len(theirs) :]] == ["trainable", "dtype", "name"]
    assert list(BatchNormalization().get_config()) == list(Theirs().get_config())
    call = inspect.signature(BatchNormalization.call).parameters.values()
    assert [(p.name, p.default) for p in call] == [
        (p.name, p.default) for p in inspect.signature(Theirs.call).parameters.values()
    ]


CONFIGS: list[dict[str, Any]] = [
    {},
    {"axis": 1, "momentum": 0.5, "epsilon": 0.25, "center": False, "trainable": False, "name": "of its own"},
    {"scale": False, "renorm": True, "dtype": "mixed_bfloat16"},
    {"renorm": True, "renorm_clipping": {"rmax": 2.0, "dmax": 1.0}, "renorm_momentum": 0.5, "dtype": "float64"},
    {"gamma_initializer": "zeros", "beta_initializer": "ones", "dtype": "float16"},
    {"moving_mean_initializer": keras.initializers.Constant(0.5), "moving_variance_initializer": "ones"},
]


@pytest.mark.parametrize("told", CONFIGS)
def test_configs_go_both_ways(told: dict[str, Any]) -> None:
    theirs = Theirs(**told)
    ours = BatchNormalization.from_config(theirs.get_config())
    assert BatchNormalization.from_config(json.loads(json.dumps(theirs.get_config()))).get_config() == ours.get_config()
    back = Theirs.from_config(ours.get_config())
    assert back.get_config() == theirs.get_config()
    for layer in (ours, theirs, back):
        layer.build((2, 3, 4))
    assert (ours.name, ours.dtype, ours.compute_dtype) == (theirs.name, theirs.dtype, theirs.compute_dtype)
    for other in (theirs, back):
        assert ours.count_params() == other.count_params()
        for group in ("weights", "trainable_weights", "non_trainable_weights"):
            mine, others = getattr(ours, group), getattr(other, group)
            assert [getattr(ours, variable.name) is a for a, variable in zip(mine, others)] == [True] * len(others)
            assert [a.tolist() for a in mine] == [array(variable.value).tolist() for variable in others]


def test_initializers_and_policies_of_keras() -> None:
    ours = BatchNormalization(
        gamma_initializer=keras.initializers.Constant(3.0),
        beta_initializer=keras.initializers.RandomNormal(seed=1),
        dtype=keras.DTypePolicy("mixed_float16"),
    )
    ours.build((2, 3))
    assert ours.gamma.tolist() == [3, 3, 3]
    assert ours.beta.tolist() == array(keras.initializers.RandomNormal(seed=1)((3,))).tolist()
    assert (ours.compute_dtype, ours.gamma.dtype) == ("float16", np.float32)
