"""A page in a headless Chromium, driven through its own pipe: no driver, no port, no package."""

import base64
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT = 60  # seconds for any answer


def chromium() -> str | None:
    """Return the browser's program; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab; it remembers what it asked for and what went wrong."""

    def __init__(self, out: int, into: int) -> None:
        self._out = out
        self._into = into
        self._number = 0
        self._rest = b""
        self.session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> Any:
        """Return the answer to a command of the DevTools protocol."""
        self._number += 1
        told = {"id": self._number, "method": method, "params": parameters, **self.session}
        os.write(self._out, json.dumps(told).encode() + b"\0")
        limit = time.monotonic() + WAIT
        while time.monotonic() < limit:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)
        raise TimeoutError(method)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._into, 2**16)
            assert more, "the browser has ended"
            self._rest += more
        answer, self._rest = self._rest.split(b"\0", 1)
        return json.loads(answer)

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression comes to; a promise is awaited."""
        done = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        limit = time.monotonic() + WAIT
        while not self.value(expression):
            assert time.monotonic() < limit, expression
            time.sleep(0.05)

    def resize(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Make the window so large, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, file: Path) -> None:
        """Load a page from the disk and wait until it has loaded."""
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.until("document.readyState === 'complete'")

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """Keep what the window shows, or the whole page, as a PNG file."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def errors(self) -> list[str]:
        """Return exceptions, and errors and warnings of the console."""
        said = []
        for event in self.events:
            about = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                said.append(str(about["exceptionDetails"]))
            if event.get("method") == "Runtime.consoleAPICalled" and about["type"] in {"error", "warning"}:
                said.append(str(about["args"]))
            if event.get("method") == "Log.entryAdded" and about["entry"]["level"] in {"error", "warning"}:
                said.append(str(about["entry"]))
        return said

    def requests(self) -> list[str]:
        """Return the addresses asked for outside of the page itself."""
        asked = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith(("data:", "blob:", "file:"))]


@contextmanager
def opened(folder: Path) -> Iterator[Page]:
    """Start a browser whose profile lies in ``folder``; it has no network, and ends with the body."""
    program = chromium()
    assert program is not None
    ours, theirs = _pipe(), _pipe()  # to the browser, from it
    options = ["--headless=new", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-gpu", "--disable-dev-shm-usage"]
    options += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    # It reads from file descriptor 3 and writes to 4, whatever numbers the pipes have here.
    actions: list[Any] = [(os.POSIX_SPAWN_DUP2, ours[0], 3), (os.POSIX_SPAWN_DUP2, theirs[1], 4)]
    actions += [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    process = os.posix_spawn(
        program, [program, *options, "about:blank"], dict(os.environ), file_actions=actions
    )
    os.close(ours[0])
    os.close(theirs[1])
    try:
        page = Page(ours[1], theirs[0])
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page.session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        yield page
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(ours[1])
        os.close(theirs[0])


def _pipe() -> tuple[int, int]:
    """Return a pipe's ends, to read and to write, above the numbers that the browser's have."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
