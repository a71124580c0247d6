# SPDX-License-Identifier: Apache-2.0
"""Recalibrated layers have the mean and variance of all that goes into them, and nothing else has changed."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bars import Terminal, stand_in

import batchnorm as bn

Array = np.ndarray[Any, Any]
INDEX = [0, 2, 0, 0, 2, 2, 2, 0]
KEPT = ("training", "grad_gamma", "grad_beta", "grad_residual", "_last")


def drawn(layer: Any, rng: np.random.Generator) -> Any:
    """The layer with random parameters and statistics."""
    for array in (layer.gamma, layer.beta, layer.running_mean):
        if array is not None:
            array[...] = rng.normal(size=array.shape)
    layer.running_var[...] = rng.uniform(0.5, 2, layer.running_var.shape)
    layer.num_batches_tracked = layer.num_batches_tracked + 7
    return layer


class Snapshot:
    """All that recalibrate() has to leave as it is, of a layer that has been called."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.state = layer, layer.state_dict()
        self.addresses = {key: id(getattr(layer, key)) for key in ("running_mean", "running_var", "gamma", "beta")}
        self.kept = {name: getattr(layer, name) for name in KEPT}
        self.described, self.text = layer._is_described, repr(layer)

    def check(self, recalibrated: bool = False) -> None:
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        for key, value in self.layer.state_dict().items():
            if not (recalibrated and key in statistics):
                assert np.array_equal(value, self.state[key]), key
        for key, address in self.addresses.items():
            assert id(getattr(self.layer, key)) == address, key
        for name, value in self.kept.items():
            assert getattr(self.layer, name) is value, name
        assert self.layer._observer is None
        assert self.layer._is_described is self.described
        assert repr(self.layer) == self.text


def by_formula(x: Array, eps: float = 1e-5) -> Array:
    """x_hat of a batch of (samples, channels, ...)."""
    over = (0, *range(2, x.ndim))
    return (x - x.mean(over, keepdims=True)) / np.sqrt(x.var(over, keepdims=True) + eps)


def moments(parts: list[Array], axis: int, unbiased: bool) -> tuple[Array, Array]:
    """Of all values of the parts, in float64."""
    values = np.concatenate([np.moveaxis(np.asarray(p, float), axis, 0).reshape(p.shape[axis], -1) for p in parts], 1)
    return values.mean(1), values.var(1, ddof=int(unbiased))


@pytest.mark.parametrize("case", range(20))
def test_a_network(rng: np.random.Generator, case: int) -> None:
    """Batches of any size through two layers, of which the second sees what the first makes of each batch."""
    dtype = np.dtype(rng.choice([np.float64, np.float32]))
    channels, rank, unbiased = (
        int(rng.integers(1, 6)),
        int(rng.integers(2, 5)),
        [bool(rng.random() < 0.5) for _ in "12"],
    )
    kind = {2: bn.BatchNorm1d, 3: bn.BatchNorm1d, 4: bn.BatchNorm2d}[rank]
    sizes = rng.integers(2, 9, size=int(rng.integers(1, 7)))
    activation = rng.choice([None, "relu"])
    print(f"{dtype}, channels {channels}, rank {rank}, unbiased {unbiased}, sizes {sizes}, activation {activation}")
    batches = [
        (rng.normal(size=(n, channels, 3, 2)[:rank]) * rng.uniform(0.5, 3) + 4 * rng.normal()).astype(dtype)
        for n in sizes
    ]
    first = drawn(kind(channels, dtype=dtype, unbiased=unbiased[0], activation=activation), rng).eval()
    second = drawn(kind(channels, dtype=dtype, unbiased=unbiased[1], momentum=None), rng)
    mixed = rng.normal(size=(channels, channels)).astype(dtype)
    for layer in (first, second):
        layer(batches[0])
        layer.backward(batches[0])
    snapshots = Snapshot(first), Snapshot(second)
    returned = bn.recalibrate(
        [first, second], lambda x: second(np.einsum("nc...,cd->nd...", first(x), mixed)), iter(batches)
    )
    assert returned is None
    for snapshot in snapshots:
        snapshot.check(recalibrated=True)

    exact = [batch.astype(float) for batch in batches]
    gamma, beta = (np.reshape(a.astype(float), (-1, *[1] * (rank - 2))) for a in (first.gamma, first.beta))
    between = [gamma * by_formula(x) + beta for x in exact]
    if activation:
        between = [np.maximum(y, 0) for y in between]
    between = [np.einsum("nc...,cd->nd...", y, mixed.astype(float)) for y in between]
    # Into the second layer go sums of products of the first one's y, all rounded to dtype; running statistics are, too.
    unit = float(np.finfo(dtype).eps)
    most = max(
        abs(np.einsum("nc...,cd->nd...", abs(gamma * by_formula(x)) + abs(beta), abs(mixed))).max() for x in exact
    )
    for layer, given, one, error in (
        (first, exact, unbiased[0], 2.0**-48 * max(abs(x).max() for x in exact)),
        (second, between, unbiased[1], 16 * unit * most),
    ):
        mean, var = moments(given, 1, one)
        assert np.allclose(layer.running_mean, mean, rtol=unit, atol=error)
        assert (abs(layer.running_var - var) <= unit * var + 4 * error * np.sqrt(var) + 4 * error**2).all()
        assert layer.num_batches_tracked == len(batches)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_dtypes_and_axes(rng: np.random.Generator, axis: int, dtype: Any) -> None:
    batches = [(rng.normal(size=(n, 4, n)[:: -1 if axis else 1]) + n).astype(dtype) for n in (4, 4)]
    layer = drawn(bn.BatchNorm(4, axis=axis, dtype=dtype), rng)
    bn.recalibrate(layer, layer, batches)
    mean, var = moments(batches, axis % 3, True)
    assert layer.running_mean.dtype == np.float32
    assert np.allclose(layer.running_mean, mean, rtol=1e-6)
    assert np.allclose(layer.running_var, var, rtol=1e-6)
    narrow = drawn(bn.BatchNorm(4, axis=axis, dtype=dtype, param_dtype=dtype), rng)
    bn.recalibrate(narrow, narrow, batches)
    assert narrow.running_mean.dtype == dtype
    assert np.array_equal(narrow.running_mean, layer.running_mean.astype(dtype))


