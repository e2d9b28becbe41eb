"""Removing a picture takes everything that was derived from it, and nothing else; what visitors undo is undone."""

import contextlib
import datetime as dt
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from closedloop import (
    datasets,
    feedback,
    importing,
    labels,
    leases,
    outbox,
    prediction,
    queues,
    removal,
    sampling,
    tasks,
    tracking,
)
from closedloop.errors import PictureRemoved, UnknownPicture, UnknownPrediction
from closedloop.features import Features
from closedloop.prediction import Prediction
from closedloop.project import Project
from closedloop.storage import Stores, answers, asking, tables, vectors
from tests.conftest import START, Clock
from tests.integration.stack import StandIn

Make = Callable[..., bytes]
ME, OTHER = "a" * 32, "b" * 32


class Tower:
    """An encoder that is never asked for anything."""

    name, digest, size = "tower", "f" * 64, 8

    def embed(self, images: list[object]) -> None:
        raise AssertionError("asked for a picture that is gone")


class Desk:
    """Takes pictures from visitors, and does what the sampler does."""

    def __init__(self, stores: Stores, inference: StandIn, project: Project, clock: Clock) -> None:
        self.stores, self.inference, self.project, self.clock = stores, inference, project, clock

    def __call__(self, data: bytes, visitor: str | None = ME) -> Prediction:
        return prediction.receive(
            self.stores,
            self.inference,  # type: ignore[arg-type]
            self.project,
            data,
            self.clock(),
            None,
            visitor,
        )

    def work(self) -> None:
        for _ in range(5):
            self.clock.forward(seconds=20)
            outbox.work(self.stores, self.inference, self.clock)  # type: ignore[arg-type]

    def rows(self, table: sa.Table) -> list[sa.Row]:
        with self.stores.db.read() as tx:
            return list(tx.execute(sa.select(table)).all())

    def places(self) -> list[str]:
        return [listed.key for listed in self.stores.objects.list("production/pets")]

    def annotate(self, task_id: str, label: str) -> None:
        row = {"annotation_id": "7", "answered_at": self.clock(), "project_id": "pets", "task_id": task_id}
        with self.stores.db.write() as tx:
            answers.add_annotation(
                tx, {**row, "annotator": "1", "state": "answered", "label": label, "collected_at": self.clock()}
            )


@pytest.fixture
def desk(stores: Stores, inference: StandIn, project: Project, clock: Clock) -> Desk:
    return Desk(stores, inference, project, clock)


def task_of(desk: Desk, queue: str) -> sa.Row:
    (found,) = [row for row in desk.rows(tables.tasks) if row.queue == queue]
    return found


def test_a_visitor_takes_back_what_he_sent(desk: Desk, picture: Make) -> None:
    kept, gone = desk(picture(1)), desk(picture(2))
    feedback.flag(desk.stores, gone.id, desk.clock())
    feedback.relabel(desk.stores, gone.id, "owl", desk.clock())
    desk.stores.objects.put(removal.thumbnail_key("pets", gone.image_id), b"small")
    removal.take_back(desk.stores, gone.id, ME, desk.clock())
    with pytest.raises(UnknownPrediction):
        prediction.get(desk.stores, gone.id)
    desk.work()
    assert [key for key in desk.places() if gone.image_id in key] == []
    assert [key for key in desk.places() if kept.image_id in key] != []
    assert not desk.stores.objects.exists(removal.thumbnail_key("pets", gone.image_id))
    assert [row.id for row in desk.rows(tables.predictions)] == [kept.id]
    assert desk.rows(tables.feedback) == []
    assert [row.image_id for row in desk.rows(tables.embeddings)] == [kept.image_id]
    assert [row.image_id for row in desk.rows(tables.catalogue)] == [kept.image_id]
    assert desk.rows(tables.tasks) == []
    assert desk.rows(tables.inclusions) == []
    assert {row.queue for row in desk.rows(tables.leftovers)} == {queues.USER_FEEDBACK, queues.USER_LABEL}
    (tombstone,) = removal.listing(desk.stores, "pets")
    assert (tombstone.image_id, tombstone.removed_by, tombstone.releases) == (gone.image_id, "visitor", ())
    assert prediction.get(desk.stores, kept.id) == kept


def test_nobody_takes_back_what_another_sent(desk: Desk, picture: Make) -> None:
    said = desk(picture(1))
    for stranger in (OTHER, ""):
        with pytest.raises(UnknownPrediction):
            removal.take_back(desk.stores, said.id, stranger, desk.clock())
    anonymous = desk(picture(2), None)
    with pytest.raises(UnknownPrediction):
        removal.take_back(desk.stores, anonymous.id, ME, desk.clock())
    assert len(desk.rows(tables.predictions)) == 2


