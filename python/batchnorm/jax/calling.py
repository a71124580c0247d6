# SPDX-License-Identifier: Apache-2.0
"""The operands and results of the library's functions, as XLA hands them over: a letter for each.

CKernels' xla.h explains them. t is a tensor of x's shape, c an array of channels, s and k two and three rows of doubles
per channel, m and u moments and sums of the parts of a batch, M and U those of all devices; a letter after "?" may be
missing. Doubles are pairs of 32-bit integers, as JAX has no float64 unless it is told to. An array may have more axes
in front than its letter says: those of jax.vmap.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """The settings of a call beside its operands."""

    axis: int  # of the channels, in x without the axes of a map
    rank: int  # of x without them
    eps: float = 0.0
    given: tuple[bool, ...] = ()  # which of the optional operands or results there are
    over: tuple[Any, ...] = ()  # the axes of devices over which the batch is spread
    lanes: tuple[int, ...] = ()  # axes of maps over which it is spread, counted from x's own ones to the front
    devices: int = 1  # the number of parts of the batch along all of these
    parts: int = 1  # slices of each device's x, whose moments are gathered one by one

    def having(self, *given: Any) -> Call:
        """The call with these of its optional operands or results."""
        return replace(self, given=tuple(bool(each) for each in given))

    @property
    def is_spread(self) -> bool:
        return bool(self.over or self.lanes)

    def along_map(self, name: Any, in_front: int) -> Call:
        """The call after a map over an axis of devices, which becomes one of the axes in front."""
        over = tuple(axis for axis in self.over if axis != name)
        return replace(self, over=over, lanes=(*self.lanes, in_front + 1))

    @property
    def attributes(self) -> dict[str, int]:
        """The call as the handlers read it."""
        bits = sum(is_given << place for place, is_given in enumerate(self.given))
        (eps,) = struct.unpack("q", struct.pack("d", self.eps))
        return {"rank": self.rank, "axis": self.axis, "given": bits, "eps": eps}

    def channels(self, x: Any) -> int:
        return int(x.shape[self.axis - self.rank])

    def values(self, x: Any) -> int:
        """Values per channel, on all devices."""
        return math.prod(x.shape[-self.rank :]) // max(self.channels(x), 1) * self.devices


@dataclass(frozen=True)
class Signature:
    """The letters of a function's operands and results."""

    operands: str
    results: str

    def chosen(self, letters: str, call: Call) -> str:
        """The letters of what is there."""
        given, found = iter(call.given), ""
        for mark, letter in re.findall(r"(\??)(\w)", letters):
            if not mark or next(given):
                found += letter
        return found

    def in_front(self, call: Call, operands: Any) -> int:
        """The number of axes of maps."""
        letters = self.chosen(self.operands, call)
        return len(operands[letters.index("t")].shape) - call.rank

    def types(self, call: Call, operands: Any) -> list[tuple[Shape, Any]]:
        """Shape and dtype of each result."""
        letters = self.chosen(self.operands, call)
        x = operands[letters.index("t")]
        sizes = [each.shape[: self.in_front(call, operands)] for each in operands]
        in_front = tuple(functools.reduce(lambda a, b: b if a == 1 else a, each) for each in zip(*sizes))
        return [
            ((*in_front, *extents(letter, call, x)), dtype(letter, x)) for letter in self.chosen(self.results, call)
        ]


def extents(letter: str, call: Call, x: Any) -> Shape:
    """The shape of what a letter stands for, without a map."""
    channels = call.channels(x)
    rows = {"s": 2, "k": 3, "u": 2, "m": 3, "U": 2, "M": 3}
    if letter == "t":
        return tuple(x.shape[-call.rank :])
    if letter == "c":
        return (channels,)
    if letter in "sk":
        return rows[letter], channels, 2
    return rows[letter], call.parts * (call.devices if letter in "MU" else 1), channels, 2


def dtype(letter: str, x: Any) -> Any:
    return x.dtype if letter == "t" else parameter_dtype(x) if letter == "c" else np.dtype(np.uint32)


def parameter_dtype(x: Any) -> Any:
    """The dtype of the parameters and statistics beside x."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
