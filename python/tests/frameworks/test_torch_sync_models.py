# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch.SyncBatchNorm in models: conversion, DistributedDataParallel, groups, and processes that end."""

from __future__ import annotations

import copy
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comparing import peer
from helpers import PACKAGE, REPOSITORY
from in_torch import torch
from ranks import FailedError, Ranks, succeeded

import batchnorm as bn

bt = peer("batchnorm.torch")
nn, distributed = torch.nn, torch.distributed


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    made = Ranks(4, tmp_path_factory.mktemp("ranks"))
    yield made
    made.end()


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, wider, 3, 2, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(wider, wider, 3, 1, 1, bias=False), nn.BatchNorm2d(wider))
        self.shortcut = nn.Sequential(nn.Conv2d(channels, wider, 1, 2, bias=False), nn.BatchNorm2d(wider))

    def forward(self, x: Any) -> Any:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Block(8, 16), Block(16, 24),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 12), nn.BatchNorm1d(12), nn.Linear(12, 5),
    ).double()  # fmt: skip


def train(group: Any, rank: int, parts: list[int], steps: int = 5) -> Any:
    """Losses, parameters and buffers of a training whose batches are divided into these parts."""
    model, whole = bt.convert(network(), sync=True, process_group=group), sum(parts)
    parallel = nn.parallel.DistributedDataParallel(model, process_group=group)
    losses = descend(parallel, steps, whole, slice(sum(parts[:rank]), sum(parts[: rank + 1])), len(parts))
    for each in losses:
        distributed.all_reduce(each, group=group)
    gradients = [each.grad for each in model.parameters()]
    return [float(each) / len(parts) for each in losses], gradients, model.state_dict()


def descend(model: Any, steps: int, whole: int, own: slice, processes: int) -> list[Any]:
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), []
    for step in range(steps):
        torch.manual_seed(step + 1)
        x, target = 3 + torch.randn(whole, 3, 12, 12).double(), torch.randint(5, (whole,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[own]), target[own], reduction="sum") * processes / whole
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize("parts", [[12], [6, 6], [3, 9], [0, 12], [5, 0, 7], [1, 2, 8, 1]], ids=str)
def test_a_resnet_trains_as_in_one_process(ranks: Ranks, parts: list[int]) -> None:
    alone = network()
    expected = [float(each) for each in descend(alone, 5, 12, slice(None), 1)]
    assert len(set(expected)) == 5
    found = succeeded(ranks.run(len(parts), train, parts))
    for losses, gradients, state in found:
        assert losses == pytest.approx(expected, rel=1e-9)
        for gradient, parameter in zip(gradients, alone.parameters()):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(state, alone.state_dict(), rtol=1e-7, atol=1e-9)
        assert all(torch.equal(value, found[0][2][name]) for name, value in state.items())  # the same bits


def in_half(group: Any, rank: int, pairs: list[list[int]]) -> Any:
    groups = [distributed.new_group(pair) for pair in pairs]
    own = next(number for number, pair in enumerate(pairs) if rank in pair)
    layer = bt.SyncBatchNorm(2, process_group=groups[own], momentum=1.0)
    layer(torch.full((2, 2, 3), float(rank)) + torch.arange(3))
    told = error_of(lambda: bt.SyncBatchNorm(2, process_group=groups[1 - own])(torch.zeros(2, 2)))
    copied = copy.deepcopy(layer)
    assert copied.process_group is layer.process_group
    copied(torch.full((2, 2, 3), float(rank)))
    return layer.running_mean.tolist(), copied.running_mean.tolist(), told


def test_groups_of_processes(ranks: Ranks) -> None:
    pairs = [[0, 2], [1, 3]]
    for rank, (mean, of_copy, told) in enumerate(succeeded(ranks.run(4, in_half, pairs))):
        middle = sum(pairs[rank % 2]) / 2
        assert mean == [middle + 1] * 2
        assert of_copy == [middle] * 2
        assert told == "this process is not in the process_group of a SyncBatchNorm that it calls"


