# SPDX-License-Identifier: Apache-2.0
"""Contrast by WCAG 2, and the distance of two colours in the eyes of who sees fewer: the oracles of view.py."""

from __future__ import annotations

import math
import re

Colour = tuple[float, float, float]  # linear light, 0 to 1

# Machado, Oliveira and Fernandes (2009), severity 1, on linear light.
SIGHT = {
    "full": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.9505, 1.0, 1.089)


def parsed(text: str) -> Colour:
    """The colour that "#rrggbb" or "rgb(r, g, b)" names, as linear light."""
    if text.startswith("#"):
        parts = [float(int(text[i : i + 2], 16)) for i in (1, 3, 5)]
    else:
        numbers = re.findall(r"[\d.]+", text)
        assert len(numbers) == 3 or float(numbers[3]) == 1, f"{text} is not opaque"
        parts = [float(each) for each in numbers[:3]]
    red, green, blue = (v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in parts)
    return red, green, blue


def times(matrix: tuple[tuple[float, ...], ...], colour: Colour) -> Colour:
    a, b, c = (sum(x * y for x, y in zip(row, colour)) for row in matrix)
    return a, b, c


def contrast(a: str, b: str) -> float:
    light = [0.05 + times(XYZ, parsed(each))[1] for each in (a, b)]
    return max(light) / min(light)


def distance(a: str, b: str, sight: str) -> float:
    """In CIELAB; 2.3 is just seen when side by side."""

    def lab(text: str) -> Colour:
        seen = tuple(min(1, max(0, v)) for v in times(SIGHT[sight], parsed(text)))
        x, y, z = (v / w for v, w in zip(times(XYZ, (seen[0], seen[1], seen[2])), WHITE))
        f = [v ** (1 / 3) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z)]
        return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])

    return math.dist(lab(a), lab(b))


assert abs(contrast("#000000", "#ffffff") - 21) < 0.01
assert abs(distance("#000000", "#ffffff", "full") - 100) < 0.1
