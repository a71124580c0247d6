# SPDX-License-Identifier: Apache-2.0
"""A trained network, evaluated in eval mode and, by mistake, in training mode."""

from __future__ import annotations

from matplotlib.figure import Figure

from ..demo.mistake import Shares
from ..demo.mistake import measure as measure_mistake
from ..demo.mistake_plot import draw_shares
from .claims import Check, Claim, Rows, distinct, mean
from .result import Settings
from .training import build, digits, fit

LESSON = "Call eval() before you evaluate: in training mode each answer depends on what else is in the batch"
EXCEPT = """
In large batches that are shuffled as in training the mistake hardly shows, so people often make it: with 64 images at a
time the accuracy is nearly right. It is no mistake if you want the statistics of the data at hand, such as images from
another camera. Then blend them with the running statistics, or recalibrate.
"""
NOTE = "Digits, three hidden layers of 64, rate 0.3, batches of 64, 448 test images; means"


def measure(settings: Settings) -> Rows:
    rows = []
    for (seed,) in settings.runs():
        network, data = build(seed, batch_norm=True), digits(seed)
        fit(network, data, rate=0.3, epochs=4 if settings.quick else 10, seed=seed)
        found = measure_mistake(network, data)
        rows += [{"seed": seed, **each._asdict(), "spoiled": found.spoiled} for each in found.shares]
    return rows


def claim(rows: Rows) -> Claim:
    right, shuffled, by_class, spoiled = (
        100 * mean(rows, column, size=2) for column in ("right", "shuffled", "by_class", "spoiled")
    )
    large = 100 * mean(rows, "shuffled", size=64)
    return Claim(
        f"The same network recognizes {right:.1f} % of the test images in eval mode. In training mode with two at a "
        f"time it recognizes {shuffled:.1f} %, and {by_class:.1f} % if they come sorted by class; afterwards eval mode "
        f"is at {spoiled:.1f} %. With 64 at a time, shuffled, training mode gives {large:.1f} %.",
        (
            Check("eval mode, %", right, ">=", 90),
            Check("eval minus training mode, two images at a time, in points", right - shuffled, ">=", 30),
            Check("eval minus training mode, two of a class, in points", right - by_class, ">=", 60),
            Check("eval mode before minus after images of a class, in points", right - spoiled, ">=", 10),
        ),
    )


def draw(figure: Figure, rows: Rows) -> None:
    columns = "shuffled", "by_class", "right"
    sizes = distinct(rows, "size")
    draw_shares(figure.subplots(), [Shares(size, *(mean(rows, each, size=size) for each in columns)) for size in sizes])
