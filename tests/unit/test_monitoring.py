"""The files in `monitoring/` hold together, and a look at the gauges neither fails nor hangs."""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from closedloop import gauges, health
from closedloop.errors import DatabaseAway, EncoderUnavailable

MONITORING = Path(__file__).parents[2] / "monitoring"
BOARD = MONITORING / "grafana" / "boards" / "closedloop.json"
SERVICES = {"web": 5000, "inference": 8000, "sampler": 8001, "trainer": 8002}


def read(path: str) -> Any:
    return yaml.safe_load((MONITORING / path).read_text())


def panels() -> list[dict[str, Any]]:
    return json.loads(BOARD.read_text())["panels"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in read("rules.yml")["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """(where it is, PromQL) of every expression of the board and of the rules."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    board = json.loads(BOARD.read_text())
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["target"]["expr"]
    for variable in board["templating"]["list"]:
        yield variable["name"], variable["query"]["query"]


def test_every_service_is_scraped_replica_by_replica():
    jobs = {job["job_name"]: job for job in read("prometheus.yml")["scrape_configs"]}
    for name, port in SERVICES.items():
        (discovery,) = jobs[name]["dns_sd_configs"]
        assert (discovery["names"], discovery["type"], discovery["port"]) == ([name], "A", port)


def test_a_look_is_over_before_prometheus_gives_up():
    assert int(read("prometheus.yml")["global"]["scrape_timeout"].removesuffix("s")) > 2 * gauges.PATIENCE + 1


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]):
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    datasource = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"][0]
    for target in panel["targets"]:
        assert target["expr"]
        assert target["datasource"] == {"type": datasource["type"], "uid": datasource["uid"]}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_board_asks_no_other_datasource():
    assert set(re.findall(r'"type": "prometheus",\s+"uid": "([^"]+)"', BOARD.read_text())) == {"closedloop-prometheus"}


def test_panels_do_not_overlap_and_fill_their_rows():
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels())
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {sum(1 for _, y in cells if y == row) for row in {y for _, y in cells}} == {24}
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_board_shows_what_was_promised():
    shown = " ".join(expression for _, expression in expressions())
    for name in ("uploads_total", "answers_total", "answer_seconds_bucket", "tasks_waiting", "annotations_total"):
        assert f"closedloop_{name}" in shown
    for name in ("live_release_info", "tasks_undelivered_oldest_seconds"):
        assert f"closedloop_{name}" in shown


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_happened_and_what_to_do(rule: dict[str, Any]):
    summary = rule["annotations"]["summary"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert summary.count(". ") >= 1, "one sentence is not enough"
    assert re.search(r"`(docker compose|make|docker) [^`]+`", summary), "no command to run"


def test_what_every_sampler_says_is_never_added_up():
    repeated = {family.name for family in gauges.Loop(None, None).describe()}  # type: ignore[arg-type]
    for where, expression in expressions():
        for name in re.findall(r"\bclosedloop_\w+", expression):
            if name in repeated and not expression.startswith(("label_values", "absent")):
                assert re.search(rf"max(?: by \([^)]*\) )?\((?:max_over_time\()?{name}\b", expression), (
                    f"{where}: {name}"
                )


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) is not here")
@pytest.mark.parametrize("check", ["check config prometheus.yml", "check rules rules.yml", "test rules rules.test.yml"])
def test_promtool_agrees(check: str):
    done = subprocess.run(["promtool", *check.split()], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) is not here")
def test_promtool_reads_every_expression_of_the_board(tmp_path: Path):
    found = [expression for _, expression in expressions() if not expression.startswith("label_values")]
    plain = [e.replace("$__rate_interval", "1m").replace("$__range", "1h").replace("$project", ".*") for e in found]
    recorded = [{"record": f"board:{number}", "expr": expression} for number, expression in enumerate(plain)]
    (tmp_path / "board.yml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": recorded}]}))
    done = subprocess.run(["promtool", "check", "rules", tmp_path / "board.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# Gauges


def text(collector: gauges.Collector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def test_a_check_that_fails_or_hangs_is_not_ready(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "PATIENCE", 0.2)
    over = threading.Event()

    def away() -> None:
        raise DatabaseAway

    started = time.monotonic()
    ready = health.Readiness({"good": lambda: None, "away": away, "hangs": over.wait, "hangs_too": over.wait})
    said, report = text(gauges.Ready(ready)), ready.report()
    over.set()
    assert time.monotonic() - started < 2
    assert (report["ok"], report["code"], report["checks"]["good"]) == (False, "not_ready", "ok")
    assert report["checks"]["hangs"] == "It does not answer within 0.2 s."
    assert DatabaseAway().explained() in report["error"]
    assert 'closedloop_ready{check="good"} 1.0' in said
    for check in ("away", "hangs", "hangs_too"):
        assert f'closedloop_ready{{check="{check}"}} 0.0' in said


def test_looks_that_hang_share_one_thread():
    over, calls = threading.Event(), []

    def hangs() -> int:
        calls.append(1)
        over.wait(5)
        return len(calls)

    call = health.InTime(hangs)
    waiting = [call.start() for _ in range(20)]
    over.set()
    assert [future.result(5) for future in waiting] == [1] * 20
    assert call.start().result(5) == 2  # and the next look is a new one


def test_a_former_release_is_gone_and_an_unready_process_names_none():
    served = [("pets", "classifier", "r1"), ("birds", "ranker", "r9")]
    collector = gauges.Named("closedloop_serving_release_info", "What answers.", lambda: served)
    assert 'closedloop_serving_release_info{head="classifier",project="pets",release="r1"} 1.0' in text(collector)
    served[0] = ("pets", "classifier", "r2")
    said = text(collector)
    assert 'release="r2"' in said
    assert 'release="r1"' not in said

    def not_yet() -> list[tuple[str, str, str]]:
        raise EncoderUnavailable(name="auto", reason="it is still being loaded.")

    said = text(gauges.Named("closedloop_serving_release_info", "What answers.", not_yet))
    assert "closedloop_serving_release_info{" not in said
    assert "# TYPE closedloop_serving_release_info gauge" in said


def test_a_disk_without_the_folder_is_left_out(tmp_path: Path):
    assert "closedloop_disk_free_bytes " in text(gauges.Disk(tmp_path)).replace("# ", "#")
    assert "\nclosedloop_disk_free_bytes " not in text(gauges.Disk(tmp_path / "nothing"))
