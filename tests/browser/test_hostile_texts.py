"""Hostile texts: wherever people may write, 40 attempts to run a script or make an element appear as the text they are."""

import re
import zipfile
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from playwright.sync_api import Locator, Page, expect

from closedloop import accounts, catalogue, feedback, survey
from closedloop import project as projects
from closedloop.project import Project
from closedloop.storage import Stores
from closedloop.storage.tables import predictions, tasks
from demo.installation import Installation
from demo.people import Visitor
from tests.browser.shapes import annotate, now, pictures

HOSTILE = """
<script>window.__xss=1</script>
"><script>window.__xss=1</script>
'><script>window.__xss=1</script>
</title><script>window.__xss=1</script>
</textarea><script>window.__xss=1</script>
</option></select><script>window.__xss=1</script>
</style><script>window.__xss=1</script>
</script><script>window.__xss=1</script>
<scr<script>ipt>window.__xss=1</script>
<SCRIPT SRC=//example.org/x.js></SCRIPT>
<img src=x onerror=window.__xss=1>
"><img src=x onerror=window.__xss=1>
'"><img src=x onerror=alert(1)>
<img src=x onerror=alert`1`>
<svg onload=window.__xss=1>
<svg><script>window.__xss=1</script></svg>
<svg><animate onbegin=window.__xss=1 attributeName=x dur=1s>
<math><mtext><img src=x onerror=window.__xss=1></mtext></math>
<body onload=window.__xss=1>
<iframe srcdoc="<script>parent.__xss=1</script>"></iframe>
<iframe src=javascript:parent.__xss=1></iframe>
<object data=javascript:window.__xss=1></object>
<embed src=javascript:window.__xss=1>
<a href=javascript:window.__xss=1>click</a>
<form action=javascript:window.__xss=1><button>
<input autofocus onfocus=window.__xss=1>
" autofocus onfocus=window.__xss=1 x="
' autofocus onfocus=window.__xss=1 x='
x onmouseover=window.__xss=1
<details open ontoggle=window.__xss=1>
<video><source onerror=window.__xss=1></video>
<marquee onstart=window.__xss=1>x</marquee>
<style>@import 'javascript:window.__xss=1';</style>
<base href=//example.org/>
<meta http-equiv=refresh content=0;url=//example.org>
<b hx-get=/account hx-trigger=load>x</b>
<!--<img src=--><img src=x onerror=window.__xss=1//>
{{ 7 * 7 }}{% raw %}<script>window.__xss=1</script>
${alert(1)}`<b>x</b>`<code>x</code>
&lt;script&gt;window.__xss=1&lt;/script&gt;&#60;img src=x&#62;
""".strip().splitlines()

# What the pages never make themselves.
MADE = """() => [...document.querySelectorAll("*")].filter((one) =>
  one.matches(`iframe, object, embed, marquee, video, math, base, style, animate, meta[http-equiv], b, [srcdoc],
    script:not([src^="/static/"]), [hx-trigger*="load"]:not([hx-get*="/predictions/"], [hx-get$="/dashboard"]),
    [href^="javascript:"], [action^="javascript:"], [src^="javascript:"], [src="x"]`)
  || [...one.attributes].some((attribute) => /^on/i.test(attribute.name))).map((one) => one.outerHTML.slice(0, 200))"""


@pytest.fixture
def size() -> str:
    return "wide"


@pytest.fixture
def safe(owner: Page) -> Iterator[Page]:
    """The owner's page, on which no dialog may open and no script of a text may run."""
    dialogs: list[str] = []
    owner.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    yield owner
    nothing_happened(owner)
    assert not dialogs


