"""A real browser without a window, for the tests of widgets and of the site."""

import contextlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium, or else the Chrome, that is installed; Playwright's is not.

    It has no sandbox, as root may not use one: show it pages of this machine alone.
    """
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            channel=None if path else "chrome",
            args=["--no-sandbox"],
        )
        try:
            yield browser
        finally:
            browser.close()
