"""Sets from the upload to the crop that is asked for: kept once, suggested, asked about, answered, removed."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from closedloop import annotations, crops, image, outbox, removal, selections, sets, sync, tasks
from closedloop import project as projects
from closedloop.errors import (
    InferenceRefused,
    PictureOfSet,
    SamePictureTwice,
    SetSize,
    StoreAway,
    UnknownPicture,
    UnknownSet,
    WrongKind,
)
from closedloop.project import Project
from closedloop.sets import PictureSet
from closedloop.storage import Stores, asking, tables
from closedloop.storage import sets as rows
from closedloop.task_files import NONE_IS_GOOD, CropData, SetData, TaskFile
from tests.conftest import START, Clock
from tests.integration.stack import StandIn

Make = Callable[..., bytes]
ME, OTHER = "a" * 32, "b" * 32
EVERY = "{id: scenes, title: Scenes, kind: selection, ask: {random_share: 1.0, least_sure: 0}}"
UNSURE = "{id: unsure, title: Scenes, kind: selection, ask: {random_share: 0.0, least_sure: 2}}"


class Desk:
    """Takes sets from visitors, and does what the sampler does."""

    def __init__(self, stores: Stores, inference: StandIn, manifest: str, clock: Clock) -> None:
        self.stores, self.inference, self.clock = stores, inference, clock
        self.project = projects.parse_manifest(manifest)
        projects.add(stores, self.project, START)

    def __call__(self, *files: bytes, visitor: str | None = ME) -> PictureSet:
        now = self.clock.forward(seconds=1)
        return sets.receive(self.stores, self.inference, self.project, files, now, visitor)  # type: ignore[arg-type]

    def work(self) -> None:
        for _ in range(5):
            self.clock.forward(seconds=20)
            outbox.work(self.stores, self.inference, self.clock)  # type: ignore[arg-type]

    def renew(self) -> int:
        return selections.renew(self.stores, self.inference, self.project, self.clock())  # type: ignore[arg-type]

    def rows(self, table: sa.Table) -> list[sa.Row]:
        with self.stores.db.read() as tx:
            return list(tx.execute(sa.select(table)).all())

    def places(self, of: str = "production") -> list[str]:
        return [listed.key for listed in self.stores.objects.list(f"{of}/{self.project.id}")]

    def file(self, queue: str) -> TaskFile:
        (task,) = [row for row in self.rows(tables.tasks) if row.queue == queue]
        return TaskFile.model_validate_json(self.stores.objects.get(tasks.key(self.project.id, queue, task.id)))

    def answer(self, queue: str, result: list, annotator: int = 1, number: int = 1, cancelled: bool = False) -> None:
        """As a round with Label Studio keeps an annotation."""
        (task,) = [row for row in self.rows(tables.tasks) if row.queue == queue]
        raw = {"id": number, "completed_by": annotator, "updated_at": self.clock.forward(seconds=1).isoformat()}
        of_queue = sync._Queue(self.stores, None, self.project, queue, self.clock, sync.Round())  # type: ignore[arg-type]
        of_queue._keep({"task_id": task.id}, {**raw, "result": result, "was_cancelled": cancelled})


def picks(value: str) -> list:
    return [{"from_name": "choice", "value": {"choices": [value]}}]


@pytest.fixture
def desk(stores: Stores, inference: StandIn, clock: Clock) -> Desk:
    return Desk(stores, inference, EVERY, clock)


@pytest.fixture
def unsure(stores: Stores, inference: StandIn, clock: Clock) -> Desk:
    return Desk(stores, inference, UNSURE, clock)


class TestReceived:
    def test_a_set_is_kept_with_its_suggestion_and_its_crop(self, desk: Desk, picture: Make) -> None:
        made = desk(picture(1), picture(2, (300, 200)), picture(3))
        assert made.status == "done"
        assert made.best == made.image_ids[1]  # the largest
        assert (made.confidence, made.release) == (0.9, "r0001-test")
        assert made.scores is not None
        assert set(made.scores) == set(made.image_ids)
        assert made.crop is not None
        assert made.crop.box == crops.Box(0.1, 0.2, 0.8, 0.9)
        assert len(desk.places()) == 3
        assert sets.get(desk.stores, made.id) == made
        assert json.loads(json.dumps(made.as_json()))["crop"]["box"] == {"x1": 0.1, "y1": 0.2, "x2": 0.8, "y2": 0.9}

    def test_the_same_pictures_in_another_order_are_the_same_set(self, desk: Desk, picture: Make) -> None:
        first = desk(picture(1), picture(2))
        assert desk(picture(2), picture(1)).id == first.id
        assert len(desk.rows(tables.sets)) == 1
        assert len(desk.rows(tables.suggestions)) == 1
        assert len(desk.rows(tables.images)) == 2

    def test_with_inference_away_it_is_kept_and_suggested_later(self, desk: Desk, picture: Make) -> None:
        desk.inference.away = True
        made = desk(picture(1), picture(2))
        assert (made.status, made.best) == ("pending", None)
        desk.work()
        assert sets.get(desk.stores, made.id).status == "pending"
        assert desk.places("labelstudio/tasks") == []  # nobody is asked before there is something to show
        desk.inference.away = False
        desk.work()
        assert sets.get(desk.stores, made.id).best is not None
        assert len(desk.rows(tables.suggestions)) == 1

    def test_without_a_release_nothing_is_suggested(self, desk: Desk, picture: Make) -> None:
        desk.inference.label = None
        made = desk(picture(1), picture(2))
        assert (made.status, made.best, made.release, made.crop) == ("done", None, None, None)
        desk.work()
        assert desk.file("selection").predictions == []

    @pytest.mark.parametrize("count", [0, 1, 13])
    def test_a_set_of_another_size_is_refused(self, desk: Desk, picture: Make, count: int) -> None:
        with pytest.raises(SetSize, match=str(count)):
            desk(*(picture(seed) for seed in range(count)))
        assert desk.rows(tables.images) == []

    def test_the_same_picture_twice_is_refused_with_both_numbers(self, desk: Desk, picture: Make) -> None:
        with pytest.raises(SamePictureTwice, match="1 and 3"):
            desk(picture(1), picture(2), picture(1))
        assert desk.places() == []

    def test_a_broken_picture_is_named_and_nothing_is_kept(self, desk: Desk, picture: Make) -> None:
        with pytest.raises(PictureOfSet, match="Picture 2 of the set") as caught:
            desk(picture(1), picture(2)[:200], picture(3))
        assert (caught.value.code, caught.value.status) == ("broken_picture", 422)
        assert desk.rows(tables.images) == []
        assert desk.places() == []

    def test_a_project_takes_what_its_kind_is_for(self, desk: Desk, project: Project, picture: Make) -> None:
        desk.project = project
        with pytest.raises(WrongKind):
            desk(picture(1), picture(2))

    def test_killed_before_the_records_and_sent_again(
        self, desk: Desk, picture: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(rows, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                desk(picture(1), picture(2))
        assert desk.rows(tables.images) == []
        made = desk(picture(1), picture(2))
        assert len(desk.rows(tables.set_pictures)) == 2
        assert made.status == "done"

    def test_with_the_store_away_nothing_is_kept(
        self, desk: Desk, picture: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: object) -> None:
            raise StoreAway

        monkeypatch.setattr(desk.stores.objects, "put", away)
        with pytest.raises(StoreAway):
            desk(picture(1), picture(2))
        assert desk.rows(tables.sets) == []


class TestAsked:
    def test_by_chance_with_the_probability_in_the_task(self, desk: Desk, picture: Make) -> None:
        made = desk(picture(1), picture(2, (300, 200)))
        desk.work()
        file = desk.file("selection")
        assert isinstance(file.data, SetData)
        assert (file.data.reason, file.data.inclusion_probability) == ("random", 1.0)
        assert file.data.image_ids == list(made.image_ids)
        assert [option.value for option in file.data.options] == ["1", "2", NONE_IS_GOOD]
        assert file.predictions[0].result[0]["value"] == {"choices": ["2"]}
        assert all(f's3://production/scenes/unclassified/{id_}.jpg"' in file.to_bytes().decode().replace("\\", "")
                   for id_ in made.image_ids)  # fmt: skip

    def test_the_least_sure_come_first_and_only_so_many_wait(self, unsure: Desk, picture: Make) -> None:
        made = []
        for seed, confidence in enumerate((0.9, 0.4, 0.7, 0.6)):
            unsure.inference.confidence = confidence
            made.append(unsure(picture(2 * seed), picture(2 * seed + 1)))
        assert selections.ask_least_sure(unsure.stores, unsure.project, unsure.clock()) == 2
        assert selections.ask_least_sure(unsure.stores, unsure.project, unsure.clock()) == 0
        asked = {row.set_id for row in unsure.rows(tables.tasks)}
        assert asked == {made[1].id, made[3].id}
        assert {row.reason for row in unsure.rows(tables.tasks)} == {"least_sure"}

    def test_an_answer_makes_room_for_the_next(self, unsure: Desk, picture: Make) -> None:
        unsure(picture(1), picture(2))
        selections.ask_least_sure(unsure.stores, unsure.project, unsure.clock())
        unsure.answer("selection", [], cancelled=True)
        for seed in (3, 5):
            unsure(picture(seed), picture(seed + 1))
        assert selections.ask_least_sure(unsure.stores, unsure.project, unsure.clock()) == 2

    @pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
    def test_a_set_that_goes_while_it_is_asked_about_leaves_no_task(
        self, unsure: Desk, picture: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, find, going = unsure(picture(1), picture(2)), rows.least_sure, []

        def interrupted(*arguments: Any) -> list[str]:
            found = find(*arguments)
            going.append(threading.Thread(target=take_back, args=(unsure, made)))
            going[0].start()
            going[0].join(1)
            return found

        monkeypatch.setattr(rows, "least_sure", interrupted)
        assert selections.ask_least_sure(unsure.stores, unsure.project, unsure.clock()) == 1
        going[0].join()
        with pytest.raises(UnknownSet):
            sets.get(unsure.stores, made.id)
        assert unsure.rows(tables.tasks) == []


class TestSuggestedLater:
    """What releases that came after a set say about it."""

    def test_what_a_former_release_suggested_is_suggested_anew(self, unsure: Desk, picture: Make) -> None:
        made = unsure(picture(1), picture(2))
        unsure.inference.release, unsure.inference.confidence = "r0002-test", 0.55
        assert unsure.renew() == 2  # which is best, and the crop of that
        assert unsure.renew() == 0  # promised already
        unsure.work()
        renewed = sets.get(unsure.stores, made.id)
        assert (renewed.release, renewed.confidence) == ("r0002-test", 0.55)
        assert renewed.crop is not None
        assert renewed.crop.release == "r0002-test"
        assert len(unsure.rows(tables.proposals)) == 2
        assert unsure.renew() == 0
        assert len(unsure.rows(tables.suggestions)) == 2

    def test_annotators_have_seen_what_a_set_keeps_that_they_were_asked_about(self, desk: Desk, picture: Make) -> None:
        made = desk(picture(1), picture(2))
        desk.inference.release = "r0002-test"
        assert desk.renew() == 0
        assert sets.get(desk.stores, made.id).release == "r0001-test"

    def test_a_first_release_answers_what_was_asked_about_before_it(self, desk: Desk, picture: Make) -> None:
        desk.inference.label = None
        made = desk(picture(1), picture(2))
        desk.work()
        assert desk.renew() == 0
        desk.inference.label = "cat"
        assert desk.renew() == 1
        desk.work()
        answered = sets.get(desk.stores, made.id)
        assert answered.best is not None
        assert answered.crop is not None

    def test_a_set_that_is_sent_again_is_answered_at_once(self, desk: Desk, picture: Make) -> None:
        desk.inference.label = None
        assert desk(picture(1), picture(2)).best is None
        desk.inference.label = "cat"
        assert desk(picture(1), picture(2)).best is not None

    def test_an_imported_set_is_answered_to_who_sends_it(self, unsure: Desk, picture: Make) -> None:
        accepted = sorted((image.accept(picture(seed)) for seed in (1, 2)), key=lambda one: one.id)
        pick = sets.Pick(accepted[0].id, "s", START)
        sets.keep(unsure.stores, unsure.project, accepted, "import", START, picked=pick)
        assert unsure.renew() == 0  # nobody is shown it
        assert unsure(picture(1), picture(2)).best is not None

    @pytest.mark.parametrize("asked", [True, False])
    def test_a_crop_comes_once_there_is_a_proposer(
        self, desk: Desk, unsure: Desk, picture: Make, monkeypatch: pytest.MonkeyPatch, asked: bool
    ) -> None:
        at = desk if asked else unsure
        with monkeypatch.context() as without:
            without.setattr(at.inference, "crop", lambda *_: None)
            made = at(picture(1), picture(2))
            at.work()
            assert sets.get(at.stores, made.id).crop is None
        assert at.renew() == 1
        at.work()
        assert sets.get(at.stores, made.id).crop is not None
        assert at.renew() == 0

    def test_a_crop_that_cannot_be_had_keeps_no_suggestion_back(
        self, unsure: Desk, picture: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unsure.inference.away = True
        made = unsure(picture(1), picture(2))
        unsure.inference.away = False

        def refused(*_: object) -> None:
            raise InferenceRefused(reason="test")

        monkeypatch.setattr(unsure.inference, "crop", refused)
        unsure.work()
        assert sets.get(unsure.stores, made.id).best is not None

    def test_one_that_fails_for_ever_holds_up_no_other(self, unsure: Desk, picture: Make) -> None:
        unsure.inference.away = True
        unsure(picture(1), picture(2))
        for key in unsure.places():
            unsure.stores.objects.remove(key)
        unsure.inference.away = False
        whole = unsure(picture(3), picture(4))
        unsure.work()
        unsure.inference.release = "r0002-test"
        assert unsure.renew() == 2
        unsure.work()
        assert sets.get(unsure.stores, whole.id).release == "r0002-test"
        assert unsure.renew() == 0

    def test_hundreds_of_sets_hold_up_nothing_else(self, unsure: Desk) -> None:
        unsure.inference.away = True
        with unsure.stores.db.write() as tx:
            for number in range(300):
                asking.promise(tx, "suggest", f"{number:032x}", START)
            asking.promise(tx, "forget", "models/x/y", START)
        assert outbox.work(unsure.stores, unsure.inference, unsure.clock) == outbox.FEW + 1  # type: ignore[arg-type]
        assert next(row.kind for row in unsure.rows(tables.outbox) if row.done_at) == "suggest"
        assert [row.done_at is not None for row in unsure.rows(tables.outbox) if row.kind == "forget"] == [True]


class TestAnswered:
    def test_the_chosen_picture_is_asked_about_again_for_its_crop(self, desk: Desk, picture: Make) -> None:
        made = desk(picture(1), picture(2, (300, 200)))
        desk.answer("selection", picks("1"))
        desk.work()
        file = desk.file("crop")
        assert isinstance(file.data, CropData)
        assert (file.data.image_id, file.data.reason) == (made.image_ids[0], "random")
        value = file.predictions[0].result[0]["value"]
        assert (value["x"], value["width"]) == (pytest.approx(10), pytest.approx(70))
        corner = {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0}
        desk.answer("crop", [{"from_name": "box", "value": corner}], number=2)
        (item,) = crops.settled_items(desk.stores, desk.project)
        assert (item.image_id, item.box, item.by_chance) == (made.image_ids[0], crops.Box(0.25, 0.25, 0.75, 0.75), True)
        (pick,) = selections.settled_items(desk.stores, desk.project)
        assert (pick.set_id, pick.chosen, list(pick.members)) == (made.id, made.image_ids[0], list(made.image_ids))

    def test_what_is_settled_is_counted_as_it_is_learnt(self, desk: Desk, picture: Make) -> None:
        def counted() -> tuple[int, int]:
            with desk.stores.db.read() as tx:
                return selections.count_settled(tx, "scenes"), crops.count_settled(tx, "scenes")

        def learnt() -> tuple[int, int]:
            items = selections.settled_items(desk.stores, desk.project), crops.settled_items(desk.stores, desk.project)
            return len(items[0]), len(items[1])

        for seeds in ((1, 2), (3, 4)):
            accepted = sorted((image.accept(picture(seed)) for seed in seeds), key=lambda one: one.id)
            pick = sets.Pick(accepted[0].id, "s", START)
            sets.keep(desk.stores, desk.project, accepted, "import", START, picked=pick)
        assert counted() == learnt() == (2, 0)
        desk(picture(5), picture(6))
        desk.answer("selection", picks("1"))
        assert counted() == learnt() == (3, 0)
        (chosen,) = [row.image_id for row in desk.rows(tables.tasks) if row.queue == "crop"]
        crop = {"image_id": chosen, "session": "", "at": START, "x1": 0, "y1": 0, "x2": 0.4, "y2": 0.5}
        with desk.stores.db.write() as tx:
            rows.add_crop(tx, {"project_id": "scenes", **crop})
        assert counted() == learnt() == (3, 1)
        corner = {"x": 60, "y": 60, "width": 40, "height": 40}
        desk.answer("crop", [{"from_name": "box", "value": corner}], number=2)
        assert counted() == learnt() == (3, 0)  # the annotator means another part

    def test_none_is_good_and_skips_ask_for_no_crop_and_teach_nothing(self, desk: Desk, picture: Make) -> None:
        desk(picture(1), picture(2))
        desk.answer("selection", picks(NONE_IS_GOOD))
        desk.answer("selection", picks("1"), annotator=2, number=2, cancelled=True)
        assert {row.state for row in desk.rows(tables.annotations)} == {"none", "skipped"}
        assert [row.queue for row in desk.rows(tables.tasks)] == ["selection"]
        assert selections.settled_items(desk.stores, desk.project) == []

    def test_a_label_of_a_crop_is_no_label_of_its_picture(self, desk: Desk, picture: Make) -> None:
        made = desk(picture(1), picture(2))
        desk.answer("selection", picks("1"))
        corner = {"x": 25, "y": 25, "width": 50, "height": 50}
        desk.answer("crop", [{"from_name": "box", "value": corner}], number=2)
        (row,) = [row for row in desk.rows(tables.catalogue) if row.image_id == made.image_ids[0]]
        assert (row.answer, row.answered) == (None, False)

    def test_an_annotation_of_another_queue_is_not_ours(self, desk: Desk, picture: Make) -> None:
        desk(picture(1), picture(2))
        (task,) = desk.rows(tables.tasks)
        raw = {"id": 1, "updated_at": START.isoformat(), "result": picks("1")}
        with pytest.raises(annotations.NotOurs), desk.stores.db.write() as tx:
            annotations.keep(tx, desk.project, "crop", {"task_id": task.id}, raw, START)


class TestTheRecordsRefuse:
    """What the code would never do cannot be stored either."""

    def test_a_set_with_a_picture_of_another_project(self, desk: Desk, unsure: Desk, picture: Make) -> None:
        mine, theirs = desk(picture(1), picture(2)), unsure(picture(3), picture(4))
        member = {"project_id": "scenes", "set_id": mine.id, "position": 2, "image_id": theirs.image_ids[0]}
        with pytest.raises(sa.exc.IntegrityError), desk.stores.db.write() as tx:
            tx.execute(tables.set_pictures.insert().values(**member))

    def test_a_pick_or_a_suggestion_from_outside_the_set(self, desk: Desk, picture: Make) -> None:
        mine, other = desk(picture(1), picture(2)), desk(picture(3), picture(4))
        pick = {"project_id": "scenes", "set_id": mine.id, "image_id": other.image_ids[0], "session": "", "at": START}
        with pytest.raises(sa.exc.IntegrityError), desk.stores.db.write() as tx:
            rows.add_pick(tx, pick)
        said = {"id": "x", "project_id": "scenes", "set_id": mine.id, "best": other.image_ids[0], "confidence": 1}
        more = {"scores": {}, "release": "r", "encoder": "e", "created_at": START}
        with pytest.raises(sa.exc.IntegrityError), desk.stores.db.write() as tx:
            rows.add_suggestion(tx, {**said, **more})

    def test_a_task_about_nothing_or_about_two_things(self, desk: Desk, picture: Make) -> None:
        made = desk(picture(1), picture(2))
        for about in ({}, {"image_id": made.image_ids[0], "set_id": made.id}):
            row = {"id": "t", "project_id": "scenes", "queue": "selection", "probability": 1, "created_at": START}
            with pytest.raises(sa.exc.IntegrityError), desk.stores.db.write() as tx:
                tx.execute(tables.tasks.insert().values(**row, **about))


class TestRemoved:
    def test_a_visitor_takes_back_a_set_with_its_pictures(self, desk: Desk, picture: Make) -> None:
        gone, kept = desk(picture(1), picture(2)), desk(picture(2), picture(3))
        removal.remove_set(desk.stores, gone.id, "visitor", desk.clock(), ME)
        desk.work()
        with pytest.raises(UnknownSet):
            sets.get(desk.stores, gone.id)
        assert sets.get(desk.stores, kept.id) == kept  # a picture that another set has stays
        assert len(desk.places()) == 2
        assert {row.set_id for row in desk.rows(tables.tasks)} == {kept.id}
        assert {row.set_id for row in desk.rows(tables.suggestions)} == {kept.id}
        assert len(desk.rows(tables.leftovers)) == 1

    def test_nobody_takes_back_what_another_sent(self, desk: Desk, picture: Make) -> None:
        made = desk(picture(1), picture(2))
        for stranger in (OTHER, ""):
            with pytest.raises(UnknownSet):
                removal.remove_set(desk.stores, made.id, "visitor", desk.clock(), stranger)
        assert sets.get(desk.stores, made.id) == made

    def test_two_who_sent_the_same_each_see_it_and_take_back_their_own(self, desk: Desk, picture: Make) -> None:
        made = desk(picture(1), picture(2))
        desk.clock.forward(seconds=1)
        files = [picture(2), picture(1)]
        assert sets.receive(desk.stores, desk.inference, desk.project, files, desk.clock(), OTHER).id == made.id  # type: ignore[arg-type]
        for visitor in (ME, OTHER):
            assert [one.id for one in sets.of_visitor(desk.stores, "scenes", visitor, 9)] == [made.id]
            assert sets.is_sent_by(desk.stores, made, visitor)
            assert sets.has_sent(desk.stores, "scenes", made.image_ids[0], visitor)
        removal.remove_set(desk.stores, made.id, "visitor", desk.clock(), ME)
        assert sets.of_visitor(desk.stores, "scenes", ME, 9) == []
        assert not sets.has_sent(desk.stores, "scenes", made.image_ids[0], ME)
        with pytest.raises(UnknownSet):
            removal.remove_set(desk.stores, made.id, "visitor", desk.clock(), ME)
        assert sets.get(desk.stores, made.id) == made
        removal.remove_set(desk.stores, made.id, "visitor", desk.clock(), OTHER)
        desk.work()
        with pytest.raises(UnknownSet):
            sets.get(desk.stores, made.id)
        assert desk.places() == []
        assert desk.rows(tables.set_senders) == []

    def test_what_was_imported_stays_when_a_visitor_takes_back_the_same(self, unsure: Desk, picture: Make) -> None:
        accepted = sorted((image.accept(picture(seed)) for seed in (1, 2, 3)), key=lambda one: one.id)
        picked, (first, _, third) = unsure(picture(1), picture(2), picture(3)), accepted
        pick = sets.Pick(first.id, "s", START)
        sets.keep(unsure.stores, unsure.project, accepted, "import", START, picked=pick)
        cropped = unsure(picture(4), picture(5))
        crop = {"image_id": cropped.image_ids[0], "session": "", "at": START, "x1": 0, "y1": 0, "x2": 1, "y2": 0.5}
        with unsure.stores.db.write() as tx:
            rows.add_crop(tx, {"project_id": "unsure", **crop})
        for made in (picked, cropped):
            take_back(unsure, made)
            assert sets.of_visitor(unsure.stores, "unsure", ME, 9) == [cropped][: made is picked]
        unsure.work()
        assert sets.get(unsure.stores, picked.id).id == picked.id
        assert len(unsure.rows(tables.logged_picks)) == len(unsure.rows(tables.logged_crops)) == 1
        kept = {row.id for row in unsure.rows(tables.images) if row.removed_at is None}
        assert kept == {*picked.image_ids, cropped.image_ids[0]}
        assert third.id in kept

    def test_a_removed_picture_takes_its_sets_and_crops_with_it(self, desk: Desk, picture: Make) -> None:
        made = desk(picture(1), picture(2))
        other = next(image_id for image_id in made.image_ids if image_id != made.best)
        removal.remove(desk.stores, "scenes", str(made.best), "owner", desk.clock())
        desk.work()
        with pytest.raises(UnknownSet):
            sets.get(desk.stores, made.id)
        assert desk.rows(tables.proposals) == []
        assert [key.split("/")[-1] for key in desk.places()] == [f"{other}.jpg"]
        with pytest.raises(UnknownPicture):
            removal.remove(desk.stores, "scenes", str(made.best), "owner", desk.clock())

    def test_a_set_that_comes_again_is_asked_about_anew(self, desk: Desk, picture: Make) -> None:
        first = desk(picture(1), picture(2))
        desk.answer("selection", picks("1"))
        removal.remove_set(desk.stores, first.id, "visitor", desk.clock(), ME)
        desk.work()
        again = desk(picture(1), picture(2))
        assert again.id == first.id
        assert selections.settled_items(desk.stores, desk.project) == []
        assert [row.queue for row in desk.rows(tables.tasks)] == ["selection"]
        desk.work()
        assert len(desk.places()) == 2


def take_back(desk: Desk, made: PictureSet) -> None:
    removal.remove_set(desk.stores, made.id, "visitor", desk.clock(), ME)
