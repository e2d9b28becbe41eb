"""The dashboard: how good the model is, who waits for what, the releases, and the way back to the earlier one."""

import csv
import json
import re
from collections.abc import Callable

import httpx
import pytest
import sqlalchemy as sa
from playwright.sync_api import Locator, Page, expect

from closedloop import releases, survey
from closedloop.project import Project
from closedloop.storage import Stores
from closedloop.storage.surveys import keep
from closedloop.storage.tables import surveys
from demo.installation import live_release
from demo.people import Visitor
from tests.browser.conftest import owner_login
from tests.browser.looking import sign_in, wide_alone
from tests.browser.shapes import now, pictures
from tests.waiting import wait_for

QUEUES = {
    "Random sample": "random_sample",
    "Low confidence": "low_confidence",
    "Flagged": "user_feedback",
    "Relabelled": "user_label",
}
CHARTS = {
    "releases": "Releases",
    "weeks": "Week by week",
    "classes": "Class by class",
    "days": "Pictures and flags, day by day",
}


@pytest.fixture
def dashboard(owner: Page, shapes: Project, records: Stores) -> Page:
    survey.take(records, shapes, now())
    owner.goto(f"/p/{shapes.id}/dashboard")
    return owner


def card(page: Page, heading: str) -> Locator:
    return page.locator("section.card", has=page.get_by_role("heading", name=heading, exact=True))


def judged(page: Page) -> Locator:
    return page.get_by_role("table", name="Every candidate, and what became of it")


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def cells(table: Locator) -> list[list[str]]:
    """The rows of a table's body as texts."""
    rows = table.locator("tbody tr").evaluate_all("(rows) => rows.map((row) => [...row.cells].map((c) => c.innerText))")
    return [[cell.strip() for cell in row] for row in rows]


