# SPDX-License-Identifier: Apache-2.0
"""Changes to the bytes of a valid file, whatever its format, and numbers that parsers stumble over."""

from __future__ import annotations

import random
import struct

# Powers of two and their neighbours, as sizes, offsets and counts of files have them.
SIZES = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62]
SIZES += [2**63 - 1, 2**64 - 1, -1, -2, -(2**31), -(2**63)]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 1e-5, 0.9, 1e-45, 1e300, -1e300, float("inf"), float("-inf"), float("nan")]


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """The data with one to four changes that know nothing of a format."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data = rng.choice(_CHANGES)(rng, data) if data else rng.randbytes(rng.randrange(64))
    return data


def _bit(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _byte(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])]) + data[at + 1 :]


def _number(rng: random.Random, data: bytes) -> bytes:
    """A size in the place of 1, 2, 4 or 8 bytes."""
    form = rng.choice(["<B", "<H", "<I", "<Q", ">I", ">Q"])
    width = struct.calcsize(form)
    at = rng.randrange(len(data))
    return data[:at] + struct.pack(form, rng.choice(SIZES) % 256**width) + data[at + width :]


def _near(rng: random.Random, data: bytes) -> bytes:
    """A number in the data that is a little more or less than it was."""
    width = rng.choice([1, 2, 4, 8])
    at = rng.randrange(len(data))
    number = int.from_bytes(data[at : at + width], "little") + rng.choice([-8, -2, -1, 1, 2, 8])
    return data[:at] + (number % 256**width).to_bytes(width, "little") + data[at + width :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _removed(rng: random.Random, data: bytes) -> bytes:
    at, length = rng.randrange(len(data)), rng.choice([1, 2, 8, rng.randrange(1, 100)])
    return data[:at] + data[at + length :]


def _repeated(rng: random.Random, data: bytes) -> bytes:
    at, length = rng.randrange(len(data)), rng.randrange(1, 200)
    return data[: at + length] + data[at : at + length] + data[at + length :]


def _moved(rng: random.Random, data: bytes) -> bytes:
    """A piece of the data over another one."""
    length = rng.randrange(1, 64)
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    piece = data[source : source + length]
    return data[:target] + piece + data[target + len(piece) :]


def _inserted(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 16)) + data[at:]


def _prefixed(rng: random.Random, data: bytes) -> bytes:
    return rng.randbytes(rng.choice([1, 16, 512])) + data


_CHANGES = [_bit, _bit, _byte, _byte, _number, _number, _near, _near, _cut, _removed, _repeated, _moved, _inserted]
_CHANGES.append(_prefixed)