def without_exchange(group: Any, rank: int) -> Any:
    """Only one of the processes makes these calls."""
    from torch.fx.experimental.proxy_tensor import make_fx

    if rank:
        return None
    layer, x = bt.SyncBatchNorm(3, process_group=group).eval(), torch.randn(4, 3, 2)
    layer.running_mean.fill_(2)
    evaluated = torch.equal(
        layer(x), nn.functional.batch_norm(x, layer.running_mean, layer.running_var, *affine(layer))
    )
    untracked = bt.SyncBatchNorm(3, track_running_stats=False, process_group=group).eval()
    of_batch = torch.allclose(
        untracked(x), nn.functional.batch_norm(x, None, None, *affine(untracked), training=True), atol=1e-6
    )
    exported = torch.export.export(layer, (x,))
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    layer.train()
    calls = (
        lambda: torch.jit.trace(layer, x),
        lambda: torch.func.grad(lambda t: layer(t).sum())(x),
        lambda: torch.export.export(layer, (x,)),
        lambda: make_fx(layer)(x),
    )
    return evaluated, of_batch, targets, [error_of(call) for call in calls]


def error_of(call: Any) -> str:
    with pytest.raises(RuntimeError) as error:
        call()
    return str(error.value)


def affine(layer: Any) -> tuple[Any, Any]:
    return layer.weight, layer.bias


def test_evaluation_exchanges_nothing(ranks: Ranks) -> None:
    (evaluated, of_batch, targets, told), _ = succeeded(ranks.run(2, without_exchange))
    assert evaluated
    assert of_batch
    assert targets == ["aten.batch_norm.default"]
    assert len(told) == 4
    assert all("which no trace and no transform can do" in each for each in told)


def one_step(group: Any, rank: int, case: str) -> Any:
    torch.manual_seed(rank)
    layer, x = bt.SyncBatchNorm(3, process_group=group), torch.randn(4, 3, 2)
    call = layer
    if case == "compiled":
        call = torch.compile(nn.Sequential(nn.Hardtanh(-9, 9), layer, nn.Hardtanh(-9, 9)), backend="eager")
    if case in ("no_grad", "inference_mode"):
        with getattr(torch, case)():
            return call(x), None, layer.state_dict()
    if case == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            y = call(x.bfloat16())
    else:
        y = call(x if case == "parameters" else x.requires_grad_())
    y.float().pow(3).sum().backward()
    if case == "twice":
        (dx,) = torch.autograd.grad(call(x).pow(3).sum(), x, create_graph=True)
        assert "once_differentiable" in error_of(dx.sum().backward)
    return y.detach().float(), layer.weight.grad, layer.state_dict()


@pytest.mark.parametrize("case", ["compiled", "no_grad", "inference_mode", "autocast", "parameters", "twice"])
def test_modes(ranks: Ranks, case: str) -> None:
    found = succeeded(ranks.run(2, one_step, case))
    x = []
    for rank in range(2):
        torch.manual_seed(rank)
        x.append(torch.randn(4, 3, 2))
    whole = nn.BatchNorm1d(3)
    y = whole(torch.cat(x))
    tolerance = {"rtol": 0.02, "atol": 0.02} if case == "autocast" else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(torch.cat([each[0] for each in found]), y.detach(), **tolerance)
    y.pow(3).sum().backward()
    if case in ("compiled", "parameters"):
        torch.testing.assert_close(found[0][1] + found[1][1], whole.weight.grad, rtol=1e-4, atol=1e-4)
    assert int(found[0][2]["num_batches_tracked"]) == 1 + (case == "twice")


def with_threads(group: Any, rank: int) -> list[int]:
    layer, found = bt.SyncBatchNorm(3, process_group=group), []
    for number in (2, 3):
        torch.set_num_threads(number)
        y = layer(torch.randn(4, 3, requires_grad=True))
        found.append(bn.get_num_threads())
        torch.set_num_threads(number + 2)
        y.sum().backward()
        found.append(bn.get_num_threads())
    torch.set_num_threads(1)
    return found


def test_threads_are_pytorchs(ranks: Ranks) -> None:
    assert succeeded(ranks.run(2, with_threads)) == [[2, 4, 3, 5]] * 2


def fails(group: Any, rank: int, case: str) -> Any:
    layer = bt.SyncBatchNorm(3, process_group=group)
    y = layer(torch.randn(4, 3, requires_grad=True))
    before = [each.clone() for each in layer.state_dict().values()]
    if rank and case == "ends":
        os._exit(1)
    if rank:
        time.sleep(9)
        return None
    told = error_of(lambda: layer(torch.randn(4, 3)) if case == "forward" else y.sum().backward())
    assert all(torch.equal(a, b) for a, b in zip(before, layer.state_dict().values()))
    return told


