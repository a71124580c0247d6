# SPDX-License-Identifier: Apache-2.0
"""The table that the demo prints. Every figure in it was measured by this run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median, stdev

from .training import Record

GOAL = 0.95
HEADER = ("learning rate", "batch norm", "test accuracy", f"epochs to {GOAL:.0%}", "ms per epoch")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, aligned to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  " + "   ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in (header, rule, *rows)
    )


def groups(records: Sequence[Record]) -> dict[tuple[float, bool], list[Record]]:
    """The runs that differ in nothing but the seed."""
    grouped: dict[tuple[float, bool], list[Record]] = {}
    for record in records:
        grouped.setdefault((record.learning_rate, record.batch_norm), []).append(record)
    return grouped


def percent_over_seeds(accuracies: Sequence[float]) -> str:
    """Mean and standard deviation; a single seed has no deviation to speak of."""
    spread = f" ± {100 * stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    return f"{100 * mean(accuracies):.1f}{spread} %"


def accuracy_cell(runs: Sequence[Record]) -> str:
    finished = [run.accuracy[-1] for run in runs if not run.diverged]
    if not finished:
        return "diverged"
    diverged = len(runs) - len(finished)
    note = f"{diverged} of {len(runs)} diverged, else " if diverged else ""
    return note + percent_over_seeds(finished)


def epochs_cell(runs: Sequence[Record]) -> str:
    """The median over all seeds, a run that never arrives counting as infinitely slow."""
    typical = median(run.epochs_to(GOAL) or float("inf") for run in runs)
    return "-" if typical == float("inf") else f"{typical:g}"


def summary(records: Sequence[Record]) -> str:
    """One row for each learning rate, without and with batch norm."""
    rows = [
        (
            f"{learning_rate:g}",
            "with" if batch_norm else "without",
            accuracy_cell(runs),
            epochs_cell(runs),
            f"{1000 * median(seconds for run in runs for seconds in run.seconds):.1f}",
        )
        for (learning_rate, batch_norm), runs in groups(records).items()
    ]
    return table(HEADER, rows)
