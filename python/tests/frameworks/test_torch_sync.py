# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch.SyncBatchNorm over processes of gloo: their results are those of one process with the whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from comparing import DTYPES, Batch, near, peer
from in_torch import array, tensor, torch
from ranks import Ranks, succeeded

bt = peer("batchnorm.torch")

PARTS = [[7], [5, 2], [0, 7], [3, 3, 1], [1, 0, 6], [2, 2, 2, 1], [0, 4, 0, 3]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    made = Ranks(4, tmp_path_factory.mktemp("ranks"))
    yield made
    made.end()


def slices(parts: list[int]) -> list[slice]:
    ends = np.cumsum(parts).tolist()
    return [slice(end - part, end) for part, end in zip(parts, ends)]


def layer_step(group: Any, rank: int, state: dict[str, Any], parts: list[int], x: Any, dy: Any, told: Any) -> Any:
    """A call of a layer with this process's part, forward and backward."""
    own = slices(parts)[rank]
    kind, settings, last = told
    weight = state.get("weight", state.get("running_mean"))
    layer = bt.SyncBatchNorm(x.shape[1], process_group=group, **settings)
    if weight is not None:
        layer = layer.to(weight.dtype)
    layer.load_state_dict(state)
    x, dy = (each[own].movedim(1, -1).contiguous().movedim(-1, 1) if last else each[own] for each in (x, dy))
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    assert type(y.grad_fn).__name__ == ("SynchronizedBackward" if len(parts) > 1 else kind)
    y.backward(dy)
    grads = {f"d{name}": each.grad for name, each in layer.named_parameters()}
    return {"y": y.detach(), "dx": x.grad, **grads, **dict(layer.named_buffers())}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_a_layer(rng: np.random.Generator, ranks: Ranks, parts: list[int], dtype: str) -> None:
    """Beside PyTorch's layer in float64 with the whole batch."""
    batch = Batch(rng, dtype, param=dtype if rng.random() < 0.4 else None)
    repeats = -(-7 // batch.shape[0])
    x, dy = (tensor(np.concatenate([each] * repeats)[:7].copy()) for each in (batch.x, batch.dy))
    batch.shape, batch.count, batch.x, batch.dy = tuple(x.shape), x.numel() // batch.channels, array(x), array(dy)
    affine, tracking, bias, last = (bool(rng.random() < 0.7) for _ in range(4))
    momentum = None if rng.random() < 0.3 else batch.momentum
    settings = {"eps": batch.eps, "momentum": momentum, "affine": affine, "track_running_stats": tracking, "bias": bias}
    print(f"shape {batch.shape}, {settings}, last {last}")
    rank = max(x.dim() - 2, 1)
    whole = getattr(torch.nn, f"BatchNorm{rank}d")(batch.channels, **settings).to(tensor(batch.gamma).dtype)
    with torch.no_grad():
        for name, value in (("weight", batch.gamma), ("bias", batch.beta), ("running_mean", batch.running_mean)):
            if getattr(whole, name) is not None:
                getattr(whole, name).copy_(tensor(value))
    state = {name: each.clone() for name, each in whole.state_dict().items()}
    alone = "CompiledBackward" if bt.operators.THERE else "NativeBatchNormBackward0"
    found = succeeded(ranks.run(len(parts), layer_step, state, parts, x, dy, (alone, settings, last)))
    if not affine:
        batch.gamma = np.ones_like(batch.gamma)
    leaf = x.double().requires_grad_()
    whole = whole.double()
    y = whole(leaf)
    y.backward(dy.double())
    sizes = batch.sizes()
    expected = {"y": (y, sizes.y), "dx": (leaf.grad, sizes.dx)}
    for name, size in (("weight", sizes.dgamma), ("bias", sizes.dbeta)):
        if getattr(whole, name) is not None:
            expected["d" + name] = getattr(whole, name).grad, size
    for name, size in (("running_mean", sizes.mean + 1), ("running_var", sizes.var + 4)):
        if tracking:
            expected[name] = getattr(whole, name), size
            assert len({array(each[name]).tobytes() for each in found}) == 1
    for name, (value, size) in expected.items():
        if name in ("y", "dx"):
            mine = torch.cat([each[name] for each in found])
        elif name in ("dweight", "dbias"):
            assert all(each[name].dtype is state[name[1:]].dtype for each in found)
            mine = sum(each[name].double() for each in found).to(state[name[1:]].dtype)
        else:
            mine = found[0][name]
        near(array(mine), array(value), computed=batch.dtype, size=size, count=batch.count)
    if tracking:
        assert [int(each["num_batches_tracked"]) for each in found] == [1] * len(parts)


def refused(group: Any, rank: int, case: str, total: int) -> str:
    """A call that goes wrong on one of the processes; the layer is as before, and then works."""
    channels = 5 if case == "another layer" and rank == 1 else 3
    group = None if total == 4 else group  # which stands for all
    layer = bt.SyncBatchNorm(channels, process_group=group)
    x, odd = torch.randn(2, channels, 4), rank == 1
    if odd and case == "channels":
        x = torch.randn(2, 600, 4)
    elif odd and case == "dtype":
        x = x.double()
    elif odd and case == "unknown dtype":
        x = torch.ones(2, 3, 4, dtype=torch.int32)
    elif odd and case == "dimensions":
        x = torch.randn(2)
    elif odd and case == "eps":
        layer.eps = 1e-3
    elif odd and case == "gradient":
        x.requires_grad_()
    elif odd and case == "parameters":
        layer.running_var = layer.running_var.double()
    elif odd and case == "shape":
        layer.weight = torch.nn.Parameter(torch.ones(4))
    elif odd and case == "one of a pair":
        layer.running_var = None
    elif odd and case == "infinite eps":
        layer.eps = float("inf")
    elif odd and case == "meta":
        x = x.to("meta")
    elif odd and case == "sparse":
        x = x[:, :, 0].to_sparse_csr()
    elif odd and case == "reproducible":
        layer.reproducible = True
    elif case == "one value":
        x = x[: rank == 1, :, :1]
    before = [each.clone() for each in layer.state_dict().values()]
    try:
        layer(x)
    except ValueError as error:
        told = str(error)
        assert all(torch.equal(a, b) for a, b in zip(before, layer.state_dict().values()))
        healthy = bt.SyncBatchNorm(3, process_group=group)
        assert healthy(torch.randn(2, 3, 4)).isfinite().all()
        return told
    return ""


TOLD = {
    "another layer": "rank 0 has 3 channels of float32; rank 1 has 5 channels of float32",
    "channels": "rank 1 has 600 channels of float32; rank 1 refuses it: ValueError: input has 600 channels, expected 3",
    "dtype": "rank 1 has 3 channels of float64; rank 1 refuses it: TypeError: weight is of torch.float32 on cpu, "
    "expected torch.float64 on the CPU",
    "unknown dtype": "rank 1 has 3 channels of another dtype; rank 1 refuses it: TypeError: input is of torch.int32, "
    "expected one of torch.float32, torch.float64, torch.float16, torch.bfloat16",
    "dimensions": "rank 1 refuses it: ValueError: expected at least 2D input (got 1D input)",
    "eps": "rank 0 has 3 channels of float32, eps 1e-05; rank 1 has 3 channels of float32, eps 0.001",
    "gradient": "rank 1 has 3 channels of float32, gradients",
    "parameters": "rank 1 refuses it: TypeError: running_var is of torch.float64 on cpu, expected torch.float32",
    "shape": "rank 1 refuses it: ValueError: weight has shape (4,), expected (3,)",
    "one of a pair": "rank 1 refuses it: ValueError: running_var is None and the other is not, expected both or",
    "infinite eps": "rank 1 has 3 channels of float32, eps inf",
    "meta": "rank 1 refuses it: TypeError: input is a Tensor of torch.strided on meta, expected a dense tensor",
    "sparse": "rank 1 refuses it: TypeError: input is a Tensor of torch.sparse_csr on cpu, expected a dense tensor on",
    "reproducible": "rank 0 has 3 channels of float32, not reproducible; rank 1 has 3 channels of float32, rep",
    "one value": "Expected more than 1 value per channel when training, got one in the batch of all processes",
}


@pytest.mark.parametrize("case", TOLD)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_processes_tell_what_is_wrong_on_one(ranks: Ranks, case: str, size: int) -> None:
    told = succeeded(ranks.run(size, refused, case, size))
    assert len(set(told)) == 1
    expected = TOLD[case]
    if size > 2:
        expected = expected.replace("rank 0 has", "ranks 0, 2 have" if size == 3 else "ranks 0, 2, 3 have")
    assert expected in told[0]


def wrong_order(group: Any, rank: int) -> str:
    first, second = (bt.SyncBatchNorm(n, process_group=group) for n in (3, 700))
    y = [layer(torch.randn(2, n, requires_grad=True)) for layer, n in ((first, 3), (second, 700))]
    try:
        y[rank].sum().backward()
    except ValueError as error:
        return str(error)
    return ""


def test_layers_in_another_order(ranks: Ranks) -> None:
    told = succeeded(ranks.run(2, wrong_order))
    assert told[0] == told[1]
    assert told[0].endswith("rank 0 has 3 channels of float32; rank 1 has 700 channels of float32")


@pytest.mark.parametrize("channels", [512, 513, 1400])
def test_as_many_channels_as_a_message_has_room_for_and_more(ranks: Ranks, channels: int) -> None:
    torch.manual_seed(channels)
    x, dy = torch.randn(2, 7, channels, dtype=torch.float64)
    whole, leaf = torch.nn.BatchNorm1d(channels).double(), x.clone().requires_grad_()
    state = {name: each.clone() for name, each in whole.state_dict().items()}
    y = whole(leaf)
    y.backward(dy)
    found = succeeded(ranks.run(3, layer_step, state, [3, 0, 4], x, dy, ("", {}, False)))
    for name, value in {"y": y.detach(), "dx": leaf.grad}.items():
        torch.testing.assert_close(torch.cat([each[name] for each in found]), value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[0]["running_var"], whole.running_var, rtol=1e-13, atol=0)


def test_all_processes_add_in_one_order(ranks: Ranks) -> None:
    """The first and the third have the same samples, so that their gradients have the same bits as well."""
    torch.manual_seed(3)
    x, dy = torch.randn(2, 8, 64, dtype=torch.float64)
    x[4:6], dy[4:6] = x[:2], dy[:2]
    state = torch.nn.BatchNorm1d(64).double().state_dict()
    found = succeeded(ranks.run(4, layer_step, state, [2, 2, 2, 2], x, dy, ("", {}, False)))
    assert torch.equal(found[0]["dx"], found[2]["dx"])


def test_no_process_has_a_sample(ranks: Ranks) -> None:
    x, state = torch.zeros(0, 3, 4), torch.nn.BatchNorm1d(3).state_dict()
    for found in succeeded(ranks.run(2, layer_step, state, [0, 0], x, x, ("", {}, False))):
        assert found["y"].shape == found["dx"].shape == x.shape
        assert found["dweight"].tolist() == found["running_mean"].tolist() == [0, 0, 0]
        assert found["running_var"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("layout", ["planes", "channels last"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reproducible(rng: np.random.Generator, ranks: Ranks, dtype: str, layout: str) -> None:
    """The same bits for all numbers of processes, and all parts; and those of the whole batch to a few units."""
    shape = (7, 300, 3, 2) if layout == "planes" else (7, 5, 11, 3)
    x, dy = (
        tensor((at + rng.normal(size=shape)).astype(DTYPES[dtype])) for at in (3 if dtype == "float64" else 1000, 0)
    )
    whole = torch.nn.BatchNorm2d(shape[1]).double()
    state = {name: each.to(x.dtype) for name, each in whole.state_dict().items()}
    found = []
    for parts in PARTS:
        told = ("SynchronizedBackward", {"reproducible": True}, layout != "planes")
        each = succeeded(ranks.run(len(parts), layer_step, state, parts, x, dy, told))
        whole_of = {name: torch.cat([one[name] for one in each]) for name in ("y", "dx")}
        found.append([*whole_of.values(), each[0]["running_mean"], each[-1]["running_var"]])
    for each in found[1:]:
        assert all(torch.equal(mine, first) for mine, first in zip(each, found[0]))
    leaf = x.double().requires_grad_()
    y = whole(leaf)
    y.backward(dy.double())
    unit = max(torch.finfo(x.dtype).eps, 1e-14)  # PyTorch's own errors
    torch.testing.assert_close(found[0][0].double(), y.detach(), rtol=4 * unit, atol=4 * unit)
    torch.testing.assert_close(found[0][1].double(), leaf.grad, rtol=8 * unit, atol=16 * unit)
