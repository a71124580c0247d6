# SPDX-License-Identifier: Apache-2.0
"""Weights of positions, masks and lengths, as the dense array that the library takes."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import library, structs
from .arrays import Array, address, plain
from .foreign import is_foreign
from .layout import Axis, as_axis, channel_axes, order_in_memory
from .options import member
from .structs import sized

Masked = Literal["normalize", "zero", "keep"]


class PositionWeights(NamedTuple):
    """A caller's arguments about positions."""

    weights: ArrayLike | None = None
    lengths: ArrayLike | None = None
    masked: Masked = "normalize"

    def __bool__(self) -> bool:
        masked_of(self.masked)
        return self.weights is not None or self.lengths is not None

    def owned(self) -> PositionWeights:
        """The same with a copy of the weights, which a caller cannot change. Others than floats are copied later."""
        is_float = getattr(getattr(self.weights, "dtype", None), "kind", None) == "f"
        if not is_float and not is_foreign(self.weights):
            return self
        return self._replace(weights=np.array(plain(self.weights, "weights")))  # type: ignore[arg-type]

    def of(self, x: Array, axes: tuple[int, ...]) -> Array | None:
        """A weight for each position, in x's shape but of length 1 along the channel axes."""
        if self.lengths is not None:
            if self.weights is not None:
                raise ValueError("weights and lengths say the same thing: give one of them")
            return _of_lengths(self.lengths, x, axes)
        if self.weights is None:
            return None
        return _of_weights(self.weights, x, axes)


def masked_of(masked: Any) -> structs.Masked:
    """The choice of y at positions of weight 0, as the library takes it."""
    return member(structs.Masked, masked, "masked")


def dtype_beside(x: Array) -> np.dtype[Any]:
    """The dtype of weights beside x."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def laid(weights: Array, x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """The weights as a dense array in the memory order of x's other axes, and that array in the order of x's axes.

    x goes by pointer.
    """
    order, inverse = _orders(x.shape, x.strides, axes)
    dense = np.ascontiguousarray(weights.transpose(order))
    return dense, dense.transpose(inverse)


@lru_cache(maxsize=512)
def _orders(
    shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes in memory order, those of the channels first, and where each of them has gone."""
    found = order_in_memory(shape, strides) if 0 not in shape else range(len(shape))
    known = [a for a in found if a not in axes]
    # Axes of one element, as those of the channels are here, may stand anywhere.
    order = [a for a in range(len(shape)) if a not in known] + known
    return tuple(order), tuple(order.index(a) for a in range(len(shape)))


def struct_of(dense: Array, masked: Masked) -> structs.Weights:
    """Weights as the library takes them."""
    struct: structs.Weights = sized(structs.Weights(0, address(dense), masked_of(masked), 0))
    struct.array = dense
    return struct


def weighted(shape: structs.Shape, positions: PositionWeights, x: Array, axis: Axis) -> structs.Shape:
    """The shape of a call with x and the weights of its positions, if there are any."""
    axes = channel_axes(as_axis(axis), x.ndim)
    weights = positions.of(x, axes)
    if weights is None:
        return shape
    copy = structs.Shape.from_buffer_copy(shape)
    copy.weights = ctypes.pointer(struct_of(laid(weights, x, axes)[0], positions.masked))
    return copy


def _of_weights(value: ArrayLike, x: Array, axes: tuple[int, ...]) -> Array:
    given = plain(value, "weights")
    if given.dtype.kind not in "biuf" and given.dtype.name != "bfloat16":
        raise TypeError(f"weights have dtype {given.dtype}, expected bool or real numbers")
    expected = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    flat = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    shaped = np.expand_dims(given, axes) if given.ndim == len(flat) else given
    if shaped.ndim != x.ndim or any(n not in (1, m) for n, m in zip(shaped.shape, expected)):
        raise ValueError(f"weights have shape {given.shape}, expected {flat} or {expected}, or 1 in place of a length")
    if given.dtype.kind != "b" and given.size:
        least, most = given.min(), given.max()
        if not (least >= 0 and most < np.inf):
            wrong = least if not least >= 0 else most
            raise ValueError(f"weights have a value {wrong}, expected finite ones of at least 0")
    if given.dtype != dtype_beside(x):
        with np.errstate(over="ignore", under="ignore"):
            shaped = shaped.astype(dtype_beside(x))
        if shaped.size and not shaped.max() < np.inf:
            raise ValueError(f"weights have a value {given.max()}, which is beyond {shaped.dtype}")
    return shaped if shaped.shape == expected else np.broadcast_to(shaped, expected)


def _of_lengths(value: ArrayLike, x: Array, axes: tuple[int, ...]) -> Array:
    time = _axis_of_time(x, axes)
    given = plain(value, "lengths")
    if given.dtype.kind not in "iu" and given.size:
        raise TypeError(f"lengths have dtype {given.dtype}, expected ints")
    if given.shape != x.shape[:1]:
        raise ValueError(f"lengths have shape {given.shape}, expected {x.shape[:1]}: one for each sample")
    if given.size and not 0 <= given.min() <= given.max() <= x.shape[time]:
        wrong = given[(given < 0) | (given > x.shape[time])][0]
        raise ValueError(f"lengths have a value {wrong}, expected 0 to {x.shape[time]}, the length of axis {time}")
    lengths, weights = np.ascontiguousarray(given, np.uintp), np.empty((len(given), x.shape[time]), dtype_beside(x))
    code = structs.DType.FLOAT64 if weights.dtype == np.float64 else structs.DType.FLOAT32
    library.lib.bn_length_weights(*weights.shape, address(lengths), code, address(weights))
    shaped = np.expand_dims(weights, tuple(a for a in range(x.ndim) if a not in (0, time)))
    return np.broadcast_to(shaped, tuple(1 if a in axes else n for a, n in enumerate(x.shape)))


def _axis_of_time(x: Array, axes: tuple[int, ...]) -> int:
    """The axis that is farthest from the channels: the last one of (N, C, F, T), and axis 1 of (N, T, F, C)."""
    channels = f"at axis {axes if len(axes) > 1 else axes[0]}"
    if 0 in axes:
        raise ValueError(f"lengths are of samples along axis 0, but x has its channels {channels}")
    away = {a: max(axes[0] - a, a - axes[-1]) for a in range(1, x.ndim) if a not in axes}
    farthest = [a for a in away if away[a] == max(away.values())]
    if len(farthest) != 1:
        between = " or ".join(map(str, farthest)) or "none"
        raise ValueError(
            f"lengths count along the axis that is farthest from the channels, but that is {between} in x of shape "
            f"{x.shape} with its channels {channels}: give weights"
        )
    return farthest[0]
