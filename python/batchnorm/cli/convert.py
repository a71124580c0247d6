# SPDX-License-Identifier: Apache-2.0
"""`batchnorm convert`: batch norms of a file for another framework."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.text import one_line, printable
from .problems import UserError, needing
from .tables import table

if TYPE_CHECKING:
    from ..conversion import Conversion

ROWS = 20
PACKAGES = {"onnx": "onnx", "h5py": "h5py", "torch": "torch", "safetensors": "safetensors"}
# As in batchnorm.interop.states, which would have to import NumPy.
FRAMEWORKS = (
    "pytorch", "keras", "flax", "nnx", "onnx", "mlx", "tensorflow", "caffe", "caffe2", "cudnn", "cudnn_saved",
    "darknet", "mxnet", "gluon", "dlib", "flux", "lux",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    reads = ".npz, .safetensors, .onnx, .h5, .keras, .pt or .pth"
    parser.add_argument("file", type=Path, metavar="IN", help=reads)
    parser.add_argument("output", type=Path, metavar="OUT", help=".npz or .safetensors, which is replaced if it exists")
    told = {"choices": FRAMEWORKS, "required": True, "metavar": "FRAMEWORK"}
    parser.add_argument("--from", dest="source", help=f"one of {', '.join(FRAMEWORKS)}", **told)  # type: ignore[arg-type]
    parser.add_argument("--to", dest="target", help="another one", **told)  # type: ignore[arg-type]
    parser.add_argument("--prefix", default="", metavar="NAME", help="only the layer of this name and those below it")
    parser.add_argument("--eps", type=float, metavar="E", help="of all layers, as IN has none or another one")
    parser.add_argument("--momentum", type=float, metavar="M", help="the same, in the sense of --from")
    parser.add_argument(
        "--count", type=float, metavar="M",
        help="values per channel of a training batch, where one framework takes the variance over M and the other over "
        "M - 1; without it variances are carried over as they are",
    )  # fmt: skip
    parser.add_argument(
        "--setting", type=setting, action="append", default=[], metavar="NAME=VALUE",
        help="another setting in the words of --from: fix_gamma=false (mxnet), eps_under_root=true (darknet)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs")


def setting(text: str) -> tuple[str, bool | float]:
    """NAME=VALUE, which is true, false or a number."""
    name, _, value = text.partition("=")
    try:
        if name and value:
            return name, {"true": True, "false": False}[value.lower()] if value[0].isalpha() else float(value)
    except (KeyError, ValueError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with true, false or a number")


def run(arguments: argparse.Namespace) -> int:
    with needing(str(arguments.file), PACKAGES):
        from .. import conversion
        from ..interop.conventions import convention_of

        source, target = convention_of(arguments.source), convention_of(arguments.target)
        settings = {source.eps_name: arguments.eps, source.momentum_names[0]: arguments.momentum}
        settings.update(arguments.setting)
        try:
            made = conversion.convert_file(
                arguments.file,
                arguments.output,
                arguments.source,
                arguments.target,
                prefix=arguments.prefix,
                count=arguments.count,
                **{name: value for name, value in settings.items() if value is not None},
            )
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(one_line(error)) from None
    if arguments.json:
        layers = [vars(each) for each in made.layers]
        print(
            json.dumps({"output": str(arguments.output), "layers": layers, "passed_over": made.passed_over}, indent=2)
        )
        return 0
    _tell(made, arguments.output)
    if source.unbiased != target.unbiased and arguments.count is None:
        kinds = ["biased (over M)", "unbiased (over M - 1)"]
        print(
            f"Variances are as they were: {source.framework} keeps the {kinds[source.unbiased]} one and "
            f"{target.framework} the {kinds[target.unbiased]} one; --count M converts them."
        )
    return 0


def _tell(made: Conversion, output: Path) -> None:
    words = list(made.layers[0].settings)
    # Every framework has True for a default: only what a new layer has to be told stands in the table.
    shown = [
        word
        for word in words
        if word != "num_features" and not all(each.settings[word] is True for each in made.layers)
    ]
    rows = [
        (
            printable(each.name) or "-",
            printable(each.new_name) or "-",
            str(each.channels),
            *(_text(each.settings[word]) for word in shown),
        )
        for each in made.layers[:ROWS]
    ]
    print(table(("layer", "is now", "channels", *shown), rows, left=2))
    if len(made.layers) > ROWS:
        print(f"... and {len(made.layers) - ROWS} more")
    print(f"\n{output}: {len(made.arrays)} arrays. The settings are not in it: give them to the new layers.")
    for name, value in (("gamma", 1), ("beta", 0)):
        filled = [each.name for each in made.layers if each.filled == name]
        if filled:
            more = " and more" if len(filled) > 4 else ""
            print(f"There was no {name}, and there is one of {value}s, in {printable(', '.join(filled[:4]))}{more}.")
    if made.passed_over:
        names = ", ".join(made.passed_over[:4]) + (" and more" if len(made.passed_over) > 4 else "")
        print(f"Other arrays are not in it, {len(made.passed_over)} of them: {printable(names)}.")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
