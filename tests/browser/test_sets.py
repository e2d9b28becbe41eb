"""The page of a selection: a set is chosen in every way there is, sent, answered, and taken back."""

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from closedloop import project as projects
from closedloop import sets, survey
from closedloop.storage import tables
from closedloop.storage.tables import suggestions
from tests import choosing
from tests.browser.looking import (
    CARRIED,
    carried,
    choose_by_key,
    sign_in,
    tab_to,
    violations,
    wide_alone,
    width_and_window,
)
from tests.choosing import Site

HOSTILE = ("<img src=x onerror=alert(1)>", "\"'><script>alert(1)</script>", "{{ 7 * 7 }} {0} %s", "‮ txt.exe", "&amp;")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with choosing.site(tmp_path_factory.mktemp("sets")) as running:
        yield running


@pytest.fixture
def installation(site: Site) -> Site:
    """What the pages are opened of, in place of the whole stack: no release need be trained to see one chosen."""
    chooser = site.inference
    chooser.away, chooser.ranks, chooser.crops, chooser.seconds = False, True, True, 0.0
    return site


@pytest.fixture
def page(page: Page) -> Page:
    page.goto("/p/covers/")
    return page


def chosen(page: Page) -> Locator:
    return page.locator("#chosen > li")


def items(page: Page) -> Locator:
    return page.locator("#sets > li.item")


def choose(page: Page, files: Iterator[Path], count: int) -> list[Path]:
    taken = [next(files) for _ in range(count)]
    before = chosen(page).count()
    page.set_input_files("#file", taken)
    expect(chosen(page)).to_have_count(before + count)
    return taken


def send(page: Page, files: Iterator[Path], count: int = 3) -> Locator:
    """Choose and send a set, and wait for what is said about it."""
    choose(page, files, count)
    page.get_by_role("button", name="Which is best?").click()
    item = items(page).first
    expect(item.get_by_text(re.compile(r"^Picture \d+ is the best\.$"))).to_be_visible()
    return item


# Choosing


def test_chosen_pictures_are_shown_before_anything_is_sent(page, files):
    choose(page, files, 2)
    choose(page, files, 1)
    expect(page.get_by_role("status")).to_have_text("Chosen: 3 of at most 12. Ready to send.")
    assert all(chosen(page).locator("img").evaluate_all("(all) => all.map((one) => one.naturalWidth > 0)"))
    expect(items(page)).to_have_count(0)
    page.get_by_role("button", name="Remove all").click()
    expect(chosen(page)).to_have_count(0)
    expect(page.get_by_role("status")).to_have_text("No picture is chosen yet.")


def test_pictures_are_dropped_and_pasted(page, files):
    place = page.locator(".drop")
    held = page.evaluate_handle(CARRIED, carried(files, 2))
    place.dispatch_event("dragover", {"dataTransfer": held})
    expect(place).to_have_class(re.compile("over"))
    place.dispatch_event("drop", {"dataTransfer": held})
    expect(place).not_to_have_class(re.compile("over"))
    expect(chosen(page)).to_have_count(2)
    page.evaluate(
        "(files) => document.body.dispatchEvent(new ClipboardEvent('paste', {bubbles: true, clipboardData: "
        f"({CARRIED})(files)}}))",
        carried(files, 1),
    )
    expect(chosen(page)).to_have_count(3)


def test_what_is_wrong_is_said_before_sending_and_beside_its_picture(page, files, tmp_path):
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url) if request.method == "POST" else None)
    go, status = page.get_by_role("button", name="Which is best?"), page.get_by_role("status")
    go.click()
    expect(status).to_be_focused()
    (first,) = choose(page, files, 1)
    expect(status).to_have_text("Chosen: 1. A set has 2 pictures or more.")
    notes, large = tmp_path / "notes.png", tmp_path / "large.png"
    notes.write_text("these are my notes")
    large.write_bytes(first.read_bytes() + bytes(10 * 2**20))
    page.set_input_files("#file", [notes, first, large])
    expect(status).to_have_text("Chosen: 4. To remove, as it says below the picture: 2, 3, 4.")
    for number, said in enumerate(("Not a picture that can be read.", "The same as picture 1.", "Larger than 10 MB.")):
        expect(chosen(page).nth(number + 1)).to_contain_text(said)
    go.click()
    expect(status).to_be_focused()
    for _ in range(3):
        chosen(page).nth(1).get_by_role("button").click()
    choose(page, files, 12)
    expect(status).to_have_text("Chosen: 13. A set has 12 pictures at most. To remove: 1.")
    go.click()
    assert requests == []


