# SPDX-License-Identifier: Apache-2.0
"""The pictures: times of the floor per workload, cost per element against size, what threads bring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from harness.rows import BesideRow, Row, ScalingRow, SweepRow
from harness.workloads import OPERATIONS
from peers import OURS_FROM_C

from .beside import groups
from .speed import peers_in

INK, MUTED, OURS_COLOUR = "#222222", "#767676", "#2b7bba"
MARKS = "osD^vPX*"
LOOK: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ebebeb",
    "legend.frameon": False,
}


def canvas(title: str, rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)  # no display is needed, whatever the user's backend
    figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def draw_roofline(axes: Axes, rows: Sequence[Row], peers: Sequence[str]) -> None:
    """A bar for this library, a mark for each peer."""
    cases = list(dict.fromkeys(row.workload for row in rows if row.system == OURS_FROM_C))
    places = {workload: place for place, workload in enumerate(reversed(cases))}
    ours = {row.workload: row.ratio_to_floor for row in rows if row.system == OURS_FROM_C}
    axes.barh([places[w] for w in ours], list(ours.values()), color=OURS_COLOUR, height=0.65, label="libbatchnorm")
    for mark, name in zip(MARKS, peers):
        found = {row.workload: row.ratio_to_floor for row in rows if row.system == name and row.workload in places}
        axes.plot(list(found.values()), [places[w] for w in found], mark, markersize=5, label=name, alpha=0.85)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(left=0.8)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(visible=False, axis="y")
    axes.set_yticks(list(places.values()), list(places))
    axes.set_xlabel("times the floor (log scale)")


def roofline(rows: list[Row], operation: str, threads: int, path: Path) -> None:
    here = [row for row in rows if (row.operation, row.threads, row.dtype) == (operation, threads, "float32")]
    columns = {"NCHW and NC": ("NCHW", "NC"), "NHWC": ("NHWC",)}
    number = len({row.workload for row in here})
    title = f"{operation}, float32, {threads} thread{'s' * (threads > 1)}"
    figure, grid = canvas(title, 1, 2, (11, 2.2 + 0.22 * number))
    for axes, (name, layouts) in zip(grid[0], columns.items()):
        draw_roofline(axes, [row for row in here if row.layout in layouts], peers_in(here))
        axes.set_title(name)
    grid[0][0].legend(fontsize=8, loc="upper right")
    figure.savefig(path)


def sweep(rows: list[SweepRow], threads: int, path: Path) -> None:
    """Cost of an element against each extent: solid is this library, dotted the floor."""
    axes_names = list(dict.fromkeys(row.axis for row in rows))
    layouts = list(dict.fromkeys(row.layout for row in rows))
    title = f"Cost of an element, {threads} thread{'s' * (threads > 1)}"
    figure, grid = canvas(title, len(layouts), len(axes_names), (12, 7), sharey=True)
    for line, layout in zip(grid, layouts):
        for axes, axis in zip(line, axes_names):
            for number, operation in enumerate(OPERATIONS):
                for system, style in (("batchnorm", "-"), ("copy", ":")):
                    key = (threads, axis, layout, operation, system)
                    curve = [r for r in rows if (r.threads, r.axis, r.layout, r.operation, r.system) == key]
                    label = operation if style == "-" else f"{operation}, floor"
                    values, costs = [r.value for r in curve], [r.ns_per_element for r in curve]
                    axes.plot(values, costs, style, color=f"C{number}", linewidth=1.2, label=label)
            axes.set(xscale="log", yscale="log", xlabel=axis, title=f"{layout}, growing {axis}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        line[0].set_ylabel("ns per element")
    grid[0][-1].legend(fontsize=8)
    figure.savefig(path)


def scaling(rows: list[ScalingRow], path: Path) -> None:
    layouts = list(dict.fromkeys(row.layout for row in rows))
    figure, grid = canvas("What threads bring", len(layouts), len(OPERATIONS), (12, 6.5), sharey=True)
    for line, layout in zip(grid, layouts):
        for axes, operation in zip(line, OPERATIONS):
            here = [row for row in rows if (row.layout, row.operation) == (layout, operation) and row.threads > 1]
            for name, threads in dict.fromkeys((row.system, row.threads) for row in here):
                curve = [row for row in here if (row.system, row.threads) == (name, threads)]
                style = "-o" if name == "batchnorm" else ":"
                points = np.array([(row.elements, row.speedup) for row in curve])
                axes.plot(points[:, 0], points[:, 1], style, markersize=3, label=f"{name}, {threads} threads")
            axes.axhline(1, color=INK, linewidth=1)
            axes.set(xscale="log", xlabel="elements", title=f"{operation}, {layout}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        line[0].set_ylabel("times as fast as 1 thread")
    grid[0][0].set_ylim(bottom=0)  # of all: they share it
    for axes in grid[0]:
        axes.legend(fontsize=8)
    figure.savefig(path)


def beside(rows: list[BesideRow], threads: int, path: Path) -> None:
    """A mark for each case: the peer's time over ours against the size of the tensor."""
    here = groups([row for row in rows if row.threads == threads and row.state == "warm"])
    layouts = list(dict.fromkeys(layout for _, _, layout, _ in here))
    title = f"Peers called from C beside this library, {threads} thread{'s' * (threads > 1)}"
    figure, grid = canvas(title, len(layouts), len(OPERATIONS), (12, 3.2 * len(layouts)), sharey=True)
    peers = list(dict.fromkeys(peer for peer, _, _, _ in here))
    for line, layout in zip(grid, layouts):
        for axes, operation in zip(line, OPERATIONS):
            for mark, peer in zip(MARKS, peers):
                cases = here.get((peer, threads, layout, operation), [])
                x, y = [row.mbytes for row in cases], [row.ratio_to_ours for row in cases]
                axes.plot(x, y, mark, markersize=4, alpha=0.8, label=peer)
            axes.axhline(1, color=INK, linewidth=1)
            axes.set(xscale="log", yscale="log", xlabel="MB of a tensor", title=f"{operation}, {layout}")
            axes.yaxis.set_major_formatter("{x:g}")
        line[0].set_ylabel("times our time (log scale)")
    grid[0][0].legend(fontsize=8)
    figure.savefig(path)


def draw_all(
    directory: Path, speed: list[Row], from_c: list[BesideRow], swept: list[SweepRow], scaled: list[ScalingRow]
) -> list[str]:
    """Every picture that there are rows for; their names."""
    names = []

    def name(text: str) -> Path:
        names.append(text)
        return directory / text

    with mpl.rc_context(LOOK):
        for threads in sorted({threads for _, threads, _, _ in groups(from_c)}):
            beside(from_c, threads, name(f"beside-{threads}.png"))
        widest = [row for row in speed if row.isa == speed[0].isa]
        for threads in sorted({row.threads for row in widest}):
            for operation in OPERATIONS:
                roofline(widest, operation, threads, name(f"{operation}-{threads}.png"))
        for threads in sorted({row.threads for row in swept}):
            sweep(swept, threads, name(f"sweep-{threads}.png"))
        if scaled:
            scaling(scaled, name("scaling.png"))
    return names
