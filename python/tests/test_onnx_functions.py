# SPDX-License-Identifier: Apache-2.0
"""BatchNormalization of each opset: the specification's formulas, types and shapes, and what it says of no case."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import oracle
import pytest
from oracle import Real

import batchnorm as bn

Array = np.ndarray[Any, Any]

TYPES: list[Any] = [np.dtype(t) for t in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)]
FUNCTIONS: dict[int, Any] = {
    7: bn.onnx.batch_normalization_7,
    9: bn.onnx.batch_normalization_9,
    14: bn.onnx.batch_normalization_14,
    15: bn.onnx.batch_normalization_15,
}


def training_of(opset: int) -> dict[str, int]:
    return {"outputs": 5} if opset < 14 else {"training_mode": 1}


def formulas(
    given: list[Array], eps: float, momentum: float, training: bool, spatial: bool = True
) -> tuple[list[Array], Array]:
    """Y, new running statistics, mean and variance of X, as the specification has them; and the size of Y's terms."""
    narrow = given[0].dtype != np.float64  # there is something wider to take and subtract a mean in
    x = given[0][:, None] if given[0].ndim == 1 else given[0]
    axes = (1,) if spatial else tuple(range(1, x.ndim))
    named = dict(zip(("gamma", "beta", "running_mean", "running_var"), given[1:]))
    told = {"eps": eps, "momentum": 1 - Real(momentum), "unbiased": False, "frozen": not training}
    call = oracle.plain(x, axes=axes, **named, **told)
    y, used, invstd = (each.reshape(call.x.shape[1], -1) for each in oracle.found(call))
    distance = call.x[0] - used if narrow else abs(call.x[0]).max(1, keepdims=True) + abs(used)
    size = abs(distance * call.gamma.T * invstd) + abs(call.beta.T) + 0 * y
    new_mean, new_var, _ = oracle.updated(call)
    rows = [new_mean, new_var, *oracle.moments(call.x, call.w)[1:]]
    results = [each.reshape(given[1].shape) for each in rows]
    return [oracle.back(y, x, axes).reshape(given[0].shape), *results], oracle.back(size, x, axes).reshape(
        given[0].shape
    )


def close(ours: Array, exact: Array, size: Any, units: float) -> None:
    """Within so many units in the last place of terms of this size."""
    info = ml_dtypes.finfo(ours.dtype)
    bound = units * float(info.eps) * size + float(info.smallest_subnormal)
    distance = abs(ours.astype(Real) - exact)
    assert ours.shape == exact.shape
    assert (distance <= bound).all(), f"{(distance / bound).max()} bounds"


@pytest.mark.parametrize("opset", FUNCTIONS)
@pytest.mark.parametrize("case", range(40))
def test_formulas(rng: np.random.Generator, opset: int, case: int) -> None:
    rank = int(rng.integers(2 if opset == 7 else 1, 6))
    shape = tuple(int(n) for n in rng.integers(1, 6, rank))
    shape = (int(rng.integers(2, 9)), *shape[1:])
    spatial = not (opset == 7 and rng.random() < 0.5)
    kinds = [TYPES[i] for i in rng.integers(4, size=3)]
    if opset < 14:
        kinds = [TYPES[rng.integers(3)]] * 3
    elif opset == 14:
        kinds[1] = kinds[0]
    training = bool(rng.random() < 0.6)
    eps, momentum = float(rng.choice([1e-5, 1e-2])), float(rng.uniform(0, 1))
    of = (shape[1:2] or (1,)) if spatial else shape[1:]
    given = [rng.normal(1, 2, shape), *rng.normal(size=(3, *of)), rng.uniform(0.3, 4, of)]
    given = [v.astype(kinds[k]) for v, k in zip(given, (0, 1, 1, 2, 2))]
    given[0] = [np.asarray, np.asfortranarray, lambda a: a[::-1], lambda a: np.repeat(a, 2, -1)[..., ::2]][case % 4](
        given[0]
    )
    print(
        f"{shape}, {kinds}, training {training}, spatial {spatial}, eps {eps}, momentum {momentum}, layout {case % 4}"
    )
    told: dict[str, Any] = {"epsilon": eps, "momentum": momentum}
    if opset == 7:
        told["spatial"] = int(spatial)
    if training:
        told.update(training_of(opset))
    kept = [each.copy() for each in given]
    results = FUNCTIONS[opset](*given, **told)
    assert all(np.array_equal(a, b) for a, b in zip(kept, given)), "an input was modified"
    exact, size_of_y = formulas(given, eps, momentum, training, spatial)
    if not training:
        assert type(results) is np.ndarray
        results = (results,)
    assert len(results) == (1 if not training else 5 if opset < 14 else 3)
    kinds_of = [kinds[0], kinds[2], kinds[2], kinds[0], kinds[0]]
    assert [each.dtype for each in results] == kinds_of[: len(results)]
    assert not any(np.shares_memory(a, b) for a in results for b in given)
    close(results[0], exact[0], size_of_y, units=16 if kinds[0] == np.float64 else 4)
    for ours, theirs, size in zip(results[1:], exact[1:], (4, 16, 4, 16)):
        close(ours, theirs, size, units=4 if ours.dtype == np.float64 else 1)


