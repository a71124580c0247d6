# SPDX-License-Identifier: Apache-2.0
"""The loss landscape along the gradient, as Santurkar et al. (arXiv:1805.11604) looked at it."""

from __future__ import annotations

from functools import partial
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ..demo.network import Array, Labels, Network
from .along_gradient import look_ahead
from .claims import Check, Claim, Row, Rows, distinct, values
from .drawing import WITH, WITHOUT
from .result import Settings
from .training import DEEP, build, digits, fit

LESSON = "With batch norm, loss and gradient change less along the way, so that longer steps are safe"
EXCEPT = """
Training makes the difference: before the first step beta is about the same for both networks. Beta shows the least of
the three figures: with ten layers, or at a rate of 0.3, it is only 1.2 to 1.5 times as large without batch norm. Each
network is measured along its own path. With batch norm the scale of the weights has no meaning, so beta, a change per
distance, depends on how large the weights have become. This experiment does not measure why batch norm smooths, or if
"internal covariate shift" has a part in it.
"""
NOTE = "Digits, five hidden layers of 64, rate 0.1, batches of 64; medians"
RATE = 0.1
DISTANCES = [RATE * halves / 2 for halves in range(1, 9)]
EVERY = 2  # steps


def measure(settings: Settings) -> Rows:
    rows: list[Row] = []
    for with_norm, seed in settings.runs((False, True)):
        network = build(seed, DEEP, batch_norm=with_norm)
        path: list[Row] = []

        def look(x: Array, labels: Labels, network: Network = network, path: list[Row] = path) -> None:
            path.append(look_ahead(network, x, labels, DISTANCES) if len(path) % EVERY == 0 else {})

        fit(network, digits(seed), rate=RATE, epochs=4 if settings.quick else 8, seed=seed, before_step=look)
        rows += [
            {"batch norm": with_norm, "seed": seed, "step": step, **found} for step, found in enumerate(path) if found
        ]
    return rows


def late(rows: Rows, with_norm: bool) -> tuple[float, float, float]:
    """Medians of the last third: loss over loss here, change of the gradient over the gradient, beta."""
    last = max(values(rows, "step"))
    third = [row for row in rows if row["batch norm"] == with_norm and row["step"] > last * 2 / 3]
    rise = median(row["highest loss"] / row["loss"] for row in third)
    return rise, median(row["largest change"] / row["gradient"] for row in third), median(values(third, "beta"))


def claim(rows: Rows) -> Claim:
    without, with_norm = late(rows, False), late(rows, True)
    rise, change, beta = (one / other for one, other in zip(without, with_norm))
    return Claim(
        f"In the last third of training the largest loss up to four steps ahead is {without[0]:.1f} times the current "
        f"loss without batch norm, and {with_norm[0]:.1f} times with it; the gradient changes by {without[1]:.1f} "
        f"and by {with_norm[1]:.1f} times its length; beta, the gradient's change per distance, is "
        f"{without[2]:.0f} and {with_norm[2]:.0f}.",
        (
            Check("rise of the loss, without / with batch norm", rise, ">=", 2),
            Check("change of the gradient, without / with", change, ">=", 3),
            Check("beta, without / with", beta, ">=", 1.3),
        ),
    )


def draw(figure: Figure, rows: Rows) -> None:
    axes = figure.subplots(1, 3)
    steps = distinct(rows, "step")

    def middle(column: str, with_norm: bool) -> list[float]:
        return [median(values(rows, column, step=step, **{"batch norm": with_norm})) for step in steps]

    def band(on: Axes, lowest: str, highest: str) -> None:
        for with_norm, style in ((False, WITHOUT), (True, WITH)):
            get = partial(middle, with_norm=with_norm)
            label = "with batch norm" if with_norm else "without batch norm"
            on.fill_between(steps, get(lowest), get(highest), color=style.color, alpha=0.4, linewidth=0, label=label)

    band(axes[0], "lowest loss", "highest loss")
    band(axes[1], "least change", "largest change")
    for with_norm, style in ((False, WITHOUT), (True, WITH)):
        axes[2].plot(steps, middle("beta", with_norm), color=style.color, linestyle=style.linestyle)
    titles = "Loss, ½ to 4 steps ahead", "Change of the gradient there", "Largest change per distance"
    labels = "cross-entropy (nats)", "length of the difference", "beta"
    for on, title, label in zip(axes, titles, labels):
        on.set(yscale="log", title=title, xlabel="step", ylabel=label)
        on.yaxis.set_major_formatter("{x:g}")
        on.yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylim(bottom=axes[0].get_ylim()[0] / 4)  # room for the legend
    axes[2].set_yticks([5, 10, 20], ["5", "10", "20"])
    axes[0].legend(loc="lower left")
