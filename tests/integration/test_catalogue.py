"""The list of pictures: paged as Python would sort and filter it, rebuilt as it was, and true after whatever happens."""

import datetime as dt
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closedloop import catalogue, feedback, history, importing, prediction, queues, removal, votes
from closedloop import project as projects
from closedloop.catalogue import NEWEST, ORDERS, Entry, Filter, Page
from closedloop.errors import BadRequest
from closedloop.project import Project
from closedloop.storage import Stores, answers, pictures, tables
from closedloop.storage import catalogue as rows
from closedloop.storage.database import Database
from closedloop.storage.objects import Objects
from tests.conftest import START, Clock
from tests.integration.stack import StandIn

LABELS = ("cat", "dog", "owl")
MOMENTS = [START + dt.timedelta(hours=hours, microseconds=odd) for hours in (0, 1, 2, 30) for odd in (0, 1)]
CONFIDENCES = [0.1, 0.3, 1 / 3, 0.5, 0.7, 0.9, 1.0]
IDS = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" * 2 for number in range(1, 61)]  # in no order


@pytest.fixture
def records(database: Database) -> Stores:
    """Records without a store: nothing here looks at a picture's bytes."""
    return Stores(database, Objects("http://127.0.0.1:9", "nobody", "nobody"))


@pytest.fixture
def sixty(records: Stores, pets: Project) -> Project:
    """The small project with sixty pictures that nothing is known of."""
    projects.add(records, pets, START)
    with records.db.write() as tx:
        for image_id in IDS:
            pictures.add_image(tx, image(pets, image_id, START))
    return pets


def image(project: Project, image_id: str, at: dt.datetime) -> dict[str, Any]:
    size = {"width": 1, "height": 1, "bytes": 1, "source": "upload", "arrived_at": at}
    place = f"production/{project.id}/class_00/{image_id}.jpg"
    return {"project_id": project.id, "id": image_id, "key": place, "sha256": image_id * 2, "phash": "0" * 16, **size}


# Random rows, filters and pages, and what plain Python makes of them.


@st.composite
def listed(draw: st.DrawFn) -> tuple[Entry, frozenset[str]]:
    """A row as `refresh` could write it (but for its id), and the queues in which the picture is asked about."""
    label, answer = draw(st.sampled_from([None, *LABELS])), draw(st.sampled_from([None, None, *LABELS]))
    entry = Entry(
        image_id="",
        arrived_at=draw(st.sampled_from(MOMENTS)),
        label=label,
        confidence=draw(st.sampled_from(CONFIDENCES)) if label else None,
        flagged=draw(st.booleans()),
        user_label=draw(st.sampled_from([None, *LABELS])),
        answer=answer,
        disagrees=answer is not None and label is not None and answer != label,
    )
    return entry, draw(st.frozensets(st.sampled_from(queues.CLASSIFICATION_QUEUES), max_size=2))


