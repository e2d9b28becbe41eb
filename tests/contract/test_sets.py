"""Sets over HTTP: sent, shown and taken back; what is refused, in the one shape, and that nothing of it is kept."""

import contextlib
import datetime as dt
import io
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from flask_app import bodies, context
from flask_app.bodies import MAX_BODY, MAX_BODY_OF_SET
from flask_app.refusals import MAX_HEARD
from flask_app.sets import _Unread
from PIL import Image
from werkzeug.datastructures import FileStorage

from closedloop import accounts
from closedloop import project as projects
from closedloop.accounts import VIEWER, VISITOR
from closedloop.image import MAX_BYTES
from closedloop.sets import MOST
from closedloop.storage import tables
from tests import choosing
from tests.choosing import Site
from tests.conftest import START
from tests.contract.conftest import FORM, Answer, read, request_bytes

Make = Callable[..., bytes]
JSON = {"Accept": "application/json"}
HTML = {"Accept": "text/html,*/*;q=0.8"}
NOBODY = "0" * 32
PETS = "{id: pets, title: 'Cat or dog?', kind: classification, classes: [cat, dog]}"
SECRET = "{id: secret, title: Secret, kind: selection, access: closed}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with choosing.site(tmp_path_factory.mktemp("sets")) as running:
        for manifest in (PETS, SECRET):
            projects.add(running.stores, projects.parse_manifest(manifest), START)
        yield running


@pytest.fixture
def site(alone: Site) -> Site:
    """The pages, and whoever chooses there is well."""
    alone.inference.away, alone.inference.ranks, alone.inference.crops = False, True, True
    return alone


@pytest.fixture
def browsers(site: Site) -> Iterator[Callable[..., httpx.Client]]:
    """Opens browsers, each with cookies of its own."""
    opened: list[httpx.Client] = []

    def open_one(**headers: str) -> httpx.Client:
        opened.append(httpx.Client(base_url=site.pages, timeout=30, trust_env=False, headers=headers))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def script(browsers: Callable[..., httpx.Client]) -> httpx.Client:
    return browsers(**JSON)


@pytest.fixture
def files(picture: Make, request: pytest.FixtureRequest) -> list[bytes]:
    """Three pictures that no other test sends."""
    first = int.from_bytes(request.node.name.encode()) % 10**6
    return [picture(first + number) for number in range(3)]


