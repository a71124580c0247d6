# SPDX-License-Identifier: Apache-2.0
"""Batch norms that were folded, and those that were left, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class NotFoldedError(Exception):
    """A batch norm stays where it is; the message says why."""


class NoLayerError(NotFoldedError):
    """It has a neighbour that can take up no batch norm."""


@dataclass(frozen=True)
class Fold:
    """A batch norm that is gone.

    Attributes
    ----------
    name : str
        Of the node or, if it has none, of its output.
    how : str
        Where it went.
    tensors : tuple of str
        The first tensors that are the same in both models.
    top : bool
        Whether they are of the graph itself, not of one within it.
    """

    name: str
    how: str
    tensors: tuple[str, ...]
    top: bool


@dataclass
class Report:
    """All of a model's.

    Attributes
    ----------
    folded : list of Fold
    left : list of (str, str)
        The name of each that is left, and the reason.
    merged : dict
        Of other nodes that are gone, such as the Scale of Caffe: the tensor that is the same in both models.
    """

    folded: list[Fold] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    merged: dict[str, str] = field(default_factory=dict)

    @property
    def norms(self) -> int:
        return len(self.folded) + len(self.left)


def label(node: Any) -> str:
    """A node's name or, if it has none, that of its output."""
    return str(node.name or next(iter(node.output), node.op_type))
