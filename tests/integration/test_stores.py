"""The store against a real S3 server, the records on SQLite and Postgres."""

import contextlib
import datetime as dt
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from closedloop import leases
from closedloop import project as projects
from closedloop.errors import DatabaseAway, DatabaseOutdated, LeaseLost, LeaseTaken, StoreAway
from closedloop.storage import Stores, installation, tables
from closedloop.storage.database import Database, insert_new
from closedloop.storage.objects import BUCKETS, Objects
from demo.installation import free_ports
from tests.conftest import KEY, SECRET, START, Clock, start_s3


class TestObjects:
    def test_put_get_list_move_remove(self, objects: Objects) -> None:
        place = "production/pets/class_00"
        objects.put(f"{place}/a.jpg", b"first")
        objects.put(f"{place}/b.jpg", b"second")
        assert objects.get(f"{place}/a.jpg") == b"first"
        assert [(o.key, o.size) for o in objects.list(place)] == [(f"{place}/a.jpg", 5), (f"{place}/b.jpg", 6)]
        objects.move(f"{place}/a.jpg", "production/pets/class_01/a.jpg")
        assert objects.get("production/pets/class_01/a.jpg") == b"first"
        assert not objects.exists(f"{place}/a.jpg")
        objects.remove("production/pets/class_01/a.jpg")
        objects.remove("production/pets/class_01/a.jpg")  # nothing happens where there is none
        assert [o.key for o in objects.list("production/pets")] == [f"{place}/b.jpg"]

    def test_what_is_not_there(self, objects: Objects) -> None:
        assert objects.list("labelstudio/tasks/none") == []
        assert not objects.exists("models/none")
        with pytest.raises(FileNotFoundError):
            objects.get("models/none")

    def test_a_listing_sees_at_once_what_another_client_did(self, objects: Objects, s3: tuple[str, Path]) -> None:
        other = Objects(s3[0], KEY, SECRET)
        assert objects.list("tracking/pets") == []
        other.put("tracking/pets/day.jsonl", b"1")
        (first,) = objects.list("tracking/pets")
        time.sleep(1.1)  # LastModified has seconds
        other.put("tracking/pets/day.jsonl", b"2")
        (second,) = objects.list("tracking/pets")
        assert first.version != second.version
        other.remove("tracking/pets/day.jsonl")
        assert objects.list("tracking/pets") == []

    def test_a_prefix_is_a_folder(self, objects: Objects) -> None:
        objects.put("labelstudio/tasks/pets/user_label/a", b"1")
        objects.put("labelstudio/tasks/pets/user_label_of_others/b", b"2")
        assert [o.key for o in objects.list("labelstudio/tasks/pets/user_label")] == [
            "labelstudio/tasks/pets/user_label/a"
        ]

    def test_large_and_empty_objects(self, objects: Objects) -> None:
        large = bytes(range(256)) * 4 * 10_000
        objects.put("models/large", large)
        objects.put("models/empty", b"")
        assert objects.get("models/large") == large
        assert objects.get("models/empty") == b""

    def test_threads_share_one_client(self, objects: Objects) -> None:
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda n: objects.put(f"tracking/t/{n:03d}", str(n).encode()), range(100)))
            read = list(pool.map(lambda n: objects.get(f"tracking/t/{n:03d}"), range(100)))
        assert read == [str(n).encode() for n in range(100)]
        assert len(objects.list("tracking/t")) == 100

    def test_a_server_that_is_down_is_said_and_comes_back(self, tmp_path: Path) -> None:
        port = free_ports(1)[0]
        server = start_s3(tmp_path, port)
        objects = Objects(f"http://127.0.0.1:{port}", KEY, SECRET)
        with pytest.raises(StoreAway):  # its buckets are missing
            objects.check(*BUCKETS)
        objects.make_buckets()
        objects.make_buckets()
        objects.check(*BUCKETS)
        assert {entry.name for entry in tmp_path.iterdir()} == set(BUCKETS)
        objects.put("models/kept", b"kept")
        server.kill()
        server.wait()
        calls: list[Callable[[], object]] = [
            lambda: objects.put("models/x", b""),
            lambda: objects.get("models/kept"),
            lambda: objects.list("models"),
            lambda: objects.exists("models/kept"),
            lambda: objects.remove("models/kept"),
            lambda: objects.move("models/kept", "models/moved"),
            lambda: objects.check(*BUCKETS),
            objects.make_buckets,
        ]
        began = time.monotonic()
        with ThreadPoolExecutor(len(calls)) as pool:
            for said in [pool.submit(call) for call in calls]:
                with pytest.raises(StoreAway):
                    said.result()
        assert time.monotonic() - began < 20
        server = start_s3(tmp_path, port)
        try:
            assert objects.get("models/kept") == b"kept"
        finally:
            server.kill()
            server.wait()

    @pytest.mark.timeout(60)
    def test_a_server_that_never_answers_is_away(self) -> None:
        asked: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(1)
            objects = Objects(f"http://127.0.0.1:{silent.getsockname()[1]}", KEY, SECRET, patience=0.2)

            def accept() -> None:
                with contextlib.suppress(TimeoutError):
                    while True:
                        asked.append(silent.accept()[0])

            thread = threading.Thread(target=accept)
            thread.start()
            with pytest.raises(StoreAway):
                objects.put("production/x", b"x" * 200_000)  # more than a socket holds, and nobody reads
            with pytest.raises(StoreAway):
                objects.get("production/x")
            thread.join()
        assert len(asked) <= 5  # once to write, four times to read: each time somebody waits
        for connection in asked:
            connection.close()

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("breaks", [1, 100])
    def test_an_answer_that_breaks_off_is_asked_for_again(self, breaks: int) -> None:
        asked = []
        over = threading.Event()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.1)

            def answer() -> None:
                while not over.is_set():
                    with contextlib.suppress(TimeoutError):
                        connection, _ = server.accept()
                        with connection:
                            request = connection.recv(65536)
                            if request.startswith(b"HEAD"):
                                connection.sendall(head)
                                continue
                            asked.append(request)
                            connection.sendall(head + (b"wh" if len(asked) <= breaks else b"whole"))

            thread = threading.Thread(target=answer)
            thread.start()
            objects = Objects(f"http://127.0.0.1:{server.getsockname()[1]}", KEY, SECRET)
            if breaks == 1:
                assert objects.get("models/x") == b"whole"
            else:
                with pytest.raises(StoreAway):
                    objects.get("models/x")
            over.set()
            thread.join()
        assert 2 <= len(asked) <= 4

    def test_wrong_keys_are_refused(self, objects: Objects, s3: tuple[str, Path]) -> None:
        stranger = Objects(s3[0], KEY, "wrong")
        with pytest.raises(StoreAway):
            stranger.put("production/x", b"x")
        assert not objects.exists("production/x")


