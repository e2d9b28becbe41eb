"""The pictures: filtered, sorted and paged, one with its history, taken away as CSV or zip, and removed."""

import csv
import datetime as dt
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Locator, Page, expect

from closedloop import history
from closedloop.project import Project
from closedloop.storage import Stores
from closedloop.storage.tables import catalogue, tasks
from tests.browser.looking import wide_alone
from tests.browser.shapes import LONG_AGO, SHAPES, now

A_PAGE = 48


@pytest.fixture
def rows(records: Stores, shapes: Project) -> list[Any]:
    """Every picture of the project, as the records know it, the newest first."""
    with records.db.read() as tx:
        ends = (catalogue.c.arrived_at.desc(), catalogue.c.image_id.desc())
        asked = sa.select(catalogue).where(catalogue.c.project_id == shapes.id).order_by(*ends)
        return list(tx.execute(asked).mappings())


@pytest.fixture
def listed(owner: Page, rows: list[Any]) -> Page:
    owner.goto(f"/p/{SHAPES.id}/images")
    return owner


def shown(page: Page) -> list[str]:
    """The pictures of a list, by its pages from this one on."""
    names: list[str] = []
    while True:
        here = page.locator(".tile").evaluate_all("(all) => all.map((one) => one.pathname.split('/').pop())")
        assert len(here) <= A_PAGE
        names += here
        following = page.get_by_role("link", name="Next")
        if not following.count():
            return names
        following.click()
        expect(page.get_by_role("link", name="Previous")).to_be_visible()


def ids(rows: list[Any]) -> list[str]:
    return [row["image_id"] for row in rows]


def today(back: dt.timedelta = dt.timedelta()) -> str:
    return (now() - back).date().isoformat()


# What a filter is called here -> field of the form, what is entered, and which pictures are then listed.
FILTERS: dict[str, tuple[str, str, Callable[[Any], bool]]] = {
    "model said": ("label", "round", lambda row: row["label"] == "round"),
    "people said": ("answer", "square", lambda row: row["answer"] == "square"),
    "flagged": ("flagged", "true", lambda row: row["flagged"]),
    "not flagged": ("flagged", "false", lambda row: not row["flagged"]),
    "answered": ("answered", "true", lambda row: row["answer"] is not None),
    "not answered": ("answered", "false", lambda row: row["answer"] is None),
    "disagree": ("disagrees", "true", lambda row: row["disagrees"]),
    "since": ("since", today(dt.timedelta(days=5)), lambda row: row["arrived_at"] > now() - LONG_AGO / 2),
    "until": ("until", today(dt.timedelta(days=5)), lambda row: row["arrived_at"] < now() - LONG_AGO / 2),
}


def choose(page: Page, field: str, value: str) -> Locator:
    """Enter a value in a field of the filter and send the form."""
    entry = page.locator(f"form.filter [name={field}]")
    if entry.evaluate("(one) => one.tagName") == "SELECT":
        entry.select_option(value)
    else:
        entry.fill(value)
    with page.expect_navigation():
        page.get_by_role("button", name="Show", exact=True).click()
    expect(entry).to_have_value(value)
    return entry


@wide_alone
def test_each_filter_lists_what_it_says_and_can_be_taken_off(listed, rows):
    middle = f"{100 * sorted(row['confidence'] for row in rows if row['confidence'] is not None)[5]:.4f}"
    by_confidence: dict[str, tuple[str, str, Callable[[Any], bool]]] = {
        "at least so sure": ("at_least", middle, lambda row: (row["confidence"] or 0) >= float(middle) / 100),
        "at most so sure": ("at_most", middle, lambda row: (row["confidence"] or 2) <= float(middle) / 100),
    }
    for name, (field, value, chosen) in {**FILTERS, **by_confidence}.items():
        choose(listed, field, value)
        wanted = ids([row for row in rows if chosen(row)])
        assert 0 < len(wanted) < len(rows), name
        assert shown(listed) == wanted, name
        listed.get_by_role("link", name="Show all").click()
        expect(listed.locator(".tile")).to_have_count(A_PAGE)


@wide_alone
def test_pictures_are_found_by_the_queue_they_were_asked_in(listed, records, rows):
    for queue in SHAPES.queues:
        with records.db.read() as tx:
            asked = sa.select(tasks.c.image_id).where(tasks.c.project_id == SHAPES.id, tasks.c.queue == queue)
            inside = set(tx.execute(asked).scalars())
        choose(listed, "queue", queue)
        assert shown(listed) == [one for one in ids(rows) if one in inside], queue


