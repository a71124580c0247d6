# SPDX-License-Identifier: Apache-2.0
"""The moments of all values that go into a layer while recalibrate() runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core.arrays import Array, Doubles, running
from .._core.layout import channel_axes, dense_plan
from .._core.rounding import cast
from .._core.structs import PerGroup
from .._core.weights import PositionWeights
from ..settings.groups import grouping, rows_of
from ..statistics.moments import Moments

if TYPE_CHECKING:
    from .layer import BatchNorm


class Statistics(NamedTuple):
    """New statistics of a layer, the arrays that they go into, and which rows of these: those that have seen values."""

    targets: list[Array]
    rows: Any  # an index; without rows, all of an array
    mean: NDArray[Any]
    var: NDArray[Any]


class Turn:
    """The layer, of several, that this pass is for: the first one called of those that are not settled."""

    def __init__(self) -> None:
        self.owner: Population | None = None
        self.next_batch()

    def next_batch(self) -> None:
        """Begins a batch, in which the owner has to be called first again: layers before it do not evaluate yet."""
        self.was_called = False
        self.other: Population | None = None

    def is_of(self, population: Population) -> bool:
        """True if it is the turn of this layer, which is about to be called."""
        self.owner = self.owner or population
        if population is not self.owner:
            self.other = self.other or population
            return False
        if self.other is not None and not self.was_called:
            raise ValueError(
                f"forward() calls {self.other.name} before {population.name} in batch {population.batch}, "
                "but not in an earlier one: layerwise=True needs one order of the layers"
            )
        self.was_called = True
        return True


class Population:
    """The moments of what goes into a layer: an observer that the layer's calls report to."""

    def __init__(self, layer: BatchNorm, name: str) -> None:
        self.layer = layer
        self.name = f"{name} ({type(layer).__name__} of {layer.num_features} channels)"
        self.batch = 0
        self.turn: Turn | None = None
        self.is_settled = False  # then the layer has its new statistics, and evaluates with them
        if layer._observer is not None:
            raise RuntimeError(f"{self.name} is being recalibrated already")
        if not layer.num_features:
            raise RuntimeError(f"{self.name} is lazy: its first call tells the number of channels")
        if not layer.track_running_stats:
            raise ValueError(f"{self.name} keeps no running statistics")
        if layer.frozen:
            raise ValueError(f"{self.name} is frozen: its running statistics are to stay as they are")
        self.has_rows = rows_of(layer.groups)[1] > 0
        rows = rows_of(layer.groups)[1] or 1
        self.moments = [Moments(layer.axis, layer.num_features) for _ in range(rows)]
        self.counts = np.zeros(rows, np.int64)
        self.calls = 0
        self.targets()

    def targets(self) -> list[Array]:
        """The layer's running_mean and running_var, checked, with a row for each of the moments if there are rows."""
        shape = self.moments[0].mean.shape
        shape = (len(self.moments), *shape) if self.has_rows else shape
        fit = dense_plan(shape, self.layer.param_dtype, tuple(range(len(shape))))
        assert fit is not None, "a dense array fits"
        fit = fit._replace(dtype=self.layer.dtype, param=self.layer.param_dtype)
        arrays = {name: getattr(self.layer, name) for name in ("running_mean", "running_var")}
        for name, array in arrays.items():
            if running(array, f"{name} of {self.name}", fit) is None:
                raise ValueError(f"{name} of {self.name} is None, expected an array")
        return [array.reshape(shape) for array in arrays.values()]

    def look(self, x: Array, positions: PositionWeights) -> list[tuple[int, Moments]] | None:
        """The moments of what goes into a call, with the row that they belong to; None while others have their turn."""
        if self.turn is not None and not self.turn.is_of(self):
            return None
        axes = channel_axes(self.layer.axis, x.ndim)
        group = grouping(self.layer.groups, x.shape, axes)
        if (group.rows(PerGroup.RUNNING) if group else 0) != (len(self.moments) if self.has_rows else 0):
            raise ValueError(f"{self.name} has groups {self.layer.groups!r}, which its running statistics are not of")
        weights = positions.of(x, axes)
        samples: list[tuple[int, Any]] = [(0, slice(None))]
        if group is not None and group.per_group & PerGroup.STATISTICS and x.size:
            # One by one, because one that is not finite may be left out.
            present = np.unique(group.of_sample).tolist()
            samples = [(g if self.has_rows else 0, np.flatnonzero(group.of_sample == g)) for g in present]
        parts = [
            (row, Moments(self.layer.axis).update(x[own], None if weights is None else weights[own]))
            for row, own in samples
        ]
        parts = [(row, part) for row, part in parts if part.count.any()]
        if not parts:
            raise ValueError(f"batch {self.batch} is empty where it reaches {self.name}")
        policy = self.layer.running
        if policy is not None and policy.nonfinite == "skip":
            parts = [(row, part) for row, part in parts if _finite(part).all()]
        return parts

    def take(self, parts: list[tuple[int, Moments]] | None) -> None:
        """Pools what look() gave, after the call has succeeded."""
        if parts is None:
            return
        self.calls += 1
        for row, part in parts:
            self.moments[row].merge(part)
        for row in {row for row, _ in parts}:
            self.counts[row] += 1
            wrong = ~_finite(self.moments[row])
            if wrong.any():
                told = f"batch {self.batch} makes the statistics of {self.name} infinite or NaN"
                raise ValueError(f"{told}: channel {_first(wrong)}")

    def statistics(self) -> Statistics:
        """The statistics that write() takes. It checks everything that could be in the way of write()."""
        if not self.counts.any():
            reason = "had no batch that was finite" if self.calls else "was never called by forward()"
            raise ValueError(f"{self.name} {reason}")
        targets = self.targets()
        if np.may_share_memory(targets[0], targets[1]):
            raise ValueError(f"running_var of {self.name} overlaps its running_mean")
        means, variances = [], []
        for row in np.flatnonzero(self.counts):
            whose, moments = f"group {row} of {self.name}" if self.has_rows else self.name, self.moments[row]
            if self.layer.unbiased and not (moments.count > 1).all():
                raise ValueError(f"{whose} saw one value per channel, which has no unbiased variance")
            means.append(self.rounded(moments.mean, f"mean of {whose}"))
            variances.append(self.rounded(moments.var(self.layer.unbiased), f"variance of {whose}"))
        if self.has_rows:
            return Statistics(targets, np.flatnonzero(self.counts), np.stack(means), np.stack(variances))
        return Statistics(targets, ..., means[0], variances[0])

    def rounded(self, values: Doubles, name: str) -> NDArray[Any]:
        """The values as the layer's running statistics have them."""
        result = cast(values, self.layer.param_dtype)
        finite = np.isfinite(result)
        if not finite.all():
            value = values[~finite][0]
            raise ValueError(f"the {name} is {value:g} in channel {_first(~finite)}, which is beyond {result.dtype}")
        return result

    def write(self, statistics: Statistics) -> None:
        """Makes them the layer's running statistics."""
        for target, values in zip(statistics.targets, (statistics.mean, statistics.var)):
            target[statistics.rows] = values
        seen, layer = self.counts > 0, self.layer
        layer.num_batches_tracked = (
            np.where(seen, self.counts, layer.num_batches_tracked) if self.has_rows else int(self.counts[0])
        )


def _finite(moments: Moments) -> NDArray[np.bool_]:
    return np.isfinite(moments.mean) & np.isfinite(moments.m2)


def _first(mask: NDArray[np.bool_]) -> Any:
    """The channel that comes first in a mask of channels."""
    found = np.argwhere(mask)[0].tolist()
    return found[0] if len(found) == 1 else tuple(found)
