# SPDX-License-Identifier: Apache-2.0
"""build.py WASM_FOLDER FILE: the live page as one file, of the sources in this folder."""

from __future__ import annotations

import base64
import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

from digits import digits

HERE = Path(__file__).parent
LIMIT = 300_000  # bytes
# In this order, each a script whose names those after it know.
WORKER = ["network.js", "run.js", "watch.js", "worker.js"]
CHARTS = [f"charts/{name}.js" for name in ("bins", "svg", "pen", "scales", "lines", "distributions", "heat", "all")]
VIEW = [*CHARTS, "lessons.js", "settings.js"]
PAGE = [*VIEW, "controls.js", "figure.js", "csv.js", "trainer.js", "page.js"]


try:
    from zopfli.gzip import compress  # a twentieth smaller
except ImportError:

    def compress(data: bytes) -> bytes:
        return gzip.compress(data, 9, mtime=0)


def packed(data: bytes) -> str:
    return base64.b64encode(compress(data)).decode()


def script(names: list[str], before: str = "") -> str:
    """The files as one script, without the lines that are comments alone: they are for the sources' readers."""
    text = "\n".join(['"use strict";', before, *((HERE / name).read_text() for name in names)])
    return re.sub(r"^\s*(//.*|/\*\*.*\*/)?\n", "", text, flags=re.MULTILINE)


def lessons(wasm: Path, cache: Path) -> str:
    """Returns the lessons as HTML, each with its picture."""
    command = ["node", str(HERE / "stills.mjs"), str(wasm), str(cache)]
    environment = {**os.environ, "LIVE_VIEW": " ".join(VIEW)}
    return subprocess.run(command, input=digits(), stdout=subprocess.PIPE, check=True, env=environment).stdout.decode()


def page(wasm: Path, cache: Path) -> str:
    parts = {
        "STYLE": (HERE / "style.css").read_text(),
        "LESSONS": lessons(wasm, cache),
        "WASM": packed((wasm / "batchnorm.wasm").read_bytes()),
        "DIGITS": packed(digits()),
        "WORKER": packed(script(WORKER, (wasm / "batchnorm.js").read_text()).encode()),
        "PAGE": packed(script(PAGE).encode()),
        "UNPACK": script(["unpack.js"]),
    }
    html = (HERE / "page.html").read_text()
    for name in parts:
        if html.count(f"@{name}@") != 1:
            raise SystemExit(f"page.html has @{name}@ {html.count(f'@{name}@')} times; expected once")
    return re.sub(f"@({'|'.join(parts)})@", lambda found: parts[found[1]], html)


if __name__ == "__main__":
    target = Path(sys.argv[2])
    data = page(Path(sys.argv[1]), target.parent / "stills.json").encode()
    if len(data) > LIMIT:
        raise SystemExit(f"the page has {len(data)} bytes; expected at most {LIMIT}")
    target.write_bytes(data)
    print(f"{target}: {len(data)} bytes, {len(gzip.compress(data, 9))} with gzip", file=sys.stderr)
