"""A real browser for the tests of pages: Debian's Chromium, headless, without any network."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from selenium import webdriver

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="NO BROWSER: install Debian's chromium and chromium-driver to test the pages",
)


def open_browser(downloads: Path, width: int = 1200) -> webdriver.Chrome:
    """Return a headless Chromium `width` pixels wide; only this machine can be reached from it.

    downloads: where it saves files. Its console is in `get_log("browser")`. The caller quits it.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--mute-audio"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},1000")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER, log_output=os.devnull))
    # Chromium's windows are at least 500 pixels wide: a phone is emulated
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    return driver


def errors_of(driver: webdriver.Chrome) -> list[str]:
    """What the page's console calls errors so far."""
    return [row["message"] for row in driver.get_log("browser") if row["level"] == "SEVERE"]


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
