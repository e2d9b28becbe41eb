"""Who may see and change what, over real HTTP: accounts, visitors, tokens, links, form tokens, limits."""

import io
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from flask_app import create_app, rights
from flask_app.dashboard import FEWEST_DAYS
from itsdangerous import TimestampSigner

from closedloop import accounts, survey
from closedloop import project as projects
from closedloop.accounts import OWNER, VIEWER, VISITOR
from closedloop.inference import Inference
from closedloop.project import CLASSIFIER
from closedloop.queues import RANDOM_SAMPLE
from closedloop.storage import registry, tables
from tests.conftest import START
from tests.contract.conftest import OWNER_PASSWORD, Answer, Backend, Service, running

PASSWORD = "a password of twelve"
Make = Callable[..., bytes]
# Whom each page of a project answers: 200, or what else. Nobody is sent to sign in.
PAGES = {
    "/p/birds/dashboard": VIEWER,
    "/p/birds/dashboard/weeks.json": VIEWER,
    "/p/birds/dashboard/weeks.csv": VIEWER,
    "/p/birds/releases/classifier/r0001-00000000": VIEWER,
    "/p/birds/releases/classifier/r0001-00000000/card.json": VIEWER,
    "/p/birds/images": VIEWER,
    "/p/birds/images.csv": VIEWER,
    "/p/birds/images.zip": VIEWER,
    "/p/birds/images/{image}": VIEWER,
    "/p/birds/removed": VIEWER,
    "/p/birds/settings": VIEWER,
    "/p/birds/manifest.yaml": VIEWER,
    "/p/birds/people": VIEWER,
    "/projects": "anyone with an account",
    "/account": "anyone with an account",
    "/projects/new": "owner of everything",
}
FORMS = {
    "/p/birds/rollback": OWNER,
    "/p/birds/pin": OWNER,
    "/p/birds/sample": OWNER,
    "/p/birds/images/{image}/remove": OWNER,
    "/p/birds/settings": OWNER,
    "/p/birds/people/invite": OWNER,
    "/p/birds/people/uninvite": OWNER,
    "/p/birds/people/role": OWNER,
    "/projects/new": "owner of everything",
}
JSON = {"Accept": "application/json"}


class Browser:
    """A browser with its cookies, as far as HTTP goes."""

    def __init__(self, web: Service) -> None:
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{web.port}", timeout=20, trust_env=False)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers={"Accept": "text/html", **headers})

    def form_token(self, page: str) -> str:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.get(page).text)
        assert found, page
        return found[1]

    def post(self, path: str, page: str = "/account", **fields: str) -> httpx.Response:
        data = {"csrf_token": self.form_token(page), **fields}
        return self.http.post(path, data=data, headers={"Accept": "text/html"})

    def sign_in(self, email: str, password: str = PASSWORD) -> httpx.Response:
        return self.post("/sign-in", "/sign-in", email=email, password=password)

    def send(self, data: bytes, project: str = "birds", **headers: str) -> dict[str, Any]:
        answer = self.http.post(f"/p/{project}/predict", files={"file": ("a.jpg", data)}, headers={**JSON, **headers})
        assert answer.status_code in (201, 202), answer.text
        return answer.json()


@pytest.fixture
def browser(web: Service) -> Iterator[Callable[[], Browser]]:
    opened: list[Browser] = []

    def open_one() -> Browser:
        opened.append(Browser(web))
        return opened[-1]

    yield open_one
    for one in opened:
        one.http.close()


@pytest.fixture(autouse=True)
def not_counted(backend: Backend) -> None:
    """No test is refused for what the tests before it tried."""
    with backend.stores.db.write() as tx:
        tx.execute(tables.rates.delete())


@pytest.fixture(scope="module")
def people(web: Service, backend: Backend) -> dict[str, str]:
    """Who there is: a viewer and an owner of birds, an owner of pets, the owner of everything; nobody else."""
    made = {VIEWER: "viewer@example.org", OWNER: "owner@example.org", "stranger": "stranger@example.org"}
    for role, email in made.items():
        account = accounts.make(backend.stores, email, PASSWORD, START)
        of = "pets" if role == "stranger" else "birds"
        accounts.set_role(backend.stores, account, of, OWNER if role == "stranger" else role, START)
    return {**made, "owner of everything": "owner@closedloop.local"}


