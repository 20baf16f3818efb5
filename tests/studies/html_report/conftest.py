"""The browser of the tests of HTML pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.studies.html_report.browser import BROWSERS


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless browser: Playwright's own Chromium, or an installed one."""
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = own if Path(own).exists() else next(filter(None, map(shutil.which, BROWSERS)), None)
        if path is None:
            pytest.skip(
                f"no browser: not Playwright's (`playwright install chromium`), nor any of {', '.join(BROWSERS)}"
            )
        # Chromium's sandbox does not start for root
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0, timeout=0)
        yield browser
        browser.close()
