# SPDX-License-Identifier: Apache-2.0
"""A page in headless Chromium (DevTools protocol) or Firefox (WebDriver BiDi): both without a driver of their own."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from sockets import WebSocket

JSON = Any


class BrowserError(Exception):
    """The browser refused a command, or a script failed."""


class Browser:
    """A browser process, and the socket to it. `requests` and `complaints` are what the page did, since `clear`."""

    def __init__(self, command: list[str], said: str) -> None:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.number = 0
        filled = [each.replace("FOLDER", self.folder.name) for each in command]
        self.process = subprocess.Popen(filled, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        for line in self.process.stderr:
            if found := re.search(said, line):
                break
        else:
            raise BrowserError(f"{command[0]} ended")
        self.address = found[1]
        # Somebody has to read its later output, or it stops when the pipe is full.
        self.reader = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def open_socket(self, address: str) -> None:
        self.socket = WebSocket(address)

    def do(self, method: str, params: JSON | None = None, **more: JSON) -> JSON:
        """The result of a command; what the browser tells meanwhile is heard."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params or {}, **more}))
        number = self.number
        while True:
            message = json.loads(self.socket.receive())
            if message.get("id") == number:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']} {message.get('message', '')}")
                return message["result"]
            if "method" in message:
                self.hear(message["method"], message["params"])

    def hear(self, method: str, params: JSON) -> None:
        raise NotImplementedError

    def js(self, code: str) -> JSON:
        raise NotImplementedError

    def go(self, address: str) -> None:
        raise NotImplementedError

    def size(self, width: int, height: int) -> None:
        raise NotImplementedError

    def clear(self) -> None:
        self.requests.clear()
        self.complaints.clear()

    def wait(self, condition: str, seconds: float = 120) -> None:
        """Waits until a condition is true in the page, but no longer than the limit."""
        end = time.monotonic() + seconds
        while not self.js(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise BrowserError(f"not within {seconds} s: {condition}; complaints: {self.complaints}")
            time.sleep(0.1)

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()
        self.reader.wait()
        self.folder.cleanup()


class Chromium(Browser):
    """Commands go to one tab, in a session of its own."""

    def __init__(self, program: str = "chromium") -> None:
        # Root has no sandbox, a container may have little shared memory, and no name is to be found in any network.
        flags = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-port=0 --no-first-run"
        )
        names = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        command = [program, *flags.split(), names, "--user-data-dir=FOLDER", "about:blank"]
        super().__init__(command, r"DevTools listening on (ws://\S+)")
        self.open_socket(self.address)
        self.session: JSON = {}
        self.new_tab()

    def new_tab(self) -> None:
        target = self.do("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = {
            "sessionId": self.do("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        }
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.tab(f"{domain}.enable")

    def tab(self, method: str, **params: JSON) -> JSON:
        return self.do(method, params, **self.session)

    def hear(self, method: str, params: JSON) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method in ("Network.loadingFailed", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(params)[:500])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["entry"])[:500])

    def go(self, address: str) -> None:
        # An empty page comes between: another hash alone would load nothing.
        self.tab("Page.navigate", url="about:blank")
        self.tab("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def js(self, code: str) -> JSON:
        found = self.tab("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise BrowserError(json.dumps(found["exceptionDetails"])[:800])
        return found["result"].get("value")

    def size(self, width: int, height: int) -> None:
        self.tab("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def media(self, kind: str = "", **features: str) -> None:
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.tab("Emulation.setEmulatedMedia", media=kind, features=given)

    def key(self, key: str) -> None:
        more = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.tab("Input.dispatchKeyEvent", type=kind, key=key, code=key, **(more if kind == "keyDown" else {}))

    def mouse(self, x: float, y: float) -> None:
        self.tab("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path: str) -> None:
        found = self.tab("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(found["data"]))


class Firefox(Browser):
    """Commands go to one tab, `context`."""

    def __init__(self, program: str = "firefox-esr") -> None:
        command = [
            program,
            "--headless",
            "--no-remote",
            "--profile",
            "FOLDER",
            "--remote-debugging-port=0",
            "about:blank",
        ]
        super().__init__(command, r"WebDriver BiDi listening on (ws://\S+)")
        self.open_socket(f"{self.address}/session")
        self.do("session.new", {"capabilities": {}})
        self.context = self.do("browsingContext.getTree")["contexts"][0]["context"]
        self.do("session.subscribe", {"events": ["log.entryAdded", "network.beforeRequestSent", "network.fetchError"]})

    def hear(self, method: str, params: JSON) -> None:
        if method == "network.beforeRequestSent":
            self.requests.append(params["request"]["url"])
        elif method == "network.fetchError":
            self.complaints.append(params["request"]["url"][:200])
        elif method == "log.entryAdded" and params["level"] in ("error", "warn"):
            self.complaints.append(str(params["text"])[:500])

    def go(self, address: str) -> None:
        for each in ("about:blank", address):
            self.do("browsingContext.navigate", {"context": self.context, "url": each, "wait": "complete"})

    def js(self, code: str) -> JSON:
        target = {"context": self.context}
        given = {"expression": f"Promise.resolve({code}).then(JSON.stringify)", "target": target, "awaitPromise": True}
        found = self.do("script.evaluate", given)
        if found["type"] == "exception":
            raise BrowserError(found["exceptionDetails"]["text"])
        value = found["result"].get("value")
        return None if value is None else json.loads(value)

    def size(self, width: int, height: int) -> None:
        viewport = {"width": width, "height": height}
        self.do("browsingContext.setViewport", {"context": self.context, "viewport": viewport})

    def picture(self, path: str) -> None:
        found = self.do("browsingContext.captureScreenshot", {"context": self.context, "origin": "document"})
        Path(path).write_bytes(base64.b64decode(found["data"]))
