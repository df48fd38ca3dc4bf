"""A real browser for the tests: Chromium, spoken to over its debugging pipe.

A page is asked until what a test waits for is there, up to a deadline: drawing happens in frames,
and a busy machine may need seconds for one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DEADLINE_S = 60.0
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --disable-extensions "
    "--disable-dev-shm-usage --remote-debugging-pipe"
)


class Page:
    """One open page."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.console: list[str] = []
        self._to, self._from = to_browser, from_browser
        self._unread = b""
        self._calls = 0
        self._session: str | None = None

    def open(self, address: str) -> None:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self._call(f"{domain}.enable")
        self._call("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until the expression holds."""
        end = time.monotonic() + DEADLINE_S
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"never held: {expression}; console: {self.console}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """A key of the keyboard, such as Tab, Enter or j."""
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27}
        number = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=number,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def write(self, text: str) -> None:
        """Text, into what has the focus."""
        self._call("Input.insertText", text=text)

    def choose_file(self, selector: str, path: Path) -> None:
        """A file, for an input of files."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Another window, and another taste."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """What is in view, as PNG."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(b64decode(data))

    def html(self) -> str:
        return str(self.evaluate("document.documentElement.outerHTML"))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._calls += 1
        message: dict[str, Any] = {"id": self._calls, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            self._note(answer)
            if answer.get("id") == self._calls:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            part = os.read(self._from, 1 << 20)
            assert part, "the browser ended"
            self._unread += part
        message, self._unread = self._unread.split(b"\0", 1)
        read: dict[str, Any] = json.loads(message)
        return read

    def _note(self, message: dict[str, Any]) -> None:
        events = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        if message.get("method") in events:
            self.console.append(json.dumps(message["params"]))


@contextmanager
def browse(address: str, profile: Path) -> Iterator[Page]:
    """The page at `address` in a fresh browser, which ends with the block."""
    assert CHROMIUM is not None
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()

    def wire() -> None:  # the browser reads from 3 and writes to 4
        high = [os.dup(fd) for fd in (theirs_in, theirs_out)]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    command = [CHROMIUM, *OPTIONS.split(), f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(
        command, pass_fds=(3, 4), preexec_fn=wire, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            os.close(theirs_in)
            os.close(theirs_out)
            page = Page(ours_out, ours_in)
            page.open(address)
            yield page
        finally:
            os.close(ours_out)
            os.close(ours_in)
            process.kill()
