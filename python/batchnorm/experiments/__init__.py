# SPDX-License-Identifier: Apache-2.0
"""Experiments that show what batch norm does, and where it does nothing or harm. `batchnorm experiments` runs them.

Each is a module of this package, with

- LESSON, a sentence, which is the title of its picture, and EXCEPT, a paragraph that says when it is not so;
- `measure(settings)`, which trains networks and returns rows of numbers, as JSON has them, of every seed and setting;
- `claim(rows)`, the lesson in the numbers of these rows, with thresholds that they have to pass;
- `draw(figure, rows)`, the picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .result import Result

NAMES = ("landscape", "rates", "weights", "momentum", "batch-size", "placement", "scaler", "eval-mode")


def run(name: str, *, seeds: int = 3, quick: bool = False) -> Result:
    """Runs one experiment, which takes seconds, and needs scikit-learn and matplotlib.

    Parameters
    ----------
    name : str
        One of NAMES.
    seeds : int, default 3
        Splits of the data, each with first weights and an order of its own.
    quick : bool, default False
        True for fewer settings and epochs.

    Returns
    -------
    Result
        With `claim`, `rows`, `lesson`, `when_not`, `figure()`, `as_json()` and `save(folder)`; a notebook shows its
        picture.

    Raises
    ------
    ValueError
        There is no such experiment, or seeds is less than 1.

    Examples
    --------
    >>> result = run("landscape", seeds=1, quick=True)  # doctest: +SKIP
    >>> result.claim.holds  # doctest: +SKIP
    True
    """
    from .result import Settings, perform

    if name not in NAMES:
        raise ValueError(f"there is no experiment {name!r}, expected one of {', '.join(NAMES)}")
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}, expected at least 1")
    return perform(name, Settings(tuple(range(seeds)), quick))
