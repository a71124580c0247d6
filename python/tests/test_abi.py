# SPDX-License-Identifier: Apache-2.0
"""The declarations in batchnorm._core.library against Include/batchnorm.h."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY

import batchnorm as bn
from batchnorm import _version
from batchnorm._core import library, structs

HEADER = REPOSITORY / "Include" / "batchnorm.h"
SOURCE = re.sub(r"/\*.*?\*/|//[^\n]*", " ", HEADER.read_text(), flags=re.DOTALL)

# Elements go by address, whatever their type; a structure goes by pointer to it.
C_TYPES: dict[str, Any] = {
    "int": ctypes.c_int,
    "size_t": ctypes.c_size_t,
    "bn_dtype": ctypes.c_int,
    "bn_parallel_for": ctypes.c_void_p,
    "const size_t *": ctypes.c_void_p,
    "bn_status": ctypes.c_int,
    "const char *": ctypes.c_char_p,
    "const int64_t *": ctypes.c_void_p,
    "size_t *": ctypes.c_void_p,
    "bn_shape *": ctypes.POINTER(structs.Shape),
    "void *": ctypes.c_void_p,
    "const void *": ctypes.c_void_p,
    "double *": ctypes.c_void_p,
    "const double *": ctypes.c_void_p,
    "const bn_shape *": ctypes.POINTER(structs.Shape),
    "const bn_options *": ctypes.POINTER(structs.Options),
}
STRUCTS: dict[str, Any] = {
    "bn_shape": structs.Shape,
    "bn_weights": structs.Weights,
    "bn_epilogue": structs.Epilogue,
    "bn_running": structs.Running,
    "bn_source": structs.Source,
    "bn_groups": structs.Groups,
    "bn_options": structs.Options,
}
# With what the names of the members begin, after BN_.
ENUMS: dict[str, tuple[Any, str]] = {
    "bn_dtype": (structs.DType, ""),
    "bn_status": (structs.Status, ""),
    "bn_masked": (structs.Masked, "MASKED_"),
    "bn_activation": (structs.Activation, ""),
    "bn_average": (structs.Average, "AVERAGE_"),
    "bn_single_value": (structs.SingleValue, "SINGLE_VALUE_"),
    "bn_nonfinite": (structs.Nonfinite, "NONFINITE_"),
    "bn_outcome": (structs.Outcome, "OUTCOME_"),
    "bn_source_kind": (structs.SourceKind, "SOURCE_"),
    "bn_per_group": (structs.PerGroup, "PER_GROUP_"),
}


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
    # A declaration may be of several members: double low, high;
    names = [re.findall(r"(\w+)(?:,|$)", " ".join(part)) for part in parts]
    return [name for each in names for name in each]


def test_every_struct_and_enum_of_the_header_is_here() -> None:
    assert sorted(re.findall(r"\} (bn_\w+);", SOURCE)) == sorted([*STRUCTS, *ENUMS])


def test_the_header_was_understood() -> None:
    names = set(re.findall(r"\b(bn_\w+)\(", SOURCE))
    assert set(prototypes()) == names
    assert len(names) == 24


def test_every_function_is_declared_in_the_order_of_the_header() -> None:
    assert list(library.PROTOTYPES) == list(prototypes())


@pytest.mark.parametrize("name", prototypes())
def test_prototypes(name: str) -> None:
    restype, argtypes = prototypes()[name]
    function = getattr(library.lib, name)
    assert function.restype is (library.check if restype == "bn_status" else C_TYPES[restype])
    assert list(function.argtypes) == [C_TYPES[argument] for argument in argtypes]


def c_program(folder: Path, lines: list[str]) -> list[str]:
    """The output of a C program that includes the header and evaluates integer expressions."""
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
    names, (kind, prefix) = members("enum", name), ENUMS[name]
    assert names == [f"BN_{prefix}{member.name}" for member in kind]
    assert [int(value) for value in c_program(tmp_path, names)] == [int(member) for member in kind]


def test_one_version_everywhere() -> None:
    header = dict(re.findall(r"#define BN_VERSION_(MAJOR|MINOR|PATCH) (\d+)", SOURCE))
    version = ".".join(header[part] for part in ("MAJOR", "MINOR", "PATCH"))
    number = library.lib.bn_version()
    assert version == _version.__version__ == bn.__version__
    assert version == f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def test_status_strings_are_as_many_as_statuses() -> None:
    strings = {status: library.lib.bn_status_string(status) for status in structs.Status}
    assert len(set(strings.values())) == len(structs.Status)
    for other in (-1, 9, 19, 22, 1000):
        assert library.lib.bn_status_string(other) == b"unknown status"


def test_default_options_are_those_of_the_header() -> None:
    from batchnorm._core.options import options

    assert values_of(options()) == init("bn_options")


def init(name: str) -> list[Any]:
    """The values of a structure's initializer, but for its size; None for NULL."""
    found = re.search(rf"#define {name.upper()}_INIT(?:\s|\\)*\{{sizeof\({name}\), ([^}}]*)\}}", SOURCE)
    assert found
    names = {"NULL": None, "HUGE_VAL": float("inf")}
    names.update({f"BN_{prefix}{each.name}": float(each) for kind, prefix in ENUMS.values() for each in kind})
    values = [value.strip(" \n\\").replace("(bn_dtype)", "") for value in found.group(1).split(",")]
    return [names[value] if value in names else float(value) for value in values]


def values_of(struct: Any) -> list[Any]:
    values = [getattr(struct, field[0]) for field in struct._fields_[1:]]
    return [value or None if isinstance(value, ctypes._Pointer) else value for value in values]


def test_default_descriptors_are_those_of_the_header() -> None:
    """A descriptor object without arguments has the defaults that the header states."""
    import numpy as np

    from batchnorm._core import weights
    from batchnorm.settings import groups, running, sources

    numbers = np.zeros(4)
    policy = values_of(running.running_struct(bn.Running(), 1, 1, None, None).struct)
    assert policy[:-1] == init("bn_running")[:-1]  # but for the outcome, which is always asked for
    renorm = values_of(sources.struct_of(bn.Renorm(), numbers, numbers.reshape(2, 2), 1))
    assert renorm[1:-1] == init("bn_source")[1:-1]
    ghost = values_of(groups.grouping(bn.Ghost(2), (4, 3), (1,)).struct)  # type: ignore[union-attr]
    assert ghost[2:] == init("bn_groups")[2:]
    assert values_of(weights.struct_of(numbers, "normalize"))[1:] == init("bn_weights")[1:]
    leaky = bn.LeakyReLU()
    assert leaky.slope == init("bn_epilogue")[2]


@pytest.mark.parametrize("status", [s for s in structs.Status if s != structs.Status.OK])
def test_every_status_has_its_exception(status: structs.Status) -> None:
    others = {"ERROR_DTYPE": TypeError, "ERROR_MEMORY": MemoryError, "ERROR_ENVIRONMENT": RuntimeError}
    others["ERROR_NESTED"] = RuntimeError
    with pytest.raises(others.get(status.name, ValueError)):
        library.check(status)
