# SPDX-License-Identifier: Apache-2.0
"""The arrays in files of models: HDF5, Keras's archive, PyTorch's and ONNX.

Each is read by its own package. Nothing that a file holds is executed, no other file is opened because one says so, and
what a file claims is compared with its size before memory is asked for.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .._core.arrays import kind_of
from .._core.layout import BITS, code_of
from .._core.tensors import bfloat16, detached

Arrays = dict[str, NDArray[Any]]

PACKAGES = {".h5": "h5py", ".keras": "h5py", ".onnx": "onnx", ".pt": "torch", ".pth": "torch"}

# HDF5's own filters and h5py's: others are libraries that it would look for and load.
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_WEIGHTS = "model.weights.h5"
_PACKED = 1100  # deflate packs at most 1032 bytes into one
# Before it, weights_only could be made to execute what a file held (CVE-2025-32434).
_SAFE_TORCH = (2, 6)
_REMEDY = "save model.state_dict() in place of the model"


def package_of(suffix: str, path: os.PathLike[str]) -> Any:
    """The package that reads files of this suffix, or an ImportError."""
    name = PACKAGES[suffix]
    try:
        package = importlib.import_module(name)
    except ImportError:
        raise ImportError(f"{path} needs the package {name}, which is not installed") from None
    if name == "torch":
        version = tuple(int(part) for part in package.__version__.split("+")[0].split(".")[:2])
        if version < _SAFE_TORCH:
            raise ImportError(f"{path} needs torch 2.6 or later, but {package.__version__} is installed")
    return package


def read(file: IO[bytes], suffix: str, package: Any) -> Arrays:
    """The arrays of an open file, by name."""
    if suffix == ".keras":
        return _of_keras(file, package)
    return {".h5": _of_hdf5, ".onnx": _of_onnx}.get(suffix, _of_torch)(file, package)


def _size(file: IO[bytes]) -> int:
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size


def _of_keras(file: IO[bytes], h5py: Any) -> Arrays:
    with zipfile.ZipFile(file) as archive:
        if _WEIGHTS not in archive.namelist():
            raise ValueError(f"it has no {_WEIGHTS}")
        with archive.open(_WEIGHTS) as weights:
            return _within(io.BytesIO(weights.read()), _size(file), h5py)


def _of_hdf5(file: IO[bytes], h5py: Any) -> Arrays:
    return _within(file, _size(file), h5py)


def _within(file: IO[bytes], size: int, h5py: Any) -> Arrays:
    """The arrays of HDF5 in a file of this size, which may be another one, where it is packed."""
    arrays: Arrays = {}
    left = _size(file)
    most = _PACKED * size + 1000
    with h5py.File(file, "r") as root:
        seen = {h5py.h5o.get_info(root.id).addr}
        groups = [("", root)]
        while groups:
            above, group = groups.pop()
            for name in group:
                key = above + name
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{key} is a link to elsewhere")
                item = group[name]
                address = h5py.h5o.get_info(item.id).addr
                if address in seen:
                    raise ValueError(f"{key} is there under another name, too")
                seen.add(address)
                if isinstance(item, h5py.Group):
                    groups.append((key + "/", item))
                    continue
                left -= _checked(item, key, h5py)
                if left < 0:
                    raise ValueError(f"{key} and what is before it claim more bytes than the file has")
                most -= item.size * item.dtype.itemsize
                if most < 0:
                    raise ValueError(f"{key} and what is before it are packed twice: {_PACKED} times what the file is")
                arrays[key] = _typed(np.asarray(item[()]), key)
    return dict(sorted(arrays.items()))


def _checked(item: Any, key: str, h5py: Any) -> int:
    """The number of bytes that a dataset takes in the file; an error if it is no array, or one in another file."""
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        raise ValueError(f"{key} is no array")
    if item.dtype.kind not in "fiubc" and item.dtype != BITS:
        raise ValueError(f"{key} is of dtype {item.dtype}, expected numbers")
    if item.is_virtual or item.external:
        raise ValueError(f"{key} has its numbers in another file")
    properties = item.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code = properties.get_filter(index)[0]
        if code not in _FILTERS:
            raise ValueError(f"{key} is packed by filter {code}, expected one of {', '.join(_FILTERS.values())}")
    stored: int = item.id.get_storage_size()
    if item.size * item.dtype.itemsize > _PACKED * stored + 1000:
        raise ValueError(f"{key} claims shape {item.shape} of {item.dtype}, but has {stored} bytes in the file")
    return stored


def _of_torch(file: IO[bytes], torch: Any) -> Arrays:
    size = _size(file)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if "/code/__torch__" in entry.filename:
                    raise ValueError(f"it is a program of TorchScript: {_REMEDY}")
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{entry.filename} is packed, as torch.save() does not do")
    file.seek(0)
    state = _loaded(file, torch)
    if not isinstance(state, Mapping):
        raise ValueError(f"it holds an object of type {kind_of(state)}, expected a dict of names to tensors")
    arrays: Arrays = {}
    left = size
    for visits, (key, value) in enumerate(_leaves(state, "", ())):
        if visits > size:
            raise ValueError("it names its tensors more often than it has bytes")
        if not isinstance(value, torch.Tensor):
            continue
        if key in arrays:
            raise ValueError(f"{key} is there twice")
        claimed, there = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        if claimed > there:
            raise ValueError(f"{key} claims shape {tuple(value.shape)} of {value.dtype}, but there are {there} bytes")
        left -= 0 if value.is_contiguous() else claimed
        if left < 0:
            raise ValueError(f"{key} and what is before it claim more bytes than the file has")
        arrays[key] = np.asarray(detached(value, key), order="C")
    return arrays


def _loaded(file: IO[bytes], torch: Any) -> Any:
    """torch.load(), with short messages: its own fill a page, and advise to let the file run any code."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise ValueError("it is damaged, or holds more than weights_only=True reads") from error
        raise ValueError(f"it holds {named[1]}, which weights_only=True does not read: {_REMEDY}") from error
    except (LookupError, EOFError) as error:
        raise ValueError("it is no file of torch.save(), or is damaged") from error


