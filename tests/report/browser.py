"""A headless Chromium, controlled through the DevTools protocol over a pair of pipes.

Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --hide-scrollbars --font-render-hinting=none --remote-debugging-pipe"
)
_PATIENCE = 60  # seconds to wait for a reply: the first start on a busy machine is slow


class Browser:
    """A browser with one page; `events` holds the events of the page, oldest first."""

    def __init__(self, profile: Path) -> None:
        if CHROMIUM is None:
            raise FileNotFoundError("no Chromium on this machine: apt-get install chromium")
        inside_in, self._out = os.pipe()
        self._in, inside_out = os.pipe()
        for descriptor in (inside_in, inside_out):
            os.set_inheritable(descriptor, True)
        # Chromium reads its commands from descriptor 3 and answers on 4. (A plain sh knows no descriptors above 9.)
        shell = f'exec "$@" 3<&{inside_in} 4>&{inside_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", CHROMIUM, *_OPTIONS.split(), f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(inside_in, inside_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(inside_in)
        os.close(inside_out)
        os.set_blocking(self._in, False)
        self._unread = b""
        self._count = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._session = None
        with suppress(OSError, RuntimeError, EOFError, TimeoutError):
            self.call("Browser.close")  # if it is killed, child processes go on writing to the profile
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; raise RuntimeError if the browser reports an error."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._count:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']['message']}")
                return reply["result"]

    def open(self, url: str) -> None:
        """Clear `events`, load a page, and wait until it and its resources are loaded."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page; the page's security policy does not apply to it."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def look(self, *, width: int, height: int = 800, dark: bool = False, zoom: float = 1, phone: bool = False) -> None:
        """Show the page at this size in CSS pixels, in light or dark mode."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=zoom, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])

    def picture(self, clip: dict[str, float] | None = None) -> bytes:
        """Return a PNG of the visible part of the page, or of its rectangle `clip`."""
        options = {"clip": clip, "captureBeyondViewport": True} if clip else {}
        return base64.b64decode(self.call("Page.captureScreenshot", **options)["data"])

    def _next(self) -> dict[str, Any]:
        """Return the next message; events are also added to `events`."""
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._unread:
            try:
                piece = os.read(self._in, 1 << 20)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError("the browser does not answer") from None
                time.sleep(0.002)
                continue
            if not piece:
                raise EOFError("the browser has exited")
            self._unread += piece
        message, _, self._unread = self._unread.partition(b"\0")
        reply: dict[str, Any] = json.loads(message)
        if "method" in reply:
            self.events.append(reply)
        return reply
