"""Projects: made and changed by a form, opened and closed, their people; and one's own account."""

import datetime as dt
import re
import secrets

import httpx
import yaml
from playwright.sync_api import Page, expect

from closedloop import accounts
from closedloop import project as projects
from tests.browser.looking import sign_in, wide_alone
from tests.browser.shapes import now

PASSWORD = "correct horse battery"


def fault_of(page: Page, label: str) -> str:
    """What stands beside a field of the form as its fault."""
    field = page.get_by_label(label, exact=True)
    expect(field).to_have_attribute("aria-invalid", "true")
    names = field.get_attribute("aria-describedby").split()
    return page.locator(f"[id='{next(name for name in names if name.endswith('-fault'))}']").inner_text()


def link_of(page: Page, role: str) -> str:
    """Make an invitation on the page of the people."""
    page.get_by_label("As", exact=True).select_option(role)
    page.get_by_role("button", name="Make a link").click()
    return page.get_by_role("status").locator("code").inner_text()


# The form


def test_a_project_is_made_once_every_entry_is_right_and_nothing_typed_is_lost(owner, records):
    id_ = f"birds-{secrets.token_hex(3)}"
    owner.goto("/projects")
    owner.get_by_role("link", name="New project").click()
    owner.get_by_label("Id", exact=True).fill("No Such Id!")
    owner.get_by_label("Title", exact=True).fill("Which bird is it?")
    owner.get_by_label("Classes", exact=True).fill("robin\nwren\nRobin")
    owner.get_by_label("Who has an account or an invitation").check()
    owner.get_by_label("Ask about answers below this confidence").fill("7")
    owner.get_by_label("At least so many of them").fill("-1")
    owner.get_by_text("Schedules and prompts").click()
    owner.get_by_label("When the trainer looks").fill("now and then")
    owner.get_by_label("Prompts", exact=True).fill("robin: [a photo of a robin")
    owner.get_by_role("button", name="Make the project").click()

    expect(owner.get_by_role("alert")).to_contain_text("Nothing was saved. Entries to correct:")
    assert "3 to 40 of the characters" in fault_of(owner, "Id")
    assert "same name" in fault_of(owner, "Classes")
    assert "At most 1." in fault_of(owner, "Ask about answers below this confidence")
    assert "At least 0." in fault_of(owner, "At least so many of them")
    assert "five fields" in fault_of(owner, "When the trainer looks")
    assert "YAML" in fault_of(owner, "Prompts")
    expect(owner.get_by_label("Id", exact=True)).to_have_value("No Such Id!")
    expect(owner.get_by_label("Classes", exact=True)).to_have_value("robin\nwren\nRobin")
    expect(owner.get_by_label("Who has an account or an invitation")).to_be_checked()
    expect(owner.get_by_label("Prompts", exact=True)).to_have_value("robin: [a photo of a robin")
    assert id_ not in [one.id for one in projects.all_projects(records)]

    owner.get_by_label("Id", exact=True).fill(id_)
    owner.get_by_label("Classes", exact=True).fill("robin\nwren\n\n  blackbird  ")
    owner.get_by_label("Ask about answers below this confidence").fill("0.6")
    owner.get_by_label("At least so many of them").fill("10")
    owner.get_by_label("When the trainer looks").fill("0 0 1 1 *")
    owner.get_by_label("When the random sample is drawn").fill("0 0 1 1 *")
    owner.get_by_label("When tasks and answers are exchanged").fill("0 0 1 1 *")
    owner.get_by_label("Prompts", exact=True).fill("robin: [a photo of a robin]")
    owner.get_by_role("button", name="Make the project").click()
    expect(owner).to_have_url(re.compile(f"/p/{id_}/dashboard$"))
    made = projects.get(records, id_)
    assert (made.title, made.classes, made.access) == ("Which bird is it?", ("robin", "wren", "blackbird"), "closed")
    assert (made.thresholds.low_confidence, made.random_sample.at_least) == (0.6, 10)
    assert made.prompts == {"robin": ("a photo of a robin",)}

    owner.goto("/projects/new")
    owner.get_by_label("Id", exact=True).fill(id_)
    owner.get_by_label("Title", exact=True).fill("Again")
    owner.get_by_label("Classes", exact=True).fill("a\nb")
    owner.get_by_role("button", name="Make the project").click()
    expect(owner.get_by_role("alert")).to_be_visible()
    assert "already" in fault_of(owner, "Id")
    expect(owner.get_by_label("Title", exact=True)).to_have_value("Again")


