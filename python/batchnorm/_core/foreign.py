# SPDX-License-Identifier: Apache-2.0
"""Tensors of other packages, which speak DLPack: their memory as arrays, and results as tensors of the same kind.

Nothing is copied in either direction. A view keeps its tensor alive. Only tensors in the memory of the CPU are taken,
and only those are written to whose package allows it.
"""

from __future__ import annotations

import importlib
import sys
from functools import wraps
from typing import Any, Callable, TypeVar

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from . import built_ins, dlpack
from .layout import BITS

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


_TORCHS = {"cuda": 2, "vulkan": 7, "mps": 8, "xpu": 14}


class _Memory:
    """The memory of a tensor, for NumPy; `tensor` is what it is of, and `capsule` what keeps it."""

    def __init__(self, tensor: Any, capsule: Any, interface: dict[str, Any]) -> None:
        self.tensor, self.capsule, self.__array_interface__ = tensor, capsule, interface


def is_foreign(value: Any) -> bool:
    return hasattr(type(value), "__dlpack__") and not isinstance(value, (ndarray, np.generic))


def view(value: Any, name: str, to_write: bool = False) -> NDArray[Any]:
    """The memory of a foreign tensor as an array."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    device = _device(value)
    if device != dlpack.CPU:
        where = dlpack.DEVICES.get(device, f"type {device}")
        raise TypeError(f"{name} is on a device of {where}, expected memory of the CPU: copy it there first")
    given = value
    if _is_torchs(value):
        value = _of_torch(value, name, to_write)
    try:
        capsule, tensor, is_read_only = dlpack.opened(value)
    except MemoryError:
        raise
    except Exception as error:  # whatever another package has thought of
        raise TypeError(f"{name} is of type {kind}, whose memory it does not give: {error}") from error
    if to_write and is_read_only:
        raise TypeError(f"{name} is of type {kind}, which cannot be written, expected an array that can")
    if tensor.device != dlpack.CPU or (tensor.rank and not tensor.shape):
        raise TypeError(f"{name} is of type {kind}, whose capsule is of no tensor in memory of the CPU")
    dtype = _dtype(tensor)
    if dtype is None:
        raise TypeError(f"{name} has elements of {tensor.lanes} x {tensor.bits} bits of DLPack's type {tensor.code}")
    shape = tuple(tensor.shape[: tensor.rank])
    if 0 in shape:
        return np.asarray(_Memory(given, capsule, np.empty(shape, dtype).__array_interface__))
    if not tensor.data:
        raise TypeError(f"{name} is of type {kind}, whose memory was freed")
    strides = None
    if tensor.strides:
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides[: tensor.rank])
    place = tensor.data + tensor.offset
    interface = {"version": 3, "shape": shape, "strides": strides, "typestr": dtype.str, "data": (place, is_read_only)}
    found = np.asarray(_Memory(given, capsule, interface))
    return found if found.dtype == dtype else found.view(dtype)


def _device(value: Any) -> int:
    if _is_torchs(value):  # which torch.compile can follow
        return dlpack.CPU if value.device.type in ("cpu", "meta") else _TORCHS.get(value.device.type, -1)
    try:
        return int(value.__dlpack_device__()[0])
    except Exception:
        return dlpack.CPU  # whoever asks for the memory hears why it is not to be had


def _of_torch(value: Any, name: str, to_write: bool) -> Any:
    torch = sys.modules["torch"]
    built_ins.know_torch(torch)
    if _is_recorded(torch):
        raise TypeError(
            f"{name} is given while PyTorch records a graph, which cannot hold this call: call "
            "batchnorm.torch.functional.batch_norm() instead"
        )
    forward_ad = importlib.import_module("torch.autograd.forward_ad")
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(value).tangent is not None:
        raise TypeError(f"{name} has a tangent, which is not propagated here: give its primal, and call bn.jvp()")
    if value.requires_grad:
        if torch.is_grad_enabled():
            raise TypeError(
                f"{name} requires a gradient, which is not recorded here: give {name}.detach(), or call this under "
                "torch.no_grad()"
            )
        value = value.detach()
    if value.is_neg():
        if to_write:
            raise TypeError(f"{name} has its negative bit set, expected a tensor that can be written as it is")
        value = value.resolve_neg()
    if to_write:
        importlib.import_module("torch.autograd.graph").increment_version(value)
    return value


def _is_recorded(torch: Any) -> bool:
    """True within torch.jit.trace and make_fx. Modes that only count operators do not mind."""
    if torch._C._get_tracing_state() is not None:
        return True
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")
    return proxies is not None and proxies.get_proxy_mode() is not None


def _is_torchs(value: Any) -> bool:
    """True of all subclasses, too."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _dtype(tensor: dlpack.Tensor) -> np.dtype[Any] | None:
    if tensor.lanes != 1 or tensor.bits % 8:
        return None
    if tensor.code == dlpack.BFLOAT and tensor.bits == 16:
        known = sys.modules.get("ml_dtypes")
        return BITS if known is None else np.dtype(known.bfloat16)
    try:
        return np.dtype(f"{dlpack.LETTERS[tensor.code]}{tensor.bits // 8}")
    except (KeyError, TypeError):
        return None


def viewed(*written: str, **values: Any) -> list[Any]:
    """The values, with views of foreign tensors in their place."""
    return [view(value, name, name in written) if is_foreign(value) else value for name, value in values.items()]


def like(given: Any, result: Result, out: Any = None) -> Result:
    """A result as a tensor of the kind of what was given: the same memory. `out`, if it was given, is the result."""
    if out is not None:
        return out  # type: ignore[no-any-return]
    if type(given) is ndarray or not is_foreign(given):
        return result
    return _as_tensor(given, result)  # type: ignore[no-any-return]


def _as_tensor(given: Any, result: Any) -> Any:
    owner = result.base if type(result.base) is not ndarray else result.base.base
    if type(owner) is _Memory:
        return owner.tensor
    if _is_torchs(given):
        torch = importlib.import_module("torch")
        if result.dtype.kind == "V":
            return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(result)
    if not hasattr(given, "__array_namespace__"):
        return result
    if result.dtype == BITS:
        result = result.view(np.dtype(given.dtype))
    return given.__array_namespace__().asarray(result)


def in_own_kind(function: Function) -> Function:
    """The function with tensors as results, where its first argument is one."""

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        first = arguments[0] if arguments else named.get("dy", named.get("x"))
        if type(first) is ndarray or not is_foreign(first):
            return result
        out = named.get("out")
        return tuple(like(first, each) for each in result) if type(result) is tuple else like(first, result, out)

    return call  # type: ignore[return-value]
