# SPDX-License-Identifier: Apache-2.0
"""coverage HTML: whether the reference of a built site has every name that is public, of the header and of the package.

What there is comes from the site's inventory. What there should be comes from elsewhere than the site has it from: the
header without its comments, the fields of the package's ctypes structures, and the package as it is imported.
"""

from __future__ import annotations

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
sys.path.insert(0, str(ROOT / "python"))


def of_header() -> Iterator[str]:
    """Every name of ours in the header; those of fields with that of their structure."""
    from batchnorm._core import structs

    header = (ROOT / "Include" / "batchnorm.h").read_text(encoding="utf-8")
    yield from re.findall(r"\b(?:bn|BN)_\w+", re.sub(r"/\*.*?\*/", " ", header, flags=re.DOTALL))
    for structure in vars(structs).values():
        if isinstance(structure, type) and issubclass(structure, ctypes.Structure):
            yield from (f"bn_{structure.__name__.lower()}.{field[0]}" for field in structure._fields_)


def of_package() -> Iterator[str]:
    """What the package, keras and onnx export, and the methods and modules that have a docstring."""
    import batchnorm
    from batchnorm import keras, onnx

    for path in (ROOT / "python" / "batchnorm").glob("[!_]*.py"):
        yield f"batchnorm.{path.stem}"
        importlib.import_module(f"batchnorm.{path.stem}")
    for name in batchnorm.__all__:
        thing = getattr(batchnorm, name)
        if not isinstance(thing, (ModuleType, str)):
            yield f"batchnorm.{name}"
            yield from of_class(thing, f"batchnorm.{name}")
    for module in (keras, onnx):
        for name, thing in vars(module).items():
            if name[0] != "_" and callable(thing) and thing.__module__ == module.__name__:
                yield f"{module.__name__}.{name}"
                yield from of_class(thing, f"{module.__name__}.{name}")


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
