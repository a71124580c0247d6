# SPDX-License-Identifier: Apache-2.0
"""The weights of the Keras layer: how they are made, listed, counted, replaced and checked."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike, NDArray

from ..._core.arrays import Array, doubles
from ..._core.rounding import cast
from .arguments import initial
from .settings import INITIALIZED, Settings


class Weights(Settings):
    """The part of the layer that is saved, beside its arguments."""

    # Any, because Optional would have every use of them assert.
    gamma: Any = None
    beta: Any = None
    moving_mean: Any = None
    moving_variance: Any = None
    moving_stddev: Any = None
    renorm_mean: Any = None
    renorm_stddev: Any = None

    _shape: tuple[int | None, ...] | None = None  # that it was built for

    @property
    def built(self) -> bool:
        return self._shape is not None

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the weights for inputs of this shape, of which the channel axis has to be known; others may be None.

        RuntimeError if there are weights already.
        """
        if self.built:
            raise RuntimeError(f"the layer {self.name!r} was built already, for inputs of shape {self._shape}")
        try:
            shape = tuple(None if n is None else operator.index(n) for n in input_shape)
        except TypeError:
            raise TypeError(f"input_shape is {input_shape!r}, expected a tuple of int and None") from None
        channels = shape[self._axis_in(shape)]
        if channels is None or channels < 1:
            raise ValueError(
                f"input_shape is {shape}, with {channels} at axis {self.axis}, expected at least 1 channel"
            )
        made: dict[str, Array] = {}
        for name in self._names:
            if name in INITIALIZED:
                key = f"{name}_initializer"
                made[name] = initial(getattr(self, key), key, channels, self._variable)
        if self.renorm:
            variance = made["moving_variance"].astype(np.float64)
            if (variance < 0).any():
                raise ValueError(f"moving_variance_initializer gives {variance.min()}, which renorm takes the root of")
            made["moving_stddev"] = cast(np.sqrt(variance), self._variable)
            made["renorm_mean"], made["renorm_stddev"] = made["moving_mean"].copy(), made["moving_stddev"].copy()
        for name, array in made.items():
            setattr(self, name, array)
        self._shape = shape

    @property
    def weights(self) -> list[NDArray[Any]]:
        """The arrays themselves, in Keras's order: gamma, beta, moving_mean, moving_variance, and those of renorm."""
        return [getattr(self, name) for name in self._names] if self.built else []

    @property
    def trainable_weights(self) -> list[NDArray[Any]]:
        """gamma and beta; none of a layer that is not trainable."""
        return self.weights[: self.scale + self.center] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[NDArray[Any]]:
        """The weights that are not trained."""
        return self.weights[len(self.trainable_weights) :]

    def get_weights(self) -> list[NDArray[Any]]:
        """Copies of the weights."""
        return [array.copy() for array in self.weights]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Writes what get_weights(), or Keras's, gave into the weights: all of it, or after an error nothing.

        RuntimeError before build(); ValueError or TypeError if the number of arrays, a shape or a dtype does not fit.
        """
        self._expect_built("set_weights")
        names = self._names
        if len(weights) != len(names):
            raise ValueError(f"weights are {len(weights)} arrays, expected {len(names)}: {', '.join(names)}")
        self._check_weights()
        values = []
        for name, given, array in zip(names, weights, self.weights):
            if np.shape(given) != array.shape:
                raise ValueError(f"{name} has shape {np.shape(given)} among the weights, expected {array.shape}")
            if not array.flags.writeable:
                raise ValueError(f"{name} cannot be set: the layer's array is read-only")
            values.append(cast(doubles(given, name, array.shape), self._variable))
        for array, value in zip(self.weights, values):
            array[...] = value

    def count_params(self) -> int:
        """The number of elements of all weights. RuntimeError before build()."""
        self._expect_built("count_params")
        return sum(array.size for array in self.weights)

    @property
    def _names(self) -> list[str]:
        """The names of the weights that there are, or will be."""
        affine = ["gamma"] * self.scale + ["beta"] * self.center
        of_renorm = ["moving_stddev", "renorm_mean", "renorm_stddev"] if self.renorm else []
        return [*affine, "moving_mean", "moving_variance", *of_renorm]

    def _axis_in(self, shape: tuple[int | None, ...]) -> int:
        """The channel axis, counted from the first; of inputs that have to fit a layer that is built."""
        built = self._shape
        if built is not None and len(shape) != len(built):
            raise ValueError(f"inputs have shape {shape}, expected {len(built)} axes: the layer was built for {built}")
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(f"axis is {self.axis}, which inputs of shape {shape} do not have")
        axis = self.axis % len(shape)
        if built is not None and shape[axis] != built[axis]:
            raise ValueError(f"inputs have {shape[axis]} channels at axis {self.axis}, but the layer has {built[axis]}")
        return axis

    def _expect_built(self, method: str) -> None:
        if not self.built:
            raise RuntimeError(f"{method}() of the layer {self.name!r} was called before build()")

    def _check_weights(self, updated: bool = False) -> None:
        """Anybody may have replaced one of them. The moving averages may be about to be `updated`."""
        assert self._shape is not None
        shape = (self._shape[self.axis],)
        for name in self._names:
            array = getattr(self, name)
            if type(array) is not ndarray:
                raise TypeError(f"{name} is of type {type(array).__name__}, expected numpy.ndarray")
            if array.dtype != self._variable:
                raise TypeError(f"{name} has dtype {array.dtype}, expected {self._variable}")
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}: one element per channel")
            if updated and name not in ("gamma", "beta") and not array.flags.carray:
                raise ValueError(f"{name} is read-only, not contiguous or misaligned, but it is updated in place")
