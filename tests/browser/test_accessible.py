"""Every page, in both sizes, light and dark: axe finds nothing, nothing is wrong in the console, and little travels."""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, expect

from closedloop import accounts, removal
from closedloop.project import Project
from closedloop.storage import Stores
from closedloop.storage.tables import images
from demo.installation import Installation
from tests.browser.conftest import OPENING, SIZES
from tests.browser.looking import sign_in, violations, watch, width_and_window
from tests.browser.shapes import now

COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
MAX_BYTES = 200_000
BYTES = """() => { const page = performance.getEntriesByType("navigation")[0];
  const parts = performance.getEntriesByType("resource").filter((one) =>
    ["script", "link", "css"].includes(one.initiatorType) && one.responseEnd <= page.loadEventEnd);
  return [page, ...parts].map((one) => [one.name, Math.max(one.transferSize, one.encodedBodySize)]) }"""


def send(page: Page, file: Path) -> None:
    notes = file.with_name("notes.png")
    notes.write_text("these are my notes")
    page.set_input_files("#file", [file, notes])
    expect(page.locator("p.label")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_visible()


def flag_and_label(page: Page, file: Path) -> None:
    page.set_input_files("#file", file)
    page.get_by_role("button", name="Flag incorrect label").click()
    expect(page.locator(".thanks")).to_have_count(1)
    page.get_by_label("What is it really?").select_option("round")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".thanks")).to_have_count(2)
    page.get_by_text("Remove", exact=True).click()


def label_wrongly(page: Page, file: Path) -> None:
    page.set_input_files("#file", file)
    page.get_by_label("What is it?").fill("no class")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_be_visible()


def go_to_the_answer(page: Page, file: Path) -> None:
    page.set_input_files("#file", file)
    page.locator("li.item[id]").wait_for()
    page.goto(f"/predictions/{page.locator('li.item').get_attribute('id').removeprefix('prediction-')}")


def press_question_mark(page: Page, file: Path) -> None:
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def sign_in_wrongly(page: Page, file: Path) -> None:
    sign_in(page, f"{secrets.token_hex(4)}@example.org", "wrong, and long enough")
    expect(page.get_by_role("alert")).to_be_visible()


def see_charts_and_tables(page: Page, file: Path) -> None:
    for chart in page.locator("[data-chart]").all():
        chart.scroll_into_view_if_needed()
        expect(chart.locator("svg")).to_be_visible()
    page.locator("details").evaluate_all("(all) => all.forEach((one) => one.open = true)")


def see_the_newest_release(page: Page, file: Path) -> None:
    page.locator("#releases").get_by_role("link", name=re.compile(r"^r\d{4}-")).first.click()
    page.locator("details").evaluate_all("(all) => all.forEach((one) => one.open = true)")
    expect(page.get_by_role("link", name="Download card.json")).to_be_visible()


def see_the_first(page: Page, file: Path) -> None:
    page.locator(".tile").first.click()
    expect(page.locator("ol.told")).to_be_visible()
    page.get_by_text("Remove this picture …").click()


def fill_in_nothing(page: Page, file: Path) -> None:
    page.get_by_role("button", name="Make the project").click()
    expect(page.get_by_role("alert")).to_be_visible()


def make_one(page: Page, file: Path) -> None:
    page.get_by_role("button", name=re.compile("Make a (link|token)")).click()
    expect(page.get_by_role("status")).to_be_visible()


@dataclass(frozen=True)
class Place:
    """Where a page is, who sees it, and what is done there before it is looked at."""

    path: str
    then: Callable[[Page, Path], None] = lambda page, file: None
    who: str = "stranger"
    status: int = 200