def test_the_same_picture_of_another_visitor_stays(desk: Desk, picture: Make) -> None:
    mine, theirs = desk(picture(1)), desk(picture(1), OTHER)
    feedback.flag(desk.stores, mine.id, desk.clock())
    removal.take_back(desk.stores, mine.id, ME, desk.clock())
    desk.work()
    assert [row.id for row in desk.rows(tables.predictions)] == [theirs.id]
    assert len(desk.places()) == 1
    assert desk.stores.objects.get(desk.places()[0])
    (listed,) = desk.rows(tables.catalogue)
    assert not listed.flagged  # the flag went with the one who said it
    assert removal.listing(desk.stores, "pets") == []


def test_an_owner_removes_an_answered_picture_and_learns_who_learnt_from_it(desk: Desk, picture: Make) -> None:
    said = desk(picture(1))
    feedback.flag(desk.stores, said.id, desk.clock())
    desk.annotate(task_of(desk, queues.USER_FEEDBACK).id, "dog")
    frozen = datasets.freeze(desk.stores, desk.project, "classifier", desk.clock())
    assert [item.image_id for item in frozen.items] == [said.image_id]
    card = {"project_id": "pets", "head": "classifier", "id": "r0001", "number": 1, "dataset_id": frozen.id}
    with desk.stores.db.write() as tx:
        tx.execute(
            tables.releases.insert().values(
                **card, encoder="e", state="live", reason="better", card={}, created_at=START, went_live_at=START
            )
        )
    removal.remove(desk.stores, "pets", said.image_id, "owner@example.org", desk.clock())
    (tombstone,) = removal.listing(desk.stores, "pets")
    assert (tombstone.removed_by, tombstone.releases) == ("owner@example.org", ("r0001",))
    assert labels.settled_items(desk.stores, desk.project) == []  # the next dataset is without it
    with pytest.raises(UnknownPicture):
        removal.remove(desk.stores, "pets", said.image_id, "owner@example.org", desk.clock())


def test_a_removed_picture_is_asked_about_no_more(desk: Desk, picture: Make) -> None:
    desk.inference.confidence = 0.3
    said = desk(picture(1))
    removal.take_back(desk.stores, said.id, ME, desk.clock())
    desk.work()
    assert desk.stores.objects.list("labelstudio/tasks/pets/low_confidence") == []  # it was not delivered yet
    desk.clock.forward(days=1)
    assert sampling.draw_sample(desk.stores, desk.project, desk.clock()).frame == 0
    with desk.stores.db.read() as tx:
        assert asking.unsynced(tx, "pets", queues.LOW_CONFIDENCE) == []
        assert asking.queue_depths(tx, ("answered",)).get(("pets", queues.LOW_CONFIDENCE)) is None


def test_a_removed_picture_that_comes_again_is_a_new_one(desk: Desk, picture: Make) -> None:
    first = desk(picture(1))
    removal.take_back(desk.stores, first.id, ME, desk.clock())
    again = desk(picture(1))  # before its former copy was removed
    assert again.image_id == first.image_id
    desk.work()
    (key,) = desk.places()
    assert desk.stores.objects.get(key)
    assert removal.listing(desk.stores, "pets") == []
    removal.take_back(desk.stores, again.id, ME, desk.clock())
    desk.work()
    assert desk.places() == []
    third = desk(picture(1))  # after
    desk.work()
    assert prediction.get(desk.stores, third.id) == third
    assert len(desk.places()) == 1


def test_a_picture_that_comes_while_its_copy_is_being_removed_is_there(desk: Desk, picture: Make) -> None:
    """The store is asked to remove it at the very moment at which it is put: whoever was acknowledged has it."""
    for seed in range(4):
        first = desk(picture(seed))
        removal.take_back(desk.stores, first.id, ME, desk.clock())
        gate = threading.Barrier(2)

        def sweep(gate: threading.Barrier = gate) -> None:
            gate.wait()
            outbox.work(desk.stores, desk.inference, desk.clock)  # type: ignore[arg-type]

        worker = threading.Thread(target=sweep)
        worker.start()
        gate.wait()
        again = desk(picture(seed))
        worker.join()
        desk.work()
        (picture_row,) = [row for row in desk.rows(tables.images) if row.id == again.image_id]
        assert picture_row.removed_at is None
        assert desk.stores.objects.get(picture_row.key)