def _leaves(state: Mapping[Any, Any], above: str, within: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """The values of a checkpoint with their paths. Mappings count as well, so that whoever counts sees an end."""
    if id(state) in within or len(within) > 100:
        raise ValueError(f"{above} is nested without end, or too deeply")
    for own, value in state.items():
        key = f"{above}{own}"
        if isinstance(value, Mapping):
            yield key, None
            yield from _leaves(value, key + ".", (*within, id(state)))
        else:
            yield key, value


def _of_onnx(file: IO[bytes], onnx: Any) -> Arrays:
    helper = importlib.import_module("onnx.numpy_helper")
    arrays: Arrays = {}
    for tensor in onnx.load_model_from_string(file.read()).graph.initializer:
        key = tensor.name
        if not isinstance(key, str):  # protobuf hands on what it cannot decode
            raise ValueError(f"the name {key!r} is not in UTF-8")
        if key in arrays:
            raise ValueError(f"{key} is there twice")
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(f"{key} has its numbers in another file")
        if min(tensor.dims, default=0) < 0:
            raise ValueError(f"{key} has shape {tuple(tensor.dims)}")
        try:
            array = helper.to_array(tensor)
        except Exception as error:
            raise ValueError(f"{key}: {error}") from error
        if array.dtype.kind not in "fiubc" and code_of(array.dtype) is None:
            raise ValueError(f"{key} is of dtype {array.dtype}, expected numbers")
        arrays[key] = np.array(array, order="C")
    return arrays


def _typed(array: NDArray[Any], key: str) -> NDArray[Any]:
    """Bits of bfloat16 as what they are."""
    return array.view(bfloat16(key)) if array.dtype == BITS else array
