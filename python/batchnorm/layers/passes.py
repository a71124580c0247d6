# SPDX-License-Identifier: Apache-2.0
"""The passes of recalibrate() over its batches: one for all layers, or one for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Callable

import numpy as np

from .._core.progress import shown
from .observer import Population, Turn


def iter_of(batches: Any) -> Iterator[Any]:
    """iter(batches), or a TypeError that says what they are."""
    try:
        return iter(batches)
    except TypeError as error:
        raise TypeError(f"batches is of type {type(batches).__name__}, expected an iterable") from error


class Pass:
    """Calls forward() with each batch, and tells the populations which it is."""

    def __init__(
        self, forward: Callable[[Any], Any], batches: Iterable[Any], num_batches: int | None, progress: bool | None
    ) -> None:
        self.forward, self.batches, self.num_batches, self.progress = forward, batches, num_batches, progress

    def __call__(self, populations: list[Population], turn: Turn | None = None) -> None:
        try:
            total = self.num_batches or len(self.batches)  # type: ignore[arg-type]
        except TypeError:
            total = None
        some = islice(iter_of(self.batches), self.num_batches)
        done = 0
        for number, batch in enumerate(shown(some, self.progress, total, " batches")):
            if turn is not None:
                turn.next_batch()
            for population in populations:
                population.batch = number
            try:
                self.forward(batch)
            except Exception as error:
                if hasattr(error, "add_note"):  # from Python 3.11 on
                    error.add_note(f"This was batch {number} of recalibrate().{self._advice()}")
                raise
            done += 1
        if done < (self.num_batches or 1):
            asked = f"batches ended after {done} of {self.num_batches}"
            raise ValueError(asked if self.num_batches else "batches is empty")

    def _advice(self) -> str:
        """Advice about an array in place of batches: its items are batches only if it has one axis more than x."""
        if not isinstance(self.batches, np.ndarray):
            return ""
        return " batches is an array, which gives one item of its first axis after the other: [x] is one batch."


def settle_in_turn(populations: list[Population], run: Pass) -> None:
    """A pass for each layer, in the order of their calls; all of them get new statistics, or none does."""
    undo: list[Callable[[], None]] = []
    waiting = list(populations)
    try:
        while waiting:
            turn = Turn()
            for population in waiting:
                population.turn = turn
            run(populations, turn)
            settled = turn.owner or waiting[0]  # of which statistics() says that it was never called
            statistics = settled.statistics()
            undo.append(_undo(settled))
            settled.write(statistics)
            settled.is_settled, settled.layer.training = True, False
            waiting.remove(settled)
    except BaseException:
        for step in undo:
            step()
        raise


def _undo(population: Population) -> Callable[[], None]:
    """A function that gives a layer the statistics back that it has now."""
    layer, count = population.layer, population.layer.num_batches_tracked
    kept = [(target, target.copy()) for target in population.targets()]

    def undo() -> None:
        for target, values in kept:
            target[...] = values
        layer.num_batches_tracked = count

    return undo
