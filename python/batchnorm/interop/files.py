# SPDX-License-Identifier: Apache-2.0
"""States in files: NumPy's .npz, .safetensors, which frameworks exchange, and the frameworks' own formats."""

from __future__ import annotations

import importlib
import operator
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core.arrays import kind_of
from .._core.layout import BITS
from .._core.tensors import detached
from . import model_files
from .npz import Arrays, is_bfloat16, read_npz, typed, write_npz

PathLike = Union[str, "os.PathLike[str]"]

_LONGEST = 1000  # characters of a message
_OWN = ".npz", ".safetensors"  # which can be written as well

# safetensors' names of what it and NumPy both know; its bytes are little-endian.
_SAFETENSORS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BITS,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
    "C64": np.dtype("<c8"),
}


def read_state(path: PathLike) -> Arrays:
    """The arrays of a file, by name.

    Nothing that a file holds is executed, no other file is opened because one says so, and no more memory is filled
    than its data fill, which may be a thousand times as much as the file, if it was well packed.

    Parameters
    ----------
    path : str or path
        Whose suffix says what it is, and which package reads it:

        ======================  ===========  ====================================================================
        suffix                  package      names
        ======================  ===========  ====================================================================
        .npz                    NumPy        in the order that they were written in
        .safetensors            safetensors  sorted
        .h5, .weights.h5        h5py         of groups and datasets, joined by "/", sorted: "bn1/bn1/gamma:0"
        .keras                  h5py         as of the .weights.h5 that is in it: "layers/bn1/vars/0"
        .pt, .pth               torch, 2.6   of dictionaries, joined by "."; what is no tensor is passed over
        .onnx                   onnx         of the graph's initializers
        ======================  ===========  ====================================================================

        Elements of bfloat16 need ml_dtypes; in .npz and .h5 they are those of two bytes without a type.

    Raises
    ------
    ValueError
        The suffix is another; the file is not what its suffix says, is damaged, has a name twice, has its numbers in
        another file, claims more of them than it has, or, but for .pt and .pth, has something else than arrays of
        numbers.
    OSError
        The file cannot be read.
    ImportError
        The package is not installed, or older.

    Examples
    --------
    >>> import os, tempfile
    >>> import batchnorm as bn
    >>> path = os.path.join(tempfile.mkdtemp(), "layer.npz")
    >>> bn.write_state(path, bn.BatchNorm(2).state_dict())
    >>> print(bn.read_state(path)["running_var"])
    [1. 1.]
    """
    path = Path(_text(path))
    suffix = _suffix(path, (*_OWN, *model_files.PACKAGES))
    package = None
    if suffix in model_files.PACKAGES:
        package = model_files.package_of(suffix, path)
    elif suffix == ".safetensors":
        package = _safetensors(path)
    with path.open("rb") as file:
        try:
            if package is None:
                return read_npz(file)
            if suffix == ".safetensors":
                return _unpacked(package.deserialize(file.read()))
            return model_files.read(file, suffix, package)
        except MemoryError:
            raise
        except Exception as error:
            said = str(error)  # with names that the file has, which may be what they like
            said = said if len(said) < _LONGEST else said[:_LONGEST] + " ..."
            raise ValueError(f"{path} cannot be read as {suffix}: {said}") from error


def write_state(path: PathLike, arrays: Mapping[str, ArrayLike]) -> None:
    """Writes arrays into a file, all of them or, after an error, none: an older file is replaced at the end or stays.

    Equal arrays give equal files.

    Parameters
    ----------
    path : str or path
        .npz, or .safetensors, for which the package safetensors is needed.
    arrays : mapping of str to array_like
        Numbers of any dtype that the format has: what state_dict() gives, or to_state().arrays.

    Raises
    ------
    ValueError
        The suffix is another, or a name is one that the format cannot have.
    TypeError
        A name is no text, or an array is not of numbers.
    OSError
        The file cannot be written.
    ImportError
        safetensors is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import batchnorm as bn
    >>> path = os.path.join(tempfile.mkdtemp(), "layers.npz")
    >>> arrays = {f"bn{i}.{key}": array for i in (1, 2) for key, array in bn.BatchNorm(i).state_dict().items()}
    >>> bn.write_state(path, arrays)
    >>> print(bn.from_state(bn.read_state(path), "pytorch", prefix="bn2"))
    BatchNorm(2, axis=1, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
    """
    suffix = _suffix(Path(_text(path)), _OWN)
    # A link stays a link, to the new file.
    path = Path(os.path.realpath(path))
    save = None
    if suffix == ".safetensors":
        _safetensors(path)
        save = importlib.import_module("safetensors.numpy").save
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays is of type {kind_of(arrays)}, expected a mapping of names to arrays")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}")
    checked = {_name(key, suffix): _numbers(value, key, suffix) for key, value in arrays.items()}
    beside = path.with_name(f".{secrets.token_hex(8)}{suffix}")
    try:
        with beside.open("xb") as file:
            if save is None:
                write_npz(file, checked)
            else:
                file.write(save(checked))
            file.flush()
            os.fsync(file.fileno())
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _text(path: Any) -> str:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"path is of type {kind_of(path)}, expected a text or a pathlib.Path")
    return os.fspath(path)


def _suffix(path: Path, known: tuple[str, ...]) -> str:
    if path.suffix not in known:
        raise ValueError(f"{path} has suffix {path.suffix!r}, expected {' or '.join(map(repr, known))}")
    return path.suffix


def _safetensors(path: Path) -> Any:
    try:
        return importlib.import_module("safetensors")
    except ImportError:
        raise ImportError(f"{path} needs the package safetensors, which is not installed") from None


def _unpacked(tensors: list[tuple[str, dict[str, Any]]]) -> Arrays:
    arrays = {}
    # In an order that the file decides, as the package gives them in any.
    for key, tensor in sorted(tensors, key=operator.itemgetter(0)):
        if tensor["dtype"] not in _SAFETENSORS:
            raise ValueError(f"{key} is of {tensor['dtype']}, which NumPy does not have")
        array = np.frombuffer(tensor["data"], _SAFETENSORS[tensor["dtype"]])
        arrays[key] = typed(array.reshape(tensor["shape"]), key)
    return arrays


def _name(key: Any, suffix: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is of type {type(key).__name__}, expected a text")
    try:
        long = len(key.encode()) > 60_000
    except UnicodeEncodeError:
        raise ValueError(f"the key {key!r} is no valid text") from None
    if not key or "\0" in key or long or (suffix, key) == (".safetensors", "__metadata__"):
        raise ValueError(f"the key {key[:80]!r} cannot be the name of an array in {suffix}")
    return key


def _numbers(value: ArrayLike, key: str, suffix: str) -> NDArray[Any]:
    array = np.asarray(detached(value, key), order="C")
    if array.dtype.kind not in "fiubc" and not is_bfloat16(array):
        raise TypeError(f"{key} has dtype {array.dtype}, expected numbers")
    if suffix == ".safetensors":
        array = typed(array, key)
        if not is_bfloat16(array) and array.dtype.newbyteorder("<") not in _SAFETENSORS.values():
            raise TypeError(f"{key} has dtype {array.dtype}, which .safetensors does not have")
    return array