def plain(c: int = 2, dtype: Any = np.float32, x_shape: tuple[int, ...] = (4, 2)) -> list[Array]:
    """X that counts up, scale 1, B 0, mean 0, var 1."""
    x = np.arange(np.prod(x_shape)).reshape(x_shape)
    return [each.astype(dtype) for each in (x, np.ones(c), np.zeros(c), np.zeros(c), np.ones(c))]


@pytest.mark.parametrize("opset", FUNCTIONS)
def test_one_value_per_channel_is_shift_and_counts(opset: int) -> None:
    x, scale, shift, mean, var = np.float32([[[7], [9]]]), *np.float32([[2, 3], [4, 5], [1, 1], [8, 16]])
    y, running_mean, running_var, *saved = FUNCTIONS[opset](
        x, scale, shift, mean, var, momentum=0.75, **training_of(opset)
    )
    assert y.tolist() == [[[4], [5]]]
    assert running_mean.tolist() == [2.5, 3]
    assert running_var.tolist() == [6, 12]
    if opset < 14:
        assert [each.tolist() for each in saved] == [[7, 9], [0, 0]]


@pytest.mark.parametrize("opset", FUNCTIONS)
@pytest.mark.parametrize("shape", [(0, 2), (0, 2, 3), (3, 2, 0)])
def test_no_values_leave_the_running_statistics(opset: int, shape: tuple[int, ...]) -> None:
    given = [np.zeros(shape, "f4"), *np.float32([[2, 3], [4, 5], [1, 2], [8, 16]])]
    assert FUNCTIONS[opset](*given).shape == shape
    y, running_mean, running_var, *saved = FUNCTIONS[opset](*given, **training_of(opset))
    assert y.shape == shape
    assert running_mean.tolist() == [1, 2]
    assert running_var.tolist() == [8, 16]
    assert all(each.tolist() == [0, 0] for each in saved)
    assert running_mean is not given[3]


def test_y_does_not_depend_on_momentum_or_the_running_statistics(rng: np.random.Generator) -> None:
    x, *rest = plain(3, x_shape=(2, 3, 5))
    ys = [
        bn.onnx.batch_normalization_15(x, *rest[:2], rest[2] + k, rest[3] * k, momentum=m, training_mode=1)[0]
        for m in (0, 0.5, 1)
        for k in (1, 3)
    ]
    assert all(np.array_equal(ys[0], y) for y in ys)


