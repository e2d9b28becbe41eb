"""The upload page: pictures are sent in every way there is, answered, corrected, and taken back."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Locator, Page, expect

from closedloop.project import Project
from closedloop.storage import Stores
from closedloop.storage.tables import images, predictions
from tests.browser.looking import CARRIED, carried, choose_by_key, tab_to, wide_alone

pytestmark = pytest.mark.usefixtures("shapes")

SHAPE = re.compile("^(round|square)$")


@pytest.fixture
def page(page: Page) -> Page:
    page.goto("/p/shapes/")
    return page


def items(page: Page) -> Locator:
    return page.locator("#pictures > li.item")


def answered(item: Locator) -> Locator:
    expect(item.locator("p.label")).to_have_text(SHAPE)
    return item


def send(page: Page, file: Path) -> Locator:
    """Choose a picture and wait for its answer."""
    before = items(page).count()
    page.set_input_files("#file", file)
    expect(items(page)).to_have_count(before + 1)
    return answered(items(page).first)


# Ways to send


def test_a_chosen_picture_is_shown_with_its_answer(page, files):
    item = send(page, next(files))
    expect(item.get_by_alt_text("Your picture")).to_be_visible()
    assert item.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0
    expect(item.locator(".ranking .number").first).to_have_text(re.compile(r"^\d+ %$"))
    expect(item).to_contain_text(re.compile(r"Said by r\d{4}-[0-9a-f]{8}\."))
    expect(page.get_by_text("What you send appears here")).to_be_hidden()


def test_several_at_once_get_each_their_own_result(page, files, tmp_path):
    notes = tmp_path / "notes.png"
    notes.write_text("these are my notes")
    page.set_input_files("#file", [next(files), notes, next(files), next(files)])
    expect(items(page)).to_have_count(4)
    expect(page.locator("p.label")).to_have_text([SHAPE] * 3)
    expect(items(page).nth(2).get_by_role("alert")).to_contain_text("not a JPEG, PNG or WebP")
    expect(items(page).nth(2).get_by_role("button")).to_have_text(["Close"])  # trying that again would not help
    shown = page.locator("#pictures img").evaluate_all("(all) => all.map((one) => one.src)")
    assert len(set(shown)) == 3
    items(page).nth(2).get_by_role("button", name="Close").click()
    expect(items(page)).to_have_count(3)


def test_pictures_can_be_dropped_on_the_page(page, files):
    drop = page.locator(".drop")
    held = page.evaluate_handle(CARRIED, carried(files, 2))
    drop.dispatch_event("dragover", {"dataTransfer": held})
    expect(drop).to_have_class(re.compile("over"))
    drop.dispatch_event("drop", {"dataTransfer": held})
    expect(drop).not_to_have_class(re.compile("over"))
    expect(page.locator("p.label")).to_have_text([SHAPE] * 2)


@wide_alone
def test_a_picture_can_be_pasted(page, files):
    page.evaluate(
        "(files) => document.body.dispatchEvent(new ClipboardEvent('paste', {bubbles: true, clipboardData: "
        f"({CARRIED})(files)}}))",
        carried(files, 1),
    )
    expect(page.locator("p.label")).to_have_text([SHAPE])


@wide_alone
def test_what_is_dropped_or_pasted_and_is_no_file_changes_nothing(page):
    page.evaluate("window.text = new DataTransfer(); text.setData('text/plain', 'a cat')")
    page.locator(".drop").dispatch_event("drop", {"dataTransfer": page.evaluate_handle("text")})
    page.evaluate("document.body.dispatchEvent(new ClipboardEvent('paste', {bubbles: true, clipboardData: text}))")
    expect(items(page)).to_have_count(0)
    expect(page.get_by_text("What you send appears here")).to_be_visible(timeout=3_000)


def test_a_phone_can_take_a_photo_and_a_wide_screen_offers_none(page, size):
    expect(page.get_by_text("Take a photo")).to_be_visible(visible=size == "phone")


# While it travels


def test_progress_is_shown_while_a_picture_travels(page, size, tmp_path, noise):
    file = tmp_path / "large.png"
    file.write_bytes(noise(400))
    line = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 20, "downloadThroughput": -1, "uploadThroughput": 150_000}
    line.send("Network.emulateNetworkConditions", slow)
    page.set_input_files("#file", file)
    expect(page.get_by_text("Sending …")).to_be_visible()
    bar = page.get_by_role("progressbar", name="Sending")
    expect(bar).to_be_visible()
    page.wait_for_function(
        "() => { const bar = document.querySelector('progress'); return bar.value > 0 && bar.value < 1 }"
    )
    expect(items(page).locator("img")).to_be_visible()  # one sees what is being sent
    answered(items(page).first)
    expect(bar).to_have_count(0)


@wide_alone
def test_a_slow_line_carries_a_smaller_copy(open_page, records, tmp_path, noise):
    page = open_page("/p/shapes/")
    page.evaluate("Object.defineProperty(navigator, 'connection', {value: {saveData: true}})")
    file = tmp_path / "large.png"
    file.write_bytes(noise(1200, 1500))
    answered(send(page, file))
    with records.db.read() as tx:
        newest = sa.select(images.c.width, images.c.height).order_by(images.c.arrived_at.desc()).limit(1)
        assert tuple(tx.execute(newest).one()) == (1024, 1280)


def test_a_server_that_cannot_be_reached_is_said_and_tried_again(page, files):
    page.route("**/predict", lambda route: route.abort())
    page.set_input_files("#file", next(files))
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached. Your picture is still here.")
    expect(items(page).locator("img")).to_be_visible()
    page.unroute("**/predict")
    page.get_by_role("button", name="Try again").click()
    answered(items(page))


@wide_alone
def test_a_server_that_is_away_behind_its_proxy_is_tried_again(page, files):
    page.route("**/predict", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"))
    page.set_input_files("#file", next(files))
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached. Your picture is still here.")
    page.unroute("**/predict")
    page.get_by_role("button", name="Try again").click()
    answered(items(page))


@wide_alone
def test_a_picture_whose_answer_was_lost_on_the_way_is_taken_once(page, files, records):
    line = page.context.new_cdp_session(page)
    broken = {"errorReason": "ConnectionReset"}
    line.on(
        "Fetch.requestPaused", lambda held: line.send("Fetch.failRequest", {"requestId": held["requestId"], **broken})
    )
    line.send("Fetch.enable", {"patterns": [{"urlPattern": "*/predict", "requestStage": "Response"}]})
    before = count(records)
    page.set_input_files("#file", next(files))
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    assert count(records) == before + 1
    line.send("Fetch.disable")
    page.get_by_role("button", name="Try again").click()
    answered(items(page))
    assert count(records) == before + 1
    page.reload()
    expect(items(page)).to_have_count(1)


@wide_alone
def test_an_answer_that_comes_later_appears_by_itself(page, files, records):
    item = send(page, next(files))
    id_ = item.get_attribute("id").removeprefix("prediction-")
    set_status(records, id_, "pending")
    page.reload()
    expect(item).to_contain_text("Your picture is kept.")
    set_status(records, id_, "done")
    answered(item)


def test_nothing_jumps_while_a_picture_is_sent_and_answered(page, files):
    page.evaluate(
        """() => { window.shift = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries())
        if (!entry.hadRecentInput) window.shift += entry.value }).observe({type: 'layout-shift', buffered: true}) }"""
    )
    send(page, next(files))
    send(page, next(files))
    page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    assert page.evaluate("window.shift") < 0.1


# What people say


def test_the_flag_stands_beside_the_label_and_can_be_undone(page, files):
    item = send(page, next(files))
    flag, label = item.get_by_role("button", name="Flag incorrect label"), item.locator(".label")
    beside, at = flag.bounding_box(), label.bounding_box()
    assert beside["x"] > at["x"]
    assert abs(beside["y"] + beside["height"] / 2 - at["y"] - at["height"] / 2) < 20
    flag.click()
    expect(item).to_contain_text("Thank you for your feedback!")
    expect(item.get_by_label("You flagged this label")).to_be_visible()
    expect(flag).to_have_count(0)
    item.get_by_role("button", name="Undo the flag").click()
    expect(flag).to_be_visible()
    expect(item).not_to_contain_text("Thank you")


def test_saying_what_it_is_and_taking_it_back(page, files):
    item = send(page, next(files))
    said = item.get_by_text("You said: square.")
    item.get_by_label("What is it really?").select_option("square")
    item.get_by_role("button", name="Save").click()
    expect(said).to_be_visible()
    expect(item.get_by_label("What is it really?")).to_have_value("square")
    page.reload()
    expect(said).to_be_visible()
    item.get_by_role("button", name="Undo").click()
    expect(said).to_have_count(0)
    expect(item.get_by_label("What is it really?")).to_have_value("")


@wide_alone
def test_one_picture_s_feedback_is_no_other_s(page, files):
    first = send(page, next(files)).get_attribute("id")
    second = send(page, next(files)).get_attribute("id")
    page.locator(f"#{first}").get_by_role("button", name="Flag incorrect label").click()
    expect(page.locator(f"#{first}")).to_contain_text("Thank you")
    expect(page.locator(f"#{second}")).not_to_contain_text("Thank you")


def test_among_many_classes_one_types_and_a_fault_stands_beside_what_was_typed(open_page, many: Project, files):
    page = open_page(f"/p/{many.id}/")
    page.set_input_files("#file", next(files))
    item, field = items(page), page.get_by_label("What is it?")
    expect(item.locator("datalist option")).to_have_count(len(many.classes))
    assert field.evaluate("(field) => [...field.list.options].map((one) => one.value)") == list(many.classes)
    field.fill("banan")
    item.get_by_role("button", name="Save").click()
    expect(item.get_by_role("alert")).to_contain_text("is not a class")
    expect(field).to_have_value("banan")
    expect(field).to_have_attribute("aria-invalid", "true")
    described = field.get_attribute("aria-describedby")
    expect(page.locator(f"#{described}")).to_contain_text("banan")
    field.fill("banana")
    field.press("Enter")
    expect(item).to_contain_text("You said: banana.")
    expect(item.get_by_role("alert")).to_have_count(0)


def test_without_a_model_the_page_says_what_happens(open_page, many: Project, files):
    page = open_page(f"/p/{many.id}/")
    expect(page.locator(".lead")).to_contain_text("No model answers yet.")
    page.set_input_files("#file", next(files))
    expect(page.locator("p.label")).to_have_text("No model yet")
    expect(items(page)).to_contain_text("The first model learns from their answers.")
    expect(items(page).get_by_role("button", name="Flag incorrect label")).to_have_count(0)  # nothing was said


@wide_alone
def test_what_goes_wrong_is_said_and_the_picture_stays_as_it_is(page, files):
    item = send(page, next(files))
    flag, trouble = item.get_by_role("button", name="Flag incorrect label"), page.locator("#trouble")
    page.route("**/feedback", lambda route: route.abort())
    flag.click()
    expect(trouble.get_by_role("alert")).to_contain_text("cannot be reached, so nothing was changed")
    expect(flag).to_be_focused()
    page.unroute("**/feedback")
    flag.click()
    expect(item).to_contain_text("Thank you for your feedback!")
    expect(trouble).to_be_empty()
    remove_elsewhere(page)
    item.get_by_role("button", name="Undo the flag").click()
    expect(trouble.get_by_role("alert")).to_contain_text("its picture may have been removed")
    expect(item).to_contain_text("Thank you for your feedback!")


@wide_alone
def test_a_picture_that_waits_for_its_answer_and_is_removed_elsewhere_goes(page, files, records):
    id_ = send(page, next(files)).get_attribute("id").removeprefix("prediction-")
    set_status(records, id_, "pending")
    page.reload()
    expect(items(page)).to_contain_text("Your picture is kept.")
    remove_elsewhere(page)
    expect(items(page)).to_have_count(0)


# One's own pictures


@wide_alone
def test_what_i_sent_is_there_after_a_reload_and_nobody_else_sees_it(page, open_page, files):
    answer = send(page, next(files)).locator("p.label").inner_text()
    page.reload()
    expect(items(page)).to_have_count(1)
    expect(items(page).locator("p.label")).to_have_text(answer)
    shown = items(page).locator("img")
    assert shown.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0
    stranger = open_page("/p/shapes/")
    expect(stranger.get_by_text("What you send appears here")).to_be_visible()
    expect(items(stranger)).to_have_count(0)
    assert stranger.request.get(shown.get_attribute("src")).status == 404


def test_removing_a_picture_wants_a_word_and_then_leaves_nothing(page, files):
    send(page, next(files))
    item = send(page, next(files))
    addresses = [item.locator("a.shown").get_attribute("href"), item.locator("img").get_attribute("src")]
    id_ = item.get_attribute("id").removeprefix("prediction-")
    assert [page.request.get(one).status for one in addresses] == [200, 200]
    expect(item.get_by_role("button", name="Remove for good")).to_be_hidden()
    item.get_by_text("Remove", exact=True).click()
    item.get_by_role("button", name="Remove for good").click()
    expect(page.get_by_text("Removed, with everything that was derived from it.")).to_be_visible()
    expect(page.locator(f"#prediction-{id_}")).to_have_count(0)
    assert [page.request.get(one).status for one in [*addresses, f"/predictions/{id_}"]] == [404] * 3
    page.reload()
    expect(items(page)).to_have_count(1)


# Keys


@wide_alone
def test_the_question_mark_shows_the_keys(page, files):
    send(page, next(files))
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    expect(keys).to_be_visible()
    expect(keys.locator("kbd")).to_have_text(["?", "u", "f", "w"])
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    page.keyboard.press("f")
    expect(items(page)).to_contain_text("Thank you for your feedback!")
    page.keyboard.press("w")
    expect(page.get_by_label("What is it really?")).to_be_focused()
    page.keyboard.type("?")  # in a field it is a letter like others
    expect(keys).to_be_hidden()


@wide_alone
def test_who_wants_no_keys_turns_them_off_for_good(page, files):
    page.get_by_role("button", name="Keys").click()
    page.get_by_role("dialog", name="Keys").get_by_role("checkbox").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    send(page, next(files))
    for key in ("?", "f", "w"):
        page.keyboard.press(key)
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    expect(items(page)).not_to_contain_text("Thank you")
    expect(page.get_by_label("What is it really?")).not_to_be_focused()


@wide_alone
def test_the_keyboard_alone_is_enough(page, files):
    choose_by_key(page, "Choose pictures", next(files))
    item = answered(items(page))
    tab_to(page, "Flag incorrect label")
    page.keyboard.press("Enter")
    expect(item.get_by_label("You flagged this label")).to_be_focused()
    tab_to(page, "What is it really?")
    page.keyboard.type("square")
    tab_to(page, "Save")
    page.keyboard.press("Enter")
    expect(item).to_contain_text("You said: square.")
    expect(item.get_by_role("button", name="Save")).to_be_focused()
    tab_to(page, "Remove")
    page.keyboard.press("Enter")
    tab_to(page, "Remove for good")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Removed, with everything")).to_be_visible()


@wide_alone
def test_who_writes_keeps_the_focus_while_another_picture_is_answered(page, files):
    send(page, next(files)).get_by_label("What is it really?").focus()
    page.set_input_files("#file", next(files))
    expect(page.locator("p.label")).to_have_text([SHAPE] * 2)
    expect(items(page).nth(1).get_by_label("What is it really?")).to_be_focused()


@wide_alone
@pytest.mark.parametrize("button", ["Undo the flag", "Undo", "Remove for good"])
def test_the_focus_is_not_lost_with_a_button_that_goes(page, files, button):
    item = send(page, next(files))
    if button == "Undo the flag":
        item.get_by_role("button", name="Flag incorrect label").click()
    elif button == "Undo":
        item.get_by_label("What is it really?").select_option("round")
        item.get_by_role("button", name="Save").click()
    else:
        item.get_by_text("Remove", exact=True).click()
    pressed = item.get_by_role("button", name=button, exact=True)
    pressed.focus()
    page.keyboard.press("Enter")
    expect(pressed).to_have_count(0)
    expect(page.locator(":focus")).to_have_count(1, timeout=3_000)


@wide_alone
def test_a_button_works_from_the_moment_it_is_there(page, files):
    item = send(page, next(files))
    page.evaluate("""() => document.body.addEventListener("htmx:afterSwap", () => setTimeout(() =>
        [...document.querySelectorAll("button")].find((one) => one.textContent.trim() === "Undo").click()),
        {once: true})""")
    address = page.url
    item.get_by_label("What is it really?").select_option("round")
    item.get_by_role("button", name="Save").click()
    expect(item.get_by_role("button", name="Save")).to_be_visible()
    expect(item.get_by_text("You said")).to_have_count(0)
    assert page.url == address  # not sent as if there were no JavaScript


@wide_alone
def test_the_focus_is_not_lost_with_trying_again(page, files):
    page.route("**/predict", lambda route: route.abort())
    page.set_input_files("#file", next(files))
    again = page.get_by_role("button", name="Try again")
    again.focus()
    page.unroute("**/predict")
    page.keyboard.press("Enter")
    answered(items(page))
    expect(page.locator(":focus")).to_have_count(1, timeout=3_000)


# Without what one may not have


def test_it_works_without_javascript(open_page, files):
    page = open_page("/p/shapes/", java_script_enabled=False)
    page.set_input_files("#file", next(files))
    page.get_by_role("button", name="What is it?").click()
    answered(items(page))
    page.get_by_role("button", name="Flag incorrect label").click()
    expect(page.locator("main")).to_contain_text("Thank you for your feedback!")
    page.get_by_role("button", name="Undo the flag").click()
    expect(page.get_by_role("button", name="Flag incorrect label")).to_be_visible()
    page.get_by_label("What is it really?").select_option("square")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("main")).to_contain_text("You said: square.")
    page.get_by_text("Remove", exact=True).click()
    page.get_by_role("button", name="Remove for good").click()
    expect(page.get_by_text("What you send appears here")).to_be_visible()


@wide_alone
def test_without_javascript_several_pictures_may_be_sent_too(open_page, files):
    page = open_page("/p/shapes/", java_script_enabled=False)
    page.set_input_files("#file", [next(files), next(files), next(files)])
    page.get_by_role("button", name="What is it?").click()
    expect(page.locator("p.label")).to_have_text([SHAPE] * 3)


@wide_alone
def test_without_javascript_each_file_that_is_no_picture_is_named(open_page, files, tmp_path):
    notes = tmp_path / "notes.png"
    notes.write_text("these are my notes")
    page = open_page("/p/shapes/", java_script_enabled=False)
    page.set_input_files("#file", [next(files), notes, next(files)])
    page.get_by_role("button", name="What is it?").click()
    expect(page.get_by_role("alert")).to_have_text(re.compile("^notes.png: .*not a JPEG, PNG or WebP"))
    expect(page.locator("p.label")).to_have_text([SHAPE] * 2)  # the others were taken


@wide_alone
def test_without_javascript_a_fault_stands_beside_what_was_typed(open_page, many: Project, files):
    page = open_page(f"/p/{many.id}/", java_script_enabled=False)
    page.set_input_files("#file", next(files))
    page.get_by_role("button", name="What is it?").click()
    page.get_by_label("What is it?").fill("banan")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("is not a class")
    expect(page.get_by_label("What is it?")).to_have_value("banan")


@wide_alone
@pytest.mark.parametrize(("path", "said"), [("/p/no-such-project/", "no project"), ("/nowhere", "no page")])
def test_a_page_that_is_not_there_says_so_and_leads_back(page, path, said):
    page.goto(path)
    expect(page.get_by_role("alert")).to_contain_text(said)
    page.get_by_role("link", name="Back").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What is on the plate?")


def remove_elsewhere(page: Page) -> None:
    """Remove one's newest picture in another window of the same browser."""
    other = page.context.new_page()
    other.goto("/p/shapes/")
    items(other).first.get_by_text("Remove", exact=True).click()
    items(other).first.get_by_role("button", name="Remove for good").click()
    expect(other.get_by_text("Removed, with everything")).to_be_visible()
    other.close()


def count(records: Stores) -> int:
    with records.db.read() as tx:
        return tx.scalar(sa.select(sa.func.count()).select_from(predictions))


def set_status(records: Stores, id_: str, status: str) -> None:
    with records.db.write() as tx:
        tx.execute(predictions.update().where(predictions.c.id == id_).values(status=status))
