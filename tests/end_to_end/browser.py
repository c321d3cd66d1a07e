"""Debian's Chromium, started the same way for every page that the tests look at."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

REQUIRED = "LORASCOPE_REQUIRE_BROWSER"
"""Environment variable: a missing browser is a failure, not a skip (set by `.ci/run`)."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-sync",
)


def require_chromium() -> str:
    """Path of Chromium; installed with apt when we may, else the test is skipped with the reason."""
    found = shutil.which("chromium")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-q"], check=False, capture_output=True)
        packages = ["chromium", "fonts-dejavu-core", "fonts-noto-cjk", "fonts-noto-color-emoji"]
        subprocess.run(
            ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages], check=False, capture_output=True
        )
        found = shutil.which("chromium")
    if found is not None:
        return found
    if os.environ.get(REQUIRED):
        pytest.fail("Chromium is missing and could not be installed with apt-get")
    pytest.skip("Chromium is missing: `apt-get install chromium` as root")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless browser."""
    path = require_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()