@pytest.fixture(scope="module")
def sent(web: Service, backend: Backend, picture: Make) -> Iterator[dict[str, Any]]:
    """A picture of birds that somebody sent; and there is a release that was refused."""
    dataset = {"project_id": "birds", "id": "0" * 16, "head": CLASSIFIER, "digest": "0" * 64, "items": 0}
    card = {
        "dataset": {"items": 0},
        "metrics": {"accuracy": 0.5, "accuracy_95": [0.4, 0.6]},
        "gate": {"against": "commonest class", "probability_better": 0.5},
    }
    release = {"project_id": "birds", "head": CLASSIFIER, "id": "r0001-00000000", "number": 1, "card": card}
    judged = {"dataset_id": "0" * 16, "encoder": "0" * 64, "state": "refused", "reason": "worse", "created_at": START}
    with backend.stores.db.write() as tx:
        tx.execute(tables.datasets.insert().values(**dataset, created_at=START))
        registry.add_release(tx, {**release, **judged})
    yield web.upload(picture(400), "/p/birds/predict").json()
    with backend.stores.db.write() as tx:
        tx.execute(tables.releases.delete().where(tables.releases.c.project_id == "birds"))
        tx.execute(tables.datasets.delete().where(tables.datasets.c.project_id == "birds"))


@pytest.fixture(scope="module")
def tokens(people: dict[str, str], backend: Backend) -> dict[str, str]:
    return {
        who: accounts.make_token(backend.stores, accounts.find(backend.stores, email), "test", START)
        for who, email in people.items()
    }


RANK = {VIEWER: {VIEWER, OWNER, "owner of everything"}, OWNER: {OWNER, "owner of everything"}}


def allowed(wanted: str, who: str) -> bool:
    return who in RANK.get(
        wanted,
        {"owner of everything"}
        if wanted == "owner of everything"
        else {VIEWER, OWNER, "stranger", "owner of everything"},
    )


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_for_those_who_may_see_them(
    web: Service, sent: dict[str, Any], tokens: dict[str, str], browser: Callable[[], Browser], path: str
) -> None:
    address = path.format(image=sent["image_id"])
    nobody = browser().get(address)
    assert (nobody.status_code, nobody.headers["location"].split("?")[0]) == (303, "/sign-in")
    assert web.send("GET", address, headers=JSON).says(401, "sign_in_needed")
    for who, token in tokens.items():
        answer = web.send("GET", address, headers={**JSON, "Authorization": f"Bearer {token}"})
        if allowed(PAGES[path], who):
            assert answer.status == 200, (who, answer.body[:200])
        else:
            assert answer.says(403, "not_allowed")


@pytest.mark.parametrize("path", FORMS)
def test_forms_are_for_those_who_may_use_them(
    web: Service, sent: dict[str, Any], tokens: dict[str, str], path: str
) -> None:
    address = path.format(image=sent["image_id"])
    assert web.send("POST", address, headers=JSON, data={"a": "b"}).says(400, "form_outdated")
    for who, token in tokens.items():
        headers = {**JSON, "Authorization": f"Bearer {token}"}
        if allowed(FORMS[path], who):
            continue  # what it does is tested where it belongs
        assert web.send("POST", address, headers=headers, data={"a": "b"}).says(403, "not_allowed")
    assert web.send("POST", address, headers={**JSON, "Authorization": "Bearer cl_wrong"}, data={"a": "b"}).says(
        401, "sign_in_needed"
    )


