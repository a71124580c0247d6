# SPDX-License-Identifier: Apache-2.0
"""The statistics of a model's batch norms, layer by layer, in a picture. Needs matplotlib."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from .._core.text import printable
from .findings import Finding
from .norm import Array, Norm

# Blue and orange differ for all eyes; and a finding has a marker of its own.
_BAND, _FOUND = "#1f77b4", "#d95f02"
_LEVELS = 0, 25, 50, 75, 100
_MOST_LABELS = 60


def draw(path: Path, title: str, norms: Sequence[tuple[Norm, Sequence[Finding]]]) -> None:
    """Draws sqrt(var), |mean| / std and |gamma| / std of each layer with their quartiles, and marks findings.

    Parameters
    ----------
    path : path
        Whose suffix says the format; the file is there as a whole or, after an error, not at all.
    title : str
    norms : sequence of (Norm, findings)
        That have statistics.

    Raises
    ------
    ValueError
        The format is none of matplotlib's.
    OSError
        The file cannot be written.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}")
    figure = Figure(figsize=(min(6 + 0.22 * len(norms), 24), 9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 1, sharex=True)
    stds = [np.sqrt(np.maximum(norm.var, 0)) for norm, _ in norms if norm.var is not None]
    means = [
        np.abs(norm.mean) / np.sqrt(np.maximum(norm.var, 0) + norm.eps_or_assumed)
        for norm, _ in norms
        if norm.mean is not None and norm.var is not None
    ]
    panels = (
        ("standard deviation", stds),
        ("|mean| / std", means),
        ("|gamma| / std", [norm.scale() for norm, _ in norms]),
    )
    kinds = ({"tiny", "negative", "exploding", "never", "nonfinite"}, {"cancellation"}, {"dead", "scale"})
    for axis, (label, values), marked in zip(axes, panels, kinds):
        bad = [index for index, (_, found) in enumerate(norms) if marked & {each.kind for each in found}]
        _panel(axis, label, values, bad)
    axes[0].set_xlim(-0.5, len(norms) - 0.5)
    number = "1 batch norm" if len(norms) == 1 else f"{len(norms)} batch norms, first layer left"
    axes[0].set_title(f"{printable(title)}: {number}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    every = -(-len(norms) // _MOST_LABELS)
    names = [printable(norm.name) for norm, _ in norms]
    names = [name if len(name) <= 28 else "..." + name[-25:] for name in names]
    axes[-1].set_xticks(range(0, len(norms), every), names[::every], rotation=90, fontsize="x-small")
    beside = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        figure.savefig(beside, dpi=120)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _panel(axis: Axes, label: str, values: list[Array], bad: list[int]) -> None:
    """One row of the figure: percentiles per layer, with a mark on the layers that have a finding."""
    layers, edges = np.arange(len(values)), np.arange(len(values) + 1) - 0.5
    levels = np.array([_percentiles(each) for each in values]).T
    for lowest, highest, alpha, said in (
        (0, 4, 0.15, "smallest to largest"),
        (1, 3, 0.35, "the middle half of the channels"),
    ):
        low, high = (np.append(levels[each], levels[each, -1]) for each in (lowest, highest))
        axis.fill_between(edges, low, high, color=_BAND, alpha=alpha, linewidth=0, step="post", label=said)
    axis.plot(layers, levels[2], color=_BAND, marker=".", label="median")
    axis.plot(bad, levels[4][bad], "v", color=_FOUND, label="a finding")
    decades = np.log10(np.nanmax(levels) / np.nanmin(levels)) if np.any(levels > 0) else 0
    if decades > 0.3:
        axis.set_yscale("log")
        axis.yaxis.set_minor_formatter(NullFormatter())
    if 0.3 < decades < 3:  # more numbers than powers of ten
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades > 0.7 else range(1, 10)))
    if decades < 3:
        axis.yaxis.set_major_formatter("{x:g}")
    axis.set_ylabel(label)
    axis.grid(alpha=0.3)


def _percentiles(values: Array) -> Array:
    """The percentiles of those numbers that a logarithmic axis can show."""
    shown = values[np.isfinite(values) & (values > 0)]
    levels: Array = np.percentile(shown, _LEVELS) if shown.size else np.full(len(_LEVELS), np.nan)
    return levels
