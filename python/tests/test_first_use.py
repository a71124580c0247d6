# SPDX-License-Identifier: Apache-2.0
"""Importing the package loads nothing; the first use of a name loads all, in whatever thread, once."""

from __future__ import annotations

import sys

import pytest
from helpers import python

import batchnorm as bn
from batchnorm._core import library

LOADED = "[name for name in ('numpy', 'ctypes', 'batchnorm._core.library') if name in sys.modules]"


def printed(code: str) -> str:
    done = python(f"import sys\n{code}")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_importing_loads_nothing() -> None:
    before = (
        "import batchnorm as bn; bn.__version__, dir(bn), bn.__all__, hasattr(bn, 'none'), hasattr(bn, '__wrapped__')"
    )
    # Modules that site imports are not ours.
    code = f"there = {LOADED}\n{before}\nprint([name for name in {LOADED} if name not in there])"
    assert printed(code) == "[]"


@pytest.mark.parametrize("name", [*bn.__all__, "onnx", "functional", "interop"])
def test_each_name_is_there_alone(name: str) -> None:
    assert hasattr(bn, name)
    if name in ("BatchNorm", "write_state", "functional"):  # a process for each would take long
        assert printed(f"from batchnorm import {name}; print({name} is sys.modules['batchnorm'].{name})") == "True"


def test_names_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match=r"^module 'batchnorm' has no attribute 'BatchNorm4d'$"):
        bn.BatchNorm4d  # noqa: B018
    with pytest.raises(ImportError, match="^cannot import name 'BatchNorm4d' from 'batchnorm'"):
        from batchnorm import BatchNorm4d  # noqa: F401
    for name in ("none.more", "demo.network", "layers.none", "."):
        assert not hasattr(bn, name)
    # Packages within are not imported because somebody asks for a name.
    assert printed("import batchnorm as bn; print(hasattr(bn, 'demo'), hasattr(bn, 'cli'))") == "False False"


@pytest.mark.parametrize(
    ("guest", "called", "name"),
    [
        ("keras", "Keras", "BatchNormalization"),
        ("sklearn", "scikit-learn", "BatchNormScaler"),
        ("torch", "PyTorch", "convert"),
    ],
)
def test_without_the_package_of_a_guest(guest: str, called: str, name: str) -> None:
    """Only the module of that name needs it, and says so."""
    hidden = f"sys.modules[{guest!r}] = None; import batchnorm as bn\n"
    assert (
        printed(f"{hidden}print(hasattr(bn, {guest!r}), hasattr(bn, 'onnx'), {guest!r} in dir(bn))")
        == "False True False"
    )
    for statement in (
        f"import batchnorm.{guest}",
        f"from batchnorm import {guest}",
        f"from batchnorm.{guest} import {name}",
    ):
        caught = f"try: {statement}\nexcept ImportError as error: print(error)"
        assert printed(hidden + caught).startswith(f"batchnorm.{guest} needs {called}, which cannot be imported: ")


def test_without_threadpoolctl() -> None:
    """It need not be there, and may be older than controllers are."""
    for hidden in ("sys.modules['threadpoolctl'] = None", "sys.modules['threadpoolctl'] = type(sys)('threadpoolctl')"):
        assert printed(f"{hidden}; import batchnorm as bn; print(bn.moments([[1.0], [3.0]]).mean)") == "[2.]"


def test_later_uses_are_of_the_modules_own_names() -> None:
    code = "import batchnorm as bn; bn.BatchNorm, bn.onnx; del bn.__getattr__; print(bn.BatchNorm, bn.onnx.__name__)"
    assert printed(code) == "<class 'batchnorm.BatchNorm'> batchnorm.interop.onnx"


def test_a_name_loads_its_room_and_those_below() -> None:
    code = "import batchnorm as bn; bn.{}; print(*(n for n in sys.modules if n.count('.') == 1))"
    loaded = {name: printed(code.format(name)).split() for name in ("moments", "BatchNorm", "read_state")}
    assert "batchnorm.functional" not in loaded["moments"]
    assert not {"batchnorm.deploy", "batchnorm.interop"} & set(loaded["BatchNorm"])
    assert {"batchnorm.interop", "batchnorm.layers"} <= set(loaded["read_state"])


def test_names_that_somebody_has_put_there_stay() -> None:
    assert printed("import batchnorm as bn; bn.moments = 7; bn.BatchNorm; print(bn.moments)") == "7"


@pytest.mark.parametrize("module", ["layers", "layers.frozen", "interop.keras", "_core.structs"])
def test_classes_are_public_from_whatever_module_they_come(module: str) -> None:
    """Pickles name their modules, and nobody has to have used the package before."""
    kind = {
        "layers.frozen": "FrozenBatchNorm2d",
        "interop.keras": "BatchNormalization",
        "_core.structs": "Outcome",
    }
    code = f"from batchnorm.{module} import {kind.get(module, 'BatchNorm2d')} as kind; print(kind.__module__)"
    assert printed(code) == ("batchnorm.interop.keras" if module == "interop.keras" else "batchnorm")


THREADS = """
import threading
sys.setswitchinterval(1e-6)
import batchnorm as bn
names, seen, start = ["BatchNorm", "interop", "deploy", "moments", "onnx", "isa"], [], threading.Barrier(6)
def use(name):
    start.wait()
    try:
        seen.append(getattr(bn, name) is getattr(bn, name))
    except BaseException as error:
        seen.append(error)
threads = [threading.Thread(target=use, args=(name,)) for name in names]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(seen)
"""


def test_first_uses_in_several_threads() -> None:
    """NumPy is not loaded before, and threads must not import parts of it at once."""
    for _ in range(2):
        assert printed(THREADS) == str([True] * 6)


def test_the_library_is_asked_for_again_after_it_was_not_found() -> None:
    code = """
import os
os.environ["BATCHNORM_LIBRARY"] = "/none"
import batchnorm as bn
try:
    bn.isa
except ImportError as error:
    print(error)
os.environ["BATCHNORM_LIBRARY"] = LIBRARY
print(bn.isa() != "")
"""
    code = code.replace("LIBRARY\n", repr(str(library.find_library())) + "\n")
    said = printed(code).splitlines()
    assert said[0].startswith("libbatchnorm.so was not found")
    assert said[-1] == "True"


def test_this_test_sees_a_package_that_is_loaded() -> None:
    assert printed(f"import batchnorm as bn; bn.BatchNorm; print({LOADED})").startswith(
        "['numpy', 'ctypes', 'batchnorm._core.library'"
    )
    assert "batchnorm.layers" in sys.modules
