# SPDX-License-Identifier: Apache-2.0
"""PyTorch: its layers one after the other beside ours in one, and what it folds itself, right and wrong."""

from __future__ import annotations

import copy
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from comparing import CASES, DTYPES, Array, near, wide
from in_torch import array, tensor, torch

import batchnorm as bn

fusion = torch.nn.utils.fusion
CONVOLUTIONS = {
    (1, False): torch.nn.Conv1d,
    (2, False): torch.nn.Conv2d,
    (3, False): torch.nn.Conv3d,
    (1, True): torch.nn.ConvTranspose1d,
    (2, True): torch.nn.ConvTranspose2d,
    (3, True): torch.nn.ConvTranspose3d,
}
NORMS = {1: torch.nn.BatchNorm1d, 2: torch.nn.BatchNorm2d, 3: torch.nn.BatchNorm3d}
MODES = ["zeros", "reflect", "replicate", "circular"]


def norms(rng: np.random.Generator, rank: int, channels: int, shift: bool = True) -> tuple[Any, Any]:
    """Theirs in evaluation and ours, of the same random numbers, in float64. Some gammas are 0, some negative."""
    theirs = NORMS[rank](channels, eps=float(rng.choice([1e-5, 1e-3, 0.5])), affine=bool(rng.random() < 0.8)).double()
    theirs.running_mean.copy_(tensor(rng.normal(size=channels) * shift))
    theirs.running_var.copy_(tensor(rng.uniform(0.3, 4, channels)))
    if theirs.affine:
        with torch.no_grad():
            theirs.weight.copy_(tensor(rng.normal(size=channels) * (rng.random(channels) < 0.8)))
            theirs.bias.copy_(tensor(rng.normal(size=channels) * shift))
    ours = bn.BatchNorm(channels, eps=theirs.eps, affine=theirs.affine, dtype=np.float64)
    ours.load_state_dict({key: array(value) for key, value in theirs.state_dict().items()})
    print(theirs)
    return ours, theirs.eval()


def convolution(rng: np.random.Generator, transposed: bool, **told: Any) -> Any:
    """A random convolution of one to three dimensions, some with groups, some depthwise; `told` replaces draws."""
    rank = int(rng.integers(1, 4))
    groups = int(rng.choice([1, 1, 2, 3]))
    inputs, outputs = (groups * int(n) for n in rng.integers(1, 4, 2))
    settings: dict[str, Any] = {"groups": groups, "bias": bool(rng.random() < 0.5)}
    for name, (least, most) in {"stride": (1, 3), "padding": (0, 3), "dilation": (1, 3)}.items():
        settings[name] = tuple(int(n) for n in rng.integers(least, most, rank))
    if transposed:
        # PyTorch wants them below the stride or the dilation.
        settings["output_padding"] = tuple(
            int(rng.integers(0, max(pair))) for pair in zip(settings["stride"], settings["dilation"])
        )
    else:
        settings["padding_mode"] = str(rng.choice(MODES))
    kernel = tuple(int(n) for n in rng.integers(1, 4, rank))
    made = CONVOLUTIONS[rank, transposed](inputs, outputs, kernel, **{**settings, **told}).double().eval()
    print(made)
    return made


def rank_of(convolution: Any) -> int:
    return len(convolution.kernel_size)


def arrays(layer: Any) -> tuple[Array, Any]:
    return array(layer.weight), None if layer.bias is None else array(layer.bias)


def replaced(layer: Any, folded: bn.Folded) -> Any:
    """The layer with other numbers, and all of its settings."""
    made = copy.deepcopy(layer)
    made.weight, made.bias = (torch.nn.Parameter(tensor(each)) for each in folded)
    return made


def drawn(rng: np.random.Generator, channels: int, rank: int) -> Any:
    return tensor(rng.normal(size=(2, channels, *rng.integers(6, 9, rank))))


def compare(ours: Any, theirs: Any) -> None:
    """Sums of up to 162 terms next to 1."""
    ours, theirs = array(ours), array(theirs)
    near(ours, theirs, np.float64, 1 + abs(theirs).max(), count=162)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("case", range(2 * len(CASES)))
def test_after_a_convolution(rng: np.random.Generator, case: int, transposed: bool) -> None:
    conv = convolution(rng, transposed)
    ours, theirs = norms(rng, rank_of(conv), conv.out_channels)
    folded = bn.fold_conv(*arrays(conv), ours, groups=conv.groups, transposed=transposed)
    x = drawn(rng, conv.in_channels, rank_of(conv))
    compare(replaced(conv, folded)(x), theirs(conv(x)))
    if not transposed or conv.groups == 1:
        fused = fusion.fuse_conv_bn_eval(conv, theirs, transposed)
        near(folded.weight, array(fused.weight), np.float64, abs(folded.weight))
        near(folded.bias, array(fused.bias), np.float64, 1 + abs(folded.bias).max())


