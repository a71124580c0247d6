# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch's layers with an activation, beside PyTorch's operators one after the other in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from in_torch import torch
from modules import bt, lies, small

import batchnorm as bn

pytestmark = pytest.mark.usefixtures("small")
_ = small
functional = torch.nn.functional

# Theirs, and where the slope jumps.
ACTIVATIONS: dict[Any, tuple[Any, list[float]]] = {
    "identity": (lambda u: u, []),
    "relu": (functional.relu, [0]),
    "relu6": (functional.relu6, [0, 6]),
    "hard_swish": (functional.hardswish, [-3, 3]),
    "silu": (functional.silu, []),
    bn.LeakyReLU(0.1): (lambda u: functional.leaky_relu(u, 0.1), [0]),
    bn.Clip(-0.5, 0.75): (lambda u: torch.clamp(u, -0.5, 0.75), [-0.5, 0.75]),
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


class Case:
    """A layer, its inputs, and what PyTorch makes of them in float64; dy is 0 next to a jump of the slope."""

    def __init__(
        self, layer: Any, dtype: Any, layout: str, has_residual: bool, theirs: Any, jumps: list[float]
    ) -> None:
        self.layer = layer.double() if dtype is torch.float64 else layer
        with torch.no_grad():
            layer.weight.uniform_(0.5, 2)
            layer.weight[0] *= -1
            layer.bias.normal_()
        self.x, self.z, self.dy = (lies(torch.randn(6, 4, 5, 3).to(dtype), layout) for _ in range(3))
        inputs = [each.detach().double().requires_grad_() for each in (self.x, layer.weight, layer.bias, self.z)]
        self.exact = copy.deepcopy(layer).double()
        u = functional.batch_norm(inputs[0], self.exact.running_mean, self.exact.running_var, *inputs[1:3], True)
        u = u + inputs[3] if has_residual else u
        for jump in jumps:
            self.dy[(u - jump).abs() < 0.05] = 0
        y = theirs(u)
        found = torch.autograd.grad(y, inputs if has_residual else inputs[:3], self.dy.double())
        self.expected = [y, *found, self.exact.running_mean, self.exact.running_var]

    def compare(self, x: Any, *residual: Any) -> Any:
        """One call forward and backward: y."""
        tracked = [each.requires_grad_() for each in (x.clone(memory_format=torch.preserve_format), *residual)]
        # The tensor that is written over is no leaf.
        y = self.layer(tracked[0] * 1, *tracked[1:])
        y.backward(self.dy)
        gradients = [
            tracked[0].grad,
            self.layer.weight.grad,
            self.layer.bias.grad,
            *(each.grad for each in tracked[1:]),
        ]
        found = [y, *gradients, self.layer.running_mean, self.layer.running_var]
        assert len(found) == len(self.expected)
        for mine, exact in zip(found, self.expected):
            unit = torch.finfo(mine.dtype).eps
            computed = max(2**-52, min(unit, 2**-23))
            mine, exact = mine.detach().double(), exact.detach()
            torch.testing.assert_close(mine, exact, rtol=0.51 * unit + computed, atol=200 * computed)
        assert y.dtype == x.dtype
        assert y.stride() == x.stride()
        return y


@pytest.mark.parametrize("has_residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("layout", ["planes", "channels last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_fused(activation: Any, dtype: Any, layout: str, has_residual: bool) -> None:
    torch.manual_seed(0)
    layer = bt.BatchNormAct2d(4, activation=activation)
    case = Case(layer, dtype, layout, has_residual, *ACTIVATIONS[activation])
    y = case.compare(case.x, *[case.z] * has_residual)
    assert type(y.grad_fn).__name__ == "FusedBackward"
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize("slope", [0.01, 0.3, 1])
@pytest.mark.parametrize("layout", ["planes", "channels last"])
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_in_place(dtype: Any, layout: str, slope: float) -> None:
    torch.manual_seed(1)
    layer = bt.InPlaceABN(4, slope=slope)
    case = Case(layer, dtype, layout, False, lambda u: functional.leaky_relu(u, slope), [0])
    kept: list[Any] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        y = case.compare(case.x)
    assert type(y.grad_fn).__name__ == "InPlaceBackward"
    assert [each.data_ptr() for each in kept if each.dim() == 4] == [y.data_ptr()]


def test_in_place_is_over_its_input() -> None:
    bt.functional.set_smallest(None)  # it saves memory, whatever the size
    layer, x = bt.InPlaceABN(4), torch.randn(3, 4, 5, 5).requires_grad_()
    between = x * 1
    y = layer(between)
    assert y.data_ptr() == between.data_ptr()
    changed = y + 1
    with torch.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        changed.sum().backward()
    counted, kept = int(layer.num_batches_tracked), x.detach().clone()
    with pytest.raises(RuntimeError, match="leaf Variable"):
        layer(x)
    assert (int(layer.num_batches_tracked), torch.equal(x, kept)) == (counted, True)
    (dx,) = torch.autograd.grad(layer(x * 1).pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()
    for slope in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="^slope is "):
            bt.InPlaceABN(4, slope=slope)


def test_views_with_gaps_are_not_written_over() -> None:
    wide = torch.randn(3, 8, 5, 5)
    before, x = wide.clone(), wide[:, ::2]
    y = bt.InPlaceABN(4)(x)
    assert torch.equal(wide, before)
    torch.testing.assert_close(y, functional.leaky_relu(torch.nn.BatchNorm2d(4)(x), 0.01))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_gradients_of_gradients(activation: Any) -> None:
    torch.manual_seed(2)
    layer = bt.BatchNormAct2d(4, activation=activation, dtype=torch.float64, track_running_stats=False)
    x, z = (torch.randn(4, 4, 2, 2).double().requires_grad_() for _ in range(2))
    weight, bias = (torch.rand(4).double().add(0.5).requires_grad_() for _ in range(2))

    def call(x: Any, z: Any, weight: Any, bias: Any) -> Any:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x, z))

    assert torch.autograd.gradcheck(call, (x, z, weight, bias))
    assert torch.autograd.gradgradcheck(call, (x, z, weight, bias))
    frozen = z.detach()
    assert torch.autograd.gradgradcheck(lambda x, bias: call(x, frozen, weight.detach(), bias), (x, bias))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("how", ["evaluated", "small", "transformed", "broadcast"])
