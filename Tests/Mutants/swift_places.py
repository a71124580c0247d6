# SPDX-License-Identifier: Apache-2.0
"""The places where a Swift source can be broken, and the changes there: one of one line at a time."""

from __future__ import annotations

import re
from pathlib import Path

from table import Row

# Operators stand between spaces, so that neither generics nor arrows are taken for comparisons.
SWAPS = {
    r" \+ ": " - ",
    r" - ": " + ",
    r" \* ": " / ",
    r" / ": " * ",
    r" &\+ ": " &- ",
    r" &- ": " &+ ",
    r" \+= ": " -= ",
    r" -= ": " += ",
    r" < ": " <= ",
    r" <= ": " < ",
    r" > ": " >= ",
    r" >= ": " > ",
    r" == ": " != ",
    r" != ": " == ",
    r" && ": " || ",
    r" \|\| ": " && ",
    r" << ": " >> ",
    r" >> ": " << ",
    r" & ": " | ",
    r" \| ": " & ",
    r"\btrue\b": "false",
    r"\bfalse\b": "true",
    r"\bmin\(": "max(",
    r"\bmax\(": "min(",
    r"\.low\b": ".high",
    r"\.high\b": ".low",
    r"\.lowHalf\b": ".highHalf",
    r"\.highHalf\b": ".lowHalf",
    r"\.evenHalf\b": ".oddHalf",
    r"\.oddHalf\b": ".evenHalf",
    r"(?<=[ (\[])!(?=[a-zA-Z])": "",
    r"(?<![\w.$])0(?![\w.])": "1",
    r"(?<![\w.$])1(?![\w.])": "2",
    r"(?<![\w.])0\.0\b": "1.0",
    r"(?<![\w.])1\.0\b": "0.5",
    r"\bcontinue\b": "break",
}
CONDITION = re.compile(r"^((?:\} else )?(?:if|while) )(?!let |var |case |#|!)([^{]+?)( \{.*)$")
GUARD = re.compile(r"^(guard )(?!let |var |case )([^{]+?)( else \{.*)$")
TERNARY = re.compile(r"^(.*) \? (?P<yes>[^?:]+) : (?P<no>[^?:]+?)([,)]*)$")
# A statement of its own: an assignment to something that is there, or a call whose value nobody takes.
STATEMENT = re.compile(
    r"^(?!let |var |return\b|case |func |init|static |if |guard |for |while |else|try\b.*\{)[\w.\[\]$]+.*[)\w\]]$"
)
# Lines that do nothing when the program runs: attributes, declarations of names alone, conditions of the compiler.
SILENT = re.compile(r"^(//|@|import |#|protocol |typealias |associatedtype |extension |precondition\()")


def places(root: Path, file: Path) -> list[Row]:
    """All changes of a file, in its order."""
    found = []
    depth = 0
    for number, text in enumerate(file.read_text().splitlines(), 1):
        code = text.split(" //")[0].strip()
        if not code or SILENT.match(code):
            continue
        found += [Row(str(file.relative_to(root)), number, text.strip(), after) for after in changes(code, depth)]
        depth += sum(map(code.count, "([")) - sum(map(code.count, ")]"))
    return found


def changes(code: str, depth: int) -> list[str]:
    """Everything that one line can be made into; `depth` brackets are open before it."""
    made = [
        code[: match.start()] + replacement + code[match.end() :]
        for pattern, replacement in SWAPS.items()
        for match in re.finditer(pattern, code)
        if code.count('"', 0, match.start()) % 2 == 0
    ]
    conditions = [match for pattern in (CONDITION, GUARD) if (match := pattern.match(code))]
    made += [f"{match[1]}!({match[2]}){match[3]}" for match in conditions]
    ternary = TERNARY.match(code)
    if ternary and balanced(ternary["yes"]) and balanced(ternary["no"]):
        made.append(f"{ternary[1]} ? {ternary['no']} : {ternary['yes']}{ternary[4]}")
    if depth == 0 and STATEMENT.match(code) and balanced(code):
        made.append("// dropped")
    return made


def balanced(code: str) -> bool:
    return all(code.count(a) == code.count(b) for a, b in ("()", "[]", "{}"))