def test_who_is_not_signed_in_signs_in_first_and_then_is_where_he_wanted_to_be(page, shapes, installation):
    page.goto(f"/p/{shapes.id}/dashboard")
    expect(page).to_have_url(re.compile("/sign-in"))
    sign_in(page, owner_login(installation)[0], "not the password")
    expect(page.get_by_role("alert")).to_have_text("The address or the password is wrong.")
    expect(page.get_by_label("E-mail address")).to_have_value(owner_login(installation)[0])
    sign_in(page, *owner_login(installation))
    expect(page).to_have_url(re.compile(f"/p/{shapes.id}/dashboard$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Round or square?")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    page.goto(f"/p/{shapes.id}/dashboard")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


@wide_alone
def test_nobody_is_sent_to_another_site_by_signing_in(owner):
    for elsewhere in ("https://example.org/", "//example.org/", "/\\example.org/"):
        owner.goto(f"/sign-in?next={elsewhere}")
        expect(owner).to_have_url(re.compile(r"^http://127\.0\.0\.1:\d+/$"))


def test_the_numbers_say_how_good_the_live_release_is_and_how_sure_that_is(dashboard, records, shapes):
    how_good = card(dashboard, "How good is the model?")
    counted = survey.latest(records, shapes.id)[1]
    live = releases.listing(records, shapes.id)[-1]
    recent = counted["recent"]["weighted"] or counted["recent"]["sample"]
    standing = next(row for row in counted["releases"] if row["release"] == live["release"])
    expect(how_good.locator(".big")).to_have_text(percent((standing["weighted"] or standing["sample"])["share"]))
    expect(how_good).to_contain_text(f"This is {live['release']}.")
    for name, found in (("All queues, weighted", standing["weighted"]), ("Random sample alone", standing["sample"])):
        between = found and f"{percent(found['share'])} ({percent(found['low'])} – {percent(found['high'])})"
        told = f"{between}, {found['answers']} answers" if found else "not known yet"
        expect(how_good).to_contain_text(f"{name}{told}")
    expect(how_good).to_contain_text(f"Offline, at its release{percent(live['accuracy'])}")
    expect(how_good).to_contain_text(f"The last 30 days, all releases{percent(recent['share'])}")
    how_good.get_by_text("How this is estimated").click()
    expect(how_good).to_contain_text("cross-fitted")


def test_every_queue_says_who_waits_and_leads_to_its_label_studio_project(dashboard, installation, records, shapes):
    queues = card(dashboard, "Who waits for answers")
    rows = cells(queues.locator("table"))
    assert [row[0].split("\n") for row in rows] == [[name, id_] for name, id_ in QUEUES.items()]
    counted = survey.latest(records, shapes.id)[1]["queues"]
    assert [row[1:3] for row in rows] == [[str(row["waiting"]), str(row["answered"])] for row in counted]
    assert all(int(row[2]) > 0 for row in rows if not row[0].startswith("Low confidence"))
    with httpx.Client(follow_redirects=True, trust_env=False) as http:
        for queue in QUEUES:
            address = queues.get_by_role("link", name=queue).get_attribute("href")
            assert re.fullmatch(rf"http://127\.0\.0\.1:{installation.ports['LABEL_STUDIO']}/projects/\d+/data", address)
            assert "Label Studio" in http.get(address).text


def test_the_releases_are_listed_with_what_the_gate_said(dashboard, records, shapes):
    rows = cells(judged(dashboard))
    told = [(one["release"], one["state"], one["reason"]) for one in releases.listing(records, shapes.id)]
    assert [(row[0], row[1], row[3]) for row in rows] == told[::-1]
    assert [row[1] for row in rows].count("live") == 1


def test_charts_are_drawn_as_they_come_into_view_and_tables_say_the_same(dashboard, shapes):
    expect(dashboard.locator("[data-chart]")).to_have_count(len(CHARTS))
    for name, heading in CHARTS.items():
        section = card(dashboard, heading)
        chart = section.locator("[data-chart]")
        chart.scroll_into_view_if_needed()
        expect(chart.locator("svg")).to_be_visible()
        assert chart.locator(".mark-rect path, .mark-symbol path").count() > 1
        drawing, place = chart.locator("svg").bounding_box(), section.bounding_box()
        assert place["x"] <= drawing["x"]
        assert drawing["x"] + drawing["width"] <= place["x"] + place["width"] + 1
        section.locator("details").evaluate_all("(all) => all.forEach((one) => one.open = true)")
        rows = dashboard.request.get(f"/p/{shapes.id}/dashboard/{name}.json").json()
        key = {"releases": "release", "weeks": "week", "classes": "label", "days": "day"}[name]
        shown = {row[0]: row[1] for row in cells(section.get_by_role("table", name=heading, exact=True))}
        assert shown == {row[key]: str(row["pictures"]) for row in rows if row["pictures"]}


@wide_alone
def test_drawn_charts_still_have_names_that_lead_to_their_tables(dashboard):
    for name in CHARTS:
        chart = dashboard.locator(f"[data-chart={name}]")
        chart.scroll_into_view_if_needed()
        expect(chart.locator("svg")).to_be_visible()
        expect(chart).to_have_accessible_name(re.compile("the same numbers stand in the table below"), timeout=3_000)


@wide_alone
def test_without_the_charts_the_tables_still_say_everything(owner, shapes):
    owner.route("**/vega*.js*", lambda route: route.abort())
    owner.goto(f"/p/{shapes.id}/dashboard")
    days = card(owner, CHARTS["days"])
    days.get_by_text("As a table").click()
    expect(days.get_by_role("table")).to_be_visible()
    days.scroll_into_view_if_needed()
    expect(days.locator("[data-chart]")).to_be_hidden()


@wide_alone
def test_every_table_can_be_had_as_csv(dashboard, shapes):
    dashboard.locator("details").evaluate_all("(all) => all.forEach((one) => one.open = true)")
    for table in (*CHARTS, "queues"):
        with dashboard.expect_download() as download:
            dashboard.locator(f"a[href$='/dashboard/{table}.csv']").click()
        assert download.value.suggested_filename == f"{shapes.id}-{table}.csv"
        with open(download.value.path(), newline="", encoding="utf-8") as file:
            read = list(csv.DictReader(file))
        rows = dashboard.request.get(f"/p/{shapes.id}/dashboard/{table}.json").json()
        assert rows
        assert read == [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]


@wide_alone
def test_a_release_shows_its_card_and_the_card_can_be_had(dashboard, records, shapes):
    newest = releases.listing(records, shapes.id)[-1]
    card_of = releases.find(records, newest["release"], shapes.id, newest["head"])["card"]
    judged(dashboard).get_by_role("link", name=newest["release"]).click()
    expect(dashboard.get_by_role("heading", name=newest["release"])).to_be_visible()
    expect(card(dashboard, "What the gate said")).to_contain_text(newest["reason"])
    good = card(dashboard, "How good it is, offline")
    expect(good.locator(".big")).to_have_text(percent(newest["accuracy"]))
    expect(good).to_contain_text(f"between {percent(newest['accuracy_95'][0])} and {percent(newest['accuracy_95'][1])}")
    learnt = card(dashboard, "What it learnt from")
    by_class = cells(learnt.get_by_role("table", name="By class"))
    assert {row[0]: int(row[1]) for row in by_class} == card_of["dataset"]["per_class"]
    expect(card(dashboard, "How it was made")).to_contain_text(f"closedloop reproduce {newest['release']}")
    with dashboard.expect_download() as download:
        dashboard.get_by_role("link", name="Download card.json").click()
    with open(download.value.path(), encoding="utf-8") as file:
        assert json.load(file) == card_of


@wide_alone
def test_a_release_is_pinned_and_unpinned_on_its_page(dashboard, records, shapes):
    live = next(one["release"] for one in releases.listing(records, shapes.id) if one["state"] == "live")
    judged(dashboard).get_by_role("link", name=live).click()
    dashboard.get_by_text("Pin this release …").click()
    expect(dashboard.get_by_text(f"{live} goes on answering, whatever candidates come")).to_be_visible()
    dashboard.get_by_role("button", name=f"Pin {live}").click()
    expect(dashboard.get_by_text("It is pinned: candidates are judged")).to_be_visible()
    assert [one["release"] for one in releases.listing(records, shapes.id) if one["pinned"]] == [live]
    dashboard.goto(f"/p/{shapes.id}/dashboard")
    expect(judged(dashboard).locator(".badge.live")).to_have_text("live, pinned")
    expect(dashboard.get_by_text("Roll back …")).to_have_count(0)  # it would be refused
    dashboard.get_by_role("link", name=live).first.click()
    dashboard.get_by_text("Unpin it …").click()
    dashboard.get_by_role("button", name=f"Unpin {live}").click()
    expect(dashboard.get_by_text("Pin this release …")).to_be_visible()
    assert not any(one["pinned"] for one in releases.listing(records, shapes.id))


def test_rolling_back_wants_a_word_and_then_the_earlier_release_answers(dashboard, installation, records, shapes):
    before = {one["release"]: one["state"] for one in releases.listing(records, shapes.id)}
    live = next(release for release, state in before.items() if state == "live")
    earlier = list(before)[list(before).index(live) - 1]
    put_back = dashboard.get_by_role("button", name=f"Put {earlier} back")
    expect(put_back).to_be_hidden()
    dashboard.get_by_text("Roll back …").click()
    expect(dashboard.locator("#releases")).to_contain_text(f"{live} stops answering, and {earlier} answers again")
    assert live_release(installation, shapes.id) == live  # looking at it changes nothing
    put_back.click()
    name = dashboard.get_by_role("rowheader", name=earlier, exact=True)
    expect(judged(dashboard).get_by_role("row").filter(has=name).locator(".badge")).to_have_text("live")
    after = {one["release"]: one["state"] for one in installation.command("releases", shapes.id)["releases"]}
    assert after == {**before, live: "retired", earlier: "live"}
    wait_for(lambda: live_release(installation, shapes.id) == earlier, 20, "the rollback")


def test_a_fresh_project_says_of_each_part_what_is_missing(owner, add_project: Callable, size):
    project = add_project("fresh")
    owner.goto(f"/p/{project.id}/dashboard")
    # Nobody has to load the page again, even where it was opened before anything was counted.
    expect(card(owner, "How good is the model?")).to_contain_text("No model yet")
    expect(card(owner, "Who waits for answers").locator("tbody tr")).to_have_count(4)
    expect(owner.locator("#releases")).to_contain_text("No release yet.")
    expect(card(owner, "Week by week")).to_contain_text("Nothing to compare yet")
    expect(card(owner, "Class by class")).to_contain_text("Nothing to compare yet")
    expect(card(owner, CHARTS["days"])).to_contain_text("Nobody has sent a picture yet.")
    expect(owner.locator("[data-chart]")).to_have_count(0)
    expect(owner.get_by_text("Roll back")).to_have_count(0)
    owner.get_by_role("link", name="Send one").click()
    expect(owner.get_by_role("heading", name="Your pictures")).to_be_visible()


@wide_alone
def test_with_answers_enough_a_project_without_a_model_says_that_it_is_trained_next(owner, add_project, records):
    project = add_project("enough")
    counted = {**survey.count(records, project, now()), "settled": project.train.at_least_new}
    with records.db.write() as tx:
        keep(tx, project.id, now(), 3600.0, counted)
    owner.goto(f"/p/{project.id}/dashboard")
    how_good = card(owner, "How good is the model?")
    expect(how_good).to_contain_text("it is trained at the trainer's next turn")
    expect(how_good).to_contain_text(f"closedloop train {project.id}")
    expect(how_good.get_by_role("link", name="Send pictures")).to_have_count(0)


@wide_alone
def test_the_charts_of_a_project_that_is_counted_while_one_looks_are_drawn(owner, add_project, installation, records):
    project = add_project("counted-late")
    visitor = Visitor(installation.pages, project.id, seed=1)
    visitor.send(next(pictures(seed=99))[0], "cat")
    with records.db.write() as tx:
        tx.execute(sa.delete(surveys).where(surveys.c.project_id == project.id))
    owner.goto(f"/p/{project.id}/dashboard")
    days = card(owner, CHARTS["days"])
    expect(days).to_be_visible()
    days.scroll_into_view_if_needed()
    expect(days.locator("[data-chart] svg")).to_be_visible(timeout=5_000)


@wide_alone
def test_where_nobody_knows_how_good_it_is_an_owner_has_a_sample_drawn(owner, shapes, installation, records):
    Visitor(installation.pages, shapes.id, seed=1).send(next(pictures(seed=98))[0], "round")
    counted = survey.count(records, shapes, now())
    for row in counted["releases"]:
        row["sample"] = row["weighted"] = None
    for row in counted["queues"]:
        row["waiting"] = 0
    with records.db.write() as tx:  # what takes an hour is not counted again while the test runs
        keep(tx, shapes.id, now(), 3600.0, counted)
    owner.goto(f"/p/{shapes.id}/dashboard")
    how_good = card(owner, "How good is the model?")
    expect(how_good.locator(".big")).to_have_text("Not known yet")
    how_good.get_by_role("button", name="Draw a random sample now").click()
    expect(how_good.get_by_role("status")).to_contain_text(re.compile(r"Drawn: [1-9]\d*\."))
    owner.goto(f"/p/{shapes.id}/dashboard")
    how_good.get_by_role("button", name="Draw a random sample now").click()
    expect(how_good.get_by_role("status")).to_contain_text("there is nothing to draw yet")
    survey.take(records, shapes, now())  # whoever looks next sees what is
