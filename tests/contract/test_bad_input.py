"""Whatever is sent to the pages: a plain refusal in the one shape, nothing kept, and they go on answering."""

import json
import socket
import time
from collections.abc import Iterator

import pytest
from flask_app import create_app
from flask_app.app import MAX_BODY
from flask_app.refusals import MAX_HEARD

from closedloop.image import MAX_BYTES
from tests.contract.conftest import FORM, Backend, Service, multipart, read, request_bytes

pytestmark = pytest.mark.usefixtures("nothing_kept")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW")
NOBODY = "0" * 32


@pytest.fixture(autouse=True)
def still_well(web: Service) -> Iterator[None]:
    """After every bad request: the process answers and its log tells of no failure."""
    known = len(web.failures())
    yield
    assert web.send("GET", "/healthz").status == 200
    assert web.failures()[known:] == []


def address(rule: str) -> str:
    known = {
        "<project_id>": "pets",
        "<prediction_id>": NOBODY,
        "<set_id>": NOBODY,
        "<image_id>": NOBODY,
        "<token>": NOBODY,
        "<table>": "weeks",
        "<head>": "classifier",
        "<release_id>": "r0001-00000000",
        "<path:filename>": "icon.svg",
    }
    for name, value in known.items():
        rule = rule.replace(name, value)
    return rule


def test_every_route_refuses_every_wrong_method(web: Service, backend: Backend) -> None:
    routes: dict[str, set[str]] = {}
    for rule in create_app(backend.settings).url_map.iter_rules():
        routes.setdefault(rule.rule, set()).update(rule.methods or ())
    assert len(routes) >= 9
    for rule, taken in routes.items():
        assert "<" not in address(rule), f"this test does not know how to fill in {rule}"
        for method in set(METHODS) - taken:
            answer = web.send(method, address(rule), headers={"Accept": "application/json"})
            assert answer.says(405, "method_not_allowed")
            assert set(answer.headers["allow"].split(", ")) == taken


def test_every_posting_route_refuses_emptiness_and_rubbish(web: Service, backend: Backend) -> None:
    rubbish = (
        ("", b""),
        ("application/json", b""),
        ("application/json", b"\xff\xfe\x00"),
        ("application/json", b'{"prediction_id":'),
        ("text/plain", b"hello"),
        ("application/x-www-form-urlencoded", b"%%%=&&&"),
        ("multipart/form-data", b"no boundary"),
        (FORM, b"no part"),
        ("nonsense", b"\x00" * 100),
    )
    for rule in create_app(backend.settings).url_map.iter_rules():
        if "POST" in (rule.methods or ()):
            for kind, body in rubbish:
                answer = web.send("POST", address(rule.rule), content=body, headers={"Content-Type": kind})
                assert answer.status in (400, 415, 422), (rule.rule, kind, body, answer)
                assert answer.says(answer.status)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nowhere", "not_found"),
        ("/p/nobody/", "unknown_project"),
        ("/p/PETS/", "unknown_project"),
        ("/p/%00/", "not_found"),
        ("/p/%ff%fe/", "unknown_project"),
        ("/p/<script>alert(1)</script>/", "not_found"),
        ("/p/" + "x" * 5_000 + "/", "unknown_project"),
        ("/p/..%2f..%2fetc/", "not_found"),
        (f"/predictions/{NOBODY}", "unknown_prediction"),
        ("/predictions/" + "9" * 5_000, "unknown_prediction"),
        ("/predictions/%00", "not_found"),
        ("/predictions/' OR 1=1 --", "unknown_prediction"),
        ("/static/../app.py", "not_found"),
        ("/static/%2e%2e/%2e%2e/app.py", "not_found"),
        ("/static/%00", "not_found"),
        ("/static/" + "x" * 5_000, "not_found"),
    ],
)
def test_what_is_not_there_is_404(web: Service, path: str, code: str) -> None:
    assert web.raw_request("GET", path.replace(" ", "%20"), Connection="close").says(404, code)


def test_an_upload_to_an_unknown_project_is_404(web: Service, jpeg: bytes) -> None:
    assert web.upload(jpeg, "/p/nobody/predict").says(404, "unknown_project")


