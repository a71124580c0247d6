# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings, typed as they stand, print what they say; and what stands around the layer has one."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path
from typing import Any

import pytest

import batchnorm as bn

# Modules are found as files: in an installed package the library lies among them.
ROOMS = ("_core", "settings", "statistics", "functional", "layers", "deploy", "interop")
PACKAGE = Path(bn.__path__[0])
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for room in ROOMS
    for path in (PACKAGE / room).rglob("*.py")
    if path.stem != "__init__"
)
# Every public function and class of these modules has a worked example.
SHOWN = [
    "deploy.folding",
    "deploy.scale_shift",
    "functional.derivatives",
    "interop.files",
    "interop.keras.layer",
    "interop.onnx",
    "interop.states",
    "layers.frozen",
    "layers.lazy",
    "layers.ranked",
    "layers.recalibration",
    "statistics.moments",
]


def examples_of(thing: Any, name: str, module: Any = None) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(thing, name, module) if test.examples]


@pytest.mark.parametrize("name", ["", *MODULES])
def test_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"batchnorm.{name}".rstrip("."))
    bn.isa()  # the names of the package are there from the first use on
    runner = doctest.DocTestRunner()
    for test in examples_of(module, name):
        runner.run(test)
    assert runner.failures == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", SHOWN)
def test_everything_has_an_example(name: str) -> None:
    module = importlib.import_module(f"batchnorm.{name}")
    # The text is read: __module__ of a public class is the place from which users import it.
    statements = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body
    defined = [each.name for each in statements if isinstance(each, (ast.ClassDef, ast.FunctionDef))]
    public = [name for name in defined if name[0] != "_"]
    assert public
    silent = [key for key in public if not examples_of(getattr(module, key), key, module)]
    assert not silent, f"no example in {silent}"


def test_a_wrong_example_is_seen() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner().run(test, out=lambda text: None).failed == 1