def test_several_channel_axes(rng: np.random.Generator) -> None:
    batches = [rng.normal(size=(n, 2, 3)) + n for n in (2, 5)]
    layer, flat = (bn.BatchNorm((2, 3), axis=(1, 2), dtype=np.float64) for _ in "12")
    flat.running_mean, flat.running_var = np.zeros(6), np.ones(6)
    bn.recalibrate([layer, flat], lambda x: flat(x) + layer(x), batches)
    every = np.concatenate(batches)
    assert np.allclose(layer.running_mean, every.mean(0), rtol=1e-13)
    assert np.allclose(layer.running_var, every.var(0, ddof=1), rtol=1e-13)
    assert np.array_equal(flat.running_mean, layer.running_mean.ravel())
    assert np.array_equal(flat.running_var, layer.running_var.ravel())


@pytest.mark.parametrize("told", [{}, {"activation": "relu"}, {"source": bn.Renorm(2, 1)}, {"source": bn.Blend(3)}])
@pytest.mark.parametrize("meddle", ["nothing", "eval", "frozen", "tracking"])
def test_each_batch_is_normalized_with_its_own_statistics(
    rng: np.random.Generator, meddle: str, told: dict[str, Any]
) -> None:
    """Whatever the running statistics are, and whatever forward() does to the layer's modes."""
    x, found = [rng.normal(size=(5, 3, 4)).astype(np.float32) + i for i in range(3)], []
    layer = drawn(bn.BatchNorm1d(3, **told), rng)
    other = copy.deepcopy(layer).eval()
    other.running_mean += 5

    def forward(batch: Array, layer: Any = layer) -> None:
        assert layer.training
        if meddle == "eval":
            layer.eval()
        elif meddle == "frozen":
            layer.frozen = True
        elif meddle == "tracking":
            layer.track_running_stats = False
        before = layer.running_mean.copy()
        y = layer(batch)
        expected, _ = bn.forward_training(batch, layer.gamma, layer.beta, activation=layer.activation)
        assert np.array_equal(y, expected)
        assert np.array_equal(layer.running_mean, before)
        found.append(layer.backward(batch))
        _, saved = bn.forward_training(batch, layer.gamma, layer.beta, activation=layer.activation)
        assert np.array_equal(found[-1], bn.backward(batch, batch, saved, gamma=layer.gamma)[0])
        layer.train()
        layer.frozen, layer.track_running_stats = False, True

    bn.recalibrate(layer, forward, x)
    bn.recalibrate(other, lambda batch: forward(batch, other), x)
    assert len(found) == 6
    assert layer.grad_gamma is None
    mean, var = moments(x, 1, True)
    assert np.allclose(layer.running_mean, mean, rtol=1e-6)
    assert np.allclose(layer.running_var, var, rtol=1e-6)
    assert np.array_equal(layer.running_mean, other.running_mean)
    assert np.array_equal(layer.running_var, other.running_var)


@pytest.mark.parametrize("masked", ["normalize", "zero", "keep"])
def test_weights_and_lengths(rng: np.random.Generator, masked: str) -> None:
    x = [rng.normal(size=(4, 3, 6)) + i for i in range(3)]
    lengths = [rng.integers(0, 7, size=4) for _ in x]
    lengths[1][0] = 6
    masks = [np.arange(6) < n[:, None] for n in lengths]
    by_lengths, by_weights = (bn.BatchNorm1d(3, dtype=np.float64) for _ in "12")
    bn.recalibrate(by_lengths, lambda b: by_lengths(b[0], lengths=b[1], masked=masked), zip(x, lengths))
    bn.recalibrate(by_weights, lambda b: by_weights(b[0], weights=2.0 * b[1]), zip(x, masks))
    values = np.concatenate([np.moveaxis(a, 1, -1)[mask] for a, mask in zip(x, masks)])
    assert np.allclose(by_lengths.running_mean, values.mean(0), rtol=1e-13)
    assert np.allclose(by_lengths.running_var, values.var(0, ddof=1), rtol=1e-13)
    twice = np.concatenate([values, values])
    assert np.allclose(by_weights.running_mean, values.mean(0), rtol=1e-13)
    assert np.allclose(by_weights.running_var, twice.var(0, ddof=1), rtol=1e-13)


