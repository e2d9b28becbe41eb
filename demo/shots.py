"""`make figures`: the README's pictures of the upload page, wide and on a phone, from a running installation."""

import shutil
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from demo.installation import CHECKOUT, Installation, live_release, started
from demo.people import digits

PROJECT, LABELLED, SEED = "digits", 300, 5
SIZES = {"upload.png": (1100, 860), "upload-phone.png": (390, 844)}


def main() -> None:
    """Start, import labelled digits, train, upload one, take the pictures."""
    with started() as installation, tempfile.TemporaryDirectory() as place:
        stream = digits(SEED)
        for number in range(LABELLED):
            picture, truth = next(stream)
            file = Path(place) / truth / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(picture)
        installation.command("project", "add", str(CHECKOUT / "projects" / "digits.yaml"))
        installation.command("import", PROJECT, place)
        while live_release(installation, PROJECT) is None:  # the trainer does the rest by itself
            time.sleep(1)
        shown = Path(place) / "shown.png"
        shown.write_bytes(next(stream)[0])
        path = shutil.which("chromium") or shutil.which("google-chrome")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for name, (width, height) in SIZES.items():
                _shoot(browser, installation, shown, width, height, CHECKOUT / "docs" / name)
            browser.close()


def _shoot(browser: Browser, installation: Installation, shown: Path, width: int, height: int, target: Path) -> None:
    page = browser.new_page(viewport={"width": width, "height": height}, base_url=installation.pages)
    page.goto(f"/p/{PROJECT}/")
    page.set_input_files("#file", shown)
    expect(page.locator("#answer .label")).to_be_visible(timeout=20_000)
    page.screenshot(path=target)
    page.close()
    print(target)


if __name__ == "__main__":
    main()
