# SPDX-License-Identifier: Apache-2.0
"""PyTorch, of a version that this package works with."""

from __future__ import annotations

from .._core import built_ins

OLDEST = (2, 10)


def check(version: str) -> None:
    """ImportError if this is the version of a PyTorch that is too old."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < OLDEST:
        least = ".".join(map(str, OLDEST))
        raise ImportError(f"batchnorm.torch works with PyTorch {least} and newer, but this is {version}")


try:
    import torch
except ImportError as error:
    raise ImportError(f"batchnorm.torch needs PyTorch, which cannot be imported: {error}") from error

check(torch.__version__)


def know() -> None:
    """Has the library's built-in functions take tensors from the first call on."""
    built_ins.know_torch(torch)
