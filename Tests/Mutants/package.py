# SPDX-License-Identifier: Apache-2.0
"""Breaks the Python package one place at a time, and has its tests notice.

    python package.py              # breaks what the table does not have yet, and what survived, again
    python package.py --again      # all rows, each by the test that killed it first
    python package.py --known      # draws no new ones: with --again, what the table says is seen once more
    python package.py --sample 20  # has random rows of the table killed once more, each by its test

Every module is broken in one place for each hundred lines, drawn with SEED, a kind of change first. The tests that run
the changed lines come first, then all others but the comparisons with other packages. The table package.tsv beside this
file keeps who noticed; a row that ends in `equivalent: ` and a reason was answered by a person. The last line counts:
passed are killed or equivalent, failed survived.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import places
import table
from suite import PEERS, Suite
from table import Row

SEED = 20261129
LINES_PER_PLACE = 100
# Mutants are gone through three times: a few tests of the changed lines, each with few of its cases; more of them; all.
ROUNDS = ("first tests", "4"), ("more tests", "4"), ("all tests", "")
FIRST = 12
REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_suffix(".tsv")
BUILD = REPOSITORY / ".build-mutants" / "package"


def drawn(file: str, text: str, rows: list[Row]) -> list[Row]:
    """Returns as many rows of a module as it has hundreds of lines: those there are, and new ones."""
    rows = list(rows)
    kinds: dict[str, list[places.Change]] = {}
    for change in places.changes(text):
        kinds.setdefault(change[0], []).append(change)
    rng = random.Random(f"{SEED} {file}")
    while kinds and len(rows) < -(-text.count("\n") // LINES_PER_PLACE):
        kind = rng.choice(sorted(kinds))
        change = kinds[kind].pop(rng.randrange(len(kinds[kind])))
        if not kinds[kind]:
            del kinds[kind]
        row = table.compared(file, text, places.applied(text, change))
        if all((row.before, row.after) != (other.before, other.after) for other in rows):
            rows.append(row)
    return sorted(rows, key=lambda row: row.line)


def all_drawn(*, new: bool) -> list[Row]:
    known = table.read(TABLE)
    rows = []
    for path in sorted((REPOSITORY / "python" / "batchnorm").rglob("*.py")):
        file = path.relative_to(REPOSITORY / "python").as_posix()
        text = path.read_text(encoding="utf-8")
        own = [row for row in known if row.file == file and table.mutated(text, row) is not None]
        rows += drawn(file, text, own) if new else own
    return rows


def in_function(text: str, row: Row) -> bool:
    """Returns True if a row's lines run when something is called, and not when the module is imported."""
    last = row.line + row.before.count("\n")
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.Lambda)))
    bodies = [node.body if isinstance(node, ast.FunctionDef) else [node.body] for node in functions]
    return any(body[0].lineno <= row.line and last <= (body[-1].end_lineno or 0) for body in bodies)


