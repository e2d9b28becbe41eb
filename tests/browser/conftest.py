"""A real browser: Debian's Chromium, else Playwright's own."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from tests.conftest import cannot


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=path, args=quiet)
        except Error as error:
            cannot(f"no browser: install Chromium, or run `playwright install chromium` ({str(error).splitlines()[0]})")
            return
        yield started
        started.close()
