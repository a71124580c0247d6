# SPDX-License-Identifier: Apache-2.0
"""Ways for processes to give each other small arrays: each gives its own, and has those of all, in their order.

An all-gather, not a sum: moments have to be merged, and the order of the merge is the same on every process, so that
all of them have the same bits.
"""

from __future__ import annotations

import importlib
from typing import Any, Callable

import numpy as np

from .._core.arrays import Doubles

# From an array of shape (k, channels) to one of shape (processes, k, channels), the same on all processes.
Exchange = Callable[[Doubles], Doubles]


def exchange_mpi(communicator: Any) -> Exchange:
    """An exchange over the processes of an MPI communicator.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
        Of the package mpi4py, such as ``MPI.COMM_WORLD``.

    Returns
    -------
    callable
        For SyncBatchNorm.
    """

    def exchange(rows: Doubles) -> Doubles:
        gathered = np.empty((communicator.Get_size(), *rows.shape))
        communicator.Allgather(rows, gathered)
        return gathered

    return exchange


def exchange_torch(group: Any = None) -> Exchange:
    """An exchange over the processes of torch.distributed, whose backend is gloo or another one for the CPU.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, optional
        None stands for all processes.

    Returns
    -------
    callable
        For SyncBatchNorm.
    """
    torch: Any = importlib.import_module("torch")
    distributed: Any = importlib.import_module("torch.distributed")
    is_newer = hasattr(distributed, "all_gather_single")
    gather = distributed.all_gather_single if is_newer else distributed.all_gather_into_tensor

    def exchange(rows: Doubles) -> Doubles:
        size = distributed.get_world_size(group)
        gathered = torch.empty(size * rows.size, dtype=torch.float64)  # flat: gloo takes no other shape for its output
        gather(gathered, torch.from_numpy(rows.reshape(-1)), group=group)
        result: Doubles = gathered.numpy().reshape(size, *rows.shape)
        return result

    return exchange