def test_momentum_is_the_weight_of_the_old() -> None:
    given = plain()
    _, old_mean, old_var = bn.onnx.batch_normalization_15(*given, momentum=1, training_mode=1)
    assert [old_mean.tolist(), old_var.tolist()] == [[0, 0], [1, 1]]
    _, new_mean, new_var = bn.onnx.batch_normalization_15(*given, momentum=0, training_mode=1)
    assert [new_mean.tolist(), new_var.tolist()] == [[3, 4], [5, 5]]  # of 0, 2, 4, 6: over 4, not 3


def test_scale_of_float64_is_not_rounded_to_the_type_of_x() -> None:
    x, big = np.float32([[0], [2]]), 2.0**40
    scale, shift = np.float64([[big], [3 - big]])
    for dtype in ("f2", "f4", ml_dtypes.bfloat16):
        rest = np.float32([1]), np.float32([1])
        y = bn.onnx.batch_normalization_15(x.astype(dtype), scale, shift, *rest, epsilon=0)
        assert y.dtype == np.dtype(dtype)
        assert float(y[1, 0]) == 3


def test_statistics_of_float64_are_not_rounded_to_the_type_of_x() -> None:
    x, one, zero = np.float32([[1], [1 + 2**-23]]), np.ones(1, "f4"), np.zeros(1, "f4")
    mean, var = np.float64([[1 + 2.0**-40], [2.0**-80]])
    y = bn.onnx.batch_normalization_15(x[:1], one, zero, mean, var, epsilon=0)
    assert y.tolist() == [[-1]]
    _, new_mean, new_var = bn.onnx.batch_normalization_15(x, one, zero, mean, var, momentum=0, training_mode=1)
    assert [new_mean.tolist(), new_var.tolist()] == [[1 + 2.0**-24], [2.0**-48]]


def test_what_is_beyond_a_type_is_infinite_without_a_warning() -> None:
    x = np.float16([[60000], [-60000]])
    half, single = np.ones(1, "f2"), np.ones(1, "f4")
    y, mean, var = bn.onnx.batch_normalization_15(x, half, half, half, half, training_mode=1, momentum=0)
    assert [y.ravel().tolist(), mean.tolist(), var.tolist()] == [[2, 0], [0], [np.inf]]
    _, _, var = bn.onnx.batch_normalization_15(x, half, half, single, single, training_mode=1, momentum=0)
    assert var.tolist() == [float(np.float32(x.astype(float).var()))]
    assert np.isinf(bn.onnx.batch_normalization_9(x, half, half, half, half, outputs=5)[4]).all()
    large = np.full(1, 1e300)
    assert np.isinf(bn.onnx.batch_normalization_15(x, large, large, half, half)).all()


def test_a_constant_channel_is_shift_even_without_epsilon() -> None:
    x = np.full((5, 2, 3), 1e6 / 3, "f4")
    shift = np.float32([0.1, -7])
    y, *_ = bn.onnx.batch_normalization_14(
        x, shift + 3, shift, shift, abs(shift), epsilon=0, training_mode=1, momentum=0
    )
    assert np.array_equal(y, np.broadcast_to(shift[:, None], x.shape))


def test_nan_stays_in_its_channel_and_a_negative_variance_is_used() -> None:
    x, scale, shift, mean, var = plain(x_shape=(4, 2, 3))
    x[1, 0, 2] = np.nan
    y, new_mean, new_var = bn.onnx.batch_normalization_15(x, scale, shift, mean, var, training_mode=1)
    for each in (y[:, 0], new_mean[0], new_var[0]):
        assert np.isnan(each).all()
    for each in (y[:, 1], new_mean[1], new_var[1]):
        assert np.isfinite(each).all()
    var[1] = -1
    y = bn.onnx.batch_normalization_15(np.nan_to_num(x), scale, shift, mean, var)
    assert np.isfinite(y[:, 0]).all()
    assert np.isnan(y[:, 1]).all()