@pytest.mark.parametrize("has_weights", [False, True])
def test_segments(rng: np.random.Generator, has_weights: bool) -> None:
    """Each group has its own population; what saw nothing keeps what it has."""
    x = [rng.normal(size=(8, 3, 5)) + i for i in range(3)]
    indices = [INDEX, [2] * 8, [0] * 6 + [2] * 2]
    weights = [rng.integers(0, 2, size=(8, 5)) | (np.arange(5) < 2) for _ in x]  # at least two of each sample
    layer = drawn(bn.BatchNorm1d(3, dtype=np.float64, groups=bn.Segments([], 4)), rng)
    before = Snapshot(layer)

    def forward(number: int) -> None:
        layer.groups = bn.Segments(indices[number], 4)
        layer(x[number], weights=weights[number] if has_weights else None)

    bn.recalibrate(layer, forward, range(3))
    for key, rows in (("running_mean", layer.running_mean), ("running_var", layer.running_var)):
        assert np.array_equal(rows[[1, 3]], before.state[key][[1, 3]])
    assert layer.num_batches_tracked.tolist() == [2, 7, 3, 7]
    assert layer.num_batches_tracked.dtype == np.int64
    every = np.concatenate([np.moveaxis(a, 1, -1) for a in x])
    counted = np.concatenate(weights).astype(bool) if has_weights else np.ones((24, 5), bool)
    of_sample = np.concatenate(indices)
    for group in (0, 2):
        values = every[(of_sample == group)[:, None] & counted]
        assert np.allclose(layer.running_mean[group], values.mean(0), rtol=1e-12)
        assert np.allclose(layer.running_var[group], values.var(0, ddof=1), rtol=1e-12)


def test_split_and_conditional(rng: np.random.Generator) -> None:
    x = [rng.normal(size=(6, 3)) + i for i in range(3)]
    split = drawn(bn.BatchNorm1d(3, dtype=np.float64, groups=bn.Split(2)), rng)
    bn.recalibrate(split, split, x)
    for group, part in enumerate((np.s_[:3], np.s_[3:])):
        values = np.concatenate([a[part] for a in x])
        assert np.allclose(split.running_mean[group], values.mean(0), rtol=1e-12)
        assert np.allclose(split.running_var[group], values.var(0, ddof=1), rtol=1e-12)
    assert split.num_batches_tracked.tolist() == [3, 3]
    conditional = drawn(bn.BatchNorm1d(3, dtype=np.float64, groups=bn.Conditional([0, 1, 1, 0, 1, 0], 2)), rng)
    bn.recalibrate(conditional, conditional, x)
    every = np.concatenate(x)
    assert np.allclose(conditional.running_mean, every.mean(0), rtol=1e-12)
    assert np.allclose(conditional.running_var, every.var(0, ddof=1), rtol=1e-12)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("averaged", [False, True])
def test_ghost_batches(rng: np.random.Generator, averaged: bool, interleaved: bool) -> None:
    x = [rng.normal(size=(n, 3, 2)) + np.arange(n)[:, None, None] for n in (4, 6)]
    groups = bn.Ghost(2, interleaved, averaged)
    layer = drawn(bn.BatchNorm1d(3, dtype=np.float64, groups=groups), rng)
    ghosts = []
    bn.recalibrate(layer, lambda batch: ghosts.append(layer(batch)), x)
    for y, batch in zip(ghosts, x):
        assert np.array_equal(y, bn.forward_training(batch, layer.gamma, layer.beta, groups=groups)[0])
    mean, var = moments(x, 1, True)
    assert np.allclose(layer.running_mean, mean, rtol=1e-13)
    assert np.allclose(layer.running_var, var, rtol=1e-13)
    assert layer.num_batches_tracked == 2


def test_in_place(rng: np.random.Generator) -> None:
    x = [rng.normal(size=(4, 3)) + i for i in range(3)]
    expected = moments([a.copy() for a in x], 1, True)
    layer = bn.BatchNorm1d(3, dtype=np.float64)
    bn.recalibrate(layer, lambda batch: layer(batch, out=batch), x)
    assert np.allclose(layer.running_mean, expected[0], rtol=1e-13)
    assert np.allclose(layer.running_var, expected[1], rtol=1e-13)


def test_backward_of_the_call_before(rng: np.random.Generator) -> None:
    """Which wrote over its x; those of recalibrate() do not."""
    x, dy = rng.normal(size=(2, 4, 3))
    layer = drawn(bn.BatchNorm1d(3, dtype=np.float64, activation=bn.LeakyReLU(0.5)), rng)
    before = layer.state_dict()
    y, saved = bn.forward_training(x, layer.gamma, layer.beta, activation=layer.activation)
    layer(x, out=x)
    assert np.array_equal(x, y)
    bn.recalibrate(layer, layer, [rng.normal(size=(5, 3)) for _ in range(3)])
    dx, dgamma, dbeta = bn.backward(dy, y, saved, gamma=before["weight"], from_output=True)
    assert np.array_equal(layer.backward(dy), dx)
    assert np.array_equal(layer.grad_gamma, dgamma)
    assert np.array_equal(layer.grad_beta, dbeta)


def test_a_layer_that_is_called_twice_or_given_twice(rng: np.random.Generator) -> None:
    x = [rng.normal(size=(4, 3)) + i for i in range(3)]
    layer, other = (bn.BatchNorm1d(3, dtype=np.float64) for _ in "12")
    bn.recalibrate((layer, other, layer), lambda batch: (layer(batch), layer(batch + 1), other(batch)), x)
    mean, var = moments([*x, *(a + 1 for a in x)], 1, True)
    assert np.allclose(layer.running_mean, mean, rtol=1e-13)
    assert np.allclose(layer.running_var, var, rtol=1e-13)
    assert (layer.num_batches_tracked, other.num_batches_tracked) == (6, 3)


