# SPDX-License-Identifier: Apache-2.0
"""`batchnorm inspect`: the batch norms of a model file, and what is wrong with them."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.text import one_line, printable
from .._finding_kinds import KINDS
from .problems import UserError, needing
from .tables import table

if TYPE_CHECKING:
    from ..inspection import Finding, Norm

# Rows of the table, and channels that are named, unless all are asked for.
ROWS, CHANNELS = 20, 8
WIDEST_NAME = 48
PACKAGES = {"onnx": "onnx", "h5py": "h5py", "torch": "torch", "safetensors": "safetensors"}
HEADER = ("layer", "channels", "eps", "momentum", "|mean| max", "var min", "var max", "|gamma| min", "max")
ANY = "any"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help=".onnx, .safetensors, .npz, .h5, .keras, .pt or .pth")
    parser.add_argument("--all", action="store_true", help=f"every layer and channel, not the first {ROWS}")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw statistics by layer; needs matplotlib")
    parser.add_argument(
        "--fail-on", type=kinds, default=(), metavar="KIND,...",
        help="exit with 3 if there is such a finding, or 'any', or if there is no batch norm: 'missing'",
    )  # fmt: skip
    width = max(map(len, KINDS))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "findings:\n" + "\n".join(f"  {kind:{width}}  {line}" for kind, line in KINDS.items())


def kinds(text: str) -> tuple[str, ...]:
    """Kinds of findings, separated by commas."""
    known = (*KINDS, ANY, "missing")
    named = tuple(text.split(","))
    for each in named:
        if each not in known:
            raise argparse.ArgumentTypeError(f"{each!r} is none of {', '.join(known)}")
    return named


def run(arguments: argparse.Namespace) -> int:
    file: Path = arguments.file
    with needing(str(file), PACKAGES):
        import numpy as np

        from .. import inspection

        try:
            norms = inspection.read_norms(file)
        except (ValueError, TypeError) as error:
            raise UserError(one_line(error)) from None
    with np.errstate(all="ignore"):
        found = inspection.findings(norms)
        if arguments.json:
            print(json.dumps(_as_json(file, norms, found), indent=2))
        else:
            _tell(file, norms, found, arguments.all)
        if arguments.plot is not None:
            _plot(arguments.plot, file, norms, found, quiet=arguments.json)
    kinds_there = {each.kind for of_norm in found for each in of_norm} | ({"missing"} if not norms else set())
    wanted = set(arguments.fail_on)
    return 3 if kinds_there & wanted or (ANY in wanted and kinds_there - {"missing"}) else 0


def _plot(path: Path, file: Path, norms: list[Norm], found: list[list[Finding]], *, quiet: bool) -> None:
    with needing("--plot", {"matplotlib": "matplotlib"}):
        from ..inspection import plot
    there = [each for each in zip(norms, found) if each[0].var is not None]
    if not there:
        raise UserError(f"{file} has no batch norm with statistics to draw")
    try:
        plot.draw(path, file.name, there)
    except ValueError as error:  # a format that matplotlib does not have
        raise UserError(f"{path}: {one_line(error)}") from None
    if not quiet:
        print(f"\nDrawn in {path}")


def _extremes(array: Any, magnitude: bool = False) -> tuple[float, float]:
    import numpy as np

    if array is None:
        return math.nan, math.nan
    values = np.abs(array) if magnitude else array
    return float(values.min()), float(values.max())


def _as_json(file: Path, norms: list[Norm], found: list[list[Finding]]) -> dict[str, Any]:
    listed = []
    for norm, of_norm in zip(norms, found):
        ranges = {name: _extremes(getattr(norm, name)) for name in ("gamma", "beta", "mean", "var")}
        ranges["scale"] = _extremes(norm.scale() if norm.var is not None else None)
        listed.append(
            {
                "name": norm.name,
                "framework": norm.framework,
                "channels": norm.channels,
                "dtypes": norm.dtypes,
                "eps": _number(norm.eps),
                "momentum": _number(norm.momentum),
                "num_batches": norm.batches,
                "ranges": {
                    name: [_number(each) for each in extremes]
                    for name, extremes in ranges.items()
                    if name == "scale" or getattr(norm, name) is not None
                },
                "findings": [{**each._asdict(), "channels": list(each.channels)} for each in of_norm],
            }
        )
    return {"file": str(file), "norms": listed}


def _number(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity."""
    return value if value is not None and math.isfinite(value) else None


def _tell(file: Path, norms: list[Norm], found: list[list[Finding]], everything: bool) -> None:
    if not norms:
        print(
            f"{file}: no batch norm."
            + (" Exporting and optimizing may have folded them away." if file.suffix == ".onnx" else "")
        )
        return
    channels, remarked = sum(norm.channels for norm in norms), sum(map(bool, found))
    layers = "1 batch norm" if len(norms) == 1 else f"{len(norms)} batch norms"
    plural = "" if channels == 1 else "s"
    print(f"{file}: {layers}, {channels} channel{plural}; {remarked} with findings\n")
    shown = norms if everything else norms[:ROWS]
    print(table(HEADER, [_row(norm, everything) for norm in shown]))
    if len(shown) < len(norms):
        print(f"... and {len(norms) - len(shown)} more (--all)")
    _tell_findings(norms, found, everything)


def _tell_findings(norms: list[Norm], found: list[list[Finding]], everything: bool) -> None:
    """Prints findings about whole layers once for all layers that have them, and each advice once."""
    advised: set[str] = set()
    together: dict[Finding, list[str]] = {}
    for norm, of_norm in zip(norms, found):
        for each in of_norm:
            if not each.channels:
                together.setdefault(each, []).append(printable(norm.name))
    for each, names in together.items():
        more = "" if everything or len(names) <= CHANNELS else f" and {len(names) - CHANNELS} more"
        print(f"\n{', '.join(names if everything else names[:CHANNELS])}{more}")
        _tell_one(each, "", advised)
    for norm, of_norm in zip(norms, found):
        if any(each.channels for each in of_norm):
            print(f"\n{printable(norm.name)}")
        for each in of_norm:
            if each.channels:
                _tell_one(each, _where(each, norm, everything), advised)


def _tell_one(finding: Finding, where: str, advised: set[str]) -> None:
    print(f"  {finding.kind}: {where}{printable(finding.text)}")
    if finding.advice not in advised:
        print(f"    {finding.advice}")
        advised.add(finding.advice)


def _row(norm: Norm, everything: bool) -> tuple[str, ...]:
    var, gamma = _extremes(norm.var), _extremes(norm.gamma, magnitude=True)
    name = printable(norm.name)
    name = name if everything or len(name) <= WIDEST_NAME else "..." + name[3 - WIDEST_NAME :]
    numbers = (norm.eps, norm.momentum, _extremes(norm.mean, magnitude=True)[1], *var, *gamma)
    texts = ["-" if each is None else f"{each:.3g}" for each in numbers]
    absent = [norm.mean is None, norm.var is None, norm.var is None, norm.gamma is None, norm.gamma is None]
    texts[2:] = ["-" if no else text for no, text in zip(absent, texts[2:])]
    return name, str(norm.channels or "-"), *texts


def _where(finding: Finding, norm: Norm, everything: bool) -> str:
    number = len(finding.channels)
    named = finding.channels if everything else finding.channels[:CHANNELS]
    which = ", ".join(map(str, named)) + (", ..." if len(named) < number else "")
    return f"{number} of {norm.channels} channels ({which}): "
