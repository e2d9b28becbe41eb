"""What the services say to Prometheus: the loop's gauges from real records, and every name that board and rules use."""

import datetime as dt
import re
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sampler.__main__ import Sampler
from trainer.__main__ import Trainer

from closedloop import gauges, health, tasks
from closedloop import project as projects
from closedloop.project import Project
from closedloop.storage import Stores, answers, asking, pictures, registry
from closedloop.storage.database import Database
from tests.conftest import START, Clock
from tests.contract.conftest import Backend, Service
from tests.unit.test_monitoring import expressions

Samples = dict[tuple[str, tuple[str, ...]], float]  # (name, values of the labels in the labels' order) -> value


def looked(collector: gauges.Collector) -> Samples:
    of_its_own = CollectorRegistry()
    of_its_own.register(collector)
    return samples(generate_latest(of_its_own).decode())


def samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(v for _, v in sorted(s.labels.items()))): s.value for f in families for s in f.samples}


@pytest.fixture
def loop(database: Database, pets: Project, clock: Clock) -> gauges.Loop:
    """The gauges over real records with one project in them."""
    stores = Stores(database, None)  # type: ignore[arg-type]
    projects.add(stores, pets, START)
    return gauges.Loop(stores, clock)


def image(tx: object, number: int) -> str:
    id_ = f"{number:032x}"
    row = {"project_id": "pets", "id": id_, "key": id_, "sha256": id_ * 2, "phash": id_[:16], "source": "upload"}
    pictures.add_image(tx, {**row, "width": 9, "height": 9, "bytes": 9, "arrived_at": START})  # type: ignore[arg-type]
    return id_


def annotate(tx: object, task_id: str, number: int, state: str, at: dt.datetime) -> None:
    row = {"annotation_id": str(number), "answered_at": at, "project_id": "pets", "task_id": task_id}
    answers.add_annotation(tx, {**row, "annotator": "1", "state": state, "collected_at": at})  # type: ignore[arg-type]


def test_an_idle_project_says_zero_and_not_nothing(loop: gauges.Loop) -> None:
    said = looked(loop)
    for queue in ("low_confidence", "user_feedback", "user_label", "random_sample"):
        for name in ("waiting", "answered", "undelivered", "undelivered_oldest_seconds"):
            assert said[f"closedloop_tasks_{name}", ("pets", queue)] == 0
    assert said["closedloop_pictures_pending", ("pets",)] == 0
    for kind in ("predict", "suggest", "propose", "deliver"):
        assert said["closedloop_outbox_waiting", (kind,)] == 0
    assert not [name for name, _ in said if name == "closedloop_live_release_info"]


def test_tasks_are_counted_where_they_are(loop: gauges.Loop, database: Database, clock: Clock) -> None:
    ids = []
    with database.write() as tx:
        for number in range(6):
            asked_at = START + dt.timedelta(seconds=number)
            ids.append(tasks.ask(tx, "pets", image(tx, number), "user_label", asked_at))
        for id_ in ids[:5]:
            asking.delivered(tx, id_, START)
        annotate(tx, ids[0], 1, "answered", START)
        annotate(tx, ids[0], 2, "answered", START)  # two people, one task
        annotate(tx, ids[1], 3, "unknown", START)
        annotate(tx, ids[2], 4, "skipped", START)
        annotate(tx, ids[3], 5, "answered", START)
        annotate(tx, ids[3], 5, "withdrawn", START + dt.timedelta(seconds=1))
        asking.promise(tx, "forget", "models/pets/x", START + dt.timedelta(hours=1))
    clock.forward(seconds=65)
    said = looked(loop)
    where = ("pets", "user_label")
    assert said["closedloop_tasks_answered", where] == 2
    assert said["closedloop_tasks_waiting", where] == 3  # skipped, withdrawn, and the one that nobody saw
    assert said["closedloop_tasks_undelivered", where] == 1
    assert said["closedloop_tasks_undelivered_oldest_seconds", where] == 60
    assert said["closedloop_tasks_waiting", ("pets", "random_sample")] == 0
    assert said["closedloop_outbox_waiting", ("deliver",)] == 6
    assert said["closedloop_outbox_oldest_seconds", ("deliver",)] == 65
    assert ("closedloop_outbox_waiting", ("forget",)) not in said  # it waits for nobody before its hour


