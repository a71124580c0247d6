# SPDX-License-Identifier: Apache-2.0
"""Momentum of the running statistics from next to nothing to 1, and what recalibration makes of it."""

from __future__ import annotations

from matplotlib.figure import Figure

import batchnorm as bn

from .claims import Check, Claim, Rows, distinct, mean
from .drawing import FOURTH, THIRD, WITH, curve
from .result import Settings
from .training import build, digits, fit, percent_right

LESSON = "A momentum that is wrong spoils only what evaluation uses, and recalibration repairs it in milliseconds"
EXCEPT = """
Training itself does not use the running statistics: the weights are the same at any momentum. A small momentum averages
more batches, and the average is right after enough of them, several times 1 / momentum. A momentum of 1 keeps only the
last batch. It costs about a point if batches are large and alike, as those of 64 are here.
"""
NOTE = "Digits, three hidden layers of 64, 5 epochs; means and standard deviations"
MOMENTA = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
RATES = {64: 0.3, 8: 0.1}  # by images per batch


def measure(settings: Settings) -> Rows:
    rows = []
    momenta = (0.001, 0.1, 1.0) if settings.quick else MOMENTA
    for batch, momentum, seed in settings.runs(RATES, momenta):
        network = build(seed, batch_norm=lambda units, momentum=momentum: bn.BatchNorm(units, momentum=momentum))
        data = digits(seed)
        fit(network, data, rate=RATES[batch], epochs=5, seed=seed, batch=batch)
        running = percent_right(network, data)
        bn.recalibrate(network.norms, network, [data.train_x], progress=False)
        row = {"batch": batch, "momentum": momentum, "seed": seed, "accuracy": running}
        rows.append({**row, "recalibrated": percent_right(network, data)})
    return rows


def claim(rows: Rows) -> Claim:
    def at(column: str, momentum: float, batch: int) -> float:
        return mean(rows, column, momentum=momentum, batch=batch)

    slow, repaired = at("accuracy", 0.001, 64), at("recalibrated", 0.001, 64)
    usual, last = at("accuracy", 0.1, 8), at("accuracy", 1.0, 8)
    worst = min(at("recalibrated", momentum, batch) for momentum in distinct(rows, "momentum") for batch in RATES)
    return Claim(
        f"With a momentum of 0.001 and batches of 64 accuracy is {slow:.1f} % in eval mode, and {repaired:.1f} % after "
        f"recalibration. With batches of 8 accuracy is {last:.1f} % with a momentum of 1, and {usual:.1f} % with one "
        f"of 0.1. Recalibrated, all are at {worst:.1f} % or above.",
        (
            Check("what recalibration brings at momentum 0.001, in points", repaired - slow, ">=", 15),
            Check("what momentum 1 costs in batches of 8, in points", usual - last, ">=", 0.3),
            Check("the least accuracy of all when recalibrated, %", worst, ">=", 93),
        ),
    )


def draw(figure: Figure, rows: Rows) -> None:
    axes = figure.subplots()
    momenta = distinct(rows, "momentum")
    for batch, style in ((64, WITH), (8, THIRD)):
        curve(
            axes, rows, "momentum", "accuracy", momenta, style, f"running statistics, batches of {batch}", batch=batch
        )
    curve(axes, rows, "momentum", "recalibrated", momenta, FOURTH, "recalibrated, of either")
    axes.set(xscale="log", ylim=(30, 102))
    axes.set(xlabel="momentum, the weight of the newest batch", ylabel="test accuracy in eval mode, %")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(loc="lower right")
