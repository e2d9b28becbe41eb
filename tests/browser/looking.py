"""What the browser tests do with any page: sign in, watch it for faults, measure it."""

import pytest
from playwright.sync_api import ConsoleMessage, Page

# For what has nothing to do with how wide the window is.
wide_alone = pytest.mark.parametrize("size", ["wide"], indirect=True)


def sign_in(page: Page, email: str, password: str) -> None:
    """Fill in the form of the sign-in page and send it."""
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def watch(page: Page, everything: bool = False) -> list[str]:
    """The list to which a page's faults are added as they happen: scripts that fail, what the security policy stops.

    With `everything`, all that the browser counts as an error too, as an answer that was none.
    """
    faults: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if "Content Security" in message.text or (everything and message.type == "error"):
            faults.append(f"{page.url}: {message.text}")

    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    page.on("console", heard)
    return faults


def width_and_window(page: Page) -> tuple[int, int]:
    """How wide the page is, and its window (px): wider scrolls sideways."""
    width, window = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    return width, window