def test_one_picture_is_removed_and_the_others_keep_their_order(page, files):
    choose(page, files, 3)
    left = chosen(page).locator("img").evaluate_all("(all) => [all[0].src, all[2].src]")
    chosen(page).nth(1).get_by_role("button", name=re.compile("^Remove picture 2: picture ")).click()
    expect(chosen(page)).to_have_count(2)
    assert chosen(page).locator("img").evaluate_all("(all) => all.map((one) => one.src)") == left
    expect(chosen(page).nth(1)).to_contain_text("Picture 2")
    expect(chosen(page).nth(1).get_by_role("button")).to_be_focused()


# What comes back


def test_the_best_is_marked_and_the_crop_lies_over_the_picture(page, files):
    item = send(page, files, 4)
    expect(item.locator(".member")).to_have_count(4)
    expect(item.locator(".member.best")).to_have_count(1)
    expect(item.locator(".member.best")).to_contain_text("Best")
    expect(item.get_by_text("71 % sure that a person chooses it.")).to_be_visible()
    expect(item.get_by_text(re.compile("expected overlap with what a person keeps: 64 %"))).to_be_visible()
    expect(chosen(page)).to_have_count(0)
    stage = item.locator(".stage img")
    assert stage.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0
    shown = stage.bounding_box()
    scale = min(shown["width"] / 64, shown["height"] / 48)  # the picture of 64 x 48 px, fitted in
    left = shown["x"] + (shown["width"] - 64 * scale) / 2
    upper = shown["y"] + (shown["height"] - 48 * scale) / 2
    drawn = item.locator(".stage .edge").last.evaluate(
        """(path) => { const box = path.getBBox(), to = path.getScreenCTM();
        return [box.x * to.a + to.e, box.y * to.d + to.f, box.width * to.a, box.height * to.d] }"""
    )
    expected = (left + 0.2 * 64 * scale, upper + 0.1 * 48 * scale, 0.55 * 64 * scale, 0.8 * 48 * scale)
    assert drawn == pytest.approx(expected, abs=1)


def test_a_set_that_waits_is_answered_by_itself(page, site, files):
    site.inference.away = True
    choose(page, files, 2)
    page.get_by_role("button", name="Which is best?").click()
    expect(items(page).first).to_contain_text("Your set is kept.")
    id_ = items(page).first.get_attribute("id").removeprefix("set-")
    site.inference.away = False
    sets.suggest(site.stores, site.inference, id_, choosing.START)
    expect(items(page).first.get_by_text("is the best.")).to_be_visible()


@wide_alone
def test_without_a_model_a_plain_sentence_says_so(open_page, site, files):
    site.inference.ranks = False
    page = open_page("/p/covers/")
    expect(page.locator(".lead")).to_contain_text("No model chooses yet.")
    choose(page, files, 2)
    page.get_by_role("button", name="Which is best?").click()
    expect(items(page)).to_contain_text("No model yet")


@wide_alone
def test_without_a_crop_proposer_the_best_is_shown_alone(page, site, files):
    site.inference.crops = False
    item = send(page, files)
    expect(item).to_contain_text("No model proposes a crop yet.")
    expect(item.locator(".stage svg")).to_have_count(0)


def test_a_server_that_cannot_be_reached_is_said_and_tried_again(page, files):
    page.route("**/sets", lambda route: route.abort())
    choose(page, files, 2)
    page.get_by_role("button", name="Which is best?").click()
    expect(items(page).get_by_role("alert")).to_have_text("The server cannot be reached. Your pictures are still here.")
    page.unroute("**/sets")
    page.get_by_role("button", name="Try again").click()
    expect(items(page).get_by_text("is the best.")).to_be_visible()
    expect(items(page)).to_have_count(1)


