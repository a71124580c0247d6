# SPDX-License-Identifier: Apache-2.0
"""The operators of the package batchnorm-torch, if it is installed: C++ around the library's calls, not Python."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import torch

from .. import _version
from .._core.library import lib

# The functions that the operators call, in the order in which they take their addresses.
_CALLED = "bn_forward_training", "bn_backward", "bn_shape_from_strides", "bn_last_error", "bn_set_parallel_for"


def load() -> bool:
    """True if there are operators, which from then on are torch.ops.batchnorm; ImportError if they cannot be used."""
    if os.environ.get("BATCHNORM_TORCH_OPERATORS") == "0":
        return False
    try:
        import batchnorm_torch
    except ImportError:
        return False
    try:
        library = ctypes.CDLL(batchnorm_torch.LIBRARY)
    except OSError as error:
        raise ImportError(f"batchnorm-torch could not be loaded: {error}") from error
    library.batchnorm_torch_version.restype = ctypes.c_char_p
    version = library.batchnorm_torch_version().decode()
    if version != _version.__version__:
        raise ImportError(
            f"batchnorm-torch {version} is of another version than batchnorm {_version.__version__}: install "
            f"batchnorm-torch=={_version.__version__}, or remove it"
        )
    library.batchnorm_torch_connect((ctypes.c_void_p * len(_CALLED))(*map(_address, _CALLED)))
    return True


def _address(name: str) -> int | None:
    return ctypes.cast(getattr(lib, name), ctypes.c_void_p).value


THERE = load()


def found(name: str) -> Any:
    """The operator, without what PyTorch wraps around it in Python; None if there is none."""
    return getattr(torch.ops.batchnorm, name).default._op if THERE else None
