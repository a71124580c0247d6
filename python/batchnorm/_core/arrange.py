# SPDX-License-Identifier: Apache-2.0
"""The tensors of a call in one memory order: tensors of another order are copied, and wrong ones are errors.

Groups need the samples outermost. A mask that a forward call wrote needs the order that its tensors had.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
from numpy import empty_like

from .arrays import Array, address, of_layer, output, tensor
from .layout import Axis, Extents, Plan, as_axis, channel_axes, extents, order_in_memory, plan
from .structs import Shape

Axes = tuple[int, ...]


class Order(NamedTuple):
    """The demands of a call on the memory order of its tensors."""

    axes: Axes
    samples_first: bool = False
    exactly: Axes | None = None  # the axes of more than one element, outermost first


class CallTensors(NamedTuple):
    """Tensors that go to the library in one call, by name, with the facts that it asks for."""

    fit: Plan
    arrays: dict[str, Array]
    strides: dict[str, int]

    def address(self, name: str) -> int | None:
        return address(self.arrays[name]) if name in self.arrays else None

    def order(self) -> Axes:
        """The axes of more than one element, outermost first."""
        x = self.arrays["x"]
        return order_in_memory(x.shape, x.strides) if x.size else ()


def arrange(
    given: dict[str, Any],
    taken: dict[str, Array | None],
    axis: Axis,
    samples_first: bool = False,
    exactly: Axes | None = None,
) -> CallTensors:
    """The tensors of a call, x first, and its outputs; outputs that are None are made.

    `given` come back as they are if they can go by pointer together, else as copies; outputs are never replaced.
    They take the memory order of the first output that there is; without one, of x, if that will do.
    """
    needed = ("x", "dy")
    arrays = _tensors(**{name: value for name, value in given.items() if value is not None or name in needed})
    x = arrays["x"]
    order = Order(channel_axes(as_axis(axis), x.ndim), samples_first, exactly)
    outputs = {name: output(out, name, x) for name, out in taken.items() if out is not None}
    for name, out in outputs.items():
        if not _fit(order, *outputs.values()):
            raise ValueError(
                f"{name} has strides {out.strides}, which cannot be written in place: it has to be dense in some order "
                f"of its axes, the channel axes adjacent, or sliced along its outermost axes only{_reason(order)}"
            )
    if not outputs:
        x = arrays["x"] = _copied(x, order) if not (x.flags.aligned and _fit(order, x)) else x
    model = next(iter(outputs.values()), x)
    known = list(outputs.values())
    for name, array in arrays.items():
        if not (array.flags.aligned and _fit(order, *known, array)):
            for taken_name, out in outputs.items():
                if np.may_share_memory(out, array):
                    raise ValueError(f"{taken_name} overlaps {name}, which cannot go to the library together with it")
            arrays[name] = empty_like(model)
            np.copyto(arrays[name], array)
        known.append(arrays[name])
    arrays.update({name: outputs[name] if name in outputs else empty_like(model) for name in taken})
    return _described(order, axis, arrays)


def _described(order: Order, axis: Axis, arrays: dict[str, Array]) -> CallTensors:
    x = arrays["x"]
    found = _extents(order, x, *(array.strides for array in arrays.values()))
    fit = plan(x.shape, x.dtype, axis if type(axis) is int else as_axis(axis), x.strides)
    assert found is not None, "arrange() has seen to it"
    assert fit is not None, "so it has to this"
    strides = dict(zip(arrays, found.strides))
    # x and y, or with dy for y and dx for an output; the others have their strides elsewhere.
    y = strides["dy"] if "dy" in strides else strides.get("out", 0)
    dx = strides.get("out", 0) if "dy" in strides else 0
    struct = Shape(ctypes.sizeof(Shape), found.outer, fit.channels, found.inner, strides["x"], y, dx)
    return CallTensors(fit._replace(shape=struct), arrays, strides)


def _extents(order: Order, x: Array, *strides: tuple[int, ...]) -> Extents | None:
    """The extents for tensors of these strides; None if they do not go together, or not as the call asks."""
    if order.exactly is None:
        return extents(x.shape, x.itemsize, order.axes, order.samples_first, *strides)
    # A dense tensor that is in the order asked for.
    model, stride = [0] * x.ndim, x.itemsize
    for axis in reversed(order.exactly):
        model[axis], stride = stride, stride * x.shape[axis]
    found = extents(x.shape, x.itemsize, order.axes, order.samples_first, tuple(model), *strides)
    return found and found._replace(strides=found.strides[1:])


def _fit(order: Order, *arrays: Array) -> bool:
    x = arrays[0]
    return _extents(order, x, *dict.fromkeys(array.strides for array in arrays)) is not None


def _copied(x: Array, order: Order) -> Array:
    if order.exactly is not None:
        rest = [a for a in range(x.ndim) if a not in order.exactly]
        axes = [*rest, *order.exactly]
        copy: Array = np.empty([x.shape[a] for a in axes], x.dtype).transpose(np.argsort(axes))
        np.copyto(copy, x)
        return copy
    dense: Array = x.copy(order="K")
    return dense if _fit(order, dense) else x.copy(order="C")


def _reason(order: Order) -> str:
    if order.exactly is not None:
        return ", in the memory order of the forward call's tensors, which its bits have"
    return ", the samples outermost, as they are in groups" if order.samples_first else ""


def _tensors(**values: Any) -> dict[str, Array]:
    """The values as arrays of one dtype and shape: those of x, which comes first."""
    x = tensor(values.pop("x"), "x")
    arrays = {"x": x}
    for name, value in values.items():
        # A list has no dtype of its own.
        own = of_layer(value, name, x.dtype) if isinstance(value, (list, tuple)) else value
        arrays[name] = tensor(own, name)
    for name, array in arrays.items():
        if array.dtype != x.dtype:
            raise TypeError(f"{name} has dtype {array.dtype}, expected {x.dtype}, the dtype of x")
        if array.shape != x.shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {x.shape}, the shape of x")
    return arrays
