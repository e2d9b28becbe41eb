"""What the inference service does when there is more to do than it can: over real sockets, before a tower by hand."""

import contextlib
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from inference_api import refusals
from inference_api.app import MAX_WAITING, create_app
from inference_api.refusals import Protocol
from inference_api.serving import Served, Snapshot

from closedloop.installations import ChosenEncoder
from closedloop.models.converted import Choice
from closedloop.models.encoder import Encoder
from closedloop.models.preparation import SQUASH, Preparation
from closedloop.project import CLASSIFIER, parse_manifest
from closedloop.settings import Settings
from demo.installation import free_ports
from tests.integration.serving import jpeg
from tests.waiting import wait_for

PETS = parse_manifest("{id: pets, title: Pets, kind: classification, classes: [cat, dog]}")


class Tower:
    """Looks only while it is open; counts what it looked at."""

    name, lanes, shapes = "hand", 1, (1, 8)

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.begun = 0
        self.looked: list[int] = []

    def look(self, pixels: np.ndarray, lane: bool = False) -> tuple[np.ndarray, np.ndarray]:
        self.begun += 1
        assert self.open.wait(30)
        self.looked.append(len(pixels))
        bright = pixels.reshape(len(pixels), -1).mean(axis=1, keepdims=True).astype(np.float32)
        return np.concatenate([bright, np.ones((len(pixels), 3), np.float32)], axis=1), bright

    def grid(self, pixels: np.ndarray, lane: bool = False) -> np.ndarray:
        return np.zeros((len(pixels), 2, 2, 3), np.float32)


class Service:
    """The application on a port, without its records."""

    def __init__(self, tmp_path: Any) -> None:
        self.tower = Tower()
        self.port = free_ports(1)[0]
        app = create_app(Settings(closedloop_home=tmp_path, s3_endpoint_url="http://127.0.0.1:9"))
        of = {
            "name": "hand",
            "digest": "f" * 64,
            "dimension": 4,
            "texture_width": 1,
            "grid_side": 2,
            "grid_channels": 3,
        }
        square = Preparation(16, SQUASH)
        encoder = Encoder(**of, prepare=square, prepare_grid=square, least_cosine=0.9, tower=self.tower)
        chosen = ChosenEncoder("hand", "f" * 64, 4, False, "for a test", "")
        served = {"pets": {CLASSIFIER: Served(PETS)}}
        app.state.serving.current = Snapshot(encoder, chosen, Choice("hand", "", "", 1, ()), served)
        self.pipeline, self.bodies = app.state.pipeline, app.state.bodies
        config = uvicorn.Config(app, port=self.port, http=Protocol, lifespan="off", log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> "Service":
        self.pipeline.start()
        self.thread.start()
        wait_for(lambda: self.server.started, 20, "the port")
        return self

    def __exit__(self, *_: object) -> None:
        self.tower.open.set()
        self.server.should_exit = True
        self.thread.join(20)
        self.pipeline.stop()

    def ask(self, data: bytes, **headers: str) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}/v1/predict?project=pets"
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(url, content=data, headers=given, timeout=30, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=10, trust_env=False)

    def waiting(self) -> float:
        return self.metric("closedloop_waiting_requests")

    def held(self) -> int:
        return self.bodies.held

    def metric(self, name: str) -> float:
        (line,) = [line for line in self.get("/metrics").text.splitlines() if line.startswith(name + " ")]
        return float(line.split()[-1])


@pytest.fixture
def service(tmp_path: Any) -> Iterator[Service]:
    with Service(tmp_path) as running:
        yield running


