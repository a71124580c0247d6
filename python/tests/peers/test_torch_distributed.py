# SPDX-License-Identifier: Apache-2.0
"""SyncBatchNorm over processes of torch.distributed, by gloo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import python

import batchnorm as bn

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
layer = SyncBatchNorm(3, exchange_torch())
y = layer(data["x"][own])
dx = layer.backward(data["dy"][own])
np.savez(f"{folder}/{rank}.npz", y=y, dx=dx, running_var=layer.running_var, grad_gamma=layer.grad_gamma)
distributed.barrier()
"""


@pytest.mark.parametrize("parts", [[6], [4, 2], [0, 3, 3]], ids=str)
def test_over_gloo(rng: np.random.Generator, tmp_path: Path, parts: list[int]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    x, dy = rng.normal(2, 1, size=(2, 6, 3, 4)).astype("f4")
    np.savez(tmp_path / "data.npz", x=x, dy=dy, parts=parts)
    size = len(parts)
    with ThreadPoolExecutor(size) as pool:
        done = list(pool.map(lambda rank: python(MEMBER, str(rank), str(size), str(tmp_path)), range(size)))
    found = [np.load(path) for path in sorted(tmp_path.glob("[0-9].npz"))]
    assert len(found) == size, [each.stderr for each in done]
    whole = bn.BatchNorm(3)
    assert np.allclose(np.concatenate([each["y"] for each in found]), whole(x), atol=1e-6)
    assert np.allclose(np.concatenate([each["dx"] for each in found]), whole.backward(dy), atol=1e-6)
    assert np.allclose(sum(each["grad_gamma"] for each in found), whole.grad_gamma, atol=1e-5)
    assert len({each["running_var"].tobytes() for each in found}) == 1
