# SPDX-License-Identifier: Apache-2.0
"""The test functions that run each line of the package, as coverage.py records them, and the seconds that each takes.

The lines that a test file was seen to run are kept until the file changes, or a module that it runs.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import coverage

from suite import Suite
from watching import TEST

NAMING = 4  # files that name a module
FEW = "16"  # cases of a test, which run nearly the same lines
RECORD = f"""\
[run]
source = {{package}}
parallel = true
data_file = {{data}}
context = ${{{{{TEST}-}}}}
disable_warnings =
    no-data-collected
    module-not-imported
    module-not-measured
"""


class Covering:
    """For all test files of a suite; those that changed run once, under coverage.py, unless names are enough."""

    def __init__(self, suite: Suite, build: Path, by_name: bool = False) -> None:
        self._suite, self._build = suite, build
        self._kept = build / "covering.json"
        self.fails: list[str] = []
        kept = json.loads(self._kept.read_text()) if self._kept.exists() else {}
        self._seen = {}
        for number, file in enumerate(suite.files(), 1):
            if file not in kept or not self._is_current(file, kept[file]):
                if by_name:
                    continue
                print(f"{number}/{len(suite.files())} {file}: which lines it runs", flush=True)
                kept[file] = self._traced(file)
                self._kept.write_text(json.dumps(kept))
            self._seen[file] = kept[file]
        self.seconds: dict[str, float] = {}
        self._tests: dict[tuple[str, int], set[str]] = defaultdict(set)
        self._lines: dict[str, int] = defaultdict(int)
        self._in_module: dict[tuple[str, str], int] = defaultdict(int)
        for seen in self._seen.values():
            self.seconds.update(seen["seconds"])
            self.fails += seen["fails"]
            for module, contexts in seen["lines"].items():
                for test, lines in contexts.items():
                    self._lines[test] += len(lines)
                    self._in_module[module, test] = len(lines)
                    for line in lines:
                        self._tests[module, line].add(test)

    def of_lines(self, module: str, first: int, last: int) -> list[str]:
        """The tests that run one of these lines, those first that take little time and do little else."""
        tests = set().union(*(self._tests[module, line] for line in range(first, last + 1)))
        return sorted(tests, key=lambda test: (self._cost(module, test), test))

    def of_module(self, module: str) -> list[str]:
        tests = (test for at, test in self._in_module if at == module)
        return sorted(tests, key=lambda test: self._cost(module, test))

    def by_name(self, module: str) -> list[str]:
        """The files that name most of a module."""
        path = self._suite.python / module
        defined = (getattr(node, "name", "_") for node in ast.parse(path.read_text(encoding="utf-8")).body)
        names = {path.stem.strip("_"), *(name for name in defined if not name.startswith("_"))}
        words = re.compile(rf"\b_?({'|'.join(map(re.escape, sorted(names)))})\b|test_{re.escape(path.stem.strip('_'))}")
        texts = {file: file + (self._suite.python / file).read_text(encoding="utf-8") for file in self._suite.files()}
        found = {file: len(words.findall(text)) / len(text) for file, text in texts.items()}
        return sorted((file for file in found if found[file]), key=lambda file: -found[file])[:NAMING]

    def _cost(self, module: str, test: str) -> float:
        share = self._in_module[module, test] / self._lines[test]
        return (self.seconds.get(test, 10.0) + 0.01) / share

    def _traced(self, file: str) -> dict[str, Any]:
        data = self._build / "coverage"
        for each in self._build.glob("coverage*"):
            each.unlink()
        record = self._build / "record.ini"
        package = self._suite.python / "batchnorm"
        record.write_text(RECORD.format(package=package, data=data))
        _, lines = self._suite.run([file], COVERAGE_PROCESS_START=str(record), MUTANTS_FEW=FEW)
        seconds: dict[str, float] = defaultdict(float)
        for line in lines:
            if line.startswith("took "):
                _, took, test = line.split(" ", 2)
                for name in {test, test.partition("[")[0]}:
                    seconds[name] += float(took)
        # A test may fail because it is looked at; one that fails by itself as well is no use.
        failed = {line.partition(" ")[2] for line in lines if line.startswith("failed ")}
        fails = [test for test in sorted(failed) if self._suite.run([test])[0]]
        whole = coverage.Coverage(data_file=str(data), config_file=str(record))
        whole.combine()
        covered: dict[str, dict[str, list[int]]] = {}
        for path in whole.get_data().measured_files():
            contexts: dict[str, list[int]] = defaultdict(list)
            for at, tests in whole.get_data().contexts_by_lineno(path).items():
                for test in filter(None, tests):  # importing runs lines for no test
                    contexts[test].append(at)
            if contexts:
                covered[str(Path(path).relative_to(self._suite.python))] = dict(contexts)
        hashes = {name: self._hash(name) for name in covered}
        return {"hash": self._hash(file), "hashes": hashes, "seconds": seconds, "fails": fails, "lines": covered}

    def _is_current(self, file: str, seen: dict[str, Any]) -> bool:
        names = {file: seen["hash"], **seen["hashes"]}
        return all(self._hash(name) == was for name, was in names.items())

    def _hash(self, name: str) -> str | None:
        path = self._suite.python / name
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