@pytest.mark.parametrize("training", [False, True])
def test_an_input_of_one_axis_is_one_channel(training: bool) -> None:
    given = plain(1, x_shape=(6,))
    for opset in (9, 14, 15):
        told = training_of(opset) if training else {}
        flat = FUNCTIONS[opset](*given, **told)
        wide = FUNCTIONS[opset](given[0][:, None], *given[1:], **told)
        if not training:
            flat, wide = [flat], [wide]
        assert flat[0].shape == (6,)
        assert all(np.array_equal(a.ravel(), b.ravel()) for a, b in zip(flat, wide))
    with pytest.raises(ValueError, match=r"X has shape \(6,\), expected \(N, C, \.\.\.\)"):
        bn.onnx.batch_normalization_7(*given)


def test_memory_order_is_that_of_x(rng: np.random.Generator) -> None:
    x = np.moveaxis(rng.normal(size=(2, 5, 6, 3)), -1, 1)
    for scale in (np.ones(3, "f4"), np.ones(3)):
        y = bn.onnx.batch_normalization_15(x.astype("f4"), scale, scale, scale, scale)
        assert y.strides == x.astype("f4").strides


def test_numbers_that_are_no_arrays() -> None:
    y = bn.onnx.batch_normalization_15([[1.0, 2.0]], [2.0, 2.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0], epsilon=0)
    assert y.dtype == np.float64
    assert y.tolist() == [[2, 5]]
    whole = bn.onnx.batch_normalization_15([[1, 2]], [2, 2], [0, 1], [0, 0], [1, 1], epsilon=0)
    assert whole.dtype == np.float64
    assert whole.tolist() == [[2, 5]]
    with pytest.raises(TypeError, match="X has dtype int64"):
        bn.onnx.batch_normalization_15(np.array([[1, 2]]), [2.0, 2.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0])


NAMES = {7: "X scale B mean var", 9: "X scale B mean var", 14: "X scale B input_mean input_var"}
NAMES[15] = NAMES[14]


@pytest.mark.parametrize("opset", FUNCTIONS)
@pytest.mark.parametrize("training", [False, True])
def test_wrong_inputs_are_named(opset: int, training: bool) -> None:
    names, good = NAMES[opset].split(), plain(x_shape=(4, 2, 3))
    told = training_of(opset) if training else {}
    shown = FUNCTIONS[opset](**dict(zip(names, good)), **told)
    assert shown is not None
    for i, name in enumerate(names):
        of_type: list[tuple[Any, str]] = [
            (good[i].astype(int), f"{name} has dtype int64"),
            (good[i].astype(complex), f"{name} has dtype complex128"),
            (good[i].astype(">f4"), f"{name} has dtype >f4, expected the byte order"),
            (good[i].astype(object), f"{name} has dtype object"),
            (np.zeros(good[i].shape, "V2"), rf"{name} has dtype \|V2, expected float32, float64, float16 or bfloat16"),
            (np.ma.masked_array(good[i]), f"{name} is a masked array"),
            (None, f"{name} is None, expected an array"),
            ("text", f"{name} has dtype <U4"),
        ]
        of_value: list[tuple[Any, str]] = [(np.float32(1), f"{name} is a single number")]
        if i:
            of_value += [
                (np.ones(3, "f4"), rf"{name} has shape \(3,\), expected \(2,\), as X has shape \(4, 2, 3\)"),
                (np.ones((2, 1), "f4"), rf"{name} has shape \(2, 1\), expected \(2,\)"),
                (np.ones((1, 2), "f4"), rf"{name} has shape \(1, 2\), expected \(2,\)"),
            ]
            # scale and B, and mean and var, are of one type each; so that the second is what is wrong.
            wrong = "X" if opset < 14 or (opset == 14 and i < 3) else names[i - 1] if i in (2, 4) else ""
            if wrong:
                of_type.append(
                    (good[i].astype("f8"), f"{name} has dtype float64, expected float32, the dtype of {wrong}")
                )
        for error, cases in ((TypeError, of_type), (ValueError, of_value)):
            for value, message in cases:
                given = [each.copy() for each in good]
                given[i] = value
                with pytest.raises(error, match=message):
                    FUNCTIONS[opset](*given, **told)
                assert all(np.array_equal(a, b) for k, (a, b) in enumerate(zip(given, good)) if k != i)


