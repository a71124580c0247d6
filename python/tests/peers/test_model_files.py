# SPDX-License-Identifier: Apache-2.0
"""read_state() of files that frameworks write, written by the frameworks themselves, and of such as nobody should."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import Array, peer
from states import arrays_of, same

import batchnorm as bn
from batchnorm.inspection import read_norms

BFLOAT16 = np.dtype("bfloat16")  # of ml_dtypes, which comparing imports


@pytest.fixture
def torch() -> Any:
    return peer("torch")


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_of_pytorch(
    rng: np.random.Generator, torch: Any, tmp_path: Path, suffix: str, legacy: bool
) -> None:
    path = tmp_path / f"model{suffix}"
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    arrays = arrays_of(rng)
    with torch.no_grad():
        for target, array in zip((*model[1].parameters(), model[1].running_mean, model[1].running_var), arrays):
            target.copy_(torch.from_numpy(array))
    told = {"_use_new_zipfile_serialization": not legacy}
    torch.save(model.state_dict(), path, **told)
    read = bn.read_state(path)
    assert list(read) == list(model.state_dict())
    assert all(type(array) is np.ndarray for array in read.values())
    assert same(bn.from_state(read, "pytorch", prefix="1"), arrays)

    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 2, 5, 5)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "note": "x",
        "best": 0.5,
    }
    torch.save(checkpoint, path, **told)
    read = bn.read_state(path)
    assert {"model.1.weight", "optimizer.state.0.exp_avg"} <= set(read)
    assert bn.from_state(read, "pytorch", prefix="model.1").num_batches_tracked == 1


def test_tensors_of_pytorch(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "tensors.pt"
    whole = torch.arange(12.0).reshape(3, 4)
    given = {
        "transposed": whole.T,
        "part": whole[1:, ::2],
        "parameter": torch.nn.Parameter(whole),
        "bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "half": torch.tensor(0.5, dtype=torch.float16),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
    }
    torch.save(given, path)
    read = bn.read_state(path)
    assert list(read) == list(given)
    assert read["bfloat16"].dtype == BFLOAT16
    for key, tensor in given.items():
        assert read[key].shape == tuple(tensor.shape)
        assert read[key].flags.c_contiguous
        assert np.array_equal(read[key].astype(float), tensor.detach().double().numpy())


class Bomb:
    """An object whose pickle runs code when it is loaded."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["BATCHNORM_TEST_BOMB"],))


def cyclic(torch: Any) -> Any:
    state: dict[str, Any] = {"a": torch.ones(1)}
    state["self"] = state
    return state


def doubling(torch: Any) -> Any:
    """Two to the power of 60 names for one tensor."""
    state: dict[str, Any] = {"x": torch.ones(1)}
    for _ in range(60):
        state = {"a": state, "b": state}
    return state


def views(torch: Any) -> Any:
    """None of which NumPy would take as it is."""
    transposed = torch.ones(200, 300).T
    return {str(number): transposed[:] for number in range(300)}


PICKLED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an object that acts": (lambda torch: {"a": Bomb()}, r"it holds \w+.mkdir, which weights_only=True does not read"),
    "a module": (
        lambda torch: torch.nn.Linear(2, 2),
        r"it holds torch[\w.]+Linear, which weights_only=True does not read: save model.state_dict\(\)",
    ),
    "one tensor": (lambda torch: torch.ones(3), "it holds an object of type torch.Tensor, expected a dict"),
    "a list": (lambda torch: [torch.ones(3)], "it holds an object of type list, expected a dict"),
    "a tensor of a tebibyte": (
        lambda torch: {"a": torch.ones(1).expand(1 << 38)},
        r"a claims shape \(274877906944,\) of torch.float32, but there are 4 bytes",
    ),
    "nested without end": (cyclic, "nested without end, or too deeply"),
    "named without end": (doubling, "names its tensors more often than it has bytes|nested"),
    "a name twice": (lambda torch: {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, "a.b is there twice"),
    "sparse": (lambda torch: {"a": torch.ones(3).to_sparse()}, "sparse|a is of type|storage"),
    "many copies of one": (views, "and what is before it claim more bytes than the file has"),
}