def test_several_filters_hold_together_and_what_nothing_matches_says_so(listed, rows):
    choose(listed, "label", "round")
    choose(listed, "flagged", "true")
    assert shown(listed) == ids([row for row in rows if row["label"] == "round" and row["flagged"]])
    choose(listed, "since", "2099-01-01")
    expect(listed.get_by_text("No picture matches.")).to_be_visible()


@wide_alone
def test_the_order_is_the_one_that_was_chosen(listed, rows):
    choose(listed, "order", "oldest")
    assert shown(listed) == ids(rows)[::-1]
    sure = {row["image_id"]: row["confidence"] for row in rows if row["confidence"] is not None}
    for order in ("least-sure", "surest"):
        choose(listed, "order", order)
        found = shown(listed)
        assert sorted(found) == sorted(sure)
        assert [sure[one] for one in found] == sorted(sure.values(), reverse=order == "surest")


def test_one_goes_to_the_next_page_and_back_also_by_keyboard(listed, rows):
    first = ids(rows)[:A_PAGE]
    tiles = listed.locator(".tile")
    assert shown(listed) == ids(rows)
    expect(listed.get_by_role("link", name="Next")).to_have_count(0)
    while listed.get_by_role("link", name="Previous").count():
        before = tiles.first.get_attribute("href")
        listed.keyboard.press("k")
        expect(tiles.first).not_to_have_attribute("href", before)
    assert tiles.evaluate_all("(all) => all.map((one) => one.pathname.split('/').pop())") == first
    listed.keyboard.press("j")
    expect(tiles.first).to_have_attribute("href", f"/p/{SHAPES.id}/images/{ids(rows)[A_PAGE]}")


def test_every_tile_shows_its_picture_and_what_was_said(listed, rows):
    seen = next(row for row in rows[:A_PAGE] if row["label"] and row["answer"])
    tile = listed.locator(f".tile[href$='{seen['image_id']}']")
    tile.scroll_into_view_if_needed()
    expect(tile).to_contain_text(f"{seen['label']} {100 * seen['confidence']:.0f} %")
    expect(tile).to_contain_text(f"People said: {seen['answer']}")
    assert tile.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0


def test_a_picture_s_page_tells_what_visitors_and_annotators_said(listed, records, rows):
    known = next(
        found
        for found in (history.of(records, SHAPES.id, row["image_id"]) for row in rows)
        if found.answer and any(task["queue"] == "user_feedback" and task["annotations"] for task in found.tasks)
    )
    listed.goto(f"/p/{SHAPES.id}/images/{known.picture['id']}")
    told = listed.locator("ol.told > li")
    expect(told).to_have_count(len(known.moments))
    expect(told.first).to_contain_text("Sent by a visitor.")
    said = known.predictions[0]
    for sentence in (
        f"{said['release']} said {said['label']}, with {100 * said['confidence']:.0f} %.",
        "The visitor flagged the answer.",
        "Annotators are asked, in the queue “Flagged”; probability of entering it 100.0 %.",
        f"Annotator {known.tasks[0]['annotations'][0]['annotator']} said {known.answer} (Flagged).",
    ):
        expect(told.filter(has_text=sentence)).to_have_count(1)
    expect(told.last).to_contain_text(f"In the dataset {known.datasets[0]['id']} as {known.answer}.")
    expect(listed.get_by_text(f"People say: {known.answer}")).to_be_visible()
    picture = listed.get_by_alt_text("The picture")
    assert picture.evaluate("(one) => one.decode().then(() => [one.naturalWidth, one.naturalHeight])") == [160, 160]
    listed.get_by_role("link", name="All pictures").click()
    expect(listed.get_by_role("heading", level=1)).to_have_text("Pictures")


def test_a_picture_s_page_tells_which_releases_learnt_from_it(listed, records, rows):
    known = history.of(records, SHAPES.id, rows[-1]["image_id"])
    listed.goto(f"/p/{SHAPES.id}/images/{known.picture['id']}")
    told = listed.locator("ol.told > li")
    expect(told.first).to_contain_text(f"Imported as {known.imported}.")
    learnt = [(one["id"], one["state"]) for of in known.datasets for one in of["releases"]]
    assert len(learnt) == 3
    for release, state in learnt:
        expect(told.filter(has_text=f"{release} {state}")).to_have_count(1)


