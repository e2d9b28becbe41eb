"""The way of one picture on real stores: each exactly once, whatever comes twice, at once, late or in between."""

import contextlib
import datetime as dt
import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image

from closedloop import feedback, outbox, prediction, queues, sampling, tasks, tracking
from closedloop.errors import ClosedloopError, KeyUsedForAnother, StoreAway, UnknownClass, UnknownPrediction
from closedloop.prediction import Prediction
from closedloop.project import Project
from closedloop.storage import Stores, asking, tables
from closedloop.storage.objects import Objects
from tests.conftest import START, Clock
from tests.integration.stack import StandIn

Make = Callable[..., bytes]


def rows(stores: Stores, table: sa.Table) -> list[Any]:
    with stores.db.read() as tx:
        return list(tx.execute(sa.select(table)).all())


def places(stores: Stores) -> list[str]:
    """Where pictures lie: `class_00/<id>.jpg`."""
    return [o.key.removeprefix("production/pets/") for o in stores.objects.list("production/pets")]


def together(count: int, call: Callable[[int], Any]) -> list[Any]:
    """Call from so many threads at the same moment."""
    gate = threading.Barrier(count)

    def one(n: int) -> Any:
        gate.wait()
        return call(n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


class Desk:
    """Receives pictures for the small project."""

    def __init__(self, stores: Stores, inference: StandIn, project: Project, clock: Clock) -> None:
        self.stores, self.inference, self.project, self.clock = stores, inference, project, clock

    def __call__(self, data: bytes, key: str | None = None) -> Prediction:
        return prediction.receive(self.stores, self.inference, self.project, data, self.clock(), key)  # type: ignore[arg-type]

    def work(self) -> int:
        """Do everything that is due, until nothing is; returns how much was done."""
        done = 0
        for _ in range(20):
            self.clock.forward(seconds=20)
            done += outbox.work(self.stores, self.inference, self.clock)  # type: ignore[arg-type]
        return done


@pytest.fixture
def desk(stores: Stores, inference: StandIn, project: Project, clock: Clock) -> Desk:
    return Desk(stores, inference, project, clock)


def test_an_answer_means_one_picture_and_one_record(desk: Desk, picture: Make) -> None:
    said = desk(picture(1))
    assert (said.status, said.label, said.release) == ("done", "cat", "r0001-test")
    (image,) = rows(desk.stores, tables.images)
    assert image.key == f"production/pets/class_00/{said.image_id}.jpg"
    jpeg = desk.stores.objects.get(image.key)
    assert len(jpeg) == image.bytes
    assert Image.open(io.BytesIO(jpeg)).size == (64, 48)
    assert places(desk.stores) == [f"class_00/{said.image_id}.jpg"]
    assert prediction.get(desk.stores, said.id) == said


def test_the_same_bytes_are_the_same_image_with_a_new_prediction(desk: Desk, picture: Make) -> None:
    first = desk(picture(1))
    desk.inference.label = "dog"
    second = desk(picture(1))
    assert first.image_id == second.image_id
    assert first.id != second.id
    assert (first.label, second.label) == ("cat", "dog")
    assert len(rows(desk.stores, tables.images)) == 1
    assert places(desk.stores) == [f"class_00/{first.image_id}.jpg"]  # its place is that of its first answer


def test_the_same_picture_many_times_at_once(desk: Desk, picture: Make) -> None:
    labels = ["cat", "dog", "owl", None]

    class Fickle(StandIn):
        def predict(self, project_id: str, jpeg: bytes) -> Any:
            one = StandIn()
            one.label = labels[threading.get_ident() % 4]
            one.away = threading.get_ident() % 5 == 0
            return one.predict(project_id, jpeg)

    def send(_: int) -> Prediction:
        return prediction.receive(desk.stores, Fickle(), desk.project, picture(1), desk.clock())  # type: ignore[arg-type]

    said = together(12, send)
    desk.work()
    assert len({one.id for one in said}) == 12
    assert len({one.image_id for one in said}) == 1
    (image,) = rows(desk.stores, tables.images)
    assert [f"production/pets/{place}" for place in places(desk.stores)] == [image.key]
    assert {row.status for row in rows(desk.stores, tables.predictions)} == {"done"}


class TestIdempotencyKey:
    def test_a_retry_gets_the_same_prediction(self, desk: Desk, picture: Make) -> None:
        assert desk(picture(1), "key-1") == desk(picture(1), "key-1")
        assert desk(picture(1), "key-2") != desk(picture(1), "key-1")
        assert len(rows(desk.stores, tables.predictions)) == 2

    def test_many_at_once_make_one(self, desk: Desk, picture: Make) -> None:
        data = picture(1)
        said = together(16, lambda _: desk(data, "key"))
        assert len({one.id for one in said}) == 1
        assert len(rows(desk.stores, tables.predictions)) == 1
        assert len(places(desk.stores)) == 1

    def test_a_key_is_for_one_picture(self, desk: Desk, picture: Make) -> None:
        desk(picture(1), "key")
        with pytest.raises(KeyUsedForAnother):
            desk(picture(2), "key")
        assert len(rows(desk.stores, tables.images)) == 1

    def test_a_retry_of_a_kept_picture(self, desk: Desk, picture: Make) -> None:
        desk.inference.away = True
        first = desk(picture(1), "key")
        desk.inference.away = False
        again = desk(picture(1), "key")
        assert (again.id, again.status) == (first.id, "pending")
        desk.work()
        assert desk(picture(1), "key").status == "done"
        assert len(rows(desk.stores, tables.predictions)) == 1


class TestInferenceAway:
    def test_a_picture_is_kept_and_answered_later(self, desk: Desk, picture: Make) -> None:
        desk.inference.away = True
        said = desk(picture(1))
        assert (said.status, said.label, said.probabilities) == ("pending", None, {})
        assert places(desk.stores) == [f"unclassified/{said.image_id}.jpg"]
        assert desk.work() == 0
        assert prediction.get(desk.stores, said.id).status == "pending"
        desk.inference.away, desk.inference.label = False, "dog"
        assert desk.work() > 0
        answered = prediction.get(desk.stores, said.id)
        assert (answered.status, answered.label) == ("done", "dog")
        (image,) = rows(desk.stores, tables.images)
        assert image.key == f"production/pets/class_01/{said.image_id}.jpg"
        assert places(desk.stores) == [f"class_01/{said.image_id}.jpg"]
        assert len(rows(desk.stores, tables.embeddings)) == 1

    def test_the_visitor_tries_again_before_it_is_answered(self, desk: Desk, picture: Make) -> None:
        desk.inference.away = True
        kept = desk(picture(1))
        desk.inference.away = False
        again = desk(picture(1))
        assert (kept.status, again.status) == ("pending", "done")
        (image,) = rows(desk.stores, tables.images)
        assert desk.stores.objects.exists(image.key)
        desk.work()
        assert prediction.get(desk.stores, kept.id).status == "done"
        (image,) = rows(desk.stores, tables.images)
        assert [f"production/pets/{place}" for place in places(desk.stores)] == [image.key]

    def test_kept_twice_and_answered_differently(self, desk: Desk, picture: Make) -> None:
        desk.inference.away = True
        desk(picture(1))
        desk(picture(1))
        desk.inference.away, desk.inference.label = False, None
        outbox.work(desk.stores, OneAnswer(desk.inference), desk.clock)  # type: ignore[arg-type]
        desk.inference.away, desk.inference.label = False, "dog"
        desk.work()
        (image,) = rows(desk.stores, tables.images)
        assert [f"production/pets/{place}" for place in places(desk.stores)] == [image.key]
        assert {row.status for row in rows(desk.stores, tables.predictions)} == {"done"}

    def test_nobody_is_asked_before_there_is_an_answer(self, desk: Desk, picture: Make) -> None:
        desk.inference.away = True
        said = desk(picture(1))
        feedback.flag(desk.stores, said.id, desk.clock())
        desk.work()
        assert desk.stores.objects.list("labelstudio/tasks") == []
        desk.inference.away = False
        desk.work()
        (file,) = desk.stores.objects.list("labelstudio/tasks/pets/user_feedback")
        data = json.loads(desk.stores.objects.get(file.key))["data"]
        assert data["ml_prediction"] == "cat"
        assert desk.stores.objects.exists(data["image"].removeprefix("s3://"))


class OneAnswer:
    """Answers once, then is away."""

    def __init__(self, behind: StandIn) -> None:
        self.behind = behind

    def predict(self, project_id: str, jpeg: bytes) -> Any:
        answer = self.behind.predict(project_id, jpeg)
        self.behind.away = True
        return answer


class TestFeedback:
    def test_saying_it_twice_is_saying_it_once(self, desk: Desk, picture: Make) -> None:
        said = desk(picture(1))

        def say(n: int) -> None:
            if n % 2:
                feedback.flag(desk.stores, said.id, desk.clock())
            else:
                feedback.relabel(desk.stores, said.id, "owl", desk.clock())

        together(8, say)
        assert len(rows(desk.stores, tables.feedback)) == 2
        asked = rows(desk.stores, tables.tasks)
        assert sorted(task.queue for task in asked) == [queues.USER_FEEDBACK, queues.USER_LABEL]
        now = prediction.get(desk.stores, said.id)
        assert (now.flagged, now.user_label) == (True, "owl")
        desk.work()
        assert len(desk.stores.objects.list("labelstudio/tasks/pets")) == 2

    def test_what_cannot_be_said(self, desk: Desk, picture: Make) -> None:
        said = desk(picture(1))
        with pytest.raises(UnknownClass):
            feedback.relabel(desk.stores, said.id, "zebra", desk.clock())
        with pytest.raises(UnknownPrediction):
            feedback.flag(desk.stores, "none", desk.clock())
        assert rows(desk.stores, tables.tasks) == []

    def test_low_confidence_asks_by_itself(self, desk: Desk, picture: Make) -> None:
        desk.inference.confidence = 0.69
        desk(picture(1))
        desk.inference.confidence = 0.7
        desk(picture(2))
        (task,) = rows(desk.stores, tables.tasks)
        assert (task.queue, task.probability) == (queues.LOW_CONFIDENCE, 1.0)


CLIENTS, UPLOADS = 8, 20


def kept(acknowledged: list[tuple[str, str]], records: Counter[str], objects: list[str]) -> float:
    """The share of acknowledged (prediction, image) that exist exactly once in the records and the store."""
    there = Counter(place.rsplit("/", 1)[-1].removesuffix(".jpg") for place in objects)
    good = [records[prediction_id] == 1 and there[image_id] == 1 for prediction_id, image_id in acknowledged]
    return sum(good) / len(good)


def test_every_acknowledged_picture_is_there_exactly_once(desk: Desk, picture: Make) -> None:
    def client(n: int) -> list[tuple[str, str]]:
        said = [desk(picture(1000 * n + upload)) for upload in range(UPLOADS)]
        return [(one.id, one.image_id) for one in said]

    acknowledged = [one for some in together(CLIENTS, client) for one in some]
    records = Counter(row.id for row in rows(desk.stores, tables.predictions))
    assert len(acknowledged) == records.total() == CLIENTS * UPLOADS
    assert kept(acknowledged, records, places(desk.stores)) == 1.0
    assert len(rows(desk.stores, tables.images)) == len(places(desk.stores)) == CLIENTS * UPLOADS


def test_the_same_check_fails_on_an_app_that_reads_appends_and_writes_back(objects: Objects, picture: Make) -> None:
    log = "tracking/naive.json"
    objects.put(log, b"[]")

    def read() -> list[str] | None:
        """The log, or nothing where another's write has it half done, or away, at this moment."""
        try:
            return json.loads(objects.get(log))
        except (StoreAway, FileNotFoundError, ValueError):
            return None

    def client(n: int) -> list[tuple[str, str]]:
        said = []
        for upload in range(UPLOADS):
            name = f"picture_{upload}"  # the file's name as key, as it came from the visitor
            with contextlib.suppress(StoreAway):  # two wrote it at once
                objects.put(f"production/pets/{name}.jpg", picture(1000 * n + upload))
            lines = read()
            if lines is None:  # a 500, not acknowledged
                continue
            lines.append(f"{n}-{upload}")
            try:
                objects.put(log, json.dumps(lines).encode())
            except StoreAway:  # two wrote it at once
                continue
            said.append((f"{n}-{upload}", name))
        return said

    acknowledged = [one for some in together(CLIENTS, client) for one in some]
    records = Counter(read() or [])
    share = kept(acknowledged, records, [o.key for o in objects.list("production/pets")])
    assert share < 0.9
    assert len(objects.list("production/pets")) == UPLOADS  # of 160 pictures


class TestRandomSample:
    def test_every_picture_of_the_frame_has_its_probability(self, desk: Desk, picture: Make) -> None:
        for seed in range(50):
            desk(picture(seed))
        desk.clock.forward(hours=1)
        drawn = sampling.draw_sample(desk.stores, desk.project, desk.clock())
        assert (drawn.frame, drawn.drawn, drawn.probability) == (50, 20, 0.4)
        entered = rows(desk.stores, tables.inclusions)
        assert len(entered) == 50
        assert {row.probability for row in entered} == {0.4}
        asked = rows(desk.stores, tables.tasks)
        assert {row.image_id for row in entered if row.drawn} == {row.image_id for row in asked}
        assert {(row.queue, row.probability) for row in asked} == {(queues.RANDOM_SAMPLE, 0.4)}
        assert len(asked) == 20
        desk.work()
        files = desk.stores.objects.list("labelstudio/tasks/pets/random_sample")
        assert {json.loads(desk.stores.objects.get(f.key))["data"]["inclusion_probability"] for f in files} == {0.4}
        assert len(files) == 20

    def test_repeating_never_draws_twice_and_late_ones_join_the_next(self, desk: Desk, picture: Make) -> None:
        for seed in range(30):
            desk(picture(seed))
        early = desk.clock.forward(hours=1)
        desk(picture(30))  # at the very end of the window: it belongs to the next
        assert sampling.draw_sample(desk.stores, desk.project, early).frame == 30
        again = sampling.draw_sample(desk.stores, desk.project, desk.clock.forward(hours=1))
        assert (again.frame, again.drawn, again.probability) == (1, 1, 1.0)
        assert sampling.draw_sample(desk.stores, desk.project, desk.clock.forward(hours=1)).frame == 0
        entered = rows(desk.stores, tables.inclusions)
        assert len(entered) == 31
        assert sum(row.drawn for row in entered) == 21
        desk(picture(3))  # a picture that comes again is not new
        assert sampling.draw_sample(desk.stores, desk.project, desk.clock.forward(hours=1)).frame == 0

    def test_killed_in_the_middle_nothing_was_drawn(
        self, desk: Desk, picture: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for seed in range(25):
            desk(picture(seed))
        desk.clock.forward(hours=1)
        with monkeypatch.context() as patched:
            patched.setattr(asking, "add_inclusions", _fail_after(10, asking.add_inclusions))
            with pytest.raises(Boom):
                sampling.draw_sample(desk.stores, desk.project, desk.clock())
        assert rows(desk.stores, tables.tasks) == rows(desk.stores, tables.inclusions) == []
        assert sampling.draw_sample(desk.stores, desk.project, desk.clock()).drawn == 20

    def test_two_draws_at_once_are_one(self, desk: Desk, picture: Make) -> None:
        for seed in range(60):
            desk(picture(seed))
        start = desk.clock.forward(hours=1)

        def draw(n: int) -> sampling.Sample:
            return sampling.draw_sample(desk.stores, desk.project, start.replace(microsecond=n))

        drawn = together(6, draw)
        assert sorted(one.frame for one in drawn) == [0, 0, 0, 0, 0, 60]
        assert sum(one.drawn for one in drawn) == 20
        assert len(rows(desk.stores, tables.tasks)) == 20
        assert sum(row.drawn for row in rows(desk.stores, tables.inclusions)) == 20


class TestDelivery:
    def test_twice_makes_one_file(self, desk: Desk, picture: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        feedback.flag(desk.stores, desk(picture(1)).id, desk.clock())
        (task,) = rows(desk.stores, tables.tasks)
        with monkeypatch.context() as patched:  # killed between the put and the commit
            patched.setattr(asking, "delivered", _fail_after(0, asking.delivered))
            with pytest.raises(Boom):
                tasks.deliver(desk.stores, task.id, desk.clock())
        (first,) = desk.stores.objects.list("labelstudio/tasks/pets")
        before = desk.stores.objects.get(first.key)
        desk.inference.label = "dog"
        desk(picture(1))  # a newer answer in between changes nothing
        tasks.deliver(desk.stores, task.id, desk.clock())
        tasks.deliver(desk.stores, task.id, desk.clock())
        (file,) = desk.stores.objects.list("labelstudio/tasks/pets")
        assert (file.key, file.version) == (first.key, first.version)
        assert desk.stores.objects.get(file.key) == before
        assert file.key == f"labelstudio/tasks/pets/user_feedback/task_{task.id}.json"

    def test_two_samplers_at_once_make_one_file_each(self, desk: Desk, picture: Make) -> None:
        for seed in range(10):
            feedback.flag(desk.stores, desk(picture(seed)).id, desk.clock())
        together(4, lambda _: outbox.work(desk.stores, desk.inference, desk.clock))  # type: ignore[arg-type]
        assert len(desk.stores.objects.list("labelstudio/tasks/pets")) == 10
        assert all(row.delivered_at for row in rows(desk.stores, tables.tasks))
        assert all(row.done_at for row in rows(desk.stores, tables.outbox))

    def test_a_poison_entry_blocks_no_other(self, desk: Desk, picture: Make) -> None:
        desk.inference.away = True
        lost = desk(picture(1))
        desk.stores.objects.remove(f"production/pets/unclassified/{lost.image_id}.jpg")
        with desk.stores.db.write() as tx:
            asking.promise(tx, "tidy", "not a place", desk.clock())
            asking.promise(tx, "deliver", "no such task", desk.clock())
        good = desk(picture(2))
        desk.inference.away = False
        feedback.flag(desk.stores, good.id, desk.clock())
        desk.work()
        assert prediction.get(desk.stores, good.id).status == "done"
        assert len(desk.stores.objects.list("labelstudio/tasks/pets/user_feedback")) == 1
        waiting = [row for row in rows(desk.stores, tables.outbox) if row.done_at is None]
        assert {(row.kind, row.ref) for row in waiting} == {("predict", lost.id), ("tidy", "not a place")}
        assert all(row.error and row.attempts for row in waiting)

    def test_what_fails_is_tried_again_when_it_is_twice_as_old_whatever_came_before(
        self, desk: Desk, picture: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk.inference.away = True
        began, waits = desk.clock(), desk(picture(1))
        while desk.clock() - began < dt.timedelta(seconds=30):  # each of two samplers finds inference away
            together(2, lambda _: outbox.work(desk.stores, desk.inference, desk.clock))  # type: ignore[arg-type]
            desk.clock.forward(seconds=1)
        desk.inference.away = False
        with monkeypatch.context() as broken:
            broken.setattr(outbox.prediction, "answer_pending", _fail_after(0, prediction.answer_pending))
            desk.clock.forward(seconds=10)
            together(2, lambda _: outbox.work(desk.stores, desk.inference, desk.clock))  # type: ignore[arg-type]
        age = desk.clock() - began
        desk.clock.forward(seconds=age.total_seconds() - 3)
        assert outbox.work(desk.stores, desk.inference, desk.clock) == 0  # type: ignore[arg-type]
        desk.clock.forward(seconds=6)
        assert outbox.work(desk.stores, desk.inference, desk.clock) == 1  # type: ignore[arg-type]
        assert prediction.get(desk.stores, waits.id).status == "done"

    def test_the_store_is_away_for_a_while(self, desk: Desk, picture: Make) -> None:
        feedback.flag(desk.stores, desk(picture(1)).id, desk.clock())
        away = Stores(desk.stores.db, Objects("http://127.0.0.1:9", "key", "secret"))
        assert outbox.work(away, desk.inference, desk.clock) == 0  # type: ignore[arg-type]
        with pytest.raises(ClosedloopError):
            prediction.receive(away, desk.inference, desk.project, picture(2), desk.clock())  # type: ignore[arg-type]
        assert len(rows(desk.stores, tables.images)) == 1  # what was not kept was not acknowledged
        desk.work()
        assert len(desk.stores.objects.list("labelstudio/tasks/pets")) == 1


class Boom(Exception):
    pass


def _fail_after(calls: int, real: Callable[..., Any]) -> Callable[..., Any]:
    left = iter(range(calls))

    def call(*arguments: Any, **named: Any) -> Any:
        if next(left, None) is None:
            raise Boom
        return real(*arguments, **named)

    return call


def test_a_day_is_written_once_when_it_is_over_with_a_line_per_prediction(desk: Desk, picture: Make) -> None:
    desk.clock.now = START.replace(hour=23, minute=59, second=58)
    said = []
    for number in (1, 2, 1):
        desk.clock.forward(milliseconds=1)
        said.append(desk(picture(number)))
    midnight = START.replace(hour=0) + dt.timedelta(days=1)
    for minutes in (0, 9):  # a picture of the last second may not be committed yet
        assert tracking.close_days(desk.stores, desk.project, midnight + dt.timedelta(minutes=minutes)) == []
    (key,) = tracking.close_days(desk.stores, desk.project, midnight + dt.timedelta(minutes=11))
    assert key == f"tracking/pets/{START.date().isoformat()}.jsonl"
    lines = [json.loads(line) for line in desk.stores.objects.get(key).splitlines()]
    assert [line["prediction_id"] for line in lines] == [one.id for one in said]
    assert {(line["label"], line["release"], line["project_id"]) for line in lines} == {("cat", "r0001-test", "pets")}
    assert tracking.close_days(desk.stores, desk.project, midnight + dt.timedelta(hours=5)) == []


def test_a_day_waits_two_days_for_pictures_that_nobody_could_answer(desk: Desk, picture: Make) -> None:
    desk.inference.away = True
    desk(picture(1))
    midnight = START.replace(hour=0) + dt.timedelta(days=1)
    assert tracking.close_days(desk.stores, desk.project, midnight + dt.timedelta(days=1)) == []
    (key,) = tracking.close_days(desk.stores, desk.project, midnight + dt.timedelta(days=2, minutes=11))[:1]
    assert json.loads(desk.stores.objects.get(key))["status"] == "pending"
