# SPDX-License-Identifier: Apache-2.0
"""The part of a layer beside its arithmetic: the methods of PyTorch's modules, checked attributes, its pickle."""

from __future__ import annotations

import copy
import difflib
import math
import operator
from typing import TYPE_CHECKING, Any, Callable, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .._core.arrays import Array, numbers
from .._core.layout import DTYPES, Axis, canonical, dtype_of, parameter_dtype
from .._core.options import flag, number
from .._core.pickling import attributes_of, versioned
from .._core.weights import Masked
from ..functional.saved import Last
from .loading import whole
from .setting import Setting, describe
from .torch_names import NO_GRADIENTS, Named

Self = TypeVar("Self", bound="Module")
ARRAYS = ("gamma", "beta", "running_mean", "running_var")
# Attributes that stand under another name in a layer's dictionary, and what follows from the others, or is of a call.
STORED = (
    *ARRAYS,
    "num_features",
    "axis",
    "dtype",
    "param_dtype",
    "activation",
    "running",
    "source",
    "groups",
    "frozen",
)
DERIVED = ("_channel_shape", "_is_described", "_last", "__observer")


def a_flag(name: str) -> Callable[[Any], bool]:
    return lambda value: flag(value, name)


def eps_of(value: Any) -> float:
    eps = number(value, "eps")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps is {eps:g}, expected a finite number, at least 0")
    return eps


def momentum_of(value: Any) -> float | None:
    if value is None:
        return None
    momentum = number(value, "momentum")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum is {momentum:g}, expected a number from 0 to 1")
    return momentum


def count_of(value: Any) -> Any:
    count = whole(np.asarray(value), "num_batches_tracked", np.shape(value))
    return int(count) if count.ndim == 0 else count


# The checks of a layer's plain attributes.
CHECKS: dict[str, Callable[[Any], Any]] = {
    "eps": eps_of,
    "momentum": momentum_of,
    "num_batches_tracked": count_of,
    **{name: a_flag(name) for name in ("training", "affine", "track_running_stats", "unbiased")},
}
PLAIN = frozenset({*CHECKS, *NO_GRADIENTS})