def test_a_call_that_failed_is_not_seen(rng: np.random.Generator) -> None:
    x = [rng.normal(size=(4, 3)) + i for i in range(3)]
    layer = bn.BatchNorm1d(3, dtype=np.float64)

    def forward(batch: Array) -> None:
        for wrong in ({"residual": batch[:2]}, {"out": batch[:2]}, {"weights": [1, 2]}, {"masked": "?"}):
            with pytest.raises(ValueError, match="shape|masked"):
                layer(batch, **wrong)
        with pytest.raises(ValueError, match="channels"):
            layer(batch[:, :2])
        layer(batch)

    bn.recalibrate(layer, forward, x)
    assert np.allclose(layer.running_var, moments(x, 1, True)[1], rtol=1e-13)
    assert layer.num_batches_tracked == 3


def test_training_goes_on_from_the_population(rng: np.random.Generator) -> None:
    x = [rng.normal(size=(4, 3)) + i for i in range(4)]
    layer = drawn(bn.BatchNorm1d(3, momentum=None, dtype=np.float64), rng)
    bn.recalibrate(layer, layer, x[:3])
    mean = layer.running_mean.copy()
    y = layer(x[3])
    assert np.array_equal(y, bn.forward_training(x[3], layer.gamma, layer.beta)[0])
    assert np.allclose(layer.running_mean, 0.75 * mean + 0.25 * x[3].mean(0), rtol=1e-13)
    layer.eval()
    expected = bn.forward_inference(
        x[0], layer.gamma, layer.beta, running_mean=layer.running_mean, running_var=layer.running_var
    )
    assert np.array_equal(layer(x[0]), expected)


def test_so_many_batches_and_no_more(rng: np.random.Generator) -> None:
    x = [rng.normal(size=(4, 3)) + i for i in range(5)]
    layer, stream = bn.BatchNorm1d(3, dtype=np.float64), iter(x)
    bn.recalibrate(layer, layer, stream, num_batches=np.int64(3))
    assert np.allclose(layer.running_mean, np.concatenate(x[:3]).mean(0), rtol=1e-13)
    assert len(list(stream)) == 2
    items: list[Any] = []
    bn.recalibrate(layer, lambda item: items.append(item) or layer(item[0]), [(x[0], "label"), [x[1]]])
    assert [type(item) for item in items] == [tuple, list]


def test_values_that_do_not_count(rng: np.random.Generator) -> None:
    """nonfinite="skip" leaves batches, and ghost batches, out; one value is a value."""
    good, bad = rng.normal(size=(4, 3)), np.full((4, 3), np.nan)
    half = np.concatenate([good + 1, bad])
    for groups, parts, batches in ((None, [good], 1), (bn.Ghost(4), [good, good + 1], 2)):
        layer = bn.BatchNorm1d(3, dtype=np.float64, groups=groups, running=bn.Running(nonfinite="skip"))
        bn.recalibrate(layer, layer, [good, bad, half])
        mean, var = moments(parts, 1, True)
        assert np.allclose(layer.running_mean, mean, rtol=1e-12)
        assert np.allclose(layer.running_var, var, rtol=1e-12)
        assert layer.num_batches_tracked == batches
    for policy in ("running", "beta"):
        layer = drawn(bn.BatchNorm1d(3, dtype=np.float64, running=bn.Running(single_value=policy)), rng)
        ys: list[Any] = []
        running = {"running_mean": layer.running_mean.copy(), "running_var": layer.running_var.copy()}
        bn.recalibrate(layer, lambda batch, layer=layer, ys=ys: ys.append(layer(batch)), [good, good[:1] + 1])
        mean, var = moments([good, good[:1] + 1], 1, True)
        assert np.allclose(layer.running_mean, mean, rtol=1e-12)
        assert np.allclose(layer.running_var, var, rtol=1e-12)
        single = bn.forward_inference(good[:1] + 1, layer.gamma, layer.beta, **running)
        assert np.array_equal(ys[1], single if policy == "running" else layer.beta[None])


