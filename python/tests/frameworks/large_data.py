# SPDX-License-Identifier: Apache-2.0
"""The programs of docs/large-data.md, which the tests of Dask and Spark run as they stand."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from typing import Any

from helpers import REPOSITORY

PAGE = REPOSITORY / "docs" / "large-data.md"
FENCE = re.compile(r"^```py\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def section(heading: str) -> str:
    """The text below a heading of the page; "" is that above the first."""
    found = re.split(r"^## (.*)\n", "## \n" + PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2]))[heading]


def run(heading: str, watch: Any = lambda session: None) -> dict[str, Any]:
    """Runs a section as one session, and compares what it prints; `watch` sees the names after each program."""
    session: dict[str, Any] = {"__name__": "__main__"}
    programs = FENCE.findall(section(heading))
    assert programs
    for code, output in programs:
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, str(PAGE), "exec"), session)
        assert printed.getvalue() == output, code
        watch(session)
    return session
