# SPDX-License-Identifier: Apache-2.0
"""Files of HDF5, as Keras writes weights: groups and datasets in h5py's terms, and a model's configuration in JSON."""

from __future__ import annotations

import contextlib
import io
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import batchnorm as bn
import numpy as np
from batchnorm.inspection import findings, read_norms
from judge import expect, refuses, same_arrays
from mutations import NUMBERS, SIZES

NAME, SUFFIX, PACKAGES = "hdf5", ".h5", ("h5py",)
_STRANGE: list[Any] = [None, [], {}, "x", True, -1, 2**70, *NUMBERS]


def config(rng: random.Random | None = None) -> str:
    """A model with two batch norms; with random numbers to draw, one whose words and values may be any."""
    told = {"name": "bn1", "axis": [3], "momentum": 0.99, "epsilon": 0.001, "scale": True, "center": True}
    layers = [{"class_name": "BatchNormalization", "config": {**told, "name": name}} for name in ("bn1", "bn2")]
    model: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "model", "layers": layers}}
    if rng is None:
        return json.dumps(model)
    for _ in range(rng.randrange(3)):
        layer = rng.choice(layers)
        if rng.random() < 0.7 and isinstance(layer["config"], dict):
            layer["config"][rng.choice(["name", "momentum", "epsilon", "scale", "center"])] = rng.choice(_STRANGE)
        else:
            layer[rng.choice(["config", "class_name"])] = rng.choice(_STRANGE)
    text = json.dumps(model)
    broken = [text[:-5], "[" * 3000, "[]", "null", "7", '{"a":' * 3000, text.replace("bn1", "bn2"), text[:50] + text]
    return text if rng.random() < 0.7 else rng.choice(broken)


def made(rng: random.Random | None = None) -> bytes:
    """A file with whatever h5py has words for; without random numbers to draw, a valid one."""
    import h5py

    numbers, file = np.random.default_rng(3), io.BytesIO()
    with h5py.File(file, "w") as root:
        root.attrs["model_config"] = config(rng)
        for name in ("bn1", "bn2"):
            group = root.create_group(f"{name}/{name}")
            for array in ("gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"):
                group.create_dataset(array, data=numbers.uniform(0.5, 2, 3).astype(np.float32))
        variables = root.create_group("layers/batch_normalization/vars")
        variables.attrs["name"] = "bn1"
        for index in range(4):
            variables.create_dataset(str(index), data=np.arange(3.0) + index)
        root.create_dataset("packed", data=np.zeros((40, 40), np.float16), chunks=(8, 40), compression="gzip")
        root.create_dataset("shuffled", data=np.arange(64), chunks=(8,), shuffle=True, fletcher32=True)
        for _ in range(rng.choice([0, 1, 2]) if rng is not None else 0):
            _add(rng, h5py, root)
    return file.getvalue()


def _add(rng: random.Random | None, h5py: Any, root: Any) -> None:
    """Something that a file may hold beside arrays of numbers, or an array that is another than it was."""
    assert rng is not None
    variables = root["layers/batch_normalization/vars"] if "layers" in root else root
    changes: list[Callable[[], Any]] = [
        lambda: root.__setitem__("soft", h5py.SoftLink(rng.choice(["/bn1", "/none", "/soft", "/"]))),
        lambda: root.__setitem__("external", h5py.ExternalLink(rng.choice(["/etc/passwd", "x.h5", ""]), "/a")),
        lambda: root.__setitem__("hard", root[rng.choice(["/", "bn1", "packed", "bn1/bn1"])]),
        lambda: root["bn1"].__setitem__("up", root),
        lambda: root.create_dataset("empty", data=h5py.Empty("f4")),
        lambda: root.create_dataset("text", data="x" * rng.randrange(50)),
        lambda: root.create_dataset("texts", data=[b"a", b"bc"]),
        lambda: root.create_dataset("variable", (2,), h5py.vlen_dtype(np.float32)),
        lambda: root.create_dataset("reference", (1,), h5py.ref_dtype),
        lambda: root.create_dataset("record", (2,), [("a", "f4"), ("b", "i8")]),
        lambda: root.create_dataset("opaque", data=np.zeros(2, rng.choice(["V2", "V3", "S4"]))),
        lambda: root.create_dataset("named", (2,), h5py.enum_dtype({"a": 1})),
        lambda: root.create_dataset("large", (rng.choice(SIZES[-12:-5]),), "f8", chunks=(1024,)),
        lambda: root.create_dataset("wide", (2**20, 2**12), "f4", chunks=(64, 64), compression="gzip", fillvalue=1),
        lambda: _packed(root),
        lambda: root.create_dataset("outside", (4,), "f4", external=[("/etc/passwd", 0, 16)]),
        lambda: root.create_dataset("scalar", data=rng.choice(NUMBERS)),
        lambda: root.create_dataset("none", (0, 3), "f4"),
        lambda: root.create_dataset("wrong", data=np.zeros((2, 2), rng.choice([">f4", "c8", "?", "i1", "f2"]))),
        lambda: root["bn2/bn2"].create_dataset(rng.choice(["gamma", "moving_mean", "more", "Adam"]), data=np.ones(3)),
        lambda: variables.create_dataset(rng.choice(["4", "04", "²", "٣"]), data=np.ones(3)),
        lambda: variables.attrs.__setitem__("name", rng.choice(["bn2", "", 7, np.ones(3)])),
        lambda: root.attrs.__setitem__("model_config", rng.choice([7, np.ones(3), b"\xff", b"{}", ""])),
        lambda: root.attrs.__delitem__("model_config"),
        lambda: root["bn1/bn1"].__delitem__(rng.choice(["gamma:0", "moving_mean:0", "moving_variance:0"])),
        lambda: root.create_dataset("bn1/bn1/vars", data=1.0),
        lambda: root.create_group("/".join(["deep"] * rng.choice([5, 120]))),
    ]
    # h5py cannot make some of them in a file that has others.
    with contextlib.suppress(OSError, ValueError, TypeError, RuntimeError, KeyError):
        rng.choice(changes)()


def _packed(root: Any) -> None:
    """64 MiB of zeros, in a chunk each that is the same packed one: what is packed again becomes next to nothing."""
    zeros = root.create_dataset("zeros", (1 << 26,), "u1", chunks=(1 << 20,), compression="gzip")
    chunk = zlib.compress(bytes(1 << 20), 9)
    for start in range(0, 1 << 26, 1 << 20):
        zeros.id.write_direct_chunk((start,), chunk)


def seeds(folder: Path) -> list[bytes]:
    return [made()]


def mutated(rng: random.Random, data: bytes) -> bytes:
    return made(rng)


def independent(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays as h5py gives them; those in one piece are the bytes of the file."""
    import h5py

    arrays = {}
    data = path.read_bytes()

    with h5py.File(path, "r") as root:

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                offset = item.id.get_offset()
                there = item.dtype.itemsize * item.size
                if offset is None:
                    arrays[name] = np.asarray(item[()])
                else:
                    arrays[name] = np.frombuffer(data[offset : offset + there], item.dtype).reshape(item.shape)

        root.visititems(note)
    return arrays


def check(path: Path) -> bool:
    """True if it loads, and then to what it should."""
    refused, found = refuses(lambda: bn.read_state(path), path, names=str(path))
    if not refused and path.suffix == ".h5":
        same_arrays(found, independent(path))
    unread, norms = refuses(lambda: read_norms(path), path)
    if not unread:
        expect(len(findings(norms)) == len(norms), "findings are not one list for each batch norm")
    return not refused