@pytest.fixture(scope="module")
def hostile(add_project: Callable[..., Project], installation: Installation, records: Stores) -> Project:
    """A project whose classes are all hostile; of each class a picture that visitor, model and annotator call so."""
    project = add_project("hostile", tuple(HOSTILE), title=HOSTILE[0])
    visitor = Visitor(installation.pages, project.id, seed=0)
    for number, ((picture, _), text) in enumerate(zip(pictures(seed=3), HOSTILE, strict=False)):
        shown = visitor.send(picture, text)
        feedback.relabel(records, shown.prediction_id, text, now())
        answer = {"label": text, "confidence": 0.6, "release": text, "status": "done", "answered_at": now()}
        with records.db.write() as tx:
            tx.execute(predictions.update().where(predictions.c.id == shown.prediction_id).values(**answer))
            annotate(tx, project, "user_label", task_of(tx, shown.image_id), number_of(project, number), text)
            catalogue.refresh(tx, project.id, shown.image_id)
    survey.take(records, project, now())
    return project


def task_of(tx: sa.Connection, image_id: str) -> str:
    return tx.scalar(sa.select(tasks.c.id).where(tasks.c.image_id == image_id, tasks.c.queue == "user_label"))


def number_of(project: Project, number: int) -> int:
    """A number that no annotation of Label Studio has."""
    return int(project.id.rpartition("-")[2], 16) * 1000 + 10**9 + number


def nothing_happened(page: Page) -> None:
    assert page.evaluate("window.__xss") is None
    assert page.evaluate(MADE) == []


def go(page: Page, path: str) -> None:
    """Go to a page on which nothing may have come of the texts that it shows."""
    page.goto(path)
    nothing_happened(page)


def texts(found: Locator) -> list[str]:
    return found.evaluate_all("(all) => all.map((one) => one.textContent.trim())")


def test_there_are_forty_different_ones():
    assert len(set(HOSTILE)) == len(HOSTILE) == 40
    assert all(text == text.strip() and len(text) <= 100 for text in HOSTILE)


def test_a_file_may_be_called_anything(safe, shapes, picture):
    go(safe, f"/p/{shapes.id}/")
    sent = [{"name": text, "mimeType": "image/png", "buffer": picture(number)} for number, text in enumerate(HOSTILE)]
    for one in sent[10:]:
        one["buffer"] = b"no picture"
    safe.set_input_files("#file", sent)
    expect(safe.locator("#pictures .error")).to_have_count(30)
    expect(safe.locator("#pictures p.label")).to_have_count(10)
    told = "\n".join(texts(safe.locator("#pictures .error")))
    assert [one["name"] for one in sent[10:] if one["name"] not in told] == []
    nothing_happened(safe)
    go(safe, f"/p/{shapes.id}/")


def test_a_label_that_is_no_class_is_said_back_as_text(safe, many, files):
    go(safe, f"/p/{many.id}/")
    safe.set_input_files("#file", next(files))
    item = safe.locator("#pictures > li")
    for text in HOSTILE:
        safe.get_by_label("What is it?").fill(text)
        safe.get_by_label("What is it?").press("Enter")
        expect(item.get_by_role("alert")).to_contain_text(text)
        expect(safe.get_by_label("What is it?")).to_have_value(text)
        nothing_happened(safe)


def test_an_option_that_was_edited_is_said_back_as_text(safe, shapes, files):
    go(safe, f"/p/{shapes.id}/")
    safe.set_input_files("#file", next(files))
    item = safe.locator("#pictures > li").first
    expect(item.get_by_label("What is it really?")).to_be_visible()
    for text in HOSTILE[::8]:
        item.locator("option").last.evaluate("(one, text) => one.value = text", text)
        item.get_by_label("What is it really?").select_option(text)
        item.get_by_role("button", name="Save").click()
        expect(item.get_by_role("alert")).to_contain_text(text)
        nothing_happened(safe)


