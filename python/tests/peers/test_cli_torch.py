# SPDX-License-Identifier: Apache-2.0
"""`batchnorm inspect` and `convert` of PyTorch's files, and of exports of torchvision beside the models themselves."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import peer
from in_torch import torch

import batchnorm as bn
from batchnorm import cli
from batchnorm.inspection import Norm, findings, read_norms

Captured = pytest.CaptureFixture[str]


def network() -> Any:
    """A small one that has seen some batches."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Conv2d(6, 4, 1)]
    made = torch.nn.Sequential(*layers, torch.nn.BatchNorm2d(4, affine=False), torch.nn.BatchNorm2d(4))
    for _ in range(3):
        made(torch.randn(5, 3, 8, 8))
    return made.eval()


def saved(what: Any, folder: Path, name: str = "model.pth", **told: Any) -> Path:
    path = folder / name
    torch.save(what, path, **told)
    return path


def same(found: Norm, layer: Any) -> None:
    for mine, theirs in (("gamma", "weight"), ("beta", "bias"), ("mean", "running_mean"), ("var", "running_var")):
        exact = getattr(layer, theirs)
        if exact is None:
            assert getattr(found, mine) is None
        else:
            np.testing.assert_array_equal(getattr(found, mine), exact.detach().numpy())
    assert found.batches == int(layer.num_batches_tracked)


@pytest.mark.parametrize("old", [False, True], ids=["", "as before 1.6"])
@pytest.mark.parametrize("above", ["", "state_dict", "ema.module"])
def test_states(above: str, old: bool, tmp_path: Path) -> None:
    made = network()
    state: Any = made.state_dict()
    for part in reversed(above.split(".") if above else []):
        state = {part: state, "epoch": 3, "optimizer": {"state": {}, "lr": 0.1}}
    found = read_norms(saved(state, tmp_path, _use_new_zipfile_serialization=not old))
    prefix = f"{above}." if above else ""
    assert [each.name for each in found] == [f"{prefix}{index}" for index in (1, 4, 5)]
    for each, index in zip(found, (1, 4, 5)):
        same(each, made[index])
    assert findings(found) == [[], [], []]


class Harmful:
    """A pickle that would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.folder,)


def refused(path: Path, capsys: Captured) -> str:
    before = sorted(path.parent.iterdir())
    for command in (
        ["inspect", str(path)],
        ["convert", str(path), f"{path}.npz", "--from", "pytorch", "--to", "keras"],
    ):
        assert cli.main(command) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"batchnorm {command[0]}: {path} ")
        assert err.count("\n") == 1
        assert len(err) < 700
    assert sorted(path.parent.iterdir()) == before
    return err


@pytest.mark.filterwarnings("ignore")
def test_files_that_are_no_states(tmp_path: Path, capsys: Captured) -> None:
    refused(saved(network(), tmp_path, "whole.pth"), capsys)
    refused(saved([torch.ones(2)], tmp_path, "list.pt"), capsys)
    refused(saved({"a": Harmful(tmp_path / "made")}, tmp_path, "harmful.pth"), capsys)
    pickled = tmp_path / "pickled.pt"
    pickled.write_bytes(pickle.dumps({"a": Harmful(tmp_path / "made")}))
    refused(pickled, capsys)
    assert not (tmp_path / "made").exists()
    script = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(network()), str(script))
    refused(script, capsys)
    for content in (b"", b"\0" * 99, b"PK\3\4", b"{}" * 99):
        (tmp_path / "other.pth").write_bytes(content)
        if content:
            refused(tmp_path / "other.pth", capsys)


@pytest.mark.parametrize("old", [False, True], ids=["", "as before 1.6"])
def test_files_that_are_cut_off(old: bool, tmp_path: Path, capsys: Captured) -> None:
    path = saved(network().state_dict(), tmp_path, _use_new_zipfile_serialization=not old)
    whole = path.read_bytes()
    for length in [1, 2, 10, 100, *range(500, len(whole), 700), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path, capsys)


def test_converted_and_back(tmp_path: Path) -> None:
    """Through Keras's names and back: the network puts out what it did, to the bit."""
    made, x = network(), torch.randn(2, 3, 8, 8)
    first = saved(made.state_dict(), tmp_path)
    keras, back = tmp_path / "keras.npz", tmp_path / "back.npz"
    assert cli.main(["convert", str(first), str(keras), "--from", "pytorch", "--to", "keras"]) == 0
    assert cli.main(["convert", str(keras), str(back), "--from", "keras", "--to", "pytorch"]) == 0
    y = made(x)
    for layer in (made[1], made[4], made[5]):
        layer.reset_parameters()
    arrays = {key: torch.from_numpy(value) for key, value in bn.read_state(back).items()}
    told = made.load_state_dict(arrays, strict=False)
    assert told.unexpected_keys == []
    assert all(key.startswith(("0.", "3.")) for key in told.missing_keys)
    assert torch.equal(made(x), y)