def perhaps(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Most conditions are none most of the time: few rows meet them all."""
    return st.one_of(st.none(), st.none(), st.none(), values)


FILTERS = st.builds(
    Filter,
    label=perhaps(st.sampled_from(LABELS)),
    answer=perhaps(st.sampled_from(LABELS)),
    at_least=perhaps(st.sampled_from(CONFIDENCES)),
    at_most=perhaps(st.sampled_from(CONFIDENCES)),
    queue=perhaps(st.sampled_from(queues.CLASSIFICATION_QUEUES)),
    flagged=perhaps(st.booleans()),
    answered=perhaps(st.booleans()),
    disagrees=perhaps(st.booleans()),
    since=perhaps(st.sampled_from(MOMENTS)),
    until=perhaps(st.sampled_from(MOMENTS)),
)


def expected(world: list[tuple[Entry, frozenset[str]]], chosen: Filter, order: str) -> list[Entry]:
    """What a list in memory gives."""

    def meets(entry: Entry, asked: frozenset[str]) -> bool:
        sure = entry.confidence
        return all(
            (
                chosen.label in (None, entry.label),
                chosen.answer in (None, entry.answer),
                chosen.at_least is None or (sure is not None and sure >= chosen.at_least),
                chosen.at_most is None or (sure is not None and sure <= chosen.at_most),
                chosen.queue is None or chosen.queue in asked,
                chosen.flagged in (None, entry.flagged),
                chosen.answered in (None, entry.answer is not None),
                chosen.disagrees in (None, entry.disagrees),
                chosen.since is None or entry.arrived_at >= chosen.since,
                chosen.until is None or entry.arrived_at < chosen.until,
                order in ("newest", "oldest") or sure is not None,
            )
        )

    def place(entry: Entry) -> tuple[Any, str]:
        return (entry.arrived_at if order in ("newest", "oldest") else entry.confidence, entry.image_id)

    found = [entry for entry, asked in world if meets(entry, asked)]
    return sorted(found, key=place, reverse=order in ("newest", "surest"))


def write(stores: Stores, project: Project, world: list[tuple[Entry, frozenset[str]]]) -> None:
    """Make the catalogue consist of these rows, and ask about their pictures."""
    own, at = {"project_id": project.id}, {"probability": 1.0, "created_at": START}
    with stores.db.write() as tx:
        tx.execute(tables.tasks.delete())
        tx.execute(tables.catalogue.delete())
        listing, asking = [], []
        for entry, asked in world:
            said = {name: getattr(entry, name) for name in Entry.__dataclass_fields__}
            listing.append({**own, **said, "answered": entry.answer is not None})
            asking += [
                {**own, **at, "id": q[-4:] + entry.image_id, "image_id": entry.image_id, "queue": q} for q in asked
            ]
        tx.execute(tables.catalogue.insert(), listing)
        if asking:
            tx.execute(tables.tasks.insert(), asking)


def walk(turn: Callable[[str | None], Page], step: str, key: str | None = None) -> Iterator[Page]:
    """Pages from a key (or the beginning) on, `step` by step ("after" or "before")."""
    for _ in range(100):
        page = turn(key)
        yield page
        if (key := getattr(page, step)) is None:
            return
    pytest.fail("there is no end of pages")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    world=st.lists(listed(), min_size=40, max_size=len(IDS)),
    chosen=FILTERS,
    order=st.sampled_from(ORDERS),
    size=st.integers(1, 25),
)
def test_paging_by_key_is_filtering_and_sorting(
    records: Stores, sixty: Project, world: list[tuple[Entry, frozenset[str]]], chosen: Filter, order: str, size: int
) -> None:
    world = [(replace(entry, image_id=IDS[n]), asked) for n, (entry, asked) in enumerate(world)]
    write(records, sixty, world)
    wanted = expected(world, chosen, order)

    def forwards(key: str | None) -> Page:
        return catalogue.page(records, sixty.id, chosen, order, key, size=size)

    def backwards(key: str | None) -> Page:
        return catalogue.page(records, sixty.id, chosen, order, key, backwards=True, size=size)

    there = list(walk(forwards, "after"))
    assert [entry for page in there for entry in page.entries] == wanted
    assert all(len(page.entries) == size for page in there[:-1])
    assert there[0].before is None
    assert all(page.before is not None for page in there[1:])
    if there[-1].before is not None:
        back = list(walk(backwards, "before", there[-1].before))
        # One sees the same pages again, and from the first of them gets on as from the beginning.
        assert [page.entries for page in back] == [page.entries for page in reversed(there[:-1])]
        again = list(walk(forwards, "after", back[-1].after))
        assert [page.entries for page in again] == [page.entries for page in there[1:]]
    assert list(catalogue.every(records, sixty.id, chosen, order)) == wanted
    assert catalogue.page(records, "another", chosen, order, size=size) == Page()


def test_from_any_row_both_ways(records: Stores, sixty: Project) -> None:
    world = [
        (Entry(id_, MOMENTS[n % 8], "cat", CONFIDENCES[n % 7], False, None, None, False), frozenset())
        for n, id_ in enumerate(IDS)
    ]
    write(records, sixty, world)
    for order in ORDERS:
        wanted = expected(world, Filter(), order)
        for n, entry in enumerate(wanted):
            value = entry.arrived_at.isoformat() if order in ("newest", "oldest") else repr(entry.confidence)
            key = f"{value}~{entry.image_id}"
            assert catalogue.page(records, sixty.id, Filter(), order, key, size=100).entries == wanted[n + 1 :]
            assert catalogue.page(records, sixty.id, Filter(), order, key, True, size=100).entries == wanted[:n]


def test_keys_and_orders_that_are_none_are_refused(records: Stores, sixty: Project) -> None:
    for order in ORDERS:
        for key in ("", "~", "yesterday~00", "2026-01-01T00:00:00~00", "\0~\0", "0.5.5~00"):
            with pytest.raises(BadRequest):
                catalogue.page(records, sixty.id, Filter(), order, key)
    with pytest.raises(BadRequest):
        catalogue.page(records, sixty.id, Filter(), "loudest")


# A row follows its picture.


def listing(stores: Stores) -> dict[str, dict[str, Any]]:
    """Every row of the catalogue, by picture."""
    with stores.db.read() as tx:
        return {row["image_id"]: dict(row) for row in tx.execute(sa.select(tables.catalogue)).mappings()}


def rebuilt(stores: Stores) -> dict[str, dict[str, Any]]:
    """Every row as `fill` makes it where there is none."""
    with stores.db.write() as tx:
        tx.execute(tables.catalogue.delete())
    count = catalogue.fill(stores)
    made = listing(stores)
    assert count == len(made)
    assert catalogue.fill(stores) == 0
    return made


class Visit:
    """A visitor, a model and annotators of the small project; after every step the catalogue is what `fill` makes."""

    def __init__(
        self, stores: Stores, project: Project, inference: StandIn, clock: Clock, picture: Callable[..., bytes]
    ) -> None:
        self.stores, self.project, self.inference, self.clock, self.picture = stores, project, inference, clock, picture
        self.versions = 0

    def send(self, seed: int = 0, label: str | None = "cat", confidence: float = 0.9, visitor: str = "me") -> Any:
        self.inference.label, self.inference.confidence = label, confidence
        now = self.clock.forward(minutes=1)
        return prediction.receive(
            self.stores,
            self.inference,
            self.project,
            self.picture(seed),
            now,
            visitor=visitor,  # type: ignore[arg-type]
        )

    def annotate(
        self, image_id: str, queue: str, label: str | None, annotator: int = 1, state: str = votes.ANSWERED
    ) -> None:
        """What a sync collects, and the row that it then writes anew."""
        now = self.clock.forward(minutes=1)
        with self.stores.db.write() as tx:
            asked = sa.select(tables.tasks.c.id).where(
                tables.tasks.c.image_id == image_id, tables.tasks.c.queue == queue
            )
            row = {
                "project_id": self.project.id,
                "annotation_id": f"{queue}-{annotator}",
                "answered_at": now,
                "task_id": tx.execute(asked).scalar_one(),
                "annotator": str(annotator),
                "state": state,
                "label": label,
                "collected_at": now,
            }
            assert answers.add_annotation(tx, row)
            catalogue.refresh(tx, self.project.id, image_id)

    def row(self, image_id: str) -> dict[str, Any] | None:
        """A picture's row, which must be the one that is made from nothing, as must all others."""
        there = listing(self.stores)
        assert there == rebuilt(self.stores)
        return there.get(image_id)

    def is_listed(self, image_id: str, **wanted: Any) -> None:
        row = self.row(image_id)
        assert row is not None
        assert {name: row[name] for name in wanted} == wanted


@pytest.fixture
def visit(stores: Stores, project: Project, inference: StandIn, clock: Clock, picture: Callable[..., bytes]) -> Visit:
    return Visit(stores, project, inference, clock, picture)


def test_a_row_follows_what_visitors_say(visit: Visit) -> None:
    made = visit.send(confidence=0.9)
    nothing = {"flagged": False, "user_label": None, "answer": None, "answered": False, "disagrees": False}
    visit.is_listed(made.image_id, **nothing, label="cat", confidence=0.9, arrived_at=visit.clock())
    arrived = visit.clock()
    feedback.flag(visit.stores, made.id, visit.clock.forward(minutes=1))
    visit.is_listed(made.image_id, **{**nothing, "flagged": True})
    feedback.relabel(visit.stores, made.id, "dog", visit.clock.forward(minutes=1))
    feedback.relabel(visit.stores, made.id, "owl", visit.clock.forward(minutes=1))
    visit.is_listed(made.image_id, flagged=True, user_label="owl")
    feedback.take_back_flag(visit.stores, made.id, visit.clock.forward(minutes=1))
    visit.is_listed(made.image_id, flagged=False, user_label="owl")
    feedback.take_back_label(visit.stores, made.id, visit.clock.forward(minutes=1))
    visit.is_listed(made.image_id, **nothing)
    # The same picture again: the newest answer counts, it arrived when it first came, and each visitor's word stays.
    feedback.flag(visit.stores, made.id, visit.clock.forward(minutes=1))
    again = visit.send(label="dog", confidence=0.4)
    assert again.image_id == made.image_id
    visit.is_listed(made.image_id, label="dog", confidence=0.4, flagged=True, arrived_at=arrived)
    assert len(listing(visit.stores)) == 1


def test_a_picture_without_an_answer_is_listed_without_one(visit: Visit) -> None:
    nobody = visit.send(1, label=None)
    visit.is_listed(nobody.image_id, label=None, confidence=None)
    visit.inference.away = True
    later = visit.send(2)
    assert later.status == "pending"
    visit.is_listed(later.image_id, label=None, confidence=None)
    visit.inference.away = False
    prediction.answer_pending(visit.stores, visit.inference, later.id, visit.clock.forward(minutes=1))  # type: ignore[arg-type]
    visit.is_listed(later.image_id, label="cat", confidence=0.9)


def test_a_row_follows_what_annotators_say(visit: Visit) -> None:
    made = visit.send(confidence=0.4)
    feedback.flag(visit.stores, made.id, visit.clock.forward(minutes=1))
    visit.annotate(made.image_id, queues.LOW_CONFIDENCE, "dog")
    visit.is_listed(made.image_id, answer="dog", answered=True, disagrees=True)
    visit.annotate(made.image_id, queues.LOW_CONFIDENCE, "cat")  # thought better of it
    visit.is_listed(made.image_id, answer="cat", answered=True, disagrees=False)
    visit.annotate(made.image_id, queues.USER_FEEDBACK, "owl", annotator=2)  # a tie
    visit.is_listed(made.image_id, answer=None, answered=False, disagrees=False)
    visit.annotate(made.image_id, queues.USER_FEEDBACK, "owl", annotator=3)
    visit.is_listed(made.image_id, answer="owl", answered=True, disagrees=True)
    visit.annotate(made.image_id, queues.USER_FEEDBACK, None, annotator=3, state=votes.WITHDRAWN)
    visit.annotate(made.image_id, queues.USER_FEEDBACK, None, annotator=2, state=votes.UNSURE)
    visit.is_listed(made.image_id, answer="cat", answered=True, disagrees=False)
    visit.annotate(made.image_id, queues.LOW_CONFIDENCE, None, state=votes.WITHDRAWN)
    visit.is_listed(made.image_id, answer=None, answered=False, disagrees=False)
    visit.annotate(made.image_id, queues.LOW_CONFIDENCE, "dog")
    visit.send(label="dog")  # a later release agrees
    visit.is_listed(made.image_id, answer="dog", label="dog", disagrees=False)


def test_an_imported_answer_is_listed(visit: Visit, tmp_path: Any) -> None:
    (tmp_path / "import" / "owl").mkdir(parents=True)
    (tmp_path / "import" / "owl" / "one.png").write_bytes(visit.picture(3))
    importing.run(visit.stores, visit.project, tmp_path / "import", visit.clock)
    ((image_id, _),) = listing(visit.stores).items()
    visit.is_listed(image_id, label=None, confidence=None, answer="owl", answered=True, disagrees=False)
    visit.send(3, label="cat")
    visit.is_listed(image_id, label="cat", answer="owl", disagrees=True)


def test_a_removed_picture_is_not_listed_until_it_comes_again(visit: Visit) -> None:
    kept, gone = visit.send(1), visit.send(2, confidence=0.4)
    feedback.flag(visit.stores, gone.id, visit.clock.forward(minutes=1))
    visit.annotate(gone.image_id, queues.LOW_CONFIDENCE, "dog")
    removal.remove(visit.stores, visit.project.id, gone.image_id, "owner@example.org", visit.clock.forward(minutes=1))
    assert visit.row(gone.image_id) is None
    assert visit.row(kept.image_id) is not None
    visit.send(2, label="owl")
    visit.is_listed(gone.image_id, label="owl", flagged=False, arrived_at=visit.clock())


def test_a_visitor_takes_back_only_his_own(visit: Visit) -> None:
    mine, theirs = visit.send(label="cat"), visit.send(label="dog", visitor="they")
    feedback.flag(visit.stores, theirs.id, visit.clock.forward(minutes=1))
    visit.is_listed(mine.image_id, label="dog", flagged=True)
    removal.take_back(visit.stores, theirs.id, "they", visit.clock.forward(minutes=1))
    visit.is_listed(mine.image_id, label="cat", flagged=False)
    removal.take_back(visit.stores, mine.id, "me", visit.clock.forward(minutes=1))
    assert visit.row(mine.image_id) is None


# Each page comes out of an index, in order, however many pictures there are.

SINGLE = {
    "everything": Filter(),
    "a class": Filter(label="cat"),
    "an answer": Filter(answer="cat"),
    "flagged": Filter(flagged=True),
    "not flagged": Filter(flagged=False),
    "answered": Filter(answered=True),
    "disagrees": Filter(disagrees=True),
    "dates": Filter(since=START, until=START + dt.timedelta(days=7)),
    "at least": Filter(at_least=0.4),
    "range": Filter(at_least=0.4, at_most=0.6),
    "queue": Filter(queue=queues.RANDOM_SAMPLE),
}
CASES = [
    *((name, order) for name in ("everything", "a class", "flagged") for order in ORDERS),
    *((name, NEWEST) for name in SINGLE if name not in ("everything", "a class", "flagged")),
]


@pytest.fixture
def many(database: Database, pets: Project) -> Database:
    """Enough rows that a planner which knows them has to choose an index: 4,000 of ours, 1,000 of another project."""
    records = Stores(database, Objects("http://127.0.0.1:9", "nobody", "nobody"))
    images, listed, asked = [], [], []
    for project in (pets, pets.model_copy(update={"id": "birds"})):
        projects.add(records, project, START)
        for n in range(4000 if project is pets else 1000):
            at, id_ = START + dt.timedelta(minutes=10 * n), f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}" * 2
            images.append(image(project, id_, at))
            label, answer = LABELS[n % 3], LABELS[n // 3 % 3] if n % 5 == 0 else None
            answered = {"answer": answer, "answered": answer is not None}
            answered["disagrees"] = answer not in (None, label)
            own = {"project_id": project.id, "image_id": id_}
            said = {"label": label, "confidence": n * 7919 % 1000 / 1000, "user_label": None, "flagged": n % 33 == 0}
            listed.append({**own, "arrived_at": at, **said, **answered})
            if n % 20 == 0:
                why = {"queue": queues.RANDOM_SAMPLE, "probability": 0.05, "created_at": at}
                asked.append({**own, "id": f"{project.id}-{n}", **why})
    with database.write() as tx:
        for table, made in ((tables.images, images), (tables.catalogue, listed), (tables.tasks, asked)):
            tx.execute(table.insert(), made)
        if not database.is_sqlite:
            tx.execute(sa.text("ANALYZE"))
    return database


def plan(database: Database, chosen: Filter, order: str, key: str | None, backwards: bool, rare: str = "") -> str:
    """How the database would find a page, as it says it."""
    statement = rows.query("pets", chosen, order, key, backwards, 49, rare)
    written = str(statement.compile(database.engine, compile_kwargs={"literal_binds": True}))
    with database.read() as tx:
        if database.is_sqlite:
            return "\n".join(row.detail for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {written}"))
        tx.exec_driver_sql("SET LOCAL enable_seqscan = off")
        tx.exec_driver_sql("SET LOCAL enable_bitmapscan = off")  # for the few rows of a test it is quicker to sort them
        return "\n".join(row[0] for row in tx.exec_driver_sql(f"EXPLAIN {written}"))


def test_every_page_comes_in_order_out_of_an_index(many: Database) -> None:
    faults = []
    for name, order in CASES:
        moment = (START + dt.timedelta(days=3)).isoformat()
        middle = f"{moment if order in ('newest', 'oldest') else 0.5}~{'8' * 32}"
        for key, backwards in ((None, False), (middle, False), (middle, True)):
            told = plan(many, SINGLE[name], order, key, backwards)
            indexed = "ix_catalogue_" in told or (name == "queue" and "ix_tasks_" in told)
            scans = "SCAN" in told or "Seq Scan" in told
            sorts = name != "queue" and ("TEMP B-TREE FOR ORDER BY" in told or "Sort" in told)
            if not indexed or scans or sorts:
                where = "first page" if key is None else "before a key" if backwards else "after a key"
                faults.append(f"{name}, {order}, {where}:\n{told}")
    assert not faults, "\n\n".join(faults)


@pytest.mark.parametrize(
    ("chosen", "order", "index"),
    [
        (Filter(at_least=0.2, at_most=0.2001), NEWEST, "ix_catalogue_confidence"),
        (Filter(at_least=0.2, at_most=0.2001, label="cat"), NEWEST, "ix_catalogue_label_confidence"),
        (Filter(since=START, until=START + dt.timedelta(hours=5)), "least-sure", "ix_catalogue_arrived"),
    ],
)
def test_what_few_pictures_have_is_found_by_it(many: Database, chosen: Filter, order: str, index: str) -> None:
    """However many others there are: a list that is sorted otherwise would be read to its end."""
    with many.read() as tx:
        assert rows._rare(tx, "pets", chosen, order) == rows.RANGE
        assert rows._rare(tx, "pets", Filter(at_least=0.1, since=START), order) == ""
        found = rows.page(tx, "pets", chosen, order, None, False, 5000)
    if many.is_sqlite:  # Postgres knows how many there are, and chooses by itself
        assert f"USING INDEX {index} (" in plan(many, chosen, order, None, False, rows.RANGE)
    every = rows.query("pets", Filter(), order, None, False, 5000)
    with many.read() as tx:
        rest = [
            row["image_id"]
            for row in tx.execute(every).mappings()
            if (chosen.at_least or 0) <= row["confidence"] <= (chosen.at_most or 1)
            and row["arrived_at"] < (chosen.until or row["arrived_at"] + dt.timedelta(1))
            and row["label"] in (chosen.label or row["label"],)
        ]
    assert [row["image_id"] for row in found] == rest != []


PILING_UP = {"images", "predictions", "feedback", "inclusions", "tasks", "annotations", "dataset_items", "catalogue"}


def test_nothing_about_one_picture_reads_a_whole_project(many: Database) -> None:
    if not many.is_sqlite:
        pytest.skip("SQLite alone plans without knowing how many rows there are")
    records, picture = Stores(many, Objects("http://127.0.0.1:9", "nobody", "nobody")), IDS[19]
    asked: list[tuple[str, Any]] = []
    sa.event.listen(many.engine, "after_cursor_execute", lambda _c, _r, said, values, *_: asked.append((said, values)))
    with many.write() as tx:
        catalogue.refresh(tx, "pets", picture)
    history.of(records, "pets", picture)
    removal.remove(records, "pets", picture, "owner@example.org", START)
    faults = set()
    with many.engine.connect() as connection:
        for said, values in list(asked):
            if said.startswith(("SELECT", "UPDATE", "DELETE")):
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}", values):
                    way = re.match(r"(SCAN|SEARCH) (\w+)", row.detail)
                    whole = way and (way[1] == "SCAN" or row.detail.endswith("(project_id=?)"))
                    if way and whole and way[2] in PILING_UP:
                        faults.add(f"{row.detail}\n  in {' '.join(said.split())[:300]}")
    assert not faults, "\n".join(sorted(faults))
