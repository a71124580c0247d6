# SPDX-License-Identifier: Apache-2.0
"""What a layer keeps between calls: its arrays, and how they are saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Callable, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import is_array, numbers
from ._layout import code_of
from ._state import load_state_dict, state_dict

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
        given: Any = value
        if isinstance(given, (list, tuple)) or (is_array(given) and _is_other_number(given.dtype, layer._param_dtype)):
            value = numbers(given, self.key[1:], layer._param_dtype)
        layer.__dict__[self.key] = value


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

    @property
    def weight(self) -> NDArray[Any]:
        """PyTorch's name of gamma."""
        return self.gamma

    @weight.setter
    def weight(self, value: ArrayLike | None) -> None:
        self.gamma = value

    @property
    def bias(self) -> NDArray[Any]:
        """PyTorch's name of beta."""
        return self.beta

    @bias.setter
    def bias(self, value: ArrayLike | None) -> None:
        self.beta = value

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
        return state_dict(self)

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """Takes over what state_dict(), or PyTorch's, gave: all of it, or after an error nothing.

        A missing num_batches_tracked counts as 0. With `strict`, any other key that is missing or unexpected is a
        KeyError; without, it is passed over. A shape that does not fit is a ValueError, a dtype a TypeError; (1, C, 1,
        1) and the like fit, and so does a count of shape (1,) or a whole float.

        A running mean that is infinite or NaN, and a running variance that is, or that is below -eps, is a ValueError,
        as of from_state(): evaluation would give NaN, or beta for every x. PyTorch loads them. Weight and bias may hold
        any number.
        """
        load_state_dict(self, state, strict)