class Asking:
    """Requests that were sent and are not answered yet."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.connections: list[socket.socket] = []

    def send(self, data: bytes, headers: str = "") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.service.port), timeout=30)
        head = f"POST /v1/predict?project=pets HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
        connection.sendall(head.encode() + data)
        self.connections.append(connection)
        return connection

    def statuses(self) -> list[int]:
        return [int(connection.recv(4096).split(b" ", 2)[1]) for connection in self.connections]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


@pytest.fixture
def asking(service: Service) -> Iterator[Asking]:
    one = Asking(service)
    yield one
    one.close()


def test_beyond_the_bound_it_says_so_at_once_and_goes_on(service: Service, asking: Asking) -> None:
    service.tower.open.clear()
    for seed in range(MAX_WAITING):
        asking.send(jpeg(seed))
    wait_for(lambda: service.waiting() == MAX_WAITING, 20, "a full house")
    refused = service.ask(jpeg(1_000))
    assert (refused.status_code, refused.headers["Retry-After"], refused.json()["code"]) == (503, "1", "busy")
    assert service.get("/healthz").json() == {"ok": True}
    service.tower.open.set()
    assert asking.statuses() == [200] * MAX_WAITING
    assert sum(service.tower.looked) == MAX_WAITING
    assert 8 in service.tower.looked  # what waited was looked at together
    assert service.ask(jpeg(1_000)).status_code == 200


def test_a_refusal_does_not_wait_for_the_body(service: Service, asking: Asking) -> None:
    service.tower.open.clear()
    for seed in range(MAX_WAITING):
        asking.send(jpeg(seed))
    wait_for(lambda: service.waiting() == MAX_WAITING, 20, "a full house")
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/predict?project=pets HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\nx")
        assert connection.recv(4096).startswith(b"HTTP/1.1 503")


def test_who_hangs_up_costs_no_pass(service: Service, asking: Asking) -> None:
    service.tower.open.clear()
    asking.send(jpeg(0))
    wait_for(lambda: service.tower.begun == 1, 20, "the first pass")
    left = [asking.send(jpeg(seed)) for seed in range(1, 20)]
    wait_for(lambda: service.waiting() == 20, 20, "all of them")
    for connection in left:
        connection.close()
    wait_for(lambda: service.waiting() == 1, 20, "those who stay")
    service.tower.open.set()
    assert asking.connections[0].recv(4096).startswith(b"HTTP/1.1 200")
    assert sum(service.tower.looked) == 1


def test_a_picture_that_comes_again_costs_no_pass_and_gets_the_same_answer(service: Service) -> None:
    first = service.ask(jpeg(1))
    assert service.ask(jpeg(1)).json() == first.json()
    assert service.tower.looked == [1]
    assert service.metric("closedloop_remembered_total") == 1


@pytest.mark.parametrize("given", ["soon", "", "nan", "1e999x"])
def test_a_deadline_is_a_number(service: Service, given: str) -> None:
    refused = service.ask(jpeg(1), X_Request_Deadline=given)
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_deadline")


@pytest.mark.parametrize("given", ["0", "-1", "1000000000.5", "-inf"])
def test_what_is_over_is_not_done(service: Service, given: str) -> None:
    refused = service.ask(jpeg(1), X_Request_Deadline=given)
    assert (refused.status_code, refused.json()["code"]) == (504, "too_late")
    assert service.tower.looked == []


@pytest.mark.parametrize("given", ["inf", "1e300", "9999999999"])
def test_a_far_deadline_hurries_nobody(service: Service, given: str) -> None:
    assert service.ask(jpeg(1), X_Request_Deadline=given).status_code == 200


def test_a_deadline_that_passes_meanwhile_is_told_and_costs_no_pass(service: Service, asking: Asking) -> None:
    service.tower.open.clear()
    asking.send(jpeg(0))
    wait_for(lambda: service.tower.begun == 1, 20, "the first pass")
    wait_for(lambda: service.waiting() == 1, 20, "a busy tower")
    soon = asking.send(jpeg(1), f"X-Request-Deadline: {time.time() + 0.5}\r\n")
    wait_for(lambda: service.waiting() == 2, 20, "the other")
    time.sleep(0.6)
    service.tower.open.set()
    assert soon.recv(4096).startswith(b"HTTP/1.1 504")
    assert service.tower.looked == [1]


def test_what_would_come_too_late_is_not_begun(service: Service, asking: Asking) -> None:
    service.pipeline.workers.looking = 1.0  # as it would have learnt of a slow tower
    service.tower.open.clear()
    for seed in range(5):
        asking.send(jpeg(seed))
    wait_for(lambda: service.waiting() == 5, 20, "five")
    assert service.ask(jpeg(9), X_Request_Deadline=str(time.time() + 3)).status_code == 503


def test_after_a_pause_of_the_machine_who_is_alone_is_answered_all_the_same(service: Service) -> None:
    service.pipeline.workers.looking = 60.0  # as a pass seemed to take that was frozen in its midst
    for seed in range(20):
        assert service.ask(jpeg(seed), X_Request_Deadline=str(time.time() + 3)).status_code == 200
    assert service.pipeline.workers.looking < 10.0


def test_a_slow_sender_holds_no_place(service: Service) -> None:
    with contextlib.ExitStack() as slow:
        for _ in range(2 * MAX_WAITING):
            connection = slow.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=30))
            connection.sendall(
                b"POST /v1/predict?project=pets HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n\xff\xd8"
            )
        assert service.ask(jpeg(1)).status_code == 200
        assert service.waiting() == 0


def test_a_broken_picture_in_a_full_pass_fails_alone(service: Service, asking: Asking) -> None:
    service.tower.open.clear()
    for seed in range(10):
        asking.send(jpeg(seed) if seed != 4 else jpeg(seed)[:200])
    wait_for(lambda: service.waiting() == 9, 20, "the good ones")
    service.tower.open.set()
    assert sorted(asking.statuses()) == [200] * 9 + [422]
    assert json.loads(service.ask(b"no picture").text)["code"] == "not_a_picture"


def closed(connection: socket.socket) -> bool:
    connection.settimeout(20)
    return connection.recv(1) == b""


def is_open(connection: socket.socket) -> bool:
    """Whether nothing came, not even an end."""
    try:
        connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    except BlockingIOError:
        return True
    return False


def test_who_asks_for_nothing_is_hung_up_on(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "HEAD_SECONDS", 0.5)
    with contextlib.ExitStack() as them:
        silent, slow, asks = (
            them.enter_context(socket.create_connection(("127.0.0.1", service.port))) for _ in range(3)
        )
        asks.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asks.recv(4096).startswith(b"HTTP/1.1 200")
        slow.sendall(b"GET /healthz HTTP/1.1\r\n")
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() < started + 1.5:
                slow.sendall(b"X: y\r\n")
                time.sleep(0.05)
        assert closed(silent)
        with contextlib.suppress(ConnectionResetError):
            assert closed(slow)


def test_a_request_may_take_longer_than_its_head(
    service: Service, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "HEAD_SECONDS", 0.3)
    service.tower.open.clear()
    asking.send(jpeg(1))
    time.sleep(0.8)
    service.tower.open.set()
    assert asking.statuses() == [200]


def test_thousands_who_say_nothing_stop_nobody(service: Service) -> None:
    """Ten thousand, against a process of its own: `python -m bench.serving.idle`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    silent = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(1_500)]
    try:
        for seed in range(5):
            assert service.ask(jpeg(seed)).status_code == 200
        assert service.get("/healthz").status_code == 200
        assert sum(is_open(one) for one in silent) > 1_000  # they were there meanwhile
    finally:
        for one in silent:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
