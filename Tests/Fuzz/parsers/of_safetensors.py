# SPDX-License-Identifier: Apache-2.0
"""Files of .safetensors: the length of a header, the header in JSON, and the numbers."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import batchnorm as bn
import numpy as np
from batchnorm.inspection import read_norms
from judge import refuses, same_arrays
from mutations import SIZES, mutated_bytes

NAME, SUFFIX, PACKAGES = "safetensors", ".safetensors", ("safetensors", "safetensors.numpy")
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "V2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
_DTYPES.update({"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?", "C64": "<c8"})
_STRANGE = ["F8_E4M3", "F4", "f32", "", None, 4, ["F32"], "F32 ", "O"]


def seeds(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(2)
    layer = bn.BatchNorm(4)
    layer(rng.normal(size=(8, 4)).astype(np.float32))
    many = {f"{kind}": np.zeros((2, 3), kind) for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u1", "?")}
    states = [layer.state_dict(), bn.to_state(layer, "pytorch", prefix="layer1.bn").arrays, many, {}]
    made = []
    for arrays in states:
        bn.write_state(folder / "seed.safetensors", arrays)
        made.append((folder / "seed.safetensors").read_bytes())
    return made


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The header says something else, in JSON that may be broken, or has another length."""
    (length,) = struct.unpack_from("<Q", data)
    header, numbers = json.loads(data[8 : 8 + length]), data[8 + length :]
    names = sorted(header)
    if names:
        for _ in range(rng.choice([1, 1, 3])):
            _change(rng, header, rng.choice(names), len(numbers))
    change = rng.randrange(8)
    if change == 0:
        header["__metadata__"] = rng.choice([{"format": "pt"}, {"a": 1}, [], None, {"a": {"b": "c"}}])
    elif change == 1:
        header[rng.choice(["x", "", "\0", "é", "a" * 500])] = {
            "dtype": rng.choice([*_DTYPES, *_STRANGE]),
            "shape": rng.choice([[], [0], [2], [1, 0, 2]]),
            "data_offsets": rng.choice([[0, 0], [0, 4], [len(numbers), len(numbers)], [4, 0], [-4, 4], [0.5, 4]]),
        }
    text = json.dumps(header)
    change = rng.randrange(12)
    if change == 0:  # a name that is there twice
        text = text[:-1] + ", " + text[1:] if names else text
    elif change == 1:
        others = ["[" * 3000, "[]", "null", "1e999", "{", "\ufeff{}"]
        text = rng.choice([text[:-1], text + text, text.replace(":", ","), *others])
    elif change == 2:
        text = text.replace("shape", rng.choice(["Shape", "shap\\u0065"]), 1)
    encoded = text.encode()
    if rng.random() < 0.3:
        encoded += b" " * (-len(encoded) % 8)
    if rng.random() < 0.1:
        encoded = mutated_bytes(rng, encoded)
    length = len(encoded) if rng.random() < 0.9 else rng.choice([*SIZES, len(encoded) - 1, len(encoded) + 1])
    if rng.random() < 0.1:
        numbers = rng.choice([numbers[:-1], numbers + b"\0", b"", numbers * 2])
    return struct.pack("<Q", length % 2**64) + encoded + numbers


def _change(rng: random.Random, header: dict[str, Any], name: str, end: int) -> None:
    tensor = header.get(name)
    if not isinstance(tensor, dict) or "shape" not in tensor:
        return
    change = rng.randrange(7)
    if change == 0:
        tensor["dtype"] = rng.choice([*_DTYPES, *_STRANGE])
    elif change == 1:
        tensor["shape"] = [rng.choice(SIZES) for _ in range(rng.choice([0, 1, 2, 5, 70]))]
    elif change == 2:
        tensor["shape"] = rng.choice([None, 3, [1.5], ["2"], [True], [2**32, 2**32], [1] * 65, [3, 2], [1, 4]])
    elif change == 3:
        tensor["data_offsets"] = [rng.choice([*SIZES, end]), rng.choice([*SIZES, end])]
    elif change == 4:
        tensor["data_offsets"] = header[rng.choice(sorted(header))].get("data_offsets", [0, 0])
    elif change == 5:
        header[rng.choice(["x", name + " ", name.upper()])] = header.pop(name)
    else:
        del tensor[rng.choice(sorted(tensor))]


def independent(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays, as the format is described."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    arrays = {}
    for name, tensor in json.loads(data[8 : 8 + length].decode()).items():
        if name != "__metadata__":
            start, end = (8 + length + each for each in tensor["data_offsets"])
            arrays[name] = np.frombuffer(data[start:end], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    return arrays


def check(path: Path) -> bool:
    """True if it loads, and then to what it should."""
    refused, found = refuses(lambda: bn.read_state(path), path, names=str(path))
    refuses(lambda: read_norms(path), path)
    if not refused:
        same_arrays(found, independent(path))
    return not refused