class TestTables:
    def test_the_migrations_make_exactly_the_tables(self, database: Database) -> None:
        with database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []

    def test_an_upgrade_keeps_what_is_there_and_who_refers_to_it(self, database_url: str) -> None:
        """On SQLite a table that is altered is made anew: what refers to it must still do so."""
        old = Database(database_url)
        old.migrate("0003")
        at = "2026-01-01 00:00:00"
        with old.write() as tx:
            for row in (
                f"projects VALUES ('abc', '{{}}', '{at}', '{at}')",
                f"images VALUES ('abc', 'i', 'k', 's', 'p', 1, 1, 1, 'upload', '{at}', NULL, NULL)",
                f"tasks VALUES ('t', 'abc', 'i', 'q', NULL, 1.0, NULL, NULL, '{at}', NULL, NULL, NULL)",
                f"annotations VALUES ('1', '{at}', 'abc', 't', '1', 'answered', 'x', NULL, NULL, '{at}')",
            ):
                tx.exec_driver_sql(f"INSERT INTO {row}")
        old.migrate()
        with old.read() as tx:
            assert tx.exec_driver_sql("SELECT id, image_id, set_id FROM tasks").all() == [("t", "i", None)]
            assert tx.exec_driver_sql("SELECT annotation_id, task_id FROM annotations").all() == [("1", "t")]
        orphan = f"INSERT INTO annotations VALUES ('2', '{at}', 'abc', 'no', '1', 'answered', 'x', NULL, NULL, '{at}')"
        with pytest.raises(sa.exc.IntegrityError), old.write() as tx:
            tx.exec_driver_sql(orphan)
        old.close()

    def test_migrating_again_changes_nothing(self, database: Database) -> None:
        database.migrate()
        database.check()

    def test_records_without_tables_are_said(self, database_url: str) -> None:
        empty = Database(database_url)
        with pytest.raises(DatabaseOutdated):
            empty.check()
        empty.close()

    def test_a_database_that_is_away_is_said(self) -> None:
        away = Database(f"postgresql://nobody:none@127.0.0.1:{free_ports(1)[0]}/none")
        with pytest.raises(DatabaseAway), away.read():
            pass
        away.close()

    def test_moments_come_back_with_their_zone(self, database: Database) -> None:
        berlin = dt.timezone(dt.timedelta(hours=2))
        with database.write() as tx:
            installation.note_run(tx, "job", dt.datetime(2026, 7, 1, 2, 30, 0, 123456, berlin))
        with database.read() as tx:
            assert installation.last_run(tx, "job") == dt.datetime(2026, 7, 1, 0, 30, 0, 123456, dt.UTC)
        with pytest.raises(sa.exc.StatementError), database.write() as tx:
            installation.note_run(tx, "job", dt.datetime(2026, 7, 1))


