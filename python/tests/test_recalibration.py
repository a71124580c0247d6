# SPDX-License-Identifier: Apache-2.0
"""Recalibrated layers have the mean and variance of all that goes into them, and nothing else has changed."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bars import Terminal, stand_in
from recalibrating import Snapshot, drawn, moments

import batchnorm as bn

Array = np.ndarray[Any, Any]
INDEX = [0, 2, 0, 0, 2, 2, 2, 0]


def by_formula(x: Array, eps: float = 1e-5) -> Array:
    """x_hat of a batch of (samples, channels, ...)."""
    over = (0, *range(2, x.ndim))
    return (x - x.mean(over, keepdims=True)) / np.sqrt(x.var(over, keepdims=True) + eps)


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
    """The result does not depend on the running statistics, nor on modes that forward() changes."""
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
    """The call before wrote over its x; those of recalibrate() do not."""
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
