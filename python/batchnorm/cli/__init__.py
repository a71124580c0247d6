# SPDX-License-Identifier: Apache-2.0
"""The command line, `batchnorm` or `python -m batchnorm`.

Each command is a module here with `add_arguments` and `run`, imported when that command is asked for.
Exit status 0: done; 1: it could not be done, for the reason given; 2: it was not understood.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from .problems import UserError

# Each command's module, in the order of the help, and the line that the help has for it.
COMMANDS = {
    "info": "version, instruction set, threads and place of the library",
    "demo": "train a network on real digits, without and with batch norm",
    "experiments": "show what batch norm does, and when it does not, by training small networks",
}


def parser(command: str | None) -> argparse.ArgumentParser:
    """All commands by name, and the arguments of the one that is asked for."""
    root = argparse.ArgumentParser(prog="batchnorm", description="Batch normalization for NumPy arrays.")
    commands = root.add_subparsers(dest="command", required=True, metavar="command")
    for name, line in COMMANDS.items():
        added = commands.add_parser(name, help=line, description=line.capitalize() + ".")
        if name == command:
            import_module(f".{name}", __name__).add_arguments(added)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in given if word in COMMANDS), None)
    parsed = parser(command).parse_args(given)
    try:
        return int(import_module(f".{parsed.command}", __name__).run(parsed))
    except (UserError, OSError, RuntimeError) as error:  # RuntimeError: an environment variable that cannot be honoured
        print(f"batchnorm {parsed.command}: {error}", file=sys.stderr)
        return 1
