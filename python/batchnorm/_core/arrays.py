# SPDX-License-Identifier: Apache-2.0
"""Arrays that the package takes, and their addresses.

The functions here see to what the library cannot: types, dtypes, lengths, and whether an array may be written.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import addressof
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike, NDArray

from .foreign import is_foreign, view
from .layout import BITS, NAMES, Plan, code_of

Array = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

# A C array of no bytes at the first element of an array: addressof() of it takes 0.15 µs, or 0.3 the first time that an
# array is asked, against 0.7 and 1 of __array_interface__ and array.ctypes. It succeeds only with an array that is
# writeable and C-contiguous, so that these need no check of their own then; else it is a REFUSAL.
at: Callable[[NDArray[Any]], ctypes.Array[ctypes.c_char]] = (ctypes.c_char * 0).from_buffer  # type: ignore[assignment]
REFUSAL = (TypeError, ValueError)


def address(array: NDArray[Any]) -> int:
    """The address of the first element."""
    try:
        return addressof(at(array))
    except REFUSAL:
        return address_of_any(array)


def address_of_any(array: NDArray[Any]) -> int:
    """As address(), for arrays whose memory it cannot take the fast way: to try takes 0.3 µs."""
    return int(array.__array_interface__["data"][0])


def tensor(value: ArrayLike, name: str) -> Array:
    """`value` as a plain array of a dtype that the library knows."""
    array = plain(value, name)
    if isinstance(value, (list, tuple)) and array.dtype.kind in "iu":
        array = array.astype(np.float64)  # as a list of floats is
    if code_of(array.dtype) is None:
        native = code_of(array.dtype.newbyteorder("=")) is not None
        expected = "the byte order of this machine" if native else f"{NAMES} (see numpy.ndarray.astype)"
        if array.dtype == np.uint16:
            expected += "; bits of bfloat16 numbers are those of array.view(ml_dtypes.bfloat16), or of array.view('V2')"
        raise TypeError(f"{name} has dtype {array.dtype}, expected {expected}")
    if array.ndim == 0:
        raise ValueError(f"{name} is a single number, expected an array with a channel axis")
    return array


def plain(value: ArrayLike, name: str) -> NDArray[Any]:
    """`value` without what a subclass adds; a masked array is refused, because its mask would be lost."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array of dtype {value.dtype}, expected an array without a mask")
    if value is None:
        raise TypeError(f"{name} is None, expected an array")
    if is_foreign(value):
        return view(value, name)
    if _is_in_blocks(value):
        raise TypeError(
            f"{name} is of type {kind_of(value)}, and all its blocks would have to be in memory at once: give "
            f"{name}.compute() if they fit, else call this for each block (and add up moments of blocks with sum())"
        )
    try:
        return np.asarray(value)
    except (RuntimeError, TypeError) as error:  # a tensor with a gradient, or of bfloat16
        raise TypeError(f"{name} is of type {kind_of(value)}, which is no array to NumPy: {error}") from error


def _is_in_blocks(value: Any) -> bool:
    """True of a collection of Dask (or a package's array that is over one), whose values are yet to be computed."""
    graph = getattr(type(value), "__dask_graph__", None)
    return graph is not None and graph(value) is not None


def shape_of(value: Any, name: str) -> tuple[int, ...]:
    """That of anything that plain() takes; nothing but a list is converted for it."""
    shape = getattr(value, "shape", None)
    return tuple(shape) if shape is not None else plain(value, name).shape


def kind_of(value: Any) -> str:
    """The name of its type, with its module, as other packages have classes of the same name."""
    kind = type(value)
    is_own = kind.__module__.partition(".")[0] in ("builtins", __package__.partition(".")[0])
    return kind.__qualname__ if is_own else f"{kind.__module__}.{kind.__qualname__}"


def is_array(value: Any) -> bool:
    """True of an array that can be written in place: also of memory maps, and of all subclasses but masked arrays."""
    return isinstance(value, ndarray) and not isinstance(value, np.ma.MaskedArray)


def output(value: Any, name: str, like: Array) -> Any:
    """`value`, if it can take a result shaped like `like`; it is never replaced or copied."""
    if is_foreign(value):
        value = view(value, name, to_write=True)
    elif isinstance(value, memoryview):
        value = np.asarray(value)
    if not is_array(value):
        raise TypeError(f"{name} is of type {type(value).__name__}, expected numpy.ndarray")
    if value.dtype != like.dtype:
        raise TypeError(f"{name} has dtype {value.dtype}, expected {like.dtype}")
    if value.shape != like.shape:
        raise ValueError(f"{name} has shape {value.shape}, expected {like.shape}")
    if not value.flags.writeable:
        raise ValueError(f"{name} is read-only")
    if not value.flags.aligned:
        raise ValueError(f"{name} is misaligned: its elements do not start at multiples of their size")
    return value