def test_what_the_server_refuses_is_marked_and_can_be_changed(page, files):
    """A file that a browser shows and the server does not take."""
    choose(page, files, 1)
    moving = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    moving += b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
    page.set_input_files("#file", {"name": "moving.gif", "mimeType": "image/gif", "buffer": moving})
    choose(page, files, 1)
    page.get_by_role("button", name="Which is best?").click()
    expect(items(page).get_by_role("alert")).to_contain_text("Picture 2: This file is not a JPEG, PNG or WebP")
    expect(items(page).locator(".member").nth(1)).to_have_class(re.compile("faulty"))
    page.get_by_role("button", name="Change the pictures").click()
    expect(chosen(page)).to_have_count(3)
    expect(page.get_by_role("status")).to_contain_text("To remove, as it says below the picture: 2.")
    bad = chosen(page).nth(1)
    expect(bad.get_by_role("button")).to_be_focused()
    bad.get_by_role("button").click()
    page.get_by_role("button", name="Which is best?").click()
    expect(items(page).get_by_text("is the best.")).to_be_visible()


@wide_alone
def test_the_same_set_again_is_shown_once(page, files):
    taken = choose(page, files, 2)
    page.get_by_role("button", name="Which is best?").click()
    expect(items(page).get_by_text("is the best.")).to_be_visible()
    page.set_input_files("#file", taken[::-1])
    expect(chosen(page)).to_have_count(2)
    page.get_by_role("button", name="Which is best?").click()
    expect(items(page).get_by_text("is the best.")).to_be_visible()
    expect(items(page)).to_have_count(1)


def test_what_i_sent_is_there_after_a_reload_and_nobody_else_sees_it(page, open_page, files):
    send(page, files)
    page.reload()
    expect(items(page)).to_have_count(1)
    stranger = open_page("/p/covers/")
    expect(stranger.get_by_text("What you send appears here")).to_be_visible()
    expect(items(stranger)).to_have_count(0)


def test_taking_back_wants_a_word_and_leaves_nothing(page, files):
    send(page, files)
    item = send(page, files)
    address = item.locator(".member a").first.get_attribute("href")
    id_ = item.get_attribute("id").removeprefix("set-")
    assert page.request.get(address).status == 200
    expect(item.get_by_role("button", name="Remove for good")).to_be_hidden()
    item.get_by_text("Remove", exact=True).click()
    item.get_by_role("button", name="Remove for good").click()
    expect(page.get_by_text("Removed, with everything that was derived from it.")).to_be_visible()
    assert [page.request.get(one).status for one in (address, f"/sets/{id_}")] == [404, 404]
    page.reload()
    expect(items(page)).to_have_count(1)


# How it behaves


@pytest.mark.parametrize("count", [2, 5])
def test_nothing_jumps_while_a_set_is_sent_and_answered(page, site, files, count):
    send(page, files, count)
    site.inference.seconds = 1.5  # what moves at a press of a button is no jump, what moves later is
    page.evaluate(
        """() => { window.shift = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries())
        if (!entry.hadRecentInput) window.shift += entry.value }).observe({type: 'layout-shift', buffered: false}) }"""
    )
    send(page, files, count)
    page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    assert page.evaluate("window.shift") < 0.1


@wide_alone
def test_the_keyboard_alone_is_enough(page, files):
    choose_by_key(page, "Choose the pictures", *(next(files) for _ in range(3)))
    expect(chosen(page)).to_have_count(3)
    tab_to(page, "Remove picture 1")
    page.keyboard.press("Enter")
    expect(chosen(page)).to_have_count(2)
    tab_to(page, "Which is best?")
    page.keyboard.press("Enter")
    item = items(page)
    expect(item.get_by_text("is the best.")).to_be_visible()
    expect(item).to_be_focused()
    tab_to(page, "Remove")
    page.keyboard.press("Enter")
    tab_to(page, "Remove for good")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Removed, with everything")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys").locator("kbd")).to_have_text(["?", "u", "s"])