def test_copies_are_not_observed(rng: np.random.Generator) -> None:
    x = [rng.normal(size=(4, 3)).astype(np.float32) + i for i in range(2)]
    layer, made = bn.BatchNorm1d(3), []

    def forward(batch: Array) -> None:
        made.extend([copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))])
        layer(batch)

    bn.recalibrate(layer, forward, x)
    for other in made:
        other.running_mean, other.running_var = np.zeros(3, np.float32), np.ones(3, np.float32)
        other(x[0])
        assert other.num_batches_tracked == 1
        assert np.allclose(other.running_mean, 0.1 * x[0].mean(0), rtol=1e-5)
    assert layer.num_batches_tracked == 2


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("place", ["forward", "batches"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_an_exception_changes_nothing(rng: np.random.Generator, mode: str, place: str, error: Any) -> None:
    x = rng.normal(size=(4, 3)).astype(np.float32)
    layers = [drawn(bn.BatchNorm1d(3, activation=each), rng) for each in (None, "relu")]
    for layer in layers:
        getattr(layer, mode)()(x, **({"weights": [1, 1, 0, 2], "residual": x} if layer is layers[1] else {}))
        dx = layer.backward(x)
    before, last = [Snapshot(layer) for layer in layers], x + 2

    def batches() -> Iterator[Array]:
        yield x
        yield x + 1
        if place == "batches":
            raise error("stop")
        yield last

    def forward(batch: Array) -> None:
        for layer in layers:
            layer(batch)
            layer.backward(batch)
        if place == "forward" and batch is last:
            raise error("stop")

    with pytest.raises(error, match="stop"):
        bn.recalibrate(layers, forward, batches())
    for snapshot in before:
        snapshot.check()
    assert np.array_equal(layers[1].backward(x), dx)


def untracked() -> bn.BatchNorm:
    layer = bn.BatchNorm1d(5)
    layer.track_running_stats = False
    return layer


def without_var() -> bn.BatchNorm:
    layer = bn.BatchNorm1d(5)
    layer.running_var = None
    return layer


FROZEN = bn.BatchNorm1d(5, frozen=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layers": []}, ValueError, "layers is empty"),
        ({"layers": 5}, TypeError, "layers is of type int, expected a BatchNorm or a sequence of them"),
        ({"layers": ["bn1"]}, TypeError, r"layers\[0\] is of type str, expected a BatchNorm"),
        ({"more": np.zeros(3)}, TypeError, r"layers\[2\] is of type numpy.ndarray, expected a BatchNorm"),
        ({"more": bn.BatchNorm1d}, TypeError, r"layers\[2\] is of type type, expected a BatchNorm"),
        (
            {"more": bn.BatchNorm1d(5, track_running_stats=False)},
            ValueError,
            r"layers\[2\] \(BatchNorm1d of 5 channels\) keeps no running statistics",
        ),
        ({"more": untracked()}, ValueError, r"layers\[2\] \(BatchNorm1d of 5 channels\) keeps no running statistics"),
        ({"more": without_var()}, ValueError, r"running_var of layers\[2\] \(BatchNorm1d of 5 channels\) is None"),
        ({"more": bn.LazyBatchNorm1d()}, RuntimeError, r"layers\[2\] \(LazyBatchNorm1d of 0 channels\) is lazy"),
        ({"more": bn.FrozenBatchNorm2d(5)}, ValueError, r"layers\[2\] \(FrozenBatchNorm2d of 5 channels\) is frozen"),
        ({"more": bn.BatchNorm2d(5, frozen=True)}, ValueError, r"layers\[2\] \(BatchNorm2d of 5 channels\) is frozen"),
        ({"layers": [FROZEN, FROZEN]}, ValueError, r"layers\[0\] \(BatchNorm1d of 5 channels\) is frozen"),
        ({"forward": None}, TypeError, "forward is of type NoneType, expected a function of a batch"),
        ({"batches": 5}, TypeError, "batches is of type int, expected an iterable"),
        ({"batches": []}, ValueError, "batches is empty"),
        ({"num_batches": 0}, ValueError, "num_batches is 0, expected at least 1"),
        ({"num_batches": 2.0}, TypeError, r"num_batches is 2\.0, expected an int"),
        ({"num_batches": 200}, ValueError, "batches ended after 2 of 200"),
        ({"batches": [], "num_batches": 2}, ValueError, "batches ended after 0 of 2"),
        ({"progress": "yes"}, TypeError, "progress is 'yes', expected True, False or None"),
        (
            {"more": bn.BatchNorm3d(5)},
            ValueError,
            r"layers\[2\] \(BatchNorm3d of 5 channels\) was never called by forw",
        ),
    ],
)
def test_what_is_refused(
    rng: np.random.Generator, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    layers = [drawn(bn.BatchNorm1d(3), rng) for _ in "12"]
    x = rng.normal(size=(4, 3)).astype(np.float32)
    for layer in layers:
        layer.eval()(x)
    before = [Snapshot(layer) for layer in layers]
    given: dict[str, Any] = {"layers": layers, "forward": lambda b: [layer(b) for layer in layers], "batches": [x, x]}
    more = [change.pop("more")] if "more" in change else []
    given.update(change)
    if more:
        given["layers"] = [*layers, *more]
        change["more"] = more[0]
    with pytest.raises(error, match=message):
        bn.recalibrate(**given)
    for snapshot in before:
        snapshot.check()


@pytest.mark.parametrize(
    ("told", "x", "message"),
    [
        ({}, np.empty((0, 3)), r"batch 1 is empty where it reaches layers\[1\] \(BatchNorm1d of 3 channels\)"),
        ({"groups": bn.Split(2)}, np.empty((0, 3)), r"batch 1 is empty where it reaches layers\[1\]"),
        ({"groups": bn.Ghost(2)}, np.empty((2, 3, 0)), r"batch 1 is empty where it reaches layers\[1\]"),
        ({}, [[0, 1, 2], [1, np.nan, 1]], r"batch 1 makes the statistics of layers\[1\] .* infinite or NaN: channel 1"),
        (
            {},
            [[0, 1, -np.inf], [1, 0, 1]],
            r"batch 1 makes the statistics of layers\[1\] .* infinite or NaN: channel 2",
        ),
        ({}, [[0, 1, 1e200], [1, 0, -1e200]], r"batch 1 makes the statistics .* infinite or NaN: channel 2"),
        ({"running": bn.Running(nonfinite="error")}, [[0, 1, np.inf], [1, 0, 1]], "finite"),
        ({}, [[1.0, 2, 3]], "value"),
    ],
)
def test_batches_that_cannot_be(rng: np.random.Generator, told: dict[str, Any], x: Any, message: str) -> None:
    first = drawn(bn.BatchNorm1d(3, dtype=np.float64), rng)
    second = drawn(bn.BatchNorm1d(3, dtype=np.float64, **told), rng)
    before = Snapshot(first), Snapshot(second)
    good = rng.normal(size=(4, 3))
    batches = [(good, good), (good, np.asarray(x, float))]
    with pytest.raises(ValueError, match=message):
        bn.recalibrate([first, second], lambda batch: (first(batch[0]), second(batch[1])), batches)
    for snapshot in before:
        snapshot.check()


@pytest.mark.parametrize(
    ("told", "x", "message"),
    [
        (
            {"running": bn.Running(single_value="beta")},
            [[1.0, 2, 3]],
            r"layers\[1\] \(BatchNorm1d of 3 channels\) saw one value per channel, which has no unbiased variance",
        ),
        (
            {"groups": bn.Split(2), "running": bn.Running(single_value="beta")},
            [[1.0, 2, 3], [1, 2, 3]],
            r"group 0 of layers\[1\] .* saw one value per channel",
        ),
        (
            {"running": bn.Running(nonfinite="skip")},
            [[0, 1, 2], [1, np.nan, 1]],
            r"layers\[1\] .* had no batch that was finite",
        ),
        (
            {"dtype": np.float16, "param_dtype": np.float16},
            [[0, 6e4, 0], [0, -6e4, 1]],
            r"the variance of layers\[1\] .* is 7\.2e\+09 in channel 1, which is beyond float16",
        ),
        (
            {"dtype": np.float16, "param_dtype": np.float16, "groups": bn.Segments([1, 1], 2)},
            [[0, 6e4, 0], [0, -6e4, 1]],
            r"the variance of group 1 of layers\[1\] .* in channel 1, which is beyond float16",
        ),
    ],
)
def test_populations_that_cannot_be(rng: np.random.Generator, told: dict[str, Any], x: Any, message: str) -> None:
    """Found at the end; the layer before it, of which all is well, stays as it is, too."""
    first = drawn(bn.BatchNorm1d(3, dtype=np.float64), rng)
    second = drawn(bn.BatchNorm1d(3, **{"dtype": np.float64, **told}), rng)
    before = Snapshot(first), Snapshot(second)
    x = np.asarray(x, second.dtype)
    with pytest.raises(ValueError, match=message):
        bn.recalibrate([first, second], lambda batch: (first(batch), second(x)), [rng.normal(size=(4, 3))])
    for snapshot in before:
        snapshot.check()
    if "group" not in message and "one value" in message:
        second.unbiased = False
        bn.recalibrate(second, second, [x])
        assert second.running_var.tolist() == [0] * 3


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        (
            "running_var",
            np.ones(4, "f4"),
            ValueError,
            r"running_var of layers\[1\] .* has shape \(4,\), expected \(3,\)",
        ),
        ("running_var", np.ones(6, "f4")[::2], ValueError, r"running_var of layers\[1\] .* is not contiguous"),
        ("running_mean", "read-only", ValueError, r"running_mean of layers\[1\] .* is read-only"),
        ("running_var", np.ma.ones(3, "f4"), TypeError, r"running_var of layers\[1\] .* is of type MaskedArray"),
    ],
)
def test_running_statistics_that_cannot_be_written(
    rng: np.random.Generator, name: str, value: Any, error: type[Exception], message: str, late: bool
) -> None:
    """Found before anything is done, or where forward() put them there, before anything is written."""
    first, second = (drawn(bn.BatchNorm1d(3), rng) for _ in "12")
    before = Snapshot(first)
    if isinstance(value, str):
        value = np.zeros(3, np.float32)
        value.flags.writeable = False
    calls = 0

    def forward(batch: Array) -> None:
        nonlocal calls
        calls += 1
        first(batch)
        second(batch)
        if late:
            setattr(second, name, value)

    if not late:
        setattr(second, name, value)
    with pytest.raises(error, match=message):
        bn.recalibrate([first, second], forward, [rng.normal(size=(4, 3)).astype(np.float32)])
    assert calls == late
    before.check()
    assert second._observer is None


