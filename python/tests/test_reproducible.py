# SPDX-License-Identifier: Apache-2.0
"""SyncBatchNorm(reproducible=True): the same bits for any number of members and any share of the samples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from test_distributed import Together, alone, members, step

from batchnorm._core.arrays import Array, Doubles
from batchnorm.distributed import SyncBatchNorm
from batchnorm.functional.samples import added, gathered_samples

PARTS = [[8], [4, 4], [3, 5], [1, 7], [0, 8], [8, 0, 0], [3, 1, 4], [0, 0, 7, 1], [3, 1, 2, 2], [1] * 8]
SHAPES: dict[str, tuple[tuple[int, ...], int | tuple[int, ...]]] = {
    "planes": ((8, 3, 7, 9), 1),
    "tiny planes": ((8, 5, 2, 3), 1),
    "rows": ((8, 37), 1),
    "rows of positions": ((8, 11, 5), -1),
    "channels of two axes": ((8, 2, 3, 6), (1, 2)),
    "narrow planes": ((8, 2, 130), 1),
}
RESULTS = ("running_mean", "running_var", "total_grad_gamma", "total_grad_beta")


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> tuple[Array, Array]:
    """Such that another order of addition shows: the mean is far from 0."""
    x = rng.normal(100, 1, size=shape) * np.exp(rng.normal(size=shape))
    return x.astype(dtype), rng.normal(3, 1, size=shape).astype(dtype)


def results(
    x: Array, dy: Array, parts: list[int], axis: Any, reproducible: bool = True, **told: Any
) -> tuple[list[bytes], list[SyncBatchNorm]]:
    """The bits of two steps of members that have so many samples each."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    channels = tuple(x.shape[a] for a in axes)
    features = channels if len(channels) > 1 else channels[0]
    layers = members(len(parts), features, dtype=x.dtype, axis=axis, reproducible=reproducible)
    for layer in layers:
        layer.gamma[...] = np.linspace(0.5, 2, layer.gamma.size).reshape(channels)
    places, bits = np.cumsum(parts)[:-1], []
    split = {
        name: np.split(value, places) if isinstance(value, np.ndarray) else [value] * len(parts)
        for name, value in told.items()
    }
    for _ in "12":
        found = step(layers, np.split(x, places), np.split(dy, places), **split)
        bits += [np.concatenate([each[result] for each in found]).tobytes() for result in (0, 1)]
    for name in RESULTS:
        of_members = {getattr(layer, name).tobytes() for layer in layers}
        assert len(of_members) == 1
        bits += of_members
    return bits, layers


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_same_bits_however_the_batch_is_parted(rng: np.random.Generator, name: str, dtype: str) -> None:
    shape, axis = SHAPES[name]
    x, dy = numbers(rng, shape, dtype)
    expected, (one,) = results(x, dy, [8], axis)
    for parts in PARTS:
        bits, layers = results(x, dy, parts, axis)
        assert bits == expected, parts
        total = sum(layer.grad_gamma.astype("f8") for layer in layers)
        tolerance = 1e-2 if dtype == "f2" else 1e-5
        assert np.allclose(total, one.total_grad_gamma, rtol=tolerance, atol=tolerance * np.abs(total).max())


def test_without_it_the_last_bits_differ(rng: np.random.Generator) -> None:
    """Or the test above could not fail."""
    x, dy = numbers(rng, (8, 37), "f8")
    expected, _ = results(x, dy, [8], 1, reproducible=False)
    different = [parts for parts in PARTS[1:] if results(x, dy, parts, 1, reproducible=False)[0] != expected]
    assert [3, 1, 2, 2] in different
    assert [1] * 8 in different


@pytest.mark.parametrize("masked", ["normalize", "zero", "keep"])
def test_masks(rng: np.random.Generator, masked: str) -> None:
    x, dy = numbers(rng, (8, 3, 6), "f4")
    told = {"lengths": np.array([6, 0, 3, 6, 0, 1, 5, 2]), "masked": masked}
    expected, _ = results(x, dy, [8], 1, **told)
    for parts in PARTS:
        assert results(x, dy, parts, 1, **told)[0] == expected, parts
    weights = rng.uniform(0, 2, size=(8, 6))
    expected, _ = results(x, dy, [8], 1, weights=weights)
    assert results(x, dy, [3, 1, 4], 1, weights=weights)[0] == expected


def test_as_the_layer_that_is_not_reproducible(rng: np.random.Generator) -> None:
    x, dy = rng.normal(3, 2, size=(2, 8, 3, 5))
    ours, other = SyncBatchNorm(3, alone, dtype="f8", reproducible=True), SyncBatchNorm(3, alone, dtype="f8")
    for layer in (ours, other):
        layer.gamma = [0.5, 1.5, -2.0]
    for _ in "12":
        assert np.allclose(ours(x), other(x), rtol=1e-12, atol=1e-12)
        assert np.allclose(ours.backward(dy), other.backward(dy), rtol=1e-12, atol=1e-12)
    for name in (*RESULTS, "grad_gamma", "grad_beta"):
        assert np.allclose(getattr(ours, name), getattr(other, name), rtol=1e-12)
    assert ours.total_grad_gamma.tobytes() == ours.grad_gamma.tobytes()
    assert repr(ours) == repr(other)[:-1] + ", reproducible=True)"


def test_nobody_has_samples() -> None:
    layers = members(2, 3, reproducible=True)
    empty = np.empty((0, 3), "f4")
    for y, dx in step(layers, [empty, empty], [empty, empty]):
        assert y.shape == dx.shape == (0, 3)
    assert layers[0].running_var.tolist() == [1, 1, 1]
    assert layers[1].total_grad_gamma.tolist() == [0, 0, 0]


def test_errors(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3)).astype("f4")
    with pytest.raises(TypeError, match="reproducible is 'yes', expected True or False"):
        SyncBatchNorm(3, alone, reproducible="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="groups are of samples along axis 0, but that is a channel axis"):
        SyncBatchNorm(4, alone, axis=0, reproducible=True)(x)
    with pytest.raises(ValueError, match="the batch of all processes has one value per channel"):
        SyncBatchNorm(3, alone, reproducible=True)(x[:1])

    def never(rows: Doubles) -> Doubles:
        raise AssertionError("an exchange")

    layer = SyncBatchNorm(3, never, reproducible=True)
    with pytest.raises(ValueError, match="x has 4 channels"):
        layer(np.ones((2, 4), "f4"))
    assert np.isfinite(layer(x, training=False)).all()


def test_rows_of_samples_are_gathered_in_order(rng: np.random.Generator) -> None:
    own = [rng.normal(size=(samples, 2, 3)) for samples in (2, 0, 3)]
    together, whole = Together(3), np.concatenate(own)

    def of(member: int) -> None:
        gather = together.exchange(member)
        rows, counts = gathered_samples(gather, own[member])
        assert counts == (2, 0, 3)
        assert rows.tobytes() == whole.tobytes()
        again, _ = gathered_samples(gather, own[member], counts)
        assert again.tobytes() == whole.tobytes()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(of, range(3)))
    total = np.zeros((2, 3))
    for row in whole:
        total = total + row
    assert added(whole).tobytes() == total.tobytes()
    assert added(whole[:0]).tolist() == [[0, 0, 0], [0, 0, 0]]
