# SPDX-License-Identifier: Apache-2.0
"""The names that type checkers know of the package are those that it has."""

from __future__ import annotations

import ast
from pathlib import Path

import batchnorm as bn


def test_the_stub_has_the_names_of_the_package() -> None:
    stub = ast.parse(Path(str(bn.__file__)).with_suffix(".pyi").read_text(encoding="utf-8"))
    imported = {
        alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    rooms = {name: room for room, names in bn._ROOMS.items() for name in names}
    assert {name: room for name, room in imported.items() if name in rooms} == rooms
    assert sorted(imported.keys() - rooms.keys()) == sorted([*bn._MODULES, "__version__"])
    (listed,) = (ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert listed == bn.__all__
