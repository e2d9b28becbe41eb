"""What the pages answer when all is well, and when a part is away."""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from flask_app.__main__ import create_server, serve
from flask_app.app import commands

from tests.contract.conftest import Backend, Service

PROMISED = {
    "ok", "prediction_id", "image_id", "project", "label", "confidence", "probabilities", "release", "status"
}  # fmt: skip


def test_an_upload_is_answered_by_the_contract(web: Service, backend: Backend, picture: Callable[..., bytes]) -> None:
    answer = web.upload(picture(100))
    assert answer.status == 201
    said = answer.json()
    assert set(said) >= PROMISED
    assert (said["ok"], said["status"], said["project"]) == (True, "done", "pets")
    assert re.fullmatch("[0-9a-f]{32}", said["prediction_id"])
    assert re.fullmatch("[0-9a-f]{32}", said["image_id"])
    # No release and an encoder without words: nobody claims to know.
    assert (said["label"], said["release"]) == (None, None)
    assert said["probabilities"] == pytest.approx({"cat": 1 / 3, "dog": 1 / 3, "owl": 1 / 3})
    assert said["confidence"] == pytest.approx(1 / 3)
    assert (backend.folder / "production" / "pets" / "unclassified" / f"{said['image_id']}.jpg").is_file()
    again = web.send("GET", f"/predictions/{said['prediction_id']}", headers={"Accept": "application/json"})
    assert (again.status, again.json()) == (200, said)


def test_the_same_bytes_are_the_same_image_and_a_new_prediction(web: Service, picture: Callable[..., bytes]) -> None:
    first, second = web.upload(picture(101)).json(), web.upload(picture(101)).json()
    assert first["image_id"] == second["image_id"]
    assert first["prediction_id"] != second["prediction_id"]


def test_projects_do_not_share_a_picture(web: Service, backend: Backend, picture: Callable[..., bytes]) -> None:
    mine, theirs = web.upload(picture(102)).json(), web.upload(picture(102), "/p/birds/predict").json()
    assert (mine["project"], theirs["project"]) == ("pets", "birds")
    assert set(theirs["probabilities"]) == {"wren", "robin"}
    for project in ("pets", "birds"):
        assert (backend.folder / "production" / project / "unclassified" / f"{mine['image_id']}.jpg").is_file()


@pytest.mark.parametrize("accept", [None, "*/*", "text/html, application/json;q=0.1"])
def test_without_asking_for_json_an_upload_gives_html(web: Service, jpeg: bytes, accept: str | None) -> None:
    headers = {"Accept": accept or "", "HX-Request": "true"} if accept else {"Accept": "*/*"}
    answer = web.send("POST", "/predict", files={"file": ("a.jpg", jpeg)}, headers=headers)
    assert answer.status == 201
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.body.lstrip().startswith(b'<li class="card item"')
    assert b"<html" not in answer.body


def test_a_browser_without_javascript_is_sent_to_the_answers_page(web: Service, jpeg: bytes) -> None:
    answer = web.send("POST", "/predict", files={"file": ("a.jpg", jpeg)}, headers={"Accept": "text/html,*/*;q=0.8"})
    assert answer.status == 303
    page = web.send("GET", answer.headers["location"], headers={"Accept": "text/html"})
    assert (page.status, page.body.count(b"<html")) == (200, 1)


def test_a_repeated_request_gives_the_same_prediction(
    web: Service, backend: Backend, picture: Callable[..., bytes]
) -> None:
    first = web.upload(picture(103), **{"Idempotency-Key": "visit-1"})
    before = backend.contents()
    second = web.upload(picture(103), **{"Idempotency-Key": "visit-1"})
    assert (second.status, second.json()) == (201, first.json())
    assert web.upload(picture(104), **{"Idempotency-Key": "visit-1"}).says(422, "idempotency_key_reused")
    assert backend.contents() == before


@pytest.mark.parametrize(("path", "extra"), [("/feedback", {}), ("/label", {"label": "dog"})])
def test_feedback_is_thanked_and_idempotent(
    web: Service, backend: Backend, jpeg: bytes, path: str, extra: dict[str, str]
) -> None:
    prediction_id = web.upload(jpeg).json()["prediction_id"]
    body = {"prediction_id": prediction_id, **extra}
    thanks = {"success": True, "message": "Thank you for your feedback!"}
    first = web.send("POST", path, json=body)
    assert (first.status, first.json()) == (200, thanks)
    before = backend.contents()
    again = web.send("POST", path, json=body)
    assert (again.status, again.json()) == (200, thanks)
    assert backend.contents() == before
    said = web.send("GET", f"/predictions/{prediction_id}").json()
    assert (said["flagged"], said["user_label"]) == (path == "/feedback", extra.get("label"))


