"""The inference service holds to its OpenAPI and to the one error shape, whatever is sent."""

import base64
import datetime as dt
import re
import socket
from collections.abc import Callable, Iterator

import pytest
import schemathesis
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, load_all_checks

from closedloop import project as projects
from closedloop.storage import pictures, tables, vectors
from tests.conftest import START
from tests.contract.conftest import FORM, Answer, Backend, Service, multipart, read, request_bytes
from tests.waiting import wait_for

MAX_BODY = 16 * 2**20  # imported from the service, it would load torch into the tests
# That a body which is no picture is refused is in no schema: what may be taken cannot be asked of it.
NOT_ASKED = {"positive_data_acceptance"}
SCENES = "{id: scenes, title: 'Which is best?', kind: selection}"
RANK = "/v1/rank?project=scenes"
ABOUT_ONE_PICTURE = ["/v1/predict?project=pets", "/v1/crop?project=scenes", "/v1/embed", "/v1/similar?project=pets"]
Make = Callable[..., bytes]


@pytest.fixture(scope="module", autouse=True)
def scenes(backend: Backend, inference: Service) -> Iterator[None]:
    """A selection project, while this module's tests run."""
    projects.add(backend.stores, projects.parse_manifest(SCENES), START)
    wait_for(lambda: len(inference.send("GET", "/v1/releases").json()["releases"]) == 4, 60, "the project")
    yield
    with backend.stores.db.write() as tx:
        for table in reversed(tables.metadata.sorted_tables):
            if "project_id" in table.c:
                tx.execute(sa.delete(table).where(table.c.project_id == "scenes"))
        tx.execute(sa.delete(tables.projects).where(tables.projects.c.id == "scenes"))
    wait_for(lambda: len(inference.send("GET", "/v1/releases").json()["releases"]) == 2, 60, "it to be gone")


@pytest.fixture(autouse=True)
def still_well(inference: Service) -> Iterator[None]:
    """After every request: the process answers and its log tells of no failure."""
    known = len(inference.failures())
    yield
    assert inference.send("GET", "/healthz").status == 200
    assert inference.failures()[known:] == []


