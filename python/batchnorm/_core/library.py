# SPDX-License-Identifier: Apache-2.0
"""The bridge to libbatchnorm: find, load, check the version, declare the functions, turn statuses into exceptions.

Nothing else in the package knows how the library is called. ``Include/batchnorm.h`` is what this file and `structs`
repeat, in the same order; a test holds them together.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_void_p
from os.path import dirname, isfile, join, realpath  # pathlib would take half as long as all the rest here
from typing import Any

from .._version import __version__
from .messages import in_python
from .structs import Options, Shape, Status
from .threadpools import register

# Elements, be they void or double in the header, go by address: an int is the cheapest argument that ctypes takes.
_data = c_void_p
_shape = POINTER(Shape)
_options = POINTER(Options)
_enum = c_int


def check(status: int) -> None:
    """Raises the exception for a status other than ``BN_OK``, with the library's message in Python's words."""
    if status:
        raise _EXCEPTIONS.get(status, ValueError)(last_error())


# name: (restype, argtypes), in the order of the header. ctypes hands the result to a restype that is a function.
PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "bn_forward_training": (check, [_shape, _enum, *[_data] * 8, _options]),
    "bn_forward_inference": (check, [_shape, _enum, *[_data] * 8, _options]),
    "bn_backward": (check, [_shape, _enum, *[_data] * 9, _options]),
    "bn_moments": (check, [_shape, _enum, *[_data] * 4, c_size_t, _options]),
    "bn_merge_moments": (check, [c_size_t, c_size_t, *[_data] * 3, c_size_t, *[_data] * 3]),
    "bn_inverse_std": (check, [c_size_t, *[_data] * 3, _options]),
    "bn_normalize": (check, [_shape, _enum, *[_data] * 6, _options]),
    "bn_backward_reduce": (check, [_shape, _enum, *[_data] * 6, c_size_t, _options]),
    "bn_backward_apply": (check, [_shape, _enum, *[_data] * 9, _options]),
    "bn_update_running": (check, [c_size_t, _enum, *[_data] * 5, _options]),
    "bn_length_weights": (check, [c_size_t, c_size_t, _data, _enum, _data]),
    "bn_jvp": (check, [_shape, _enum, *[_data] * 8, _options]),
    "bn_double_backward": (check, [_shape, _enum, *[_data] * 11, _options]),
    "bn_scale_shift": (check, [c_size_t, _enum, *[_data] * 6, _options]),
    "bn_fold_into_previous": (check, [_shape, _enum, *[_data] * 6]),
    "bn_fold_into_next": (check, [_shape, _enum, *[_data] * 6]),
    "bn_shape_from_strides": (check, [c_size_t, _data, *[c_size_t] * 3, _data, c_int, _shape, _data]),
    "bn_version": (c_int, []),
    "bn_status_string": (c_char_p, [_enum]),
    "bn_last_error": (c_char_p, []),
    "bn_isa_name": (c_char_p, []),
    "bn_set_num_threads": (check, [c_int]),
    "bn_get_num_threads": (c_int, []),
    "bn_set_parallel_for": (check, [_data, _data]),
}


def find_library() -> str:
    """The first of the places where the library may be that holds a file."""
    chosen = os.environ.get("BATCHNORM_LIBRARY")
    if chosen:
        # A library of the user's own: this one or none, so that a typing error does not load another silently.
        candidates = [chosen]
    else:
        package = dirname(dirname(realpath(__file__)))
        checkout = dirname(dirname(package))
        candidates = [
            # An installed package: the wheel carries the library inside it.
            join(package, "libbatchnorm.so"),
            # A checkout, used in place or by an editable install: where `swift build -c release` leaves it.
            join(checkout, ".build", "release", "libbatchnorm.so"),
        ]
    for candidate in candidates:
        if isfile(candidate):
            return candidate
    tried = "".join(f"\n    {candidate}" for candidate in candidates)
    origin = " (from BATCHNORM_LIBRARY)" if chosen else ""
    raise ImportError(f"libbatchnorm.so was not found{_advice(candidates[-1])}. Tried{origin}:{tried}")


def _advice(built: str) -> str:
    """Advice for a checkout, in which a build leaves the library in .build/release."""
    checkout = dirname(dirname(dirname(built)))
    return f": `make lib` in {checkout} builds it" if isfile(join(checkout, "Package.swift")) else ""


def load_library(path: str) -> ctypes.CDLL:
    """Loads `path`, with every function declared, if it is a libbatchnorm that this package can use."""
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"{path} could not be loaded: {error}") from error
    _declare(library, "bn_version", path)
    number = int(library.bn_version())
    major, minor, patch = number // 10000, number // 100 % 100, number % 100
    wanted_major, wanted_minor = (int(part) for part in __version__.split(".")[:2])
    if major != wanted_major or minor < wanted_minor:
        raise ImportError(
            f"batchnorm {__version__} needs libbatchnorm {wanted_major}.{wanted_minor} or a later {wanted_major}.x, "
            f"but {path} is {major}.{minor}.{patch}"
        )
    for name in PROTOTYPES:
        _declare(library, name, path)
    return library


def _declare(library: ctypes.CDLL, name: str, path: str) -> None:
    try:
        function = getattr(library, name)
    except AttributeError:
        raise ImportError(f"{path} is not libbatchnorm: it does not export {name}") from None
    function.restype, function.argtypes = PROTOTYPES[name]


def last_error() -> str:
    """The message of the last call that failed on this thread."""
    message: bytes = lib.bn_last_error()
    return in_python(message.decode("utf-8", "replace"))


# Every other status is about the value of an argument.
_EXCEPTIONS: dict[int, type[Exception]] = {
    Status.ERROR_DTYPE: TypeError,
    Status.ERROR_MEMORY: MemoryError,
    Status.ERROR_ENVIRONMENT: RuntimeError,
    Status.ERROR_NESTED: RuntimeError,
}

lib = load_library(find_library())
register(lib)
