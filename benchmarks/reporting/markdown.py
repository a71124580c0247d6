# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, isnan, log


def table(head: Sequence[str], body: Iterable[Sequence[str]], words: int = 1) -> str:
    """The first columns, so many of them, hold words; the others hold numbers and are set to the right."""
    rule = ["---"] * words + ["--:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *body)) + "\n"


def ratio(value: float | None) -> str:
    return "" if value is None or isnan(value) else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def digits(value: float | None) -> str:
    """Three of them."""
    if value is None or isnan(value):
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def geometric_mean(values: Iterable[float]) -> float | None:
    logs = [log(value) for value in values if value > 0]
    return exp(sum(logs) / len(logs)) if logs else None
