# SPDX-License-Identifier: Apache-2.0
"""browser.py BROWSER FOLDER: opens the folder's page.html in a headless Chromium, and prints what it sends back.

Or why it will not: a file that is not there is the end, and so is that of the browser.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves files, and takes one text."""

    text = "the browser ended without a result"

    def __init__(self, folder: str) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.received = threading.Event()

    def take(self, text: str) -> None:
        """The first is the result."""
        if not self.received.is_set():
            self.text = text
            self.received.set()


class Handler(SimpleHTTPRequestHandler):
    """Files by GET, the text by POST."""

    server: Server

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(204)
        self.end_headers()
        self.server.take(text)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        super().send_error(code, message, explain)
        self.server.take(f"{self.path}: {code} {message}")

    def log_message(self, *_: object) -> None:
        """Says nothing of every file."""


def main(browser: str, folder: str) -> None:
    with Server(folder) as server, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # Root has no sandbox, and a container may have little shared memory.
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
        page = f"http://127.0.0.1:{server.server_port}/page.html"
        process = subprocess.Popen([browser, *flags, page], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not server.received.wait(1) and process.poll() is None:
            pass
        process.terminate()
        process.wait()
        server.shutdown()
        print(server.text)


if __name__ == "__main__":
    main(*sys.argv[1:])
