# SPDX-License-Identifier: Apache-2.0
"""SyncBatchNorm over processes of torch.distributed, by gloo."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import python

import batchnorm as bn
from batchnorm.distributed import SyncBatchNorm

Array = np.ndarray[Any, Any]

torch = pytest.importorskip("torch")

MEMBER = """
import sys
import numpy as np, torch.distributed as distributed
from batchnorm.distributed import SyncBatchNorm, exchange_torch

rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
data = np.load(f"{folder}/data.npz")
parts = np.cumsum(data["parts"])
own = slice(parts[rank] - data["parts"][rank], parts[rank])
layer = SyncBatchNorm(3, exchange_torch(), dtype=data["x"].dtype, reproducible=sys.argv[4] == "True")
y = layer(data["x"][own])
dx = layer.backward(data["dy"][own])
np.savez(f"{folder}/{rank}.npz", y=y, dx=dx, running_var=layer.running_var, grad_gamma=layer.grad_gamma,
         total_grad_gamma=layer.total_grad_gamma)
distributed.barrier()
"""


def over_gloo(folder: Path, x: Array, dy: Array, parts: list[int], reproducible: bool) -> list[Any]:
    """The results of each process, of which each has so many samples."""
    folder.mkdir()
    np.savez(folder / "data.npz", x=x, dy=dy, parts=parts)
    size = len(parts)
    with ThreadPoolExecutor(size) as pool:
        told = [(str(rank), str(size), str(folder), str(reproducible)) for rank in range(size)]
        done = list(pool.map(lambda arguments: python(MEMBER, *arguments), told))
    found = [np.load(path) for path in sorted(folder.glob("[0-9].npz"))]
    assert len(found) == size, [each.stderr for each in done]
    return found


@pytest.mark.parametrize("parts", [[6], [4, 2], [0, 3, 3]], ids=str)
def test_over_gloo(rng: np.random.Generator, tmp_path: Path, parts: list[int]) -> None:
    x, dy = rng.normal(2, 1, size=(2, 6, 3, 4)).astype("f4")
    found = over_gloo(tmp_path / "meeting", x, dy, parts, False)
    whole = bn.BatchNorm(3)
    assert np.allclose(np.concatenate([each["y"] for each in found]), whole(x), atol=1e-6)
    assert np.allclose(np.concatenate([each["dx"] for each in found]), whole.backward(dy), atol=1e-6)
    assert np.allclose(sum(each["grad_gamma"] for each in found), whole.grad_gamma, atol=1e-5)
    assert np.allclose(found[0]["total_grad_gamma"], whole.grad_gamma, atol=1e-5)
    assert len({each["running_var"].tobytes() for each in found}) == 1


def test_the_same_bits_for_any_number_of_processes(rng: np.random.Generator, tmp_path: Path) -> None:
    x, dy = rng.normal(100, 1, size=(2, 9, 3, 7))
    alone = SyncBatchNorm(3, lambda rows: rows[np.newaxis], dtype="f8", reproducible=True)
    expected = {"y": alone(x), "dx": alone.backward(dy), "running_var": alone.running_var}
    expected["total_grad_gamma"] = alone.total_grad_gamma
    for parts in ([9], [5, 4], [1, 0, 8], [2, 3, 1, 3]):
        found = over_gloo(tmp_path / str(parts), x, dy, parts, True)
        for name in ("y", "dx"):
            assert np.concatenate([each[name] for each in found]).tobytes() == expected[name].tobytes(), (name, parts)
        for name in ("running_var", "total_grad_gamma"):
            assert {each[name].tobytes() for each in found} == {expected[name].tobytes()}, (name, parts)
