# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch: ghost batches, batch renormalization and frozen layers, beside PyTorch's operators in float64."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import pytest
from comparing import CASES, DTYPES, Batch, peer
from in_torch import tensor, torch
from modules import NAMES, lies, step

bt = peer("batchnorm.torch")
nn, functional = torch.nn, torch.nn.functional


class Ghosts(nn.Module):
    """PyTorch's layer, called with one group of samples after the other."""

    def __init__(self, layer: Any, size: int) -> None:
        super().__init__()
        self.layer, self.size = layer, size

    def forward(self, x: Any) -> Any:
        return torch.cat([self.layer(part) for part in x.split(self.size)])


class Renormed(nn.Module):
    """The paper's formula over PyTorch's layer."""

    def __init__(self, layer: Any, r_max: float, d_max: float) -> None:
        super().__init__()
        self.layer, self.r_max, self.d_max = layer, r_max, d_max

    def forward(self, x: Any) -> Any:
        layer, over, shape = self.layer, [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        if not self.training:
            return layer(x)
        mean, std = x.mean(over), torch.sqrt(x.var(over, correction=0) + layer.eps)
        running_std = torch.sqrt(layer.running_var + layer.eps)
        r = (std.detach() / running_std).clamp(1 / self.r_max, self.r_max)
        d = ((mean.detach() - layer.running_mean) / running_std).clamp(-self.d_max, self.d_max)
        hat = (x - mean.reshape(shape)) / std.reshape(shape)
        y = hat * r.reshape(shape) + d.reshape(shape)
        if layer.weight is not None:
            y = y * layer.weight.reshape(shape)
        if layer.bias is not None:
            y = y + layer.bias.reshape(shape)
        layer(x.detach())  # moves the running statistics
        return y


def made(kind: str, theirs: Any, settings: Any, **told: Any) -> tuple[Any, Any]:
    """Ours in the state of theirs, and theirs in float64."""
    rank = type(theirs).__name__[-2:]
    layer = getattr(bt, kind + rank)(theirs.num_features, eps=theirs.eps, momentum=theirs.momentum, **settings, **told)
    layer = layer.to(next(iter(theirs.buffers())).dtype)
    layer.load_state_dict(theirs.state_dict())
    oracle = Ghosts if kind == "GhostBatchNorm" else Renormed
    return layer, oracle(copy.deepcopy(theirs).double(), *settings.values())


def random_layer(rng: np.random.Generator, batch: Batch, **told: Any) -> Any:
    theirs = getattr(nn, NAMES[len(batch.shape)])(batch.channels, eps=batch.eps, momentum=batch.momentum, **told)
    theirs = theirs.to(tensor(batch.gamma).dtype)
    with torch.no_grad():
        for name, value in (("weight", batch.gamma), ("bias", batch.beta)):
            if getattr(theirs, name) is not None:
                getattr(theirs, name).copy_(tensor(value))
        theirs.running_mean.copy_(tensor(batch.running_mean))
        theirs.running_var.copy_(tensor(batch.running_var))
    return theirs


def plain(found: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("layer.", ""): value for name, value in found.items()}


def stepped(oracle: Any, x: Any, dy: Any) -> dict[str, Any]:
    x = x.double().requires_grad_()
    y = oracle(x)
    y.backward(dy.double())
    found = {"y": y, "dx": x.grad} | {f"d{name}": each.grad for name, each in oracle.layer.named_parameters()}
    return found | dict(oracle.layer.named_buffers())


@pytest.mark.parametrize("layout", ["planes", "channels last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_ghost_batches(rng: np.random.Generator, case: int, dtype: str, layout: str) -> None:
    """Groups that divide the batch, and that do not."""
    batch = Batch(rng, dtype, param=dtype if rng.random() < 0.4 else None)
    size = int(rng.integers(2, len(batch.x) // 2 + 1))
    if len(batch.x) % size == 1:
        batch.x, batch.dy = batch.x[:-1].copy(), batch.dy[:-1].copy()
        batch.shape = batch.x.shape
    affine, bias, momentum = rng.random() < 0.7, rng.random() < 0.7, None if rng.random() < 0.2 else batch.momentum
    theirs = random_layer(rng, batch, affine=affine, bias=bias)
    theirs.momentum = momentum
    print(f"size {size} of {len(batch.x)}, affine {affine}, bias {bias}, momentum {momentum}")
    ours, oracle = made("GhostBatchNorm", theirs, {"size": size}, affine=affine, bias=bias)
    x, dy = (lies(tensor(each), layout) for each in (batch.x, batch.dy))
    found, exact = step(ours, x, dy), stepped(oracle, x, dy)
    if momentum is not None and len(batch.x) % size == 0:
        assert type(found["y"].grad_fn).__name__ == "ComposedBackward"
    near(found, exact, batch, size)
    assert int(ours.num_batches_tracked) == -(-len(batch.x) // size)
    assert torch.equal(ours.eval()(x), functional.batch_norm(
        x, ours.running_mean, ours.running_var, ours.weight, ours.bias, eps=ours.eps))  # fmt: skip


def near(ours: dict[str, Any], exact: dict[str, Any], batch: Batch, size: int) -> None:
    """Asserts that results differ by roundings, of terms as large as the most narrow group of samples makes them."""
    x, over = batch.x.astype(float), batch.over
    invstd = max((1 / np.sqrt(x[at : at + size].var(over) + batch.eps)).max() for at in range(0, len(x), size))
    hat, most = 1 + 2 * abs(x).max() * invstd, float(abs(batch.dy.astype(float)).max())
    gamma = 1 + float(abs(batch.gamma.astype(float)).max())
    unit = torch.finfo(tensor(batch.x).dtype).eps
    sizes = {"y": gamma * hat, "dx": gamma * most * invstd * hat**2, "dweight": most * hat * batch.count}
    sizes |= {"dbias": most * batch.count, "running_mean": abs(x).max(), "running_var": (x**2).max()}
    assert ours.keys() == exact.keys()
    for name, value in ours.items():
        if name == "num_batches_tracked":
            assert value == exact[name]
            continue
        error = float((value.double() - exact[name]).abs().max())
        rounding = torch.finfo(value.dtype).eps * float(exact[name].abs().max())
        assert error <= rounding + 4 * unit * sizes[name], f"{name}: {error} with sizes of {sizes[name]}"


@pytest.mark.parametrize("layout", ["planes", "channels last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_renormalization(rng: np.random.Generator, case: int, dtype: str, layout: str) -> None:
    batch = Batch(rng, dtype, param=dtype if rng.random() < 0.4 else None)
    limits = {"r_max": float(rng.choice([1, 1.2, 3, 50])), "d_max": float(rng.choice([0, 0.3, 5, 90]))}
    affine, bias = (bool(rng.random() < 0.7) for _ in range(2))
    theirs = random_layer(rng, batch, affine=affine, bias=bias)
    print(f"{limits}, affine {affine}, bias {bias}")
    ours, oracle = made("BatchRenorm", theirs, limits, affine=affine, bias=bias)
    x, dy = (lies(tensor(each), layout) for each in (batch.x, batch.dy))
    found, exact = step(ours, x, dy), stepped(oracle, x, dy)
    assert type(found["y"].grad_fn).__name__ == "ComposedBackward"
    near(found, exact, batch, len(batch.x))
    assert torch.equal(ours.eval()(x), functional.batch_norm(
        x, ours.running_mean, ours.running_var, ours.weight, ours.bias, eps=ours.eps))  # fmt: skip


LAYERS = {
    "ghosts": lambda: bt.GhostBatchNorm2d(3, 2),
    "ghosts and a rest": lambda: bt.GhostBatchNorm2d(3, 4),
    "cumulative ghosts": lambda: bt.GhostBatchNorm2d(3, 3, momentum=None),
    "renorm": lambda: bt.BatchRenorm2d(3, r_max=1.5, d_max=1, momentum=0.5),
    "frozen": lambda: bt.FrozenBatchNorm2d(3),
}


@pytest.fixture
def layer(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    found = LAYERS[request.param]().double()
    with torch.no_grad():
        for each in (found.weight, found.bias, found.running_mean):
            each.copy_(torch.randn(3))
        found.running_var.copy_(torch.tensor([0.2, 1, 6]))
    return found


of_layers = pytest.mark.parametrize("layer", LAYERS, indirect=True)
X = torch.randn(6, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def pure(layer: Any) -> Any:
    """A function of x, weight and bias; running statistics are as new in each call."""
    state = {name: each.clone() for name, each in layer.named_buffers()}

    def call(x: Any, weight: Any, bias: Any) -> Any:
        buffers = {name: each.clone() for name, each in state.items()}
        return torch.func.functional_call(layer, {**buffers, "weight": weight, "bias": bias}, (x,))

    return call


@of_layers
def test_derivatives(layer: Any) -> None:
    """First and second, in both modes, beside finite differences, to which r and d would be no constants."""
    call = pure(layer)
    given = [each.detach().clone().requires_grad_() for each in (X, layer.weight, layer.bias)]
    if isinstance(layer, bt.BatchRenorm2d):
        reference, found = Renormed(reference_of(layer), layer.r_max, layer.d_max), []
        for function in (call, lambda x, w, b: other_call(reference, x, w, b)):
            first = torch.autograd.grad(function(*given).pow(3).sum(), given, create_graph=True)
            found.append([*first, *torch.autograd.grad(sum(each.pow(2).sum() for each in first), given)])
        torch.testing.assert_close(*found)
        tangents = [torch.randn_like(each) for each in given]
        torch.testing.assert_close(*(
            torch.func.jvp(function, tuple(given), tuple(tangents))[1]
            for function in (call, lambda x, w, b: other_call(reference, x, w, b))
        ))  # fmt: skip
        return
    assert torch.autograd.gradcheck(call, given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, given)


def reference_of(layer: Any) -> Any:
    found = nn.BatchNorm2d(3, eps=layer.eps, momentum=layer.momentum).double()
    found.load_state_dict(layer.state_dict())
    return found


def other_call(module: Any, x: Any, weight: Any, bias: Any) -> Any:
    buffers = {f"layer.{name}": each.clone() for name, each in module.layer.named_buffers()}
    return torch.func.functional_call(module, {**buffers, "layer.weight": weight, "layer.bias": bias}, (x,))


@of_layers
def test_transforms(layer: Any) -> None:
    """torch.func: gradients by reverse mode are those by backward(), and a map is a loop."""
    call = pure(layer)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    leaf = X.clone().requires_grad_()
    call(leaf, weight, bias).pow(3).sum().backward()
    mapped = torch.stack([X, 2 * X + 1])
    torch.testing.assert_close(torch.func.grad(lambda x: call(x, weight, bias).pow(3).sum())(X), leaf.grad)
    if isinstance(layer, bt.FrozenBatchNorm2d):
        found = torch.func.vmap(lambda x: call(x, weight, bias))(mapped)
        torch.testing.assert_close(found, torch.stack([call(x, weight, bias) for x in mapped]))


@of_layers
def test_states_copies_and_pickles(layer: Any) -> None:
    names = ["weight", "bias", "running_mean", "running_var"]
    is_frozen = isinstance(layer, bt.FrozenBatchNorm2d)
    assert list(layer.state_dict()) == names + ["num_batches_tracked"] * (not is_frozen)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for found in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert (type(found), repr(found)) == (type(layer), repr(layer))
        assert found.weight is not layer.weight
        torch.testing.assert_close(found(X), copy.deepcopy(layer)(X))
    assert type(layer).__module__ == "batchnorm.torch"
    fresh = type(layer)(3, *([2] if "Ghost" in type(layer).__name__ else [])).double()
    fresh.load_state_dict(nn.BatchNorm2d(3).state_dict())
    nn.BatchNorm2d(3).load_state_dict(layer.state_dict(), strict=not is_frozen)


def test_representations() -> None:
    assert [repr(make()) for make in LAYERS.values()] == [
        "GhostBatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True, size=2)",
        "GhostBatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True, size=4)",
        "GhostBatchNorm2d(3, eps=1e-05, momentum=None, affine=True, bias=True, track_running_stats=True, size=3)",
        "BatchRenorm2d(3, eps=1e-05, momentum=0.5, affine=True, bias=True, track_running_stats=True, r_max=1.5, "
        "d_max=1)",
        "FrozenBatchNorm2d(3, eps=1e-05)",
    ]


@of_layers
def test_graphs(layer: Any) -> None:
    """Evaluation is PyTorch's one operator; training is operators as well, with the same results."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(layer.eval(), (X,))
        targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        assert targets == ["aten.batch_norm.default"]
        torch.testing.assert_close(program.module()(X), layer(X))
        layer.train()
        plain = copy.deepcopy(layer)
        leaf, other = (X.clone().requires_grad_() for _ in range(2))
        # An average over batches asks a tensor for its number, which ends a graph, in PyTorch's layers as well.
        fullgraph = getattr(layer, "momentum", 0) is not None
        y = torch.compile(layer, backend="aot_eager", fullgraph=fullgraph)(leaf)
    expected = plain(other)
    torch.testing.assert_close(y, expected)
    y.pow(3).sum().backward()
    expected.pow(3).sum().backward()
    torch.testing.assert_close(leaf.grad, other.grad)
    torch.testing.assert_close(layer.state_dict(), plain.state_dict())


@of_layers
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(layer: Any, dtype: Any) -> None:
    layer, found = layer.float(), []
    for x in (X.float(), X.to(dtype)):
        with torch.autocast("cpu", dtype):
            y = copy.deepcopy(layer)(x)
        assert y.dtype is x.dtype
        found.append(y.float())
    torch.testing.assert_close(*found, rtol=0.03, atol=0.03)


@of_layers
def test_channels_last_stays(layer: Any) -> None:
    y = layer(X.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer.eval()(y), layer(y.contiguous()))


def test_a_ghost_of_one_value_is_an_error_before_anything_moves() -> None:
    for size, samples in ((1, 4), (3, 7)):
        layer = bt.GhostBatchNorm1d(2, size)
        with pytest.raises(ValueError, match=rf"1 value per channel when training, got \[{samples}, 2\] in groups"):
            layer(torch.randn(samples, 2))
        assert layer.num_batches_tracked == 0
        assert layer.running_mean.tolist() == [0, 0]
    assert bt.GhostBatchNorm1d(2, 1)(torch.randn(4, 2, 5)).shape == (4, 2, 5)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="^size is 0, expected at least 1$"):
        bt.GhostBatchNorm1d(2, 0)
    with pytest.raises(ValueError, match=r"^r_max is 0.5, expected at least 1$"):
        bt.BatchRenorm1d(2, r_max=0.5)
    with pytest.raises(ValueError, match="^track_running_stats is False, but r and d are of the running statistics$"):
        bt.BatchRenorm1d(2, track_running_stats=False)
    layer = bt.BatchRenorm1d(2)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.ones(1, 2))
    assert layer.running_mean.tolist() == [0, 0]
    assert layer.num_batches_tracked == 0


def test_freeze() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), bt.BatchNorm2d(3, affine=False), nn.SyncBatchNorm(3), nn.BatchNorm1d(3))
    layer, seen = model[0], []
    layer.weight.data.fill_(2)
    layer.running_mean.fill_(7)
    layer.own = "kept"
    layer.register_forward_hook(lambda *_: seen.append(1))
    parameter, x, expected = layer.weight, torch.randn(4, 3, 2, 2), layer.eval()(torch.ones(1, 3, 1, 1))
    copied = bt.freeze(model, inplace=False)
    assert type(model[0]) is nn.BatchNorm2d
    assert bt.freeze(model) is model
    for each in (model, copied):
        assert [type(module) for module in each] == [bt.FrozenBatchNorm2d] * 3 + [nn.BatchNorm1d]
        assert len(list(each.parameters())) == 2
    assert model[0] is layer
    parameter.data.fill_(-1)
    seen.clear()
    assert torch.equal(layer.train()(torch.ones(1, 3, 1, 1)), expected)
    assert (seen, layer.own) == ([1], "kept")
    torch.testing.assert_close(layer(x), x * 2 / (1 + 1e-5) ** 0.5 - 14 / (1 + 1e-5) ** 0.5)
    assert layer.running_mean.tolist() == [7, 7, 7]
    assert type(bt.FrozenBatchNorm2d.of(bt.BatchNorm2d(3))) is bt.FrozenBatchNorm2d
    bt.FrozenBatchNorm2d(3).load_state_dict(nn.BatchNorm2d(3).state_dict())
    with pytest.raises(ValueError, match="^expected 4D input"):
        layer(torch.ones(2, 3))


def test_what_cannot_be_frozen() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="^layer '1' has no running statistics, which a frozen one is made of$"):
        bt.freeze(model)
    assert type(model[0]) is nn.BatchNorm2d
    with pytest.raises(TypeError, match="^layer is of type ReLU, expected a batch norm$"):
        bt.FrozenBatchNorm2d.of(nn.ReLU())
    with pytest.raises(TypeError, match="^layer is of type BatchNorm1d, expected one of two dimensions$"):
        bt.FrozenBatchNorm2d.of(nn.BatchNorm1d(3))
    assert "reproducible" not in vars(bt.FrozenBatchNorm2d.of(bt.SyncBatchNorm(3, reproducible=True)))


def test_the_frozen_layer_is_torchvisions() -> None:
    peer("in_torchvision")
    theirs = peer("torchvision.ops").FrozenBatchNorm2d(3)
    ours, x = bt.FrozenBatchNorm2d(3), torch.randn(4, 3, 5, 5)
    theirs.running_var.fill_(3), theirs.bias.fill_(2)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("kind", ["BatchNormAct2d", "InPlaceABN"])
def test_forward_mode_with_an_activation(kind: str) -> None:
    layer = getattr(bt, kind)(3).double()
    given = [each.detach().clone().requires_grad_() for each in (X, layer.weight, layer.bias)]
    call = pure(layer)
    assert torch.autograd.gradcheck(
        lambda x, *both: call(x * 1, *both), given, check_backward_ad=False, check_forward_ad=True
    )


@pytest.mark.parametrize("case", ["ghosts", "ghosts and a rest", "renorm"])
def test_an_ensemble(case: str) -> None:
    """vmap over layers, each with its own parameters and running statistics, is each layer's own call."""
    torch.manual_seed(0)
    layers, x = [LAYERS[case]().double() for _ in range(3)], torch.randn(3, 6, 3, 2, 2, dtype=torch.float64)
    for each in layers:
        nn.init.normal_(each.weight)
    parameters, buffers = torch.func.stack_module_state(layers)
    found = torch.func.vmap(
        lambda mine, others, t: torch.func.functional_call(copy.deepcopy(layers[0]), (mine, others), (t,))
    )(parameters, buffers, x)
    torch.testing.assert_close(found, torch.stack([layer(each) for layer, each in zip(layers, x)]))
    for name, each in buffers.items():
        torch.testing.assert_close(each, torch.stack([layer.state_dict()[name] for layer in layers]))