def test_signing_in_and_out(people: dict[str, str], browser: Callable[[], Browser]) -> None:
    one = browser()
    asked = one.get("/p/birds/dashboard?x=1")
    assert asked.headers["location"] == "/sign-in?next=/p/birds/dashboard?x%3D1"
    wrong = one.sign_in(people[VIEWER], "not the password")
    assert wrong.status_code == 401
    assert "The address or the password is wrong." in wrong.text
    assert people[VIEWER] in wrong.text  # what was typed is still there
    right = one.post("/sign-in", "/sign-in", email=people[VIEWER], password=PASSWORD, next="/p/birds/dashboard?x=1")
    assert (right.status_code, right.headers["location"]) == (303, "/p/birds/dashboard?x=1")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    stolen = dict(one.http.cookies)
    assert one.get("/p/birds/dashboard").status_code == 200
    one.post("/sign-out")
    assert one.get("/p/birds/dashboard").status_code == 303
    thief = browser()
    thief.http.cookies.update(stolen)
    assert thief.get("/p/birds/dashboard").status_code == 303  # the session itself is over, not only its cookie


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a\r\nb",
        "",
        "evil",
        "http://[",
        "//[",
    ],
)
def test_signing_in_leads_nowhere_else(people: dict[str, str], browser: Callable[[], Browser], wanted: str) -> None:
    answer = browser().post("/sign-in", "/sign-in", email=people[VIEWER], password=PASSWORD, next=wanted)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_form_of_another_page_does_nothing(
    people: dict[str, str], browser: Callable[[], Browser], backend: Backend
) -> None:
    """Somebody else's page can make this browser send a form, but it cannot read a form's token."""
    one = browser()
    one.sign_in(people[OWNER])
    before = projects.get(backend.stores, "birds")
    fields = {"title": "Hacked", "classes": "wren\nrobin", "access": "public"}
    for token in ({}, {"csrf_token": "x"}, {"csrf_token": browser().form_token("/sign-in")}):
        answer = one.http.post("/p/birds/settings", data={**fields, **token})
        assert Answer(answer.status_code, dict(answer.headers), answer.content).says(400, "form_outdated")
    cross = one.http.post("/p/birds/settings", data=fields, headers={"Sec-Fetch-Site": "cross-site"})
    assert cross.json()["code"] == "cross_site"
    # Uploads and feedback want a token, too, as soon as an account's rights travel with them.
    for path in ("/p/birds/predict", "/p/birds/sets"):
        upload = one.http.post(path, files={"file": ("a.jpg", b"x")}, headers=JSON)
        assert upload.json()["code"] == "form_outdated"
    assert projects.get(backend.stores, "birds") == before


def test_scripts_need_no_session_for_a_public_project(web: Service, picture: Make) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{web.port}", timeout=20, trust_env=False) as script:
        said = script.post("/p/birds/predict", files={"file": ("a.jpg", picture(401))}, headers=JSON).json()
        for path, more in (("/feedback", {}), ("/label", {"label": "wren"})):  # with the cookie that it was given
            answer = script.post(path, json={"prediction_id": said["prediction_id"], **more})
            assert answer.json() == {"success": True, "message": "Thank you for your feedback!"}
        found = script.get(f"/predictions/{said['prediction_id']}", headers=JSON).json()
        assert (found["flagged"], found["user_label"]) == (True, "wren")


def test_a_picture_is_shown_to_its_visitor_to_members_and_by_a_link_alone(
    web: Service,
    backend: Backend,
    people: dict[str, str],
    tokens: dict[str, str],
    browser: Callable[[], Browser],
    picture: Make,
) -> None:
    mine, other, member = browser(), browser(), browser()
    said = mine.send(picture(402))
    member.sign_in(people[VIEWER])
    stranger = browser()
    stranger.sign_in(people["stranger"])
    other.send(picture(403))
    for kind in ("picture", "thumbnail"):
        address = f"/p/birds/images/{said['image_id']}/{kind}"
        for who, status in ((mine, 200), (member, 200), (other, 404), (stranger, 404), (browser(), 404)):
            answer = who.get(address)
            assert answer.status_code == status
            if status == 200:
                assert answer.headers["content-type"] == "image/jpeg"
                assert "private" in answer.headers["cache-control"]
    headers = {**JSON, "Authorization": f"Bearer {tokens[VIEWER]}"}
    link = web.send("GET", f"/p/birds/images/{said['image_id']}", headers=headers).json()["picture_url"]
    assert httpx.get(link, trust_env=False).status_code == 200  # whoever has the link
    assert other.get(link.replace(said["image_id"], "0" * 32)).status_code == 403
    assert other.get(link[:-1]).status_code == 403


def test_a_link_to_a_picture_ends_after_five_minutes(web: Service, sent: dict[str, Any], backend: Backend) -> None:
    assert rights.LINK_SECONDS <= 300
    key = backend.settings.require("closedloop_session_key")

    class Clock(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time()) - age

    for age, status in ((290, 200), (301, 403)):  # noqa: B007
        link = Clock(key, salt="picture").sign(f"birds/{sent['image_id']}").decode()
        assert web.send("GET", f"/p/birds/images/{sent['image_id']}/picture", params={"link": link}).status == status


