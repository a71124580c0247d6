# SPDX-License-Identifier: Apache-2.0
"""The programs of pages in docs/ that need other packages, run as they stand."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from typing import Any

from helpers import REPOSITORY

FENCE = re.compile(r"^```py\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def text_of(page: str, heading: str | None = None) -> str:
    """The text of a page, or that below one of its headings; "" is that above the first."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    if heading is None:
        return text
    found = re.split(r"^## (.*)\n", "## \n" + text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2]))[heading]


def run(page: str, heading: str | None = None, watch: Any = lambda session: None) -> None:
    """Runs programs as one session, and compares what they print; `watch` sees the names after each of them."""
    session: dict[str, Any] = {"__name__": "__main__"}
    programs = FENCE.findall(text_of(page, heading))
    assert programs
    for code, output in programs:
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, page, "exec"), session)
        assert printed.getvalue() == output, code
        watch(session)
