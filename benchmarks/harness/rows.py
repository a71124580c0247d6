# SPDX-License-Identifier: Apache-2.0
"""Measurements as rows of a CSV file."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_type_hints


@dataclass(frozen=True)
class Row:
    """One system on one case. Ratios above 1 of a peer: so many times the time of this library, or of the floor."""

    isa: str
    threads: int
    family: str
    workload: str
    layout: str
    dtype: str
    operation: str
    system: str
    median_us: float
    mad_us: float
    rounds: int
    ratio_to_ours: float
    ratio_to_floor: float
    gb_per_s: float
    mbytes: float  # of one tensor

    @property
    def case(self) -> tuple[str, str, str]:
        return self.workload, self.layout, self.dtype


@dataclass(frozen=True)
class ErrorRow:
    """The largest error of y in units of eps * max(1, |y|)."""

    system: str
    mean_over_std: float
    error: float


@dataclass(frozen=True)
class SweepRow:
    """The cost of an element when one extent of the tensor grows."""

    threads: int
    axis: str
    value: int
    elements: int
    layout: str
    operation: str
    system: str
    ns_per_element: float


@dataclass(frozen=True)
class ScalingRow:
    """The same work with another number of threads."""

    elements: int
    layout: str
    operation: str
    system: str
    threads: int
    median_us: float
    speedup: float


@dataclass(frozen=True)
class VariantRow:
    """One variant of an operation. Ratios: over the same system's plain call, over the same in float32, over the same
    of this library, and over memcpy of the tensor.
    """

    isa: str
    threads: int
    family: str
    workload: str
    layout: str
    dtype: str
    operation: str
    variant: str
    system: str
    median_us: float
    mad_us: float
    rounds: int
    ratio_to_plain: float
    ratio_to_float32: float
    ratio_to_ours: float
    ratio_to_copy: float
    mbytes: float  # of one tensor


@dataclass(frozen=True)
class CallRow:
    """A call with a small tensor."""

    workload: str
    operation: str
    way: str  # from Python with arrays if it is empty
    median_us: float
    mad_us: float
    rounds: int


@dataclass(frozen=True)
class BesideRow:
    """One system on one case, called from C; the times of all places in a page together."""

    threads: int
    workload: str
    layout: str
    operation: str
    state: str  # warm, cold, reader
    system: str
    median_us: float
    p10_us: float
    rounds: int
    ratio_to_ours: float
    mbytes: float  # of one tensor


@dataclass(frozen=True)
class OffsetRow:
    """A call whose output begins so many bytes into a page."""

    workload: str
    layout: str
    operation: str
    offset: int
    median_us: float


AnyRow = TypeVar("AnyRow", Row, ErrorRow, SweepRow, ScalingRow, VariantRow, CallRow, BesideRow, OffsetRow)


def write(path: Path, rows: Iterable[AnyRow]) -> None:
    """Numbers to five digits: more is noise."""
    records = [dataclasses.asdict(row) for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, records[0] if records else [], lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in record.items()})


def read(path: Path, kind: type[AnyRow]) -> list[AnyRow]:
    """The rows of a file, none if there is no such file."""
    if not path.exists():
        return []
    types = get_type_hints(kind)
    with path.open(newline="", encoding="utf-8") as file:
        return [kind(**{name: types[name](text) for name, text in record.items()}) for record in csv.DictReader(file)]
