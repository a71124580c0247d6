# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch: layers beside torch.nn's, in training and evaluation, and what PyTorch does with modules."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import pytest
from comparing import CASES, DTYPES, Batch
from in_torch import tensor, torch
from modules import GRAD_FN, NAMES, WAY, bt, compare, exact, lies, pair, small, step

import batchnorm as bn

pytestmark = pytest.mark.usefixtures("small")
KINDS = sorted(set(NAMES.values()))
_ = small


@pytest.mark.parametrize("layout", ["planes", "channels last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_training(rng: np.random.Generator, case: int, dtype: str, layout: str) -> None:
    """Beside theirs in float64, and beside theirs as it is in what is not a number."""
    batch = Batch(rng, dtype, param=dtype if rng.random() < 0.4 else None)
    momentum = None if rng.random() < 0.3 else batch.momentum
    affine, tracking, bias = (bool(rng.random() < 0.7) for _ in range(3))
    print(f"momentum {momentum}, affine {affine}, tracking {tracking}, bias {bias}")
    if not affine:
        batch.gamma = np.ones_like(batch.gamma)
    if not (affine and bias):
        batch.beta = np.zeros_like(batch.beta)
    ours, theirs = pair(batch, momentum=momentum, affine=affine, track_running_stats=tracking, bias=bias)
    x, dy = (lies(tensor(each), layout) for each in (batch.x, batch.dy))
    calls = counted()
    with calls:
        mine = step(ours, x, dy)
    assert calls.count == 2  # of this library: forward and backward
    compare(batch, mine, step(exact(theirs), x.double(), dy.double()))
    alike = step(theirs, x, dy)
    for name, value in mine.items():
        assert value.dtype == alike[name].dtype, name
    assert order(mine["y"]) == order(mine["dx"]) == order(x)
    if x.dim() != 3:  # there theirs are in C order, whatever x is
        assert order(alike["y"]) == order(x)
    assert type(mine["y"].grad_fn).__name__ == GRAD_FN
    if tracking:
        assert torch.equal(ours.eval()(x), bt.convert(copy.deepcopy(ours), back=True)(x))


def order(x: Any) -> list[int]:
    """The strides of dimensions that have more than one element."""
    return [stride for stride, size in zip(x.stride(), x.shape) if size > 1]


class counted:  # noqa: N801
    """Counts the calls of the library."""

    def __enter__(self) -> None:
        self.count, self._was = 0, (WAY.forward, WAY.backward)
        WAY.forward, WAY.backward = map(self._counting, self._was)

    def __exit__(self, *_: object) -> None:
        WAY.forward, WAY.backward = self._was

    def _counting(self, function: Any) -> Any:
        def call(*given: Any) -> Any:
            self.count += 1
            return function(*given)

        return call


def test_statistics_are_exact_where_pytorchs_lose_their_digits(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.normal(30_000, 1, size=(32, 4, 7, 7)).astype(np.float32))
    exactly = torch.nn.BatchNorm2d(4).double()(x.double())
    errors = [float((kind(4)(x).double() - exactly).abs().max()) for kind in (bt.BatchNorm2d, torch.nn.BatchNorm2d)]
    assert errors[0] < 1e-6
    assert errors[1] > 1e-4


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4)], ids=str)
def test_empty_batches_are_theirs(shape: tuple[int, ...], affine: bool) -> None:
    steps = []
    for kind in (bt, torch.nn):
        layer = kind.BatchNorm2d(shape[1], affine=affine)
        steps.append(step(layer, torch.zeros(shape), torch.zeros(shape)))
    for name, value in steps[0].items():
        if steps[1][name] is None:
            assert value is None
        else:
            assert torch.equal(value, steps[1][name])


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 3, 1, 1), None),
        ((4, 3, 2), None),
        ((4, 2, 3, 3), None),
        ((4, 3, 2, 2), torch.float64),
        ((4, 3, 2, 2), torch.int32),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_in_pytorchs_words(shape: tuple[int, ...], dtype: Any) -> None:
    told = []
    for kind in (bt, torch.nn):
        with pytest.raises((ValueError, RuntimeError, NotImplementedError)) as error:
            kind.BatchNorm2d(3)(torch.ones(shape, dtype=dtype))
        told.append((type(error.value), str(error.value)))
    assert told[0] == told[1]


def test_dtypes_that_differ_are_told_in_pytorchs_words() -> None:
    told = []
    for kind in (bt, torch.nn):
        layer = kind.BatchNorm2d(3).bfloat16()
        layer.running_mean = layer.running_mean.float()
        layer.running_var = layer.running_var.float()
        with pytest.raises(RuntimeError) as error:
            layer(torch.ones(4, 3, 2, 2, dtype=torch.bfloat16))
        told.append(str(error.value))
    assert told[0] == told[1]