# Faults that are planted in a layer of a model: the layer's number, the change, and the fault that has to be found.
FAULTS: list[tuple[int, str, int, float, str]] = [
    (0, "weight", 3, 0.0, "dead"),
    (2, "running_var", 5, 1e9, "exploding"),
    (4, "running_var", 7, -1.0, "negative"),
    (5, "running_mean", 0, float("nan"), "nonfinite"),
    (7, "running_mean", 2, 1e5, "cancellation"),
    (8, "running_var", 9, 1e-7, "tiny"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "number"), [("resnet18", 20), ("mobilenet_v2", 52)])
def test_torchvision(name: str, number: int, tmp_path: Path, capsys: Captured) -> None:
    """The same of the state and of what torch.onnx exports, with faults planted."""
    peer("onnx")
    peer("in_torchvision")
    torch.manual_seed(1)
    made = getattr(peer("torchvision.models"), name)(weights=None)
    layers = [each for each in made.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert len(layers) == number
    for layer in layers:
        layer.weight.data.uniform_(0.5, 1.5)
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
        layer.num_batches_tracked += 1
    for index, array, channel, value, _ in FAULTS:
        getattr(layers[index], array).data[channel] = value
    layers[8].running_mean[9] = 0  # or it would cancel as well
    layers[9].eps = 1e-3
    made.eval()
    state, graph = saved(made.state_dict(), tmp_path), tmp_path / "model.onnx"
    told = {"dynamo": False, "training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    torch.onnx.export(made, torch.zeros(1, 3, 64, 64), str(graph), opset_version=17, **told)
    of_state, of_graph = read_norms(state), read_norms(graph)
    assert len(of_state) == len(of_graph) == number
    # The export is in the order of calls: the branch that a residual block has is called last.
    where = {key: index for index, key in enumerate(array_of(each) for each in of_graph)}
    order = [where[array_of(each)] for each in of_state]
    assert sorted(order) == list(range(number))
    for each, place, layer in zip(of_state, order, layers):
        same(each, layer)
        for array in ("gamma", "beta", "mean", "var"):
            np.testing.assert_array_equal(getattr(each, array), getattr(of_graph[place], array))
    for found, of_eps in ((findings(of_state), []), ([findings(of_graph)[place] for place in order], [(9, "eps", ())])):
        seen = {
            (i, each.kind, each.channels) for i, of_norm in enumerate(found) for each in of_norm if each.kind != "scale"
        }
        assert seen == {(index, kind, (channel,)) for index, _, channel, _, kind in FAULTS} | set(of_eps)
    for path in (state, graph):
        assert cli.main(["inspect", str(path), "--json", "--fail-on", "nonfinite,eps"]) == 3
        assert len(json.loads(capsys.readouterr().out)["norms"]) == number
    assert cli.main(["inspect", str(state), "--fail-on", "eps,unread"]) == 0


def array_of(found: Norm) -> bytes:
    assert found.var is not None
    return bytes(found.var.tobytes())
