# SPDX-License-Identifier: Apache-2.0
"""Faults of batch norms, certain and possible: the channels, and advice."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._finding_kinds import CANCELLING, DEAD, EXPLODING, KINDS, SPREAD
from .norm import NAMES, Array, Norm


class Finding(NamedTuple):
    """Something to look at: one of KINDS, the channels it is about (all if there are none), and a sentence each.

    Examples
    --------
    >>> from batchnorm.inspection import Finding
    >>> Finding("dead", (3, 8), "gamma is 0", "prune it").channels
    (3, 8)
    """

    kind: str
    channels: tuple[int, ...]
    text: str
    advice: str


def findings(norms: Sequence[Norm]) -> list[list[Finding]]:
    """The findings for each batch norm of a model.

    Parameters
    ----------
    norms : sequence of Norm
        All of a model's, as some things are seen by comparing them.

    Examples
    --------
    >>> import numpy as np
    >>> from batchnorm.inspection import Norm, findings
    >>> [found] = findings([Norm("bn", "pytorch", mean=np.zeros(3), var=np.array([1, -1, 2.0]))])
    >>> [(each.kind, each.channels) for each in found]
    [('negative', (1,))]
    """
    usual_eps = _usual(norm.eps for norm in norms)
    usual_momentum = _usual(norm.momentum for norm in norms)
    return [
        [*_of_settings(norm, usual_eps, usual_momentum), *_of_channels(norm), *_of_statistics(norm)] for norm in norms
    ]


def _usual(values: Iterable[float | None]) -> float | None:
    """The value that most have, if there is one."""
    counted = Counter(value for value in values if value is not None).most_common(2)
    if not counted or (len(counted) > 1 and counted[0][1] == counted[1][1]):
        return None
    return counted[0][0]


def _of_settings(norm: Norm, usual_eps: float | None, usual_momentum: float | None) -> Iterator[Finding]:
    if norm.unknown:
        yield Finding("unread", (), norm.unknown, "its numbers cannot be looked at here")
    if norm.in_training:
        advice = "export the model in eval mode, unless each batch is to be normalized by itself"
        yield Finding("training", (), f"{norm.in_training}: it takes the statistics of each batch", advice)
    if norm.eps is not None and not 0 <= norm.eps < math.inf:
        text = f"eps is {norm.eps:g}, expected a finite number of at least 0"
        yield Finding("eps", (), text, "the output is NaN where the variance does not outweigh it")
    elif norm.eps is not None and usual_eps not in (None, norm.eps):
        advice = "1e-3 is Keras's default and 1e-5 PyTorch's: a port that mixes them computes something else"
        yield Finding("eps", (), f"eps is {norm.eps:g}, and {usual_eps:g} in most layers", advice)
    if norm.momentum is not None and not 0 <= norm.momentum <= 1:
        text = f"momentum is {norm.momentum:g}, expected a number from 0 to 1 (weight of the new batch)"
        yield Finding("momentum", (), text, "running statistics would leave the range of what they are averages of")
    elif norm.momentum in (0, 1):
        what = "stay as they are" if norm.momentum == 0 else "are those of the last batch"
        advice = "PyTorch's momentum is the weight of the new batch, Keras's that of the old average"
        yield Finding("momentum", (), f"momentum is {norm.momentum:g}: running statistics {what}", advice)
    elif norm.momentum is not None and usual_momentum not in (None, norm.momentum):
        text = f"momentum is {norm.momentum:g}, and {usual_momentum:g} in most layers (weight of the new batch)"
        yield Finding("momentum", (), text, "it counts when the model is trained further")


def _of_channels(norm: Norm) -> Iterator[Finding]:
    for name in NAMES:
        array = getattr(norm, name)
        if array is not None:
            advice = "train again from a checkpoint before it, with a lower rate or clipped gradients"
            yield from _at("nonfinite", ~np.isfinite(array), f"{name} is not finite", advice)
    if norm.gamma is not None:
        dead = np.abs(norm.gamma) < DEAD
        has_beta = norm.beta is not None and bool(np.any(dead & (norm.beta != 0)))
        advice = "they can be pruned" + (", if the next layer takes up their beta" if has_beta else "")
        said = "gamma is 0: the output is beta, whatever comes in" if has_beta else "gamma and beta are 0: so is y"
        yield from _at("dead", dead, said, advice)


def _of_statistics(norm: Norm) -> Iterator[Finding]:
    mean, var = norm.mean, norm.var
    if mean is None or var is None:
        return
    eps = norm.eps_or_assumed
    told = f"{eps:g}" if norm.eps is not None else f"{eps:g}, as {norm.framework} has by default"
    sound = np.isfinite(var) & np.isfinite(mean)
    # A count of 0 alone says nothing: statistics that come from another framework have none.
    if not norm.batches and not mean.any() and bool((var == 1).all()):
        text = "the mean is 0 and the variance 1, as they began"
        advice = "train it, or recalibrate its statistics: in inference it does not normalize"
        yield Finding("never", (), f"running statistics were never updated: {text}", advice)
    negative = sound & (var < 0)
    below = bool(np.any(negative & (var + eps <= 0)))
    text = "the variance is below 0" + (f", and below -eps ({told}): the output is NaN" if below else "")
    yield from _at("negative", negative, text, "recalibrate: a difference of averages, or a damaged file")
    advice = "eps decides the scale there; a framework with another default computes something else"
    yield from _at("tiny", sound & (var >= 0) & (var < eps), f"the variance is below eps ({told})", advice)
    positive = var[sound & (var > 0)]
    if positive.size:
        median = float(np.median(positive))
        text = f"the variance is beyond {EXPLODING:g} times the median, {median:.3g}"
        advice = "look at what comes in: an input that is not scaled, or weights that grow"
        yield from _at("exploding", sound & (var > EXPLODING * median), text, advice)
    with np.errstate(invalid="ignore"):
        std = np.sqrt(np.maximum(var, 0) + eps)
        cancelling = sound & (var >= 0) & (np.abs(mean) > CANCELLING * std)
    text = f"|mean| is beyond {CANCELLING:g} standard deviations, and most digits cancel in x - mean"
    yield from _at("cancellation", cancelling, text, "compute it in float32 at least, or fold it into the layer before")
    yield from _of_scale(norm)


def _of_scale(norm: Norm) -> Iterator[Finding]:
    scale = norm.scale()
    there = scale[np.isfinite(scale) & (scale > DEAD)]
    if not there.size:
        return
    median = float(np.median(there))
    with np.errstate(invalid="ignore"):
        large = np.isfinite(scale) & (scale > SPREAD * median)
    text = f"|gamma|/std is up to {float(there.max()):.3g}, {float(there.max()) / median:.0f} times the median"
    advice = "folded, it spreads the weights: quantize them to int8 per channel, not per tensor"
    yield from _at("scale", large, text, advice)


def _at(kind: str, bad: Array | Any, text: str, advice: str) -> Iterator[Finding]:
    assert kind in KINDS
    if np.any(bad):
        yield Finding(kind, tuple(int(each) for each in np.flatnonzero(bad)), text, advice)