@pytest.mark.parametrize("opset", FUNCTIONS)
@pytest.mark.parametrize(
    ("told", "error", "message"),
    [
        ({"epsilon": -1e-9}, ValueError, "epsilon is -1e-09, expected a finite number of at least 0"),
        ({"epsilon": np.inf}, ValueError, "epsilon is inf"),
        ({"epsilon": np.nan}, ValueError, "epsilon is nan"),
        ({"epsilon": "1"}, TypeError, "epsilon is of type str"),
        ({"epsilon": [1]}, TypeError, r"epsilon has shape \(1,\)"),
        ({"momentum": 1.5}, ValueError, "momentum is 1.5, expected a number from 0 to 1"),
        ({"momentum": -0.5}, ValueError, "momentum is -0.5"),
        ({"momentum": np.nan}, ValueError, "momentum is nan"),
        ({"momentum": None}, TypeError, "momentum is of type NoneType"),
        ({"what": 1}, TypeError, "what"),
    ],
)
def test_wrong_attributes_are_named(opset: int, told: Any, error: type[Exception], message: str) -> None:
    for more in ({}, training_of(opset)):
        with pytest.raises(error, match=message):
            FUNCTIONS[opset](*plain(), **told, **more)


@pytest.mark.parametrize(
    ("opset", "name", "allowed"),
    [
        (7, "spatial", (0, 1)),
        (7, "outputs", (1, 5)),
        (9, "outputs", (1, 5)),
        (14, "training_mode", (0, 1)),
        (15, "training_mode", (0, 1)),
    ],
)
def test_modes_are_one_of_two(opset: int, name: str, allowed: tuple[int, int]) -> None:
    expected = rf", expected {allowed[0]} or {allowed[1]}"
    for value in (2, -1, 3, 4):
        with pytest.raises(ValueError, match=f"{name} is {value}{expected}"):
            FUNCTIONS[opset](*plain(), **{name: value})
    for wrong in ("1", None, 1.0, [1], np.ones(2, int)):
        with pytest.raises(TypeError, match=f"{name} is .*{expected}"):
            FUNCTIONS[opset](*plain(), **{name: wrong})
    for kind in (int, np.int64, np.uint8):
        FUNCTIONS[opset](*plain(), **{name: kind(allowed[1])})


def test_bfloat16_came_with_opset_14() -> None:
    given = plain(dtype=ml_dtypes.bfloat16)
    for opset in (7, 9):
        with pytest.raises(TypeError, match="X has dtype bfloat16, expected float16, float32 or float64"):
            FUNCTIONS[opset](*given)
    assert FUNCTIONS[14](*given).dtype == ml_dtypes.bfloat16


def test_shapes_of_each_position() -> None:
    x, one = np.zeros((4, 2, 3), "f4"), np.ones((2, 3), "f4")
    assert bn.onnx.batch_normalization_7(x, one, one, one, one, spatial=0).shape == (4, 2, 3)
    for wrong in (np.ones(2, "f4"), np.ones(6, "f4"), np.ones((3, 2), "f4")):
        with pytest.raises(ValueError, match=r"var has shape .*, expected \(2, 3\), as X has shape \(4, 2, 3\)"):
            bn.onnx.batch_normalization_7(x, one, one, one, wrong, spatial=0)
    with pytest.raises(ValueError, match=r"scale has shape \(2, 3\), expected \(2,\)"):
        bn.onnx.batch_normalization_7(x, one, one, one, one)


@pytest.mark.parametrize("told", [{}, {"spatial": 0}])
def test_no_channels(told: Any) -> None:
    x, none = np.zeros((4, 0, 3), "f4"), np.zeros((0, 3) if told else 0, "f4")
    with pytest.raises(ValueError, match=r"X has shape \(4, 0, 3\), expected at least one channel"):
        bn.onnx.batch_normalization_7(x, none, none, none, none, **told)
