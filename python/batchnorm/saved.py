# SPDX-License-Identifier: Apache-2.0
"""What backward() needs to know of the forward pass, besides x."""

from __future__ import annotations

import copy
import ctypes
import math
from ctypes import addressof
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike, NDArray

from . import _c_structs
from ._arrays import Doubles, doubles, plain
from ._c_structs import Outcome
from ._held import array_of
from ._layout import Axis, Plan, as_axis
from ._pickling import attributes_of, versioned
from ._public import publish
from ._restored import check_restored
from ._weights import Counted, Masked
from .activations import Activation, Chosen, chosen
from .groups import Ghost, Groups, Segments, Split, copied
from .policies import SingleValue
from .sources import Source
from .statistics import inverse_std

# What a copy of any of them has beside the two statistics.
_PLAIN = ("axis", "beta", "channel_shape", "dtype", "frozen", "gamma", "param", "shape")


@publish
class SavedStatistics:
    """What a forward pass knew: its mean and inverse standard deviation, and all that it was given but x.

    It is read-only. A pickle or a copy has all of it as well.

    Attributes
    ----------
    mean, invstd : ndarray of float64
        One element per channel, in the shape of the channel axes.
    gamma, beta : ndarray or None
        Copies of what the forward call was given, as they were then.
    axis : int or tuple of int, or None
        The channel axis of the forward call; None if frozen_statistics() was not told.
    frozen : bool
        Whether they are constants to the gradient (running statistics) instead of functions of x (a batch's own).

    With statistics per group, a row per group: mean and invstd are of shape (groups, channels). After a call with
    another `source` than the batch they are numbers that only backward() has a use for.

    Some are None unless the forward call was asked for them:

    outcome : Outcome, or ndarray of int32
        What became of the batch, or of each group (`running`).
    running_mean, running_var : ndarray
    num_batches : ndarray of int64
        What the call would have updated in place (`running` that is pure).
    bits : ndarray of uint8
        Where the gradient passes: a bit for each element in memory order, the first of a byte its lowest (`save_mask`).
    """

    _both: Any  # a C array, which the stubs of np.ndarray() do not take for a buffer
    _told: Told | None = None
    _outcomes: NDArray[np.int32] | None = None
    running_mean: Any = None
    running_var: Any = None
    num_batches: Any = None

    __slots__ = ("_axis", "_beta", "_both", "_channel_shape", "_dtype", "_frozen", "_gamma", "_param", "_shape")

    def __init__(
        self,
        channel_shape: tuple[int, ...],
        frozen: bool,
        axis: Axis | None = None,
        shape: tuple[int, ...] | None = None,
        dtype: np.dtype[Any] | None = None,
        param: np.dtype[Any] | None = None,
        gamma: Any = None,
        beta: Any = None,
    ) -> None:
        """Statistics yet to be written. `shape` and `dtype` are those of x and `param` the dtype of gamma and beta,
        which are bytes; or nothing is known of x, and they are arrays that backward() looks at.
        """
        # One allocation for the two, which nobody else can resize. It becomes arrays when somebody looks at them: a C
        # array is there and tells its address in 0.06 µs, a new ndarray in 0.3.
        try:
            self._both = two_of(channel_shape)()
        except (MemoryError, OverflowError):
            raise MemoryError(f"there is no memory for the statistics of channels of shape {channel_shape}") from None
        self._channel_shape, self._frozen, self._axis = channel_shape, frozen, axis
        self._shape, self._dtype, self._param = shape, dtype, param
        self._gamma, self._beta = gamma, beta

    def _addresses(self) -> tuple[int, int]:
        """Where mean and invstd are, for a call that holds the object meanwhile."""
        mean = addressof(self._both)
        return mean, mean + ctypes.sizeof(self._both) // 2

    def _beside(self, fit: Plan) -> Plan:
        """The plan of a call whose parameters are those of the forward call, if x is as it was there."""
        assert self._param is not None, "a call with a dtype has one of its parameters"
        if self._param.itemsize != fit.param.itemsize:
            return fit._replace(param=fit.dtype, param_code=fit.code)
        return fit

    @property
    def channel_shape(self) -> tuple[int, ...]:
        """The shape of mean and invstd."""
        return self._channel_shape

    @property
    def frozen(self) -> bool:
        return self._frozen

    @property
    def axis(self) -> Axis | None:
        return self._axis

    @property
    def channels(self) -> int:
        """The number of elements of mean."""
        return len(self._both) // 2

    @property
    def mean(self) -> Doubles:
        return np.ndarray(self._channel_shape, np.float64, self._both)

    @property
    def invstd(self) -> Doubles:
        return np.ndarray(self._channel_shape, np.float64, self._both, ctypes.sizeof(self._both) // 2)

    @property
    def gamma(self) -> NDArray[Any] | None:
        return self._parameter(self._gamma)

    @property
    def beta(self) -> NDArray[Any] | None:
        return self._parameter(self._beta)

    def _parameter(self, value: Any) -> NDArray[Any] | None:
        if self._param is None:
            return value  # type: ignore[no-any-return]
        return array_of(value, self._affine_shape(), self._param)

    def _affine_shape(self) -> tuple[int, ...]:
        return self._channel_shape

    @property
    def is_plain(self) -> bool:
        """Whether the call normalized, scaled and shifted, and nothing else."""
        told = self._told
        if told is None:
            return True
        others = told.has_residual, told.counted, told.source, told.groups
        return told.activation.kind == told.activation.kind.IDENTITY and not any(others)

    @property
    def bits(self) -> NDArray[np.uint8] | None:
        return None if self._told is None or self._told.bits is None else self._told.bits.view()

    @property
    def outcome(self) -> Outcome | NDArray[np.int32] | None:
        if self._outcomes is None or self._has_rows():
            return self._outcomes
        return Outcome(int(self._outcomes[0]))

    def _has_rows(self) -> bool:
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has memory of its own."""
        state = {name: getattr(self, "_" + name) for name in _PLAIN}
        state.update(mean=self.mean, invstd=self.invstd, call=self._of_call())
        return SavedStatistics._restored, (versioned(state),)

    def _of_call(self) -> dict[str, Any] | None:
        """What else a copy has, in terms of NumPy and of public classes."""
        return None

    @classmethod  # which a pickle finds by the name of the class
    def _restored(cls, state: dict[str, Any]) -> SavedStatistics:
        try:
            saved = _of_attributes(attributes_of(state, SavedStatistics))
            check_restored(saved)
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"this state of a SavedStatistics is damaged: {error}") from error
        return saved

    def __repr__(self) -> str:
        return f"SavedStatistics(mean={self.mean}, invstd={self.invstd}, frozen={self.frozen})"


class Told(NamedTuple):
    """What a forward call was told besides parameters and axis, as far as backward() has to know."""

    activation: Chosen = chosen(None)
    has_residual: bool = False
    residual: Any = None  # unless the gradient can do without
    counted: Counted = Counted()
    source: Source | None = None
    of_source: Doubles | None = None
    groups: Groups | None = None
    rows: int = 0  # of gamma and beta
    single_value: SingleValue = "error"
    bits: Any = None
    order: tuple[int, ...] = ()  # of the axes in memory, which is that of the bits


class SavedCall(SavedStatistics):
    """The same of a call that was told something, all of which it remembers."""

    __slots__ = ("_outcomes", "_told", "num_batches", "running_mean", "running_var")

    def __init__(self, channel_shape: tuple[int, ...], frozen: bool, *more: Any, **named: Any) -> None:
        super().__init__(channel_shape, frozen, *more, **named)
        self._told = self._outcomes = self.running_mean = self.running_var = self.num_batches = None

    def _of_call(self) -> dict[str, Any] | None:
        assert self._told is not None, "a call has been told something"
        kind, *numbers = self._told.activation
        counted = tuple(self._told.counted)
        told = {**self._told._asdict(), "activation": (int(kind), *numbers), "counted": counted}
        call = {name: getattr(self, name) for name in ("running_mean", "running_var", "num_batches")}
        return {"told": told, "outcomes": self._outcomes, **call}

    def _has_rows(self) -> bool:
        return self._told is not None and isinstance(self._told.groups, (Ghost, Segments, Split))

    def _affine_shape(self) -> tuple[int, ...]:
        shape = self._channel_shape[1:] if self._has_rows() and self._shape is not None else self._channel_shape
        return (self._told.rows, *shape) if self._told is not None and self._told.rows else shape


# A layer's last call, in one piece, so that no thread finds an x beside the statistics of another's: x, or with
# from_output y, or None if it was overwritten; what is saved; and from_output.
Last = tuple[Any, SavedStatistics, bool]


def _of_attributes(attributes: dict[str, Any]) -> SavedStatistics:
    own = dict(attributes)
    mean, invstd, call = (own.pop(name) for name in ("mean", "invstd", "call"))
    if mean.shape != invstd.shape:
        raise TypeError(f"mean has shape {mean.shape}, and invstd {invstd.shape}")
    more = {"_" + name: own[name] for name in _PLAIN}
    if call is None:
        return _rebuilt(SavedStatistics, mean, invstd, more)
    call = dict(call)
    told = call.pop("told")
    kind, *numbers = told["activation"]
    activation = Chosen(_c_structs.Activation(kind), *numbers)
    more["_told"] = Told(**{**told, "activation": activation, "counted": Counted(*told["counted"])})
    return _rebuilt(SavedCall, mean, invstd, {**more, "_outcomes": call.pop("outcomes"), **call})


def _rebuilt(kind: type[SavedStatistics], mean: Doubles, invstd: Doubles, more: dict[str, Any]) -> SavedStatistics:
    saved = kind(mean.shape, False)
    saved.mean[...] = mean
    saved.invstd[...] = invstd
    for name, value in more.items():
        setattr(saved, name, value)
    return saved


@lru_cache(maxsize=128)
def two_of(shape: tuple[int, ...]) -> type[ctypes.Array[ctypes.c_double]]:
    """The type of a C array that holds two arrays of this shape."""
    return ctypes.c_double * (2 * math.prod(shape))


def frozen_statistics(
    running_mean: ArrayLike,
    running_var: ArrayLike,
    eps: float = 1e-5,
    *,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    axis: Axis | None = None,
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: Masked = "normalize",
    groups: Groups | None = None,
) -> SavedStatistics:
    """The statistics that forward_inference() normalizes with, for backward().

    Parameters
    ----------
    running_mean, running_var : array_like, one element per channel
        As in forward_inference().
    eps : float, default 1e-5
        As in forward_inference().
    gamma, beta, axis
        As in forward_inference(); gamma and beta are copied. Without gamma, or axis, backward() takes the one that it
        is given, or none and 1. beta is needed with an activation.
    activation, residual, weights, lengths, masked, groups
        As in forward_inference(), if they were given there; backward() checks them. All but `residual` are copied.

    Returns
    -------
    SavedStatistics
        mean = running_mean and invstd = 1 / sqrt(running_var + eps), with `frozen` set.

    Raises
    ------
    TypeError
        An array is not of real numbers.
    ValueError
        The shapes differ, or `eps` is negative or not finite.
    """
    shape = np.shape(running_mean)
    mean = doubles(running_mean, "running_mean", shape)
    variance = doubles(running_var, "running_var", shape)
    invstd = inverse_std(np.ones(shape), variance, eps)
    axis = None if axis is None else as_axis(axis)
    affine = {name: _copy(value, name) for name, value in (("gamma", gamma), ("beta", beta))}
    counted = Counted(_copy(weights, "weights"), _copy(lengths, "lengths"), masked)
    known = {"_frozen": True, "_axis": axis, "_gamma": affine["gamma"], "_beta": affine["beta"]}
    if activation is None and residual is None and groups is None and not counted:
        return _rebuilt(SavedStatistics, mean, invstd, known)
    function = chosen(activation)
    # Ghost batches are none in inference.
    groups = None if isinstance(groups, Ghost) else copied(groups)
    needed = None if function.kind == function.kind.IDENTITY else residual
    told = Told(function, residual is not None, needed, counted, groups=groups)
    return _rebuilt(SavedCall, mean, invstd, {**known, "_told": told})


def _copy(value: Any, name: str) -> Any:
    """A copy that whoever has the original cannot change; a list stays one, whose dtype is not yet known."""
    if value is None or isinstance(value, (list, tuple)):
        return copy.deepcopy(value)
    array = value.copy() if type(value) is ndarray else np.array(plain(value, name))
    array.flags.writeable = False
    return array
