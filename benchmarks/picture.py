# SPDX-License-Identifier: Apache-2.0
"""picture FOLDER OUTPUT: speed and error beside the peers, from the committed results, as SVG.

This draws the picture of the README, and needs nothing but Python:

    python3 benchmarks/picture.py benchmarks/results/2026-11-21-amd-epyc docs/static/peers.svg

The picture brings its own background, which is dark where the reader's system is.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from xml.sax.saxutils import escape

NAMES = {
    "batchnorm": "libbatchnorm",
    "torch": "PyTorch",
    "onednn": "oneDNN",
    "onnxruntime": "ONNX Runtime",
    "jax": "JAX",
    "numpy": "NumPy",
}
GROUPS = [(operation, layout) for operation in ("training", "inference", "backward") for layout in ("NCHW", "NHWC")]
WIDTH, HEIGHT, TOP, BOTTOM = 1080, 410, 84, 326
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.small, .axis { font-size: 12px; fill: #57606a }
.ground { fill: #ffffff }
.grid { stroke: #d0d7de }
.one { stroke: #24292f; stroke-dasharray: 4 3 }
.batchnorm { fill: #0969da; stroke: #0969da }
.torch { fill: #bc4c00; stroke: #bc4c00 }
.onednn { fill: #1a7f37; stroke: #1a7f37 }
.onnxruntime { fill: #8250df; stroke: #8250df }
.jax { fill: #bf3989; stroke: #bf3989 }
.numpy { fill: #6e7781; stroke: #6e7781 }
polyline { fill: none !important; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text, .title { fill: #e6edf3 }
  .small, .axis { fill: #9198a1 }
  .ground { fill: #0d1117 }
  .grid { stroke: #30363d }
  .one { stroke: #e6edf3 }
  .batchnorm { fill: #58a6ff; stroke: #58a6ff }
  .torch { fill: #f0883e; stroke: #f0883e }
  .onednn { fill: #3fb950; stroke: #3fb950 }
  .onnxruntime { fill: #bc8cff; stroke: #bc8cff }
  .jax { fill: #ff7bc5; stroke: #ff7bc5 }
  .numpy { fill: #9198a1; stroke: #9198a1 }
}
"""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def up(value: float, low: float, high: float) -> float:
    """The height of a value on a logarithmic axis."""
    return BOTTOM - (BOTTOM - TOP) * (math.log10(value) - low) / (high - low)


def label(power: int) -> str:
    return f"{10**power:,}" if power < 6 else f"{10 ** (power - 6)} million"


def speed(folder: Path) -> dict[tuple[str, str, str], list[float]]:
    """Times over ours in float32, one thread, the widest instruction set, by operation, layout and system."""
    found = defaultdict(list)
    widest = json.loads((folder / "machine.json").read_text(encoding="utf-8"))["isas"][0]
    for row in rows(folder / "results.csv"):
        if (row["isa"], row["threads"], row["dtype"]) == (widest, "1", "float32"):
            found[row["operation"], row["layout"], row["system"]].append(float(row["ratio_to_ours"]))
    return found


def draw_speed(folder: Path) -> list[str]:
    """A dot for each shape, and a bar at the geometric mean."""
    left, right, low, high = 56, 640, math.log10(0.3), math.log10(80)
    found = speed(folder)
    parts = [
        text(20, 32, "Speed: time of a peer's call over ours, one thread, float32", "title"),
        text(20, 52, "Above 1, libbatchnorm is faster. A dot is a tensor shape, a bar the geometric mean.", "small"),
    ]
    for value in (0.3, 1, 3, 10, 30):
        y = up(value, low, high)
        parts.append(line(left, y, right, y, "one" if value == 1 else "grid"))
        parts.append(text(left - 8, y + 4, f"{value:g}", "axis", "end"))
    share = (right - left) / len(GROUPS)
    for place, (operation, layout) in enumerate(GROUPS):
        middle = left + share * (place + 0.5)
        parts.append(text(middle, BOTTOM + 22, operation, "", "middle"))
        parts.append(text(middle, BOTTOM + 39, layout, "small", "middle"))
        there = [name for name in list(NAMES)[1:] if (operation, layout, name) in found]
        for number, name in enumerate(there):
            x = middle + (number - (len(there) - 1) / 2) * 18
            parts += draw_dots(x, [up(value, low, high) for value in found[operation, layout, name]], name)
    return parts


def draw_dots(x: float, heights: list[float], name: str) -> list[str]:
    """The mean of heights is that of logarithms."""
    mean = sum(heights) / len(heights)
    dots = [
        f'<circle cx="{x + (number % 5 - 2) * 1.6:.1f}" cy="{y:.1f}" r="1.7" class="{name}" opacity="0.5"/>'
        for number, y in enumerate(heights)
    ]
    return [*dots, f'<rect x="{x - 8:.1f}" y="{mean - 1.5:.1f}" width="16" height="3" class="{name}"/>']


def draw_errors(folder: Path) -> list[str]:
    """A line for each system over |mean| / std, evenly spaced as the axis is logarithmic but for 0."""
    left, right, low, high = 740, 950, -0.5, 8
    found = defaultdict(list)
    for row in rows(folder / "errors.csv"):
        if row["system"] in NAMES:
            found[row["system"]].append((float(row["mean_over_std"]), float(row["error"])))
    at = sorted({ratio for values in found.values() for ratio, _ in values})
    x_of = {ratio: left + 14 + (right - left - 28) * place / (len(at) - 1) for place, ratio in enumerate(at)}
    parts = [
        text(left - 68, 32, "Error: the largest of y in training, float32", "title"),
        text(left - 68, 52, "In units of eps · max(1, |y|), over |mean| / std of the data.", "small"),
    ]
    for power in range(0, 9, 2):
        y = up(10.0**power, low, high)
        parts += [line(left, y, right, y), text(left - 8, y + 4, label(power), "axis", "end")]
    parts += [
        text(x, BOTTOM + 22, f"{ratio:,.0f}" if ratio < 1e6 else "1 million", "axis", "middle")
        for ratio, x in x_of.items()
    ]
    ends = []
    for name in NAMES:
        points = [(x_of[ratio], up(error, low, high)) for ratio, error in sorted(found.get(name, []))]
        if points:
            ends.append((points[-1][1], name))
            parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{name}"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.8" class="{name}"/>' for x, y in points]
    last = -math.inf
    for y, name in sorted(ends):  # labels at the ends of the lines, none over another
        last = max(y + 4, last + 15)
        parts.append(f'<circle cx="{right + 8}" cy="{last - 4:.1f}" r="4" class="{name}"/>')
        parts.append(text(right + 17, last, NAMES[name]))
    return parts


def main() -> int:
    folder, output = map(Path, sys.argv[1:])
    machine = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{NAMES[name]} {each}" for name, each in machine["versions"].items())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Speed and error of libbatchnorm beside its peers</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" class="ground"/>',
        *draw_speed(folder),
        *draw_errors(folder),
        text(20, HEIGHT - 14, f"{machine['processor']}, {machine['date'][:10]}: {versions}", "small"),
        "</svg>",
    ]
    output.write_text("\n".join(parts) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
