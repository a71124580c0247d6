# SPDX-License-Identifier: Apache-2.0
"""Dask: the programs of docs/large-data.md over two workers, with more data than both may hold; and what is refused."""

from __future__ import annotations

import os
import pickle
import re
from typing import Any

import numpy as np
import pytest

import batchnorm as bn

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
from pages import run, text_of  # noqa: E402

PAGE = "large-data.md"
pytestmark = pytest.mark.filterwarnings("ignore")  # of Dask's own


def test_the_page() -> None:
    """The moments of the page are those that Dask itself finds in float64; no worker was lost to its limit."""
    seen: dict[str, Any] = {}

    def watch(session: dict[str, Any]) -> None:
        client = session["client"]
        if "moments" in session and "moments" not in seen:
            workers = client.scheduler_info()["workers"].values()
            seen.update(moments=session["moments"], limits=[each["memory_limit"] for each in workers])
            x = session["x"]
            exact = x.astype("f8")
            seen["mean"], seen["var"] = client.gather(client.compute([exact.mean((0, 2, 3)), exact.var((0, 2, 3))]))
            seen["bytes"], seen["count"] = x.nbytes, x.size // 16
        seen["processes"] = seen.get("processes", set()) | set(client.run(os.getpid).values())
        if client.status == "running":
            assert set(client.run(bn.get_num_threads).values()) == {1}

    def stopped(session: dict[str, Any]) -> None:
        if session["client"].status == "running":
            watch(session)

    run(PAGE, "Dask", stopped)
    assert len(seen["limits"]) == 2
    assert sum(seen["limits"]) < seen["bytes"]
    assert len(seen["processes"]) == 2
    assert seen["moments"].count.tolist() == [seen["count"]] * 16
    assert np.allclose(seen["moments"].mean, seen["mean"], rtol=1e-12)
    assert np.allclose(seen["moments"].var(), seen["var"], rtol=1e-9)


def test_the_programs_around_it() -> None:
    run(PAGE, "")
    run(PAGE, "How much is exchanged")


def test_the_table_of_the_page() -> None:
    """Each figure is that of the formulas, and in the lines that say so, of the run above."""
    text = text_of(PAGE, "How much is exchanged")
    measured = {int(row[0]): int(row[2]) for row in re.findall(r"^(\d+) (2560) (\d+)$", text, re.MULTILINE)}
    units = {"": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}
    rows = re.findall(r"^\| ([\d,]+) \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 7
    for parts, cells in rows:
        n, said = int(parts.replace(",", "")), cells.split(" | ")
        levels = next(k for k in range(9) if 8**k >= n)
        by_node = min(n - 1, 7)
        expected = [2560 * (n - 1), 2560 * by_node, levels, 1_062_400 * (n - 1), 1_062_400 * by_node]
        for cell, value in zip(said, expected):
            number, unit = re.match(r"([\d.]+) ?(\w*)", cell).groups()  # type: ignore[union-attr]
            decimals = len(number.partition(".")[2])
            assert number == f"{value / units[unit]:.{decimals}f}", (parts, cell, value)
        assert ("measured" in said[0]) == (n in measured)
        assert measured.get(n, expected[0]) == expected[0]
    size = len(pickle.dumps(bn.moments(np.ones((2, 64)))))
    assert abs(size - 24 * 64 - 260) < 60, size


def test_arrays_of_dask_are_refused(rng: np.random.Generator) -> None:
    x = da.from_array(rng.normal(size=(8, 3, 4)), chunks=(2, 3, 4))
    message = (
        r"x is of type dask.array.core.Array, and all its blocks would have to be in memory at once: give x.compute"
    )
    for call in (bn.moments, bn.Moments.stream, bn.forward_training, lambda x: bn.BatchNorm1d(3, dtype="f8")(x)):
        with pytest.raises(TypeError, match=message):
            call(x)
    with pytest.raises(TypeError, match=r"gamma is of type dask.array.core.Array"):
        bn.forward_training(x.compute(), da.ones(3))
    assert bn.moments(x.compute()).count.tolist() == [32] * 3


def test_maps_over_blocks(rng: np.random.Generator) -> None:
    """Without a cluster: any blocks, channels last; normalization by each block's own statistics is another thing."""
    whole = rng.normal(50, 2, size=(20, 6, 5)).astype("f4")
    x = da.from_array(whole, chunks=(7, 4, 5))
    moments = sum(bn.moments(block.compute(), axis=-1) for block in x.blocks.ravel())
    assert np.allclose(moments.var(), bn.moments(whole, axis=-1).var(), rtol=1e-12)
    y = x.map_blocks(bn.normalize, moments.mean, moments.invstd(), axis=-1, dtype=x.dtype)
    assert np.allclose(y.compute(), bn.forward_training(whole, axis=-1)[0], atol=1e-6)
    with pytest.raises(ValueError, match=r"mean has shape \(5,\), expected \([12],\): one element per channel"):
        x.rechunk({2: 2}).map_blocks(bn.normalize, moments.mean, moments.invstd(), axis=-1, dtype=x.dtype).compute()
