# SPDX-License-Identifier: Apache-2.0
"""Kinds of findings in a model file, and where they begin; apart from what finds them, which needs NumPy."""

# Below it a channel puts out its beta, whatever comes in.
DEAD = 1e-6
# Times the median variance, standard deviations in the mean, and times the median scale.
EXPLODING, CANCELLING, SPREAD = 1000.0, 100.0, 64.0

KINDS = {
    "nonfinite": "NaN or infinity in statistics or parameters",
    "negative": "variance below 0",
    "tiny": "variance below eps",
    "dead": f"|gamma| below {DEAD:g}",
    "exploding": f"variance beyond {EXPLODING:g} times the median",
    "cancellation": f"|mean| beyond {CANCELLING:g} standard deviations",
    "scale": f"|gamma|/std beyond {SPREAD:g} times the median",
    "never": "mean 0 and variance 1, as they began, and no batch counted",
    "momentum": "momentum 0 or 1, or another one than most layers have",
    "eps": "another eps than most layers have",
    "training": "statistics of each batch in inference, too",
    "unread": "numbers that are not in the file, or do not fit together",
}
