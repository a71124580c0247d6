# SPDX-License-Identifier: Apache-2.0
"""A tensor larger than caches are, whose outputs go past them: the same bits whichever way they are written."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from helpers import pointer

import batchnorm as bn

Array = np.ndarray[Any, Any]

SHAPE = (40, 64, 90, 89)  # 82 MB; no more than three of them are there at a time
HALVES = np.s_[:32], np.s_[32:]
LINE = 16  # elements of a cache line

# Planes of 8010 elements start anywhere in a line, rows of 64 where the tensor does.
cases = pytest.mark.parametrize(
    ("layout", "start"), [("channels first", 1), ("channels last", 0), ("channels last", 1)]
)


class Space:
    """Memory for a tensor that starts so many elements after a cache line does."""

    def __init__(self, layout: str, start: int) -> None:
        size = int(np.prod(SHAPE))
        memory = np.zeros(size + 3 * LINE, np.float32)
        first = LINE + (-pointer(memory) // 4) % LINE + start
        self.dense = memory[first : first + size]
        self.around = memory[:first], memory[first + size :]
        self.tensor = self.dense.reshape(SHAPE)
        if layout == "channels last":
            samples, channels, height, width = SHAPE
            self.tensor = self.dense.reshape(samples, height, width, channels).transpose(0, 3, 1, 2)

    def fill(self, rng: np.random.Generator) -> Array:
        rng.random(dtype=np.float32, out=self.dense)
        return self.tensor

    def taken(self) -> int:
        """A digest of the tensor, which is cleared for the next one."""
        assert not any(part.any() for part in self.around)
        digest = zlib.crc32(self.dense)
        self.dense[...] = 0
        return digest


def digest(result: Array, like: Array) -> int:
    """A checksum of a result that has memory of its own."""
    assert result.strides == like.strides
    return zlib.crc32(result.transpose(np.argsort(like.strides)[::-1]))


def bits(*values: Array) -> list[bytes]:
    return [value.tobytes() for value in values]


@cases
def test_forward(rng: np.random.Generator, layout: str, start: int) -> None:
    x, gamma, beta = Space(layout, 1 - start).fill(rng), *rng.normal(size=(2, SHAPE[1])).astype("f4")
    results = set()
    for threads in (1, 2):
        bn.set_num_threads(threads)
        y, saved = bn.forward_training(x, gamma, beta)
        results.add((digest(y, x), *bits(saved.mean, saved.invstd)))
        del y
    out = Space(layout, start)
    for threads in (1, 2):
        bn.set_num_threads(threads)
        _, saved = bn.forward_training(x, gamma, beta, out=out.tensor)
        results.add((out.taken(), *bits(saved.mean, saved.invstd)))
        out.tensor[...] = x
        _, saved = bn.forward_training(out.tensor, gamma, beta, out=out.tensor)  # which goes through the caches
        results.add((out.taken(), *bits(saved.mean, saved.invstd)))
    assert len(results) == 1


@cases
def test_backward(rng: np.random.Generator, layout: str, start: int) -> None:
    x, dy, gamma = Space(layout, 1 - start).fill(rng), Space(layout, start), rng.normal(size=SHAPE[1]).astype("f4")
    dy.fill(rng)
    saved = bn.forward_training(x, gamma)[1]
    results = set()
    for threads in (1, 2):
        bn.set_num_threads(threads)
        dx, *sums = bn.backward(dy.tensor, x, saved, gamma=gamma)
        results.add((digest(dx, x), *bits(*sums)))
        del dx
    out = Space(layout, start)
    for threads in (1, 2):
        bn.set_num_threads(threads)
        _, *sums = bn.backward(dy.tensor, x, saved, gamma=gamma, out=out.tensor)
        results.add((out.taken(), *bits(*sums)))
    _, *sums = bn.backward(dy.tensor, x, saved, gamma=gamma, out=dy.tensor)  # which goes through the caches
    results.add((dy.taken(), *bits(*sums)))
    assert len(results) == 1


@pytest.mark.parametrize(("layout", "start"), [("channels first", 0), ("channels last", 1)])
def test_halves(rng: np.random.Generator, layout: str, start: int) -> None:
    """Channels have nothing to do with each other."""
    x, out = Space(layout, 1 - start).fill(rng), Space(layout, start)
    gamma, beta, mean, invstd = rng.uniform(0.25, 0.75, (4, SHAPE[1]))
    gamma, beta = gamma.astype("f4"), beta.astype("f4")
    bn.normalize(x, mean, invstd, gamma, beta, out=out.tensor)
    expected = out.taken()
    for given in (True, False):
        for c in HALVES:
            part = out.tensor[:, c]
            part[...] = bn.normalize(x[:, c], mean[c], invstd[c], gamma[c], beta[c], out=part if given else None)
        assert out.taken() == expected

    counts, sums = np.full(SHAPE[1], 320400.0), rng.normal(size=(2, SHAPE[1])) * 1e5
    bn.backward_apply(x, x, mean, invstd, counts, *sums, gamma, out=out.tensor)
    expected = out.taken()
    for given in (True, False):
        for c in HALVES:
            part, statistics = out.tensor[:, c], (each[c] for each in (mean, invstd, counts, *sums, gamma))
            part[...] = bn.backward_apply(x[:, c], x[:, c], *statistics, out=part if given else None)
        assert out.taken() == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_halves_with_statistics_of_their_own(rng: np.random.Generator, threads: int) -> None:
    """Channels first: planes are summed one by one. Rows are summed together, so many of them as they are short."""
    x, out = Space("channels first", 0).fill(rng), Space("channels first", 1)
    gamma, beta = rng.normal(size=(2, SHAPE[1])).astype("f4")
    bn.set_num_threads(threads)
    _, saved = bn.forward_training(x, gamma, beta, out=out.tensor)
    y, statistics = out.taken(), [saved.mean, saved.invstd]
    _, *sums = bn.backward(x, x, saved, gamma=gamma, out=out.tensor)
    dx, halves = out.taken(), []
    for c in HALVES:
        _, saved = bn.forward_training(x[:, c], gamma[c], beta[c], out=out.tensor[:, c])
        halves.append(saved)
        assert bits(saved.mean, saved.invstd) == bits(*(each[c] for each in statistics))
    assert out.taken() == y
    for c, saved in zip(HALVES, halves):
        _, *half_sums = bn.backward(x[:, c], x[:, c], saved, gamma=gamma[c], out=out.tensor[:, c])
        assert bits(*half_sums) == bits(*(each[c] for each in sums))
    assert out.taken() == dx