class Module(Named):
    """See BatchNorm, which this is a part of."""

    activation = Setting()
    running = Setting()
    source = Setting()
    groups = Setting()
    frozen = Setting(False)
    _observer = Setting()  # of recalibrate(), while it runs
    ranks: ClassVar[tuple[int, ...]] = ()  # of x, in a class for some alone
    _is_described = False
    _last: Last | None
    training: bool
    unbiased: bool
    momentum: float | None
    _num_features: int | tuple[int, ...]
    _channel_shape: tuple[int, ...]
    _axis: Axis
    _dtype: np.dtype[Any]

    if not TYPE_CHECKING:  # to a type checker it would say that there may be any attribute

        def __setattr__(self, name: str, value: Any) -> None:
            check = CHECKS.get(name)
            if check is not None:
                value = check(value)
            elif name not in PLAIN and name[0] != "_" and name not in self.__dict__ and _is_strange(type(self), name):
                raise AttributeError(_unknown(self, name))
            super().__setattr__(name, value)

    def _check_rank(self, rank: int) -> None:
        raise NotImplementedError

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
        raise NotImplementedError

    def forward(
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
        """The layer called with the same arguments."""
        more: dict[str, Any] = {"residual": residual, "weights": weights, "lengths": lengths}
        return self(x, out, masked=masked, training=training, **more)

    def to(self: Self, dtype: DTypeLike | None, *, param_dtype: DTypeLike | None = None) -> Self:
        """Makes `dtype` the layer's, for x and y, and casts what it keeps. Returns the layer.

        Parameters and running statistics are of `param_dtype`, by default of `dtype`, or float32 beside 16 bits. Those
        of another dtype become new arrays. Gradients, and what backward() knows, are gone. An error, such as a value
        that the dtype does not hold, leaves the layer as it was.
        """
        kind, param = dtypes_of(dtype, param_dtype)
        own = self.__dict__
        arrays = {"_" + name: own["_" + name] for name in ARRAYS}
        cast = {
            key: array if array is None or array is ... else numbers(array, key[1:], param)
            for key, array in arrays.items()
        }
        own.update(cast, _dtype=kind, _param_dtype=param, _last=None, **NO_GRADIENTS)
        return self

    def astype(self: Self, dtype: DTypeLike | None, *, param_dtype: DTypeLike | None = None) -> Self:
        """A copy of the layer that is of this dtype, as to() makes it; the layer itself stays as it is."""
        return copy.deepcopy(self).to(dtype, param_dtype=param_dtype)

    def half(self: Self) -> Self:
        """to(float16): parameters and running statistics are float32."""
        return self.to(np.float16)

    def bfloat16(self: Self) -> Self:
        """to("bfloat16"): parameters and running statistics are float32. Takes the package ml_dtypes."""
        return self.to("bfloat16")

    def float(self: Self) -> Self:
        """to(float32)."""
        return self.to(np.float32)

    def double(self: Self) -> Self:
        """to(float64)."""
        return self.to(np.float64)

    @property
    def num_features(self) -> int | tuple[int, ...]:
        """Number of channels; for a group of channel axes, the length of each."""
        return self._num_features

    @property
    def axis(self) -> Axis:
        """The channel axis, or a group of adjacent ones."""
        return self._axis

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of x and y."""
        return self._dtype

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle is of the layer, not of its last call."""
        public = {"_" + name: name for name in STORED}
        return versioned({public.get(key, key): value for key, value in self.__dict__.items() if key not in DERIVED})

    def __setstate__(self, state: dict[str, Any]) -> None:
        attributes = attributes_of(state, type(self))
        missing = [name for name in (*STORED, *PLAIN) if name not in attributes]
        if missing:
            raise ValueError(f"this state of a {type(self).__name__} is damaged: it has no {min(missing)}")
        own = {"_" + key if key in STORED else key: value for key, value in attributes.items()}
        own.update({"_channel_shape": extents_of(own["_num_features"]), "_last": None})
        self.__dict__.update(own)
        describe(self)

    def _mismatch(self, channel_shape: tuple[int, ...], dtype: np.dtype[Any]) -> Exception:
        if dtype != self.dtype:
            ways = ""
            if dtype in DTYPES:
                kind = f"np.{self.dtype}" if self.dtype in DTYPES else "ml_dtypes.bfloat16"
                ways = f": x.astype({kind}), or dtype=np.{dtype} for the layer"
            return TypeError(f"x has dtype {dtype}, expected {self.dtype}, the dtype of the layer{ways}")
        given, expected = (shape if len(shape) > 1 else shape[0] for shape in (channel_shape, self._channel_shape))
        return ValueError(f"x has {given} channels at axis {self.axis}, expected {expected}, as the layer has")

    @property
    def outcome(self) -> Any:
        """The outcome of the last batch in training, as SavedStatistics has it; None before, and where all is usual."""
        return None if self._last is None else self._last[1].outcome

    def train(self: Self, mode: bool = True) -> Self:
        """Switches to training mode or, with False, to evaluation mode. Returns the layer."""
        self.training = flag(mode, "mode")
        return self

    def eval(self: Self) -> Self:
        """Switches to evaluation mode. Returns the layer."""
        return self.train(False)

    def __repr__(self) -> str:
        momentum = None if self.momentum is None else f"{self.momentum:g}"
        text = f"{type(self).__name__}({self.num_features}{self._repr_axis()}, eps={self.eps:g}, momentum={momentum}, "
        text += f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        text += "" if self.unbiased else ", unbiased=False"
        text += "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        for name in ("activation", "running", "source", "groups", "frozen"):
            text += f", {name}={getattr(self, name)!r}" if getattr(self, name) else ""
        return text + ")"

    def _repr_axis(self) -> str:
        return f", axis={self.axis}"


def extents_of(num_features: Any) -> tuple[int, ...]:
    """The lengths of the channel axes."""
    extents = num_features if isinstance(num_features, tuple) else (num_features,)
    try:
        return tuple(operator.index(n) for n in extents)
    except TypeError:
        raise TypeError(f"num_features is {num_features!r}, expected a whole number") from None


def dtypes_of(dtype: DTypeLike | None, param_dtype: DTypeLike | None) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """The dtypes of x and of the parameters, checked."""
    kind = canonical(dtype_of(dtype, "dtype"))
    default = parameter_dtype(kind)
    param = default if param_dtype is None else canonical(dtype_of(param_dtype, "param_dtype"))
    if param not in (kind, default):
        raise TypeError(f"param_dtype is {param}, expected {default} or {kind}")
    return kind, param


def _is_strange(kind: type, name: str) -> bool:
    """True if no layer has such an attribute; a class of a user's own may have its own."""
    return not hasattr(kind, name) and kind.__module__.partition(".")[0] == __package__.partition(".")[0]


def _unknown(layer: Module, name: str) -> str:
    known = [each for each in (*PLAIN, *dir(type(layer))) if each[0] != "_"]
    near = difflib.get_close_matches(name, known, 1)
    advice = f": did you mean {near[0]}?" if near else "; a class of your own may have more"
    return f"{type(layer).__name__} has no attribute {name}{advice}"
