# SPDX-License-Identifier: Apache-2.0
"""The library's threads beside those of others: threadpoolctl limits them, and workers of joblib share processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import python
from pages import run

import batchnorm as bn
from batchnorm._core import library

threadpoolctl = pytest.importorskip("threadpoolctl")


def entries() -> list[dict[str, Any]]:
    return [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "batchnorm"]


def test_it_is_listed_once() -> None:
    bn.set_num_threads(3)
    [entry] = entries()
    assert entry["num_threads"] == 3
    assert entry["version"] == bn.__version__
    assert Path(entry["filepath"]).samefile(library.lib._name)


@pytest.mark.parametrize("limits", [1, {"batchnorm": 1}])
def test_limits_hold_for_a_block(limits: Any) -> None:
    bn.set_num_threads(4)
    with threadpoolctl.threadpool_limits(limits):
        assert bn.get_num_threads() == 1
        assert entries()[0]["num_threads"] == 1
    assert bn.get_num_threads() == 4


def test_limits_of_others_do_not() -> None:
    bn.set_num_threads(4)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert bn.get_num_threads() == 4


def test_numbers_beyond_the_library() -> None:
    for asked, expected in ((0, 1), (-3, 1), (10_000, 1024)):
        with threadpoolctl.threadpool_limits({"batchnorm": asked}):
            assert bn.get_num_threads() == expected


def test_results_are_the_same(rng: np.random.Generator) -> None:
    x = rng.normal(size=(16, 8, 40, 40)).astype("f4")
    y = bn.forward_training(x)[0]
    with threadpoolctl.threadpool_limits(1):
        assert np.array_equal(bn.forward_training(x)[0], y)


@pytest.mark.parametrize("first", ["threadpoolctl", "batchnorm"])
def test_whichever_is_loaded_first(first: str) -> None:
    imports = ["import threadpoolctl", "import batchnorm as bn; bn.isa()"]
    if first == "batchnorm":
        imports.reverse()
    code = "bn.set_num_threads(2)\nwith threadpoolctl.threadpool_limits(1): print(bn.get_num_threads())"
    done = python("\n".join([*imports, code]))
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_processes_of_joblib_share_the_processors() -> None:
    joblib = pytest.importorskip("joblib")
    count = joblib.cpu_count()
    workers = max(2, count)
    code = f"""
import os, batchnorm as bn, joblib
def threads(i): return os.getpid(), bn.get_num_threads()
found = joblib.Parallel({workers})(joblib.delayed(threads)(i) for i in range({8 * workers}))
print(os.getpid() in dict(found), {{n for _, n in found}})
with joblib.parallel_config("loky", inner_max_num_threads=2):
    print({{n for _, n in joblib.Parallel({workers})(joblib.delayed(threads)(i) for i in range({8 * workers}))}})
"""
    done = python(code)
    assert done.stdout == "False {1}\n{2}\n", done.stderr


def test_threads_of_joblib_are_limited(rng: np.random.Generator) -> None:
    joblib = pytest.importorskip("joblib")
    x = rng.normal(size=(8, 4, 30, 30)).astype("f4")
    expected = bn.forward_training(x)[0]
    with threadpoolctl.threadpool_limits(1):
        found = joblib.Parallel(4, backend="threading")(
            joblib.delayed(lambda: (bn.get_num_threads(), bn.forward_training(x)[0]))() for _ in range(40)
        )
    assert {n for n, _ in found} == {1}
    assert all(np.array_equal(y, expected) for _, y in found)


def test_the_page() -> None:
    run("large-data.md", "Threads beside others")