@pytest.mark.parametrize("case", CASES)
def test_after_a_linear_layer(rng: np.random.Generator, case: int) -> None:
    inputs, outputs = (int(n) for n in rng.integers(1, 20, 2))
    linear = torch.nn.Linear(inputs, outputs, bias=bool(rng.random() < 0.5)).double().eval()
    ours, theirs = norms(rng, 1, outputs)
    folded, x = bn.fold_linear(*arrays(linear), ours), tensor(rng.normal(size=(7, inputs)))
    compare(replaced(linear, folded)(x), theirs(linear(x)))
    if theirs.affine:
        fused = fusion.fuse_linear_bn_eval(linear, theirs)
        near(folded.weight, array(fused.weight), np.float64, abs(folded.weight))
        near(folded.bias, array(fused.bias), np.float64, 1 + abs(folded.bias).max())
    else:
        with pytest.raises(TypeError):  # None stands for no number there
            fusion.fuse_linear_bn_eval(linear, theirs)


@pytest.mark.parametrize("case", range(2 * len(CASES)))
def test_before_a_convolution(rng: np.random.Generator, case: int) -> None:
    mode = MODES[case % 4]
    told: dict[str, Any] = {"padding_mode": mode}
    if mode == "zeros":
        told["padding"] = 0 if rng.random() < 0.5 else "valid"
    elif rng.random() < 0.3:
        told.update(padding="same", stride=1)
    conv = convolution(rng, False, **told)
    ours, theirs = norms(rng, rank_of(conv), conv.in_channels)
    folded = folded_into(ours, conv)
    x = drawn(rng, conv.in_channels, rank_of(conv))
    compare(replaced(conv, folded)(x), conv(theirs(x)))


def folded_into(norm: Any, conv: Any) -> bn.Folded:
    """With the layer's own attributes, as they are."""
    settings = {name: getattr(conv, name) for name in ("groups", "transposed", "padding", "padding_mode")}
    settings.update({name: getattr(conv, name) for name in ("stride", "dilation", "output_padding")})
    return bn.fold_into_conv(norm, *arrays(conv), **settings)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_without_shift_before_any_convolution(rng: np.random.Generator, case: int, transposed: bool) -> None:
    told: dict[str, Any] = {"padding": "same", "stride": 1} if not transposed and case % 4 == 0 else {}
    conv = convolution(rng, transposed, **told)
    ours, theirs = norms(rng, rank_of(conv), conv.in_channels, shift=False)
    x = drawn(rng, conv.in_channels, rank_of(conv))
    compare(replaced(conv, folded_into(ours, conv))(x), conv(theirs(x)))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("case", range(4 * len(CASES)))
def test_what_is_refused_is_wrong_in_pytorch(rng: np.random.Generator, case: int, transposed: bool) -> None:
    """Any convolution, with shifts: ours agrees with the two layers, or refuses, and its numbers would have failed."""
    conv = convolution(rng, transposed)
    ours, theirs = norms(rng, rank_of(conv), conv.in_channels)
    form = bn.ScaleShift(bn.ScaleShift.of(ours).scale, rng.uniform(1, 2, conv.in_channels))
    with torch.no_grad():
        theirs.affine, theirs.weight, theirs.eps = True, torch.nn.Parameter(tensor(form.scale)), 0.0
        theirs.bias = torch.nn.Parameter(tensor(form.shift))
        theirs.running_mean.zero_()
        theirs.running_var.fill_(1)
    x = drawn(rng, conv.in_channels, rank_of(conv))
    try:
        expected = conv(theirs(x))
    except RuntimeError:  # of a mode whose padding is more than there is, or of nothing to put out
        pytest.skip("PyTorch has no output")
    try:
        folded, refused = folded_into(form, conv), False
    except ValueError as error:
        if "norm has shift" not in str(error):
            raise
        # The bias is that of a layer whose taps are all seen everywhere: its kernel has one tap, the sum of all.
        shape = [int(n) for n in conv.weight.shape[:2]]
        taps = array(conv.weight).reshape(*shape, -1).sum(axis=2)[..., None]
        weight = bn.fold_into_conv(
            bn.ScaleShift(form.scale, 0 * form.scale),
            array(conv.weight),
            None,
            groups=conv.groups,
            transposed=transposed,
        ).weight
        bias = bn.fold_into_conv(form, taps, arrays(conv)[1], groups=conv.groups, transposed=transposed).bias
        folded, refused = bn.Folded(weight, bias), True
    if refused:
        assert float(abs(replaced(conv, folded)(x) - expected).max()) > 1e-6
    else:
        compare(replaced(conv, folded)(x), expected)


