# SPDX-License-Identifier: Apache-2.0
"""The build hook's messages where there is no library to put into the wheel: one sentence each."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import REPOSITORY


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """hatch_build.py with a stand-in for hatchling, which is there during a build only."""
    stand_in = ModuleType("hatchling.builders.hooks.plugin.interface")
    stand_in.BuildHookInterface = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    package = stand_in.__name__.rpartition(".")[0]
    while package:
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        package = package.rpartition(".")[0]
    spec = importlib.util.spec_from_file_location("hatch_build", REPOSITORY / "python" / "hatch_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_without_a_swift_toolchain(hook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        hook.built_library(REPOSITORY)
    assert stop.value.code == (
        "libbatchnorm.so needs a Swift toolchain: install one, or name a library in BATCHNORM_LIBRARY."
    )


def test_a_build_that_fails(hook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path, "swift", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        hook.built_library(REPOSITORY)
    assert stop.value.code == "swift build -c release failed; its own messages stand above."


@pytest.mark.parametrize("root", [".", "python"], ids=["a source distribution", "a checkout"])
def test_a_build_that_succeeds(root: str, hook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "Package.swift").touch()
    program(tmp_path, "swift", 'echo "$PWD: $*" > call')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hook.built_library(tmp_path / root) == tmp_path / ".build" / "release" / "libbatchnorm.so"
    assert (tmp_path / "call").read_text() == f"{tmp_path}: build -c release\n"


def test_outside_of_a_checkout(hook: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        hook.built_library(tmp_path / "python")
    assert stop.value.code == (
        f"{tmp_path} has no Package.swift: build in a checkout, or name a library in BATCHNORM_LIBRARY."
    )


def test_a_library_that_is_named(hook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "mine.so"
    monkeypatch.setenv("BATCHNORM_LIBRARY", str(path))
    with pytest.raises(SystemExit) as stop:
        hook.given_library()
    assert stop.value.code == f"BATCHNORM_LIBRARY is {path}, where there is no file."
    path.touch()
    assert hook.given_library() == path
    monkeypatch.setenv("BATCHNORM_LIBRARY", "")
    assert hook.given_library() is None