def test_every_operation_does_what_its_schema_says(inference: Service) -> None:
    load_all_checks()
    excluded = [check for check in CHECKS.get_all() if check.__name__ in NOT_ASKED]
    schema = schemathesis.openapi.from_dict(inference.send("GET", "/openapi.json").json())
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {
        "/v1/predict", "/v1/rank", "/v1/crop", "/v1/embed", "/v1/similar", "/v1/releases", "/healthz"
    }  # fmt: skip
    for operation in operations:

        @settings(max_examples=15, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def hold(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=f"http://127.0.0.1:{inference.port}", excluded_checks=excluded)

        hold()


def test_an_answer_names_the_release_and_no_vector_unasked(inference: Service, jpeg: bytes) -> None:
    plain = inference.send("POST", "/v1/predict", params={"project": "pets"}, content=jpeg).json()
    assert set(plain) == {"ok", "project", "label", "confidence", "probabilities", "release", "encoder"}
    assert (plain["label"], plain["release"], set(plain["probabilities"])) == (None, None, {"cat", "dog", "owl"})
    full = inference.send("POST", "/v1/predict", params={"project": "pets", "vector": "true"}, content=jpeg).json()
    assert full.pop("vector")
    assert full == plain


def test_an_embedding_has_unit_length_and_names_its_encoder(inference: Service, jpeg: bytes) -> None:
    said = inference.send("POST", "/v1/embed", content=jpeg).json()
    assert sum(value * value for value in said["vector"]) == pytest.approx(1, abs=1e-3)
    assert said["encoder"] == inference.send("GET", "/v1/releases").json()["encoder"]["digest"]


def test_similar_pictures_are_those_that_were_answered(backend: Backend, inference: Service, jpeg: bytes) -> None:
    said = inference.send("POST", "/v1/predict", params={"project": "birds", "vector": "true"}, content=jpeg).json()
    image_id, vector = "5" * 32, base64.b64decode(said["vector"])
    row = {"project_id": "birds", "id": image_id, "key": "production/birds/unclassified/5.jpg", "sha256": "5" * 64,
           "phash": "5" * 16, "width": 1, "height": 1, "bytes": 1, "source": "upload", "arrived_at": START}  # fmt: skip
    with backend.stores.db.write() as tx:
        pictures.add_image(tx, row)
        vectors.add(tx, "birds", said["encoder"], [vectors.Vector(image_id, vector)], dt.datetime.now(dt.UTC))
    ask = {"project": "birds", "count": "3"}
    wait_for(lambda: inference.send("POST", "/v1/similar", params=ask, content=jpeg).json()["among"] == 1, 20, "it")
    found = inference.send("POST", "/v1/similar", params=ask, content=jpeg).json()
    assert found.pop("similar") == [{"image_id": image_id, "similarity": pytest.approx(1, abs=1e-4)}]
    assert found == {"ok": True, "among": 1, "encoder": said["encoder"]}
    assert inference.send("POST", "/v1/similar", params={"project": "nobody"}, content=jpeg).says(404)
    assert inference.send("POST", "/v1/similar", params={**ask, "count": "0"}, content=jpeg).says(422)
    assert inference.send("POST", "/v1/similar", params={**ask, "count": "101"}, content=jpeg).says(422)


def test_releases_name_the_encoder_the_notices_and_every_project(inference: Service) -> None:
    said = inference.send("GET", "/v1/releases").json()
    assert said["ok"] is True
    assert {"name", "digest", "dimension", "knows_words", "reason"} <= set(said["encoder"])
    assert said["encoder"]["name"] == "embedded"
    assert all(isinstance(notice, str) and notice for notice in said["notices"])
    assert not said["notices"]  # the encoder is the one that was asked for
    heads = {(entry["project"], entry["head"]): entry for entry in said["releases"]}
    assert set(heads) == {
        ("pets", "classifier"), ("birds", "classifier"), ("scenes", "ranker"), ("scenes", "cropper")
    }  # fmt: skip
    assert heads["birds", "classifier"]["classes"] == ["wren", "robin"]
    assert heads["scenes", "ranker"]["classes"] == []
    assert {entry["release"] for entry in heads.values()} == {None}
    assert {entry["problem"] for entry in heads.values()} == {None}


@pytest.mark.parametrize("path", ABOUT_ONE_PICTURE)
def test_what_is_no_picture_is_refused(inference: Service, jpeg: bytes, path: str) -> None:
    assert inference.send("POST", path).says(400)
    assert inference.send("POST", path, content=b"I am a picture").says(415, "not_a_picture")
    assert inference.send("POST", path, content=jpeg[:200]).says(422, "broken_picture")


@pytest.mark.parametrize("path", ABOUT_ONE_PICTURE)
def test_what_is_too_large_is_refused_announced_or_not(inference: Service, path: str) -> None:
    assert inference.raw_request("POST", path, Content_Length=MAX_BODY + 1).says(413, "too_large")
    with inference.connect() as connection:
        connection.sendall(request_bytes("POST", path, Transfer_Encoding="chunked"))
        for _ in range(MAX_BODY // 2**20):
            connection.sendall(b"100000\r\n" + bytes(2**20) + b"\r\n")
        connection.sendall(b"1\r\nx\r\n")
        assert read(connection).says(413, "too_large")


def test_a_body_that_is_cut_off_is_no_accident(inference: Service, jpeg: bytes) -> None:
    for _ in range(3):
        with inference.connect() as connection:
            connection.sendall(request_bytes("POST", "/v1/embed", jpeg, Content_Length=len(jpeg) + 1_000))
    wait_for(lambda: b"closedloop_waiting_requests 0.0" in inference.send("GET", "/metrics").body, 60, "an empty queue")


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [("?project=nobody", 404, "unknown_project"), ("?project=%00", 404, "unknown_project"), ("", 422, "invalid"),
     ("?project=" + "x" * 41, 422, "invalid")],
)  # fmt: skip
def test_a_wrong_query_is_refused(inference: Service, jpeg: bytes, query: str, status: int, code: str) -> None:
    assert inference.send("POST", f"/v1/predict{query}", content=jpeg).says(status, code)
    assert inference.send("POST", f"/v1/crop{query}", content=jpeg).says(status, code)
    assert rank(inference, [jpeg, jpeg], f"/v1/rank{query}").says(status, code)


def test_a_wish_for_a_vector_is_yes_or_no(inference: Service, jpeg: bytes) -> None:
    asked = inference.send("POST", "/v1/predict?project=pets&vector=perhaps", content=jpeg)
    assert asked.says(422, "invalid")


def test_what_is_asked_must_fit_the_kind_of_project(inference: Service, jpeg: bytes) -> None:
    assert inference.send("POST", "/v1/predict?project=scenes", content=jpeg).says(422, "wrong_kind")
    assert inference.send("POST", "/v1/crop?project=pets", content=jpeg).says(422, "wrong_kind")
    assert rank(inference, [jpeg, jpeg], "/v1/rank?project=pets").says(422, "wrong_kind")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("GET", "/static/../app.py", 404, "not_found"),
     ("GET", "/static/%00", 404, "not_found"), ("GET", "/static/" + "x" * 5_000, 404, "not_found"),
     ("GET", "/v1/predict", 405, "method_not_allowed"), ("GET", "/v1/rank", 405, "method_not_allowed"),
     ("PUT", "/v1/crop", 405, "method_not_allowed"), ("DELETE", "/v1/releases", 405, "method_not_allowed"),
     ("POST", "/healthz", 405, "method_not_allowed"), ("PUT", "/static/x", 405, "method_not_allowed")],
)  # fmt: skip
def test_wrong_addresses_and_methods_have_the_one_shape(
    inference: Service, method: str, path: str, status: int, code: str
) -> None:
    assert inference.raw_request(method, path, Connection="close").says(status, code)


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET /healthz\r\n\r\n",
     request_bytes("GET", "/healthz", X="x" * 2_000_000),
     request_bytes("POST", "/v1/embed", b"x", Content_Length="-1"),
     request_bytes("POST", "/v1/embed", b"zz\r\n", Transfer_Encoding="chunked")],
    ids=["tls", "no version", "headers too long", "negative length", "bad chunk"],
)  # fmt: skip
def test_what_is_not_http_is_told_so_in_the_one_shape(inference: Service, sent: bytes) -> None:
    assert inference.raw(sent).says(400, "bad_request")


