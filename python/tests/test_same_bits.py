# SPDX-License-Identifier: Apache-2.0
"""The same bits on every way that a call can take: threads, instruction sets, alignments, in place or not, once more.

The channels are hard ones beside easy ones, as their loops are chosen by what is in a group of channels, and groups are
made by the machine. An instruction set is chosen once per process: each has one of its own, in which everything else is
compared.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from channels import CHANNELS, FEW, cycled, draw, draw_gradient, sparse
from helpers import digest, pointer, python

import batchnorm as bn

Array = np.ndarray[Any, Any]

ALL = len(CHANNELS)
LINE = 64

# outer, channels, inner, and channels that the memory has besides.
CASES = {
    "planes of several blocks": (2, ALL, 130 * 131, 0),
    "planes, with gaps": (5, ALL, 33 * 31, 3),
    "a plane": (3, 1, 150000, 0),
    "two planes, with gaps": (2, 2, 100001, 1),
    "planes of many channels": (4, 300, 30 * 31, 0),
    "planes of whole vectors": (50, ALL, 8 * 8, 0),
    "planes mapped as rows": (64, ALL, 7 * 7, 0),
    "the same of many channels": (64, 256, 7 * 7, 0),
    "the same, too few for it": (3, ALL, 7 * 7, 0),
    "planes mapped as rows, with gaps": (64, ALL, 7 * 9, 2),
    "planes summed as rows": (200, ALL, 2 * 5, 0),
    "the same, with gaps": (200, ALL, 2 * 5, 1),
    "the same, flat": (12001, 5, 3 * 3, 0),
    "rows": (5001, ALL, 1, 0),
    "rows, with gaps": (3001, ALL, 1, 5),
    "rows of many channels": (2000, 256, 1, 0),
    "flat rows": (150001, 3, 1, 0),
    "narrow rows, with gaps": (70000, 3, 1, 2),
    "one channel": (300000, 1, 1, 0),
    "wide rows": (40, 2500, 1, 0),
    "a few rows": (3, 700, 1, 0),
    "two values": (2, ALL, 1, 0),
}
# Tensors of 23 MB, with elements of four bytes or of two: outputs go past the last cache if that has less than twice as
# much, but not those in place.
LARGE = {"large planes": (9, 7, 70 * 71 * 18, 0), "large rows": (115001, 50, 1, 0)}

# Threads; where tensors and their outputs begin, in bytes from a cache line; whether in place.
WAYS = [
    (1, 0, 0, False),
    (1, 0, 0, False),
    (2, 4, 16, False),
    (3, 8, 8, True),
    (7, 16, 60, False),
    (32, 20, 0, False),
    (1, 60, 20, True),
    (32, 0, 4, True),
    (7, 20, 20, True),
    (2, 60, 8, False),
]


def placed(values: Array, offset: int, gaps: int = 0) -> Array:
    """A copy that begins so many bytes after a cache line, to the element; with gaps, beside channels of NaN."""
    shape = list(values.shape)
    if gaps:
        shape[1] += gaps
    size = int(np.prod(shape))
    memory = np.full(size + 2 * LINE, np.nan, values.dtype)
    start = (-pointer(memory) % LINE + offset) // values.itemsize
    result = memory[start : start + size].reshape(shape)
    result = result[:, : values.shape[1]] if gaps else result
    result[...] = values
    return result


def results(inputs: dict[str, Array], frozen: Any, way: tuple[int, int, int, bool], gaps: int) -> list[Array]:
    """Everything that the layer's calls give."""
    threads, offset, out_offset, in_place = way
    bn.set_num_threads(threads)
    x, dy = (placed(inputs[name], offset, gaps) for name in ("x", "dy"))
    gamma, beta, mean, var = (placed(inputs[name], out_offset) for name in ("gamma", "beta", "mean", "var"))

    def out(replaced: Array) -> Array:
        return placed(replaced, offset if in_place else out_offset, gaps)

    target = out(x)
    inferred = bn.forward_inference(
        target if in_place else x, gamma, beta, running_mean=mean, running_var=var, eps=0, out=target
    )
    target = out(x)
    y, saved = bn.forward_training(
        target if in_place else x, gamma, beta, running_mean=mean, running_var=var, eps=0, out=target
    )
    target = out(dy)
    gradients = bn.backward(target if in_place else dy, x, saved, gamma=gamma, out=target)
    target = out(dy)
    of_constants = bn.backward(target if in_place else dy, x, frozen, gamma=gamma, out=target)
    return [inferred, y, saved.mean, saved.invstd, mean, var, *gradients, *of_constants]