@pytest.mark.parametrize("kind", PICKLED)
def test_files_that_are_no_checkpoints(torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    made, message = PICKLED[kind]
    path, bomb = tmp_path / "model.pt", tmp_path / "bomb"
    monkeypatch.setenv("BATCHNORM_TEST_BOMB", str(bomb))
    torch.save(made(torch), path)
    with pytest.raises(ValueError, match=rf"(?s)^{path} cannot be read as .pt: .*({message})"):
        bn.read_state(path)
    assert not bomb.exists()


def test_a_plain_pickle_and_what_is_none(torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, bomb = tmp_path / "model.pth", tmp_path / "bomb"
    monkeypatch.setenv("BATCHNORM_TEST_BOMB", str(bomb))
    for data in (pickle.dumps({"a": Bomb()}), b"", b"text", b"PK\3\4", b"\x80\x02}q\x00."):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"cannot be read as .pth: [\w ]{12}"):
            bn.read_state(path)
        assert not bomb.exists()
    scripted = torch.jit.script(torch.nn.ReLU())
    scripted.save(str(path))
    with pytest.raises(ValueError, match="cannot be read as .pth: it is a program of TorchScript"):
        bn.read_state(path)


def test_a_packed_archive_is_none_of_pytorch(torch: Any, tmp_path: Path) -> None:
    plain, packed = io.BytesIO(), tmp_path / "packed.pt"
    torch.save({"a": torch.zeros(100_000)}, plain)
    with zipfile.ZipFile(plain) as given, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in given.infolist():
            archive.writestr(entry.filename, given.read(entry))
    with pytest.raises(ValueError, match="is packed, as torch.save\\(\\) does not do"):
        bn.read_state(packed)


def test_an_older_pytorch(torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose weights_only could be got around."""
    (tmp_path / "a.pt").touch()
    for version in ("2.5.1+cpu", "1.13.0", "2.0.1"):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(ImportError, match=rf"a\.pt needs torch 2\.6 or later, but {version[:3]}.* is installed"):
            bn.read_state(tmp_path / "a.pt")


@pytest.fixture
def model(rng: np.random.Generator) -> tuple[Any, list[list[Array]]]:
    """Three layers: with all arrays, without gamma, without beta."""
    keras = peer("keras")
    peer("h5py")
    keras.utils.clear_session()
    layers = [
        keras.layers.BatchNormalization(name="all"),
        keras.layers.BatchNormalization(name="shifts", scale=False),
        keras.layers.BatchNormalization(name="scales", center=False),
    ]
    made = keras.Sequential([keras.layers.Input((3,)), *layers], name="net")
    arrays = [arrays_of(rng), arrays_of(rng)[1:], [arrays_of(rng)[0], *arrays_of(rng)[2:]]]
    for layer, given in zip(layers, arrays):
        layer.set_weights(given)
    return made, arrays


def check(read: dict[str, Array], prefixes: list[str], arrays: list[list[Array]], told: bool) -> None:
    first, second, third = prefixes
    assert same(bn.from_state(read, "keras", prefix=first), arrays[0])
    shifts = bn.from_state(read, "keras", prefix=second, **({"scale": False} if told else {}))
    assert shifts.gamma is None
    assert np.array_equal(shifts.beta, arrays[1][0])
    assert np.array_equal(shifts.running_var, arrays[1][2])
    scales = bn.from_state(read, "keras", prefix=third, **({"center": False} if told else {}))
    assert scales.beta is None
    assert np.array_equal(scales.gamma, arrays[2][0])
    assert np.array_equal(scales.running_mean, arrays[2][1])


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_files_of_keras_3(model: Any, tmp_path: Path, suffix: str) -> None:
    net, arrays = model
    path = tmp_path / f"net{suffix}"
    (net.save_weights if suffix == ".weights.h5" else net.save)(path)
    read = bn.read_state(path)
    prefixes = [f"layers/batch_normalization{number}" for number in ("", "_1", "_2")]  # by class, not by name
    check(read, prefixes, arrays, told=True)
    with pytest.raises(KeyError, match="layers/batch_normalization_1/vars has 3 arrays .* tell scale=False or center"):
        bn.from_state(read, "keras", prefix=prefixes[1])


def test_old_files_of_keras(model: Any, tmp_path: Path) -> None:
    """HDF5 with names, as Keras 2 has written them for years."""
    net, arrays = model
    path = tmp_path / "net.h5"
    net.save(path)
    read = bn.read_state(path)
    prefixes = []
    for name in ("all", "shifts", "scales"):
        key = next(key for key in read if f"/{name}/" in key and "moving_mean" in key)
        prefixes.append(key.rpartition("/")[0])
    check(read, prefixes, arrays, told=False)


@pytest.fixture
def h5py() -> Any:
    return peer("h5py")


def test_archives_that_are_none_of_keras(h5py: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match="cannot be read as .keras: it has no model.weights.h5"):
        bn.read_state(path)
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="cannot be read as .keras: File is not a zip file"):
        bn.read_state(path)


@pytest.fixture
def onnx() -> Any:
    return peer("onnx")


def graph(onnx: Any, initializers: list[Any], nodes: list[Any] | None = None) -> Any:
    make = onnx.helper
    values = [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    made = make.make_graph(nodes or [], "net", values[:1], values[1:], initializers)
    return make.make_model(made)


def test_initializers(rng: np.random.Generator, onnx: Any, tmp_path: Path) -> None:
    """The migrating page makes a layer of them in this way."""
    arrays, path = arrays_of(rng), tmp_path / "net.onnx"
    names = ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    given = [onnx.numpy_helper.from_array(array, name) for array, name in zip(arrays, names)]
    more = [
        onnx.numpy_helper.from_array(np.arange(6).reshape(2, 3), "integers"),
        onnx.helper.make_tensor("listed", onnx.TensorProto.FLOAT, (2,), [1.5, 2.5]),
        onnx.helper.make_tensor("halves", onnx.TensorProto.FLOAT16, (2,), [1.5, 2.5]),
        onnx.helper.make_tensor("scalar", onnx.TensorProto.DOUBLE, (), [0.5]),
    ]
    node = onnx.helper.make_node("BatchNormalization", ["x", *names], ["y"], epsilon=0.25)
    onnx.save(graph(onnx, given + more, [node]), path)
    read = bn.read_state(path)
    assert list(read) == [*names, "integers", "listed", "halves", "scalar"]
    assert read["listed"].tolist() == [1.5, 2.5]
    assert read["halves"].dtype == np.float16
    assert all(array.flags.writeable for array in read.values())
    (node,) = [node for node in onnx.load(path).graph.node if node.op_type == "BatchNormalization"]
    state = dict(zip(["scale", "B", "input_mean", "input_var"], [read[name] for name in node.input[1:]]))
    assert same(bn.from_state(state, "onnx"), arrays)


def tensor(onnx: Any, **fields: Any) -> Any:
    made = onnx.TensorProto(name="x", data_type=onnx.TensorProto.FLOAT)
    for name, value in fields.items():
        if name == "dims":
            made.dims.extend(value)
        else:
            setattr(made, name, value)
    return made


def elsewhere(onnx: Any) -> Any:
    made = tensor(onnx, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    made.external_data.add(key="location", value="../../../../etc/hostname")
    return made


def pointing(onnx: Any) -> Any:
    made = tensor(onnx, dims=[1], raw_data=bytes(4))
    made.external_data.add(key="location", value="/etc/hostname")
    return made


ONNX: dict[str, tuple[Callable[[Any], list[Any]], str]] = {
    "elsewhere": (lambda onnx: [elsewhere(onnx)], "x has its numbers in another file"),
    "pointing": (lambda onnx: [pointing(onnx)], "x has its numbers in another file"),
    "a petabyte": (lambda onnx: [tensor(onnx, dims=[1 << 48], raw_data=bytes(4))], "x: "),
    "a petabyte of nothing": (lambda onnx: [tensor(onnx, dims=[1 << 48])], "x: "),
    "negative": (lambda onnx: [tensor(onnx, dims=[-1], raw_data=bytes(4))], r"x has shape \(-1,\)"),
    "too few": (lambda onnx: [tensor(onnx, dims=[3], raw_data=bytes(8))], "x: "),
    "texts": (
        lambda onnx: [onnx.helper.make_tensor("x", onnx.TensorProto.STRING, (1,), [b"a"])],
        "x is of dtype .*, expected numbers",
    ),
    "an unknown type": (lambda onnx: [tensor(onnx, dims=[1], data_type=99, raw_data=bytes(4))], "x: "),
    "twice": (lambda onnx: [tensor(onnx, dims=[1], raw_data=bytes(4))] * 2, "x is there twice"),
}


@pytest.mark.parametrize("kind", ONNX)
def test_hostile_onnx(onnx: Any, tmp_path: Path, kind: str) -> None:
    made, message = ONNX[kind]
    path = tmp_path / "net.onnx"
    path.write_bytes(graph(onnx, made(onnx)).SerializeToString())
    with pytest.raises(ValueError, match=rf"^{path} cannot be read as .onnx: {message}"):
        bn.read_state(path)


def test_a_name_that_is_no_text(onnx: Any, tmp_path: Path) -> None:
    """Some versions of protobuf give its bytes, and others refuse the model."""
    path = tmp_path / "net.onnx"
    content = graph(onnx, [tensor(onnx, name="named", dims=[1], raw_data=bytes(4))]).SerializeToString()
    path.write_bytes(content.replace(b"named", b"\xffamed"))
    with pytest.raises(ValueError, match=f"^{path} cannot be read as .onnx"):
        bn.read_state(path)
    with pytest.raises(ValueError, match=f"^{path} is "):
        read_norms(path)


@pytest.mark.parametrize("data", [b"text", b"\xff" * 50, b"PK\3\4" * 9])
def test_what_is_not_onnx_at_all(onnx: Any, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{path} cannot be read as .onnx"):
        bn.read_state(path)
