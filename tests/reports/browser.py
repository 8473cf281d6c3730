"""Chromium over a page: what the tests of the pages and the screenshots share."""

from __future__ import annotations

import base64
import functools
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--no-first-run", "--window-size=1280,1000",
)  # fmt: skip


def start(profile: Path) -> Any:
    """A driver of a Chromium of its own, with its logs; ``quit()`` it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for switch in (*SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    return webdriver.Chrome(options=options, service=service)


def show(driver: Any, page: Path | str, *, width: int = 1280, height: int = 900, dark: bool = False,
         media: str = "") -> None:  # fmt: skip
    """Open a page as wide as a screen is, light or dark, on a screen or on paper."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
    driver.get_log("performance")
    driver.get_log("browser")
    driver.get(page if isinstance(page, str) else page.resolve().as_uri())


def requests(driver: Any) -> list[str]:
    """Addresses that were asked for since the page was opened."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def picture(driver: Any, *, whole: bool = False) -> bytes:
    """A PNG of what is on the screen, or of the whole page."""
    given = {"captureBeyondViewport": True} if whole else {}
    if whole:
        size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        given["clip"] = {**size, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", **given})
    return base64.b64decode(shot["data"])


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on this machine: pages that load files of their own want one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def violations(driver: Any) -> list[tuple[str, list[str]]]:
    """What axe-core finds, with the elements; everything is opened first."""
    import pytest

    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core is not installed")
    driver.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
    found = axe.Axe().run(driver, options={"resultTypes": ["violations"]})
    assert len(found["passes"]) > 20, "wanted axe to have looked at something"
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]
    ]
