# SPDX-License-Identifier: Apache-2.0
"""Policies for running statistics, beyond a momentum: averages, batches of single and of non-finite values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core import structs
from .._core.arrays import address, is_array, plain, scattered
from .._core.options import member
from .._core.pickling import Versioned
from .._core.public import publish
from .._core.structs import sized

Counts = NDArray[np.int64]
Average = Literal["exponential", "cumulative", "windowed", "debiased", "filled"]
SingleValue = Literal["error", "running", "beta"]
Nonfinite = Literal["propagate", "skip", "error"]


@publish
@dataclass(frozen=True, eq=False)
class Running(Versioned):
    """A policy by which running statistics move: running = (1 - w) * running + w * batch, for the n-th batch they see.

    Only a batch that is USED (see Outcome) moves them, and counts.

    Parameters
    ----------
    average : str, default "exponential"
        The weight w::

            "exponential"    momentum
            "cumulative"     1 / n: all batches alike; as PyTorch's momentum=None
            "windowed"       1 / n, but at least momentum; as in dlib, whose window is 1 / momentum
            "debiased"       momentum / (1 - (1 - momentum)**n): without the starting values; as haiku
            "filled"         1 for the first, then momentum; as in equinox

    single_value : str, default "error"
        For a batch of one value per channel: "error", a ValueError; "running", what the running statistics,
        which are needed, normalize it to; "beta", beta, as x_hat is 0.
    nonfinite : str, default "propagate"
        For a batch of which some mean or variance is not finite: "propagate", the running statistics of that
        channel take it; "skip", those of all channels stay as they are; "error", a ValueError, for which one more pass
        over x is made.
    pure : bool, default False
        Nothing is updated in place: running_mean, running_var and `num_batches` are only read, and may be any
        array_like. Their new values are saved.running_mean, saved.running_var and saved.num_batches.
    num_batches : ndarray of int64, optional
        Batches seen so far, of one element; with groups that have running statistics each, one for each of them.
        Updated in place. Needed for all averages but the exponential one.

    Raises
    ------
    ValueError, TypeError
        A name is none of these, or not a text. By the call that it is given to: num_batches is missing or does not fit.

    Examples
    --------
    The plain average of two batches' means, which are 2 and 6:

    >>> import numpy as np
    >>> import batchnorm as bn
    >>> mean, var, count = np.zeros(1), np.ones(1), np.zeros(1, np.int64)
    >>> policy = bn.Running("cumulative", num_batches=count)
    >>> for x in (np.array([[1.0], [3.0]]), np.array([[5.0], [7.0]])):
    ...     y, saved = bn.forward_training(x, running_mean=mean, running_var=var, running=policy)
    >>> print(mean, count)
    [4.] [2]
    """

    average: Average = "exponential"
    single_value: SingleValue = "error"
    nonfinite: Nonfinite = "propagate"
    pure: bool = False
    num_batches: Any = None

    def __post_init__(self) -> None:
        member(structs.Average, self.average, "average")
        member(structs.SingleValue, self.single_value, "single_value")
        member(structs.Nonfinite, self.nonfinite, "nonfinite")


class RunningStruct(NamedTuple):
    """A Running as the library takes it, and its arrays."""

    struct: structs.Running
    new_num_batches: Counts | None  # of a policy that is pure
    outcome: NDArray[np.int32]
    num_batches: Counts | None  # the struct has its address, so that it has to live as long


def running_struct(running: Running, rows: int, statistics: int, means: Any, variances: Any) -> RunningStruct:
    """The struct for `rows` of running statistics and `statistics` groups; `means` and `variances` take new ones."""
    counts = _counts(running, rows)
    average = member(structs.Average, running.average, "average")
    if counts is None and average != structs.Average.EXPONENTIAL:
        raise ValueError(f"running has average {running.average!r} and no num_batches, which it needs")
    new_counts = np.empty_like(counts) if running.pure and counts is not None else None
    outcome = np.zeros(statistics, np.int32)
    struct = structs.Running(
        0,
        average,
        member(structs.SingleValue, running.single_value, "single_value"),
        member(structs.Nonfinite, running.nonfinite, "nonfinite"),
        0,
        None if counts is None else address(counts),
        None if means is None else address(means),
        None if variances is None else address(variances),
        None if new_counts is None else address(new_counts),
        address(outcome),
    )
    return RunningStruct(sized(struct), new_counts, outcome, counts)


def _counts(running: Running, rows: int) -> Counts | None:
    value: Any = running.num_batches
    if value is None:
        return None
    if running.pure:
        value = plain(value, "num_batches")
        if value.dtype.kind not in "iu":
            raise TypeError(f"num_batches has dtype {value.dtype}, expected int64")
        value = np.array(value, np.int64, order="C")
    if not is_array(value):
        kind = type(value).__name__
        raise TypeError(f"num_batches is of type {kind}, expected numpy.ndarray: it is updated in place")
    if value.dtype != np.int64:
        raise TypeError(f"num_batches has dtype {value.dtype}, expected int64")
    if value.size != rows or value.ndim > 1:
        raise ValueError(f"num_batches has shape {value.shape}, expected {() if rows == 1 else (rows,)}")
    if not value.flags.c_contiguous:
        raise scattered("num_batches", "it is updated in place")
    if not value.flags.writeable:
        raise ValueError("num_batches is read-only, but it is updated in place")
    if value.size and value.min() < 0:
        raise ValueError(f"num_batches is {value.min()}, expected at least 0")
    counts: Counts = value
    return counts