def test_a_closed_project_asks_who_one_is(
    web: Service,
    backend: Backend,
    people: dict[str, str],
    tokens: dict[str, str],
    browser: Callable[[], Browser],
    picture: Make,
) -> None:
    closed = projects.parse_manifest(
        "{id: secret, title: 'Secret', kind: classification, classes: [a, b], access: closed}"
    )
    projects.add(backend.stores, closed, START)
    viewer = accounts.find(backend.stores, people[VIEWER])
    accounts.set_role(backend.stores, viewer, "secret", VIEWER, START)
    one = browser()
    assert one.get("/p/secret/").headers["location"].startswith("/sign-in")
    data = picture(404)
    assert web.upload(data, "/p/secret/predict").says(401, "project_closed")
    said = web.upload(data, "/p/secret/predict", Authorization=f"Bearer {tokens[VIEWER]}")
    assert said.status in (201, 202)  # inference may not have heard of the new project yet
    prediction_id = said.json()["prediction_id"]
    # The id alone, which would do for a public project, opens nothing here.
    assert web.send("GET", f"/predictions/{prediction_id}", headers=JSON).says(401, "project_closed")
    assert web.send("POST", "/feedback", json={"prediction_id": prediction_id}).says(401, "project_closed")
    assert web.send("POST", "/label", json={"prediction_id": prediction_id, "label": "a"}).says(401, "project_closed")
    link = accounts.invite(backend.stores, "secret", VISITOR, "owner@example.org", _now())
    assert one.get(f"/invitations/{link}").headers["location"] == "/p/secret/"
    assert one.get("/p/secret/").status_code == 200
    assert one.send(data, "secret")["project"] == "secret"
    (open_one,) = accounts.invitations(backend.stores, "secret", _now())
    accounts.uninvite(backend.stores, "secret", open_one.digest)
    assert one.get("/p/secret/").status_code == 303  # taken back
    stranger = browser()
    stranger.sign_in(people["stranger"])
    assert stranger.get("/p/secret/").status_code == 403


def test_a_visitor_removes_his_own_picture_alone(browser: Callable[[], Browser], picture: Make) -> None:
    mine, other = browser(), browser()
    said = mine.send(picture(405))
    other.send(picture(406))
    address = f"/predictions/{said['prediction_id']}/remove"
    assert other.post(address, "/p/birds/").status_code == 404
    assert mine.http.post(address, headers=JSON).json()["code"] == "form_outdated"
    assert mine.post(address, "/p/birds/").status_code == 303
    assert mine.http.get(f"/predictions/{said['prediction_id']}", headers=JSON).status_code == 404
    assert mine.get(f"/p/birds/images/{said['image_id']}/thumbnail").status_code == 404


def test_guessing_passwords_is_slowed_down(web: Service, backend: Backend, browser: Callable[[], Browser]) -> None:
    accounts.make(backend.stores, "guessed@example.org", PASSWORD, START)
    one = browser()
    said = [one.sign_in("guessed@example.org", f"guess number {n}").status_code for n in range(12)]
    assert said[0] == 401
    assert said[-1] == 429
    refused = one.sign_in("guessed@example.org")  # the right one, too: who waits cannot tell
    assert refused.status_code == 429
    assert "Try again in" in refused.text
    with backend.stores.db.write() as tx:  # the address is that of every other test
        from closedloop.storage import people

        people.forget_counts(tx, _now())


def test_uploads_are_limited_where_the_settings_say_so(backend: Backend, inference: Service, picture: Make) -> None:
    data = picture(407)

    @contextmanager
    def two(**settings: Any) -> Iterator[list[Service]]:
        with (
            running(backend, "flask_app", "closedloop_web_port", "/readyz", **settings) as first,
            running(backend, "flask_app", "closedloop_web_port", "/readyz", **settings) as second,
        ):
            yield [first, second]

    with two(closedloop_uploads_per_minute=3, closedloop_inference_budget=15.0) as workers:
        visitor = Browser(workers[0])
        visitor.get("/p/birds/")
        statuses = []
        for n in range(6):
            web = workers[n % 2]
            answer = visitor.http.post(
                f"http://127.0.0.1:{web.port}/p/birds/predict", files={"file": ("a.jpg", data)}, headers=JSON
            )
            statuses.append(answer.status_code)
        assert statuses[:3] == [201, 201, 201]
        assert 429 in statuses[3:]  # both workers count together
        assert answer.json()["code"] == "too_many_requests"
        assert int(answer.headers["retry-after"]) >= 1
        visitor.http.close()


def test_cookies_travel_by_https_where_the_page_did(backend: Backend, inference: Service) -> None:
    with running(backend, "flask_app", "closedloop_web_port", "/readyz", closedloop_proxies=1) as web:
        for scheme, secure in (("https", True), ("http", False)):
            answer = web.send("GET", "/sign-in", headers={"Accept": "text/html", "X-Forwarded-Proto": scheme})
            assert ("Secure" in answer.headers["set-cookie"]) == secure
            web.client.cookies.clear()
    with running(backend, "flask_app", "closedloop_web_port", "/readyz") as web:  # nobody stands before it
        answer = web.send("GET", "/sign-in", headers={"Accept": "text/html", "X-Forwarded-Proto": "https"})
        assert "Secure" not in answer.headers["set-cookie"]


