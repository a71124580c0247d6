# SPDX-License-Identifier: Apache-2.0
""".safetensors there and back, as PyTorch has them, and such as nobody should write."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import Array, peer

import batchnorm as bn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    peer("safetensors")
    return tmp_path / "state.safetensors"


def alike(first: dict[str, Array], second: dict[str, Array]) -> bool:
    return first.keys() == second.keys() and all(
        (first[key].dtype, first[key].shape, first[key].tobytes())
        == (second[key].dtype, second[key].shape, second[key].tobytes())
        for key in first
    )


DTYPES = "f2", "f4", "f8", "bfloat16", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (1, 0, 2)])
def test_safetensors(rng: np.random.Generator, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = abs(rng.normal(size=shape) * 3).astype(dtype)
    arrays = {"a.b": array, "params/c": array[::-1]} if shape else {"a": array}
    bn.write_state(path, arrays)
    read = bn.read_state(path)
    assert alike(read, arrays)
    assert all(each.flags.writeable for each in read.values())
    assert alike(peer("safetensors.numpy").load_file(path), arrays)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_safetensors_of_other_orders(path: Path) -> None:
    x = np.arange(12.0).reshape(3, 4)
    given = {"a": x.T, "b": x[::2, ::-1], "c": x.astype(">f4"), "d": np.ones(2, "V2")}
    given["d"] = x[0].astype("bfloat16").view("V2")
    bn.write_state(path, given)
    expected = {"a": x.T.copy(), "b": x[::2, ::-1].copy(), "c": x.astype("f4"), "d": x[0].astype("bfloat16")}
    assert alike(bn.read_state(path), expected)


def test_safetensors_of_pytorch(rng: np.random.Generator, path: Path) -> None:
    """Theirs read here, and ours read there."""
    torch, of_torch = peer("torch"), peer("safetensors.torch")
    for dtype in (torch.float32, torch.bfloat16):
        theirs = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).to(dtype)
        torch.nn.init.normal_(theirs[1].weight)
        of_torch.save_file(theirs.state_dict(), path, metadata={"of": "torch"})
        ours = bn.from_state(bn.read_state(path), "pytorch", prefix="1")
        assert np.array_equal(ours.gamma.astype(np.float32), theirs[1].weight.detach().float().numpy())
        bn.write_state(path, bn.to_state(ours, "pytorch").arrays)
        other = torch.nn.BatchNorm1d(3).to(dtype)
        other.load_state_dict(of_torch.load_file(path), strict=True)
        assert torch.equal(other.weight, theirs[1].weight)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"x": np.zeros(2, complex)}, TypeError, "x has dtype complex128, which .safetensors does not have"),
        ({"x": np.zeros(2, "g")}, TypeError, "x has dtype float128, which .safetensors does not have"),
        ({"x": [None]}, TypeError, "x has dtype object, expected numbers"),
        ({"__metadata__": [1.0]}, ValueError, "the key '__metadata__' cannot be the name of an array in .safetensors"),
        ({"": [1.0]}, ValueError, "the key '' cannot be the name of an array in .safetensors"),
    ],
)
@pytest.mark.parametrize("is_there", [True, False])
def test_what_safetensors_cannot_have(
    path: Path, arrays: Any, error: type[Exception], message: str, is_there: bool
) -> None:
    if is_there:
        path.write_bytes(b"older")
    with pytest.raises(error, match=message):
        bn.write_state(path, {"first": np.ones(3), **arrays})
    assert list(path.parent.iterdir()) == ([path] if is_there else [])
    assert not is_there or path.read_bytes() == b"older"


def tensor(shape: Any, offsets: tuple[int, int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE: dict[str, tuple[Any, bytes]] = {
    "empty": (b"", b""),
    "no JSON": (b"{", b""),
    "a list": ([], b""),
    "a number": (3, b""),
    "no UTF-8": (b"{\xff}", b""),
    "deep": (b"[" * 100_000, b""),
    "deeper": (b'{"a":' * 100_000, b""),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)),
    "overlapping": ({"a": tensor([2], (0, 8)), "b": tensor([2], (4, 12))}, bytes(12)),
    "a gap": ({"a": tensor([1], (0, 4)), "b": tensor([1], (8, 12))}, bytes(12)),
    "beyond the file": ({"a": tensor([2], (0, 8))}, bytes(4)),
    "backwards": ({"a": tensor([1], (4, 0))}, bytes(4)),
    "data after the last": ({"a": tensor([1], (0, 4))}, bytes(8)),
    "huge": ({"a": tensor([2**62], (0, 8))}, bytes(8)),
    "huge and wrapped": ({"a": tensor([2**32, 2**32], (0, 0))}, b""),
    "huge of nothing": ({"a": tensor([0, 2**62], (0, 0))}, b""),
    "negative": ({"a": tensor([-1], (0, 4))}, bytes(4)),
    "many axes": ({"a": tensor([1] * 100, (0, 4))}, bytes(4)),
    "an unknown dtype": ({"a": tensor([1], (0, 4), "F5")}, bytes(4)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_safetensors(path: Path, kind: str) -> None:
    header, data = HOSTILE[kind]
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    with pytest.raises(ValueError, match=f"^{path} cannot be read as .safetensors: "):
        bn.read_state(path)


def test_a_dtype_that_numpy_does_not_have(path: Path) -> None:
    header = json.dumps({"a": tensor([4], (0, 4), "F8_E4M3")}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ValueError, match="a is of F8_E4M3, which NumPy does not have"):
        bn.read_state(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 7, b"\xff" * 8, struct.pack("<Q", 2**40) + b"{}", b"PK\3\4" * 9])
def test_what_is_not_safetensors_at_all(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{path} cannot be read as .safetensors: "):
        bn.read_state(path)


def test_damaged_safetensors(rng: np.random.Generator, path: Path) -> None:
    """Cut anywhere, or with any byte of the header changed: arrays of the file, or an error that names it."""
    bn.write_state(path, {"a": rng.normal(size=5), "b": np.arange(7)})
    good = path.read_bytes()
    header = 8 + struct.unpack("<Q", good[:8])[0]
    refused = 0
    for case in range(300):
        data = bytearray(good)
        if case % 3:
            data[int(rng.integers(header))] ^= int(rng.integers(1, 256))
        else:
            del data[int(rng.integers(len(data))) :]
        path.write_bytes(data)
        message = ""
        try:
            read = bn.read_state(path)
        except ValueError as error:
            message = str(error)
        if message:
            assert message.startswith(f"{path} cannot be read as .safetensors: ")
            refused += 1
        else:
            assert sum(array.nbytes for array in read.values()) == len(good) - header
    assert refused > 150
