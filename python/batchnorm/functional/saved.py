# SPDX-License-Identifier: Apache-2.0
"""The part of a forward pass that backward() needs beside x."""

from __future__ import annotations

import ctypes
import math
import threading
from ctypes import addressof
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core.arrays import Doubles
from .._core.held import array_of
from .._core.layout import Axis, Plan
from .._core.pickling import attributes_of, versioned
from .._core.public import publish
from .._core.records import unpacked
from .._core.structs import Outcome
from .extras import SavedExtras
from .restored import PLAIN, UPDATED, restored


@publish
class SavedStatistics:
    """The record of a forward call: its mean and inverse standard deviation, and all that it was given except x.

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
        True if they are constants to the gradient (running statistics), not functions of x (a batch's own).

    With statistics per group, a row per group: mean and invstd are of shape (groups, channels). After a call with
    another `source` than the batch they are numbers that only backward() has a use for.

    Some are None unless the forward call was asked for them:

    outcome : Outcome, or ndarray of int32
        The outcome of the batch, or of each group (`running`).
    running_mean, running_var : ndarray
    num_batches : ndarray of int64
        The new values of what the call would have updated in place (`running` that is pure).
    bits : ndarray of uint8
        Where the gradient passes: a bit for each element in memory order, the first of a byte its lowest (`save_mask`).
    """

    _both: Any  # a C array, which the stubs of np.ndarray() do not take for a buffer
    _extras: SavedExtras | None = None
    _outcomes: NDArray[np.int32] | None = None
    running_mean: Any = None
    running_var: Any = None
    num_batches: Any = None

    __slots__ = (
        "_axis", "_beta", "_both", "_channel_shape", "_dtype", "_frozen", "_gamma", "_param", "_record", "_shape"
    )  # fmt: skip

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
        self._record: bytes | None = None
        self._channel_shape, self._frozen, self._axis = channel_shape, frozen, axis
        self._shape, self._dtype, self._param = shape, dtype, param
        self._gamma, self._beta = gamma, beta

    @staticmethod
    def _of(record: bytes) -> SavedStatistics:
        """Those that a built-in function has written, in bytes that backward() hands on to one."""
        saved = _new(SavedStatistics)
        saved._record = record
        return saved

    def __getattr__(self, name: str) -> Any:
        """Unpacks the record when somebody looks at it: the other attributes are not there before that."""
        if name not in SavedStatistics.__slots__ or name == "_record":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _one_at_a_time:
            if self._record is not None:
                self._unpack(self._record)
        return object.__getattribute__(self, name)

    def _unpack(self, record: bytes) -> None:
        parts = unpacked(record)
        self._both = two_of((parts.channels,)).from_buffer_copy(parts.both)
        self._channel_shape, self._frozen, self._axis = (parts.channels,), parts.frozen, parts.axis
        self._shape, self._dtype, self._param = parts.shape, parts.dtype, parts.parameter
        self._gamma, self._beta = parts.gamma, parts.beta
        self._record = None  # whoever writes to mean means it

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
        """True if the call normalized, scaled and shifted, in groups perhaps, and did nothing else."""
        extras = self._extras
        if extras is None:
            return True
        others = extras.has_residual, extras.positions, extras.source
        return extras.activation.kind == extras.activation.kind.IDENTITY and not any(others)

    @property
    def bits(self) -> NDArray[np.uint8] | None:
        return None if self._extras is None or self._extras.bits is None else self._extras.bits.view()

    @property
    def outcome(self) -> Outcome | NDArray[np.int32] | None:
        if self._outcomes is None or self._has_rows():
            return self._outcomes
        return Outcome(int(self._outcomes[0]))

    def _has_rows(self) -> bool:
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has memory of its own."""
        state = {name: getattr(self, "_" + name) for name in PLAIN}
        state.update(mean=self.mean, invstd=self.invstd, call=self._of_call())
        return SavedStatistics._restored, (versioned(state),)

    def _of_call(self) -> dict[str, Any] | None:
        """The rest of a copy, in terms of NumPy and of public classes."""
        return None

    @classmethod  # which a pickle finds by the name of the class
    def _restored(cls, state: dict[str, Any]) -> SavedStatistics:
        try:
            parts = restored(attributes_of(state, SavedStatistics))
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"this state of a SavedStatistics is damaged: {error}") from error
        saved = SavedStatistics(**parts.plain) if parts.extras is None else SavedCall(**parts.plain)
        saved.mean[...], saved.invstd[...] = parts.mean, parts.invstd
        if isinstance(saved, SavedCall):
            saved._extras, saved._outcomes = parts.extras, parts.outcomes
            saved.running_mean, saved.running_var, saved.num_batches = parts.updated
        return saved

    def __repr__(self) -> str:
        return f"SavedStatistics(mean={self.mean}, invstd={self.invstd}, frozen={self.frozen})"


class SavedCall(SavedStatistics):
    """The record of a call with extras, which it keeps."""

    __slots__ = ("_extras", "_outcomes", "num_batches", "running_mean", "running_var")

    def __init__(self, channel_shape: tuple[int, ...], frozen: bool, *more: Any, **named: Any) -> None:
        super().__init__(channel_shape, frozen, *more, **named)
        self._extras = self._outcomes = self.running_mean = self.running_var = self.num_batches = None

    def _of_call(self) -> dict[str, Any] | None:
        assert self._extras is not None, "a call with extras has them"
        kind, *numbers = self._extras.activation
        positions = tuple(self._extras.positions)
        extras = {**self._extras._asdict(), "activation": (int(kind), *numbers), "positions": positions}
        call = {name: getattr(self, name) for name in UPDATED}
        return {"extras": extras, "outcomes": self._outcomes, **call}

    def _has_rows(self) -> bool:
        return self._extras is not None and self._extras.has_rows

    def _affine_shape(self) -> tuple[int, ...]:
        shape = self._channel_shape[1:] if self._has_rows() and self._shape is not None else self._channel_shape
        return (self._extras.rows, *shape) if self._extras is not None and self._extras.rows else shape


_new = object.__new__
_one_at_a_time = threading.RLock()  # of threads that unpack a record

# A layer's last call, in one piece, so that no thread finds an x beside the statistics of another's: x, or with
# from_output y, or None if it was overwritten; what is saved; and from_output.
Last = tuple[Any, SavedStatistics, bool]


@lru_cache(maxsize=128)
def two_of(shape: tuple[int, ...]) -> type[ctypes.Array[ctypes.c_double]]:
    """The type of a C array that holds two arrays of this shape."""
    return ctypes.c_double * (2 * math.prod(shape))