@pytest.mark.parametrize("case", ["ends", "forward", "backward"])
def test_a_process_that_does_not_come(tmp_path: Path, case: str) -> None:
    """The others have a sentence, after the time-out of the group at the latest."""
    two = Ranks(2, tmp_path, timeout=4)
    told = two.run(2, fails, case)[0]
    two.end()
    assert not isinstance(told, FailedError), told.args
    assert told.startswith("SyncBatchNorm could not exchange statistics with the 2 processes of its group: one of them")


def test_convert_and_back() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), bt.BatchNorm1d(3), nn.SyncBatchNorm(3), bt.SyncBatchNorm(3), nn.ReLU())
    before, state = list(model), copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert bt.convert(model, sync=True) is model
    assert [type(each) for each in model] == [bt.SyncBatchNorm] * 4 + [nn.ReLU]
    assert all(a is b for a, b in zip(before, model))
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], model.parameters()))
    torch.testing.assert_close(model.state_dict(), state)
    assert repr(model[0]) == repr(nn.SyncBatchNorm(3))
    assert model(torch.randn(4, 3)).shape == (4, 3)  # one process
    theirs = [nn.BatchNorm2d, nn.BatchNorm1d, nn.SyncBatchNorm, nn.SyncBatchNorm, nn.ReLU]
    with bt.converted(model, back=True):
        assert [type(each) for each in model] == theirs
    assert [type(each) for each in model] == [bt.SyncBatchNorm] * 4 + [nn.ReLU]
    bt.convert(model, back=True)
    assert [type(each) for each in model] == theirs
    for each in model:
        assert vars(each).keys() == vars(type(each)(3)).keys()
    bt.convert(bt.convert(model, sync=True), sync=True, reproducible=True)
    assert [each.reproducible for each in model[:4]] == [True] * 4
    assert repr(model[0]) == repr(nn.SyncBatchNorm(3))[:-1] + ", reproducible=True)"
    bt.convert(model, back=True)
    for each in model:
        assert vars(each).keys() == vars(type(each)(3)).keys()
    nn.SyncBatchNorm(3).load_state_dict(bt.SyncBatchNorm(3).state_dict())
    alone = bt.convert(nn.BatchNorm2d(3), sync=True, inplace=False)
    assert type(alone) is bt.SyncBatchNorm


def test_saved_and_copied() -> None:
    layer = bt.convert(nn.BatchNorm2d(3, dtype=torch.float64), sync=True)
    layer.running_mean.fill_(7)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for found in (torch.load(file, weights_only=False), copy.deepcopy(layer)):
        assert type(found) is bt.SyncBatchNorm
        assert found.weight is not layer.weight
        torch.testing.assert_close(found.state_dict(), layer.state_dict())
        assert type(bt.convert(found, back=True)) is nn.BatchNorm2d


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (lambda: nn.LazyBatchNorm2d(), "layer '1' is a LazyBatchNorm2d, which has no channels yet: call it once"),
        (lambda: bt.BatchNormAct2d(3), "layer '1' is a BatchNormAct2d, which would keep the statistics of one process"),
    ],
)
def test_what_cannot_be_synchronized(kind: Any, told: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), kind())
    with pytest.raises(ValueError, match=f"^{told}$"):
        bt.convert(model, sync=True)
    assert type(model[0]) is nn.BatchNorm2d
    with pytest.raises(ValueError, match="^sync and back are both True, expected one of them$"):
        bt.convert(model, sync=True, back=True)


def test_as_torchs_a_vector_is_refused() -> None:
    told = []
    for kind in (bt, nn):
        with pytest.raises(ValueError, match="2D") as error:
            kind.SyncBatchNorm(3)(torch.ones(3))
        told.append(str(error.value))
    assert told[0] == told[1]


def test_the_page(tmp_path: Path) -> None:
    """The program of docs/distributed.md, in two processes."""
    page = (REPOSITORY / "docs" / "distributed.md").read_text(encoding="utf-8")
    code, output = re.search(r"```py\n(import copy.*?)```\n\n```text\n(.*?)```", page, re.DOTALL).groups()  # type: ignore[union-attr]
    (tmp_path / "train.py").write_text(code, encoding="utf-8")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*run, str(tmp_path / "train.py")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == output, done.stderr