class Breaker:
    """Puts a row's change into the copy for as long as tests run."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite

    def first(self, row: Row, batches: list[list[str]], without: Iterable[str], **environment: str) -> str | None:
        """The first test of some batches that fails; those that need another package run by themselves."""
        parts = [[test for test in batch if (PEERS in test) == peers] for batch in batches for peers in (False, True)]
        return next(filter(None, (self.killer(row, part, without, **environment) for part in parts if part)), None)

    def killer(self, row: Row, tests: list[str], without: Iterable[str] = (), **environment: str) -> str | None:
        path = self._suite.python / row.file
        text = path.read_text(encoding="utf-8")
        mutant = table.mutated(text, row)
        if mutant is None:
            raise LookupError(f"{row.file} has no {row.before!r} any more")
        path.write_text(mutant, encoding="utf-8")
        try:
            return self._suite.run(tests, "-x", without=without, **environment)[0]
        finally:
            path.write_text(text, encoding="utf-8")


def break_all(modules: list[str], *, again: bool, known: bool, by_name: bool) -> list[Row]:
    from covering import Covering

    suite = Suite(REPOSITORY, BUILD)
    covering = Covering(suite, BUILD, by_name)
    for test in covering.fails:
        print(f"{test} fails without a mutant")
    breaker = Breaker(suite)
    rows = all_drawn(new=not known)
    open_rows = [row for row in rows if not row.is_equivalent and (again or row.survived)]
    open_rows = [row for row in open_rows if not modules or any(row.file.startswith(each) for each in modules)]
    killers = sorted({row.killer for row in open_rows if row.killer.startswith("tests/")})
    for peers in (False, True):
        some = [test for test in killers if (PEERS in test) == peers]
        if some and (failed := suite.run(some)[0]):
            raise SystemExit(f"{failed} fails without a mutant, or there is no such test\n0 passed, 1 failed")
    for number, (what, few) in enumerate(ROUNDS):
        alive = [row for row in open_rows if row.survived or (again and number == 0)]
        for count, row in enumerate(alive, 1):
            text = (suite.python / row.file).read_text(encoding="utf-8")
            table.mutated(text, row)  # its line is where it is now
            last = row.line + row.before.count("\n")
            at_call = in_function(text, row)
            tests = covering.of_lines(row.file, row.line, last) if at_call else covering.of_module(row.file)
            # Collecting many files takes longer than running their first tests.
            named = covering.by_name(row.file)
            first = tests[:FIRST] if at_call else [*named[:1], *tests[:FIRST]]
            killer = [[row.killer]] if row.killer.startswith("tests/") else []
            batches = [*killer, first], [named, tests[FIRST : 8 * FIRST]], [tests, suite.files()]
            row.killer = breaker.first(row, batches[number], covering.fails, MUTANTS_FEW=few) or ""
            if not row.killer and what == ROUNDS[-1][0]:
                row.killer = "survived"
            print(f"{what}, {count}/{len(alive)}: {row.file}:{row.line}: {row.killer or 'not yet'}", flush=True)
            table.write(TABLE, [row for row in rows if row.killer])
    if covering.fails:
        raise SystemExit(f"0 passed, {len(covering.fails)} failed")
    return [row for row in rows if row.killer]


def sample(count: int) -> tuple[int, int, int]:
    """Random rows, killed once more by their tests: how many were, were not, and could not be tried."""
    seed = int(os.environ.get("BATCHNORM_TEST_SEED", random.randrange(10**6)))
    print(f"BATCHNORM_TEST_SEED={seed}")
    rows = [row for row in table.read(TABLE) if row.killer.startswith("tests/")]
    rows = random.Random(seed).sample(rows, min(count, len(rows)))
    suite = Suite(REPOSITORY, BUILD)
    tried = alive = 0
    for row in rows:
        path = suite.python / row.file
        if not path.exists() or table.mutated(path.read_text(encoding="utf-8"), row) is None:
            print(f"{row.file} has no {row.before!r} any more")
        elif not passes(suite, row.killer):
            print(f"{row.killer} does not pass here without a mutant, or there is no such test any more")
        else:
            tried += 1
            if not Breaker(suite).killer(row, [row.killer]):
                alive += 1
                print(f"{row.file}:{row.line}: {row.killer} passes with\n    {row.after}")
    return tried - alive, alive, len(rows) - tried


def passes(suite: Suite, test: str) -> bool:
    """False of one that is skipped, too."""
    failed, lines = suite.run([test])
    return failed is None and any(line.startswith("passed ") for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Breaks the Python package one place at a time.")
    parser.add_argument("modules", nargs="*", help="how the names of modules begin, such as batchnorm/keras")
    parser.add_argument("--again", action="store_true", help="all rows of the table, not only new ones and survivors")
    parser.add_argument("--known", action="store_true", help="rows of the table alone")
    parser.add_argument("--by-name", action="store_true", help="look at names where it is not known what tests run")
    parser.add_argument("--sample", type=int, metavar="N", help="N rows of the table, each by the test that killed it")
    given = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the tests that run are ended, too
    if given.sample:
        passed, failed, skipped = sample(given.sample)
        print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
        sys.exit(failed > 0 or passed == 0)
    rows = break_all(given.modules, again=given.again, known=given.known, by_name=given.by_name)
    alive = [row for row in rows if row.survived]
    for row in alive:
        print(f"{row.file}:{row.line}: nobody notices\n    {row.before}\n    {row.after}")
    equivalent = sum(row.is_equivalent for row in rows)
    killed = len(rows) - len(alive) - equivalent
    figures = {"mutants": len(rows), "killed": killed, "equivalent": equivalent, "survived": len(alive)}
    print(", ".join(f"{count} {what}" for what, count in figures.items()))
    command = " ".join(["command=scripts/mutants package", *sys.argv[1:]])
    record = [str(REPOSITORY / "scripts" / "figures"), "record", "mutants-package", command]
    subprocess.run([*record, *(f"{what}={count}" for what, count in figures.items())], check=True)
    print(f"{len(rows) - len(alive)} passed, {len(alive)} failed")
    sys.exit(bool(alive))


if __name__ == "__main__":
    main()