def test_a_change_is_kept_with_who_made_it_and_when(owner, installation, add_project, records, size):
    project = add_project("changed")
    owner.goto(f"/p/{project.id}/settings")
    before = now()
    owner.get_by_label("Title", exact=True).fill("Another title")
    owner.get_by_label("Train when so many answers are new").fill("50")
    owner.get_by_role("button", name="Save").click()
    expect(owner.get_by_role("status")).to_have_text("Saved.")
    expect(owner.get_by_role("heading", level=1)).to_have_text("Another title")
    change = owner.locator("ol.told > li").first
    expect(change).to_contain_text(installation.secrets["CLOSEDLOOP_OWNER_EMAIL"])
    expect(change).to_contain_text(f"title: {project.title} → Another title")
    expect(change).to_contain_text("train.at_least_new: 100 → 50")
    at = dt.datetime.fromisoformat(change.locator("time").get_attribute("datetime"))
    assert before - dt.timedelta(seconds=1) < at < now()
    assert projects.get(records, project.id).train.at_least_new == 50
    with owner.expect_download() as download:
        owner.get_by_role("link", name="Download the manifest").click()
    with open(download.value.path(), encoding="utf-8") as file:
        assert projects.Project.model_validate(yaml.safe_load(file)) == projects.get(records, project.id)


def test_classes_may_only_be_appended_and_what_was_typed_is_kept(owner, add_project, records, size):
    project = add_project("classes", ("cat", "dog"))
    owner.goto(f"/p/{project.id}/settings")
    said = {"dog\ncat": "append", "cat": "These are missing: dog.", "cat\nowl\ndog": "append"}
    for typed, why in said.items():
        owner.get_by_label("Classes", exact=True).fill(typed)
        owner.get_by_role("button", name="Save").click()
        expect(owner.get_by_role("alert")).to_be_visible()
        assert why in fault_of(owner, "Classes")
        expect(owner.get_by_label("Classes", exact=True)).to_have_value(typed)
    assert projects.get(records, project.id).classes == ("cat", "dog")
    owner.get_by_label("Classes", exact=True).fill("cat\ndog\nowl")
    owner.get_by_role("button", name="Save").click()
    expect(owner.get_by_role("status")).to_have_text("Saved.")
    assert projects.get(records, project.id).classes == ("cat", "dog", "owl")
    owner.get_by_role("link", name="Upload", exact=True).click()
    expect(owner.get_by_role("heading", level=1)).to_have_text(project.title)


# People


