"""The upload page in a real browser, wide and on a phone: upload, flag, relabel, errors, keyboard."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.installation import Installation, live_release
from tests.browser.shapes import make

WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module", autouse=True)
def shapes(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> None:
    make(installation, tmp_path_factory.mktemp("shapes"))
    while live_release(installation, "shapes") is None:
        time.sleep(0.2)


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, installation: Installation) -> Iterator[Page]:
    context = browser.new_context(viewport=request.param, base_url=installation.pages)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    page.goto("/p/shapes/")
    yield page
    assert not faults
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    context.close()


@pytest.fixture
def file(tmp_path: Path, picture: Callable[..., bytes], request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "<b>picture.png"
    path.write_bytes(picture(abs(hash(request.node.name)) % 10_000))
    return path


def answer_of(page: Page, file: Path):
    page.set_input_files("#file", file)
    answer = page.locator("#answer .answer")
    expect(answer).to_be_visible(timeout=20_000)
    expect(answer.locator("p.label")).to_have_text(re.compile("round|square"), timeout=20_000)
    return answer


def test_a_picture_is_answered_and_shown(page, file):
    answer = answer_of(page, file)
    expect(page.locator("#preview")).to_be_visible()
    expect(answer.locator(".number").first).to_have_text(re.compile(r"\d+ %"))
    expect(answer).to_contain_text("Said by r0001")


def test_flagging_an_answer(page, file):
    answer = answer_of(page, file)
    flag = answer.get_by_title("Flag incorrect label")
    expect(flag).to_be_visible()
    beside, label = flag.bounding_box(), answer.locator(".label").bounding_box()
    assert beside["x"] > label["x"]
    assert abs(beside["y"] + beside["height"] / 2 - label["y"] - label["height"] / 2) < 20
    flag.click()
    expect(page.locator("#answer")).to_contain_text("Thank you for your feedback!")
    expect(page.get_by_title("Flag incorrect label")).to_have_count(0)
    expect(answer.get_by_label("You flagged this label")).to_be_focused()  # who works by keyboard stays where he was


def test_the_former_answer_is_gone_while_a_new_picture_is_looked_at(page, file):
    answer_of(page, file)
    held = []
    page.route("**/predict", lambda route: held.append(route))
    page.get_by_role("button", name="What is it?").click()
    expect(page.locator("#answer")).to_have_text("Looking at your picture …")
    expect(page.get_by_title("Flag incorrect label")).to_have_count(0)
    held[0].continue_()
    expect(page.locator("#answer .answer")).to_be_visible(timeout=20_000)


def test_saying_what_it_is_by_keyboard(page, file):
    answer_of(page, file)
    page.get_by_label("What is it really?").focus()
    page.keyboard.type("square")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_contain_text("You said: square")
    expect(page.get_by_role("button", name="Save")).to_be_focused()


def test_what_is_no_picture_is_said_plainly_and_the_next_works(page, file, tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("these are my notes")
    page.set_input_files("#file", text)
    expect(page.get_by_role("alert")).to_contain_text("not a JPEG, PNG or WebP")
    answer_of(page, file)


def test_nothing_jumps_while_the_answer_comes(page, file):
    page.evaluate(
        """() => { window.shift = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries())
        if (!entry.hadRecentInput) window.shift += entry.value }).observe({type: 'layout-shift', buffered: true}) }"""
    )
    answer_of(page, file)
    assert page.evaluate("window.shift") < 0.1


def test_it_works_without_javascript(browser, installation, file):
    context = browser.new_context(base_url=installation.pages, java_script_enabled=False)
    page = context.new_page()
    page.goto("/p/shapes/")
    page.set_input_files("#file", file)
    page.get_by_role("button", name="What is it?").click()
    expect(page.locator(".answer .label")).to_have_text(re.compile("round|square"))
    page.get_by_title("Flag incorrect label").click()
    expect(page.locator("main")).to_contain_text("Thank you for your feedback!")
    page.get_by_label("What is it really?").select_option("square")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("main")).to_contain_text("You said: square")
    context.close()


def test_a_page_that_is_not_there(page):
    page.goto("/p/no-such-project/")
    expect(page.get_by_role("alert")).to_contain_text("no project")
    page.goto("/nowhere")
    expect(page.get_by_role("alert")).to_contain_text("no page")
    page.goto("/p/shapes/")


def test_without_a_model_the_page_says_what_happens(browser, installation, file):
    context = browser.new_context(base_url=installation.pages)
    page = context.new_page()
    page.goto("/")
    expect(page.locator("h1")).to_have_text("What is on the plate?")
    page.set_input_files("#file", file)
    expect(page.locator("#answer .label")).to_have_text("No model yet", timeout=20_000)
    page.get_by_label("What is it really?").select_option("Soup")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#answer")).to_contain_text("You said: Soup")
    context.close()
