# SPDX-License-Identifier: Apache-2.0
"""Batch norms that were folded, and those that were left, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class NotFoldedError(Exception):
    """A batch norm stays where it is; the message says why."""


class NoLayerError(NotFoldedError):
    """The neighbour of a batch norm can take none up."""


@dataclass(frozen=True)
class Fold:
    """A node that was folded.

    Attributes
    ----------
    name : str
        The name of the node or, if it has none, of its output.
    how : str
        Where it went.
    tensors : tuple of str
        The first tensors that are the same in both models.
    top : bool
        True if they are of the graph itself, not of one within it.
    """

    name: str
    how: str
    tensors: tuple[str, ...]
    top: bool


@dataclass
class Report:
    """The batch norms of a model: those that were folded, and those that were left.

    Attributes
    ----------
    folded : list of Fold
        Batch norms, and what was one in other words.
    merged : list of Fold
        Other nodes, such as the Scale of Caffe, that a batch norm took up.
    left : list of (str, str)
        The name of each batch norm that is left, and the reason.
    """

    folded: list[Fold] = field(default_factory=list)
    merged: list[Fold] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)

    @property
    def tensors(self) -> list[str]:
        """The tensors of the graph itself that are to be compared."""
        return [name for fold in (*self.folded, *self.merged) if fold.top for name in fold.tensors]

    @property
    def within(self) -> int:
        """The number of batch norms that were folded in subgraphs."""
        return sum(not fold.top for fold in self.folded)


def label(node: Any) -> str:
    """A node's name or, if it has none, that of its output."""
    return str(node.name or next(iter(node.output), node.op_type))
