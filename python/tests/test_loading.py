# SPDX-License-Identifier: Apache-2.0
"""The library that is loaded, and the ImportError when there is none or the wrong one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import PACKAGE, python

from batchnorm._core import library

# The library is loaded when a name is used for the first time.
USE = "from batchnorm import BatchNorm"


def built(folder: Path, source: str) -> Path:
    (folder / "other.c").write_text(source)
    path = folder / "libother.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, folder / "other.c"], check=True)
    return path


def import_error(path: Path) -> str:
    done = python(USE, BATCHNORM_LIBRARY=str(path))
    assert done.returncode == 1
    last = done.stderr.rstrip()
    assert "\nImportError: " in last
    return last[last.rindex("\nImportError: ") :]


def test_the_environment_chooses_the_library(tmp_path: Path) -> None:
    copy = Path(shutil.copy(library.find_library(), tmp_path / "mine.so"))
    done = python("import batchnorm._core.library as c; print(c.lib._name)", BATCHNORM_LIBRARY=str(copy))
    assert done.stdout.strip() == str(copy)


def test_a_chosen_library_that_is_missing_is_not_replaced(tmp_path: Path) -> None:
    message = import_error(tmp_path / "none.so")
    assert f"libbatchnorm.so was not found. Tried (from BATCHNORM_LIBRARY):\n    {tmp_path / 'none.so'}" in message


def test_what_was_tried_is_listed(tmp_path: Path) -> None:
    """The package without its library, in a place that is no checkout."""
    package = tmp_path / "somewhere" / "python" / "batchnorm"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__", "demo"))
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r}); import batchnorm; batchnorm.isa()"
    done = python(code, BATCHNORM_LIBRARY="")
    assert "ImportError: libbatchnorm.so was not found. Tried:" in done.stderr
    assert f"    {package / 'libbatchnorm.so'}" in done.stderr
    assert f"    {tmp_path / 'somewhere' / '.build' / 'release' / 'libbatchnorm.so'}" in done.stderr


def test_a_checkout_says_how_the_library_is_built(tmp_path: Path) -> None:
    package = tmp_path / "python" / "batchnorm"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__", "demo"))
    (tmp_path / "Package.swift").touch()
    done = python(
        f"import sys; sys.path.insert(0, {str(package.parent)!r}); import batchnorm; batchnorm.isa()",
        BATCHNORM_LIBRARY="",
    )
    assert f"libbatchnorm.so was not found: `make lib` in {tmp_path} builds it. Tried:" in done.stderr


@pytest.mark.parametrize("place", ["python/batchnorm", ".build/release"])
def test_every_place_that_is_listed_is_looked_at(tmp_path: Path, place: str) -> None:
    package = tmp_path / "python" / "batchnorm"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__", "demo"))
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    copy = shutil.copy(library.find_library(), tmp_path / place / "libbatchnorm.so")
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r}); from batchnorm._core.library import lib as c; "
    code += "print(c._name)"
    assert python(code, BATCHNORM_LIBRARY="").stdout.strip() == str(copy)


def test_the_first_place_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library beside the package comes before the one that a build left."""
    package = tmp_path / "python" / "batchnorm"
    places = package / "libbatchnorm.so", tmp_path / ".build" / "release" / "libbatchnorm.so"
    monkeypatch.delenv("BATCHNORM_LIBRARY", raising=False)
    monkeypatch.setattr(library, "__file__", str(package / "_core" / "library.py"))
    with pytest.raises(ImportError, match="was not found. Tried:" + "".join(f"\n    {place}" for place in places)):
        library.find_library()
    for place in reversed(places):
        place.parent.mkdir(parents=True)
        place.touch()
        assert library.find_library() == str(place)


def test_not_a_library(tmp_path: Path) -> None:
    path = tmp_path / "text.so"
    path.write_text("not a library")
    assert re.search(rf"{re.escape(str(path))} could not be loaded: .*", import_error(path))


def test_a_foreign_library(tmp_path: Path) -> None:
    path = built(tmp_path, "int something(void) { return 0; }")
    assert f"{path} is not libbatchnorm: it does not export bn_version" in import_error(path)


@pytest.mark.parametrize("change", [-10000, 10000])
def test_another_major_version(tmp_path: Path, change: int) -> None:
    number = library.lib.bn_version() + change
    path = built(tmp_path, f"int bn_version(void) {{ return {number}; }}")
    message = import_error(path)
    wanted = library.__version__.rpartition(".")[0]
    assert f"batchnorm {library.__version__} needs libbatchnorm {wanted} or a later 2.x, but {path} is " in message
    assert message.endswith(f" is {number // 10000}.{number // 100 % 100}.{number % 100}")


def test_an_earlier_minor_version(monkeypatch: pytest.MonkeyPatch) -> None:
    path = library.find_library()
    number = library.lib.bn_version()
    major, minor = number // 10000, number // 100 % 100
    later = f"{major}.{minor + 1}"
    monkeypatch.setattr(library, "__version__", f"{later}.0")
    message = f"batchnorm {later}.0 needs libbatchnorm {later} or a later {major}.x, but .* is {major}.{minor}.0"
    with pytest.raises(ImportError, match=message):
        library.load_library(path)


def test_a_later_minor_version_is_fine(tmp_path: Path) -> None:
    names = "\n".join(f"int {name}(void) {{ return 0; }}" for name in library.PROTOTYPES if name != "bn_version")
    path = built(tmp_path, f"int bn_version(void) {{ return {library.lib.bn_version() + 107}; }}\n{names}")
    done = python(USE, BATCHNORM_LIBRARY=str(path))
    assert (done.returncode, done.stderr) == (0, "")


def test_an_incomplete_library(tmp_path: Path) -> None:
    path = built(tmp_path, f"int bn_version(void) {{ return {library.lib.bn_version()}; }}")
    assert f"{path} is not libbatchnorm: it does not export bn_forward_training" in import_error(path)


def test_importing_starts_no_thread_and_no_test_tool() -> None:
    code = (
        "import os, sys, batchnorm; batchnorm.isa; print(len(os.listdir('/proc/self/task')), 'sklearn' in sys.modules)"
    )
    # NumPy's own BLAS starts threads on import unless it is told not to.
    assert python(code, OPENBLAS_NUM_THREADS="1").stdout.split() == ["1", "False"]
