# SPDX-License-Identifier: Apache-2.0
"""Errors of recalibrate() before, while and after it counts: no layer has changed then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from recalibrating import Snapshot, drawn, moments

import batchnorm as bn

Array = np.ndarray[Any, Any]


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
    """A batch without a weight above 0 is empty, too."""
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