def test_the_dashboard_as_json_and_csv(
    web: Service, backend: Backend, tokens: dict[str, str], sent: dict[str, Any]
) -> None:
    survey.take(backend.stores, projects.get(backend.stores, "birds"), _now())
    headers = {"Authorization": f"Bearer {tokens[VIEWER]}"}
    for table in ("releases", "weeks", "classes", "days", "queues"):
        rows = web.send("GET", f"/p/birds/dashboard/{table}.json", headers=headers).json()
        text = web.send("GET", f"/p/birds/dashboard/{table}.csv", headers=headers).body.decode()
        assert len(text.splitlines()) == len(rows) + 1
        if rows:
            assert set(text.splitlines()[0].split(",")) >= set(rows[0])
    assert web.send("GET", "/p/birds/dashboard/secrets.json", headers={**headers, **JSON}).says(404, "not_found")
    days = web.send("GET", "/p/birds/dashboard/days.json", headers=headers).json()
    assert days[-1]["pictures"] >= 1
    assert len(days) == FEWEST_DAYS  # a project of today has no sixty days to show


def test_an_owner_draws_a_random_sample_now(
    web: Service, backend: Backend, tokens: dict[str, str], sent: dict[str, Any]
) -> None:
    headers = {**JSON, "Authorization": f"Bearer {tokens[OWNER]}"}
    drawn = web.send("POST", "/p/birds/sample", headers=headers, data={"a": "b"}).json()
    assert drawn["frame"] >= drawn["drawn"] >= 1
    with backend.stores.db.read() as tx:
        asked = tx.execute(sa.select(tables.tasks.c.probability).where(tables.tasks.c.queue == RANDOM_SAMPLE)).all()
    assert [row.probability for row in asked] == [drawn["probability"]] * drawn["drawn"]
    again = web.send("POST", "/p/birds/sample", headers=headers, data={"a": "b"}).json()
    assert (again["frame"], again["drawn"]) == (0, 0)


@pytest.mark.parametrize(
    "query",
    [
        "until=9999-12-31",
        "since=0001-01-01",
        "since=yesterday",
        "at_least=nan",
        "at_most=1e999",
        "zone=99999",
        "after=x",
    ],
)
def test_a_filter_that_makes_no_sense_is_said(web: Service, tokens: dict[str, str], query: str) -> None:
    headers = {"Authorization": f"Bearer {tokens[VIEWER]}"}
    assert web.send("GET", f"/p/birds/images?{query}", headers={**headers, **JSON}).says(400, "bad_request")
    shown = web.send("GET", f"/p/birds/images?{query}", headers={**headers, "Accept": "text/html"})
    assert (shown.status, b"<html" in shown.body) == (400, True)


@pytest.mark.parametrize("prompts", ["robin: 2024-99-99", "robin: [!!python/object:os.system x]", "[" * 2000, "- 1"])
def test_prompts_that_are_none_are_a_fault_beside_their_field(
    people: dict[str, str], browser: Callable[[], Browser], prompts: str
) -> None:
    one = browser()
    one.sign_in(people[OWNER])
    fields = {"title": "Which bird?", "classes": "wren\nrobin", "access": "public", "prompts": prompts}
    answer = one.post("/p/birds/settings", "/p/birds/settings", **fields)
    assert answer.status_code == 422
    assert 'id="prompts-fault"' in answer.text


