# SPDX-License-Identifier: Apache-2.0
"""Helpers of the page's tests: the page, its state, its tables, and a frame around it."""

from __future__ import annotations

import csv
import html
import io
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from browsers import Browser, Chromium

PAGE = Path(sys.argv[2]).resolve()
SMALL = "epochs=3&units=8&depth=2"  # a run that takes no time
STATE = "document.documentElement.dataset.state"
TESTS: list[tuple[str, Callable[..., None]]] = []


def both(function: Callable[[Any], None]) -> Callable[[Any], None]:
    TESTS.append(("both", function))
    return function


def chromium(function: Callable[[Chromium], None]) -> Callable[[Chromium], None]:
    TESTS.append(("chromium", function))
    return function


def open_page(b: Browser, settings: str = SMALL, state: str = "done") -> None:
    b.clear()
    b.go(f"{PAGE.as_uri()}#{settings}" if settings else PAGE.as_uri())
    b.wait(f"{STATE} === {state!r} || {STATE} === 'failed'")
    assert b.js(STATE) == state, b.js("document.getElementById('status').textContent")


def text(b: Browser, name: str) -> str:
    found = b.js(f"document.getElementById('{name}').textContent")
    assert isinstance(found, str)
    return found


def click(b: Browser, name: str) -> None:
    b.js(f"document.getElementById('{name}').click()")


def table(b: Browser, chart: str) -> list[list[str]]:
    """Its head and rows, after it was opened as a reader does."""
    b.js(f"document.querySelector('#figure-{chart} details').open = true")
    b.wait(f"document.querySelector('#table-{chart} tbody').rows.length > 0")
    rows = f"[...document.querySelectorAll('#table-{chart} tr')]"
    found: list[list[str]] = b.js(f"{rows}.map(row => [...row.cells].map(cell => cell.textContent))")
    return found


def written(b: Browser) -> list[dict[str, str]]:
    """The rows of the CSV that the button saves."""
    b.js("""(() => {
        const usual = URL.createObjectURL;
        URL.createObjectURL = (blob) => {
            globalThis.saved = blob.text();
            URL.createObjectURL = usual;
            return usual.call(URL, blob);
        };
        document.getElementById('save').click();
    })()""")
    data = b.js("globalThis.saved")
    assert data.count("\n") == data.count("\r\n") > 100
    return list(csv.DictReader(io.StringIO(data, newline="")))


class Frames:
    """A page with the live page in a frame that may run scripts and nothing else; the address of it, by HTTP."""

    def __init__(self, kind: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        # The frame has no other way to tell how it is.
        tells = """<script>setInterval(() => {
            let { state } = document.documentElement.dataset;
            const headline = document.getElementById('headline').textContent;
            // A setting is written to the address, which a frame without an origin may not have.
            try { if (state === 'done') page.changed('modes', true); } catch { state = 'failed'; }
            parent.postMessage({ state, headline }, '*');
        }, 100)</script>"""
        page = PAGE.read_text().replace("</body>", f"{tells}</body>")
        Path(self.folder.name, "page.html").write_text(page)
        source = f'srcdoc="{html.escape(page)}"' if kind == "srcdoc" else 'src="page.html"'
        frame = f"""<!doctype html><meta charset="utf-8"><title>frame</title><link rel="icon" href="data:,">
            <script>
            onmessage = ({{ data }}) => {{ if (['done', 'failed'].includes(data.state)) globalThis.heard = data; }};
            </script><iframe sandbox="allow-scripts" width="900" height="700" {source}></iframe>"""
        Path(self.folder.name, "frame.html").write_text(frame)

    def __enter__(self) -> str:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=self.folder.name))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/frame.html"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()


class Quiet(SimpleHTTPRequestHandler):
    """Files by GET."""

    def log_message(self, *_: object) -> None:
        """Says nothing of every file."""
