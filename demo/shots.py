"""`make shots`: the pictures of README and docs from a demo that has ended, wide and on a phone; and a card in full."""

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright
from rich.console import Console

from demo import scenes
from demo.__main__ import PICTURES, PROJECT, ROUNDS, SEED, draw, turn
from demo.installation import CHECKOUT, Installation, live_release, started
from demo.people import Annotators, Visitor, digits, logged_in

DOCS = CHECKOUT / "docs"
SIZES = {"wide": {"width": 1200, "height": 860}, "phone": {"width": 390, "height": 844}}
PAGES = {  # name of the picture: address, where one account must be signed in
    "dashboard": f"/p/{PROJECT}/dashboard",
    "pictures": f"/p/{PROJECT}/images",
    "settings": f"/p/{PROJECT}/settings",
    "people": f"/p/{PROJECT}/people",
    "projects": "/projects",
    "dashboard-of-sets": f"/p/{scenes.PROJECT}/dashboard",
}
LATER = 80  # pictures that the last release answers before it is looked at


def main() -> None:
    """Let the demo run, have the last release's answers checked, take the pictures."""
    console = Console(highlight=False)
    with started() as installation:
        installation.command("project", "add", str(CHECKOUT / "projects" / "digits.yaml"))
        visitor = Visitor(installation.pages, PROJECT, SEED)
        rounds = turn(installation, console, visitor)
        draw(rounds, DOCS / "demo.png")
        check_the_last_release(installation, visitor)
        made = scenes.turn(installation, console, SEED)
        ranker = next(row["release"] for row in made if (row["head"], row["state"]) == ("ranker", "live"))
        with a_browser() as browser:
            for size in SIZES:
                shoot(browser, installation, size, ranker)


def check_the_last_release(installation: Installation, visitor: Visitor) -> None:
    """Visitors send more, annotators answer, and nothing is trained on it: the dashboard shows the release as it is."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "digits.yaml"
        manifest = (CHECKOUT / "projects" / "digits.yaml").read_text(encoding="utf-8")
        lines = [line for line in manifest.splitlines() if not line.startswith("train:")]
        file.write_text("\n".join([*lines, "train: {at_least_new: 100000}", ""]), encoding="utf-8")
        installation.command("project", "add", str(file))
    for picture, truth in itertools.islice(digits(SEED), ROUNDS * PICTURES, ROUNDS * PICTURES + LATER):
        visitor.react(visitor.send(picture, truth))
    installation.command("sample", PROJECT)
    installation.command("sync")
    studio = logged_in(installation.secrets["LABEL_STUDIO_URL"], installation.secrets["LABEL_STUDIO_API_KEY"])
    Annotators(studio, PROJECT, visitor.truths, SEED).answer(300)
    time.sleep(2)  # Label Studio writes what was answered
    installation.command("sync")


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def shoot(browser: Browser, installation: Installation, size: str, ranker: str) -> None:
    """Every page in one size, `docs/<page>-<size>.png`; and the card of a ranker, `docs/card.json`."""
    touch = size == "phone"
    options = {"viewport": SIZES[size], "has_touch": touch, "is_mobile": touch, "base_url": installation.pages}
    visitor = browser.new_page(**options)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "digit.png"
        stream = digits(SEED + 2)
        visitor.goto(f"/p/{PROJECT}/")
        for sent in (1, 2):
            file.write_bytes(next(stream)[0])
            visitor.set_input_files("#file", file)
            expect(visitor.locator("#pictures .answer .label")).to_have_count(sent, timeout=20_000)
        visitor.wait_for_load_state("networkidle")
    keep(visitor, "upload", size)
    send_a_set(visitor)
    keep(visitor, "sets", size)
    visitor.close()
    owner = browser.new_page(**options)
    owner.goto("/sign-in")
    owner.get_by_label("E-mail address").fill(installation.secrets["CLOSEDLOOP_OWNER_EMAIL"])
    owner.get_by_label("Password").fill(installation.secrets["CLOSEDLOOP_OWNER_PASSWORD"])
    owner.get_by_role("button", name="Sign in").click()
    owner.wait_for_load_state("networkidle")
    for name, address in PAGES.items():
        owner.goto(address)
        if name.startswith("dashboard"):
            for chart in owner.locator("[data-chart]").all():
                chart.scroll_into_view_if_needed()
                expect(chart.locator("svg")).to_be_visible(timeout=20_000)
            owner.evaluate("window.scrollTo(0, 0)")
        keep(owner, name, size)
    owner.goto(f"/p/{PROJECT}/releases/classifier/{live_release(installation, PROJECT)}")
    keep(owner, "release", size)
    of_ranker = f"/p/{scenes.PROJECT}/releases/ranker/{ranker}"
    owner.goto(of_ranker)
    keep(owner, "release-of-ranker", size)
    card = owner.request.get(f"{of_ranker}/card.json").json()
    (DOCS / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    owner.goto(f"/p/{PROJECT}/images?disagrees=true")
    owner.locator(".tile").first.click()
    owner.wait_for_load_state("networkidle")
    keep(owner, "picture", size)
    owner.close()


def send_a_set(visitor: Page) -> None:
    """A visitor sends a scene of three shots and is told which is best."""
    shots = next(scene for scene in scenes.scenes(SEED + 2) if len(scene) == 3)
    visitor.goto(f"/p/{scenes.PROJECT}/")
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / f"shot-{number}.png" for number in (1, 2, 3)]
        for file, shot in zip(files, shots, strict=True):
            file.write_bytes(shot.data)
        visitor.set_input_files("#file", files)
        visitor.get_by_role("button", name="Which is best?").click()
        expect(visitor.locator(".member.best")).to_be_visible(timeout=20_000)
        visitor.wait_for_load_state("networkidle")


def keep(page: Page, name: str, size: str) -> None:
    """Write what a page shows, on a phone all of its length."""
    page.wait_for_load_state("networkidle")
    target = DOCS / f"{name}-{size}.png"
    page.screenshot(path=target, full_page=name not in ("pictures",))
    print(target)


if __name__ == "__main__":
    main()