def test_classes_and_titles_are_text_where_they_are_typed_and_where_they_are_shown(safe, hostile, records):
    go(safe, "/projects/new")
    safe.get_by_label("Id", exact=True).fill(HOSTILE[1])
    safe.get_by_label("Title", exact=True).fill(HOSTILE[2])
    safe.get_by_label("Classes", exact=True).fill("\n".join(HOSTILE))
    safe.get_by_text("Schedules and prompts").click()
    safe.get_by_label("When the trainer looks").fill(HOSTILE[3])
    safe.get_by_label("Prompts", exact=True).fill(HOSTILE[4])
    safe.get_by_role("button", name="Make the project").click()
    expect(safe.get_by_role("alert")).to_be_visible()
    nothing_happened(safe)
    for label, typed in (("Id", HOSTILE[1]), ("Title", HOSTILE[2]), ("Classes", "\n".join(HOSTILE))):
        expect(safe.get_by_label(label, exact=True)).to_have_value(typed)
    go(safe, f"/p/{hostile.id}/settings")
    expect(safe.get_by_label("Classes", exact=True)).to_have_value("\n".join(HOSTILE))
    for title in titles():
        safe.get_by_label("Title", exact=True).fill(title)
        safe.get_by_role("button", name="Save").click()
        expect(safe.get_by_role("heading", level=1)).to_have_text(title)
        nothing_happened(safe)
        for path in (f"/p/{hostile.id}/", "/projects", f"/p/{hostile.id}/settings"):
            go(safe, path)
            assert title in texts(safe.locator("main h1, main h2"))
    kept = safe.locator("ol.told").inner_text()
    assert all(title in kept.replace("''", "'") for title in titles())  # as YAML writes them
    assert projects.get(records, hostile.id).title == titles()[-1]
    for path in ("dashboard", "images", "people", "removed"):
        go(safe, f"/p/{hostile.id}/{path}")
        assert titles()[-1] in safe.title()


def titles() -> list[str]:
    """All texts, as many in a title as there is room for."""
    made = [""]
    for text in HOSTILE:
        if len(made[-1]) + len(text) > 198:
            made.append("")
        made[-1] = f"{made[-1]} {text}".strip()
    return made


def test_classes_are_text_in_lists_tables_and_charts(safe, hostile):
    go(safe, f"/p/{hostile.id}/images")
    assert texts(safe.locator("[name=label] option"))[1:] == HOSTILE
    assert texts(safe.locator("[name=answer] option"))[1:] == HOSTILE
    said = "\n".join(texts(safe.locator(".tile")))
    for text in HOSTILE:
        assert f"{text} 60 %" in said
        assert f"People said: {text}" in said
    safe.locator("[name=label]").select_option(HOSTILE[10])
    safe.get_by_role("button", name="Show", exact=True).click()
    expect(safe.locator(".tile")).to_have_count(1)
    nothing_happened(safe)
    go(safe, f"/p/{hostile.id}/dashboard")
    for name in ("classes", "days"):
        chart = safe.locator(f"[data-chart={name}]")
        chart.scroll_into_view_if_needed()
        expect(chart.locator("svg").or_(chart.locator("xpath=self::*[@hidden]"))).to_have_count(1)
    nothing_happened(safe)
    rows = safe.get_by_role("table", name="Class by class")
    safe.locator("details").evaluate_all("(all) => all.forEach((one) => one.open = true)")
    assert sorted(texts(rows.locator("tbody th"))) == sorted(HOSTILE)


def test_whatever_was_said_of_a_picture_is_text_in_its_history(safe, hostile, records, installation):
    visitor = Visitor(installation.pages, hostile.id, seed=0)
    picture, _ = next(pictures(seed=12))
    for number, text in enumerate(HOSTILE):
        shown = visitor.send(picture, "")
        feedback.relabel(records, shown.prediction_id, text, now())
        answer = {"label": text, "confidence": 0.6, "release": text, "status": "done", "answered_at": now()}
        with records.db.write() as tx:
            tx.execute(predictions.update().where(predictions.c.id == shown.prediction_id).values(**answer))
            task = task_of(tx, shown.image_id)
            annotate(tx, hostile, "user_label", task, number_of(hostile, 100 + number), text, annotator=number)
            annotate(tx, hostile, "user_label", task, number_of(hostile, 200 + number), f"no {text}", annotator=99)
    go(safe, f"/p/{hostile.id}/images/{shown.image_id}")
    told = safe.locator("ol.told").inner_text()
    for number, text in enumerate(HOSTILE):
        assert f"The visitor said: {text}." in told
        assert f"{text} said {text}, with 60 %." in told
        assert f"Annotator {number} said {text} (Relabelled)." in told
        assert repr(f"no {text}") in told


