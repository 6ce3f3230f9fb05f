"""Chromium without a window, driven over a pipe: what a page looks like, says and does.

The DevTools protocol: messages of JSON, each ended by a NUL, to the browser's descriptor 3 and from its 4.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

_PATIENCE = 120.0  # seconds, on a machine that does other things besides


class Browser:
    """One browser with one page in it. ``events`` are all that it told unasked, since the page was opened."""

    def __init__(self, to: int, of: int) -> None:
        self._to, self._of = to, of
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session = ""
        self.events: list[dict[str, Any]] = []

    def attach(self) -> None:
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "Accessibility"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == number:
                assert "error" not in told, f"{method}: {told['error']}"
                result: dict[str, Any] = told["result"]
                return result
            self.events.append(told)

    def open(self, page: Path, *, width: int = 1100, dark: bool = False, script: bool = True) -> None:
        """Show a page, and wait until it is loaded."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self("Emulation.setScriptExecutionDisabled", value=not script)
        self.events.clear()
        self("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives."""
        told = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def press(self, key: str, *, text: str = "") -> None:
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "End": 35, "Home": 36}
        both = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self("Input.dispatchKeyEvent", type="keyDown", **both, **({"text": text} if text else {}))
        self("Input.dispatchKeyEvent", type="keyUp", **both)

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def pdf(self) -> bytes:
        return base64.b64decode(self("Page.printToPDF", printBackground=True)["data"])

    def complaints(self) -> list[str]:
        """What the console says: errors, and what the page's policy forbade."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        told = (event for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in told]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._of], [], [], _PATIENCE)[0], "the browser says nothing"
            piece = os.read(self._of, 1 << 20)
            assert piece, "the browser ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told


@contextmanager
def browsing(chromium: str, folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in ``folder``."""
    (theirs_in, to), (of, theirs_out) = os.pipe(), os.pipe()
    # Above those that they become, so that the one does not overwrite the other.
    read, write = (fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in (theirs_in, theirs_out))
    actions = [
        (os.POSIX_SPAWN_DUP2, read, 3),
        (os.POSIX_SPAWN_DUP2, write, 4),
        (os.POSIX_SPAWN_OPEN, 1, folder / "log", os.O_WRONLY | os.O_CREAT, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    command = [chromium, *_FLAGS, f"--user-data-dir={folder}"]
    running = os.posix_spawn(chromium, command, os.environ, file_actions=actions)
    for descriptor in (theirs_in, theirs_out, read, write):
        os.close(descriptor)
    try:
        browser = Browser(to, of)
        browser.attach()
        yield browser
    finally:
        os.close(to)  # it ends when nobody talks to it any more
        os.close(of)
        os.waitpid(running, 0)
