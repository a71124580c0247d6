# SPDX-License-Identifier: Apache-2.0
"""parsers FOLDER [-s SEED] [-t SECONDS] [-f FORMAT]... [-o NUMBER] [FILE...]

Reads files that were valid before they were changed, at random, for so many seconds: each has to be refused in a
sentence, or give the numbers that are in it. FOLDER takes the files, among them those at fault. -o makes one input of a
format alone, as a fault names it. FILES are checked as they are. The last line counts the formats.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import batchnorm as bn
from mutations import mutated_bytes

FORMATS = ["npz", "safetensors", "hdf5", "keras", "onnx", "states", "pickles"]
# One input that takes longer goes on without end. The process dies of it, and the input lies where it was written.
_HANGS = 120  # seconds

_LEAST = 25  # inputs of a format, on a machine that is busy with other things


def main() -> int:
    parser = argparse.ArgumentParser(prog="parsers", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-s", "--seed", type=int, default=1)
    parser.add_argument("-t", "--seconds", type=float, default=10)
    parser.add_argument("-f", "--format", choices=FORMATS, action="append")
    parser.add_argument("-o", "--only", type=int)
    parser.add_argument("files", type=Path, nargs="*")
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)
    warnings.simplefilter("error")  # a reader that warns says something that its caller cannot catch
    bn.set_num_threads(1)

    passed, failed, skipped = 0, 0, []
    for name in told.format or FORMATS:
        try:
            module = _loaded(name)
        except ImportError as error:
            skipped.append(f"{name}: {error.name} is not installed")
            continue
        files = [each for each in told.files if each.suffix == module.SUFFIX]
        if told.files and not files:
            continue
        fine = _fuzzed(module, told, files, told.seconds / len(told.format or FORMATS))
        passed, failed = passed + fine, failed + (not fine)
    reasons = f", {len(skipped)} skipped ({'; '.join(skipped)})" if skipped else ""
    print(f"{passed} passed, {failed} failed{reasons}")
    return 1 if failed else 0


def _loaded(name: str) -> ModuleType:
    module = importlib.import_module(f"of_{name}")
    for package in module.PACKAGES:
        importlib.import_module(package)
    return module


def _fuzzed(module: ModuleType, told: argparse.Namespace, files: list[Path], seconds: float) -> bool:
    """True if no input of a format was at fault. It stops at the first that is, and keeps it."""
    path = told.folder / f"input{module.SUFFIX}"
    loaded = number = 0
    end = time.monotonic() + seconds
    seeds = module.seeds(told.folder)
    inputs = ((each, each.read_bytes()) for each in files) if files else _inputs(module, seeds, told)
    for name, data in inputs:
        path.write_bytes(data)
        signal.alarm(_HANGS)
        try:
            loaded += module.check(path)
        except BaseException:
            kept = told.folder / f"fault-{module.NAME}-{told.seed}-{name}{module.SUFFIX}"
            shutil.copy(path, kept)
            traceback.print_exc()
            print(f"{module.NAME}: seed {told.seed}, input {name}: at fault; kept as {kept}")
            return False
        finally:
            signal.alarm(0)
        number += 1
        if not files and number >= _LEAST and time.monotonic() > end:
            break
    print(f"{module.NAME}: {number} inputs, seed {told.seed}, {loaded} loaded, {number - loaded} refused")
    return loaded > 0 or bool(files) or told.only is not None


def _inputs(module: ModuleType, seeds: list[bytes], told: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    """First the seeds as they are; then, without end, what is made of them."""
    if told.only is None:
        yield from ((f"seed{index}", data) for index, data in enumerate(seeds))
    number = told.only or 0
    while True:
        rng = random.Random(f"{told.seed} {module.NAME} {number}")
        data = rng.choice(seeds)
        if rng.random() < 0.7:
            data = module.mutated(rng, data)
        if rng.random() < 0.4 and not getattr(module, "DRAWN", False):  # whose bytes are no file's
            data = mutated_bytes(rng, data)
        yield str(number), data
        if told.only is not None:
            return
        number += 1


sys.exit(main())