# The options of calls: other tests, with an oracle, say if their results are right. The two groups are halves of the
# samples, or each sample is one.
TOLD: dict[str, dict[str, Any]] = {
    "relu, residual": {"activation": "relu", "residual": True},
    "relu, residual, mask": {"activation": "relu", "residual": True, "save_mask": True},
    "silu": {"activation": "silu"},
    "hard swish, residual": {"activation": "hard_swish", "residual": True},
    "clip, weights": {"activation": "relu6", "weights": True, "masked": "zero"},
    "from the output": {"activation": bn.LeakyReLU(0.25)},
    "weights": {"weights": True},
    "mask, kept": {"weights": True, "masked": "keep"},
    "renorm": {"source": bn.Renorm(1.5, 0.5, 0.5)},
    "blend, weights": {"source": bn.Blend(3), "weights": True},
    "updated": {"source": bn.Updated()},
    "policies": {"running": bn.Running("debiased", "running", "skip", pure=True, num_batches=[3])},
    "segments": {"groups": bn.Segments},
    "segments, weights, relu": {"groups": bn.Segments, "weights": True, "activation": "relu", "residual": True},
    "ghost": {"groups": bn.Ghost(1)},
    "conditional, renorm": {"groups": bn.Conditional, "source": bn.Renorm(1.5, 0.5, 0.5)},
}
TOLD_CASES = {
    "planes of several blocks, told": (2, ALL, 60 * 61, 0),
    "planes, with gaps, told": (5, ALL, 33 * 31, 3),
    "planes of many channels, told": (4, 300, 10 * 11, 0),
    "planes mapped as rows, told": (64, ALL, 7 * 7, 0),
    "planes summed as rows, with gaps, told": (200, ALL, 2 * 5, 1),
    "rows, told": (3001, ALL, 1, 0),
    "rows, with gaps, told": (1501, ALL, 1, 5),
    "narrow rows, told": (20001, 3, 1, 0),
    "one channel, told": (60001, 1, 1, 0),
    "wide rows, told": (40, 2500, 1, 0),
}
TOLD_WAYS = [WAYS[0], WAYS[2], WAYS[3], WAYS[7]]