IMAGE = {
    "sha256": "0" * 64,
    "phash": "0" * 16,
    "width": 1,
    "height": 1,
    "bytes": 1,
    "source": "upload",
    "arrived_at": START,
}


@pytest.fixture
def two_projects(database: Database) -> Database:
    """The projects `ours` and `theirs`, each with one picture, one prediction, one task and one dataset."""
    with database.write() as tx:
        for project in ("ours", "theirs"):
            installation.save_project(tx, project, {}, START, "command line")
            tx.execute(tables.images.insert().values(project_id=project, id=f"i-{project}", key=project, **IMAGE))
            prediction = {"id": f"p-{project}", "project_id": project, "image_id": f"i-{project}", "status": "pending"}
            tx.execute(tables.predictions.insert().values(**prediction, created_at=START))
            task = {"id": f"t-{project}", "project_id": project, "image_id": f"i-{project}", "queue": "user_label"}
            tx.execute(tables.tasks.insert().values(**task, probability=1.0, created_at=START))
            dataset = {"project_id": project, "id": f"d-{project}", "head": "classifier", "digest": "0" * 64}
            tx.execute(tables.datasets.insert().values(**dataset, items=1, created_at=START))
    return database


MIXED: dict[str, tuple[sa.Table, dict[str, Any]]] = {
    "a prediction about their picture": (
        tables.predictions,
        {"id": "p", "project_id": "ours", "image_id": "i-theirs", "status": "pending", "created_at": START},
    ),
    "an embedding of their picture": (
        tables.embeddings,
        {"project_id": "ours", "image_id": "i-theirs", "encoder": "e", "vector": b""},
    ),
    "feedback on their prediction": (
        tables.feedback,
        {"prediction_id": "p-theirs", "kind": "flag", "label": "", "project_id": "ours", "said_at": START},
    ),
    "a task about their picture": (
        tables.tasks,
        {"id": "t", "project_id": "ours", "image_id": "i-theirs", "queue": "q", "probability": 1, "created_at": START},
    ),
    "a task about their prediction": (
        tables.tasks,
        {
            "id": "t",
            "project_id": "ours",
            "image_id": "i-ours",
            "queue": "q",
            "prediction_id": "p-theirs",
            "probability": 1,
            "created_at": START,
        },
    ),
    "an inclusion of their picture": (
        tables.inclusions,
        {"project_id": "ours", "image_id": "i-theirs", "queue": "q", "probability": 1, "drawn": True, "at": START},
    ),
    "an annotation of their task": (
        tables.annotations,
        {
            "annotation_id": "1",
            "answered_at": START,
            "project_id": "ours",
            "task_id": "t-theirs",
            "annotator": "1",
            "state": "answered",
            "collected_at": START,
        },
    ),
    "an imported answer about their picture": (
        tables.imported_answers,
        {"project_id": "ours", "image_id": "i-theirs", "label": "cat", "at": START},
    ),
    "their picture in our dataset": (
        tables.dataset_items,
        {"project_id": "ours", "dataset_id": "d-ours", "image_id": "i-theirs", "label": "cat"},
    ),
    "our picture in their dataset": (
        tables.dataset_items,
        {"project_id": "ours", "dataset_id": "d-theirs", "image_id": "i-ours", "label": "cat"},
    ),
    "a release of their dataset": (
        tables.releases,
        {
            "project_id": "ours",
            "head": "classifier",
            "id": "r",
            "number": 1,
            "dataset_id": "d-theirs",
            "encoder": "e",
            "state": "live",
            "reason": "",
            "card": {},
            "created_at": START,
        },
    ),
}


class TestProjectsNeverMix:
    @pytest.mark.parametrize("what", MIXED)
    def test_cannot_be_stored(self, two_projects: Database, what: str) -> None:
        table, row = MIXED[what]
        with pytest.raises(sa.exc.IntegrityError), two_projects.write() as tx:
            tx.execute(table.insert().values(**row))
        own = {name: str(v).replace("theirs", "ours") if isinstance(v, str) else v for name, v in row.items()}
        with two_projects.write() as tx:  # the same of our own is stored: it was the mixing that was refused
            tx.execute(table.insert().values(**own))

    def test_one_live_release_for_each_head(self, two_projects: Database) -> None:
        row = {**MIXED["a release of their dataset"][1], "dataset_id": "d-ours"}
        with two_projects.write() as tx:
            tx.execute(tables.releases.insert().values(**row))
            tx.execute(tables.releases.insert().values(**row | {"id": "r2", "number": 2, "state": "retired"}))
        with pytest.raises(sa.exc.IntegrityError), two_projects.write() as tx:
            tx.execute(tables.releases.insert().values(**row | {"id": "r3", "number": 3}))
        with pytest.raises(sa.exc.IntegrityError), two_projects.write() as tx:
            tx.execute(tables.releases.update().where(tables.releases.c.id == "r2").values(state="live"))


