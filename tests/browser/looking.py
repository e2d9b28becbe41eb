"""What the browser tests do with any page: sign in, watch it for faults, measure it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import ConsoleMessage, Page

# For what has nothing to do with how wide the window is.
wide_alone = pytest.mark.parametrize("size", ["wide"], indirect=True)
STANDARDS = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
    "rules": {"target-size": {"enabled": True}},  # of WCAG 2.2; axe leaves it out unless it is named
}
# (files) => a DataTransfer that holds them, as a drag or the clipboard brings it
CARRIED = """(files) => { const carried = new DataTransfer();
  for (const [name, bytes] of files) carried.items.add(new File([Uint8Array.from(bytes)], name, {type: "image/png"}));
  return carried }"""


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


def violations(page: Page, options: dict[str, Any] = STANDARDS) -> list[str]:
    """What axe finds wrong with a page as it is."""
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("(options) => axe.run(options)", {"resultTypes": ["violations"], **options})["violations"]
    first = [one["nodes"][0] for one in found]
    return [
        f"{one['id']}, {len(one['nodes'])} times, as in {node['html'][:200]} {node['failureSummary']}"
        for one, node in zip(found, first, strict=True)
    ]


def carried(files: Iterator[Path], count: int) -> list[tuple[str, list[int]]]:
    """What CARRIED takes: name and bytes of the next files."""
    return [(path.name, list(path.read_bytes())) for path, _ in zip(files, range(count), strict=False)]


def tab_to(page: Page, name: str) -> None:
    """Press Tab until what is called `name` has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        element = "document.activeElement"
        named = page.evaluate(
            f"({element}.ariaLabel || {element}.labels?.[0]?.textContent || {element}.textContent).trim()"
        )
        if named.startswith(name):
            return
    pytest.fail(f"the keyboard does not reach “{name}”")


def choose_by_key(page: Page, name: str, *files: Path) -> None:
    """Go to the field for files that is called `name`, open it, and choose files, without the mouse."""
    # Chromium hands its chooser over only while somebody listens, and is told so without waiting: listen long before.
    page.on("filechooser", lambda _: None)
    tab_to(page, name)
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files([*files])