def test_other_groups_than_the_running_statistics_have(rng: np.random.Generator) -> None:
    layer = drawn(bn.BatchNorm1d(3, affine=False, groups=bn.Segments([], 2)), rng)
    before = layer.state_dict()

    def forward(batch: Array) -> None:
        layer.groups = bn.Segments([0, 1, 2, 1], 3)
        layer(batch)

    with pytest.raises(ValueError, match=r"layers \(BatchNorm1d of 3 channels\) has groups .* not of"):
        bn.recalibrate(layer, forward, [rng.normal(size=(4, 3)).astype(np.float32)])
    for key, value in layer.state_dict().items():
        assert np.array_equal(value, before[key])


def test_empty_batches_of_segments(rng: np.random.Generator) -> None:
    """And those of which no weight is above 0."""
    layer = drawn(bn.BatchNorm1d(3, dtype=np.float64, groups=bn.Segments([], 2)), rng)
    x, weights = [np.ones((4, 3)), np.empty((0, 3))], [np.zeros(4), np.ones(0)]
    for number in (0, 1):
        layer.groups = bn.Segments([1, 0] * 2 if number == 0 else [], 2)
        before = Snapshot(layer)
        with pytest.raises(ValueError, match=r"batch 0 is empty where it reaches layers \(BatchNorm1d of 3 channels\)"):
            bn.recalibrate(layer, lambda n: layer(x[n], weights=weights[n]), [number])
        before.check()


