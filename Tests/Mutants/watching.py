# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin that writes what a run comes to into the file in MUTANTS_REPORT, as it comes.

A line is a word and a test's id: `start` of a test; `passed`; `failed`, which may be a file that cannot be imported
as well; `took`, with seconds in front. Beside coverage.py, lines are recorded for the test that runs them; the
processes that it starts inherit its name in MUTANTS_TEST. Tests in the file MUTANTS_WITHOUT do not run, and of a
function that has more cases than MUTANTS_FEW only so many, which are recorded in the function's name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

TEST = "MUTANTS_TEST"
_many: set[str] = set()


def _say(line: str) -> None:
    with open(os.environ["MUTANTS_REPORT"], "a", encoding="utf-8") as report:  # noqa: PTH123
        print(line, file=report)


def _function(test: str) -> str:
    return test.partition("[")[0]


def _measured() -> Any:
    try:
        from coverage import Coverage
    except ImportError:
        return None
    return Coverage.current()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    without = set(Path(os.environ["MUTANTS_WITHOUT"]).read_text(encoding="utf-8").splitlines())
    kept = {item for item in items if not {item.nodeid, _function(item.nodeid)} & without}
    if few := os.environ.get("MUTANTS_FEW"):
        kept &= _few(items, int(few))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _few(items: list[pytest.Item], few: int) -> set[pytest.Item]:
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(_function(item.nodeid), []).append(item)
    _many.update(function for function, items in cases.items() if len(items) > few)
    return {item for items in cases.values() for item in items[:: -(-len(items) // few)]}


def pytest_collectstart(collector: pytest.Collector) -> None:
    # A test file that copies its environment when it is imported finds its own name in the copy.
    if isinstance(collector, pytest.Module):
        os.environ[TEST] = collector.nodeid


def pytest_runtest_logstart(nodeid: str) -> None:
    _say(f"start {nodeid}")
    function = _function(nodeid)
    os.environ[TEST] = function if function in _many else nodeid
    if (measured := _measured()) is not None:
        measured.switch_context(os.environ[TEST])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _say(f"failed {report.nodeid}")
    if report.passed and report.when == "call":
        _say(f"passed {report.nodeid}")
    _say(f"took {report.duration:.6f} {report.nodeid}")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _say(f"failed {report.nodeid}")