def test_every_page_forbids_foreign_scripts_and_names_its_request(web: Service) -> None:
    answer = web.send("GET", "/", headers={"X-Request-ID": "trace-7"})
    assert answer.headers["x-request-id"] == "trace-7"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(rb"""(src|href)=["'](https?:)?//""", answer.body)


def test_the_health_addresses_answer(web: Service, inference: Service) -> None:
    for service in (web, inference):
        assert service.send("GET", "/healthz").json() == {"ok": True}
        assert service.send("GET", "/readyz").json()["ok"] is True
        assert b"# TYPE closedloop_" in service.send("GET", "/metrics").body


def test_a_picture_is_kept_while_inference_is_away(
    web_without_inference: Service, backend: Backend, picture: Callable[..., bytes]
) -> None:
    web = web_without_inference
    answer = web.upload(picture(110))
    said = answer.json()
    assert (answer.status, said["status"], said["label"], said["release"]) == (202, "pending", None, None)
    assert set(said) >= PROMISED
    assert (backend.folder / "production" / "pets" / "unclassified" / f"{said['image_id']}.jpg").is_file()
    fragment = web.send("POST", "/predict", files={"file": ("a.jpg", picture(111))}, headers={"HX-Request": "true"})
    assert fragment.status == 202
    assert b"Your picture is kept" in fragment.body
    assert web.send("GET", "/").status == 200

    assert web.send("POST", "/feedback", json={"prediction_id": said["prediction_id"]}).json()["success"] is True
    body = {"prediction_id": said["prediction_id"], "label": "owl"}
    assert web.send("POST", "/label", json=body).json()["success"] is True
    now = web.send("GET", f"/predictions/{said['prediction_id']}").json()
    assert (now["flagged"], now["user_label"], now["status"]) == (True, "owl", "pending")


@pytest.mark.usefixtures("nothing_kept")
def test_nothing_is_recorded_while_the_store_is_away(web_without_store: Service, picture: Callable[..., bytes]) -> None:
    answer = web_without_store.upload(picture(120))
    assert answer.says(503, "store_away")
    assert int(answer.headers["retry-after"]) > 0
    assert web_without_store.send("GET", "/healthz").status == 200
    ready = web_without_store.send("GET", "/readyz")
    assert (ready.status, ready.json()["code"]) == (503, "not_ready")


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_sites_page_cannot_post_here(web: Service, jpeg: bytes, prediction_id: str, site: str) -> None:
    assert web.upload(jpeg, **{"Sec-Fetch-Site": site}).says(403, "cross_site")
    body = {"prediction_id": prediction_id}
    assert web.send("POST", "/feedback", json=body, headers={"Sec-Fetch-Site": site}).says(403, "cross_site")


def test_no_log_line_tells_of_a_failure(web: Service, web_without_inference: Service) -> None:
    assert web.failures() + web_without_inference.failures() == []


def test_a_request_under_way_is_answered_when_the_process_is_told_to_stop() -> None:
    asked, answered, stopping = threading.Event(), threading.Event(), threading.Event()
    sockets = {}

    def slow(_environ, start_response):
        asked.set()
        time.sleep(1)
        answered.set()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "300000")])
        return [b"x" * 300_000]

    server = create_server(slow, "127.0.0.1", 0, sockets)
    port = server.effective_port
    serving = threading.Thread(target=serve, args=(sockets, stopping))
    serving.start()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx.get, f"http://127.0.0.1:{port}/", trust_env=False)
        assert asked.wait(5)
        stopping.set()
        serving.join(timeout=10)
        assert answered.is_set(), "it ended before the answer was written"
        assert len(answer.result(timeout=10).content) == 300_000
    assert not serving.is_alive()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
    server.task_dispatcher.shutdown()


def test_commands_in_a_sentence_are_set_as_code_and_nothing_else_is_html() -> None:
    assert commands("Try `a<b` & <i>go</i>.") == "Try <code>a&lt;b</code> &amp; &lt;i&gt;go&lt;/i&gt;."
