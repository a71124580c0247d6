# SPDX-License-Identifier: Apache-2.0
"""The arrays that a layer keeps between calls, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Callable, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core.arrays import is_array, kind_of, numbers
from .._core.errors import StateError
from .._core.foreign import is_foreign, view
from .._core.layout import code_of
from .._core.options import flag
from .._core.tensors import detached
from .loading import check_running, per_channel, whole

_NAMES = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}
_COUNT = "num_batches_tracked"

# gamma, beta, running_mean and running_var as they are together at one moment: a look-up of four texts in a dictionary
# is one step to the interpreter, so that no other thread assigns one of them between two others.
four_of: Callable[[dict[str, Any]], tuple[Any, Any, Any, Any]] = itemgetter(
    "_gamma", "_beta", "_running_mean", "_running_var"
)


class Parameter:
    """An array that may be replaced by assignment; the next call checks its shape.

    Numbers of another dtype than the layer's, be they a list or an array, become an array of that dtype at once, so
    that whoever reads the attribute finds what the layer computes with. An array that fits is kept, not a copy of it.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = "_" + name

    @overload
    def __get__(self, layer: None, owner: type) -> Parameter: ...

    @overload
    def __get__(self, layer: Parameters, owner: type) -> NDArray[Any]: ...

    # To a type checker never None, which would have every use of it assert.
    def __get__(self, layer: Parameters | None, owner: type) -> Parameter | NDArray[Any]:
        return self if layer is None else layer.__dict__[self.key]

    def __set__(self, layer: Parameters, value: ArrayLike | None) -> None:
        given: Any = view(value, self.key[1:]) if is_foreign(value) else value
        if isinstance(given, (list, tuple)) or (is_array(given) and _is_other_number(given.dtype, layer._param_dtype)):
            given = numbers(given, self.key[1:], layer._param_dtype)
        layer.__dict__[self.key] = given


def _is_other_number(dtype: np.dtype[Any], own: np.dtype[Any]) -> bool:
    return dtype != own and (dtype.kind in "fiu" or code_of(dtype) is not None)


class Parameters:
    """The part of a layer that is saved: gamma, beta, the running statistics and their count."""

    gamma = Parameter()
    beta = Parameter()
    running_mean = Parameter()
    running_var = Parameter()
    num_batches_tracked: Any  # an int, or with a row of running statistics per group an array
    eps: float

    _gamma: Any
    _beta: Any
    _running_mean: Any
    _running_var: Any
    _param_dtype: np.dtype[Any]

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        affine: bool,
        track_running_stats: bool,
        rows: tuple[int, int] = (0, 0),
    ) -> None:
        """`rows` are those of parameters and of running statistics, one per group; 0 for arrays without."""
        self.affine, self.track_running_stats = affine, track_running_stats
        running_shape = (rows[1], *shape) if rows[1] else shape
        shape = (rows[0], *shape) if rows[0] else shape
        self.gamma = np.ones(shape, dtype) if affine else None
        self.beta = np.zeros(shape, dtype) if affine else None
        self.running_mean = np.zeros(running_shape, dtype) if track_running_stats else None
        self.running_var = np.ones(running_shape, dtype) if track_running_stats else None
        self.num_batches_tracked = np.zeros(rows[1], np.int64) if rows[1] else 0

    @property
    def param_dtype(self) -> np.dtype[Any]:
        """The dtype of gamma, beta and the running statistics."""
        return self._param_dtype

    def reset_parameters(self) -> None:
        """gamma to 1 and beta to 0, in place; and what reset_running_stats() does."""
        self.reset_running_stats()
        if self.gamma is not None:
            self.gamma[...] = 1
        if self.beta is not None:
            self.beta[...] = 0

    def reset_running_stats(self) -> None:
        """running_mean to 0, running_var to 1 and num_batches_tracked to 0, in place."""
        if self.track_running_stats:
            self.running_mean[...] = 0
            self.running_var[...] = 1
            self.num_batches_tracked = self.num_batches_tracked * 0

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies under PyTorch's names: weight, bias, running_mean, running_var, num_batches_tracked."""
        state = {key: array.copy() for key, array in _arrays_of(self).items()}
        if self.track_running_stats:
            state[_COUNT] = np.array(self.num_batches_tracked, np.int64)
        return state

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """Takes over what state_dict(), or PyTorch's, gave: all of it, or after an error nothing.

        A missing num_batches_tracked counts as 0. With `strict`, any other key that is missing or unexpected is a
        KeyError; without, it is passed over. A shape that does not fit is a ValueError, a dtype a TypeError; (1, C, 1,
        1) and the like fit, and so does a count of shape (1,) or a whole float.

        A running mean that is infinite or NaN, and a running variance that is, or that is below -eps, is a ValueError,
        as of from_state(): evaluation would give NaN, or beta for every x. PyTorch loads them. Weight and bias may hold
        any number.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state is of type {kind_of(state)}, expected a mapping of names to arrays")
        strict = flag(strict, "strict")
        arrays = _arrays_of(self)
        known = {*arrays, _COUNT} if self.track_running_stats else {*arrays}
        if strict:
            for key in sorted(arrays.keys() - state.keys()):
                raise StateError(f"{key} is missing")
            for key in sorted(state.keys() - known):
                raise StateError(f"{key} is unexpected: this layer has {', '.join(sorted(known))}")
        # Everything is checked before anything is written.
        values = {key: _checked(state[key], key, array) for key, array in arrays.items() if key in state}
        check_running(values.get("running_mean"), values.get("running_var"), self.eps, ("running_mean", "running_var"))
        count = self.num_batches_tracked
        if _COUNT in known and (_COUNT in state or "running_mean" in state):
            count = _checked_count(state.get(_COUNT, count * 0), count)
        for key, value in values.items():
            arrays[key][...] = value
        self.num_batches_tracked = count


def _arrays_of(layer: Parameters) -> dict[str, NDArray[Any]]:
    """The arrays that the layer has, by key."""
    arrays = {key: getattr(layer, name) for name, key in _NAMES.items()}
    return {key: array for key, array in arrays.items() if array is not None}


def _checked(value: ArrayLike, key: str, target: NDArray[Any]) -> NDArray[Any]:
    array = detached(value, key)
    if target.ndim == 1:
        array = per_channel(array)
    if array.shape != target.shape:
        raise ValueError(f"{key} has shape {array.shape}, expected {target.shape}")
    if array.dtype != target.dtype:
        raise TypeError(f"{key} has dtype {array.dtype}, expected {target.dtype}")
    if not target.flags.writeable:
        raise ValueError(f"{key} cannot be loaded: the layer's array is read-only")
    # A copy, as it may be one of the layer's own arrays, which are about to be written.
    return array.copy()


def _checked_count(value: ArrayLike, like: Any) -> Any:
    count = whole(detached(value, _COUNT), _COUNT, np.shape(like))
    return int(count) if count.ndim == 0 else count
