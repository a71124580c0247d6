# SPDX-License-Identifier: Apache-2.0
"""First weights that are far too small or far too large, without and with batch norm."""

from __future__ import annotations

from matplotlib.figure import Figure

from .claims import Check, Claim, Rows, distinct, mean
from .drawing import WITH, WITHOUT, curve, guessing
from .result import Settings
from .training import DEEP, build, digits, fit, percent_right

LESSON = "With batch norm the first weights may be a hundred times too small; without it, they have to be right"
EXCEPT = """
Weights that are too large do harm with batch norm as well. Outputs do not depend on the scale of the weights, but
larger weights have smaller gradients, so a step of the same rate turns them less. The initial weights of He et al.,
times 1, are made for a network without batch norm, and suit it. In two layers, weights three times as large do a
network without batch norm no harm, while batch norm loses a few points.
"""
NOTE = "Digits, five hidden layers of 64, rate 0.1, batches of 64, 5 epochs; means and standard deviations"
SCALES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def measure(settings: Settings) -> Rows:
    rows = []
    for scale, with_norm, seed in settings.runs(SCALES[::2] if settings.quick else SCALES, (False, True)):
        network, data = build(seed, DEEP, batch_norm=with_norm, scale=scale), digits(seed)
        fit(network, data, rate=0.1, epochs=5, seed=seed)
        right = percent_right(network, data)
        rows.append({"scale": scale, "batch norm": with_norm, "seed": seed, "accuracy": right})
    return rows


def claim(rows: Rows) -> Claim:
    scales = [scale for scale in distinct(rows, "scale") if scale < 1]

    def worst(with_norm: bool) -> float:
        return min(mean(rows, "accuracy", scale=scale, **{"batch norm": with_norm}) for scale in scales)

    without = max(mean(rows, "accuracy", scale=scale, **{"batch norm": False}) for scale in scales)
    usual, usual_with = (mean(rows, "accuracy", scale=1.0, **{"batch norm": kind}) for kind in (False, True))
    return Claim(
        f"With first weights {scales[0]:g} to {scales[-1]:g} times the usual ones the network without batch norm gets "
        f"to {without:.1f} % at most, and the one with it to {worst(True):.1f} % at least. With the usual ones "
        f"accuracy is {usual:.1f} % without and {usual_with:.1f} % with.",
        (
            Check("the least accuracy with batch norm and small weights, %", worst(True), ">=", 85),
            Check("that minus the best without batch norm, in points", worst(True) - without, ">=", 40),
        ),
    )


def draw(figure: Figure, rows: Rows) -> None:
    axes = figure.subplots()
    for with_norm, style in ((False, WITHOUT), (True, WITH)):
        label = "with batch norm" if with_norm else "without batch norm"
        curve(axes, rows, "scale", "accuracy", distinct(rows, "scale"), style, label, **{"batch norm": with_norm})
    axes.set(xscale="log", xlabel="first weights, times those of He et al.", ylabel="test accuracy, %", ylim=(0, 103))
    axes.xaxis.set_major_formatter("{x:g}")
    guessing(axes)
    axes.legend(loc="center right")
