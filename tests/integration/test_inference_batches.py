"""Many pictures in one request, over real sockets, before a tower by hand."""

import io
import json
import socket
import tarfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from inference_api import batch_lines, batch_pictures
from inference_api.bodies import MAX_BODY

from tests.contract.conftest import read, request_bytes
from tests.integration.serving import jpeg
from tests.integration.test_inference_load import Service, service  # noqa: F401
from tests.waiting import wait_for

PATH = "/v1/predict/batch?project=pets"
FORM = "multipart/form-data; boundary=b0undary"


def form(*files: bytes) -> bytes:
    head = '--b0undary\r\nContent-Disposition: form-data; name="file"; filename="{}.jpg"\r\n\r\n'
    parts = [head.format(number).encode() + data + b"\r\n" for number, data in enumerate(files)]
    return b"".join(parts) + b"--b0undary--\r\n"


def tar(*files: bytes, kind: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        folder = tarfile.TarInfo("pictures")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for number, data in enumerate(files):
            one = tarfile.TarInfo(f"pictures/{number}.jpg")
            one.size = len(data)
            archive.addfile(one, io.BytesIO(data))
    return buffer.getvalue()


def ask(service: Service, body: bytes | Iterable[bytes], kind: str = FORM, path: str = PATH) -> httpx.Response:  # noqa: F811
    url = f"http://127.0.0.1:{service.port}{path}"
    return httpx.post(url, content=body, headers={"Content-Type": kind}, timeout=60, trust_env=False)  # type: ignore[arg-type]


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == batch_lines.LINES
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("packed", ["form", "tar", "old tar"])
def test_each_picture_has_its_line_in_order(service: Service, packed: str) -> None:  # noqa: F811
    files = [jpeg(seed) for seed in range(40)]
    if packed == "form":
        said = lines(ask(service, form(*files)))
    else:
        kind = tarfile.PAX_FORMAT if packed == "tar" else tarfile.USTAR_FORMAT
        said = lines(ask(service, tar(*files, kind=kind), "application/x-tar"))
    assert [one["index"] for one in said] == list(range(40))
    assert [one["name"].rsplit("/")[-1] for one in said] == [f"{number}.jpg" for number in range(40)]
    alone = service.ask(files[7]).json()
    assert {key: said[7][key] for key in alone} == alone
    assert sum(service.tower.looked) == 40


@pytest.mark.parametrize("kind", [FORM, "application/x-tar"])
def test_a_broken_picture_fails_alone(service: Service, kind: str) -> None:  # noqa: F811
    files = [jpeg(1), b"I am a picture", jpeg(2)[:200], b"", bytes(MAX_BODY + 1), jpeg(3)]
    said = lines(ask(service, form(*files) if kind == FORM else tar(*files), kind))
    assert [one.get("code") for one in said] == [
        None,
        "not_a_picture",
        "broken_picture",
        "no_picture",
        "too_large",
        None,
    ]
    assert [one["ok"] for one in said] == [True, False, False, False, False, True]
    assert [one["index"] for one in said] == [0, 1, 2, 3, 4, 5]


def test_lines_come_while_pictures_still_do(service: Service) -> None:  # noqa: F811
    body = form(jpeg(1), jpeg(2))
    middle = body.index(b'filename="1.jpg"')
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(request_bytes("POST", PATH, Content_Type=FORM, Content_Length=len(body)) + body[:middle])
        came = b""
        while b'"index": 0' not in came:
            came += connection.recv(4096)
        connection.sendall(body[middle:])
        while b'"index": 1' not in came:
            came += connection.recv(4096)
        assert came.startswith(b"HTTP/1.1 200")


def test_who_reads_nothing_before_he_sent_everything_is_answered(service: Service, monkeypatch) -> None:  # noqa: F811
    """Answers of many megabytes, more than sockets hold, to a body that is sent in one go."""
    monkeypatch.setattr(batch_pictures, "MOST", 3_000)
    names = "x" * 3_000
    part = f'--b0undary\r\nContent-Disposition: form-data; name="file"; filename="{names}"\r\n\r\n'.encode()
    body = (part + b"no picture\r\n") * 3_000 + b"--b0undary--\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(request_bytes("POST", PATH, body, Content_Type=FORM, Content_Length=len(body)))
        answer = read(connection)
    said = [json.loads(line) for line in answer.body.splitlines()]
    assert [one["index"] for one in said] == list(range(3_000))
    assert {one["code"] for one in said} == {"not_a_picture"}


def test_one_picture_too_many_ends_the_batch(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(batch_pictures, "MOST", 5)
    for packed, kind in ((form, FORM), (tar, "application/x-tar")):
        said = lines(ask(service, packed(*[jpeg(1)] * 6), kind))
        assert [one.get("index") for one in said] == [0, 1, 2, 3, 4, None]
        assert said[-1]["code"] == "batch_too_large"
        assert "5 pictures" in said[-1]["error"]


def test_ten_thousand_are_taken_and_one_more_is_not(service: Service) -> None:  # noqa: F811
    small = jpeg(1)
    said = lines(ask(service, tar(*[small] * 10_001), "application/x-tar"))
    assert len(said) == 10_001
    assert [one["ok"] for one in said[:-1]] == [True] * 10_000
    assert said[-1]["code"] == "batch_too_large"
    assert sum(service.tower.looked) <= batch_lines.AT_ONCE  # they are all the same


@pytest.mark.parametrize("end", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("kind", [FORM, "application/x-tar"])
def test_what_is_cut_off_is_answered_as_far_as_it_came(service: Service, kind: str, end: float) -> None:  # noqa: F811
    files = [jpeg(seed) for seed in range(10)]
    body = form(*files) if kind == FORM else tar(*files)
    body = body[: int(end * len(body))]
    said = lines(ask(service, body, kind))
    assert said[-1]["code"] == "bad_request"
    assert "index" not in said[-1]
    assert [one["index"] for one in said[:-1]] == list(range(len(said) - 1))
    assert all(one["ok"] for one in said[:-1])


def test_an_empty_form_or_tar_has_no_lines(service: Service) -> None:  # noqa: F811
    assert lines(ask(service, tar(), "application/x-tar")) == []


@pytest.mark.parametrize(
    ("kind", "path", "status", "code"),
    [("image/jpeg", PATH, 415, "not_a_batch"), ("multipart/form-data", PATH, 400, "bad_request"),
     (FORM, "/v1/predict/batch?project=nobody", 404, "unknown_project"), (FORM, "/v1/predict/batch", 422, "invalid")],
)  # fmt: skip
def test_what_cannot_be_begun_is_refused(service: Service, kind: str, path: str, status: int, code: str) -> None:  # noqa: F811
    refused = ask(service, form(jpeg(1)), kind, path)
    assert (refused.status_code, refused.json()["code"]) == (status, code)


@pytest.mark.parametrize("kind", [FORM, "application/x-tar"])
def test_who_hangs_up_costs_no_more_passes(service: Service, kind: str) -> None:  # noqa: F811
    service.tower.open.clear()
    files = [jpeg(seed) for seed in range(30)]
    body = form(*files) if kind == FORM else tar(*files)
    for sent in (body, body[: len(body) // 2]):
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(request_bytes("POST", PATH, sent, Content_Type=kind, Content_Length=len(body)))
            time.sleep(0.5)
    wait_for(lambda: service.held() == 0, 20, "nothing to be held")
    service.tower.open.set()
    service.ask(jpeg(99))
    assert sum(service.tower.looked) <= 10  # the pass that was under way, of each


def test_single_pictures_go_before_those_of_a_batch(service: Service) -> None:  # noqa: F811
    service.tower.open.clear()
    with ThreadPoolExecutor(2) as people:
        batch = people.submit(ask, service, form(*[jpeg(seed) for seed in range(30)]))
        wait_for(lambda: service.pipeline.workers.waiting() >= 20, 20, "the batch to wait")
        single = people.submit(service.ask, jpeg(99))
        wait_for(lambda: service.waiting() == 1, 20, "the single one")
        wait_for(lambda: service.pipeline.workers.waiting() == 30, 20, "both")
        service.tower.open.set()
        assert single.result(20).status_code == 200
        assert len(lines(batch.result(20))) == 30
    assert service.tower.looked[:3] == [1, 1, 8]  # the pass that was under way, the single one, the batch