def test_what_was_answered_about_its_former_life_is_no_answer(desk: Desk, picture: Make) -> None:
    first = desk(picture(1))
    feedback.flag(desk.stores, first.id, desk.clock())
    former = task_of(desk, queues.USER_FEEDBACK).id
    desk.annotate(former, "dog")
    removal.take_back(desk.stores, first.id, ME, desk.clock())
    again = desk(picture(1))
    feedback.flag(desk.stores, again.id, desk.clock())
    assert task_of(desk, queues.USER_FEEDBACK).id != former
    assert labels.settled_items(desk.stores, desk.project) == []
    (left,) = desk.rows(tables.leftovers)
    assert (left.task_id, left.annotations) == (former, ["7"])


def test_a_task_file_that_is_put_while_its_picture_is_removed_goes_too(
    desk: Desk, picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.inference.confidence = 0.3
    said = desk(picture(1))
    put = desk.stores.objects.put

    def put_late(key: str, content: bytes) -> None:
        removal.take_back(desk.stores, said.id, ME, desk.clock())
        put(key, content)

    monkeypatch.setattr(desk.stores.objects, "put", put_late)
    tasks.deliver(desk.stores, task_of(desk, queues.LOW_CONFIDENCE).id, desk.clock())
    assert desk.stores.objects.list("labelstudio/tasks/pets/low_confidence") == []


def test_a_picture_that_is_removed_while_it_is_embedded_gets_no_embedding(desk: Desk, picture: Make) -> None:
    kept, gone = desk(picture(1)), desk(picture(2))
    removal.take_back(desk.stores, gone.id, ME, desk.clock())
    rows = [vectors.Vector(one.image_id, b"1234") for one in (kept, gone)]
    with desk.stores.db.write() as tx:
        assert vectors.add(tx, "pets", "f" * 64, rows, desk.clock()) == 1
    assert {row.image_id for row in desk.rows(tables.embeddings)} == {kept.image_id}
    features = Features(desk.stores, "pets", "f" * 64, lambda: Tower(), desk.clock)  # type: ignore[arg-type, return-value]
    with pytest.raises(PictureRemoved):
        features.vectors([gone.image_id])


def test_flags_and_removals_that_meet_leave_all_or_nothing(desk: Desk, picture: Make) -> None:
    """Whatever comes first, the other finds it done: nobody is asked about a picture that is gone."""
    refused = (UnknownPrediction, UnknownPicture)
    for seed in range(30):
        said = desk(picture(seed))
        calls = (
            lambda said=said: feedback.flag(desk.stores, said.id, desk.clock()),
            lambda said=said: feedback.relabel(desk.stores, said.id, "owl", desk.clock()),
            lambda said=said: feedback.take_back_flag(desk.stores, said.id, desk.clock()),
            lambda said=said: removal.remove(desk.stores, "pets", said.image_id, "me", desk.clock()),
            lambda said=said: removal.take_back(desk.stores, said.id, ME, desk.clock()),
        )
        gate = threading.Barrier(len(calls))

        def call(deed: Callable[[], None], gate: threading.Barrier = gate) -> None:
            gate.wait()
            with contextlib.suppress(*refused):
                deed()

        with ThreadPoolExecutor(len(calls)) as pool:
            for done in [pool.submit(call, deed) for deed in calls]:
                done.result()  # raises what it raised: no deadlock, no row without its picture
    for table in (tables.tasks, tables.predictions, tables.feedback, tables.inclusions, tables.catalogue):
        assert desk.rows(table) == [], table.name
    assert len(removal.listing(desk.stores, "pets")) == 30


def test_a_draw_and_a_removal_that_meet_ask_about_no_removed_picture(desk: Desk, picture: Make) -> None:
    for seed in range(20):
        said = desk(picture(seed))
        desk.clock.forward(minutes=1)
        gate = threading.Barrier(2)

        def draw(gate: threading.Barrier = gate) -> None:
            gate.wait()
            sampling.draw_sample(desk.stores, desk.project, desk.clock())

        drawing = threading.Thread(target=draw)
        drawing.start()
        gate.wait()
        removal.take_back(desk.stores, said.id, ME, desk.clock())
        drawing.join()
    assert desk.rows(tables.tasks) == []
    assert desk.rows(tables.inclusions) == []


def test_the_leases_of_removals_are_forgotten(desk: Desk, picture: Make) -> None:
    said = desk(picture(1))
    removal.take_back(desk.stores, said.id, ME, desk.clock())
    desk.work()
    with leases.held(desk.stores, "held", lambda: dt.datetime.now(dt.UTC)):
        leases.forget(desk.stores, dt.datetime.now(dt.UTC) + leases.KEPT / 2)
        assert len(desk.rows(tables.leases)) == 2
        leases.forget(desk.stores, dt.datetime.now(dt.UTC) + 2 * leases.KEPT)
        assert [row.name for row in desk.rows(tables.leases)] == ["held"]


def test_what_is_removed_while_its_day_is_closed_is_not_in_the_file(
    desk: Desk, picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = desk(picture(1)), desk(picture(2))
    desk.clock.forward(days=1)
    put = desk.stores.objects.put

    def put_late(key: str, content: bytes) -> None:
        monkeypatch.undo()
        removal.take_back(desk.stores, gone.id, ME, desk.clock())
        desk.work()  # finds no file to write again
        put(key, content)

    monkeypatch.setattr(desk.stores.objects, "put", put_late)
    (key,) = tracking.close_days(desk.stores, desk.project, desk.clock())
    (line,) = desk.stores.objects.get(key).splitlines()
    assert json.loads(line)["prediction_id"] == kept.id


def test_a_pending_picture_is_removed_and_never_answered(desk: Desk, picture: Make) -> None:
    desk.inference.away = True
    said = desk(picture(1))
    assert said.status == "pending"
    removal.take_back(desk.stores, said.id, ME, desk.clock())
    desk.inference.away = False
    desk.work()
    assert desk.rows(tables.predictions) == []
    assert desk.places() == []
    assert [row.error for row in desk.rows(tables.outbox) if row.done_at is None] == []


def test_a_closed_day_forgets_it_too(desk: Desk, picture: Make) -> None:
    kept, gone = desk(picture(1)), desk(picture(2))
    desk.clock.forward(days=1)
    (key,) = tracking.close_days(desk.stores, desk.project, desk.clock())
    removal.take_back(desk.stores, gone.id, ME, desk.clock())
    desk.work()
    (line,) = desk.stores.objects.get(key).splitlines()
    assert json.loads(line)["prediction_id"] == kept.id


def test_an_import_brings_a_removed_picture_back(desk: Desk, picture: Make, tmp_path) -> None:
    said = desk(picture(1))
    removal.take_back(desk.stores, said.id, ME, desk.clock())
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "one.png").write_bytes(picture(1))
    assert importing.run(desk.stores, desk.project, tmp_path, desk.clock).added == 1
    desk.work()
    (item,) = labels.settled_items(desk.stores, desk.project)
    assert (item.image_id, item.label) == (said.image_id, "cat")
    assert any(said.image_id in key for key in desk.places())


@pytest.mark.parametrize(
    ("say", "undo", "queue"),
    [
        (feedback.flag, feedback.take_back_flag, queues.USER_FEEDBACK),
        (lambda s, p, at: feedback.relabel(s, p, "owl", at), feedback.take_back_label, queues.USER_LABEL),
    ],
)
def test_what_was_said_by_mistake_is_undone_and_may_be_said_again(
    desk: Desk, picture: Make, say: Callable[..., None], undo: Callable[..., None], queue: str
) -> None:
    said = desk(picture(1))
    undo(desk.stores, said.id, desk.clock())  # nothing was said yet
    say(desk.stores, said.id, desk.clock())
    undo(desk.stores, said.id, desk.clock())
    assert prediction.get(desk.stores, said.id) == said
    assert task_of(desk, queue).withdrawn_at is not None
    say(desk.stores, said.id, desk.clock())
    now = prediction.get(desk.stores, said.id)
    assert now.flagged or now.user_label == "owl"
    assert task_of(desk, queue).withdrawn_at is None
    desk.work()
    assert len(desk.stores.objects.list(f"labelstudio/tasks/pets/{queue}")) == 1
    with pytest.raises(UnknownPrediction):
        undo(desk.stores, "0" * 32, desk.clock())


def test_undoing_leaves_what_another_visitor_said_of_the_same_picture(desk: Desk, picture: Make) -> None:
    mine, theirs = desk(picture(1)), desk(picture(1), OTHER)
    for one in (mine, theirs):
        feedback.flag(desk.stores, one.id, desk.clock())
    feedback.take_back_flag(desk.stores, mine.id, desk.clock())
    assert prediction.get(desk.stores, theirs.id).flagged
    assert task_of(desk, queues.USER_FEEDBACK).withdrawn_at is None


def test_days_are_those_of_the_predictions(desk: Desk, picture: Make) -> None:
    """A picture that was sent on two days is forgotten in the files of both."""
    first = desk(picture(1))
    desk.clock.forward(days=1)
    desk(picture(1))
    desk.clock.forward(days=1)
    assert len(tracking.close_days(desk.stores, desk.project, desk.clock())) == 2
    removal.take_back(desk.stores, first.id, ME, desk.clock())
    desk.work()
    files = desk.stores.objects.list("tracking/pets")
    assert [desk.stores.objects.get(file.key) for file in files] == [b"", b""]
    assert START.date() + dt.timedelta(days=1) == dt.date.fromisoformat(files[1].key[-16:-6])