def test_a_layer_without_statistics_is_of_the_batch_in_evaluation(rng: np.random.Generator) -> None:
    batch = Batch(rng, "float32")
    ours, theirs = pair(batch, track_running_stats=False)
    x, dy = tensor(batch.x), tensor(batch.dy)
    mine = step(ours.eval(), x, dy)
    compare(batch, mine, step(exact(theirs.eval()), x.double(), dy.double()))
    assert type(mine["y"].grad_fn).__name__ == GRAD_FN


def test_statistics_that_are_not_tracked_stay() -> None:
    """track_running_stats may be taken away later, as some fine-tuning does."""
    x = torch.randn(4, 3, 5, 5)
    for kind in (bt, torch.nn):
        layer = kind.BatchNorm2d(3)
        layer.track_running_stats = False
        layer(x)
        assert layer.num_batches_tracked == 0
        assert layer.running_mean.count_nonzero() == 0


@pytest.mark.parametrize("name", KINDS)
def test_modules_are_pytorchs(name: str) -> None:
    ours, theirs = getattr(bt, name)(4, eps=0.01), getattr(torch.nn, name)(4, eps=0.01)
    assert isinstance(ours, type(theirs))
    assert isinstance(ours, torch.nn.modules.batchnorm._BatchNorm)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.weight.data.fill_(3), theirs.running_var.fill_(7)
    ours.load_state_dict(theirs.state_dict())
    assert ours.weight.mean() == 3
    ours.running_mean.fill_(5)
    theirs.load_state_dict(ours.state_dict())
    assert theirs.running_mean.mean() == 5


def test_saved_and_copied() -> None:
    model = torch.nn.Sequential(bt.BatchNorm2d(3), bt.LazyBatchNorm2d())
    model(torch.randn(4, 3, 5, 5))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for found in (torch.load(file, weights_only=False), copy.deepcopy(model)):
        assert [type(layer) for layer in found] == [bt.BatchNorm2d] * 2
        for key, value in model.state_dict().items():
            assert torch.equal(found.state_dict()[key], value)
    assert bt.BatchNorm2d.__module__ == "batchnorm.torch"


def test_update_bn_and_hooks(rng: np.random.Generator) -> None:
    batches = [torch.from_numpy(rng.normal(2, 3, size=(8, 3, 4, 4)).astype(np.float32)) for _ in range(3)]
    statistics = []
    for kind in (bt, torch.nn):
        model, seen = torch.nn.Sequential(kind.BatchNorm2d(3)), []
        model[0].register_forward_hook(lambda *told, seen=seen: seen.append(told))
        torch.optim.swa_utils.update_bn(batches, model)
        assert len(seen) == 3
        statistics.append((model[0].running_mean, model[0].running_var, model[0].num_batches_tracked))
    for mine, theirs in zip(*statistics):
        torch.testing.assert_close(mine, theirs)


def test_fused_into_a_convolution() -> None:
    convolution, layer = torch.nn.Conv2d(3, 4, 3), bt.BatchNorm2d(4)
    x = torch.randn(5, 3, 8, 8)
    layer(convolution(x))
    fused = torch.nn.utils.fusion.fuse_conv_bn_eval(convolution.eval(), layer.eval())
    torch.testing.assert_close(fused(x), layer(convolution(x)))


@pytest.mark.parametrize("name", KINDS)
def test_lazy_layers(name: str) -> None:
    x = torch.randn(4, 3, *[2] * {"BatchNorm1d": 1, "BatchNorm2d": 2, "BatchNorm3d": 3}[name])
    steps = []
    for kind in (bt, torch.nn):
        layer = getattr(kind, "Lazy" + name)()
        y = layer(x)
        assert type(layer) is getattr(kind, name)
        steps.append((y, layer.running_var, layer.num_batches_tracked))
    for mine, theirs in zip(*steps):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype: Any) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    ours, x, found = bt.convert(theirs, inplace=False), torch.randn(4, 3, 8, 8), []
    for model in (ours, theirs):
        with torch.autocast("cpu", dtype):
            y = model(x)
        y.float().pow(2).sum().backward()
        found.append((y, model[0].weight.grad, model[1].weight.grad, model[1].running_var))
    for mine, other in zip(*found):
        assert mine.dtype == other.dtype
        torch.testing.assert_close(mine, other, rtol=0.02, atol=0.02)


def test_without_gradients() -> None:
    x = torch.randn(4, 3, 5, 5)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            layer = bt.BatchNorm2d(3)
            assert not layer(x).requires_grad
            assert layer.num_batches_tracked == 1
            assert layer.running_mean.count_nonzero() == 3


