# SPDX-License-Identifier: Apache-2.0
"""The arguments of a call beside the plain ones, in one object."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from .._core.arrays import Doubles
from .._core.weights import Masked, PositionWeights
from ..settings.activations import Activation, ResolvedActivation, resolve
from ..settings.groups import Ghost, Groups, Segments, Split
from ..settings.running import Running, SingleValue
from ..settings.sources import Source


class Extras(NamedTuple):
    """The extras as a caller gives them; see forward_training(). The defaults change nothing."""

    activation: Activation | None = None
    residual: ArrayLike | None = None
    weights: ArrayLike | None = None
    lengths: ArrayLike | None = None
    masked: Masked = "normalize"
    running: Running | None = None
    source: Source | None = None
    groups: Groups | None = None
    save_mask: bool = False

    def positions(self) -> PositionWeights:
        """The part that is about positions."""
        return PositionWeights(self.weights, self.lengths, self.masked)

    def frozen(self) -> dict[str, Any]:
        """The part that frozen_statistics() takes."""
        names = ("activation", "residual", "weights", "lengths", "masked", "groups")
        return {name: getattr(self, name) for name in names}


class SavedExtras(NamedTuple):
    """The extras of a forward call, as far as backward() has to know them."""

    activation: ResolvedActivation = resolve(None)
    has_residual: bool = False
    residual: Any = None  # unless the gradient can do without
    positions: PositionWeights = PositionWeights()
    source: Source | None = None
    of_source: Doubles | None = None
    groups: Groups | None = None
    rows: int = 0  # of gamma and beta
    single_value: SingleValue = "error"
    bits: Any = None
    order: tuple[int, ...] = ()  # of the axes in memory, which is that of the bits

    @property
    def has_rows(self) -> bool:
        """True if each group has statistics of its own."""
        return isinstance(self.groups, (Ghost, Segments, Split))
