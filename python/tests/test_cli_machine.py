# SPDX-License-Identifier: Apache-2.0
"""`batchnorm info` and `batchnorm bench`, and what they are made of."""

from __future__ import annotations

import ctypes
import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import python

import batchnorm as bn
from batchnorm import cli, machine
from batchnorm._core import library

Captured = pytest.CaptureFixture[str]


def test_info(capsys: Captured) -> None:
    assert cli.main(["info"]) == 0
    path = Path(library.lib._name)
    said = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert said["version"] == f"{bn.__version__}, library {bn.__version__}, ABI {bn.__version__.split('.')[0]}"
    assert said["isa"].startswith(f"{bn.isa()}, of ")
    assert said["threads"].startswith(f"{bn.get_num_threads()}, from ")
    assert said["library"] == f"{path}, {path.stat().st_size / 1000:.0f} KB"


def test_info_as_json(capsys: Captured) -> None:
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == machine.facts()
    assert facts["library_bytes"] == Path(facts["library"]).stat().st_size
    assert facts["isa"] == facts["isa_available"][0] or "BATCHNORM_ISA" in os.environ


def test_every_instruction_set_that_is_listed_can_be_had() -> None:
    names = machine.facts()["isa_available"]
    assert names[-1] == "baseline"
    for name in names:
        assert python("import batchnorm as bn; print(bn.isa())", BATCHNORM_ISA=name).stdout.strip() == name
    for name in {"avx2", "avx512"} - set(names):
        assert python("import batchnorm as bn; bn.isa()", BATCHNORM_ISA=name).returncode == 1


