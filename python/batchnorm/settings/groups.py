# SPDX-License-Identifier: Apache-2.0
"""The samples of a batch, along axis 0, in groups. An array that is not shared has a row per group: (groups, channels).

::

    Ghost           mean and variance per group; gamma, beta and running statistics are shared
    Segments        mean and variance, running statistics, gamma and beta, for groups that an index tells
    Split           the same for equal slices of the batch, gamma and beta shared or not
    Conditional     gamma and beta, for groups that an index tells; mean and variance are those of the whole batch
"""

from __future__ import annotations

import ctypes
import operator
from dataclasses import dataclass
from typing import Any, NamedTuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core.arrays import address, plain
from .._core.options import at_least_one, make_options
from .._core.pickling import Versioned
from .._core.public import publish
from .._core.structs import Groups as Struct
from .._core.structs import Options, PerGroup, sized


class Grouping(NamedTuple):
    """The groups of a batch as the library takes them."""

    struct: Struct
    groups: int
    per_group: PerGroup
    of_sample: NDArray[np.int32]  # by reference, where the library is given an index

    def rows(self, what: PerGroup) -> int:
        """The number of rows that something has: 0 without a row per group."""
        return self.groups if self.per_group & what else 0


@publish
@dataclass(frozen=True)
class Ghost(Versioned):
    """Ghost batches: each group is normalized with its own mean and variance (arXiv:1705.08741).

    In inference there are none: the running statistics are shared.

    Parameters
    ----------
    size : int
        Samples per group; divides the batch.
    interleaved : bool, default False
        Sample i is in group i % groups, as with virtual_batch_size of tf.keras 2, instead of beside its neighbours.
    averaged : bool, default False
        Running statistics move once, towards the average of the groups' means and variances, as with
        virtual_batch_size of tf.keras 2, instead of once for each group, in order.

    Raises
    ------
    ValueError, TypeError
        The size is no whole number, or below 1. By a call: it does not divide the batch, or axis 0 is a channel axis.
    """

    size: int
    interleaved: bool = False
    averaged: bool = False

    def __post_init__(self) -> None:
        at_least_one(self.size, "size")

    def _of(self, samples: int) -> Grouping:
        size = operator.index(self.size)
        if samples % size:
            raise ValueError(f"groups are of {size} samples, which do not divide the {samples} of x")
        groups = max(samples // size, 1)
        order = np.arange(samples)
        of_sample = order % groups if self.interleaved else order // size
        options = {"interleaved": bool(self.interleaved), "averaged": bool(self.averaged)}
        return _grouping(max(samples, 1), groups, PerGroup.STATISTICS, of_sample, **options)


@publish
@dataclass(frozen=True, eq=False)
class Segments(Versioned):
    """Samples of several types, each type with a batch normalization of its own, as in PyG's HeteroBatchNorm.

    Running statistics of types that a batch has no sample of stay as they are, and gradients of their parameters are 0.

    Parameters
    ----------
    index : array_like of int
        The type of each sample, from 0 to groups - 1: shape (samples,).
    groups : int
        The number of types.

    Raises
    ------
    ValueError, TypeError
        The number of types is no whole number, or below 1. By a call: the index is not of integers, has another length
        than the batch or a type out of its range, or axis 0 is a channel axis.
    """

    index: ArrayLike
    groups: int

    def __post_init__(self) -> None:
        at_least_one(self.groups, "groups")

    def _of(self, samples: int) -> Grouping:
        return _indexed(self.index, self.groups, samples, ALL)


@publish
@dataclass(frozen=True)
class Split(Versioned):
    """Equal slices of the batch, each with statistics of its own: a clean and an adversarial half (arXiv:1911.09665).

    Parameters
    ----------
    groups : int
        The number of slices, which divides the batch.
    shared_parameters : bool, default False
        gamma and beta are one for all slices.

    Raises
    ------
    ValueError, TypeError
        The number of slices is no whole number, or below 1. By a call: it does not divide the batch, or axis 0 is a
        channel axis.
    """

    groups: int
    shared_parameters: bool = False

    def __post_init__(self) -> None:
        at_least_one(self.groups, "groups")

    def _of(self, samples: int) -> Grouping:
        groups = operator.index(self.groups)
        if samples % groups:
            raise ValueError(f"groups are {groups}, which do not divide the {samples} samples of x")
        per_group = PerGroup.STATISTICS | PerGroup.RUNNING if self.shared_parameters else ALL
        of_sample = np.arange(samples) // max(samples // groups, 1)
        return _grouping(samples or groups, groups, per_group, of_sample)


@publish
@dataclass(frozen=True, eq=False)
class Conditional(Versioned):
    """A gamma and a beta for each class, or style, of samples (arXiv:1707.00683).

    Parameters
    ----------
    index : array_like of int
        The class of each sample, from 0 to groups - 1: shape (samples,).
    groups : int
        The number of classes.

    Raises
    ------
    ValueError, TypeError
        As of Segments.
    """

    index: ArrayLike
    groups: int

    def __post_init__(self) -> None:
        at_least_one(self.groups, "groups")

    def _of(self, samples: int) -> Grouping:
        return _indexed(self.index, self.groups, samples, PerGroup.PARAMETERS)


Groups = Union[Ghost, Segments, Split, Conditional]
ALL = PerGroup.STATISTICS | PerGroup.RUNNING | PerGroup.PARAMETERS


def grouping(groups: Groups | None, shape: tuple[int, ...], axes: tuple[int, ...]) -> Grouping | None:
    """The groups of a batch of this shape."""
    if groups is None:
        return None
    if not isinstance(groups, (Ghost, Segments, Split, Conditional)):
        raise TypeError(f"groups is of type {type(groups).__name__}, expected Ghost, Segments, Split or Conditional")
    if 0 in axes:
        raise ValueError("groups are of samples along axis 0, but that is a channel axis")
    return groups._of(shape[0])


def rows_of(groups: Groups | None) -> tuple[int, int]:
    """The rows of parameters and of running statistics, 0 for none, whatever the batch."""
    if isinstance(groups, Segments):
        return (groups.groups, groups.groups)
    if isinstance(groups, Split):
        return (0 if groups.shared_parameters else groups.groups, groups.groups)
    return (groups.groups if isinstance(groups, Conditional) else 0, 0)


def options_of(group: Grouping | None) -> Options | None:
    """Options that say nothing but the groups."""
    if group is None:
        return None
    options = make_options()
    options.groups = ctypes.pointer(group.struct)
    return options


def copied(groups: Groups | None) -> Groups | None:
    """The groups with an index that whoever has the original cannot change."""
    if not isinstance(groups, (Segments, Conditional)):
        return groups
    index = np.array(plain(groups.index, "index"))
    index.flags.writeable = False
    return type(groups)(index, groups.groups)


def _indexed(index: ArrayLike, groups: int, samples: int, per_group: PerGroup) -> Grouping:
    given = plain(index, "index")
    if given.dtype.kind not in "iu" and given.size:
        raise TypeError(f"index has dtype {given.dtype}, expected int32")
    if given.shape != (samples,):
        raise ValueError(f"index has shape {given.shape}, expected {(samples,)}: a group for each sample of x")
    if samples and not 0 <= given.min() <= given.max() < groups:
        wrong = given[(given < 0) | (given >= groups)][0]
        raise ValueError(f"index has a group {wrong}, expected 0 to {groups - 1}")
    of_sample = np.ascontiguousarray(given if samples else [0], np.int32)
    made = _grouping(max(samples, 1), operator.index(groups), per_group, of_sample)
    made.struct.index = address(of_sample)
    return made


def _grouping(
    samples: int,
    groups: int,
    per_group: PerGroup,
    of_sample: Any,
    interleaved: bool = False,
    averaged: bool = False,
) -> Grouping:
    struct = sized(Struct(0, samples, groups, None, interleaved, int(per_group), averaged, 0))
    return Grouping(struct, groups, per_group, of_sample)
