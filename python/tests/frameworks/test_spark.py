# SPDX-License-Identifier: Apache-2.0
"""Spark: the programs of docs/large-data.md in two executors, whose Python may have less memory than there are data."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batchnorm as bn

pytest.importorskip("pyspark")
pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
if shutil.which("java") is None:
    pytest.skip("java is absent", allow_module_level=True)
from pages import run

pytestmark = pytest.mark.filterwarnings("ignore")  # of Spark's own
LIMIT = 500  # MiB
PACKAGE = str(Path(bn.__file__).parents[1])


@pytest.fixture
def _cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark as it would be configured by its administrator: a master with two executors, each a process of its own."""
    own = {name: os.environ[name] for name in ("BATCHNORM_LIBRARY",) if name in os.environ}
    told = {
        "spark.ui.enabled": "false",
        "spark.executor.memory": "600m",
        "spark.executor.pyspark.memory": f"{LIMIT}m",
        "spark.sql.shuffle.partitions": "2",
        **{f"spark.executorEnv.{name}": value for name, value in own.items()},
        "spark.executorEnv.PYTHONPATH": PACKAGE,
        "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",  # each of its threads takes address space
    }
    options = " ".join(f"--conf {name}={value}" for name, value in told.items())
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"--master local-cluster[2,1,600] {options} pyspark-shell")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", PACKAGE)


@pytest.mark.usefixtures("_cluster")
def test_the_page() -> None:
    seen: list[dict[str, Any]] = []

    def watch(session: dict[str, Any]) -> None:
        if not seen:
            context = session["spark"].sparkContext
            told = session["batches"].map(lambda x: (x.nbytes, resource.getrlimit(resource.RLIMIT_AS)[0]))
            batches = told.collect()
            seen.append({"batches": batches, "executors": context._jsc.sc().getExecutorMemoryStatus().size() - 1})
        seen.append(dict(session))

    run("large-data.md", "Spark", watch)
    facts, first, second = seen
    assert facts["executors"] == 2
    assert {limit for _, limit in facts["batches"]} == {LIMIT << 20}
    assert sum(size for size, _ in facts["batches"]) > LIMIT << 20
    whole = bn.Moments()
    for number in range(32):
        whole.update(first["batch"](number))
    assert first["moments"].count.tolist() == whole.count.tolist()
    assert np.allclose(first["moments"].mean, whole.mean, rtol=1e-14)
    assert np.allclose(first["moments"].m2, whole.m2, rtol=1e-11)
    assert second["moments"].count.tolist() == [1_000_000] * 2
