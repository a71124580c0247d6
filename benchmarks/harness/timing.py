# SPDX-License-Identifier: Apache-2.0
"""The clock: systems take turns, and each is seen in the state that its own last call left.

A sample is some calls that are not timed, then some that are. The first make up for what another system did to caches,
clock frequency and sleeping threads in the meantime; so what is timed is the steady state, the same for all.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from statistics import median

from .system import Trial

SAMPLE = 1.5e-3  # seconds that a sample lasts at least: much longer than the clock's resolution and an interrupt
WARM_UP = 0.5e-3  # seconds of calls before a sample
# With threads, until those that sleep are awake: it takes milliseconds until a busy host gives a guest back a processor
# that was idle. A system whose caller waits for them is warm after one call; one whose caller goes on alone is not.
WAKE_UP = 5e-3
# Threads that have run out of work spin for a while before they sleep (libgomp, Eigen, ONNX Runtime: milliseconds), and
# would be measured as a slowness of whoever comes next.
SETTLE = 5e-3
FEWEST_ROUNDS = 3
MOST_ROUNDS = 41


@dataclass(frozen=True)
class Sample:
    """Seconds per call."""

    median: float
    mad: float  # median absolute deviation from the median
    rounds: int


def repeated(call: Callable[[], object]) -> Callable[[int], float]:
    """Turns one call from Python into a number of timed ones."""

    def run(times: int) -> float:
        start = time.perf_counter()
        for _ in itertools.repeat(None, times):
            call()
        return time.perf_counter() - start

    return run


def estimate(trial: Trial) -> float:
    """Roughly the seconds of a call, after what only the first one does."""
    trial.run(1)
    once = trial.run(1)
    return min(once, trial.run(5) / 5) if once < SAMPLE else once


def fastest(trials: Iterable[Trial]) -> Trial | None:
    """The best of several ways to do the same, if there is one."""
    best, record = None, inf
    for trial in trials:
        trial.run(1)
        if best is not None and trial.run(1) > 3 * record:
            continue  # a way that is far behind may take seconds
        seconds = min(estimate(trial) for _ in range(3))
        if seconds < record:
            best, record = trial, seconds
    return best


def measure(trials: dict[str, Trial], seconds: float, threads: int, fewest: int = FEWEST_ROUNDS) -> dict[str, Sample]:
    """Alternating rounds of all trials, for about so long; slow systems sit out after the first few rounds."""
    deadline = time.monotonic() + seconds
    expected = {name: estimate(trial) for name, trial in trials.items()}
    times: dict[str, list[float]] = {name: [] for name in trials}
    for round_ in range(MOST_ROUNDS):
        if round_ >= fewest and time.monotonic() > deadline:
            break
        for name, trial in trials.items():
            if round_ >= fewest and expected[name] > seconds / 40:
                continue
            if threads > 1:
                time.sleep(SETTLE)
            trial.run(max(1, int((WARM_UP if threads == 1 else WAKE_UP) / expected[name])))
            calls = max(1, int(SAMPLE / expected[name]))
            times[name].append(trial.run(calls) / calls)
    return {name: summary(samples) for name, samples in times.items()}


def summary(samples: list[float]) -> Sample:
    middle = median(samples)
    return Sample(middle, median(abs(s - middle) for s in samples), len(samples))