@pytest.mark.parametrize("layout", ["planes", "channels last", "slices"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_what_follows_may_write_over_the_output(dtype: Any, layout: str) -> None:
    torch.manual_seed(7)
    x = lies(torch.randn(4, 6, 5, 3).to(dtype), layout)
    x, results = (x[:, ::2] if layout == "slices" else x[:, :3].clone(memory_format=torch.preserve_format)), []
    layers = [bt.BatchNorm2d(3), bt.BatchNormAct2d(3, activation="identity"), bt.InPlaceABN(3, slope=1)]
    for layer in (torch.nn.BatchNorm2d(3), *layers):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = (layer.double() if dtype is torch.float64 else layer)(leaf * 1)
        assert not y._is_view()
        # InPlaceABN needs its output.
        y = torch.relu(y) if isinstance(layer, bt.InPlaceABN) else torch.relu_(y)
        (dx,) = torch.autograd.grad(y.pow(2).sum(), leaf)
        results.append((y, dx))
    unit = torch.finfo(dtype).eps
    for found in results[1:]:
        torch.testing.assert_close(found, results[0], rtol=4 * unit, atol=8 * unit)


def test_what_autograd_knows_of_changes_in_place() -> None:
    """x and weight may not change before the backward pass; running statistics may."""
    for kind in (bt, torch.nn):
        layer, x = kind.BatchNorm2d(3), torch.randn(4, 3, 5, 5).requires_grad_() * 1
        y = layer.eval()(x)
        layer.train()(x)
        y.sum().backward()
        for changed in ("x", "weight"):
            y = layer(x)
            with torch.no_grad():
                (x if changed == "x" else layer.weight).mul_(2)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                y.sum().backward()


def test_small_tensors_are_pytorchs() -> None:
    """The operators of batchnorm-torch take all of them."""
    bt.functional.set_smallest(None)
    theirs = GRAD_FN if bt.operators.THERE else "NativeBatchNormBackward0"
    for side, grad_fn in ((31, theirs), (32, GRAD_FN)):
        assert type(bt.BatchNorm2d(4)(torch.ones(8, 4, side, 32)).grad_fn).__name__ == grad_fn
    half = torch.ones(8, 4, 63, 64, dtype=torch.bfloat16)
    assert type(bt.BatchNorm2d(4)(half).grad_fn).__name__ == theirs
    last = torch.ones(8, 4, 63, 64).to(memory_format=torch.channels_last)
    assert type(bt.BatchNorm2d(4)(last).grad_fn).__name__ == theirs
    bt.functional.set_smallest(1001)
    for elements, grad_fn in ((1000, "NativeBatchNormBackward0"), (1002, GRAD_FN)):
        assert type(bt.BatchNorm1d(2)(torch.ones(elements // 2, 2)).grad_fn).__name__ == grad_fn
    with pytest.raises(ValueError, match="^elements is -1, expected at least 0$"):
        bt.functional.set_smallest(-1)


def test_other_devices_and_tensors_are_pytorchs() -> None:
    meta = bt.BatchNorm2d(3, device="meta")(torch.ones(4, 3, 2, 2, device="meta"))
    assert meta.shape == (4, 3, 2, 2)
    scattered = bt.BatchNorm2d(3)
    scattered.running_mean = torch.zeros(6)[::2]
    scattered(torch.randn(4, 3, 2, 2))
    assert scattered.running_mean.count_nonzero() == 3


def test_functional_is_pytorchs_in_order_and_names(rng: np.random.Generator) -> None:
    batch = Batch(rng, "float64")
    given = [tensor(each) for each in (batch.x, batch.running_mean, batch.running_var, batch.gamma, batch.beta)]
    for training in (True, False):
        found = []
        for kind in (bt, torch.nn):
            x, *others = (each.clone() for each in given)
            found.append([kind.functional.batch_norm(x, *others, training, 0.3, batch.eps), *others])
        for mine, theirs in zip(*found):
            torch.testing.assert_close(mine, theirs)
    named = dict.fromkeys(("running_mean", "running_var", "weight", "bias"))
    y = bt.functional.batch_norm(input=given[0], **named, training=True, momentum=0.1, eps=1e-5)
    torch.testing.assert_close(y, torch.nn.functional.batch_norm(given[0], None, None, training=True))


def test_threads_do_not_change_bits() -> None:
    x = torch.randn(16, 8, 20, 20)
    ys = []
    for threads in (1, 2):
        bn.set_num_threads(threads)
        ys.append(bt.BatchNorm2d(8)(x))
    assert torch.equal(*ys)


def test_an_old_pytorch_is_refused() -> None:
    bt.require.check("2.10.0+cpu"), bt.require.check("3.0")
    for old in ("2.9.1", "1.13.1+cpu"):
        with pytest.raises(ImportError, match=rf"^batchnorm\.torch works with PyTorch 2\.10 and .* this is {old[:4]}"):
            bt.require.check(old)


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer, x = bt.BatchNorm2d(3), torch.randn(4, 3, 5, 5, requires_grad=True)
        (gradient,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
        gradient.pow(2).sum().backward()
    assert x.grad is not None
