# SPDX-License-Identifier: Apache-2.0
"""Learning rates over three orders of magnitude, without and with batch norm."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from .claims import Check, Claim, Rows, distinct, mean
from .drawing import WITH, WITHOUT, curve, guessing
from .result import Settings
from .training import build, digits, fit, percent_right

LESSON = "With batch norm many learning rates do; without it, the right one has to be found"
EXCEPT = """
A network without batch norm is about as good at the rate that suits it: a well-tuned perceptron of three layers needs
no batch norm on these digits. At small rates batch norm gains a head start, and forty epochs instead of eight close
most of the gap. At a rate of 10 nothing helps.
"""
NOTE = "Digits, three hidden layers of 64, batches of 64; means and standard deviations"
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
GOOD = 90  # percent


def measure(settings: Settings) -> Rows:
    rows = []
    for rate, with_norm, seed in settings.runs(RATES[1::2] if settings.quick else RATES, (False, True)):
        network, data = build(seed, batch_norm=with_norm), digits(seed)
        fit(network, data, rate=rate, epochs=4 if settings.quick else 8, seed=seed)
        right = percent_right(network, data)
        rows.append({"rate": rate, "batch norm": with_norm, "seed": seed, "accuracy": right})
    return rows


def between(rates: Sequence[float]) -> str:
    return f"at rates from {min(rates):g} to {max(rates):g}" if rates else "at none"


def claim(rows: Rows) -> Claim:
    rates = distinct(rows, "rate")

    def by_rate(with_norm: bool) -> dict[float, float]:
        return {rate: mean(rows, "accuracy", rate=rate, **{"batch norm": with_norm}) for rate in rates}

    without, with_norm = by_rate(False), by_rate(True)
    good, good_with = ([rate for rate in rates if found[rate] >= GOOD] for found in (without, with_norm))
    span, span_with = (max(each) / min(each) if each else 0.0 for each in (good, good_with))
    best, best_with = max(without.values()), max(with_norm.values())
    return Claim(
        f"With batch norm {GOOD} % are reached {between(good_with)}, and without it {between(good)}. The best of all "
        f"rates gives {best_with:.1f} % with and {best:.1f} % without.",
        (
            Check("span of good rates, with / without batch norm", span_with / max(span, 1), ">=", 3),
            Check(
                "accuracy at the largest rate that is good with batch norm, with minus without, in points",
                max((with_norm[rate] - without[rate] for rate in good_with[-1:]), default=0.0),
                ">=",
                30,
            ),
        ),
    )


def draw(figure: Figure, rows: Rows) -> None:
    axes = figure.subplots()
    rates = distinct(rows, "rate")
    for with_norm, style in ((False, WITHOUT), (True, WITH)):
        label = "with batch norm" if with_norm else "without batch norm"
        curve(axes, rows, "rate", "accuracy", rates, style, label, **{"batch norm": with_norm})
    axes.set(xscale="log", xlabel="learning rate", ylabel="test accuracy, %", ylim=(0, 103))
    axes.xaxis.set_major_formatter("{x:g}")
    guessing(axes)
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 0.15))
