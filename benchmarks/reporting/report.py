# SPDX-License-Identifier: Apache-2.0
"""results.md, out of what the measurements left in a directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import rows
from harness.rows import BesideRow, CallRow, ErrorRow, Row, ScalingRow, SweepRow, VariantRow

from . import beside, calls, others, plots, speed, variants

KEY = """\
Times are medians of alternating rounds in one process, ± is their median absolute deviation. "/ floor": time of a call
from C over the time of the floor, which is memcpy of the tensor for training and inference, and for backward the better
of two passes that read two tensors and write one. "/ two reads": over reading the tensor and then copying it, which is
the floor of training where no cache holds what belongs together. "torch / ours": how many times as long the peer takes,
from Python against a call from Python, from C against one from C. GB/s counts every tensor once. In brackets: the worst
case.
"""


def about(machine: dict[str, Any]) -> Iterator[str]:
    caches = ", ".join(f"{level} {size >> 10} KB" for level, size in machine["caches"].items())
    yield f"- {machine['date']}, {machine['processor']}, {machine['cpus']} CPUs, {caches}, {machine['memory_gb']} GB"
    yield f"- Linux {machine['kernel']}, {machine['libc']}, Python {machine['python']}"
    yield "- " + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    for name, reason in machine["absent"].items():
        yield f"- absent: {name} ({reason})"
    if "busy" in machine:
        yield f"- {machine['busy']}"


def sections(directory: Path) -> Iterator[tuple[str, str]]:
    """Headings and what is below them."""
    measured = rows.read(directory / "results.csv", Row)
    errors = rows.read(directory / "errors.csv", ErrorRow)
    swept, scaled = rows.read(directory / "sweep.csv", SweepRow), rows.read(directory / "scaling.csv", ScalingRow)
    from_c = rows.read(directory / "beside.csv", BesideRow)
    described = json.loads((directory / "machine.json").read_text(encoding="utf-8"))
    yield "Machine", "\n".join(about(described)) + "\n"
    if beside.groups(from_c):
        yield "Worst case beside each peer", beside.worst(from_c)
    if measured:
        key = f"{KEY}The floor's mean is over tensors larger than L2.\n\n"
        yield "Summary", f"{key}{speed.summary(measured, described['caches'].get('L2', 0))}"
    small = rows.read(directory / "calls.csv", CallRow)
    if small:
        yield "Calls with small tensors", calls.calls(small)
    if errors:
        unit = "The largest error of y in training, float32, in units of eps · max(1, |y|).\n\n"
        yield "Error", unit + others.errors(errors)
    pictures = plots.draw_all(directory, measured, from_c, swept, scaled)
    if pictures:
        yield "Pictures", "".join(f"![{name.removesuffix('.png')}]({name})\n" for name in pictures)
    for isa, threads, operation, part in speed.split(measured):
        if speed.peers_in(part):
            yield f"{operation}, {isa}, {threads} thread{'s' * (threads > 1)}", speed.details(part)
    if len({row.isa for row in measured}) > 1:
        yield "Times of the floor, by instruction set", speed.instruction_sets(measured)
    yield from variants.sections(rows.read(directory / "variants.csv", VariantRow))
    if scaled:
        yield "Times as fast as with one thread", others.scaling(scaled)
    if swept:
        yield "Largest step between neighbouring sizes", others.steps(swept)


def write(directory: Path) -> None:
    text = "".join(f"\n## {heading}\n\n{body}" for heading, body in sections(directory))
    (directory / "results.md").write_text(f"# Results\n{text}", encoding="utf-8")
