"""The inference service holds to its OpenAPI and to the one error shape, whatever is sent."""

import re
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from tests.contract.conftest import Service, read, request_bytes
from tests.waiting import wait_for

MAX_BODY = 16 * 2**20  # imported from the service, it would load torch into the tests
# That a body which is no picture is refused is in no schema: what may be taken cannot be asked of it.
NOT_ASKED = {"positive_data_acceptance"}


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
    assert {operation.path for operation in operations} >= {"/v1/predict", "/v1/embed", "/v1/releases", "/healthz"}
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


def test_releases_name_the_encoder_the_notices_and_every_project(inference: Service) -> None:
    said = inference.send("GET", "/v1/releases").json()
    assert said["ok"] is True
    assert {"name", "digest", "dimension", "knows_words", "reason"} <= set(said["encoder"])
    assert said["encoder"]["name"] == "embedded"
    assert all(isinstance(notice, str) and notice for notice in said["notices"])
    assert not said["notices"]  # the encoder is the one that was asked for
    by_project = {entry["project"]: entry for entry in said["releases"]}
    assert set(by_project) == {"pets", "birds"}
    assert by_project["birds"]["classes"] == ["wren", "robin"]
    assert by_project["birds"]["release"] is None


@pytest.mark.parametrize("path", ["/v1/predict?project=pets", "/v1/embed"])
def test_what_is_no_picture_is_refused(inference: Service, jpeg: bytes, path: str) -> None:
    assert inference.send("POST", path).says(400)
    assert inference.send("POST", path, content=b"I am a picture").says(415, "not_a_picture")
    assert inference.send("POST", path, content=jpeg[:200]).says(422, "broken_picture")


@pytest.mark.parametrize("path", ["/v1/predict?project=pets", "/v1/embed"])
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
     ("?project=" + "x" * 41, 422, "invalid"), ("?project=pets&vector=perhaps", 422, "invalid")],
)  # fmt: skip
def test_a_wrong_query_is_refused(inference: Service, jpeg: bytes, query: str, status: int, code: str) -> None:
    assert inference.send("POST", f"/v1/predict{query}", content=jpeg).says(status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("GET", "/static/../app.py", 404, "not_found"),
     ("GET", "/static/%00", 404, "not_found"), ("GET", "/static/" + "x" * 5_000, 404, "not_found"),
     ("GET", "/v1/predict", 405, "method_not_allowed"), ("DELETE", "/v1/releases", 405, "method_not_allowed"),
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