def test_classes_are_text_on_the_upload_page(safe, hostile, records, picture):
    go(safe, f"/p/{hostile.id}/")
    safe.set_input_files("#file", {"name": HOSTILE[0], "mimeType": "image/png", "buffer": picture(17)})
    field = safe.get_by_label("What is it?")
    expect(field).to_be_visible()
    assert safe.locator("datalist option").evaluate_all("(all) => all.map((one) => one.value)") == HOSTILE
    for text in HOSTILE[::4]:
        field.fill(text)
        field.press("Enter")
        expect(safe.get_by_text("You said:")).to_have_text(re.compile(re.escape(f"You said: {text}.")))
        nothing_happened(safe)
    id_ = safe.locator("#pictures > li").get_attribute("id").removeprefix("prediction-")
    for start in range(0, len(HOSTILE), 3):
        three = HOSTILE[start : start + 3]
        answer = {"label": three[0], "probabilities": dict.fromkeys(three, 0.3), "release": three[-1]}
        with records.db.write() as tx:
            tx.execute(predictions.update().where(predictions.c.id == id_).values(**answer, status="done"))
        go(safe, f"/p/{hostile.id}/")
        expect(safe.locator("p.label")).to_have_text(three[0])
        expect(safe.locator(".ranking li > span:first-child")).to_have_text(three)
        expect(safe.locator(".foot")).to_contain_text(f"Said by {three[-1]}.")


def test_tokens_may_be_called_anything(safe, records, installation):
    owner = accounts.find(records, installation.secrets["CLOSEDLOOP_OWNER_EMAIL"])
    for text in HOSTILE[1:]:
        accounts.make_token(records, owner, text, now())
    go(safe, "/account")
    safe.get_by_label("Name of a new token").fill(HOSTILE[0])
    safe.get_by_role("button", name="Make a token").click()
    expect(safe.get_by_role("status")).to_be_visible()
    nothing_happened(safe)
    assert set(texts(safe.locator("tbody th"))) >= set(HOSTILE)
    removing = safe.locator("tbody button").evaluate_all("(all) => all.map((one) => one.ariaLabel)")
    assert {f"Remove the token {text}" for text in HOSTILE} <= set(removing)
    for token in accounts.tokens(records, owner):
        accounts.remove_token(records, owner, token.digest)


def test_what_stands_in_an_address_is_text(safe, shapes):
    for text in HOSTILE[::4]:
        typed = quote(text, safe="")
        go(safe, f"/p/{shapes.id}/images?label={typed}&order={typed}")
        for field in ("label", "order"):
            beside = safe.locator(f"form.filter [name={field}]").get_attribute("aria-describedby")
            expect(safe.locator(f"[id='{beside}']")).to_have_text(f"There is no {text}.")
        go(safe, f"/p/{quote(text.replace('/', '|'), safe='')}/")
        expect(safe.get_by_role("alert")).to_contain_text("There is no")


def test_a_wrong_address_of_a_person_is_said_back_as_text(open_page):
    page = open_page("/sign-in")
    page.locator("form").evaluate_all("(all) => all.forEach((one) => one.noValidate = true)")
    page.get_by_label("E-mail address").fill(HOSTILE[1])
    page.get_by_label("Password").fill("long enough to be one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("E-mail address")).to_have_value(HOSTILE[1])
    nothing_happened(page)


def test_the_folders_of_hostile_classes_stay_inside_the_zip(safe, hostile):
    go(safe, f"/p/{hostile.id}/images")
    with safe.expect_download() as download:
        safe.get_by_role("link", name="Download its pictures with answers").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = archive.namelist()
    assert len({name.split("/")[0] for name in names}) == len(HOSTILE)
    for name in names:
        folder, file = name.split("/")
        assert re.fullmatch("[0-9a-f]{32}.jpg", file)
        assert not re.search(r'[\\:*?"<>|]|^\.', folder)
