# SPDX-License-Identifier: Apache-2.0
"""Layers that learn the number of their channels from their first input, as PyTorch's lazy modules do.

Then they are ordinary layers, of the class BatchNorm1d, BatchNorm2d or BatchNorm3d.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._core.arrays import Array, shape_of
from .._core.options import DEFAULT_MOMENTUM
from .._core.public import publish
from .._core.tensors import detached
from .._core.weights import Masked
from ..settings.activations import Activation
from ..settings.groups import Groups, rows_of
from ..settings.running import Running
from ..settings.sources import Source
from .loading import flat
from .parameters import Parameter, Parameters
from .ranked import BatchNorm1d, BatchNorm2d, BatchNorm3d, _RankedBatchNorm

_KEYS = {"_gamma": "weight", "_beta": "bias", "_running_mean": "running_mean", "_running_var": "running_var"}


class _Awaited(Parameter):
    """An array of a lazy layer: `...` if it will be made, None if not."""

    def __get__(self, layer: Parameters | None, owner: type) -> Any:
        if layer is not None and layer.__dict__[self.key] is ...:
            raise RuntimeError(f"{self.key[1:]} has no values yet: the first call tells the number of channels")
        return super().__get__(layer, owner)

    def __set__(self, layer: Parameters, value: ArrayLike | None) -> None:
        raise RuntimeError(f"{self.key[1:]} cannot be assigned yet: the first call tells the number of channels")


class _LazyBatchNorm(_RankedBatchNorm):
    becomes: ClassVar[type[_RankedBatchNorm]]
    gamma = _Awaited()
    beta = _Awaited()
    running_mean = _Awaited()
    running_var = _Awaited()

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = DEFAULT_MOMENTUM,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: DTypeLike | None = np.float32,
        *,
        bias: bool = True,
        decay: float | None = None,
        unbiased: bool = True,
        param_dtype: DTypeLike | None = None,
        activation: Activation | None = None,
        running: Running | None = None,
        source: Source | None = None,
        groups: Groups | None = None,
        frozen: bool = False,
    ) -> None:
        more: dict[str, Any] = {"bias": bias, "decay": decay, "unbiased": unbiased, "param_dtype": param_dtype}
        more.update(activation=activation, running=running, source=source, groups=groups, frozen=frozen)
        # A layer of one channel checks the settings; all of it but its arrays is what there is to know until then.
        self.__dict__.update(self.becomes(1, eps, momentum, affine, track_running_stats, dtype, **more).__dict__)
        self._num_features, self._channel_shape = 0, (0,)
        for name in _KEYS:
            if self.__dict__[name] is not None:
                self.__dict__[name] = ...

    def __call__(
        self,
        x: ArrayLike,
        out: Array | None = None,
        *,
        residual: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        masked: Masked = "normalize",
        training: bool | None = None,
    ) -> Array:
        """See BatchNorm.__call__(). If it succeeds, the layer is a `becomes` from then on; else it stays lazy."""
        shape = shape_of(x, "x")
        self._check_rank(len(shape))
        ready = self._ready(shape[1], "x")
        more: dict[str, Any] = {"residual": residual, "weights": weights, "lengths": lengths}
        y = ready(x, out, masked=masked, training=training, **more)
        self._take(ready)
        return y

    def _ready(self, channels: int, name: str) -> _RankedBatchNorm:
        """The layer that this one becomes, when `name` has told the number of channels."""
        if channels < 1:
            raise ValueError(f"{name} has {channels} channels, expected at least 1")
        ready = copy.copy(self)
        has_beta = ready._beta is not None
        ready.__class__ = self.becomes  # type: ignore[assignment]
        ready._num_features, ready._channel_shape = channels, (channels,)
        settings = self.affine, self.track_running_stats, rows_of(self.groups)
        Parameters.__init__(ready, (channels,), self.param_dtype, *settings)
        if not has_beta:
            ready.beta = None
        return ready

    def _take(self, ready: _RankedBatchNorm) -> None:
        self.__dict__.update(ready.__dict__)
        self.__class__ = type(ready)  # type: ignore[assignment]

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Raises RuntimeError, as there is no state yet. PyTorch has placeholders, which only lazy modules load."""
        raise RuntimeError("there is no state yet: the first call tells the number of channels")

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """See BatchNorm.load_state_dict(). The arrays tell the number of channels, so that the layer is lazy no more.

        With strict=False a state without any of them leaves it lazy.
        """
        telling = [key for name, key in _KEYS.items() if self.__dict__[name] is ... and key in state]
        shape = flat(detached(state[telling[0]], telling[0]).shape) if telling else ()
        ready = self._ready(*(shape[-1], telling[0]) if shape else (1, ""))
        ready.load_state_dict(state, strict)
        if telling:
            self._take(ready)

    def reset_running_stats(self) -> None:
        """Does nothing: running statistics start from the values that this would set."""

    def reset_parameters(self) -> None:
        """Does nothing, as in PyTorch."""

    def extra_repr(self) -> str:
        """The text that repr() has between the brackets: the arguments, without num_features."""
        return super().extra_repr().partition(", ")[2]


@publish
class LazyBatchNorm1d(_LazyBatchNorm):
    """BatchNorm1d without num_features, which is x.shape[1] of the first call; as torch.nn.LazyBatchNorm1d.

    Until then gamma, beta and the running statistics, where there will be any, can be neither read nor assigned
    (RuntimeError); momentum, train(), eval() and the like are kept. A first call that fails leaves the layer lazy.
    load_state_dict() of another layer's state ends the wait as well; PyTorch changes the class at the call after it.

    Parameters
    ----------
    eps, momentum, affine, track_running_stats, dtype
        As in BatchNorm; checked at once.
    bias, decay, unbiased, param_dtype, activation, running, source, groups, frozen
        As in BatchNorm1d.

    Attributes
    ----------
    num_features : int
        0 before the first call.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> layer = bn.LazyBatchNorm1d(momentum=0.2)
    >>> layer.gamma
    Traceback (most recent call last):
    ...
    RuntimeError: gamma has no values yet: the first call tells the number of channels
    >>> y = layer(np.zeros((4, 3), np.float32))
    >>> layer
    BatchNorm1d(3, eps=1e-05, momentum=0.2, affine=True, track_running_stats=True)
    >>> print(layer.gamma)
    [1. 1. 1.]
    """

    becomes = BatchNorm1d
    ranks = BatchNorm1d.ranks


@publish
class LazyBatchNorm2d(_LazyBatchNorm):
    """BatchNorm2d without num_features, as torch.nn.LazyBatchNorm2d; see LazyBatchNorm1d.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> layer = bn.LazyBatchNorm2d(affine=False)
    >>> y = layer(np.zeros((4, 3, 2, 2), np.float32))
    >>> print(type(layer) is bn.BatchNorm2d, layer.num_features)
    True 3
    """

    becomes = BatchNorm2d
    ranks = BatchNorm2d.ranks


@publish
class LazyBatchNorm3d(_LazyBatchNorm):
    """BatchNorm3d without num_features, as torch.nn.LazyBatchNorm3d; see LazyBatchNorm1d.

    Examples
    --------
    >>> import batchnorm as bn
    >>> layer = bn.LazyBatchNorm3d()
    >>> layer
    LazyBatchNorm3d(eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
    >>> layer.load_state_dict(bn.BatchNorm3d(5).state_dict())
    >>> layer.num_features
    5
    """

    becomes = BatchNorm3d
    ranks = BatchNorm3d.ranks