NO_PICTURES = {
    "empty": (b"", 400, "no_picture"),
    "text": (b"I am a picture", 415, "not_a_picture"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not_a_picture"),
    "cut off": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", 422, "broken_picture"),
    "10 MiB and one byte": (b"\xff\xd8\xff" + bytes(MAX_BYTES - 2), 413, "too_large"),
}


@pytest.mark.parametrize(("data", "status", "code"), NO_PICTURES.values(), ids=NO_PICTURES)
def test_a_file_that_is_no_picture_is_refused(web: Service, data: bytes, status: int, code: str) -> None:
    assert web.upload(data).says(status, code)


def test_the_file_must_be_in_its_field(web: Service, jpeg: bytes) -> None:
    accept = {"Accept": "application/json"}
    assert web.send("POST", "/predict", headers=accept).says(400, "no_picture")
    assert web.send("POST", "/predict", files={"picture": ("a.jpg", jpeg)}, headers=accept).says(400, "no_picture")
    assert web.send("POST", "/predict", data={"file": "a.jpg"}, headers=accept).says(415, "not_multipart")
    assert web.send("POST", "/predict", content=jpeg, headers={"Content-Type": "image/jpeg"}).says(415, "not_multipart")
    not_a_file = b'--b0undary\r\nContent-Disposition: form-data; name="file"\r\n\r\na.jpg\r\n--b0undary--\r\n'
    assert web.send("POST", "/predict", content=not_a_file, headers={"Content-Type": FORM}).says(400, "no_picture")


BAD_MULTIPART = {
    "no boundary": ("multipart/form-data", multipart(b"x")),
    "empty boundary": ("multipart/form-data; boundary=", multipart(b"x")),
    "another boundary": ("multipart/form-data; boundary=another", multipart(b"x")),
    "boundary of rubbish": ("multipart/form-data; boundary=\xff\x01", multipart(b"x")),
    "cut off in the head": (FORM, multipart(b"x")[:40]),
    "cut off in the file": (FORM, multipart(b"x" * 100)[:120]),
    "no end": (FORM, multipart(b"x").replace(b"--b0undary--", b"")),
    "no disposition": (FORM, b"--b0undary\r\n\r\nx\r\n--b0undary--\r\n"),
    "head of 100 kB": (FORM, b"--b0undary\r\nX: " + b"x" * 100_000 + b"\r\n\r\nx\r\n--b0undary--\r\n"),
    "5,000 parts": (FORM, multipart(b"x", "other").removesuffix(b"--\r\n") * 5_000),
    "a charset of nobody": (FORM, multipart(b"x").replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain; charset=x-y\r\n\r\n", 1)),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "body"), BAD_MULTIPART.values(), ids=BAD_MULTIPART)
def test_bad_multipart_is_refused(web: Service, kind: str, body: bytes) -> None:
    answer = web.raw_request("POST", "/predict", body, Content_Type=kind, Content_Length=len(body))
    assert answer.status in (400, 413, 415)
    assert answer.says(answer.status)


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "..\\..\\windows\\win.ini", "/etc/passwd", "x" * 10_000 + ".jpg", "<b>.jpg", "%00.jpg"],
)
def test_a_files_name_means_nothing(web: Service, backend: Backend, jpeg: bytes, name: str) -> None:
    body = multipart(b"no picture", filename=name)
    refused = web.raw_request("POST", "/predict", body, Content_Type=FORM, Content_Length=len(body))
    assert refused.says(415, "not_a_picture")
    assert name[:20] not in refused.json()["error"]


@pytest.mark.parametrize("length", ["-1", "ten", "1e3", "0x10", "99999999999999999999999", "5, 6"])
def test_a_content_length_of_rubbish_is_refused(web: Service, length: str) -> None:
    answer = web.raw_request("POST", "/predict", multipart(b"x"), Content_Type=FORM, Content_Length=length)
    assert answer.status in (400, 413)
    assert answer.says(answer.status)


def test_a_body_shorter_than_announced_ends_without_harm(web: Service, jpeg: bytes) -> None:
    body = multipart(jpeg)
    with web.connect() as connection:
        head = request_bytes("POST", "/predict", body, Content_Type=FORM, Content_Length=len(body) + 1_000)
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


def test_a_body_longer_than_announced_is_cut_and_refused(web: Service, jpeg: bytes) -> None:
    body = multipart(jpeg)
    answer = web.raw_request("POST", "/predict", body, Content_Type=FORM, Content_Length=200)
    assert answer.status in (400, 422)
    assert answer.says(answer.status)


@pytest.mark.parametrize("path", ["/predict", "/feedback", "/label", "/p/pets/predict"])
@pytest.mark.parametrize(
    "header", [{"Content_Length": MAX_HEARD + 1}, {"Content_Length": MAX_BODY, "Expect": "100-continue"}]
)
def test_a_body_announced_too_large_is_refused_before_it_comes(
    web: Service, path: str, header: dict[str, object]
) -> None:
    assert web.raw_request("POST", path, Content_Type=FORM, **header).says(413, "too_large")


def test_a_chunked_body_is_refused_once_it_is_too_large(web: Service) -> None:
    head = request_bytes("POST", "/predict", Content_Type=FORM, Transfer_Encoding="chunked")
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    with web.connect() as connection:
        connection.sendall(head)
        for _ in range(MAX_BODY // 2**20 + 1):
            connection.sendall(chunk)
        assert read(connection).says(413, "too_large")


@pytest.mark.parametrize("header", [{}, {"HX_Request": "true"}], ids=["program", "page"])
def test_a_browser_hears_why_its_upload_is_too_large(web: Service, header: dict[str, str]) -> None:
    """It sends all before it listens; answered while it sends, it would show a broken connection."""
    head = request_bytes("POST", "/predict", Content_Type=FORM, Content_Length=40 * 2**20, **header)
    with web.connect() as connection:
        connection.sendall(head)
        for _ in range(40):
            connection.sendall(bytes(2**20))
        answer = read(connection)
    assert b"larger than 10 MB" in answer.body
    assert (answer.status, b'role="alert"' in answer.body) == (413, bool(header))
    assert header or answer.says(413, "too_large")


@pytest.mark.parametrize("encoding", ["gzip", "chunked, gzip", "rubbish"])
def test_a_strange_transfer_encoding_is_refused(web: Service, encoding: str) -> None:
    assert web.raw_request("POST", "/predict", b"x", Transfer_Encoding=encoding).says(400, "bad_request")


def test_broken_chunks_are_refused(web: Service) -> None:
    answer = web.raw_request("POST", "/predict", b"zz\r\nhello\r\n0\r\n\r\n", Transfer_Encoding="chunked")
    assert answer.says(400, "bad_request")


def test_four_slow_uploads_do_not_keep_healthz_from_answering(web: Service, jpeg: bytes) -> None:
    body = multipart(jpeg)
    slow = [web.connect() for _ in range(4)]
    try:
        for connection in slow:
            connection.sendall(request_bytes("POST", "/predict", Content_Type=FORM, Content_Length=len(body)))
        for sent in range(20):
            for connection in slow:
                connection.sendall(body[sent : sent + 1])
            began = time.monotonic()
            assert web.send("GET", "/healthz").status == 200
            assert time.monotonic() - began < 1
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize("header", [{"X_Long": "x" * 40_000}, {"Cookie": "a=" + "b" * 100_000}])
def test_an_oversized_header_is_refused(web: Service, header: dict[str, str]) -> None:
    with web.connect() as connection:
        connection.sendall(request_bytes("GET", "/", **header)[:33_000])
        assert read(connection).says(400, "bad_request")


@pytest.mark.parametrize(
    "data",
    [
        b"\r\nrubbish\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello TLS\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(web: Service, data: bytes) -> None:
    answer = web.raw(data, end=True)
    assert answer.status in (200, 400)
    assert answer.status == 200 or answer.says(400)


@pytest.mark.parametrize("accept", ["application/json", "text/html", "*/*"])
@pytest.mark.parametrize("host", ["<script>", "a b", "x" * 1_000, "[::1", "a:b:c", ""])
def test_a_strange_host_is_no_accident(web: Service, host: str, accept: str) -> None:
    answer = web.raw_request("GET", "/nowhere", Host=host, Accept=accept, Connection="close")
    assert answer.status in (400, 404)
    assert b"<script>" not in answer.body


@pytest.mark.parametrize(
    "key", ["", "x" * 201, "a\tb", "a\x7fb", "caf\xe9\x80"], ids=["empty", "long", "tab", "delete", "control"]
)
def test_a_bad_idempotency_key_is_refused(web: Service, jpeg: bytes, key: str) -> None:
    body = multipart(jpeg)
    answer = web.raw_request(
        "POST", "/predict", body, Content_Type=FORM, Content_Length=len(body), Idempotency_Key=key, Connection="close"
    )
    assert answer.says(400, "bad_request")


BAD_JSON = {
    "NaN": b'{"prediction_id": NaN}',
    "Infinity": b'{"prediction_id": -Infinity}',
    "number": b'{"prediction_id": 7}',
    "null": b'{"prediction_id": null}',
    "object": b'{"prediction_id": {"$gt": ""}}',
    "nothing": b"{}",
    "list": b"[]",
    "list of it": b'[{"prediction_id": "x"}]',
    "text": b'"x"',
    "lone null": b"null",
    "deep": b'{"prediction_id": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "long number": b"9" * 60_000,
    "broken": b'{"prediction_id": "x"',
    "not UTF-8": b'{"prediction_id": "\xff"}',
    "half a character": b'{"prediction_id": "\\ud800"}',
    "a zero character": b'{"prediction_id": "a\\u0000b"}',
    "too long": json.dumps({"prediction_id": "x" * 65}).encode(),
    "too large": b" " * 70_000 + b"{}",
}


@pytest.mark.parametrize("path", ["/feedback", "/label"])
@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_is_refused(web: Service, path: str, body: bytes) -> None:
    answer = web.send("POST", path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status in (400, 413, 422)
    assert answer.says(answer.status)


@pytest.mark.parametrize("id_", [NOBODY, "", "x", "' OR ''='", "<script>", "é" * 30])
def test_feedback_on_an_unknown_prediction_is_404(web: Service, id_: str) -> None:
    assert web.send("POST", "/feedback", json={"prediction_id": id_}).says(404, "unknown_prediction")
    assert web.send("POST", "/label", json={"prediction_id": id_, "label": "cat"}).says(404, "unknown_prediction")
    form = web.send("POST", "/feedback", data={"prediction_id": id_}, headers={"Accept": "application/json"})
    assert form.says(404, "unknown_prediction")


@pytest.mark.parametrize(
    "label", ["wren", "", "CAT", "cat ", "unknown", "<script>alert(1)</script>", "{0.__class__}", "\0"]
)
def test_a_label_that_is_no_class_of_the_project_is_refused(web: Service, prediction_id: str, label: str) -> None:
    body = {"prediction_id": prediction_id, "label": label}
    assert web.send("POST", "/label", json=body).says(422, "unknown_class")
    page = web.send("POST", "/label", data=body, headers={"HX-Request": "true"})
    assert page.status == 422
    assert b"<script>" not in page.body
    for wrong in (7, None, ["cat"], "x" * 201):
        assert web.send("POST", "/label", json={**body, "label": wrong}).says(422, "invalid")


def test_people_get_a_page_and_htmx_a_fragment(web: Service) -> None:
    page = web.send("GET", "/p/nobody/", headers={"Accept": "text/html"})
    assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert b"There is no project" in page.body
    part = web.send("POST", "/predict", headers={"HX-Request": "true"})
    assert (part.status, b"<html" in part.body, b'role="alert"' in part.body) == (400, False, True)


def test_an_error_takes_the_place_of_nothing_on_the_page(web: Service) -> None:
    """What was flagged or labelled stays as it is; a picture that is gone, and asks for its answer, goes."""
    body = {"prediction_id": "f" * 32}
    flagged = web.send("POST", "/feedback", data=body, headers={"HX-Request": "true"})
    assert (flagged.status, flagged.headers["hx-retarget"], flagged.headers["hx-reswap"]) == (
        404,
        "#trouble",
        "innerHTML",
    )
    asked = web.send("GET", f"/predictions/{'f' * 32}", headers={"HX-Request": "true"})
    assert (asked.status, asked.headers["hx-reswap"], "hx-retarget" in asked.headers) == (404, "delete", False)


@pytest.mark.parametrize("referrer", ["http://[", "//[::1", "http://127.0.0.1:99999/", "\\"])
def test_a_referrer_of_rubbish_leads_back_to_the_first_page(web: Service, referrer: str) -> None:
    answer = web.send("POST", "/predict", headers={"Accept": "text/html", "Referer": referrer})
    assert answer.status == 400
    assert b'href="/"' in answer.body
