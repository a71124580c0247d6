# SPDX-License-Identifier: Apache-2.0
"""Batch normalization over several processes, each of which has a part of the batch.

The processes normalize with the statistics of the whole batch. They exchange three numbers per channel in the forward
pass and two in the backward pass, in float64; the values themselves stay where they are.
"""

from .exchanges import Exchange, exchange_mpi, exchange_torch
from .layer import SyncBatchNorm

SyncBatchNorm.__module__ = __name__  # by which a pickle finds it

__all__ = ["Exchange", "SyncBatchNorm", "exchange_mpi", "exchange_torch"]