@pytest.mark.parametrize(
    ("environment", "number", "where"),
    [
        ({"BATCHNORM_NUM_THREADS": "3"}, 3, "BATCHNORM_NUM_THREADS"),
        ({"BATCHNORM_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3, "BATCHNORM_NUM_THREADS"),
        ({"BATCHNORM_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, 5, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "7,2"}, 7, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "0"}, None, "the CPUs that this process may use"),
        ({"OMP_NUM_THREADS": "many"}, None, "the CPUs that this process may use"),
        ({"OMP_NUM_THREADS": "+3"}, None, "the CPUs that this process may use"),
        ({"OMP_NUM_THREADS": "12345678901"}, None, "the CPUs that this process may use"),
    ],
)
def test_where_the_threads_come_from(environment: dict[str, str], number: int | None, where: str) -> None:
    code = "import batchnorm as bn; from batchnorm.machine.facts import threads_from; "
    printed = python(code + "print(bn.get_num_threads(), threads_from())", **environment).stdout
    assert printed == f"{bn.get_num_threads() if number is None else number} {where}\n"


def test_an_environment_that_cannot_be_honoured() -> None:
    done = python("from batchnorm.cli import main; import sys; sys.exit(main(['info']))", BATCHNORM_NUM_THREADS="many")
    assert done.returncode == 1
    assert done.stderr.startswith("batchnorm info: BATCHNORM_NUM_THREADS is ")


def test_the_check_finds_the_library_right(capsys: Captured) -> None:
    assert cli.main(["info", "--check"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "check    126 results are those of the formulas, as far as rounding goes"


@pytest.mark.parametrize("seed", [1])
def test_the_check_holds_for_other_draws(seed: int) -> None:
    assert [each for each in machine.self_test(seed) if not each.is_right] == []


def slightly(array: Any, dtype: str, share: float) -> Any:
    return array * array.dtype.type(1 + share) if array.dtype == dtype else array


# Faults of a library: each makes the result of one function a little wrong.
FAULTS: dict[str, tuple[str, Any]] = {
    "y": ("forward_training", lambda got, *_, **__: (got[0] * np.float32(1 + 1e-3), got[1])),
    "float32 alone, a little": ("forward_training", lambda got, *_, **__: (slightly(got[0], "float32", 2e-5), got[1])),
    "float64 alone, a little": ("forward_training", lambda got, *_, **__: (slightly(got[0], "float64", 1e-12), got[1])),
    "NaN": ("forward_inference", lambda got, *_, **__: np.where(got == got.max(), np.nan, got).astype(got.dtype)),
    "dx": ("backward", lambda got, *_, **__: (got[0] * got[0].dtype.type(1.002), *got[1:])),
    "dgamma": ("backward", lambda got, *_, **__: (got[0], got[1] * np.float32(1.001), got[2])),
    "dbeta": ("backward", lambda got, *_, **__: (*got[:2], got[2] + np.float32(1e-2))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_finds_what_is_wrong(fault: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    few = import_module("batchnorm.machine.self_test")
    monkeypatch.setattr(few, "_SHAPES", few._SHAPES[:4])
    name, spoil = FAULTS[fault]
    right = getattr(bn, name)
    monkeypatch.setattr(bn, name, lambda *a, **k: spoil(right(*a, **k)))
    assert cli.main(["info", "--check"]) == 1
    printed = capsys.readouterr().out
    assert " of 84 results are wrong\n" in printed
    assert "is off by" in printed
    if fault == "y":
        assert cli.main(["info", "--check", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["check"]["wrong"]


def test_running_statistics_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    right = bn.forward_training

    def biased(*arguments: Any, **told: Any) -> Any:
        return right(*arguments, **told, unbiased=False)

    monkeypatch.setattr(bn, "forward_training", biased)
    assert {each.result for each in machine.self_test() if not each.is_right} == {"running_var"}


def bench(capsys: Captured, *arguments: str) -> str:
    assert cli.main(["bench", "--seconds", "0.01", *arguments]) == 0
    return capsys.readouterr().out


def test_bench(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 9.0, 9.0))
    printed = bench(capsys, "--shape", "4,3,5,5")
    for name in ("copy", "forward", "backward", "inference"):
        assert f"\n{name} " in printed
    assert "busy" not in printed
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0))
    assert "The machine is busy (load 99.0 on " in bench(capsys, "--shape", "4,3")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_bench_as_json(dtype: str, capsys: Captured) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    facts = json.loads(bench(capsys, "--shape", "6,5,4", "--dtype", dtype, "--json"))
    assert (facts["shape"], facts["dtype"], facts["isa"]) == ([6, 5, 4], dtype, bn.isa())
    assert facts["rounds"] >= 5
    assert [(each["what"], each["by"]) for each in facts["results"]] == [
        ("copy", "NumPy"),
        *[(what, by) for what in ("forward", "backward", "inference") for by in ("batchnorm", "NumPy")],
    ]
    size = {"float64": 8, "float32": 4}.get(dtype, 2) * 120
    for each in facts["results"]:
        moved = each["ms"] / 1e3 * each["gb_per_s"] * 1e9
        assert moved == pytest.approx(size * (3 if each["what"] == "backward" else 2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_sides_of_the_bench_compute_the_same(dtype: str) -> None:
    from batchnorm.machine import speed

    rng = np.random.default_rng(3)
    x, dy = (rng.normal(2, 3, (5, 4, 6)).astype(dtype) for _ in range(2))
    calls = {(what, by): call for what, by, call, _ in speed._calls(x, dy)}
    for what in ("forward", "backward", "inference"):
        ours: Any = calls[what, "batchnorm"]()
        ours = ours[0] if isinstance(ours, tuple) else ours
        np.testing.assert_allclose(ours, calls[what, "NumPy"](), rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--shape", "8"], 2, "'8' has no channels"),
        (["--shape", "8,0,3"], 2, "'0' is not a whole number"),
        (["--shape", "8,,3"], 2, "'' is not a whole number"),
        (["--seconds", "-1"], 2, "not a positive number"),
        (["--seconds", "long"], 2, "'long' is not a positive number"),
        (["--dtype", "int8"], 2, "invalid choice"),
        (["--shape", "100000000,1000000"], 1, "batchnorm bench: --shape 100000000,1000000 needs 4000000 GB, of "),
        (["--shape", "1,7"], 1, "batchnorm bench: x has one value per channel"),
    ],
)
def test_what_the_bench_refuses(arguments: list[str], status: int, said: str, capsys: Captured) -> None:
    try:
        assert cli.main(["bench", *arguments]) == status
    except SystemExit as ended:
        assert ended.code == status  # noqa: PT017
    assert said in capsys.readouterr().err


def test_the_abi_is_the_librarys() -> None:
    version = ctypes.CDLL(library.lib._name).bn_version()
    assert machine.facts()["abi"] == version // 10000
