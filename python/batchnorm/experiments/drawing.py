# SPDX-License-Identifier: Apache-2.0
"""The look of the pictures.

Colours are Okabe and Ito's, which the colour-blind can tell apart; markers and dashes differ as well.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..demo.plot import LOOK, MUTED
from .claims import Rows, deviation, mean


class Style(NamedTuple):
    """The look of one kind of network, the same in every picture."""

    color: str
    marker: str
    linestyle: str


WITHOUT, WITH = Style("#d55e00", "s", "--"), Style("#0072b2", "o", "-")
THIRD, FOURTH = Style("#009e73", "^", "-."), Style("#7a3e77", "D", ":")
WIDTH = 9.6  # inches


def balanced(text: str, columns: int = 84) -> str:
    """Breaks a text into as few lines as columns allow, of about the same length."""
    fewest = len(textwrap.wrap(text, columns))
    width = next(each for each in range(len(text) // fewest, columns + 1) if len(textwrap.wrap(text, each)) == fewest)
    return "\n".join(textwrap.wrap(text, width))


def picture(title: str, note: str, draw: Callable[[Figure], None], *, height: float = 4.4) -> Figure:
    """A figure with the lesson above, and below it what was measured."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, height), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)  # no display is needed, whatever the user's backend
        draw(figure)
        figure.suptitle(balanced(title), fontsize=13, fontweight="bold", x=0.008, ha="left")
        figure.supxlabel(note, fontsize=9, color=MUTED, x=0.008, ha="left")
    return figure


def png(figure: Figure, title: str) -> bytes:
    """The picture as a file of 64 colours, which has its title in it as well."""
    drawn, buffer = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(LOOK):
        figure.savefig(drawn, format="png")
    info = PngInfo()
    info.add_text("Title", title)
    pixels = Image.open(drawn).convert("RGB")
    pixels.quantize(64, dither=Image.Dither.NONE).save(buffer, "png", optimize=True, pnginfo=info)
    return buffer.getvalue()


def guessing(axes: Axes) -> None:
    """Marks the accuracy of a network that guesses among ten classes."""
    axes.axhline(10, color=MUTED, linestyle=":", linewidth=1)
    axes.text(1, 8, "guessing", transform=axes.get_yaxis_transform(), ha="right", va="top", color=MUTED, fontsize=9)


def curve(
    axes: Axes, rows: Rows, x: str, y: str, points: Sequence[float], style: Style, label: str, **where: Any
) -> None:
    """The mean over seeds at each point, with a bar of one standard deviation to either side."""
    means = [mean(rows, y, **{x: point}, **where) for point in points]
    spreads = [deviation(rows, y, **{x: point}, **where) for point in points]
    axes.errorbar(
        points,
        means,
        spreads,
        label=label,
        color=style.color,
        marker=style.marker,
        linestyle=style.linestyle,
        linewidth=1.8,
        markersize=6,
        capsize=2.5,
        elinewidth=1,
    )