def told_results(
    inputs: dict[str, Array], told: dict[str, Any], way: tuple[int, int, int, bool], gaps: int
) -> list[Array]:
    """Everything that training and its gradient give, told something."""
    threads, offset, out_offset, in_place = way
    bn.set_num_threads(threads)
    x, dy, z = (placed(inputs[name], offset, gaps) for name in ("x", "dy", "z"))
    told, outer = dict(told), len(x)
    if "residual" in told:
        told["residual"] = z
    if "weights" in told:
        told["weights"] = placed(inputs["weights"], out_offset)
    rows = [inputs[name] for name in ("gamma", "beta", "mean", "var")]
    if told.get("groups") in (bn.Segments, bn.Conditional):
        kind = told["groups"]
        told["groups"] = kind(np.arange(outer) * 2 // outer, 2)
        rows = [np.stack([row, row[::-1]]) if i < 2 or kind is bn.Segments else row for i, row in enumerate(rows)]
    gamma, beta, mean, var = (placed(row, out_offset) for row in rows)
    invertible = isinstance(told.get("activation"), bn.LeakyReLU)

    def out(replaced: Array) -> Array:
        return placed(replaced, offset if in_place else out_offset, gaps)

    target = out(x)
    y, saved = bn.forward_training(
        target if in_place else x, gamma, beta, running_mean=mean, running_var=var, eps=1e-5, out=target, **told
    )
    target = out(dy)
    given = y.copy() if invertible else x
    results = bn.backward(target if in_place else dy, given, saved, gamma=gamma, out=target, from_output=invertible)
    kept = [saved.bits, saved.running_mean, saved.running_var, saved.num_batches]
    return [y, saved.mean, saved.invstd, mean, var, *results, *(each for each in kept if each is not None)]


def drawn(rng: np.random.Generator, case: tuple[int, int, int, int], dtype: str) -> dict[str, Array]:
    """Channels hard and easy, and what else a call takes."""
    outer, channels, inner, _ = case
    kinds = list(CHANNELS) if channels == ALL else sparse(channels) if channels > ALL else cycled(FEW, channels)
    rows = draw(rng, kinds, outer * inner, dtype)
    dy = draw_gradient(rng, rows, 0.3)
    inputs = {key: np.moveaxis(each.reshape(channels, outer, inner), 0, 1) for key, each in (("x", rows), ("dy", dy))}
    for key in ("gamma", "beta", "mean", "var"):
        inputs[key] = (rng.normal(size=channels) ** 2).astype(dtype)
    return inputs


def print_told_digests(dtype: str) -> None:
    """The same for TOLD, of which each is told of each case."""
    print(bn.isa())
    for name, case in TOLD_CASES.items():
        rng = np.random.default_rng(len(name))
        inputs = drawn(rng, case, dtype)
        inputs["z"] = rng.normal(size=inputs["x"].shape).astype(dtype)
        shape = len(inputs["x"]), inputs["x"].shape[2]
        inputs["weights"] = rng.choice([0, 0.5, 1, 3], shape).astype("f8" if dtype == "f8" else "f4")
        for key, told in TOLD.items():
            if told.get("groups") == bn.Ghost(1) and case[2] == 1:
                continue  # a value per channel and group
            expected = told_results(inputs, told, TOLD_WAYS[0], case[3])
            for way in TOLD_WAYS[1:]:
                for index, (given, first) in enumerate(zip(told_results(inputs, told, way, case[3]), expected)):
                    assert digest([given]) == digest([first]), (name, key, dtype, way, index)
            print(name, key, digest(expected))


def print_digests(dtype: str, names: list[str]) -> None:
    """A line for each case, after all ways have given the same."""
    print(bn.isa())
    for name in names:
        outer, channels, inner, gaps = {**CASES, **LARGE}[name]
        if name in LARGE:
            outer *= 4 // np.dtype(dtype).itemsize
        inputs = drawn(np.random.default_rng(len(name)), (outer, channels, inner, gaps), dtype)
        frozen = bn.frozen_statistics(inputs["mean"], inputs["var"], eps=0)
        ways = WAYS if name in CASES else WAYS[1:5]
        expected = results(inputs, frozen, ways[0], gaps)
        for way in ways[1:]:
            for index, (given, first) in enumerate(zip(results(inputs, frozen, way, gaps), expected)):
                same = np.array_equal(given.view(f"u{given.itemsize}"), first.view(f"u{given.itemsize}"))
                assert same or digest([given]) == digest([first]), (name, dtype, way, index)
        print(name, digest(expected))


@lru_cache(maxsize=32)
def digests(isa: str, dtype: str, which: str) -> list[str]:
    names = list(LARGE if which == "large" else CASES)
    call = f"print_told_digests({dtype!r})" if which == "told" else f"print_digests({dtype!r}, {names})"
    done = python(f"import test_same_bits; test_same_bits.{call}", BATCHNORM_ISA=isa)
    if "BATCHNORM_ISA" in done.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == isa
    if which == "told":
        assert len(lines) > len(TOLD_CASES) * (len(TOLD) - 1)
    else:
        assert len(lines) == len(set(lines)) == len(names) + 1
    return lines[1:]


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_every_way_on_every_instruction_set(isa: str, dtype: str) -> None:
    assert digests(isa, dtype, "cases") == digests("baseline", dtype, "cases")


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_past_the_caches_too(isa: str, dtype: str) -> None:
    assert digests(isa, dtype, "large") == digests("baseline", dtype, "large")


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_whatever_a_call_is_told(isa: str, dtype: str) -> None:
    assert digests(isa, dtype, "told") == digests("baseline", dtype, "told")
