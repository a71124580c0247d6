# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch: models converted and back, and PyTorch's tools beside them."""

from __future__ import annotations

import copy
import io
import re
import warnings
from contextlib import redirect_stdout
from typing import Any

import pytest
from comparing import peer
from helpers import REPOSITORY
from in_torch import torch
from modules import bt, small

pytestmark = pytest.mark.usefixtures("small")
_ = small


def network() -> Any:
    torch.manual_seed(0)
    made = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(5),
        torch.nn.BatchNorm1d(5),
    )  # fmt: skip
    made(torch.randn(6, 3, 7, 7))
    return made


def kinds(model: Any) -> list[type]:
    return [type(each) for each in model.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]


OURS, THEIRS = [bt.BatchNorm2d, bt.BatchNorm1d], [torch.nn.BatchNorm2d, torch.nn.BatchNorm1d]


def test_in_place() -> None:
    model = network()
    layer, seen = model[1], []
    layer.register_forward_hook(lambda *_: seen.append(1))
    layer.extra = "kept"
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = [layer, *model.parameters(), *model.buffers()]
    assert bt.convert(model) is model
    assert kinds(model) == OURS
    assert all(a is b for a, b in zip(before, [model[1], *model.parameters(), *model.buffers()]))
    weight = layer.weight.clone()
    model(torch.randn(6, 3, 7, 7)).pow(3).sum().backward()
    optimizer.step()
    assert (layer.weight != weight).all()
    assert (seen, layer.extra) == ([1], "kept")
    assert bt.convert(model) is model
    assert kinds(model) == OURS
    bt.convert(model.eval(), back=True)
    assert kinds(model) == THEIRS
    assert not model[1].training


def test_a_copy() -> None:
    model = network()
    copied = bt.convert(model, inplace=False)
    assert (kinds(model), kinds(copied)) == (THEIRS, OURS)
    copied[1].weight.data.fill_(7)
    assert (model[1].weight == 1).all()
    assert kinds(bt.convert(copied, back=True, inplace=False)) == THEIRS
    assert kinds(copied) == OURS


def test_a_layer_alone_and_lazy_ones() -> None:
    assert type(bt.convert(torch.nn.BatchNorm3d(3))) is bt.BatchNorm3d
    for rank in "123":
        lazy = bt.convert(getattr(torch.nn, f"LazyBatchNorm{rank}d")())
        lazy(torch.randn(4, 3, *[2] * int(rank)))
        assert type(lazy) is getattr(bt, f"BatchNorm{rank}d")
        lazy = bt.convert(getattr(bt, f"LazyBatchNorm{rank}d")(), back=True)
        assert type(lazy) is getattr(torch.nn, f"LazyBatchNorm{rank}d")


def test_subclasses_stay() -> None:
    class Own(torch.nn.BatchNorm2d):
        pass

    class OwnOfOurs(bt.BatchNorm2d):
        pass

    model = torch.nn.ModuleList([Own(3), OwnOfOurs(3), torch.nn.SyncBatchNorm(3), torch.nn.InstanceNorm2d(3)])
    before = [type(each) for each in model]
    for back in (False, True):
        assert [type(each) for each in bt.convert(model, back=back)] == before


def test_for_a_while() -> None:
    model = network()
    bt.convert(model[5])
    with bt.converted(model) as same:
        assert same is model
        assert kinds(model) == OURS
    assert kinds(model) == [torch.nn.BatchNorm2d, bt.BatchNorm1d]
    with bt.converted(model, back=True):
        assert kinds(model) == THEIRS
    with pytest.raises(RuntimeError), bt.converted(model):
        model(torch.ones(1))
    assert kinds(model) == [torch.nn.BatchNorm2d, bt.BatchNorm1d]
    with bt.converted(model):
        bt.convert(model, back=True)
    assert kinds(model) == [torch.nn.BatchNorm2d, torch.nn.BatchNorm1d]


def test_training_is_that_of_pytorchs() -> None:
    """Ten steps of descent in float64: the same losses."""
    losses = []
    for convert in (lambda model: model, bt.convert):
        model = convert(network().double())
        optimizer, found = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), []
        for step in range(10):
            torch.manual_seed(step)
            x, target = torch.randn(8, 3, 7, 7).double(), torch.randint(5, (8,))
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), target)
            loss.backward()
            optimizer.step()
            found.append(float(loss))
        losses.append(found)
    assert losses[0][-1] != losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