PLACES = {
    "upload": Place("/p/shapes/"),
    "upload: answered and refused": Place("/p/shapes/", send),
    "upload: flagged and labelled": Place("/p/shapes/", flag_and_label),
    "upload: a wrong label": Place("/p/{many}/", label_wrongly),
    "upload: the keys": Place("/p/shapes/", press_question_mark),
    "upload: signed in": Place("/p/shapes/", who="owner"),
    "one answer": Place("/p/shapes/", go_to_the_answer),
    "sign in": Place("/sign-in"),
    "sign in: wrong": Place("/sign-in", sign_in_wrongly),
    "invitation": Place("/invitations/{invitation}"),
    "invitation: signed in": Place("/invitations/{invitation}", who="owner"),
    "error": Place("/nowhere", status=404),
    "dashboard": Place("/p/shapes/dashboard", see_charts_and_tables, who="owner"),
    "dashboard: fresh": Place("/dashboard", who="owner"),
    "one release": Place("/p/shapes/dashboard", see_the_newest_release, who="owner"),
    "one release: for a viewer": Place("/p/shapes/dashboard", see_the_newest_release, who="viewer"),
    "pictures": Place("/p/shapes/images", who="owner"),
    "pictures: a wrong filter": Place("/p/shapes/images?at_least=140&label=oval", who="owner", status=400),
    "pictures: none": Place("/p/shapes/images?since=2099-01-01", who="owner"),
    "one picture": Place("/p/shapes/images", see_the_first, who="owner"),
    "removed pictures": Place("/p/shapes/removed", who="owner"),
    "projects": Place("/projects", who="owner"),
    "new project": Place("/projects/new", who="owner"),
    "new project: with faults": Place("/projects/new", fill_in_nothing, who="owner"),
    "settings": Place("/p/shapes/settings", who="owner"),
    "people": Place("/p/shapes/people", make_one, who="owner"),
    "settings: of a viewer": Place("/p/shapes/settings", who="viewer"),
    "people: for a viewer": Place("/p/shapes/people", who="viewer"),
    "account": Place("/account", make_one, who="owner"),
}


@pytest.fixture(scope="module")
def names(shapes: Project, many: Project, records: Stores) -> dict[str, str]:
    """What stands for the names in the addresses; one picture was removed, and one setting changed."""
    with records.db.read() as tx:
        newest = tx.execute(
            sa.select(images.c.id).where(images.c.project_id == shapes.id, images.c.removed_at.is_(None))
        )
    removal.remove(records, shapes.id, newest.scalars().first(), "somebody@example.org", now())
    return {"many": many.id, "invitation": accounts.invite(records, shapes.id, "viewer", "somebody@example.org", now())}


@pytest.fixture(scope="module")
def pages(browser: Browser, installation: Installation, owner_state: Any, shapes: Project, records: Stores) -> Any:
    """A browser for each who looks, wide and on a phone: one for all their pages, as people use them."""
    email, password = f"{secrets.token_hex(4)}@example.org", secrets.token_hex(8)
    viewer = accounts.make(records, email, password, now())
    accounts.set_role(records, viewer, shapes.id, "viewer", now())
    found = {}
    for size, options in SIZES.items():
        for who in ("stranger", "owner", "viewer"):
            state = {"storage_state": owner_state} if who == "owner" else {}
            context = browser.new_context(base_url=installation.pages, **options, **state)
            context.set_default_timeout(OPENING)
            page = context.new_page()
            if who == "viewer":
                page.goto("/sign-in")
                sign_in(page, email, password)
            found[size, who] = page, watch(page, everything=True)
    yield found
    for page, _ in found.values():
        page.context.close()


@pytest.mark.parametrize("name", PLACES)
def test_a_page_is_for_everyone_in_light_and_dark(pages, names, size, name, files):
    place = PLACES[name]
    page, faults = pages[size, place.who]
    if place.who == "stranger":
        page.context.clear_cookies()  # another one each time
    page.emulate_media(color_scheme="light")
    assert page.goto(place.path.format_map(names)).status == place.status
    loaded = page.evaluate(BYTES)
    assert 0 < sum(count for _, count in loaded) < MAX_BYTES, loaded
    place.then(page, next(files))
    width, window = width_and_window(page)
    assert width <= window, "the page scrolls sideways"
    found = violations(page)
    page.emulate_media(color_scheme="dark")
    found += [f"in the dark: {one}" for one in violations(page, COLOURS)]
    # That an address answered with an error, as it was meant to, is no fault of the page.
    wrong = [fault for fault in faults if "the server responded with a status of 4" not in fault]
    faults.clear()
    assert not found, "\n".join(found)
    assert not wrong
