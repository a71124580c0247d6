# SPDX-License-Identifier: Apache-2.0
"""coverage HTML: fails unless the reference of a built site has every public name of the header and of the package.

The names that the reference has are those of the site's inventory. The names that it should have come from elsewhere:
from the header without its comments, the fields of the package's ctypes structures, and the package as it is imported.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "docs" / "extensions")]


def of_header() -> Iterator[str]:
    """Every name of ours in the header; those of fields with that of their structure."""
    from batchnorm._core import structs

    header = (ROOT / "Include" / "batchnorm.h").read_text(encoding="utf-8")
    yield from re.findall(r"\b(?:bn|BN)_\w+", re.sub(r"/\*.*?\*/", " ", header, flags=re.DOTALL))
    for structure in vars(structs).values():
        if isinstance(structure, type) and issubclass(structure, ctypes.Structure):
            yield from (f"bn_{structure.__name__.lower()}.{field[0]}" for field in structure._fields_)


def of_package() -> Iterator[str]:
    """The names of the package and of its rooms, methods that have a docstring, and the modules that hold the names."""
    import batchnorm
    import jax_names
    import torch_names

    jax_names.load()
    torch_names.load()
    for name in batchnorm.__all__:
        yield from of_name(getattr(batchnorm, name), f"batchnorm.{name}")
    for place in batchnorm._MODULES.values():
        room = importlib.import_module(f"batchnorm.{place}")
        yield room.__name__
        exported = getattr(room, "__all__", None) or functions_of(room)
        for name in set(exported) - set(batchnorm.__all__):
            yield from of_name(getattr(room, name), f"{room.__name__}.{name}")
        if place.count(".") == 0:
            yield from modules_of(room)


def functions_of(module: ModuleType) -> list[str]:
    """The public functions that are written in a module."""
    functions = inspect.getmembers(module, inspect.isfunction)
    return [name for name, function in functions if name[0] != "_" and function.__module__ == module.__name__]


def modules_of(room: ModuleType) -> Iterator[str]:
    """The modules from which a room takes its names: their docstrings say how the names go together."""
    for statement in ast.parse(inspect.getsource(room)).body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            yield f"{room.__name__}.{statement.module}"


def of_name(thing: Any, name: str) -> Iterator[str]:
    if not isinstance(thing, (ModuleType, str)):
        yield name
        yield from of_class(thing, name)


def of_class(thing: Any, name: str) -> Iterator[str]:
    """Methods and properties, be they of a base that is private; those of a public one are there."""
    import batchnorm

    if not inspect.isclass(thing):
        return
    public = [getattr(batchnorm, each) for each in batchnorm.__all__]
    for base in thing.__mro__:
        if base is not thing and base in public:
            return
        if not base.__module__.startswith("batchnorm"):
            continue
        for key, value in vars(base).items():
            is_member = isinstance(value, (property, classmethod, staticmethod)) or inspect.isfunction(value)
            if is_member and (key[0] != "_" or key == "__call__") and inspect.getdoc(getattr(base, key)):
                yield f"{name}.{key}"


def main() -> int:
    inventory = InventoryFile.loads((Path(sys.argv[1]) / "objects.inv").read_bytes(), uri="").data
    there = {name for kind, names in inventory.items() if kind.startswith(("c:", "py:")) for name in names}
    there |= {name.rpartition(".")[2] for name in inventory["c:enumerator"]}
    wanted = sorted({*of_header(), *of_package()})
    missing = [name for name in wanted if name not in there]
    for name in missing:
        print(f"the reference has no {name}")
    print(f"{len(wanted)} public names; {len(missing)} are missing")
    return 1 if missing or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