def test_it_works_without_javascript(open_page, files):
    page = open_page("/p/covers/", java_script_enabled=False)
    expect(page.locator("#file")).to_be_visible()
    page.set_input_files("#file", [next(files) for _ in range(3)])
    page.get_by_role("button", name="Which is best?").click()
    expect(page.locator("main")).to_contain_text("is the best.")
    page.get_by_text("Remove", exact=True).click()
    page.get_by_role("button", name="Remove for good").click()
    expect(page.get_by_text("What you send appears here")).to_be_visible()
    page.set_input_files("#file", next(files))
    page.get_by_role("button", name="Which is best?").click()
    expect(page.get_by_role("alert")).to_have_text("A set has 2 to 12 pictures; this one has 1.")


def test_axe_finds_nothing_in_any_state(page, site, files, tmp_path):
    notes = tmp_path / "notes.png"
    notes.write_text("these are my notes")
    assert violations(page) == []
    choose(page, files, 3)
    page.set_input_files("#file", notes)
    expect(page.get_by_role("status")).to_contain_text("To remove")
    assert violations(page) == []
    page.get_by_role("button", name="Remove all").click()
    send(page, files)
    site.inference.away = True
    choose(page, files, 2)
    page.get_by_role("button", name="Which is best?").click()
    expect(items(page).first).to_contain_text("Your set is kept.")
    page.route("**/sets", lambda route: route.abort())
    choose(page, files, 2)
    page.get_by_role("button", name="Which is best?").click()
    expect(items(page).first.get_by_role("alert")).to_be_visible()
    page.locator("details").evaluate_all("(all) => all.forEach((one) => one.open = true)")
    assert violations(page) == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_on_the_pages_of_members(open_page, site, files, colours):
    page = open_page("/sign-in", color_scheme=colours)
    sign_in(page, choosing.OWNER, choosing.OWNER_PASSWORD)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    page.goto("/p/covers/")
    image_id = send(page, files).locator(".member.best a").get_attribute("href").split("/")[4]
    survey.take(site.stores, projects.get(site.stores, "covers"), dt.datetime.now(dt.UTC))
    for path in ("", "dashboard", "images", f"images/{image_id}", "settings"):
        page.goto(f"/p/covers/{path}")
        page.locator("details").evaluate_all("(all) => all.forEach((one) => one.open = true)")
        assert violations(page) == [], path
        width, window = width_and_window(page)
        assert width <= window, path
    page.goto("/projects/new?kind=selection")
    page.get_by_role("button", name="Make the project").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page) == []


@wide_alone
def test_names_and_titles_are_text(page, site, files):
    heard: list[Any] = []
    page.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    before = projects.get(site.stores, "covers")
    projects.add(site.stores, before.model_copy(update={"title": HOSTILE[0] + HOSTILE[2]}), choosing.START)
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE[0] + HOSTILE[2])
    pictures = [next(files).read_bytes() for _ in HOSTILE]
    page.set_input_files(
        "#file",
        [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in zip(HOSTILE, pictures, strict=True)],
    )
    expect(chosen(page)).to_have_count(len(HOSTILE))
    expect(page.get_by_role("status")).to_contain_text("Ready to send")
    names = chosen(page).locator("button").evaluate_all("(all) => all.map((one) => one.ariaLabel)")
    assert names[0] == f"Remove picture 1: {HOSTILE[0]}"
    page.get_by_role("button", name="Which is best?").click()
    expect(items(page).get_by_text("is the best.")).to_be_visible()
    id_ = items(page).get_attribute("id").removeprefix("set-")
    with site.stores.db.write() as tx:
        tx.execute(suggestions.update().where(suggestions.c.set_id == id_).values(release=HOSTILE[1]))
        tx.execute(tables.proposals.update().values(release=HOSTILE[2]))
    page.reload()
    expect(items(page).locator(".foot")).to_contain_text(f"Chosen by {HOSTILE[1]}. Crop by {HOSTILE[2]}.")
    assert page.locator("img[onerror]").count() == 0
    assert heard == []
    projects.add(site.stores, before, choosing.START)