@wide_alone
def test_the_list_can_be_had_as_csv_as_it_is_filtered(listed, rows):
    listed.goto(f"/p/{SHAPES.id}/images?answer=round&order=oldest")
    with listed.expect_download() as download:
        listed.get_by_role("link", name="Download this list (CSV)").click()
    assert download.value.suggested_filename == "shapes-images.csv"
    with open(download.value.path(), newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    wanted = [row for row in rows if row["answer"] == "round"][::-1]
    assert [row["image_id"] for row in read] == ids(wanted)
    for one, row in zip(read, wanted, strict=True):
        assert one["label"] == (row["label"] or "")
        assert one["answer"] == row["answer"]
        assert one["flagged"] == str(int(row["flagged"]))
        assert dt.datetime.fromisoformat(one["arrived_at"]) == row["arrived_at"]


@wide_alone
def test_the_pictures_with_answers_can_be_had_as_a_folder_per_class(listed, rows):
    with listed.expect_download() as download:
        listed.get_by_role("link", name="Download its pictures with answers").click()
    assert download.value.suggested_filename == "shapes-images.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        wanted = [f"{row['answer']}/{row['image_id']}.jpg" for row in rows if row["answer"]]
        assert sorted(archive.namelist()) == sorted(wanted)
        assert all(archive.read(name).startswith(b"\xff\xd8") for name in wanted)


def test_a_wrong_entry_of_the_filter_is_said_beside_its_field(listed):
    for field, value, said in (
        ("at_least", "140", "At most 100."),
        ("label", "oval", "There is no oval."),
        ("order", "nicest", "There is no nicest."),
    ):
        answer = listed.goto(f"/p/{SHAPES.id}/images?{field}={value}&since=2026-01-02")
        assert answer.status == 400
        expect(listed.get_by_role("alert")).to_have_text("The filter has entries to correct.")
        entry = listed.locator(f"form.filter [name={field}]")
        expect(entry).to_have_attribute("aria-invalid", "true")
        beside = listed.locator(f"[id='{entry.get_attribute('aria-describedby')}']")
        expect(beside).to_contain_text(said)
        expect(listed.locator("[name=since]")).to_have_value("2026-01-02")  # what was right is kept
        if field == "at_least":
            expect(entry).to_have_value(value)


def test_an_owner_removes_a_picture_and_it_is_listed_as_removed(listed, rows, installation):
    image_id = next(row["image_id"] for row in reversed(rows) if row["answer"])  # one that releases have learnt from
    addresses = [f"/p/{SHAPES.id}/images/{image_id}{of}" for of in ("", "/picture", "/thumbnail")]
    assert [listed.request.get(one).status for one in addresses] == [200] * 3
    listed.goto(addresses[0])
    learnt = listed.locator("ol.told").inner_text()
    remove = listed.get_by_role("button", name="Remove for good")
    expect(remove).to_be_hidden()
    listed.get_by_text("Remove this picture …").click()
    remove.click()
    expect(listed.get_by_role("heading", level=1)).to_have_text("Removed pictures")
    row = listed.get_by_role("row", name=image_id[:8])
    expect(row).to_contain_text(installation.secrets["CLOSEDLOOP_OWNER_EMAIL"])
    releases = row.locator("td").last.inner_text().split(", ")
    assert releases
    assert all(release in learnt for release in releases)
    assert [listed.request.get(one).status for one in addresses] == [404] * 3
    listed.goto(f"/p/{SHAPES.id}/images?order=oldest")
    assert image_id not in shown(listed)


def test_a_project_without_pictures_says_so(owner, add_project, size):
    project = add_project("empty")
    owner.goto(f"/p/{project.id}/images")
    expect(owner.get_by_text("No picture yet.")).to_be_visible()
    owner.get_by_role("link", name="Removed pictures").click()
    expect(owner.get_by_text("No picture was removed.")).to_be_visible()


@wide_alone
def test_a_stranger_sees_no_list_no_picture_and_no_export(page, rows):
    for address in ("", f"/{rows[0]['image_id']}", "?order=oldest"):
        page.goto(f"/p/{SHAPES.id}/images{address}")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    for address in (".csv", ".zip", f"/{rows[0]['image_id']}/picture", f"/{rows[0]['image_id']}/thumbnail"):
        assert page.request.get(f"/p/{SHAPES.id}/images{address}", max_redirects=0).status in (303, 401, 404)
