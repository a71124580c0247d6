# SPDX-License-Identifier: Apache-2.0
"""A step of a SyncBatchNorm over the processes of MPI, each of which has some of the samples, by the package mpi4py.

The first of several processes has none. Each compares its results with those of a layer that has the whole batch.
"""

import sys

import numpy as np
from batchnorm.distributed import SyncBatchNorm, exchange_mpi
from mpi4py import MPI

everybody = MPI.COMM_WORLD
rank, size = everybody.Get_rank(), everybody.Get_size()
rng = np.random.default_rng(20150211)
x, dy = rng.normal(1000, 3, size=(30, 5, 7, 7)), rng.normal(size=(30, 5, 7, 7))
border = [(r / size) ** 3 * len(x) for r in range(size + 1)]
own = slice(int(border[rank]), int(border[rank + 1]))


def results(communicator: MPI.Comm, samples: slice, reproducible: bool) -> list:
    layer = SyncBatchNorm(5, exchange_mpi(communicator), dtype=np.float64, reproducible=reproducible)
    y, dx = layer(x[samples]), layer.backward(dy[samples])
    return [y, dx, layer.running_var, layer.total_grad_gamma]


def of_own(y, dx, *others):
    return [y[own], dx[own], *others]


for reproducible in (False, True):
    ours = results(everybody, own, reproducible)
    alone = of_own(*results(MPI.COMM_SELF, slice(None), reproducible))
    is_close = all(np.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(ours, alone))
    is_same = all(a.tobytes() == b.tobytes() for a, b in zip(ours, alone))
    if not everybody.allreduce(is_same if reproducible else is_close, MPI.LAND):
        sys.exit(f"{size} processes, reproducible={reproducible}: other results than one process has")
if rank == 0:
    print(f"{size} processes, {MPI.get_vendor()[0]}, mpi4py: close to one process, and with reproducible=True its bits")
