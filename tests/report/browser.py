"""A headless Chromium over W3C WebDriver, by plain HTTP: enough to look at one page."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-quic", "--disable-sync", "--disable-background-networking"),
    *("--disable-component-update", "--hide-scrollbars"),
    "--autoplay-policy=no-user-gesture-required",
    # a mouse, as on a desk: pages ask for it before they give a keyboard its way to what scrolls
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2",
)
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Browser:
    """One browser session; commands as in the WebDriver recommendation."""

    def __init__(self, address: str, profile: Path, width: int) -> None:
        self._url = f"{address}/session"
        options = [*ARGUMENTS, f"--window-size={width},1000", f"--user-data-dir={profile}"]
        wanted = {
            "goog:chromeOptions": {"binary": str(CHROMIUM), "args": options},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self.call("", {"capabilities": {"alwaysMatch": wanted}})
        self._url += f"/{session['sessionId']}"

    def call(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """Send one command, return its value; urllib.error.HTTPError when it is refused."""
        data = None if method != "POST" else json.dumps(body or {}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        with LOCAL.open(request, timeout=30) as reply:
            return json.load(reply)["value"]

    def open(self, path: Path) -> None:
        """Load a file and wait until it is complete."""
        self.call("/url", {"url": path.as_uri()})

    def run(self, script: str) -> Any:
        """Value that ``script`` returns in the page."""
        return self.call("/execute/sync", {"script": script, "args": []})

    def run_async(self, script: str) -> Any:
        """Value that ``script`` hands to its last argument, a callback."""
        return self.call("/execute/async", {"script": script, "args": []})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """One Chromium DevTools command."""
        return self.call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """New entries of the ``browser`` console or of the ``performance`` log."""
        entries: list[dict[str, Any]] = self.call("/se/log", {"type": kind})
        return entries

    def resize(self, width: int) -> None:
        """Lay the page out for this width in CSS pixels."""
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, scheme: str) -> None:
        """Show pages as a reader wants them who prefers ``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path, width: int) -> None:
        """The whole page as PNG at this width."""
        self.resize(width)
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(profile: Path, width: int = 1200) -> Iterator[Browser]:
    """A new browser with a new profile; both processes end with the block."""
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        port = next(m[1] for line in driver.stdout if (m := re.search(r"on port (\d+)\.", line)))
        session = Browser(f"http://127.0.0.1:{port}", profile, width)
        try:
            yield session
        finally:
            session.call("", method="DELETE")
    finally:
        driver.terminate()
        driver.wait(timeout=10)
        driver.stdout.close()
