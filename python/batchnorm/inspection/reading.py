# SPDX-License-Identifier: Apache-2.0
"""The batch norms of a file of whatever format."""

from __future__ import annotations

import os
from pathlib import Path

from .norm import Norm

SUFFIXES = ".onnx", ".safetensors", ".npz", ".h5", ".keras", ".pt", ".pth"


def read_norms(path: str | os.PathLike[str]) -> list[Norm]:
    """Every batch norm of a model or state, in the order of the file.

    Nothing that a file holds is executed: .pt and .pth are read by torch.load(weights_only=True).

    Parameters
    ----------
    path : str or path
        Whose suffix says what it is: .onnx (needs onnx), .safetensors (safetensors), .npz, .h5 and .keras (h5py), .pt
        and .pth (torch 2.6 or later).

    Returns
    -------
    list of Norm
        Empty for a model without batch norm.

    Raises
    ------
    ValueError
        It is not what its suffix says, is damaged, or has its numbers in another file that is missing.
    OSError
        It cannot be read.
    ImportError
        The package for it is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import batchnorm as bn
    >>> from batchnorm.inspection import read_norms
    >>> path = os.path.join(tempfile.mkdtemp(), "state.npz")
    >>> bn.write_state(path, {f"layer1.{key}": value for key, value in bn.BatchNorm(3).state_dict().items()})
    >>> [(norm.name, norm.framework, norm.channels) for norm in read_norms(path)]
    [('layer1', 'pytorch', 3)]
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} has suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file")
    if path.suffix == ".onnx":
        from .of_onnx import norms_of_onnx

        return norms_of_onnx(path)
    if path.exists() and not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    from ..interop.files import read_state
    from .of_keras import norms_of_keras
    from .of_state import norms_of

    arrays = read_state(path)
    return norms_of_keras(path, arrays) if path.suffix in (".h5", ".keras") else norms_of(arrays)