class TestWriting:
    def test_writers_at_once_lose_nothing(self, database: Database) -> None:
        def write(thread: int) -> None:
            for n in range(10):
                with database.write() as tx:
                    installation.last_run(tx, f"{thread}/{n}")  # a look first: a transaction that reads, then writes
                    installation.note_run(tx, f"{thread}/{n}", START)

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(write, range(20)))
        with database.read() as tx:
            assert tx.execute(sa.select(sa.func.count()).select_from(tables.job_runs)).scalar() == 200

    def test_a_transaction_happens_whole_or_not_at_all(self, database: Database) -> None:
        def fail() -> None:
            with database.write() as tx:
                installation.note_run(tx, "one", START)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        with database.read() as tx:
            assert installation.last_run(tx, "one") is None

    def test_insert_new_keeps_what_is_there(self, database: Database) -> None:
        later = START + dt.timedelta(days=1)
        with database.write() as tx:
            assert insert_new(tx, tables.job_runs, {"name": "one", "ran_at": START}) == 1
            rows = [{"name": name, "ran_at": later} for name in ("one", "two")]
            assert insert_new(tx, tables.job_runs, rows) == 1
            assert insert_new(tx, tables.job_runs, []) == 0
            many = [{"name": f"n{n}", "ran_at": START} for n in range(1201)]
            assert insert_new(tx, tables.job_runs, many) == 1201
        with database.read() as tx:
            assert installation.last_run(tx, "one") == START


class TestLeases:
    def test_one_holder_at_a_time(self, stores: Stores, clock: Clock) -> None:
        with leases.held(stores, "job", clock) as first:
            with pytest.raises(LeaseTaken), leases.held(stores, "job", clock):
                pass
            with leases.held(stores, "another job", clock):
                pass
        with leases.held(stores, "job", clock) as second:
            assert second.fence == first.fence + 1

    def test_the_fence_grows_when_a_holder_is_late(self, stores: Stores, clock: Clock) -> None:
        def at_work() -> None:
            with leases.held(stores, "job", clock) as late:
                clock.forward(seconds=31)  # it slept; nobody renewed
                with leases.held(stores, "job", clock) as next_one:
                    assert next_one.fence > late.fence
                    with stores.db.write() as tx:
                        next_one.check(tx)
                    with stores.db.write() as tx:
                        late.check(tx)

        with pytest.raises(LeaseLost):
            at_work()

    def test_threads_at_once_get_it_once(self, stores: Stores, clock: Clock) -> None:
        def take(n: int) -> int | None:
            with stores.db.write() as tx:
                return installation.take_lease(tx, "job", f"h{n}", clock(), clock() + leases.LENGTH)

        with ThreadPoolExecutor(16) as pool:
            fences = [fence for fence in pool.map(take, range(16)) if fence is not None]
        assert fences == [1]


def test_projects_are_changed_one_after_another(stores: Stores) -> None:
    base = "{{id: pets, title: T, kind: classification, classes: [cat, dog{more}]}}"
    versions = [projects.parse_manifest(base.format(more=more)) for more in ("", ", owl", ", owl, hen")]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: projects.add(stores, versions[0], START), range(8)))
    projects.add(stores, versions[1], START)
    projects.add(stores, versions[2], START)
    assert projects.get(stores, "pets").classes == ("cat", "dog", "owl", "hen")


def test_who_is_frozen_in_the_midst_of_a_write_does_not_hold_up_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.is_sqlite:
        pytest.skip(
            "SQLite has one machine, whose processes nobody freezes, and one writer, who waits for half a minute"
        )
    monkeypatch.setattr("closedloop.storage.database.FROZEN_SECONDS", 1)
    row = {"kind": "forget", "ref": "models/x", "created_at": START, "not_before": START, "attempts": 0}

    def freeze_then_go_on() -> None:
        with database.write() as frozen:
            insert_new(frozen, tables.outbox, row)
            with database.write() as tx:  # waits for the other to commit, or to be given up
                assert insert_new(tx, tables.outbox, row) == 1
            frozen.execute(sa.select(tables.outbox.c.id))

    with pytest.raises(DatabaseAway):
        freeze_then_go_on()