def test_a_file_that_went_missing_is_due_since_it_was_promised_anew(
    loop: gauges.Loop, database: Database, clock: Clock
) -> None:
    with database.write() as tx:
        id_ = tasks.ask(tx, "pets", image(tx, 1), "user_label", START)
        assert id_
        asking.delivered(tx, id_, START)
        asking.done(tx, asking.due(tx, START, 1)[0]["id"], START)
    clock.forward(days=30)
    with database.write() as tx:
        asking.undeliver(tx, id_)
        asking.promise(tx, "deliver", id_, clock())
    clock.forward(seconds=5)
    assert looked(loop)["closedloop_tasks_undelivered_oldest_seconds", ("pets", "user_label")] == 5


def test_pictures_wait_until_they_are_answered(loop: gauges.Loop, database: Database, clock: Clock) -> None:
    with database.write() as tx:
        row = {"id": "p" * 32, "project_id": "pets", "image_id": image(tx, 1), "status": "pending", "created_at": START}
        pictures.add_prediction(tx, row)
        asking.promise(tx, "predict", "p" * 32, START)
    clock.forward(seconds=30)
    said = looked(loop)
    assert said["closedloop_pictures_pending", ("pets",)] == 1
    assert said["closedloop_pictures_pending_oldest_seconds", ("pets",)] == 30
    with database.write() as tx:
        pictures.answer_prediction(tx, "p" * 32, {"label": "cat"})
    assert looked(loop)["closedloop_pictures_pending", ("pets",)] == 0


def test_only_the_live_release_is_said(loop: gauges.Loop, database: Database) -> None:
    def live() -> list[tuple[str, ...]]:
        return [labels for (name, labels) in looked(loop) if name == "closedloop_live_release_info"]

    with database.write() as tx:
        made = {"project_id": "pets", "head": "classifier", "created_at": START}
        answers.add_dataset(tx, {**made, "id": "d1", "digest": "d" * 64, "items": 0}, [])
        for number in (1, 2):
            row = {"id": f"r{number}", "number": number, "dataset_id": "d1", "encoder": "e", "state": "candidate"}
            registry.add_release(tx, {**made, **row, "reason": "", "card": {}})
        registry.go_live(tx, "pets", "classifier", "r1", START, "")
    assert live() == [("classifier", "pets", "r1")]
    with database.write() as tx:
        registry.go_live(tx, "pets", "classifier", "r2", START, "")
    assert live() == [("classifier", "pets", "r2")]


def test_with_the_database_away_metrics_come_at_once_and_without_guesses(loop: gauges.Loop, backend: Backend) -> None:
    nowhere = backend.settings.model_copy(
        update={"closedloop_database_url": "postgresql://nobody@127.0.0.1:1/nothing", "label_studio_url": "http://x"}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(nowhere), "require", lambda self, name: "http://127.0.0.1:1")
        said = CollectorRegistry()
        Sampler(nowhere, said)
    started = time.monotonic()
    text = generate_latest(said).decode()
    assert time.monotonic() - started < gauges.PATIENCE + 1
    assert "# TYPE closedloop_tasks_waiting gauge" in text
    assert not [name for name, _ in samples(text) if name.startswith(("closedloop_tasks", "closedloop_outbox_w"))]


def test_board_and_rules_name_only_what_the_services_say(
    web: Service, inference: Service, backend: Backend, jpeg: bytes
) -> None:
    web.upload(jpeg)
    said = CollectorRegistry()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(backend.settings), "require", lambda self, name: "http://127.0.0.1:1")
        Sampler(backend.settings, said)
        trainer = Trainer(backend.settings, said)
    said.register(gauges.Ready(health.Readiness({"nothing": lambda: None})))
    trainer.train()  # too few answers, but its counters are there
    texts = [generate_latest(said).decode(), *(s.send("GET", "/metrics").body.decode() for s in (web, inference))]
    names, labels = set[str](), dict[str, set[str]]()
    for family in (f for text in texts for f in text_string_to_metric_families(text)):
        names |= {family.name, family.name + {"counter": "_total", "histogram": "_bucket"}.get(family.type, "")}
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    for where, expression in expressions():
        for name in re.findall(r"\bclosedloop_\w+", expression):
            assert name in names, f"{where}: no service says {name}"
        for name, matchers in re.findall(r"\b(closedloop_\w+)\{([^}]*)\}", expression):
            used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
            assert used <= labels.get(name, used) | {"job", "instance"}, f"{where}: {name} has no such label: {used}"
