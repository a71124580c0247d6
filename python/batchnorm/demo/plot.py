# SPDX-License-Identifier: Apache-2.0
"""The picture: the loss at each learning rate, and the inputs of a hidden layer during training."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .report import groups
from .training import NAMES, PERCENTILES, Record

GUESSING = log(10)  # the loss of ten classes held equally likely
INK, MUTED, BLUE, PALE_BLUE = "#222222", "#767676", "#7fb8d8", "#cce3ef"
LOOK: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ebebeb",
    "figure.constrained_layout.h_pad": 0.1,
    "legend.frameon": False,
    "legend.title_fontsize": 10,
}


def draw_losses(axes: Axes, by_rate: dict[float, list[Record]]) -> None:
    """Draws a thin line per seed and rate, and a median per rate; a run that diverges is a cross at the top."""
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.88, len(by_rate)))
    for colour, (rate, runs) in zip(colours, sorted(by_rate.items())):
        losses = np.full((len(runs), max(len(run.loss) for run in runs)), np.nan)
        for row, run in zip(losses, runs):
            row[: len(run.loss)] = run.loss
        losses[~np.isfinite(losses)] = np.nan  # drawn as nothing, and no median without it
        epochs = np.arange(1, losses.shape[1] + 1)
        axes.plot(epochs, losses.T, color=colour, linewidth=0.8, alpha=0.45)
        axes.plot(epochs, np.median(losses, axis=0), color=colour, linewidth=2, label=f"{rate:g}")
        top = axes.get_xaxis_transform()
        for run in runs:
            if run.diverged:
                axes.plot(len(run.loss), 1, "X", color=colour, markersize=9, transform=top, clip_on=False)
    axes.axhline(GUESSING, color=MUTED, linestyle=":", linewidth=1.2)
    axes.text(1, 1.1 * GUESSING, "guessing", transform=axes.get_yaxis_transform(), ha="right", color=MUTED, fontsize=9)


def draw_percentiles(axes: Axes, run: Record) -> None:
    """The distribution of each epoch as a median in two nested bands."""
    epochs = np.arange(1, len(run.inputs_to_relu) + 1)
    lowest, low, middle, high, highest = np.reshape(run.inputs_to_relu, (-1, len(PERCENTILES))).T
    outer, inner = (f"{PERCENTILES[i]} % to {PERCENTILES[-1 - i]} %" for i in (0, 1))
    axes.fill_between(epochs, lowest, highest, color=PALE_BLUE, linewidth=0, label=outer)
    axes.fill_between(epochs, low, high, color=BLUE, linewidth=0, label=inner)
    axes.plot(epochs, middle, color=INK, linewidth=2, label="median")


def best_rate_without(records: Sequence[Record]) -> float:
    """The learning rate at which the network without batch norm did best, where a comparison of layers is fairest."""
    scores = {
        rate: mean(0.0 if run.diverged else run.accuracy[-1] for run in runs)
        for (rate, batch_norm), runs in groups(records).items()
        if not batch_norm
    }
    return max(scores, key=scores.__getitem__)


def add_legends(losses: Axes, inputs: Axes) -> None:
    """Adds a legend for each row, beside the right column."""
    rates, _ = losses.get_legend_handles_labels()
    key = [
        Line2D([], [], linewidth=0, label=" "),  # an empty line between the two parts
        Line2D([], [], color=MUTED, linewidth=2, label="median"),
        Line2D([], [], color=MUTED, linewidth=0.8, label="one seed"),
        Line2D([], [], color=MUTED, linewidth=0, marker="X", markersize=9, label="diverged"),
    ]
    losses.legend(title="learning rate", handles=rates + key, loc="upper left", bbox_to_anchor=(1, 1), alignment="left")
    inputs.legend(title="percentiles", loc="upper left", bbox_to_anchor=(1, 1), alignment="left")


def draw(records: Sequence[Record], output: Path) -> None:
    """Left column without batch norm, right column with it; the scales of a row are the same."""
    rate = best_rate_without(records)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(10.5, 7.6), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)  # no display is needed, whatever the user's backend
        grid = figure.subplots(2, 2, sharex=True, sharey="row")
        for (above, below), batch_norm in zip(grid.T, (False, True)):
            by_rate = {key: runs for (key, kind), runs in groups(records).items() if kind == batch_norm}
            draw_losses(above, by_rate)
            draw_percentiles(below, by_rate[rate][0])
            above.set_title(f"Training loss {NAMES[batch_norm]}")
            below.set_title(f"Inputs of the last ReLU {NAMES[batch_norm]}")
            below.set_xlabel("epoch")
        losses, inputs = grid[0, 0], grid[1, 0]
        lowest = min([0.1, *(loss for run in records for loss in run.loss if np.isfinite(loss))])
        losses.set_yscale("log")
        losses.set_ylim(0.7 * lowest, 3 * GUESSING)
        losses.yaxis.set_major_formatter("{x:g}")
        losses.set_ylabel("cross-entropy, mean of the epoch (nats)")
        inputs.set_ylabel(f"pre-activation at learning rate {rate:g} (no unit)")
        inputs.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        add_legends(grid[0, 1], grid[1, 1])
        figure.suptitle("A small network learns handwritten digits", fontsize=15, x=0.01, ha="left")
        figure.savefig(output, format="png")
