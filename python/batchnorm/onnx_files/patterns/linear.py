# SPDX-License-Identifier: Apache-2.0
"""The base of all layers: a weight that is known, and outputs that each have a scale and a shift."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...deploy.folded import Folded
from ...deploy.scale_shift import ScaleShift
from .._onnx import attributes
from ..report import NotFoldedError, label
from ..scope import Scope

Array = NDArray[Any]


class Linear:
    """A layer and its weight.

    Attributes
    ----------
    rank, axis : int
        The number of axes of its output, and which of them has the channels.
    channels : int
        The number of outputs.
    """

    rank: int
    axis: int
    channels: int

    def __init__(self, scope: Scope, node: Any) -> None:
        self.scope, self.node = scope, node
        self.told = attributes(node)
        self.weight = self.constant(1, "weight")
        self.bias: Array | None = None

    def constant(self, index: int, what: str) -> Array:
        name = self.node.input[index]
        found = self.scope.constants.get(name)
        if found is None:
            raise NotFoldedError(f"the {what} of {self.title} is not constant: {self.scope.constants.why_not(name)}")
        return found

    @property
    def title(self) -> str:
        return f"{self.node.op_type} {label(self.node)!r}"

    def after(self, form: ScaleShift) -> Folded:
        """The weight and the bias of the layer with the batch norm after it folded in."""
        raise NotImplementedError

    def before(self, form: ScaleShift) -> Folded:
        """The weight and the bias of the layer with the batch norm before it folded in."""
        raise NotImplementedError

    def write(self, folded: Folded) -> None:
        """Gives the node this weight and this bias."""
        self.scope.put(self.node, 1, folded.weight, f"{label(self.node)}_weight")
        self.scope.put(self.node, 2, folded.bias, f"{label(self.node)}_bias")


@contextmanager
def leaving(what: str) -> Iterator[None]:
    """Leaves a batch norm as it is where folding refuses it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise NotFoldedError(f"{what}: {error}") from None


def spread(form: ScaleShift, channels: int) -> ScaleShift:
    """A form of this many channels, of one that may be the same for all."""
    return ScaleShift(*(np.broadcast_to(each, (channels,)).astype(np.float64) for each in form))