@pytest.mark.parametrize("case", CASES)
def test_before_a_transposed_convolution_of_one_tap(rng: np.random.Generator, case: int) -> None:
    conv = convolution(rng, True, stride=1, output_padding=0)
    made = CONVOLUTIONS[rank_of(conv), True](
        conv.in_channels, conv.out_channels, 1, 1, conv.padding, groups=conv.groups, bias=conv.bias is not None
    )
    made = made.double().eval()
    ours, theirs = norms(rng, rank_of(conv), conv.in_channels)
    x = drawn(rng, conv.in_channels, rank_of(conv))
    compare(replaced(made, folded_into(ours, made))(x), made(theirs(x)))


@pytest.mark.parametrize("case", CASES)
def test_before_a_linear_layer(rng: np.random.Generator, case: int) -> None:
    """With a tensor that is flattened in between."""
    channels, positions, outputs = (int(n) for n in rng.integers(1, 6, 3))
    linear = torch.nn.Linear(channels * positions, outputs, bias=bool(rng.random() < 0.5)).double()
    ours, theirs = norms(rng, 1, channels)
    x = tensor(rng.normal(size=(3, channels, positions)))
    flat = bn.ScaleShift(*(np.repeat(each, positions) for each in bn.ScaleShift.of(ours)))
    folded = bn.fold_into_linear(flat, *arrays(linear))
    compare(replaced(linear, folded)(x.flatten(1)), linear(theirs(x).flatten(1)))


@pytest.mark.parametrize("case", CASES)
def test_two_norms(rng: np.random.Generator, case: int) -> None:
    (ours, theirs), (later, their_later) = (norms(rng, 2, 5) for _ in range(2))
    x = drawn(rng, 5, 2)
    compare(tensor(bn.merge_batch_norms(ours, later)(array(x))), their_later(theirs(x)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding(rng: np.random.Generator, dtype: str) -> None:
    """Ours is as near to the real numbers as the dtype allows; of theirs, some are farther and none is nearer."""
    kind, n = DTYPES[dtype], 4000
    given = [rng.uniform(0.5, 2, n).astype(wide(kind)) for _ in range(4)]
    weight = rng.uniform(0.5, 2, (n, 1)).astype(kind)
    exact = bn.scale_shift(*given)
    folded = bn.fold_linear(weight, None, exact)
    gamma, beta, mean, var = map(tensor, given)
    fused, _ = fusion.fuse_linear_bn_weights(tensor(weight), None, mean, var, 1e-5, gamma, beta)
    real = weight[:, 0].astype(np.longdouble) * exact.scale
    ours, theirs = (abs(each[:, 0].astype(np.longdouble) - real) for each in (folded.weight, array(fused)))
    if kind == np.float64:
        # The scale itself is of this width, to both.
        assert ours.max() <= 4 * np.finfo(kind).eps * real.max()
    else:
        assert (ours <= theirs).all()
        assert (ours < theirs).mean() > 0.1
        assert (ours <= float(ml_dtypes.finfo(kind).eps) / 2 * real).all()


def test_pytorch_folds_no_transposed_convolution_of_groups(rng: np.random.Generator) -> None:
    """Neither where it says so nor where it gives weights of another shape, which then are refused or wrong."""
    for inputs, outputs, groups in ((4, 6, 2), (3, 3, 3), (6, 3, 3)):
        conv = torch.nn.ConvTranspose2d(inputs, outputs, 3, groups=groups).double().eval()
        ours, theirs = norms(rng, 2, outputs)
        x = drawn(rng, inputs, 2)
        folded = bn.fold_conv(*arrays(conv), ours, groups=groups, transposed=True)
        compare(replaced(conv, folded)(x), theirs(conv(x)))
        if groups == outputs:
            fused = fusion.fuse_conv_bn_eval(conv, theirs, transpose=True)
            assert tuple(fused.weight.shape) != tuple(conv.weight.shape)
            with pytest.raises(RuntimeError):
                fused(x)
        else:
            with pytest.raises(RuntimeError):
                fusion.fuse_conv_bn_eval(conv, theirs, transpose=True)


def test_zero_variance_without_eps_is_finite_here_alone() -> None:
    layer, weight = torch.nn.BatchNorm1d(1, eps=0).eval(), np.ones((1, 1), np.float32)
    layer.running_var.zero_()
    fused, _ = fusion.fuse_linear_bn_weights(
        tensor(weight), None, layer.running_mean, layer.running_var, 0.0, layer.weight, layer.bias
    )
    assert not np.isfinite(array(fused)).any()
    assert bn.fold_linear(weight, None, bn.scale_shift(None, [3], [1], [0], 0)) == (0, 3)