def parameter(value: ArrayLike | None, name: str, plan: Plan) -> tuple[Any, int | None]:
    """An array of one element per channel that a call reads, and its address; cast where it has another dtype.

    A scattered or misaligned array is copied.
    """
    if type(value) is ndarray and value.dtype == plan.param and value.shape == plan.channel_shape:
        try:
            found = addressof(at(value))
            if not found & plan.misaligned:
                return value, found
        except REFUSAL:
            pass  # read-only, or not contiguous
    if value is None:
        return None, None
    value = numbers(value, name, plan.param)
    _check_shape(value, name, plan)
    value = np.require(value, requirements=["C", "A"])
    return value, address(value)


def numbers(value: ArrayLike, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Real numbers as an array of this dtype: the same array if it has it. A cast alone would parse texts as well."""
    array = plain(value, name)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "fiu" and code_of(array.dtype) is None:
        raise TypeError(f"{name} has dtype {array.dtype}, expected real numbers")
    if array.dtype == BITS:
        array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        result: NDArray[Any] = array.astype(dtype)
    if not np.isfinite(result).all() and np.isfinite(array).all():
        beyond = array[~np.isfinite(result)][0]
        raise ValueError(f"{name} has a value {beyond}, which is beyond {dtype}")
    return result


def of_layer(value: ArrayLike, name: str, dtype: np.dtype[Any]) -> ArrayLike:
    """A tensor as a layer takes it: lists and integers, which have no floating-point dtype, get the layer's.

    An array of uint16 stays as it is beside 16-bit layers: it may be bits of bfloat16, and tensor() says what to write.
    """
    if isinstance(value, (list, tuple)):
        array = plain(value, name)
        return numbers(array, name, dtype) if array.dtype.kind in "fiu" else array
    if is_foreign(value):
        value = view(value, name)
    kind = getattr(value, "dtype", None)
    if not isinstance(kind, np.dtype) or kind.kind not in "iu" or (kind == np.uint16 and dtype.itemsize == 2):
        return value
    return numbers(value, name, dtype) if not isinstance(value, np.ma.MaskedArray) else value


def running(value: Any, name: str, plan: Plan, updated: bool = True, of: str = "x") -> int | None:
    """The address of running_mean or running_var, which has to be an array, since calls update it in place.

    Its dtype is that of the plan's parameters; `of` names the array that the plan has its dtype from.
    """
    if type(value) is ndarray and value.dtype == plan.param and value.shape == plan.channel_shape:
        try:
            return addressof(at(value))
        except REFUSAL:
            pass  # read-only, or not contiguous, which are errors
    if value is None:
        return None
    if isinstance(value, memoryview):
        value = np.asarray(value)
    if not is_array(value):
        raise TypeError(f"{name} is of type {type(value).__name__}, expected numpy.ndarray: it is updated in place")
    if value.dtype != plan.param:
        which = f"the dtype of {of}" if plan.param == plan.dtype else f"for {of} of dtype {plan.dtype}"
        raise TypeError(f"{name} has dtype {value.dtype}, expected {plan.param}, {which}: it is updated in place")
    _check_shape(value, name, plan)
    if not value.flags.c_contiguous:
        raise scattered(name, "it is updated in place")
    if updated and not value.flags.writeable:
        raise read_only(name)
    return address(value)


def read_only(name: str) -> ValueError:
    """For running statistics that were to be updated."""
    return ValueError(f"{name} is read-only, but it is updated in place")


def _check_shape(array: NDArray[Any], name: str, plan: Plan) -> None:
    if array.shape not in (plan.channel_shape, (plan.channels,)):
        raise ValueError(f"{name} has shape {array.shape}, expected {plan.channel_shape}: one element per channel")


def scattered(name: str, reason: str) -> ValueError:
    """For an array of which a copy would not do."""
    return ValueError(f"{name} is not contiguous: {reason}, so that a copy would not do")


def doubles(value: ArrayLike, name: str, shape: tuple[int, ...]) -> Doubles:
    """A statistic as the library takes it: float64, contiguous and aligned, one element per channel."""
    array = plain(value, name)
    if not np.can_cast(array.dtype, np.float64):
        raise TypeError(f"{name} has dtype {array.dtype}, expected float64")
    array = np.require(array, np.float64, ["C", "A"])  # an array that came in a message may lie anywhere
    if array.shape != shape and array.shape != (int(np.prod(shape)),):
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}: one element per channel")
    return array
