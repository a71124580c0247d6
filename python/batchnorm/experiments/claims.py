# SPDX-License-Identifier: Apache-2.0
"""The claim of an experiment: a sentence, and thresholds that its numbers have to pass."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Row = dict[str, Any]
Rows = Sequence[Row]


class Check(NamedTuple):
    """A number of this run and where it has to be: at least, or at most, the threshold."""

    what: str
    value: float
    sign: str
    threshold: float

    @property
    def holds(self) -> bool:
        """True if the number passes its threshold; NaN does not."""
        return self.value >= self.threshold if self.sign == ">=" else self.value <= self.threshold

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.3g} {self.sign} {self.threshold:g}" + ("" if self.holds else ", which fails")


@dataclass(frozen=True)
class Claim:
    """A sentence with the numbers of this run, and what has to be true for it to be said."""

    sentence: str
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)


def values(rows: Rows, column: str, **where: object) -> list[float]:
    """A column of those rows that have these values in other columns."""
    found = [row[column] for row in rows if all(row[key] == value for key, value in where.items())]
    if not found:
        raise ValueError(f"no row has {', '.join(f'{key} {value!r}' for key, value in where.items())}")
    return found


def mean(rows: Rows, column: str, **where: object) -> float:
    return statistics.mean(values(rows, column, **where))


def deviation(rows: Rows, column: str, **where: object) -> float:
    """The standard deviation over seeds; 0 of a single one, which has none."""
    found = values(rows, column, **where)
    return statistics.stdev(found) if len(found) > 1 else 0.0


def distinct(rows: Rows, column: str) -> list[Any]:
    """The values of a column, each once, in the order in which they come."""
    return list(dict.fromkeys(row[column] for row in rows))
