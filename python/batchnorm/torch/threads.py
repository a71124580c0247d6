# SPDX-License-Identifier: Apache-2.0
"""The library's number of threads, which is PyTorch's in the calls of this package."""

from __future__ import annotations

import os
import threading

import torch

from .._core.threads import set_num_threads

_MOST = 1024
_followed = 0
_one_at_a_time = threading.Lock()  # so that what was followed is what was set


def follow() -> None:
    """Takes PyTorch's number, if it is another than at the last call; one look at it takes less than 0.1 µs.

    PyTorch may have another one in each thread of Python, as in a worker of a DataLoader, where it is 1.
    """
    if torch.get_num_threads() != _followed:
        _set()


def _set() -> None:
    global _followed
    with _one_at_a_time:
        number = torch.get_num_threads()
        if not os.environ.get("BATCHNORM_NUM_THREADS"):
            set_num_threads(min(number, _MOST))
        _followed = number