def send(client: httpx.Client, files: list[bytes], project: str = "covers", **headers: str) -> httpx.Response:
    parts = [("file", (f"{number}.png", data)) for number, data in enumerate(files)]
    return client.post(f"/p/{project}/sets", files=parts, headers=headers)


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """What an error in the one shape says."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert Answer(answer.status_code, headers, answer.content).says(status, code)
    return answer.json()["error"]


def contents(site: Site) -> dict[str, Any]:
    with site.stores.db.read() as tx:
        rows = {
            name: tx.execute(sa.select(sa.func.count()).select_from(tables.metadata.tables[name])).scalar_one()
            for name in ("sets", "set_pictures", "images", "suggestions", "proposals", "outbox", "tasks")
        }
    return {**rows, "objects": sorted(one.key for one in site.stores.objects.list("production"))}


@pytest.fixture
def nothing_kept(site: Site) -> Iterator[None]:
    before = contents(site)
    yield
    assert contents(site) == before


def form_token(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    return found[1]


# What is promised


def test_a_set_is_answered_by_the_contract(site: Site, script: httpx.Client, files: list[bytes]) -> None:
    answer = send(script, files)
    assert answer.status_code == 201
    said = answer.json()
    assert set(said) == {
        "ok", "set_id", "project", "image_ids", "status", "best", "confidence", "scores", "release", "crop"
    }  # fmt: skip
    assert (said["ok"], said["project"], said["status"], said["confidence"]) == (True, "covers", "done", 0.71)
    assert re.fullmatch("[0-9a-f]{32}", said["set_id"])
    assert len(set(said["image_ids"])) == 3
    assert set(said["scores"]) == set(said["image_ids"])
    assert said["best"] == max(said["scores"], key=said["scores"].get)
    assert said["crop"]["box"] == {"x1": 0.2, "y1": 0.1, "x2": 0.75, "y2": 0.9}
    assert (said["crop"]["confidence"], said["crop"]["release"]) == (0.64, "r0002-4e5f6a7b")
    again = script.get(f"/sets/{said['set_id']}")
    assert (again.status_code, again.json()) == (200, said)
    stored = [one.key for one in site.stores.objects.list("production/covers")]
    assert {f"production/covers/unclassified/{id_}.jpg" for id_ in said["image_ids"]} <= set(stored)


def test_the_same_set_again_is_the_same_set(site: Site, script: httpx.Client, files: list[bytes]) -> None:
    first = send(script, files)
    before, asked = contents(site), len(site.inference.asked)
    again = send(script, files[::-1])
    assert (again.status_code, again.json()) == (201, first.json())
    assert (contents(site), len(site.inference.asked)) == (before, asked)


def test_two_and_twelve_pictures_are_a_set(script: httpx.Client, picture: Make) -> None:
    assert send(script, [picture(31_000), picture(31_001)]).status_code == 201
    assert len(send(script, [picture(32_000 + n) for n in range(12)]).json()["image_ids"]) == 12


def test_a_set_is_kept_while_nobody_answers(site: Site, script: httpx.Client, files: list[bytes]) -> None:
    site.inference.away = True
    answer = send(script, files)
    said = answer.json()
    assert (answer.status_code, said["status"], said["best"], said["crop"]) == (202, "pending", None, None)
    asked = script.get(f"/sets/{said['set_id']}", headers={"HX-Request": "true"})
    assert (asked.status_code, asked.content) == (204, b"")
    site.inference.away = False
    assert send(script, files).json()["status"] == "done"
    shown = script.get(f"/sets/{said['set_id']}", headers={"HX-Request": "true"})
    assert (shown.status_code, "is the best" in shown.text) == (200, True)


def test_without_a_release_nobody_claims_to_know(site: Site, script: httpx.Client, files: list[bytes]) -> None:
    site.inference.ranks = False
    said = send(script, files).json()
    assert (said["status"], said["best"], said["release"], said["crop"]) == ("done", None, None, None)


def test_without_a_crop_proposer_the_best_is_told_alone(site: Site, script: httpx.Client, files: list[bytes]) -> None:
    site.inference.crops = False
    said = send(script, files).json()
    assert said["best"]
    assert said["crop"] is None


def test_htmx_gets_a_fragment_and_a_browser_without_javascript_a_page(
    browsers: Callable[..., httpx.Client], files: list[bytes]
) -> None:
    part = send(browsers(), files, **{"HX-Request": "true"})
    assert part.status_code == 201
    assert part.text.lstrip().startswith('<li class="card item set"')
    assert "<html" not in part.text
    browser = browsers(**HTML)
    sent_on = send(browser, files)
    assert sent_on.status_code == 303
    page = browser.get(sent_on.headers["location"])
    assert (page.status_code, page.text.count("<html")) == (200, 1)
    assert "Send another set" in page.text


# What is refused


@pytest.mark.usefixtures("nothing_kept")
def test_one_picture_and_thirteen_are_no_set(script: httpx.Client, files: list[bytes], picture: Make) -> None:
    assert "this one has 1" in refused(send(script, files[:1]), 422, "set_size")
    assert "this one has 13" in refused(send(script, [picture(n) for n in range(13)]), 422, "set_size")


@pytest.mark.usefixtures("nothing_kept")
def test_the_same_picture_twice_is_named(script: httpx.Client, files: list[bytes]) -> None:
    assert "pictures 1 and 3" in refused(send(script, [*files[:2], files[0]]), 422, "same_picture_twice")


BROKEN = {
    "empty": (b"", 400, "no_picture"),
    "text": (b"I am a picture", 415, "not_a_picture"),
    "cut off": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", 422, "broken_picture"),
    "too large": (b"\xff\xd8\xff" + bytes(MAX_BYTES), 413, "too_large"),
}


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize(("data", "status", "code"), BROKEN.values(), ids=BROKEN)
def test_a_broken_one_among_good_ones_is_named_by_its_number(
    script: httpx.Client, files: list[bytes], data: bytes, status: int, code: str
) -> None:
    sent = [files[0], data, files[1]]
    assert refused(send(script, sent), status, code).startswith("Picture 2 of the set: ")
    part = send(script, sent, **{"HX-Request": "true"})
    assert (part.status_code, part.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert 'data-pictures="2"' in part.text
    assert "Picture 2: " in part.text
    page = send(script, sent, Accept="text/html")
    assert (page.status_code, "Picture 2: " in page.text) == (status, True)


@pytest.mark.usefixtures("nothing_kept")
def test_a_set_without_files_is_refused(script: httpx.Client, files: list[bytes]) -> None:
    path = "/p/covers/sets"
    refused(script.post(path), 400, "no_picture")
    refused(script.post(path, files={"picture": ("a.png", files[0])}), 400, "no_picture")
    refused(script.post(path, data={"file": "a.png"}), 415, "not_multipart")
    refused(script.post(path, content=files[0], headers={"Content-Type": "image/png"}), 415, "not_multipart")
    refused(script.post(path, content=b"no part", headers={"Content-Type": FORM}), 400, "no_picture")
    nothing = b'--b0undary\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--b0undary--\r\n'
    refused(script.post(path, content=nothing, headers={"Content-Type": FORM}), 400, "no_picture")


@pytest.mark.usefixtures("nothing_kept")
def test_a_set_is_for_a_selection_and_a_picture_for_a_classification(script: httpx.Client, files: list[bytes]) -> None:
    assert "is a classification" in refused(send(script, files, "pets"), 422, "wrong_kind")
    for path in ("/predict", "/p/covers/predict"):
        said = refused(script.post(path, files={"file": ("a.png", files[0])}), 422, "wrong_kind")
        assert "is a selection" in said


@pytest.mark.usefixtures("nothing_kept")
def test_what_is_not_there_is_404(script: httpx.Client, files: list[bytes]) -> None:
    refused(send(script, files, "nobody"), 404, "unknown_project")
    for id_ in (NOBODY, "x" * 5_000, "' OR 1=1 --", "covers"):
        refused(script.get(f"/sets/{id_}"), 404, "unknown_set")
    refused(script.get("/sets/%00"), 404, "not_found")
    gone = script.get(f"/sets/{NOBODY}", headers={"HX-Request": "true"})
    assert (gone.status_code, gone.headers["hx-reswap"]) == (404, "delete")


@pytest.mark.usefixtures("nothing_kept")
def test_another_sites_page_sends_no_set(script: httpx.Client, files: list[bytes]) -> None:
    refused(send(script, files, **{"Sec-Fetch-Site": "cross-site"}), 403, "cross_site")


# How large


def test_a_whole_set_may_be_larger_than_a_picture(script: httpx.Client) -> None:
    def noise(number: int) -> bytes:
        file = io.BytesIO()
        Image.effect_noise((3_000, 2_200), 90 + number).save(file, "PNG")
        return file.getvalue()

    files = [noise(number) for number in range(3)]
    assert all(len(data) < MAX_BYTES for data in files)
    assert sum(map(len, files)) > MAX_BODY
    assert send(script, files).status_code == 201


def test_a_set_announced_too_large_is_refused_before_it_comes(site: Site) -> None:
    assert MAX_BODY_OF_SET >= MOST * MAX_BYTES
    for path, length, limit in (
        ("/p/covers/sets", MAX_BODY_OF_SET + MAX_HEARD, "120 MB"),
        ("/p/covers/predict", MAX_HEARD + 1, "10 MB"),
        ("/sets/x/remove", MAX_HEARD + 1, "10 MB"),
    ):
        answer = raw(site, request_bytes("POST", path, Content_Type=FORM, Content_Length=length))
        assert answer.says(413, "too_large")
        assert limit in answer.json()["error"]


def test_a_set_without_a_length_is_refused_once_it_is_too_large(site: Site) -> None:
    head = request_bytes("POST", "/p/covers/sets", Content_Type=FORM, Transfer_Encoding="chunked")
    chunk = b"400000\r\n" + bytes(2**22) + b"\r\n"
    assert raw(site, head, *[chunk] * (MAX_BODY_OF_SET // 2**22 + 1)).says(413, "too_large")


def raw(site: Site, *parts: bytes) -> Answer:
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # who refuses does not wait for the rest; what he said can be read
            for part in parts:
                connection.sendall(part)
        return read(connection)


def test_the_limit_is_that_of_the_address() -> None:
    for path in ("/p/covers/sets", "/p/x/sets"):
        assert (bodies.limit(path), bodies.megabytes(path)) == (MAX_BODY_OF_SET, 120)
    for path in ("/p/covers/sets/", "/sets/x/remove", "/p/a/b/sets", "/predict", "/p/sets", "/p/covers/setsx"):
        assert (bodies.limit(path), bodies.megabytes(path)) == (MAX_BODY, 10)


def test_files_are_read_one_at_a_time_and_no_further_than_a_picture_goes() -> None:
    streams = [io.BytesIO(bytes(2 * MAX_BYTES)), io.BytesIO(b"small")]
    files = _Unread([FileStorage(stream) for stream in streams])
    assert [stream.tell() for stream in streams] == [0, 0]
    assert (len(files), len(files[0]), files[1], files[1]) == (2, MAX_BYTES + 1, b"small", b"small")
    assert len(list(files)) == 2


def test_each_picture_of_a_set_is_counted(
    site: Site, browsers: Callable[..., httpx.Client], picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = site.app.extensions[context.EXTENSION]
    limited = parts["settings"].model_copy(update={"closedloop_uploads_per_minute": 7})
    monkeypatch.setitem(parts, "settings", limited)
    visitor = browsers(**JSON)
    visitor.get("/", headers=HTML)  # which gives it its cookie
    statuses = [send(visitor, [picture(50_000 + 10 * n + m) for m in range(3)]).status_code for n in range(3)]
    assert statuses == [201, 201, 429]


def test_a_set_larger_than_the_limit_can_be_sent_all_the_same(
    site: Site, browsers: Callable[..., httpx.Client], picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = site.app.extensions[context.EXTENSION]
    limited = parts["settings"].model_copy(update={"closedloop_uploads_per_minute": 2})
    monkeypatch.setitem(parts, "settings", limited)
    visitor = browsers(**JSON)
    visitor.get("/", headers=HTML)
    statuses = [send(visitor, [picture(60_000 + 10 * n + m) for m in range(3)]).status_code for n in range(2)]
    assert statuses == [201, 429]


# Whose it is


def test_a_set_is_shown_to_its_visitor_and_to_members_alone(
    site: Site, browsers: Callable[..., httpx.Client], files: list[bytes]
) -> None:
    mine, other, owner = browsers(**JSON), browsers(**JSON), browsers(Authorization=f"Bearer {owner_token(site)}")
    said = send(mine, files).json()
    for kind in ("picture", "thumbnail"):
        address = f"/p/covers/images/{said['image_ids'][0]}/{kind}"
        assert [who.get(address).status_code for who in (mine, other, owner)] == [200, 404, 200]
    pages = [who.get(f"/sets/{said['set_id']}", headers=HTML).text for who in (mine, other, owner)]
    assert ["/thumbnail" in page for page in pages] == [True, False, True]
    assert ["Remove for good" in page for page in pages] == [True, False, True]
    assert said["set_id"] in mine.get("/", headers=HTML).text
    assert said["set_id"] not in other.get("/", headers=HTML).text


def test_who_sends_the_same_pictures_as_another_sees_them_and_takes_back_that_he_sent_them(
    browsers: Callable[..., httpx.Client], files: list[bytes]
) -> None:
    first = browsers(**JSON)
    said = send(first, files).json()
    other = browsers()
    part = send(other, files, **{"HX-Request": "true"}).text
    assert said["set_id"] in part
    addresses = re.findall(r'src="([^"]+)"', part)
    assert len(addresses) == 4  # of each a small one, and the best large
    assert {other.get(one.replace("&amp;", "&")).status_code for one in addresses} == {200}
    assert "Remove for good" in part
    token = {"csrf_token": form_token(other.get("/", headers=HTML).text)}
    assert other.post(f"/sets/{said['set_id']}/remove", data=token, headers=HTML).status_code == 303
    assert said["set_id"] not in other.get("/p/covers", headers=HTML).text
    assert other.get(addresses[0]).status_code == 404
    assert first.get(f"/sets/{said['set_id']}").json() == said


def test_a_visitor_takes_back_his_own_set_alone(
    site: Site, browsers: Callable[..., httpx.Client], files: list[bytes]
) -> None:
    mine, other = browsers(**JSON), browsers(**JSON)
    said = send(mine, files).json()
    address = f"/sets/{said['set_id']}/remove"
    refused(mine.post(address), 400, "form_outdated")
    tokens = [form_token(who.get("/", headers=HTML).text) for who in (mine, other)]
    refused(other.post(address, data={"csrf_token": tokens[1]}), 404, "unknown_set")
    assert mine.post(address, data={"csrf_token": tokens[0]}, headers=HTML).status_code == 303
    refused(mine.get(f"/sets/{said['set_id']}"), 404, "unknown_set")
    for image_id in said["image_ids"]:
        assert mine.get(f"/p/covers/images/{image_id}/thumbnail").status_code == 404
    refused(mine.post(address, data={"csrf_token": tokens[0]}), 404, "unknown_set")
    assert send(mine, files).status_code == 201  # it may come again


def test_htmx_is_told_that_a_set_is_gone(browsers: Callable[..., httpx.Client], files: list[bytes]) -> None:
    mine = browsers(**JSON)
    said = send(mine, files).json()
    token = form_token(mine.get("/", headers=HTML).text)
    part = mine.post(f"/sets/{said['set_id']}/remove", data={"csrf_token": token}, headers={"HX-Request": "true"})
    assert (part.status_code, "Removed, with everything" in part.text) == (200, True)


def test_an_owner_removes_any_set_and_a_viewer_none(
    site: Site, browsers: Callable[..., httpx.Client], files: list[bytes]
) -> None:
    said = send(browsers(**JSON), files).json()
    address = f"/sets/{said['set_id']}/remove"
    viewer = accounts.make(site.stores, "viewer@example.org", "a password of twelve", START)
    accounts.set_role(site.stores, viewer, "covers", VIEWER, START)
    token = accounts.make_token(site.stores, viewer, "test", START)
    refused(browsers(**JSON, Authorization=f"Bearer {token}").post(address), 403, "not_allowed")
    owner = browsers(**JSON, Authorization=f"Bearer {owner_token(site)}")
    assert owner.post(address).json() == {"ok": True}
    refused(owner.get(f"/sets/{said['set_id']}"), 404, "unknown_set")


def test_a_closed_project_asks_who_one_is(
    site: Site, browsers: Callable[..., httpx.Client], script: httpx.Client, files: list[bytes]
) -> None:
    refused(send(script, files, "secret"), 401, "project_closed")
    owner = browsers(**JSON, Authorization=f"Bearer {owner_token(site)}")
    said = send(owner, files, "secret").json()
    assert said["project"] == "secret"
    for path in (f"/sets/{said['set_id']}", f"/sets/{said['set_id']}/remove"):
        asked = script.get(path) if path.endswith(said["set_id"]) else script.post(path, headers={"Authorization": ""})
        assert asked.json()["code"] in ("project_closed", "form_outdated")
    assert script.get("/p/secret/", headers=HTML).status_code == 303
    link = accounts.invite(site.stores, "secret", VISITOR, "owner@example.org", dt.datetime.now(dt.UTC))
    guest = browsers(**JSON)
    guest.get(f"/invitations/{link}")
    assert guest.get("/p/secret/", headers=HTML).status_code == 200
    assert send(guest, files[:2], "secret").status_code == 201
    assert guest.get(f"/sets/{said['set_id']}").status_code == 200


def owner_token(site: Site) -> str:
    owner = accounts.find(site.stores, choosing.OWNER)
    return accounts.make_token(site.stores, owner, "test", START)
