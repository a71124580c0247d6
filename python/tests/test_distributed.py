# SPDX-License-Identifier: Apache-2.0
"""SyncBatchNorm over threads that stand for processes: the same as one layer with the whole batch."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import batchnorm as bn
from batchnorm._core.arrays import Array, Doubles
from batchnorm.distributed import SyncBatchNorm, exchange_mpi


class Together:
    """So many members that exchange rows."""

    def __init__(self, members: int) -> None:
        self.barrier = threading.Barrier(members, timeout=60)
        self.rows: list[Any] = [None] * members

    def exchange(self, member: int) -> Any:
        def give(rows: Doubles) -> Doubles:
            self.rows[member] = rows
            self.barrier.wait()
            gathered = np.stack(self.rows)
            self.barrier.wait()
            return gathered

        return give


def step(layers: list[SyncBatchNorm], xs: list[Array], dys: list[Array], **told: Any) -> list[Any]:
    """y and dx of each member."""

    def of(member: int) -> Any:
        y = layers[member](xs[member], **{name: value[member] for name, value in told.items()})
        return y, layers[member].backward(dys[member])

    with ThreadPoolExecutor(len(xs)) as pool:
        return list(pool.map(of, range(len(xs))))


def members(count: int, *arguments: Any, **settings: Any) -> list[SyncBatchNorm]:
    together = Together(count)
    return [SyncBatchNorm(*arguments, together.exchange(member), **settings) for member in range(count)]


PARTS = [[4], [4, 4], [3, 5], [0, 8], [8, 0], [3, 1, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 7, 1]]


@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_as_one_layer_with_the_whole_batch(rng: np.random.Generator, parts: list[int], dtype: str) -> None:
    x = rng.normal(3, 2, size=(sum(parts), 3, 5)).astype(dtype)
    dy = rng.normal(size=x.shape).astype(dtype)
    whole, layers = bn.BatchNorm(3, dtype=dtype), members(len(parts), 3, dtype=dtype)
    for layer in (whole, *layers):
        layer.gamma, layer.beta = [0.5, 1.5, -2.0], [1.0, 0.0, -1.0]
    places = np.cumsum(parts)[:-1]
    for _ in "12":
        y = whole(x)
        dx = whole.backward(dy)
        found = step(layers, np.split(x, places), np.split(dy, places))
        tolerance = {
            "rtol": {"f4": 1e-5, "f8": 1e-12, "f2": 1e-2}[dtype],
            "atol": {"f4": 1e-5, "f8": 1e-12, "f2": 1e-2}[dtype],
        }
        assert np.allclose(np.concatenate([each for each, _ in found]), y, **tolerance)
        assert np.allclose(np.concatenate([each for _, each in found]), dx, **tolerance)
    for name in ("running_mean", "running_var"):
        own = [getattr(layer, name).tobytes() for layer in layers]
        assert len(set(own)) == 1
        assert np.allclose(getattr(layers[0], name), getattr(whole, name), rtol=1e-5)
    assert {layer.num_batches_tracked for layer in layers} == {2}
    for name in ("grad_gamma", "grad_beta"):
        total = sum(getattr(layer, name).astype("f8") for layer in layers)
        assert np.allclose(
            total, getattr(whole, name), rtol=1e-2 if dtype == "f2" else 1e-4, atol=1e-2 if dtype == "f2" else 1e-4
        )


def test_digits_are_not_lost_far_from_zero(rng: np.random.Generator) -> None:
    """Sums of x and of its square would lose all of them."""
    x = rng.normal(1e6, 1, size=(12, 2))
    found = step(members(3, 2, dtype="f8", eps=0), np.split(x, 3), np.split(x, 3))
    exact = (x - x.mean(axis=0)) / x.std(axis=0)
    assert np.allclose(np.concatenate([y for y, _ in found]), exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("settings", [{"momentum": None}, {"affine": False}, {"unbiased": False}, {"axis": -1}])
def test_settings(rng: np.random.Generator, settings: dict[str, Any]) -> None:
    x, dy = rng.normal(size=(2, 6, 4, 3)).astype("f4")
    channels = 3 if "axis" in settings else 4
    whole, layers = bn.BatchNorm(channels, **settings), members(2, channels, **settings)
    for _ in "123":
        y, dx = whole(x), whole.backward(dy)
        found = step(layers, np.split(x, 2), np.split(dy, 2))
    assert np.allclose(np.concatenate([each for each, _ in found]), y, atol=1e-6)
    assert np.allclose(np.concatenate([each for _, each in found]), dx, atol=1e-6)
    assert np.allclose(layers[1].running_var, whole.running_var, rtol=1e-6)
    assert (layers[0].grad_gamma is None) == (whole.grad_gamma is None)


def test_masks(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 6, 4, 5)).astype("f4")
    lengths = np.array([5, 2, 0, 1, 4, 3])
    whole, layers = bn.BatchNorm(4), members(2, 4)
    y, dx = whole(x, lengths=lengths, masked="zero"), whole.backward(dy)
    told = {"lengths": np.split(lengths, 2), "masked": ["zero", "zero"]}
    found = step(layers, np.split(x, 2), np.split(dy, 2), **told)
    assert np.allclose(np.concatenate([each for each, _ in found]), y, atol=1e-6)
    assert np.allclose(np.concatenate([each for _, each in found]), dx, atol=1e-6)


def test_evaluation_exchanges_nothing(rng: np.random.Generator) -> None:
    def never(rows: Doubles) -> Doubles:
        raise AssertionError("an exchange")

    layer, x = SyncBatchNorm(3, never), rng.normal(size=(4, 3)).astype("f4")
    assert np.array_equal(layer(x, training=False), bn.BatchNorm(3).eval()(x))
    assert np.array_equal(layer.backward(x), x / np.sqrt(np.float32(1 + 1e-5)))
    with pytest.raises(AssertionError):
        layer(x)


def test_nobody_has_values() -> None:
    layers = members(2, 3)
    empty = np.empty((0, 3), "f4")
    for y, dx in step(layers, [empty, empty], [empty, empty]):
        assert y.shape == dx.shape == (0, 3)
    assert layers[0].num_batches_tracked == 0
    assert layers[1].running_var.tolist() == [1, 1, 1]


def alone(rows: Doubles) -> Doubles:
    return rows[np.newaxis]


def test_errors(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3)).astype("f4")
    layer = SyncBatchNorm(3, alone)
    with pytest.raises(ValueError, match="the batch of all processes has one value per channel"):
        layer(x[:1])
    with pytest.raises(ValueError, match="x has 4 channels"):
        layer(np.ones((2, 4), "f4"))
    with pytest.raises(TypeError, match="x has dtype float64, expected float32"):
        layer(x.astype("f8"))
    with pytest.raises(ValueError, match="out has shape"):
        layer(x, out=np.empty((3, 3), "f4"))
    with pytest.raises(ValueError, match="residual, activation"):
        layer(x, residual=x)
    with pytest.raises(TypeError, match="exchange is of type int, expected a function"):
        SyncBatchNorm(3, 5)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="before the layer"):
        SyncBatchNorm(3, alone).backward(x)
    assert layer.running_mean.tolist() == [0, 0, 0]
    wrongs: list[Any] = [
        lambda rows: rows,
        lambda rows: rows[np.newaxis].astype("f4"),
        lambda rows: np.empty((0, 3, 3)),
    ]
    for wrong in wrongs:
        with pytest.raises(
            TypeError, match=r"exchange returned an array of .*, expected float64 of shape \(processes, 3, 3"
        ):
            SyncBatchNorm(3, wrong)(x)


def test_gamma_is_that_of_the_forward_call(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 4, 3)).astype("f4")
    layer, other = SyncBatchNorm(3, alone), SyncBatchNorm(3, alone)
    layer(x), other(x)
    layer.gamma[:] = 7
    assert np.array_equal(layer.backward(dy), other.backward(dy))


def test_weights_of_one_together(rng: np.random.Generator) -> None:
    """Two positions that count a half are no single value."""
    x = np.float32([[1], [3]])
    y = SyncBatchNorm(1, alone, eps=0, unbiased=False)(x, weights=np.full((2, 1), 0.5))
    assert y.tolist() == [[-1], [1]]


def test_exchange_over_mpi() -> None:
    class Communicator:
        def Get_size(self) -> int:  # noqa: N802
            return 2

        def Allgather(self, own: Doubles, gathered: Doubles) -> None:  # noqa: N802
            gathered[0], gathered[1] = own, own + 1

    rows = np.arange(6.0).reshape(2, 3)
    assert exchange_mpi(Communicator())(rows).tolist() == [rows.tolist(), (rows + 1).tolist()]


def test_what_is_wrong_is_found_before_the_exchange(rng: np.random.Generator) -> None:
    def never(rows: Doubles) -> Doubles:
        raise AssertionError("an exchange")

    x, memory = rng.normal(size=(4, 3)).astype("f4"), np.zeros(13, "f4")
    changes: list[tuple[str, Any, Any]] = [
        ("gamma has shape", {"gamma": np.ones(4, "f4")}, {}),
        ("beta has shape", {"beta": np.ones(4, "f4")}, {}),
        ("running_mean has shape", {"running_mean": np.ones(4, "f4")}, {}),
        ("masked is 'all'", {}, {"masked": "all", "weights": np.ones((4, 1))}),
        ("out overlaps x", {}, {"x": memory[:12].reshape(4, 3), "out": memory[1:].reshape(4, 3)}),
        ("out is read-only", {}, {"out": np.broadcast_to(np.float32(0), (4, 3))}),
    ]
    for message, arrays, told in changes:
        layer = SyncBatchNorm(3, never)
        for name, array in arrays.items():
            setattr(layer, name, array)
        with pytest.raises(ValueError, match=message):
            layer(**{"x": x, **told})
    layer = SyncBatchNorm(3, alone)
    layer.running_var.flags.writeable = False
    out = np.zeros((4, 3), "f4")
    with pytest.raises(ValueError, match="running_var is read-only"):
        layer(x, out)
    assert not out.any()
    layer = SyncBatchNorm(3, alone)
    with pytest.raises(ValueError, match="or weights of 1 together"):
        layer(x, out, weights=np.float64([[1], [0], [0], [0]]))
    assert not out.any()
    layer(x)
    with pytest.raises(ValueError, match="out overlaps dy"):
        layer.backward(memory[:12].reshape(4, 3), memory[1:].reshape(4, 3))
    with pytest.raises(ValueError, match=r"recalibrate\(\) does not take a SyncBatchNorm"):
        bn.recalibrate(layer, layer, [x])


def test_y_over_x(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 4, 3)).astype("f4")
    layer, other = SyncBatchNorm(3, alone), SyncBatchNorm(3, alone)
    y = other(x)
    assert np.array_equal(layer(x, out=x), y)
    with pytest.raises(RuntimeError, match="overwritten by out=x"):
        layer.backward(dy)
    assert np.array_equal(other.backward(dy, out=dy), dy)


def test_copies(rng: np.random.Generator) -> None:
    layer = SyncBatchNorm(3, alone)
    x = rng.normal(size=(4, 3)).astype("f4")
    layer(x)
    other = copy.deepcopy(pickle.loads(pickle.dumps(layer)))
    assert np.array_equal(layer(x), other(x))
    assert np.array_equal(layer.running_mean, other.running_mean)
    assert repr(other).startswith("SyncBatchNorm(3")
