# SPDX-License-Identifier: Apache-2.0
"""Activations, which follow normalization: y = activation(u), with u = gamma * x_hat + beta + residual.

::

    None, "identity"    u
    "relu"              u if above 0, else 0
    LeakyReLU(slope)    u if above 0, else slope * u
    Clip(low, high)     u, or the limit that it is beyond
    "relu6"             Clip(0, 6)
    "hard_swish"        u * clip(u + 3, 0, 6) / 6        (arXiv:1905.02244)
    "silu"              u / (1 + exp(-u))                (arXiv:1702.03118)

Activation and residual are computed with the numbers that y is rounded from, in the same pass over x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Union

from .._core import structs
from .._core.options import number
from .._core.pickling import Versioned
from .._core.public import publish


@publish
@dataclass(frozen=True)
class LeakyReLU(Versioned):
    """Leaky ReLU: u where it is above 0, else slope * u.

    Parameters
    ----------
    slope : float, default 0.01
        Finite, at least 0. Above 0 it can be inverted, so that backward() can do without x (`from_output`).

    Raises
    ------
    ValueError, TypeError
        The slope is no such number. By a call: it is above 0 and no normal number of the type that computes, which is
        float64 for an x of float64, else float32.
    """

    slope: float = 0.01

    def __post_init__(self) -> None:
        slope = number(self.slope, "slope")
        if not 0 <= slope < math.inf:
            raise ValueError(f"slope is {slope}, expected a finite number of at least 0")


@publish
@dataclass(frozen=True)
class Clip(Versioned):
    """u, limited to low and high. The gradient passes between the limits, not at them.

    Parameters
    ----------
    low, high : float
        Low below high; they may be infinite. Clip(0, 6) is ReLU6.

    Raises
    ------
    ValueError, TypeError
        The limits are no numbers, or low is not below high.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        low, high = number(self.low, "low"), number(self.high, "high")
        if not low < high:
            raise ValueError(f"low is {low} and high is {high}, expected low below high")


Name = Literal["identity", "relu", "relu6", "hard_swish", "silu"]
Activation = Union[Name, LeakyReLU, Clip]


class ResolvedActivation(NamedTuple):
    """An activation as the library takes it."""

    kind: structs.Activation
    slope: float = 0.01
    low: float = 0.0
    high: float = 6.0

    @property
    def is_bitwise(self) -> bool:
        """True if a bit for each element says all of the gradient."""
        return self.kind not in (structs.Activation.HARD_SWISH, structs.Activation.SILU)

    @property
    def has_inverse(self) -> bool:
        kinds = structs.Activation
        return self.kind == kinds.IDENTITY or (self.kind == kinds.LEAKY_RELU and self.slope > 0)


_NAMED = {
    "identity": ResolvedActivation(structs.Activation.IDENTITY),
    "relu": ResolvedActivation(structs.Activation.RELU),
    "relu6": ResolvedActivation(structs.Activation.CLIP, low=0.0, high=6.0),
    "hard_swish": ResolvedActivation(structs.Activation.HARD_SWISH),
    "silu": ResolvedActivation(structs.Activation.SILU),
}


def resolve(activation: Activation | None) -> ResolvedActivation:
    """A caller's `activation` as the library takes it."""
    if activation is None:
        return _NAMED["identity"]
    if isinstance(activation, str) and activation in _NAMED:
        return _NAMED[activation]
    if isinstance(activation, LeakyReLU):
        return ResolvedActivation(structs.Activation.LEAKY_RELU, slope=float(activation.slope))
    if isinstance(activation, Clip):
        return ResolvedActivation(structs.Activation.CLIP, low=float(activation.low), high=float(activation.high))
    raise _unknown(activation)


def _unknown(activation: Any) -> Exception:
    error = ValueError if isinstance(activation, str) else TypeError
    names = ", ".join(f"'{name}'" for name in _NAMED)
    return error(f"activation is {activation!r}, expected {names}, a LeakyReLU or a Clip")