def test_the_steps_by_pytorch(how: str, activation: Any) -> None:
    torch.manual_seed(3)
    layer = bt.BatchNormAct2d(4, activation=activation, track_running_stats=how != "transformed")
    steps = bt.convert(torch.nn.BatchNorm2d(4, track_running_stats=how != "transformed"), back=True)
    x, z = torch.randn(6, 4, 5, 5), torch.randn(6, 4, 5, 5)
    layers = [lambda x: layer(x, z), lambda x: ACTIVATIONS[activation][0](steps(x) + z)]
    if how == "broadcast":
        z = torch.randn(4, 1, 1)
    if how == "evaluated":
        layer.eval(), steps.eval()
    if how == "small":
        bt.functional.set_smallest(None)
    if how == "transformed":
        layers = [torch.func.vmap(each) for each in layers]
        x = torch.stack([x, 2 + x])
    mine, theirs = (each(x) for each in layers)
    torch.testing.assert_close(mine, theirs)


def test_compiled_and_exported() -> None:
    x = torch.randn(4, 3, 8, 8)
    for layer in (bt.BatchNormAct2d(3), bt.InPlaceABN(3)):
        for training in (True, False):
            each, seen = copy.deepcopy(layer).train(training), []

            def backend(module: Any, _: Any, seen: list[str] = seen) -> Any:
                seen.extend(str(node.target) for node in module.graph.nodes)
                return module.forward

            y = torch.compile(each, backend=backend, fullgraph=True)(x.clone())
            torch.testing.assert_close(y, copy.deepcopy(layer).train(training)(x.clone()))
            assert any("batch_norm" in target for target in seen)
            program = torch.export.export(each, (x,))
            assert "aten.batch_norm.default" in [str(node.target) for node in program.graph.nodes]


def test_state_and_words() -> None:
    for layer in (bt.BatchNormAct2d(3, activation="silu"), bt.InPlaceABN(3, slope=0.2)):
        theirs = torch.nn.BatchNorm2d(3)
        assert isinstance(layer, torch.nn.BatchNorm2d)
        assert list(layer.state_dict()) == list(theirs.state_dict())
        layer.load_state_dict(theirs.state_dict())
        assert type(layer).__module__ == "batchnorm.torch"
        assert type(bt.convert(layer, back=True)).__module__ == "batchnorm.torch"
        with pytest.raises(ValueError, match="expected 4D input"):
            layer(torch.ones(3, 3))
    assert repr(bt.BatchNormAct2d(3, activation="silu")).endswith("track_running_stats=True, activation='silu')")
    assert repr(bt.InPlaceABN(3, slope=0.2)).endswith("track_running_stats=True, slope=0.2)")
    assert bt.BatchNormAct2d(3, activation=None).eval()(torch.ones(2, 3, 1, 1)).shape == (2, 3, 1, 1)
    with pytest.raises(ValueError, match="^activation is 'gelu'"):
        bt.BatchNormAct2d(3, activation="gelu")
