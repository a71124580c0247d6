# SPDX-License-Identifier: Apache-2.0
"""The command line, `batchnorm` or `python -m batchnorm`.

Each command is a module here with `add_arguments` and `run`, imported when that command is asked for.
Exit status 0: done; 1: it could not be done, for the reason given; 2: it was not understood; 3: `inspect --fail-on`
found something; 130 and 141: interrupted, and nobody read the output to its end. Nothing here imports NumPy or the
library before a command asks for it.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from .._version import __version__
from .problems import UserError

# Each command's module, in the order of the help, and the line that the help has for it.
COMMANDS = {
    "info": "version, instruction set, threads and place of the library, and whether it computes right",
    "bench": "forward, backward and inference beside a copy and NumPy",
    "inspect": "show the batch norms of a model file, and what is wrong with them",
    "convert": "write the batch norms of a file in the names and conventions of another framework",
    "demo": "train a network on real digits, without and with batch norm",
    "experiments": "show what batch norm does, and when it does not, by training small networks",
    "live": "open the page that trains two networks in the browser",
    "fold": "fold the batch norms of an ONNX file into the layers beside them",
    "recalibrate": "give the batch norms of an ONNX file the statistics of data",
}


def parser(command: str | None) -> argparse.ArgumentParser:
    """All commands by name, and the arguments of the one that is asked for."""
    root = argparse.ArgumentParser(prog="batchnorm", description="Batch normalization for NumPy arrays.")
    root.add_argument("--version", action="version", version=f"batchnorm {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="command")
    for name, line in COMMANDS.items():
        added = commands.add_parser(name, help=line, description=line.capitalize() + ".")
        if name == command:
            import_module(f".{name}", __name__).add_arguments(added)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of layers may have letters that a terminal has not
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(given)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # an error of it would have no handler later
    except BrokenPipeError:
        _discard_output()
        return 141
    except OSError as error:
        _discard_output()
        print(f"batchnorm: the output cannot be written: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(given: list[str]) -> int:
    command = next((word for word in given if word in COMMANDS), None)
    try:
        parsed = parser(command).parse_args(given)
        return int(import_module(f".{parsed.command}", __name__).run(parsed))
    except BrokenPipeError:
        raise
    except (UserError, OSError, ImportError, MemoryError, RuntimeError) as error:
        # ImportError: the library or a package was not found; RuntimeError: an environment variable cannot be honoured.
        print(f"batchnorm {command}: {_told(error)}", file=sys.stderr)
        return 1


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"  # without the number
    return str(error) or type(error).__name__


def _discard_output() -> None:
    """Discards the rest of the buffer; else Python would try to write it once more as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
