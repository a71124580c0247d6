# SPDX-License-Identifier: Apache-2.0
"""build.py WASM_FOLDER FILE: the live page as one file, of the sources in this folder."""

from __future__ import annotations

import base64
import gzip
import sys
from pathlib import Path

from digits import digits

HERE = Path(__file__).parent
LIMIT = 300_000  # bytes
# In this order, each a script whose names those after it know.
WORKER = ["network.js", "run.js", "watch.js", "worker.js"]
PAGE = ["lessons.js", "charts.js", "page.js"]


def packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def scripts(names: list[str], before: str = "") -> str:
    text = "\n".join(['"use strict";', before, *((HERE / name).read_text() for name in names)])
    if "</script" in text.lower() or "<!--" in text:
        raise SystemExit("a script has what ends a script element")
    return text


def page(wasm: Path) -> str:
    parts = {
        "STYLE": (HERE / "style.css").read_text(),
        "WASM": packed((wasm / "batchnorm.wasm").read_bytes()),
        "DIGITS": packed(digits()),
        "WORKER": scripts(WORKER, (wasm / "batchnorm.js").read_text()),
        "PAGE": scripts(PAGE),
    }
    html = (HERE / "page.html").read_text()
    for name, text in parts.items():
        if html.count(f"@{name}@") != 1:
            raise SystemExit(f"page.html has @{name}@ {html.count(f'@{name}@')} times; expected once")
        html = html.replace(f"@{name}@", text)
    return html


if __name__ == "__main__":
    data = page(Path(sys.argv[1])).encode()
    if len(data) > LIMIT:
        raise SystemExit(f"the page has {len(data)} bytes; expected at most {LIMIT}")
    Path(sys.argv[2]).write_bytes(data)
    print(f"{sys.argv[2]}: {len(data)} bytes, {len(gzip.compress(data, 9))} with gzip", file=sys.stderr)