def test_a_closed_project_is_for_who_has_an_account_or_a_visitors_link(open_page, owner, add_project, files, size):
    project = add_project("closed", access="closed")
    visitor = open_page()
    visitor.goto(f"/p/{project.id}/")
    expect(visitor.get_by_role("heading", level=1)).to_have_text("Sign in")
    refused = visitor.request.post(f"/p/{project.id}/predict", multipart={"file": next(files)}, max_redirects=0)
    assert refused.status == 401
    owner.goto(f"/p/{project.id}/people")
    link = link_of(owner, "Visitor without an account")
    owner.goto(f"/p/{project.id}/people")
    expect(owner.get_by_text(link)).to_have_count(0)  # it is shown once
    visitor.goto(link)
    expect(visitor.get_by_role("heading", level=1)).to_have_text(project.title)
    visitor.set_input_files("#file", next(files))
    expect(visitor.locator("p.label")).to_have_text("No model yet")
    visitor.reload()
    expect(visitor.locator("p.label")).to_have_text("No model yet")
    visitor.goto(f"/p/{project.id}/dashboard")  # a visitor is no viewer
    expect(visitor.get_by_role("heading", level=1)).to_have_text("Sign in")
    owner.goto(f"/p/{project.id}/people")
    owner.get_by_role("button", name="Take back").click()
    expect(owner.get_by_role("button", name="Take back")).to_have_count(0)
    visitor.goto(f"/p/{project.id}/")
    expect(visitor.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_an_invited_viewer_sees_everything_and_can_change_nothing(open_page, owner, add_project, files, records, size):
    project = add_project("seen")
    owner.goto(f"/p/{project.id}/")
    owner.set_input_files("#file", next(files))
    picture = owner.locator("a.shown").get_attribute("href").removesuffix("/picture")
    owner.goto(f"/p/{project.id}/people")
    link = link_of(owner, "Viewer")
    owner.context.grant_permissions(["clipboard-read", "clipboard-write"])
    owner.get_by_role("button", name="Copy").click()
    expect(owner.get_by_role("button", name="Copied")).to_be_visible()
    assert owner.evaluate("navigator.clipboard.readText()") == link

    viewer = open_page()
    viewer.goto(link)
    expect(viewer.get_by_role("heading", level=1)).to_have_text(f"You are invited to {project.title}")
    email = f"viewer-{secrets.token_hex(3)}@example.org"
    viewer.get_by_label("E-mail address").fill(email)
    viewer.get_by_label("A new password, of 12 characters or more").fill(PASSWORD)
    viewer.get_by_role("button", name="Join").click()
    expect(viewer).to_have_url(re.compile(f"/p/{project.id}/dashboard$"))
    for place in ("dashboard", "images", picture, "settings", "people"):
        answer = viewer.goto(place if place.startswith("/") else f"/p/{project.id}/{place}")
        assert answer.status == 200
    for place in ("dashboard", "images", picture, "people"):
        viewer.goto(place if place.startswith("/") else f"/p/{project.id}/{place}")
        expect(viewer.locator("main form[method=post]")).to_have_count(0)
    viewer.goto(f"/p/{project.id}/settings")
    expect(viewer.get_by_text("Owners of the project can change this.")).to_be_visible()
    expect(viewer.locator("main").get_by_role("button")).to_have_count(0)
    fields = viewer.locator("main form").locator("input:not([type=hidden]), textarea")
    assert fields.evaluate_all("(all) => all.every((one) => one.disabled)")
    token = viewer.locator("[name=csrf_token]").first.input_value()
    for address in ("settings", "rollback", "people/invite", f"images/{picture.rsplit('/', 1)[1]}/remove"):
        posted = viewer.request.post(f"/p/{project.id}/{address}", form={"csrf_token": token, "role": "owner"})
        assert posted.status == 403, address
    viewer.goto("/projects")
    expect(viewer.locator("main h2")).to_have_text([project.title])
    expect(viewer.get_by_role("link", name="New project")).to_have_count(0)

    again = open_page()  # the link was used
    again.goto(link)
    expect(again.get_by_role("alert")).to_contain_text("has been used")

    owner.goto(f"/p/{project.id}/people")
    owner.get_by_label(f"Role of {email}").select_option("None: take out")
    owner.get_by_role("button", name="Save").click()
    expect(owner.get_by_text(email)).to_have_count(0)
    assert viewer.goto(f"/p/{project.id}/dashboard").status == 403


@wide_alone
def test_a_weak_password_and_a_taken_address_are_said_and_the_address_is_kept(
    open_page, owner, add_project, installation
):
    project = add_project("invited")
    owner.goto(f"/p/{project.id}/people")
    viewer = open_page(link_of(owner, "Viewer"))
    viewer.locator("form").evaluate_all("(all) => all.forEach((one) => one.noValidate = true)")
    viewer.get_by_label("E-mail address").fill("somebody@example.org")
    viewer.get_by_label("A new password").fill("short")
    viewer.get_by_role("button", name="Join").click()
    expect(viewer.get_by_role("alert")).to_contain_text("12 to 200 characters")
    expect(viewer.get_by_label("E-mail address")).to_have_value("somebody@example.org")
    viewer.get_by_label("E-mail address").fill(installation.secrets["CLOSEDLOOP_OWNER_EMAIL"])
    viewer.get_by_label("A new password").fill(PASSWORD)
    viewer.get_by_role("button", name="Join").click()
    expect(viewer.get_by_role("alert")).to_contain_text("has an account already")
    expect(viewer.get_by_role("link", name="I have an account already")).to_be_visible()


# One's own account


def test_a_token_is_shown_once_does_what_its_owner_may_and_ends_when_removed(owner, installation, add_project, size):
    name = f"nightly export {secrets.token_hex(3)}"
    owner.goto("/account")
    owner.get_by_label("Name of a new token").fill(name)
    owner.get_by_role("button", name="Make a token").click()
    token = owner.get_by_role("status").locator("code").inner_text()
    address = f"{installation.pages}/p/{add_project(f'told-{size}').id}/images"
    bearer = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    assert httpx.get(address, headers=bearer, trust_env=False).json()["ok"]
    owner.goto("/account")
    expect(owner.get_by_role("row", name=name)).to_be_visible()
    expect(owner.locator("body")).not_to_contain_text(token)
    owner.get_by_role("button", name=f"Remove the token {name}").click()
    expect(owner.get_by_role("row", name=name)).to_have_count(0)
    assert httpx.get(address, headers=bearer, trust_env=False).status_code == 401


def test_a_new_password_ends_every_session_and_opens_the_account_from_then_on(open_page, records, size):
    email, new = f"{secrets.token_hex(3)}-{size}@example.org", "an entirely new one"
    account = accounts.make(records, email, PASSWORD, now())
    elsewhere = accounts.sign_in(records, email, PASSWORD, now())
    page = open_page("/sign-in?next=/account")
    sign_in(page, email, PASSWORD)
    expect(page.get_by_role("heading", level=1)).to_have_text(email)
    page.get_by_label("The password until now").fill("not this one, either")
    page.get_by_label("The new one").fill(new)
    page.get_by_role("button", name="Change it and sign in again").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the account's password.")
    page.get_by_label("The password until now").fill(PASSWORD)
    page.get_by_label("The new one").fill(new)
    page.get_by_role("button", name="Change it and sign in again").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    assert accounts.signed_in(records, elsewhere, now()) is None
    sign_in(page, email, new)
    expect(page.get_by_role("heading", level=1)).to_have_text(email)
    assert accounts.find(records, email).id == account.id


@wide_alone
def test_an_account_without_a_project_is_told_what_to_do(open_page, records):
    email = f"{secrets.token_hex(3)}@example.org"
    accounts.make(records, email, PASSWORD, now())
    page = open_page("/sign-in?next=/projects")
    sign_in(page, email, PASSWORD)
    expect(page.locator("main")).to_contain_text("You belong to no project yet. An owner can send you an invitation.")


@wide_alone
def test_every_page_of_an_account_asks_to_sign_in_and_remembers_where_one_wanted_to_go(page):
    for path in ("/projects", "/projects/new", "/account", "/p/food11/settings", "/p/food11/people"):
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        expect(page.locator("main [name=next]")).to_have_value(path)