def test_one_at_a_time(rng: np.random.Generator) -> None:
    layer = drawn(bn.BatchNorm1d(3), rng)
    before = Snapshot(layer)
    x = rng.normal(size=(4, 3)).astype(np.float32)
    with pytest.raises(RuntimeError, match=r"layers \(BatchNorm1d of 3 channels\) is being recalibrated already"):
        bn.recalibrate(layer, lambda batch: bn.recalibrate(layer, layer, [batch]), [x])
    before.check()


def test_progress(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = stand_in(monkeypatch)
    x = [rng.normal(size=(4, 3)).astype(np.float32) for _ in range(3)]
    layer = bn.BatchNorm1d(3)
    for batches, told, expected in (
        (x, {"progress": True}, 3),
        (x, {"progress": True, "num_batches": 2}, 2),
        (iter(x), {"progress": True}, None),
    ):
        bars.clear()
        bn.recalibrate(layer, layer, batches, **told)
        assert bars == [(expected, " batches")]
    for terminal in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", terminal)
        bars.clear()
        bn.recalibrate(layer, layer, x)
        assert len(bars) == terminal.isatty()
        bn.recalibrate(layer, layer, x, progress=False)
        assert len(bars) == terminal.isatty()
    monkeypatch.setitem(sys.modules, "tqdm", None)
    before = Snapshot(layer)
    with pytest.raises(ImportError, match="progress=True needs tqdm"):
        bn.recalibrate(layer, layer, x, progress=True)
    before.check()


# Layer by layer


class Network:
    """Two or three layers with a product of matrices and a ReLU in between, in float64."""

    def __init__(self, rng: np.random.Generator, layers: int = 2, **told: Any) -> None:
        self.layers = [drawn(bn.BatchNorm1d(3, dtype=np.float64, **told), rng) for _ in range(layers)]
        self.mixed = [rng.normal(size=(3, 3)) for _ in self.layers]

    def __call__(self, x: Array) -> Array:
        for layer, mixed in zip(self.layers, self.mixed):
            x = np.maximum(layer(x), 0) @ mixed
        return x

    def fed(self, x: Array) -> list[Array]:
        """What goes into each layer in evaluation, by the formula."""
        inputs = []
        for layer, mixed in zip(self.layers, self.mixed):
            inputs.append(x)
            x = layer.gamma * (x - layer.running_mean) / np.sqrt(layer.running_var + layer.eps) + layer.beta
            x = np.maximum(x, 0) @ mixed
        return inputs


@pytest.mark.parametrize("case", range(6))
@pytest.mark.parametrize("meddle", [False, True])
def test_layerwise_statistics_are_those_of_what_evaluation_feeds(
    rng: np.random.Generator, case: int, meddle: bool
) -> None:
    """Of each layer, and by default of the first alone; whatever forward() does to modes."""
    layers, unbiased = int(rng.integers(2, 4)), bool(case % 2)
    network = Network(rng, layers, unbiased=unbiased)
    batches = [rng.normal(size=(int(n), 3)) * n + 3 * rng.normal(size=3) for n in rng.integers(2, 6, 7)]
    every = np.concatenate(batches)
    network.layers[0].eval()
    network.layers[1](batches[0])
    snapshots = [Snapshot(layer) for layer in network.layers]
    seen: list[list[bool]] = []

    def forward(batch: Array) -> None:
        seen.append([layer.training for layer in network.layers])
        if meddle:
            for layer in network.layers:
                layer.train(bool(len(seen) % 2))
        network(batch)

    # In an order that is not that of the calls, and with one that is there twice.
    bn.recalibrate([*reversed(network.layers), network.layers[0]], forward, batches, layerwise=True)
    assert len(seen) == layers * len(batches)
    if not meddle:
        assert seen[:: len(batches)] == [[at >= done for at in range(layers)] for done in range(layers)]
    for snapshot in snapshots:
        snapshot.check(recalibrated=True)
    for layer, given in zip(network.layers, network.fed(every)):
        assert np.allclose(layer.running_mean, given.mean(0), rtol=1e-11, atol=1e-12)
        assert np.allclose(layer.running_var, given.var(0, ddof=int(unbiased)), rtol=1e-11)
        assert layer.num_batches_tracked == len(batches)

    bn.recalibrate(network.layers, network, iter(batches))
    first, second = network.fed(every)[:2]
    assert np.allclose(network.layers[0].running_mean, first.mean(0), rtol=1e-11)
    assert np.allclose(network.layers[0].running_var, first.var(0, ddof=int(unbiased)), rtol=1e-11)
    assert not np.allclose(network.layers[1].running_var, second.var(0, ddof=int(unbiased)), rtol=0.01)


def test_layerwise_of_one_layer_is_the_default(rng: np.random.Generator) -> None:
    batches = [rng.normal(size=(4, 3)).astype(np.float32) + i for i in range(3)]
    layers = [drawn(bn.BatchNorm1d(3), rng) for _ in "12"]
    bn.recalibrate(layers[0], layers[0], iter(batches))
    bn.recalibrate(layers[1], layers[1], iter(batches), layerwise=True)
    assert np.array_equal(layers[0].running_mean, layers[1].running_mean)
    assert np.array_equal(layers[0].running_var, layers[1].running_var)


def test_layerwise_with_rows_and_with_num_batches(rng: np.random.Generator) -> None:
    first = drawn(bn.BatchNorm1d(3, dtype=np.float64, groups=bn.Split(2)), rng)
    second = drawn(bn.BatchNorm1d(3, dtype=np.float64), rng)
    batches = [rng.normal(size=(6, 3)) + i for i in range(5)]
    bn.recalibrate([first, second], lambda x: second(first(x)), batches, num_batches=4, layerwise=True)
    assert first.num_batches_tracked.tolist() == [4, 4]
    first.eval()
    given = np.concatenate([first(batch) for batch in batches[:4]])
    assert np.allclose(second.running_mean, given.mean(0), rtol=1e-11, atol=1e-12)
    assert np.allclose(second.running_var, given.var(0, ddof=1), rtol=1e-11)


def test_layerwise_is_all_or_nothing(rng: np.random.Generator) -> None:
    """Also where the first layer had its statistics already."""
    network = Network(rng)
    batches = [rng.normal(size=(4, 3)) for _ in range(3)]
    snapshots = [Snapshot(layer) for layer in network.layers]
    calls = []

    def failing(batch: Array) -> None:
        calls.append(1)
        if len(calls) == 5:
            assert not np.array_equal(network.layers[0].running_mean, snapshots[0].state["running_mean"])
            raise KeyError("stop")
        network(batch)

    with pytest.raises(KeyError, match="stop"):
        bn.recalibrate(network.layers, failing, batches, layerwise=True)
    for snapshot in snapshots:
        snapshot.check()
    never = drawn(bn.BatchNorm1d(3), rng)
    with pytest.raises(ValueError, match=r"layers\[2\] \(BatchNorm1d of 3 channels\) was never called by forward"):
        bn.recalibrate([*network.layers, never], network, batches, layerwise=True)
    for snapshot in snapshots:
        snapshot.check()


def test_layerwise_needs_batches_again_and_one_order(rng: np.random.Generator) -> None:
    network = Network(rng)
    first, second = network.layers
    batches = [rng.normal(size=(4, 3)) for _ in range(3)]
    snapshots = [Snapshot(layer) for layer in network.layers]
    with pytest.raises(TypeError, match=r"^batches is of type list_iterator, which can be gone through once, expected"):
        bn.recalibrate(network.layers, network, iter(batches), layerwise=True)
    with pytest.raises(TypeError, match="^layerwise is 'yes'"):
        bn.recalibrate(network.layers, network, batches, layerwise="yes")  # type: ignore[arg-type]

    def of_two_minds(number: int) -> None:
        (first if number else second)((second if number else first)(batches[number]))

    told = r"^forward\(\) calls layers\[1\] .* before layers\[0\] .* in batch 1, but not in an earlier one"
    with pytest.raises(ValueError, match=told):
        bn.recalibrate(network.layers, of_two_minds, range(3), layerwise=True)
    for snapshot in snapshots:
        snapshot.check()


def test_layerwise_of_two_branches(rng: np.random.Generator) -> None:
    """A network that goes twice over each batch, with other halves: all calls of a layer are one population."""
    network = Network(rng)
    batches = [rng.normal(size=(8, 3)) * i for i in range(1, 4)]
    bn.recalibrate(
        network.layers, lambda x: (network(np.ascontiguousarray(x[:3])), network(x[3:])), batches, layerwise=True
    )
    for layer, given in zip(network.layers, network.fed(np.concatenate(batches))):
        assert np.allclose(layer.running_mean, given.mean(0), rtol=1e-11, atol=1e-12)
        assert np.allclose(layer.running_var, given.var(0, ddof=1), rtol=1e-11)
        assert layer.num_batches_tracked == 6


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("nonfinite", ["propagate", "skip", "error"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_neither_layer_nor_recalibration_stores_what_its_type_cannot_hold(
    rng: np.random.Generator, dtype: Any, nonfinite: Any, unbiased: bool
) -> None:
    """float16 ends at 65504. Both look at what would be stored: the layer at each update, recalibration at the end."""
    far = 300 if dtype == np.float16 else 3e19
    told: dict[str, Any] = {"dtype": dtype, "param_dtype": dtype, "unbiased": unbiased, "momentum": 1}
    layer = bn.BatchNorm1d(1, running=bn.Running(nonfinite=nonfinite), **told)
    wide = np.array([[-far], [far], [-far], [far]], dtype)
    if nonfinite != "propagate":
        if nonfinite == "error":
            with pytest.raises(ValueError, match="running_var"):
                layer(wide)
        else:
            layer(wide)
        assert (layer.running_mean, layer.running_var, layer.num_batches_tracked) == (0, 1, 0)
    with pytest.raises(ValueError, match=f"the variance of layers .* is beyond {np.dtype(dtype)}"):
        bn.recalibrate(layer, layer, [wide])
    assert (layer.running_mean, layer.running_var, layer.num_batches_tracked) == (0, 1, 0)
    # Together with others it is not too wide, and counts.
    fine = [np.zeros((4, 1), dtype)] * 3
    bn.recalibrate(layer, layer, [*fine, wide])
    assert np.allclose(layer.running_var, 4 * float(far) ** 2 / (16 - unbiased), rtol=1e-3)
    assert layer.num_batches_tracked == 4


def test_running_statistics_that_are_one_array(rng: np.random.Generator) -> None:
    layer = bn.BatchNorm1d(3)
    layer.running_var = layer.running_mean
    with pytest.raises(ValueError, match=r"running_var of layers .* overlaps its running_mean"):
        bn.recalibrate(layer, layer, [rng.normal(size=(4, 3)).astype(np.float32)])
    assert layer.running_mean.tolist() == [0, 0, 0]