def test_a_resnet_by_one_line() -> None:
    """torchvision's, in float64: the losses of PyTorch's layers, step by step."""
    peer("in_torchvision")
    torch.manual_seed(0)
    theirs = peer("torchvision.models").resnet18(num_classes=10).double()
    ours = bt.convert(theirs, inplace=False)
    assert kinds(ours) == [bt.BatchNorm2d] * 20
    optimizers = [torch.optim.SGD(model.parameters(), 0.05, momentum=0.9) for model in (ours, theirs)]
    losses: list[list[float]] = [[], []]
    for _ in range(4):
        x, target = torch.randn(6, 3, 32, 32).double(), torch.randint(10, (6,))
        for model, optimizer, found in zip((ours, theirs), optimizers, losses):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), target)
            loss.backward()
            optimizer.step()
            found.append(float(loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-7)  # errors of 1e-16 grow by a few digits with each step
    assert len(set(losses[0])) == 4


def test_fused_for_quantization_and_by_fx() -> None:
    from torch.ao.quantization import fuse_modules
    from torch.fx.experimental import optimization

    model, x = bt.convert(network()).eval(), torch.randn(2, 3, 7, 7)
    y = model(x)
    with bt.converted(model, back=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fused = [fuse_modules(copy.deepcopy(model), ["0", "1", "2"]), optimization.fuse(model)]
        scripted = torch.jit.script(model)
    assert kinds(model) == OURS
    assert torch.nn.BatchNorm2d not in kinds(fused[0]) + kinds(fused[1])
    for each in [*fused, scripted]:
        torch.testing.assert_close(each(x), y)


def test_traced() -> None:
    """jit.trace and make_fx record PyTorch's operator: its results are those for the x of the call."""
    model, x, other = bt.BatchNorm2d(3), torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    from torch.fx.experimental.proxy_tensor import make_fx

    for training in (False, True):
        call = model.train(training)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = [torch.jit.trace(call, x, check_trace=False), make_fx(call)(x)]
        assert "aten::batch_norm" in str(traced[0].inlined_graph)
        for each in traced:
            torch.testing.assert_close(each(other), call(other))


def test_flops_are_counted() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        y = bt.convert(network())(torch.randn(6, 3, 7, 7))
    assert counter.get_total_flops() > 0
    assert "Eager" not in type(y.grad_fn).__name__


@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_exported(training: bool) -> None:
    model, x = bt.convert(network()).train(training), torch.randn(6, 3, 7, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (x,))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count("aten.batch_norm.default") == 2
    assert all(target.startswith("aten.") for target in targets)
    expected = copy.deepcopy(model)(x)
    torch.testing.assert_close(program.module()(x), expected)


@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_compiled(training: bool) -> None:
    """In one graph, by a backend that makes none of its own, with gradients; it is PyTorch's operator there."""
    model, x = bt.convert(network()).train(training), torch.randn(6, 3, 7, 7)
    plain, seen = copy.deepcopy(model), []

    def backend(module: Any, _: Any) -> Any:
        seen.extend(str(node.target) for node in module.graph.nodes)
        return module.forward

    y = torch.compile(model, backend=backend, fullgraph=True)(x)
    assert len([target for target in seen if "batch_norm" in target]) == 2
    torch.testing.assert_close(y, plain(x))
    y.pow(2).sum().backward()
    plain.zero_grad()
    plain(x).pow(2).sum().backward()
    torch.testing.assert_close(model[0].weight.grad, plain[0].weight.grad, rtol=1e-3, atol=1e-5)
    for mine, other in zip(model.buffers(), plain.buffers()):
        if training and mine.dtype != torch.long:
            assert mine.shape == other.shape


def test_the_page() -> None:
    """docs/torch.md is one session."""
    page = REPOSITORY / "docs" / "torch.md"
    fence = re.compile(r"^```py\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
    session: dict[str, Any] = {}
    for code, output in fence.findall(page.read_text(encoding="utf-8")):
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, str(page), "exec"), session)
        assert printed.getvalue() == output, code


def test_synchronized_ones_are_pytorchs() -> None:
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(bt.convert(network()))
    assert kinds(model) == [torch.nn.SyncBatchNorm] * 2
