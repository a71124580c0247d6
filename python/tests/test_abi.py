# SPDX-License-Identifier: Apache-2.0
"""The declarations in batchnorm._c_api against Include/batchnorm.h."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY

import batchnorm as bn
from batchnorm import _c_api, _version

HEADER = REPOSITORY / "Include" / "batchnorm.h"
SOURCE = re.sub(r"/\*.*?\*/|//[^\n]*", " ", HEADER.read_text(), flags=re.DOTALL)

# Elements go by address, whatever their type; a structure goes by pointer to it.
C_TYPES: dict[str, Any] = {
    "int": ctypes.c_int,
    "size_t": ctypes.c_size_t,
    "bn_dtype": ctypes.c_int,
    "bn_status": ctypes.c_int,
    "const char *": ctypes.c_char_p,
    "void *": ctypes.c_void_p,
    "const void *": ctypes.c_void_p,
    "double *": ctypes.c_void_p,
    "const double *": ctypes.c_void_p,
    "const bn_shape *": ctypes.POINTER(_c_api.Shape),
    "const bn_options *": ctypes.POINTER(_c_api.Options),
}
STRUCTS = {"bn_shape": _c_api.Shape, "bn_options": _c_api.Options}
ENUMS = {"bn_dtype": _c_api.DType, "bn_status": _c_api.Status}


def prototypes() -> dict[str, tuple[str, list[str]]]:
    found = re.findall(r"^((?:const )?\w+ \*?)\s*(bn_\w+)\(([^)]*)\);", SOURCE, re.MULTILINE)
    result = {}
    for restype, name, arguments in found:
        types = [re.sub(r"\w+$", "", " ".join(argument.split())).strip() for argument in arguments.split(",")]
        result[name] = (restype.strip(), [] if arguments.strip() == "void" else types)
    return result


def members(kind: str, name: str) -> list[str]:
    body = re.search(rf"typedef {kind} {name} \{{(.*?)\}} {name};", SOURCE, re.DOTALL)
    assert body, name
    separator = ";" if kind == "struct" else ","
    parts = [part.split("=")[0].split() for part in body.group(1).split(separator)]
    return [part[-1] for part in parts if part]


def test_the_header_was_understood() -> None:
    names = set(re.findall(r"\b(bn_\w+)\(", SOURCE))
    assert set(prototypes()) == names
    assert len(names) == 16


def test_every_function_is_declared_in_the_order_of_the_header() -> None:
    assert list(_c_api.PROTOTYPES) == list(prototypes())


@pytest.mark.parametrize("name", prototypes())
def test_prototypes(name: str) -> None:
    restype, argtypes = prototypes()[name]
    function = getattr(_c_api.lib, name)
    assert function.restype is C_TYPES[restype]
    assert list(function.argtypes) == [C_TYPES[argument] for argument in argtypes]


def c_program(folder: Path, lines: list[str]) -> list[str]:
    """What a C program prints that includes the header and evaluates integer expressions."""
    body = "".join(f'printf("%lld\\n", (long long)({line}));' for line in lines)
    source = f"#include <stdio.h>\n#include <batchnorm.h>\nint main(void) {{ {body} return 0; }}"
    (folder / "values.c").write_text(source)
    program = folder / "values"
    subprocess.run(["cc", "-I", HEADER.parent, "-o", program, folder / "values.c"], check=True)
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize("name", STRUCTS)
def test_structs(tmp_path: Path, name: str) -> None:
    struct = STRUCTS[name]
    fields = members("struct", name)
    assert [field[0] for field in struct._fields_] == fields
    lines = [f"sizeof({name})"]
    for field in fields:
        lines += [f"offsetof({name}, {field})", f"sizeof((({name} *)0)->{field})"]
    expected = [ctypes.sizeof(struct)]
    for field in fields:
        expected += [getattr(struct, field).offset, getattr(struct, field).size]
    assert [int(value) for value in c_program(tmp_path, lines)] == expected


@pytest.mark.parametrize("name", ENUMS)
def test_enums(tmp_path: Path, name: str) -> None:
    names = members("enum", name)
    assert names == [f"BN_{member.name}" for member in ENUMS[name]]
    assert [int(value) for value in c_program(tmp_path, names)] == [int(member) for member in ENUMS[name]]


def test_one_version_everywhere() -> None:
    header = dict(re.findall(r"#define BN_VERSION_(MAJOR|MINOR|PATCH) (\d+)", SOURCE))
    version = ".".join(header[part] for part in ("MAJOR", "MINOR", "PATCH"))
    number = _c_api.lib.bn_version()
    assert version == _version.__version__ == bn.__version__
    assert version == f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def test_status_strings_are_as_many_as_statuses() -> None:
    strings = {status: _c_api.lib.bn_status_string(status) for status in _c_api.Status}
    assert len(set(strings.values())) == len(_c_api.Status)
    for other in (-1, 9, 19, 1000):
        assert _c_api.lib.bn_status_string(other) == b"unknown status"


def test_default_options_are_those_of_the_header() -> None:
    init = re.search(r"#define BN_OPTIONS_INIT \{sizeof\(bn_options\), (.*)\}", SOURCE)
    assert init
    from batchnorm._options import options

    struct = options()
    given = [getattr(struct, field[0]) for field in struct._fields_[1:]]
    assert given == [float(value.replace("(bn_dtype)", "")) for value in init.group(1).split(",")]


@pytest.mark.parametrize("status", [s for s in _c_api.Status if s != _c_api.Status.OK])
def test_every_status_has_its_exception(status: _c_api.Status) -> None:
    others = {"ERROR_DTYPE": TypeError, "ERROR_MEMORY": MemoryError, "ERROR_ENVIRONMENT": RuntimeError}
    with pytest.raises(others.get(status.name, ValueError)):
        _c_api.raise_error(status)
