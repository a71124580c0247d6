# SPDX-License-Identifier: Apache-2.0
"""The state of a layer as a dictionary with PyTorch's keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import kind_of
from ._errors import StateError
from ._loading import check_running, per_channel, whole
from ._options import flag
from ._tensors import detached

if TYPE_CHECKING:
    from ._parameters import Parameters

_NAMES = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}
_COUNT = "num_batches_tracked"


def arrays_of(layer: Parameters) -> dict[str, NDArray[Any]]:
    """The arrays that the layer has, by key."""
    arrays = {key: getattr(layer, name) for name, key in _NAMES.items()}
    return {key: array for key, array in arrays.items() if array is not None}


def state_dict(layer: Parameters) -> dict[str, NDArray[Any]]:
    """See BatchNorm.state_dict()."""
    state = {key: array.copy() for key, array in arrays_of(layer).items()}
    if layer.track_running_stats:
        state[_COUNT] = np.array(layer.num_batches_tracked, np.int64)
    return state


def load_state_dict(layer: Parameters, state: Mapping[str, ArrayLike], strict: bool) -> None:
    """See BatchNorm.load_state_dict()."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state is of type {kind_of(state)}, expected a mapping of names to arrays")
    strict = flag(strict, "strict")
    arrays = arrays_of(layer)
    known = {*arrays, _COUNT} if layer.track_running_stats else {*arrays}
    if strict:
        for key in sorted(arrays.keys() - state.keys()):
            raise StateError(f"{key} is missing")
        for key in sorted(state.keys() - known):
            raise StateError(f"{key} is unexpected: this layer has {', '.join(sorted(known))}")
    # Everything is checked before anything is written.
    values = {key: _checked(state[key], key, array) for key, array in arrays.items() if key in state}
    check_running(values.get("running_mean"), values.get("running_var"), layer.eps, ("running_mean", "running_var"))
    count = layer.num_batches_tracked
    if _COUNT in known and (_COUNT in state or "running_mean" in state):
        count = _checked_count(state.get(_COUNT, count * 0), count)
    for key, value in values.items():
        arrays[key][...] = value
    layer.num_batches_tracked = count


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
