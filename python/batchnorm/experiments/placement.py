# SPDX-License-Identifier: Apache-2.0
"""Batch norm before the activation, behind it, and not at all, for three activations and two learning rates."""

from __future__ import annotations

from matplotlib.figure import Figure

from .claims import Check, Claim, Rows, deviation, distinct, mean
from .drawing import THIRD, WITH, WITHOUT, guessing
from .result import Settings
from .training import build, digits, fit, percent_right

LESSON = "Before or after the activation: neither wins, and either is better than none"
EXCEPT = """
This is a tie and not a law: for one activation at one rate, one of the two places may be a few points better, and at
another rate the other place. In large networks the place can matter. A batch norm that you want to fold into the layer
before it must stand directly after that layer. At a rate of 0.1, which suits them, ReLU and tanh without batch norm are
only a few points behind.
"""
NOTE = "Digits, three hidden layers of 64, batches of 64, 5 epochs; means and standard deviations"
PLACES = {"without": WITHOUT, "before": WITH, "after": THIRD}
ACTIVATIONS = ("relu", "tanh", "sigmoid")
RATES = (0.1, 1.0)


def measure(settings: Settings) -> Rows:
    rows = []
    for activation, rate, place, seed in settings.runs(ACTIVATIONS, RATES, PLACES):
        kind = {"batch_norm": False} if place == "without" else {"batch_norm": True, "placement": place}
        network, data = build(seed, activation=activation, **kind), digits(seed)
        fit(network, data, rate=rate, epochs=4 if settings.quick else 5, seed=seed)
        right = percent_right(network, data)
        rows.append({"activation": activation, "rate": rate, "place": place, "seed": seed, "accuracy": right})
    return rows


def claim(rows: Rows) -> Claim:
    without, before, after = (mean(rows, "accuracy", place=place) for place in PLACES)
    return Claim(
        f"Over all activations and rates, accuracy is {before:.1f} % with batch norm before the activation, "
        f"{after:.1f} % with it after, and {without:.1f} % without.",
        (
            Check("before and after apart, in points", abs(before - after), "<=", 3),
            Check("the worse of the two minus none, in points", min(before, after) - without, ">=", 10),
        ),
    )


def draw(figure: Figure, rows: Rows) -> None:
    axes = figure.subplots(1, 3, sharey=True)
    for on, activation in zip(axes, ACTIVATIONS):
        for offset, (place, style) in zip((-0.14, 0, 0.14), PLACES.items()):
            where = [{"activation": activation, "place": place, "rate": rate} for rate in distinct(rows, "rate")]
            on.errorbar(
                [position + offset for position in range(len(where))],
                [mean(rows, "accuracy", **each) for each in where],
                [deviation(rows, "accuracy", **each) for each in where],
                fmt=style.marker,
                color=style.color,
                markersize=8,
                capsize=3,
                label=place if place == "without" else f"{place} the activation",
            )
        on.set_xticks(range(len(where)), [f"rate {each['rate']:g}" for each in where])
        guessing(on)
        on.set(title=activation, ylim=(0, 103), xlim=(-0.5, len(where) - 0.5))
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend(loc="center left")