def test_exports_hold_what_the_filter_chose(
    web: Service, backend: Backend, tokens: dict[str, str], tmp_path: Any, picture: Make
) -> None:
    from closedloop import importing

    owls = projects.parse_manifest("{id: owls, title: Owls, kind: classification, classes: [barn owl, 'a/b', '..']}")
    projects.add(backend.stores, owls, START)
    accounts.set_role(backend.stores, accounts.find(backend.stores, "viewer@example.org"), "owls", VIEWER, START)
    (tmp_path / "barn owl").mkdir()
    for seed in range(3):
        (tmp_path / "barn owl" / f"{seed}.png").write_bytes(picture(500 + seed))
    importing.run(backend.stores, owls, tmp_path, _now)
    headers = {"Authorization": f"Bearer {tokens[VIEWER]}"}
    listed = web.send("GET", "/p/owls/images", headers={**headers, **JSON}).json()["pictures"]
    assert [one["answer"] for one in listed] == ["barn owl"] * 3
    text = web.send("GET", "/p/owls/images.csv?answered=true", headers=headers).body.decode()
    assert {line.split(",")[0] for line in text.splitlines()[1:]} == {one["image_id"] for one in listed}
    archive = zipfile.ZipFile(io.BytesIO(web.send("GET", "/p/owls/images.zip", headers=headers).body))
    assert archive.testzip() is None
    assert sorted(archive.namelist()) == sorted(f"barn owl/{one['image_id']}.jpg" for one in listed)
    again = tmp_path / "again"
    archive.extractall(again)
    taken = importing.run(backend.stores, owls, again, _now)  # what was exported can be imported
    assert (taken.added, taken.skipped, taken.not_classes) == (3, [], [])
    empty = web.send("GET", "/p/owls/images.csv?answered=false", headers=headers).body.decode()
    assert len(empty.splitlines()) == 1
    for wrong in ("label=nobody", "at_least=200", "since=yesterday", "order=random", "after=rubbish", "flagged=maybe"):
        answer = web.send("GET", f"/p/owls/images?{wrong}", headers={**headers, **JSON})
        assert answer.says(400, "bad_request")


def test_a_class_with_a_slash_keeps_its_folder() -> None:
    from flask_app.images import _folder

    names = ["a/b", "a%2Fb", "..", ".hidden", "barn owl", "Käuzchen", 'x:"y"']
    folders = [_folder(name) for name in names]
    assert len(set(folders)) == len(names)
    assert not any("/" in folder or folder.startswith(".") for folder in folders)
    assert folders[4:6] == ["barn owl", "Käuzchen"]


def test_every_page_has_an_owner_or_is_open_on_purpose(backend: Backend) -> None:
    """Who adds a page must say whose it is, here."""
    known = {
        path.replace("/p/birds/", "/p/<project_id>/").replace("{image}", "<image_id>") for path in (*PAGES, *FORMS)
    }
    known = {path.replace("weeks.", "<table>.") for path in known}
    known = {path.replace("classifier/r0001-00000000", "<head>/<release_id>") for path in known}
    open_on_purpose = {
        "/", "/p/<project_id>/", "/predict", "/p/<project_id>/predict", "/predictions/<prediction_id>",
        "/predictions/<prediction_id>/remove", "/p/<project_id>/sets", "/sets/<set_id>", "/sets/<set_id>/remove", "/feedback", "/feedback/undo", "/label", "/label/undo",
        "/p/<project_id>/images/<image_id>/picture", "/p/<project_id>/images/<image_id>/thumbnail",
        "/sign-in", "/sign-out", "/invitations/<token>", "/healthz", "/readyz", "/metrics", "/static/<path:filename>",
    }  # fmt: skip
    of_the_default_project = {"/dashboard"}
    of_ones_own = {"/account/password", "/account/tokens", "/account/tokens/remove"}
    rules = {rule.rule for rule in create_app(backend.settings).url_map.iter_rules()}
    assert rules == known | open_on_purpose | of_the_default_project | of_ones_own


def test_what_is_for_who_runs_the_machine_is_shown_to_no_visitor(
    backend: Backend, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"notices": ["`closedloop encoder use` changes it."], "encoder": {"knows_words": False}, "releases": []}
    monkeypatch.setattr(Inference, "releases", lambda _self: told)
    client = create_app(backend.settings).test_client()
    assert "closedloop encoder use" not in client.get("/p/birds/").text
    for who, token in tokens.items():
        page = client.get("/p/birds/", headers={"Authorization": f"Bearer {token}"}).text
        assert ("closedloop encoder use" in page) == allowed(VIEWER, who), who


def _now() -> Any:
    import datetime as dt

    return dt.datetime.now(dt.UTC)


def test_the_first_owner_signs_in_with_the_secret(people: dict[str, str], browser: Callable[[], Browser]) -> None:
    one = browser()
    assert one.sign_in(people["owner of everything"], OWNER_PASSWORD).status_code == 303
    assert one.get("/projects/new").status_code == 200


@pytest.mark.parametrize("field", ["email", "password", "next"])
def test_a_nul_in_a_form_is_refused(web: Service, browser: Callable[[], Browser], field: str) -> None:
    answer = browser().post("/sign-in", "/sign-in", **{field: "a\0b"})
    assert answer.status_code == 400
    assert web.send("GET", "/sign-in?next=%00", headers=JSON).says(400, "bad_request")
