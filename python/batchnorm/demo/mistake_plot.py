# SPDX-License-Identifier: Apache-2.0
"""The picture of the classic mistake: one network, evaluated in eval mode and in training mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .mistake import Shares
from .plot import INK, LOOK, MUTED

# The colour-blind can tell these apart, and markers and dashes differ as well.
CURVES = {
    "right": ("eval mode: right", "#0072b2", "o", "-"),
    "shuffled": ("training mode, images shuffled", "#d55e00", "s", "--"),
    "by_class": ("training mode, images sorted by class", "#7a3e77", "D", ":"),
}


def draw_shares(axes: Axes, shares: Sequence[Shares]) -> None:
    """Accuracy over the number of images per batch, with the numbers at the ends that the lesson is about."""
    sizes = [each.size for each in shares]
    for column, (label, color, marker, dashes) in CURVES.items():
        percent = [100 * getattr(each, column) for each in shares]
        axes.plot(sizes, percent, color=color, marker=marker, linestyle=dashes, linewidth=2, markersize=7, label=label)
        for index in (0, -1):
            if column != "right" and abs(percent[index] - 100 * shares[index].right) < 4:
                continue  # it would stand upon the other one
            axes.annotate(
                f"{percent[index]:.0f} %",
                (sizes[index], percent[index]),
                (-10 if index == 0 else 10, 0),
                textcoords="offset points",
                ha="right" if index == 0 else "left",
                va="center",
                color=color,
                fontweight="bold",
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlim(sizes[0] / 1.8, sizes[-1] * 1.8)
    axes.set_ylim(0, 105)
    axes.set_xlabel("images per batch, as the network is evaluated")
    axes.set_ylabel("test accuracy, %")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), labelcolor=INK)


def title(shares: Sequence[Shares]) -> str:
    """The lesson in the numbers of this run."""
    first = shares[0]
    wrong = f"{100 * first.shuffled:.0f} % in training mode\nwith {first.size} images at a time"
    sorted_wrong = f"{100 * first.by_class:.0f} % if they come sorted by class"
    return f"Call eval() before you evaluate: {100 * first.right:.0f} % become {wrong}, and {sorted_wrong}"


def draw(shares: Sequence[Shares], output: Path) -> None:
    """One picture, whose title says what is to be learnt."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9.6, 4.6), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)  # no display is needed, whatever the user's backend
        draw_shares(figure.subplots(), shares)
        figure.suptitle(title(shares), fontsize=13, fontweight="bold", x=0.008, ha="left")
        note = "The same trained network, the same 448 digits: only the mode, the batches and their order differ."
        figure.supxlabel(note, fontsize=9, color=MUTED, x=0.008, ha="left")
        figure.savefig(output, format="png", metadata={"Title": title(shares).replace("\n", " ")})