def test_the_docs_need_nothing_from_outside(inference: Service) -> None:
    page = inference.send("GET", "/docs").body.decode()
    linked = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert len(linked) >= 2
    for address in linked:
        assert address.startswith("/"), address
        assert not address.startswith("//"), address
        assert inference.send("GET", address).status == 200
    assert inference.send("GET", "/openapi.json").json()["openapi"].startswith("3.")


# A set of pictures


def rank(inference: Service, files: list[bytes], path: str = RANK) -> Answer:
    return inference.send("POST", path, files=[("file", (f"{n}.jpg", data)) for n, data in enumerate(files)])


def form(*contents: bytes, name: str = "file") -> bytes:
    """A whole form of these parts."""
    return b"".join(multipart(content, name).removesuffix(b"--b0undary--\r\n") for content in contents) + (
        b"--b0undary--\r\n"
    )


def test_with_no_release_a_set_has_no_best_and_a_crop_is_all(inference: Service, picture: Make) -> None:
    for count in (2, 12):
        said = rank(inference, [picture(seed) for seed in range(count)]).json()
        digest = said.pop("encoder")
        assert said == {
            "ok": True, "scores": [0.0] * count, "best": None, "confidence": 1 / count, "release": None
        }  # fmt: skip
    said = inference.send("POST", "/v1/crop?project=scenes", content=picture(1)).json()
    whole = {"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0}
    assert said == {"ok": True, "box": whole, "confidence": None, "release": None, "encoder": digest}


def test_every_route_is_measured_by_itself(inference: Service, jpeg: bytes) -> None:
    assert rank(inference, [jpeg, jpeg]).status == 200
    assert inference.send("POST", "/v1/crop?project=scenes", content=jpeg).status == 200
    said = inference.send("GET", "/metrics").body.decode()
    for route in ("rank", "crop"):
        assert f'closedloop_answers_total{{project="scenes",route="{route}"}}' in said
        assert f'closedloop_answer_seconds_count{{route="{route}"}}' in said


def test_the_same_picture_twice_is_the_callers_business(inference: Service, jpeg: bytes) -> None:
    assert rank(inference, [jpeg, jpeg]).status == 200


def test_a_part_needs_no_name_of_a_file_and_comes_however_it_is_cut(inference: Service, jpeg: bytes) -> None:
    bare = form(jpeg, jpeg).replace(b'; filename="a.jpg"', b"")
    assert inference.raw_request("POST", RANK, bare, Content_Type=FORM, Content_Length=len(bare)).status == 200
    quoted = 'Multipart/Form-Data; charset=utf-8; boundary="b0undary"'
    assert inference.raw_request("POST", RANK, bare, Content_Type=quoted, Content_Length=len(bare)).status == 200
    with inference.connect() as connection:
        connection.sendall(request_bytes("POST", RANK, Content_Type=FORM, Transfer_Encoding="chunked"))
        for start in range(0, len(bare), 13):
            piece = bare[start : start + 13]
            connection.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert read(connection).status == 200


@pytest.mark.parametrize("count", [0, 1, 13, 40])
def test_a_set_has_two_to_twelve_pictures(inference: Service, jpeg: bytes, count: int) -> None:
    body = form(*[jpeg] * count)
    answer = inference.raw_request("POST", RANK, body, Content_Type=FORM, Content_Length=len(body))
    assert answer.says(422, "set_size")


@pytest.mark.parametrize("number", [1, 3, 12])
@pytest.mark.parametrize(
    ("broken", "status", "code"),
    [(b"", 400, "no_picture"), (b"I am a picture", 415, "not_a_picture"),
     (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", 422, "broken_picture")],
    ids=["empty", "text", "cut off"],
)  # fmt: skip
def test_a_bad_picture_among_good_ones_is_named(
    inference: Service, jpeg: bytes, number: int, broken: bytes, status: int, code: str
) -> None:
    files = [jpeg] * 12
    files[number - 1] = broken
    answer = rank(inference, files)
    assert answer.says(status, code)
    assert f"Picture {number} of the set" in answer.json()["error"]


BAD_FORMS = {
    "no boundary": ("multipart/form-data", form(b"x", b"y"), 400, "bad_request"),
    "empty boundary": ("multipart/form-data; boundary=", form(b"x", b"y"), 400, "bad_request"),
    "an empty boundary that is meant": (
        "multipart/form-data; boundary=", form(b"x", b"y").replace(b"b0undary", b""), 400, "bad_request"
    ),
    "a long boundary": ("multipart/form-data; boundary=" + "b" * 1_000, form(b"x", b"y"), 400, "bad_request"),
    "another boundary": ("multipart/form-data; boundary=another", form(b"x", b"y"), 400, "bad_request"),
    "boundary of rubbish": ("multipart/form-data; boundary=\xff\x01", form(b"x", b"y"), 400, "bad_request"),
    "cut off in the head": (FORM, form(b"x", b"y")[:40], 400, "bad_request"),
    "cut off in a picture": (FORM, form(b"x" * 99, b"y" * 99)[:120], 400, "bad_request"),
    "no end": (FORM, form(b"x", b"y").replace(b"--b0undary--", b""), 400, "bad_request"),
    "nothing": (FORM, b"", 400, "bad_request"),
    "no part": (FORM, b"--b0undary--\r\n", 422, "set_size"),
    "no form": (FORM, b"I am a form", 400, "bad_request"),
    "no disposition": (FORM, b"--b0undary\r\n\r\nx\r\n--b0undary--\r\n", 400, "bad_request"),
    "a disposition of rubbish": (FORM, form(b"x").replace(b"form-data; ", b'"\xff;;=; ='), 400, "bad_request"),
    "another field": (FORM, form(b"x", b"y", name="picture"), 400, "bad_request"),
    "a field like it": (FORM, form(b"x", b"y", name="File"), 400, "bad_request"),
    "a head of 100 kB": (FORM, b"--b0undary\r\nX: " + b"x" * 100_000 + b"\r\n\r\nx\r\n--b0undary--", 400, "bad_request"),
    "100 lines of head": (FORM, b"--b0undary\r\n" + b"X: y\r\n" * 100 + b"\r\nx\r\n--b0undary--", 400, "bad_request"),
    "5,000 parts": (FORM, form(*[b"x"] * 5_000), 422, "set_size"),
    "no type": ("", form(b"x", b"y"), 415, "not_multipart"),
    "a picture": ("image/jpeg", b"\xff\xd8\xff", 415, "not_multipart"),
    "urlencoded": ("application/x-www-form-urlencoded", b"file=a&file=b", 415, "not_multipart"),
    "mixed": ("multipart/mixed; boundary=b0undary", form(b"x", b"y"), 415, "not_multipart"),
    "a type of rubbish": ("\xff;;;=", form(b"x", b"y"), 415, "not_multipart"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "status", "code"), BAD_FORMS.values(), ids=BAD_FORMS)
def test_a_bad_form_is_refused(inference: Service, kind: str, body: bytes, status: int, code: str) -> None:
    given = {"Content_Type": kind} if kind else {}
    answer = inference.raw_request("POST", RANK, body, **given, Content_Length=len(body), Connection="close")
    assert answer.says(status, code)


def test_a_field_beside_the_pictures_is_refused(inference: Service, jpeg: bytes) -> None:
    files = [("file", ("a.jpg", jpeg)), ("file", ("b.jpg", jpeg))]
    answer = inference.send("POST", RANK, files=files, data={"comment": "nice"})
    assert answer.says(400, "bad_request")


def test_a_picture_or_a_set_that_is_too_large_is_refused(inference: Service, jpeg: bytes) -> None:
    large = form(jpeg, bytes(MAX_BODY + 1))
    answer = inference.raw_request("POST", RANK, large, Content_Type=FORM, Content_Length=len(large))
    assert answer.says(413, "too_large")
    assert "Picture 2 of the set" in answer.json()["error"]
    announced = {"Content_Type": FORM, "Content_Length": 13 * MAX_BODY}
    assert inference.raw_request("POST", RANK, **announced).says(413, "too_large")


def test_what_comes_without_end_around_a_form_is_refused(inference: Service) -> None:
    """A preamble or an epilogue fills no memory, and is not listened to for ever."""
    for start in (b"\r\n", form(b"x", b"y")):
        with inference.connect() as connection:
            connection.sendall(request_bytes("POST", RANK, Content_Type=FORM, Transfer_Encoding="chunked"))
            connection.sendall(b"%x\r\n" % len(start) + start + b"\r\n")
            piece = b"100000\r\n" + b"\r\n" * 2**19 + b"\r\n"
            for _ in range(12 * 16 + 1):
                connection.sendall(piece)
            assert read(connection).says(413, "too_large")


def test_a_form_that_is_cut_off_or_given_up_is_no_accident(inference: Service, jpeg: bytes) -> None:
    body = form(jpeg, jpeg)
    for end in range(1, len(body), len(body) // 5):
        with inference.connect() as connection:
            head = request_bytes("POST", RANK, body[:end], Content_Type=FORM, Content_Length=len(body))
            connection.sendall(head)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            assert connection.recv(1_000) == b""  # nobody is there to be told
    wait_for(lambda: b"closedloop_waiting_requests 0.0" in inference.send("GET", "/metrics").body, 60, "an empty queue")
    assert rank(inference, [jpeg, jpeg]).status == 200


@settings(max_examples=60, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_form_with_anything_changed_is_answered_or_refused(
    inference: Service, jpeg: bytes, data: st.DataObject
) -> None:
    """Bytes taken out, put in or doubled anywhere; never a 500, never silence."""
    body = form(jpeg, jpeg, jpeg)
    at = data.draw(st.integers(0, len(body)) | st.integers(0, 120) | st.integers(len(body) - 60, len(body)))
    gone = data.draw(st.integers(0, 40))
    new = data.draw(
        st.binary(max_size=30) | st.sampled_from([b"\r\n", b"--b0undary", b"--b0undary--", b'"', b";", b":"])
    )
    changed = body[:at] + new + body[at + gone :]
    answer = inference.raw_request("POST", RANK, changed, Content_Type=FORM, Content_Length=len(changed))
    assert answer.status == 200 or answer.says(answer.status)
    assert answer.status in (200, 400, 413, 415, 422)
