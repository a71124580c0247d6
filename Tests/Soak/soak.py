# SPDX-License-Identifier: Apache-2.0
"""soak.py [--seed SEED] [--seconds SECONDS] [--life LIFE]

This is soak.c for the package: layers live one after the other, each beside its twin, until the time is over; the first
lives, whose digests are kept, are then lived again. After a tenth of the time nothing that the process holds may grow
any more. Ends with the first life that is at fault; --life lives it alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "python" / "tests"))

import batchnorm as bn
import numpy as np

from events import aside
from life import Life
from watch import Holding, begin, look

REPEATED = 6
# Pages that blocks of other sizes keep apart; a table of Python's own, made larger once, is half a megabyte at a time.
MAY_GROW = Holding(4 << 20, 1 << 20, 1000, 0, 0)


def lived(seed: int, number: int) -> str:
    each = Life(np.random.default_rng([seed, number]))
    try:
        return each.live()
    except Exception:
        print(f"life {number} of seed {seed}: --seed {seed} --life {number}\n{each}", file=sys.stderr)
        raise


def in_a_thread(seed: int, lives: range) -> list[str]:
    """In one of its own, with which goes what the library keeps for a thread's largest call."""
    digests: list[str] = []
    aside(lambda: digests.extend(lived(seed, number) for number in lives))
    return digests


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--life", type=int)
    given = parser.parse_args()
    if given.life is not None:
        lived(given.seed, given.life)
        return
    begin()
    began, digests, warm, number = time.monotonic(), [], None, 0
    while warm is None or time.monotonic() - began < 0.9 * given.seconds:
        lives = range(number, number + REPEATED)
        found = in_a_thread(given.seed, lives)
        digests, number = digests or found, lives.stop
        if warm is None and time.monotonic() - began >= 0.1 * given.seconds:
            warm = look()
    again = in_a_thread(given.seed, range(REPEATED))
    cold = look()
    seconds = time.monotonic() - began
    grown = Holding(*(new - old for new, old in zip(cold, warm)))
    print(f"{Life.steps} steps, {number} lives, {seconds:.0f} s, seed {given.seed}, {bn.isa()}")
    print(
        f"memory grew by {grown.resident} bytes, C's blocks by {grown.used}, Python's in number by {grown.objects}; ",
        end="",
    )
    print(f"{cold.files} files, {cold.threads} threads")
    print(f"the twin and the layer were apart by {Life.most:.3f} of what they may be")
    assert again == digests, "the first lives have other bits than at the beginning"
    assert grown.files == 0, grown
    assert cold.threads <= len(os.sched_getaffinity(0)), cold
    assert all(grown[i] <= MAY_GROW[i] for i in range(3)), grown


if __name__ == "__main__":
    main()
