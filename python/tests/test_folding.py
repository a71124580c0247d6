# SPDX-License-Identifier: Apache-2.0
"""Folded layers do what batch norm and its neighbour do one after the other; where none can, that is an error."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from convolving import NUMPYS, Geometry, Norm, close, convolved, per_channel, transposed

import batchnorm as bn

CASES = range(40)


# ---- after a layer


@pytest.mark.parametrize("case", CASES)
def test_after_a_linear_layer(rng: np.random.Generator, case: int) -> None:
    outputs, inputs = (int(n) for n in rng.integers(1, 9, 2))
    weight, x = rng.normal(size=(outputs, inputs)), rng.normal(size=(5, inputs))
    bias, norm = rng.normal(size=outputs) if rng.random() < 0.5 else None, Norm(rng, outputs)
    folded = bn.fold_linear(weight, bias, norm.layer)
    close(x @ folded.weight.T + folded.bias, norm(x @ weight.T + (0 if bias is None else bias)))


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_after_a_convolution(rng: np.random.Generator, case: int, transpose: bool) -> None:
    conv = Geometry(rng, transpose).padded(rng)
    norm = Norm(rng, conv.outputs)
    if not transpose and rng.random() < 0.5:
        conv.told["padding_mode"] = str(rng.choice([*NUMPYS]))
    folded = bn.fold_conv(conv.weight, conv.bias, norm.layer, groups=conv.groups, transposed=transpose)
    close(conv(conv.x, *folded), norm(conv(conv.x)))
    again = bn.ScaleShift.of(norm.layer)
    for ours, same in zip(
        folded, bn.fold_conv(conv.weight, conv.bias, again, groups=conv.groups, transposed=transpose)
    ):
        assert np.array_equal(ours, same)


# ---- before a layer


@pytest.mark.parametrize("case", CASES)
def test_before_a_linear_layer(rng: np.random.Generator, case: int) -> None:
    outputs, inputs = (int(n) for n in rng.integers(1, 9, 2))
    weight, x = rng.normal(size=(outputs, inputs)), rng.normal(size=(5, inputs))
    bias, norm = rng.normal(size=outputs) if rng.random() < 0.5 else None, Norm(rng, inputs)
    folded = bn.fold_into_linear(norm.layer, weight, bias)
    close(x @ folded.weight.T + folded.bias, norm(x) @ weight.T + (0 if bias is None else bias))


@pytest.mark.parametrize("case", CASES)
def test_before_a_convolution(rng: np.random.Generator, case: int) -> None:
    """The convolution has no padding, or one of values."""
    conv = Geometry(rng, False)
    norm = Norm(rng, conv.inputs)
    conv.told["padding_mode"] = str(rng.choice([*NUMPYS]))
    if conv.told["padding_mode"] == "zeros":
        conv.told["padding"] = [0, "valid", (0,) * conv.rank][case % 3]
    else:
        conv.padded(rng)
        if rng.random() < 0.3:
            conv.told.update(padding="same", stride=1)
    folded = bn.fold_into_conv(norm.layer, conv.weight, conv.bias, **conv.told)
    close(conv(conv.x, *folded), conv(norm(conv.x)))


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_without_shift_before_any_convolution(rng: np.random.Generator, case: int, transpose: bool) -> None:
    conv = Geometry(rng, transpose).padded(rng)
    norm = Norm(rng, conv.inputs).without_shift()
    if not transpose and rng.random() < 0.3:
        conv.told.update(padding="same", stride=1)
    folded = bn.fold_into_conv(norm.layer, conv.weight, conv.bias, transposed=transpose, **conv.told)
    close(conv(conv.x, *folded), conv(norm(conv.x)))


@pytest.mark.parametrize("case", CASES)
def test_before_a_transposed_convolution_whose_outputs_have_all_taps(rng: np.random.Generator, case: int) -> None:
    conv = Geometry(rng, True)
    conv.told["output_padding"] = tuple(int(n) for n in rng.integers(0, 2, conv.rank))
    conv.told["padding"] = tuple(
        d * (k - 1) + more
        for d, k, more in zip(conv.told["dilation"], conv.weight.shape[2:], conv.told["output_padding"])
    )
    conv.told["stride"] = (1,) * conv.rank
    conv.x = rng.normal(size=(2, conv.inputs, *rng.integers(7, 9, conv.rank)))
    norm = Norm(rng, conv.inputs)
    folded = bn.fold_into_conv(norm.layer, conv.weight, conv.bias, transposed=True, **conv.told)
    close(conv(conv.x, *folded), conv(norm(conv.x)))


def every(**values: Any) -> list[dict[str, Any]]:
    return [dict(zip(values, chosen)) for chosen in itertools.product(*values.values())]


CONVOLUTIONS = [
    told
    for told in every(
        padding=[0, 1, 2, "valid", "same"], padding_mode=[*NUMPYS], stride=[1, 2], dilation=[1, 2], kernel=[1, 2, 3]
    )
    if told["padding"] != "same" or told["stride"] == 1
]
TRANSPOSED = every(padding=range(6), stride=[1, 2, 3], dilation=[1, 2], output_padding=[0, 1], kernel=[1, 2, 3])


@pytest.mark.parametrize("transpose", [False, True])
def test_what_is_refused_is_what_would_be_wrong_and_no_more(rng: np.random.Generator, transpose: bool) -> None:
    """Every small convolution: either the folded one is right, or the same numbers would have been wrong."""
    refused = 0
    for told in TRANSPOSED if transpose else CONVOLUTIONS:
        given = {**told}
        weight = rng.normal(size=(2, 3, given.pop("kernel")))
        bias, x = rng.normal(size=2 + transpose), rng.normal(size=(2, 3 - transpose, 12))
        form = bn.ScaleShift(rng.uniform(1, 2, 3 - transpose), rng.uniform(1, 2, 3 - transpose))
        convolution = transposed if transpose else convolved
        scale, shift = (each[:, None, None] if transpose else each[:, None] for each in form)
        would_be = weight * scale, bias + (weight * shift).sum(axis=(0 if transpose else 1, 2))
        scaled = per_channel(form.scale, x) * x + per_channel(form.shift, x)
        expected = convolution(scaled, weight, bias, **given)
        error = abs(convolution(x, *would_be, **given) - expected).max()
        print(told, error)
        if error > 1e-3:
            with pytest.raises(ValueError, match=r"^norm has shift 1\.\d+ at channel 0, expected 0: "):
                bn.fold_into_conv(form, weight, bias, transposed=transpose, **given)
            refused += 1
        else:
            folded = bn.fold_into_conv(form, weight, bias, transposed=transpose, **given)
            close(convolution(x, *folded, **given), expected)
    # Zeros of any number, or of "same" where the kernel has neighbours; transposed, all with gaps, and without them
    # those that cut off too little: 2 of the kernels of 1, 8 of those of 2, 14 of those of 3.
    assert refused == (144 + 24 if transpose else 24 + 4)


def test_one_axis_may_do_what_another_may_not(rng: np.random.Generator) -> None:
    form, kernel = bn.ScaleShift([2.0], [1.0]), rng.normal(size=(1, 1, 1, 3))
    bn.fold_into_conv(form, kernel, None, padding=(0, 0), stride=(3, 2))
    bn.fold_into_conv(form, kernel, None, padding=(0, 2), transposed=True)
    for told in (
        {"padding": (0, 1)},
        {"padding": (1, 0)},
        {"transposed": True, "padding": (2, 1)},
        {"transposed": True, "padding": (0, 2), "stride": (2, 1)},
        {"transposed": True, "padding": (0, 2), "output_padding": (1, 0)},
        {"padding": "same"},
    ):
        with pytest.raises(ValueError, match="norm has shift 1 at channel 0, expected 0: "):
            bn.fold_into_conv(form, kernel, None, **told)
    bn.fold_into_conv(form, kernel[..., :1], None, padding="same", dilation=3)


@pytest.mark.parametrize("transpose", [False, True])
def test_a_shift_that_goes_nowhere_does_not_matter(rng: np.random.Generator, transpose: bool) -> None:
    """There are three groups with two inputs each, and the one that has a shift has no weights."""
    shift = np.zeros(6)
    shift[3] = 0.25
    weight = rng.normal(size=(6, 2, 3))
    if transpose:
        weight[3] = 0
    else:
        weight[2:4, 1] = 0
    form, x = bn.ScaleShift(np.full(6, 2.0), shift), rng.normal(size=(1, 6, 9))
    told: dict[str, Any] = {"groups": 3, "padding": 1, "stride": 2}
    folded = bn.fold_into_conv(form, weight, None, transposed=transpose, **told)
    convolution = transposed if transpose else convolved
    scaled = 2 * x + shift[:, None]
    close(convolution(x, *folded, **told), convolution(scaled, weight, None, **told))
    weight[3 if transpose else (3, 1)] = 1
    with pytest.raises(ValueError, match="norm has shift 0.25 at channel 3, expected 0"):
        bn.fold_into_conv(form, weight, None, transposed=transpose, **told)


def test_weights_of_keras(rng: np.random.Generator) -> None:
    """The weights have the order of axes that Keras's documentation gives, channels last."""
    x, form = rng.normal(size=(2, 5, 6, 3)), bn.ScaleShift(rng.normal(size=6), rng.normal(size=6))
    kernel = rng.normal(size=(2, 3, 3, 2))  # of DepthwiseConv: two outputs for each of three inputs
    y = np.zeros((2, 4, 4, 6))
    for i, j, c, m in np.ndindex(kernel.shape):
        y[..., 2 * c + m] += x[:, i : i + 4, j : j + 4, c] * kernel[i, j, c, m]
    weight = np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(6, 1, *kernel.shape[:-2])
    folded = bn.fold_conv(weight, None, form, groups=3)
    close(convolved(np.moveaxis(x, -1, 1), *folded, groups=3), np.moveaxis(y * form.scale + form.shift, -1, 1))
    kernel = rng.normal(size=(2, 3, 3, 6))  # of Conv
    y = sum(x[:, i : i + 4, j : j + 4] @ kernel[i, j] for i, j in np.ndindex(2, 3))
    folded = bn.fold_conv(np.moveaxis(kernel, (-1, -2), (0, 1)), None, form)
    close(convolved(np.moveaxis(x, -1, 1), *folded), np.moveaxis(y * form.scale + form.shift, -1, 1))
    back = np.moveaxis(folded.weight, (0, 1), (-1, -2))
    close(back, kernel * form.scale)
