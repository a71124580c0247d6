# SPDX-License-Identifier: Apache-2.0
"""Batches from 2 images to 128: the cost of noise in their statistics, and remedies."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

import batchnorm as bn

from ..demo.network import Network
from .claims import Check, Claim, Rows, distinct, mean
from .drawing import FOURTH, THIRD, WITH, WITHOUT, curve
from .result import Settings
from .training import batches, build, digits, fit, percent_right

LESSON = "Batch norm needs batches: with two images it is worse than nothing, as it normalizes with noise"
EXCEPT = """
A convolution has as many values per channel as there are pixels in the batch; here each channel has one value per
image. Batch renormalization, which pulls the statistics towards the running ones, recovers half of the loss or more.
Ghost batches of four are as noisy as batches of four, and lose accuracy at any batch size: the statistics do the harm,
not the number of steps. From 8 images on batch norm is ahead, and more than 16 images gain nothing.
"""
NOTE = "Digits, three hidden layers of 64, rate 0.1 · size / 64; means and standard deviations"
SIZES = (2, 4, 8, 16, 32, 64, 128)
KINDS: dict[str, tuple[Any, Any]] = {
    "without batch norm": (False, WITHOUT),
    "batch norm": (True, WITH),
    "batch renormalization": (lambda units: bn.BatchNorm(units, momentum=0.05, source=bn.Renorm(3.0, 5.0)), THIRD),
    "ghost batches of 4": (lambda units: bn.BatchNorm(units, groups=bn.Ghost(4)), FOURTH),
}


def noise(network: Network, x: np.ndarray[Any, Any], size: int) -> float:
    """The spread of batches' means about the mean of all, in standard deviations, at the last batch norm."""
    network.eval()
    for layer in network.layers[: network.layers.index(network.norms[-1])]:
        x = layer(x)
    network.train()
    alive = x.std(axis=0) > 1e-3
    z = (x[:, alive] - x[:, alive].mean(axis=0)) / x[:, alive].std(axis=0)
    means = [z[chosen].mean(axis=0) for chosen in batches(len(z), size, np.random.default_rng(0))]
    return float(np.std(means))


def measure(settings: Settings) -> Rows:
    rows = []
    sizes = (2, 8, 32) if settings.quick else SIZES
    for kind, size, seed in settings.runs(KINDS, sizes):
        if kind.startswith("ghost") and size <= 4:
            continue
        network, data = build(seed, batch_norm=KINDS[kind][0]), digits(seed)
        fit(network, data, rate=0.1 * size / 64, epochs=2 if settings.quick else 3, seed=seed, batch=size)
        row = {"kind": kind, "size": size, "seed": seed, "accuracy": percent_right(network, data)}
        rows.append({**row, "noise": noise(network, data.train_x, size) if kind == "batch norm" else None})
    return rows


def claim(rows: Rows) -> Claim:
    def at(kind: str, size: int) -> float:
        return mean(rows, "accuracy", kind=kind, size=size)

    sizes = distinct(rows, "size")
    noises = [mean(rows, "noise", kind="batch norm", size=size) for size in sizes]
    slope = float(np.polyfit(np.log(sizes), np.log(noises), 1)[0])
    renormalized = at("batch renormalization", 2) - at("batch norm", 2)
    ghosts = at("ghost batches of 4", 32) - at("batch norm", 32)
    small, large = (at("batch norm", size) - at("without batch norm", size) for size in (2, 32))
    return Claim(
        f"With two images, accuracy is {at('batch norm', 2):.1f} % with batch norm, {at('without batch norm', 2):.1f} "
        f"% without it and {at('batch renormalization', 2):.1f} % with batch renormalization; with 32 it is "
        f"{at('batch norm', 32):.1f} % with and {at('without batch norm', 32):.1f} % without. The mean of two images "
        f"is off by {noises[0]:.2f} standard deviations, and this error falls as the size to the power of {slope:.2f}.",
        (
            Check("batch norm minus none at batches of 2, in points", small, "<=", -10),
            Check("batch norm minus none at batches of 32, in points", large, ">=", 0),
            Check("batch renormalization minus batch norm at batches of 2, in points", renormalized, ">=", 10),
            Check("ghost batches of 4 minus batch norm at batches of 32, in points", ghosts, "<=", -1),
            Check("distance of the exponent of the noise from -1/2", abs(slope + 0.5), "<=", 0.1),
        ),
    )


def draw(figure: Figure, rows: Rows) -> None:
    axes, beside = figure.subplots(1, 2, width_ratios=(3, 2))
    for kind, (_, style) in KINDS.items():
        curve(
            axes,
            rows,
            "size",
            "accuracy",
            distinct([row for row in rows if row["kind"] == kind], "size"),
            style,
            kind,
            kind=kind,
        )
    sizes = distinct(rows, "size")
    curve(beside, rows, "size", "noise", sizes, WITH, "measured", kind="batch norm")
    beside.plot(sizes, np.array(sizes) ** -0.5, color=WITHOUT.color, linestyle=":", label="1 / √size")
    axes.set(ylabel="test accuracy, %", title="Accuracy")
    beside.set(yscale="log", ylabel="standard deviations", title="Error of a batch's mean")
    beside.set_yticks([0.1, 0.2, 0.5], ["0.1", "0.2", "0.5"])
    beside.set_yticks([], minor=True)
    for each in (axes, beside):
        each.set(xscale="log", xlabel="images per batch")
        each.set_xticks(sizes, [str(size) for size in sizes])
        each.set_xticks([], minor=True)
        each.legend(loc="lower right" if each is axes else "upper right")
