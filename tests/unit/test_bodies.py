"""The bodies of requests: what a form holds comes out of it however it arrives, and what is held is counted."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_api import bodies
from inference_api.bodies import Bodies
from starlette.exceptions import HTTPException
from starlette.requests import Request

from closedloop.errors import ClosedloopError

KIND = "multipart/form-data; boundary=b"


def request(chunks: Iterable[bytes], kind: str = KIND) -> Request:
    waiting = iter([*chunks])

    async def receive() -> dict[str, Any]:
        chunk = next(waiting, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}, receive)


def form(*contents: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    return b"".join(head + content + b"\r\n" for content in contents) + b"--b--\r\n"


def taken(take: Callable[[Request], Any], sent: Request) -> Any:
    async def run() -> Any:
        async with take(sent) as body:
            return body

    return finished(run())


def finished(work: Coroutine[Any, Any, Any]) -> Any:
    """What work gives; in a thread of its own, since Playwright's loop keeps running in that of the tests."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@given(st.lists(st.binary(max_size=40), min_size=2, max_size=12), st.lists(st.integers(1, 30), min_size=1))
def test_pictures_come_out_as_they_went_in_however_they_are_cut(contents: list[bytes], steps: list[int]) -> None:
    if any(b"\r\n--b" in b"\r\n" + content for content in contents):
        return  # no sender takes a boundary that its files hold
    body, chunks = form(*contents), []
    for step in steps * (len(form(*contents)) // sum(steps) + 1):
        chunks.append(body[:step])
        body = body[step:]
    assert taken(Bodies().pictures, request(chunks)) == contents


@given(st.binary(max_size=300), st.sampled_from([KIND, "multipart/form-data", "multipart/form-data; boundary=\r", "x"]))
def test_rubbish_is_refused_with_a_reason(rubbish: bytes, kind: str) -> None:
    with pytest.raises(ClosedloopError) as said:
        taken(Bodies().pictures, request([rubbish], kind))
    assert said.value.status in (400, 413, 415, 422)


def test_what_all_requests_hold_is_counted_and_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_HELD", 1_000)
    at_work = Bodies()

    async def run() -> None:
        async with at_work.picture(request([b"x" * 600])):
            assert at_work.held == 600
            for take, sent in (
                (at_work.picture, [b"x" * 300, b"x" * 101]),
                (at_work.pictures, [form(b"x" * 200, b"x" * 200)]),
            ):
                with pytest.raises(HTTPException) as said:
                    async with take(request(sent)):
                        pytest.fail("more is held than may be")
                assert said.value.status_code == 503
                assert at_work.held == 600
            async with at_work.picture(request([b"x" * 400])):
                assert at_work.held == 1_000
        with pytest.raises(ClosedloopError):
            async with at_work.pictures(request([b"--b\r\nbroken"])):
                pytest.fail("it is no form")
        assert at_work.held == 0

    finished(run())


def test_a_picture_of_a_set_has_the_limit_of_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY", 100)
    assert len(taken(Bodies().pictures, request([form(b"x" * 100, b"x" * 100)]))) == 2
    with pytest.raises(ClosedloopError, match="Picture 2 of the set") as said:
        taken(Bodies().pictures, request([form(b"x", b"x" * 101)]))
    assert said.value.status == 413
