# SPDX-License-Identifier: Apache-2.0
"""A layer that cannot be folded is an error that names it, and everything stays as it was."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import batchnorm as bn

Array = np.ndarray[Any, Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Given:
    """Arguments that are fine, and whether they are what they were."""

    def __init__(self) -> None:
        self.weight, self.bias = np.ones((6, 2, 3), np.float32), np.ones(6, np.float32)
        self.form, self.layer = bn.ScaleShift(np.ones(6), np.ones(6)), bn.BatchNorm(6)
        self.kept = [array.copy() for array in self.arrays()]

    def arrays(self) -> list[Array]:
        return [self.weight, self.bias, *self.form, *self.layer.state_dict().values()]

    def unchanged(self) -> bool:
        return all(np.array_equal(old, new) for old, new in zip(self.kept, self.arrays()))


def changed(array: Array, index: Any, value: Any) -> Array:
    array = array.copy()
    array[index] = value
    return array


W, B, OF_SIX = np.ones((6, 2, 3), np.float32), np.ones(6, np.float32), bn.ScaleShift(np.ones(6), np.zeros(6))
OF_LAYERS: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "integers": (W.astype(int), B, TypeError, "weight has dtype int64, expected float32, float64, float16 or bfloat16"),
    "texts": ([[["a"]]], None, TypeError, "weight has dtype <U1, expected float32"),
    "void": (W.astype("f2").view("V2"), B, TypeError, r"weight has dtype \|V2, expected a dtype of numbers"),
    "byte order": (W.astype(">f4"), B, TypeError, "weight has dtype >f4, expected the byte order"),
    "mask": (np.ma.masked_array(W), B, TypeError, "weight is a masked array"),
    "number": (1.5, None, ValueError, "weight is a single number"),
    "none": (None, None, TypeError, "weight is None, expected an array"),
    "empty": (W[:, :0], B, ValueError, r"weight has shape \(6, 0, 3\), expected .*none 0"),
    "nan": (changed(W, (4, 1, 2), np.nan), B, ValueError, r"weight is nan at index \(4, 1, 2\), expected a finite"),
    "infinite bias": (W, changed(B, 3, -np.inf), ValueError, "bias is -inf at channel 3, expected a finite number"),
    "bias shape": (W, B[:5], ValueError, r"bias has shape \(5,\), expected \(6,\): .* of weight \(6, 2, 3\)"),
    "bias rank": (W, B[:, None], ValueError, r"bias has shape \(6, 1\), expected \(6,\)"),
    "bias dtype": (W, B.astype("f8"), TypeError, "bias has dtype float64, expected float32, the dtype of weight"),
    "integer bias": (W, B.astype("i4"), TypeError, "bias has dtype int32, expected float32"),
    "bias of texts": (W, ["a"] * 6, TypeError, "bias has dtype <U1, expected float64"),
    "masked bias": (W, np.ma.masked_array(B), TypeError, "bias is a masked array"),
}


@pytest.mark.parametrize("name", OF_LAYERS)
def test_layers_that_are_none(name: str) -> None:
    weight, bias, error, match = OF_LAYERS[name]
    before = [np.array(each).tobytes() for each in (weight, bias, *OF_SIX) if isinstance(each, np.ndarray)]
    with pytest.raises(error, match=match):
        bn.fold_conv(weight, bias, OF_SIX)
    with pytest.raises(error, match=match):
        bn.fold_into_conv(OF_SIX, weight, bias, groups=3)
    assert before == [each.tobytes() for each in (weight, bias, *OF_SIX) if isinstance(each, np.ndarray)]


def with_scale(value: Any) -> Any:
    return OF_SIX._replace(scale=value)


def with_shift(value: Any) -> Any:
    return OF_SIX._replace(shift=value)


OF_NORMS: dict[str, tuple[Any, type[Exception], str]] = {
    "tuple": ((np.ones(6), np.ones(6)), TypeError, "norm is of type tuple, expected BatchNorm or ScaleShift"),
    "none": (None, TypeError, "norm is of type NoneType, expected BatchNorm or ScaleShift"),
    "channels": (bn.BatchNorm(5), ValueError, r"norm has 5 channels, expected 6, the {} of weight \(6, 2, 3\)"),
    "axes": (bn.BatchNorm((2, 3), axis=(1, 2)), ValueError, r"norm has \(2, 3\) channels, expected 6, the {} of"),
    "scalar": (bn.ScaleShift(*np.ones((2, 1))), ValueError, "norm has 1 channels, expected 6, the {} of"),
    "lengths": (with_shift(np.ones(5)), ValueError, r"norm's shift has shape \(5,\), expected \(6,\): one element per"),
    "texts": (with_scale(["a"] * 6), TypeError, "norm's scale has dtype <U1, expected float64"),
    "scale": (with_scale(changed(B, 2, np.inf)), ValueError, "norm's scale is inf at channel 2, expected a finite"),
    "shift": (with_shift(changed(B, 5, np.nan)), ValueError, "norm's shift is nan at channel 5, expected a finite"),
}


@pytest.mark.parametrize("name", OF_NORMS)
def test_norms_that_do_not_fit(name: str) -> None:
    norm, error, match = OF_NORMS[name]
    given = Given()
    with pytest.raises(error, match=match.format("outputs")):
        bn.fold_conv(given.weight, given.bias, norm)
    with pytest.raises(error, match=match.format("inputs")):
        bn.fold_into_conv(norm, given.weight, given.bias, groups=3)
    assert given.unchanged()


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("axis", range(-5, 5))
def test_norms_of_another_axis(rank: int, axis: int) -> None:
    """With as many channels as the layer has, which height and width may have too."""
    weight, norm = np.ones((4, 4, 4, 4, 4)[:rank], np.float32), bn.BatchNorm(4, axis=axis)
    calls = [lambda norm: bn.fold_linear(weight, None, norm), lambda norm: bn.fold_into_linear(norm, weight, None)]
    if rank > 2:
        calls = [lambda norm: bn.fold_conv(weight, None, norm), lambda norm: bn.fold_into_conv(norm, weight, None)]
        calls.append(lambda norm: bn.fold_conv(weight, None, norm, transposed=True))
    # The first after the batch, or the last; a linear layer takes tensors of any rank, and channels from the last axis.
    is_right = axis % rank in (1, rank - 1) and -rank <= axis < rank if rank > 2 else axis in (1, 2, 3, 4, -1)
    for call in calls:
        expected = call(bn.ScaleShift.of(norm))
        if is_right:
            assert np.array_equal(call(norm).weight, expected.weight)
        else:
            with pytest.raises(ValueError, match=rf"^norm has its channels at axis {axis}, expected .*ScaleShift\.of"):
                call(norm)


def test_a_norm_in_the_place_of_the_weight() -> None:
    layer, square = bn.BatchNorm2d(6), W[..., 0]
    for norm, kind in ((layer, "BatchNorm2d"), (OF_SIX, "ScaleShift")):
        for call in (bn.fold_conv, bn.fold_linear):
            with pytest.raises(TypeError, match=f"^weight is a {kind}, expected an array: were the arguments swapped"):
                call(norm, W, None)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="^norm is of type NoneType, expected BatchNorm or ScaleShift"):
                call(W, B, None)  # type: ignore[arg-type]
        for call in (bn.fold_into_conv, bn.fold_into_linear):
            with pytest.raises(TypeError, match=f"^weight is a {kind}, expected an array"):
                call(norm, norm, None)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="^norm is of type numpy.ndarray, expected BatchNorm or ScaleShift"):
                call(square, B, norm)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "scale", "shift", "match"),
    [
        (np.float32, 1e39, 0, r"weight becomes 1e\+39 at index \(2, 0, 0\), which float32 cannot hold"),
        (np.float32, 1, 1e39, r"bias becomes 1e\+39 at channel 2, which float32 cannot hold"),
        (np.float16, 21839, 65520, "bias becomes 65520 at channel 2, which float16 cannot hold"),
        (BFLOAT16, 3.4e38, 0, r"weight becomes 3.4e\+38 at index \(2, 0, 0\), which bfloat16 cannot hold"),
        (np.float64, 1e308, 0, r"weight becomes inf at index \(2, 0, 1\), which float64 cannot hold"),
    ],
)
def test_numbers_that_a_dtype_cannot_hold(dtype: Any, scale: float, shift: float, match: str) -> None:
    weight = changed(np.ones((3, 1, 2), dtype), (2, 0, 1), 3)
    form = bn.ScaleShift(np.array([1, 1, scale]), np.array([0, 0, shift]))
    with pytest.raises(ValueError, match=match):
        bn.fold_conv(weight, None, form)
    with pytest.raises(ValueError, match=match.split(" ")[0] + " becomes"):
        bn.fold_into_conv(form, weight, None, groups=3)


def test_how_many_channels_a_norm_has_to_have() -> None:
    norm, of = bn.BatchNorm(5), r"of weight \(6, 2, 3\)"
    for groups, transpose, inputs, outputs in ((1, False, 2, 6), (3, False, 6, 6), (1, True, 6, 2), (2, True, 6, 4)):
        told: dict[str, Any] = {"groups": groups, "transposed": transpose}
        with pytest.raises(ValueError, match=f"norm has 5 channels, expected {inputs}, the inputs {of}"):
            bn.fold_into_conv(norm, W, None, **told)
        with pytest.raises(ValueError, match=f"norm has 5 channels, expected {outputs}, the outputs {of}"):
            bn.fold_conv(W, None, norm, **told)
    with pytest.raises(ValueError, match=r"norm has 5 channels, expected 2, the inputs of weight \(6, 2\)"):
        bn.fold_into_linear(norm, W[..., 0], None)
    with pytest.raises(ValueError, match=r"norm has 5 channels, expected 6, the outputs of weight \(6, 2\)"):
        bn.fold_linear(W[..., 0], None, norm)


@pytest.mark.parametrize("rank", range(1, 7))
def test_ranks(rank: int) -> None:
    weight = np.ones((6,) * rank, np.float32)
    shape = r"weight has shape \(" + ", ".join(["6"] * rank) + r",?\), expected "
    if rank != 2:
        with pytest.raises(ValueError, match=shape + r"\(out, in\)"):
            bn.fold_linear(weight, None, OF_SIX)
        with pytest.raises(ValueError, match=shape + r"\(out, in\)"):
            bn.fold_into_linear(OF_SIX, weight, None)
    for transpose, axes in ((False, "out, in"), (True, "in, out")):
        match = shape + rf"\({axes} / groups\), and a kernel of 1 to 3 axes"
        if rank not in (3, 4, 5):
            with pytest.raises(ValueError, match=match):
                bn.fold_conv(weight, None, OF_SIX, transposed=transpose)
            with pytest.raises(ValueError, match=match):
                bn.fold_into_conv(OF_SIX, weight, None, transposed=transpose)


OF_SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"groups": 4}, ValueError, r"groups is 4, expected a divisor of 6, the outputs of weight \(6, 2, 3\)"),
    ({"groups": 4, "transposed": True}, ValueError, r"groups is 4, expected a divisor of 6, the inputs of weight"),
    ({"groups": 0}, ValueError, "groups is 0, expected at least 1"),
    ({"groups": -2}, ValueError, "groups is -2, expected at least 1"),
    ({"groups": 1.0}, TypeError, "groups is 1.0, expected an int"),
    ({"groups": None}, TypeError, "groups is None, expected an int"),
    ({"padding_mode": "mirror"}, ValueError, "padding_mode is 'mirror', expected 'zeros' or 'reflect' or 'replicate'"),
    ({"padding_mode": None}, TypeError, "padding_mode is of type NoneType, expected a text"),
    ({"padding_mode": "reflect", "transposed": True}, ValueError, "'reflect', expected 'zeros' of a transposed conv"),
    ({"padding": -1}, ValueError, "padding is -1, expected at least 0"),
    ({"padding": 0.5}, TypeError, "padding is 0.5, expected an int, or one for each axis of the kernel"),
    ({"padding": (0, 0)}, ValueError, r"padding is \(0, 0\), expected an int, or 1 for a kernel of shape \(3,\)"),
    ({"padding": ()}, ValueError, r"padding is \(\), expected an int, or 1"),
    ({"padding": "full"}, ValueError, "padding is 'full', expected an int, or one for .*, or 'valid' or 'same'$"),
    ({"padding": "same", "transposed": True}, ValueError, "padding is 'same', expected an int, or one for .*kernel$"),
    ({"padding": "same", "stride": 2}, ValueError, r"padding is 'same' and stride is \(2,\), expected a stride of 1"),
    ({"stride": 0}, ValueError, "stride is 0, expected at least 1"),
    ({"stride": (1, 1)}, ValueError, r"stride is \(1, 1\), expected an int, or 1"),
    ({"stride": "1"}, TypeError, "stride is '1', expected an int"),
    ({"dilation": 0}, ValueError, "dilation is 0, expected at least 1"),
    ({"dilation": [1.5]}, TypeError, r"dilation is \[1.5\], expected an int"),
    ({"output_padding": -1, "transposed": True}, ValueError, "output_padding is -1, expected at least 0"),
    ({"output_padding": 1}, ValueError, "output_padding is 1, expected 0 of a convolution that is not transposed"),
]


@pytest.mark.parametrize(("told", "error", "match"), OF_SETTINGS, ids=str)
def test_settings_that_no_convolution_has(told: dict[str, Any], error: type[Exception], match: str) -> None:
    given = Given()
    with pytest.raises(error, match=match):
        bn.fold_into_conv(bn.ScaleShift(np.ones(6), np.zeros(6)), given.weight, None, **told)
    if "groups" in told:
        with pytest.raises(error, match=match):
            bn.fold_conv(given.weight, given.bias, given.form, **told)
    assert given.unchanged()


def with_running(dtype: Any = np.float32, **arrays: Any) -> bn.BatchNorm:
    layer = bn.BatchNorm(6, eps=0.5, dtype=dtype)
    for name, value in arrays.items():
        setattr(layer, name, value)
    return layer


INDEX = [0, 1, 0]
UNFOLDABLE: dict[str, tuple[bn.BatchNorm, type[Exception], str]] = {
    "relu": (bn.BatchNorm(6, activation="relu"), ValueError, "{} has activation 'relu', which is no scale and shift"),
    "leaky": (bn.BatchNorm(6, activation=bn.LeakyReLU(0.2)), ValueError, r"{} has activation LeakyReLU\(slope=0.2\)"),
    "segments": (bn.BatchNorm(6, groups=bn.Segments(INDEX, 2)), ValueError, "{} has groups of type Segments, with"),
    "split": (bn.BatchNorm(6, groups=bn.Split(2)), ValueError, "{} has groups of type Split"),
    "shared": (bn.BatchNorm(6, groups=bn.Split(2, True)), ValueError, "{} has groups of type Split"),
    "conditional": (bn.BatchNorm(6, groups=bn.Conditional(INDEX, 2)), ValueError, "{} has groups of type Conditional"),
    "batch": (bn.BatchNorm(6, track_running_stats=False), ValueError, "{} has no running statistics"),
    "no mean": (with_running(running_mean=None), ValueError, "{} has no running statistics"),
    "no var": (with_running(running_var=None), ValueError, "{} has no running statistics"),
    "negative": (
        with_running(running_var=changed(np.ones(6), 4, -0.75)),
        ValueError,
        r"{}'s running_var is -0.75 at channel 4, expected at least -eps \(-0.5\)",
    ),
    "infinite": (with_running(running_var=changed(B, 1, np.inf)), ValueError, "{}'s running_var is inf at channel 1"),
    "nan": (with_running(running_mean=changed(B, 1, np.nan)), ValueError, "{}'s running_mean is nan at channel 1"),
    "gamma": (with_running(gamma=changed(B, 2, np.nan)), ValueError, "{}'s gamma is nan at channel 2"),
    "beta": (with_running(beta=changed(B, 5, -np.inf)), ValueError, "{}'s beta is -inf at channel 5"),
    "shape": (with_running(gamma=np.ones(5)), ValueError, r"{}'s gamma has shape \(5,\), expected \(6,\)"),
    "rows": (with_running(running_mean=np.ones((2, 6))), ValueError, r"{}'s running_mean has shape \(2, 6\), expected"),
    "dtype": (with_running(beta=np.ones(6, complex)), TypeError, "{}'s beta has dtype complex128, expected float64"),
    "overflow": (
        with_running(np.float64, gamma=np.full(6, 1e308), running_mean=np.full(6, 10.0)),
        ValueError,
        "{}'s shift is -inf at channel 0, expected a finite number",
    ),
}


@pytest.mark.parametrize("name", UNFOLDABLE)
def test_layers_that_cannot_be_folded(name: str) -> None:
    layer, error, match = UNFOLDABLE[name]
    given = Given()
    square = np.ones((6, 6), np.float32)
    with pytest.raises(error, match="^" + match.format("layer")):
        bn.ScaleShift.of(layer)
    for call in (
        lambda: bn.fold_linear(square, given.bias, layer),
        lambda: bn.fold_conv(given.weight, given.bias, layer),
        lambda: bn.fold_into_linear(layer, square, given.bias),
        lambda: bn.fold_into_conv(layer, given.weight, None, transposed=True),
    ):
        with pytest.raises(error, match="^" + match.format("norm")):
            call()
    with pytest.raises(error, match="^" + match.format("first")):
        bn.merge_batch_norms(layer, given.layer)
    with pytest.raises(error, match="^" + match.format("second")):
        bn.merge_batch_norms(given.layer, layer)
    assert given.unchanged()


def test_numbers_that_have_no_scale_and_shift() -> None:
    ones = np.ones(3)
    for arguments, error, match in (
        (
            (None, None, ones, changed(ones, 1, -2), 0.5),
            ValueError,
            "^running_var is -2 at channel 1, expected at least",
        ),
        ((None, None, ones, -ones, 0), ValueError, r"expected at least -eps \(0\)"),
        ((ones, None, 1.0, 1.0, 0.5), ValueError, r"^gamma has shape \(3,\), expected \(\)"),
        ((None, None, 1.0, 1.0, 0.5), ValueError, "^running_mean is a single number"),
        ((None, None, None, ones, 0.5), TypeError, "^running_mean is None, expected an array"),
        ((None, None, ones, None, 0.5), TypeError, "^running_var is None, expected an array"),
        ((None, None, ones, np.ones(4), 0.5), ValueError, r"^running_var has shape \(4,\), expected \(3,\)"),
        ((None, np.ones(2), ones, ones, 0.5), ValueError, r"^beta has shape \(2,\), expected \(3,\)"),
        ((ones, None, ones, changed(np.ones((3,)), 2, np.nan), 0.5), ValueError, "^running_var is nan at channel 2"),
        ((None, None, ones, ones, -0.5), ValueError, "eps is -0.5"),
        ((None, None, ones, ones, np.nan), ValueError, "eps is nan"),
        ((None, None, ones, ones, "1"), TypeError, "eps is of type str, expected a number"),
        ((ones * 1e308, None, ones, ones * 0, 1e-300), ValueError, "^scale is inf at channel 0"),
        ((None, None, np.ones((2, 2)), [[1, 1], [1, -1]], 0), ValueError, r"running_var is -1 at index \(1, 1\)"),
    ):
        with pytest.raises(error, match=match):
            bn.scale_shift(*arguments)  # type: ignore[arg-type]
    for wrong in (None, "layer", bn.BatchNorm, OF_SIX):
        with pytest.raises(TypeError, match="^layer is of type .*, expected BatchNorm"):
            bn.ScaleShift.of(wrong)  # type: ignore[arg-type]


def test_norms_that_cannot_be_merged() -> None:
    given = Given()
    big = bn.BatchNorm(6, dtype=np.float16, param_dtype=np.float16, eps=0)
    big.gamma[...], big.running_var[...], big.running_mean[...] = 1000, 1e-4, 2
    for first, second, error, match in (
        (given.layer, bn.BatchNorm(5), ValueError, "^second has 5 channels, expected 6, as first has"),
        (bn.BatchNorm((2, 3), axis=(1, 2)), given.layer, ValueError, r"^second has 6 channels, expected \(2, 3\)"),
        (
            given.layer,
            bn.BatchNorm(6, axis=-1),
            ValueError,
            "^second has its channels at axis -1, expected 1, as first",
        ),
        (given.layer, bn.BatchNorm(6, dtype="f8"), TypeError, "^second has dtype float64, expected float32"),
        (given.layer, given.form, TypeError, "^second is of type ScaleShift, expected BatchNorm"),
        (None, given.layer, TypeError, "^first is of type NoneType, expected BatchNorm"),
        (big, big, ValueError, r"^gamma becomes 9.99917e\+07 at channel 0, which float16 cannot hold"),
    ):
        with pytest.raises(error, match=match):
            bn.merge_batch_norms(first, second)  # type: ignore[arg-type]
    assert given.unchanged()
    assert big.gamma.tolist() == [1000] * 6
