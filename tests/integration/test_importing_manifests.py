"""Files of many projects: their manifests make them, each row finds its own, and nothing ever mixes."""

import datetime as dt
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closedloop import project
from closedloop.errors import BadRequest
from closedloop.image import accept
from closedloop.importing import crops, manifests, selections
from closedloop.project import Dates, Project
from closedloop.storage import Stores, tables
from closedloop.storage.database import Database
from tests.conftest import START, Clock
from tests.integration.earlier import Make, Shelf, boxes, day, empty, everything, lay, manifest, picks, rows, selection


@pytest.fixture
def shelved(database: Database) -> Stores:
    """Real records; the objects lie on a shelf."""
    return Stores(database, Shelf())  # type: ignore[arg-type]


def test_projects_are_made_or_given_their_dates(shelved: Stores, tmp_path: Path) -> None:
    there = selection("mojo2", "Its own title").model_copy(update={"learn_together": False})
    project.add(shelved, there, START)
    manifest(tmp_path / "m", "mojo1", "Mojo", "2025-01-01T00:00:00Z", "2025-02-01T00:00:00+01:00")
    manifest(tmp_path / "m", "mojo2", "Mojo", 1738368000, None, added_by="somebody")
    before = everything(shelved)
    reading = manifests.read(shelved, tmp_path / "m")
    assert everything(shelved) == before
    assert [(one.project.id, one.state, one.counts) for one in reading.found] == [
        ("mojo1", "new", {"sets": 3}),
        ("mojo2", "dated", {"sets": 3}),
    ]
    manifests.keep(shelved, reading, START)
    made = project.get(shelved, "mojo1")
    assert (made.title, made.kind) == ("Mojo", "selection")
    assert made.dates == Dates(began=day(0), ended=dt.datetime(2025, 1, 31, 23, tzinfo=dt.UTC))
    dates = Dates(began=dt.datetime(2025, 2, 1, tzinfo=dt.UTC))
    assert project.get(shelved, "mojo2") == there.model_copy(update={"dates": dates})
    after = everything(shelved)
    again = manifests.read(shelved, tmp_path / "m")
    manifests.keep(shelved, again, START + dt.timedelta(days=1))
    assert {one.state for one in again.found} == {"known"}
    assert everything(shelved) == after


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ('{"projectId": "unknown", "title": "U", "startedAt": "2025-01-01T00:00:00Z"}', 'no project may be called "unknown"'),
        ('{"projectId": "Mojo 1", "title": "M", "startedAt": "2025-01-01T00:00:00Z"}', "3 to 40 of the characters"),
        ('{"projectId": 7, "title": "M", "startedAt": "2025-01-01T00:00:00Z"}', "projectId"),
        ('{"projectId": "mojo1", "title": "", "startedAt": "2025-01-01T00:00:00Z"}', "title"),
        ('{"projectId": "mojo1", "title": "M"}', "startedAt"),
        ('{"projectId": "mojo1", "title": "M", "startedAt": "last year"}', '"last year"'),
        ('{"projectId": "mojo1", "title": "M", "startedAt": "2025-02-01Z", "finishedAt": "x"}', "cannot be read"),
        ('{"projectId": "mojo1", "title": "M", "startedAt": "2025-02-01", "finishedAt": "2025-01-01"}', "ends before it begins"),
        ('{"projectId": "pets", "title": "M", "startedAt": "2025-02-01"}', 'The project "pets" is a classification'),
        ('[{"projectId": "mojo1"}]', "title"),
        ("[7]", "must be an object"),
        ("", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"a": "' + "x" * 2**20 + '"}', "larger than 1 MiB"),
        ("\x00", "cannot be read"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_used_is_refused_and_the_others_are(
    shelved: Stores, pets: Project, tmp_path: Path, file: str, said: str
) -> None:
    project.add(shelved, pets, START)
    manifest(tmp_path / "m", "good", "Good", "2025-01-01T00:00:00Z", None)
    (tmp_path / "m" / "bad.json").write_text(file)
    (tmp_path / "m" / "notes.txt").write_text("no manifest")
    reading = manifests.read(shelved, tmp_path / "m")
    assert [one.project.id for one in reading.found] == ["good"]
    (refusal,) = reading.refused
    assert refusal.place == "bad.json"
    assert said in refusal.reason


def test_bytes_that_are_no_text_and_a_byte_order_mark(shelved: Stores, tmp_path: Path) -> None:
    manifest(tmp_path, "good", "Good", "2025-01-01T00:00:00Z", None)
    (tmp_path / "good.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "good.json").read_bytes())
    (tmp_path / "bad.json").write_bytes(b'{"projectId": "\xff"}')
    (tmp_path / "worse.json").write_text('{"projectId": "\\ud800", "title": "x", "startedAt": "2025-01-01"}')
    reading = manifests.read(shelved, tmp_path)
    assert [one.project.id for one in reading.found] == ["good"]
    assert [refusal.place for refusal in reading.refused] == ["bad.json", "worse.json"]


def test_one_file_may_describe_many_and_none_twice_differently(shelved: Stores, tmp_path: Path) -> None:
    one = {"projectId": "one", "title": "One", "startedAt": "2025-01-01T00:00:00", "finishedAt": None}
    two = {"projectId": "two", "title": "Two", "startedAt": "2025-01-01T00:00:00Z", "counts": {}}
    (tmp_path / "a.json").write_text(json.dumps([one, two, {**one, "counts": {"sets": 1}}]))
    (tmp_path / "b.json").write_text(json.dumps({**two, "startedAt": "2024-01-01T00:00:00Z"}))
    reading = manifests.read(shelved, tmp_path)
    assert [found.project.id for found in reading.found] == ["one"]
    assert reading.without_zone == 1
    assert [refusal.place for refusal in reading.refused] == ["a.json", "b.json"]
    assert all('"two" is described twice' in refusal.reason for refusal in reading.refused)


def test_no_folder_and_no_manifest_are_said_to_be_none(shelved: Stores, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="there is no folder"):
        manifests.read(shelved, tmp_path / "none")
    with pytest.raises(BadRequest, match="has no manifests"):
        manifests.read(shelved, tmp_path)


def test_a_session_names_no_set_of_two_projects(shelved: Stores, tmp_path: Path, picture: Make) -> None:
    root = lay(tmp_path / "root", picture, ["mojo1/a.png", "mojo1/b.png", "mojo2/a.png", "mojo2/b.png"])
    for name in ("mojo1", "mojo2"):
        manifest(tmp_path / "m", name, name, "2025-01-01T00:00:00Z", None)
    table = [
        ("s", "1", "mojo1/a.png", "mojo1/b.png", "2025-01-02T00:00:00Z"),
        ("s", "1", "mojo2/a.png", "mojo2/b.png", "2025-01-02T00:00:00Z"),
        ("t", "1", "mojo2/a.png", "mojo2/b.png", "2025-01-02T00:00:00Z"),
        ("t", "2", "mojo2/a.png", "mojo1/b.png", "2025-01-02T00:00:00Z"),
        ("s", "1", "mojo1/a.png", "mojo1/b.png", "2025-01-02T00:00:00Z"),
    ]
    reading = manifests.read(shelved, tmp_path / "m")
    manifests.keep(shelved, reading, START)
    done = selections.run(shelved, reading.assignment, picks(tmp_path / "p.csv", table), root, Clock())
    assert [str(refusal) for refusal in done.refusals.first] == [
        'line 3: The set "1" has pictures of "mojo1" and of "mojo2". A set has pictures of one project only.',
        'line 5: The set "2" has pictures of "mojo2" and of "mojo1". A set has pictures of one project only.',
    ]
    assert {name: dict(counts) for name, counts in done.of_project.items()} == {
        "mojo1": {"added": 1, "known": 1},
        "mojo2": {"added": 1},
    }


# Random files of many projects

FOLDERS = ["mojo1", "mojo10", "Mojo", "unknown", "mojo", "ten"]
FILES = ["a.png", "aa.png", "A.png", "gone.png"]
NAMES = st.builds("{}/{}".format, st.sampled_from(FOLDERS), st.sampled_from(FILES))
TIMES = st.integers(0, 6)
SESSION = (st.sampled_from("st"), st.sampled_from("12"))
MIXED = st.tuples(*SESSION, NAMES, st.lists(NAMES, max_size=3), TIMES)
WHOLE = st.builds(  # of one folder, its pictures all different
    lambda session, name, folder, files, at: (
        session,
        name,
        f"{folder}/{files[0]}",
        [f"{folder}/{n}" for n in files[1:]],
        at,
    ),
    *SESSION,
    st.sampled_from(FOLDERS),
    st.lists(st.sampled_from(FILES[:-1]), min_size=2, max_size=3, unique=True),
    TIMES,
)
ROWS = st.lists(st.one_of(MIXED, WHOLE), max_size=8)
CROPS = st.lists(
    st.tuples(NAMES, st.sampled_from([(0, 0, 1, 1), (0.1, 0, 0.5, 1), (0.5, 0, 0.1, 1), (0, 0, 300, 200)]), TIMES),
    max_size=8,
)
DESCRIBED = st.dictionaries(
    st.sampled_from(["mojo1", "mojo10", "ten", "unknown"]),
    st.tuples(st.sampled_from(FOLDERS), st.integers(0, 2), st.one_of(st.none(), st.integers(0, 5))),
    min_size=1,
    max_size=4,
)


class World:
    """A folder with a picture of its own look behind every name but gone.png."""

    def __init__(self, picture: Make) -> None:
        self.root = Path(tempfile.mkdtemp())
        names = [f"{folder}/{file}" for folder in FOLDERS for file in FILES[:-1]]
        lay(self.root, lambda seed: picture(seed, size=(16, 12)), names)
        self.name_of = {accept((self.root / name).read_bytes()).id: name for name in names}


@pytest.fixture(scope="module")
def world(picture: Make) -> World:
    return World(picture)


def fitting(described: dict[str, Any], name: str, at: int) -> set[str]:
    """The projects that a picture could be of, said once more and in another way than the code does."""
    folder = name.split("/")[0]
    return {
        id_
        for id_, (title, began, length) in described.items()
        if id_ != "unknown" and folder != "unknown" and folder in (id_, title)
        if began <= at and (length is None or at <= began + length)
    }  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(described=DESCRIBED, picked=ROWS, cropped=CROPS, turned=st.booleans())
def test_whatever_the_files_say_the_rules_hold(
    shelved: Stores, world: World, described: dict[str, Any], picked: list[Any], cropped: list[Any], turned: bool
) -> None:
    if turned:  # every set once more, and once more with another one picked
        others = [(s, name, rest[0], [best, *rest[1:]], at) for s, name, best, rest, at in picked if rest]
        picked = picked + picked + others
    empty(shelved.db)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for id_, (title, began, length) in described.items():
            ended = None if length is None else day(began + length).isoformat()
            manifest(folder / "m", id_, title, day(began).isoformat(), ended)
        table = [(s, name, best, json.dumps(rest), day(at).isoformat()) for s, name, best, rest, at in picked]
        files = [
            (selections, picks(folder / "p.csv", table)),
            (crops, boxes(folder / "c.csv", [("s", name, *box, day(at).isoformat()) for name, box, at in cropped])),
        ]

        def run(dry: bool) -> list[Any]:
            reading = manifests.read(shelved, folder / "m")
            if not dry:
                manifests.keep(shelved, reading, START)
            done = [room.run(shelved, reading.assignment, file, world.root, Clock(), dry=dry) for room, file in files]
            assert [one.rows for one in done] == [len(picked), len(cropped)]
            assert all(one.added + one.known + len(one.refusals) == one.rows for one in done)
            return [(one.added, one.known, one.refusals.first) for one in done]

        nothing = everything(shelved)
        expected = run(dry=True)
        assert everything(shelved) == nothing
        first = run(dry=False)
        assert first == expected
        after = everything(shelved)
        again = run(dry=False)
        assert everything(shelved) == after
        assert [(0, added + known, refused) for added, known, refused in first] == again

    at_of = defaultdict(set)
    for _, _, best, rest, at in picked:
        for name in (best, *rest):
            at_of[name].add(at)
    for name, _, at in cropped:
        at_of[name].add(at)
    for image in rows(shelved, tables.images):  # each picture is of a project that its folder and a time of it fit
        name = world.name_of[image.id]
        assert any(fitting(described, name, at) == {image.project_id} for at in at_of[name])
    assert "unknown" not in {one.id for one in project.all_projects(shelved)}
    members = defaultdict(set)
    for row in rows(shelved, tables.set_pictures):
        members[row.project_id, row.set_id].add(world.name_of[row.image_id])
    wanted = {frozenset((best, *rest)) for _, _, best, rest, _ in picked}
    assert {frozenset(names) for names in members.values()} <= wanted  # no set but those that rows are, whole
    for pick in rows(shelved, tables.logged_picks):
        names = members[pick.project_id, pick.set_id]
        assert any({best, *rest} == names and best == world.name_of[pick.image_id] for _, _, best, rest, _ in picked)
    kept = {
        (world.name_of[row.image_id], (row.x1, row.y1, row.x2, row.y2)) for row in rows(shelved, tables.logged_crops)
    }
    assert kept <= {(name, box) for name, box, _ in cropped}
    # And nothing that could be kept was not: a crop's row is kept exactly where its picture is there and fits one project.
    good = [(name, at) for name, box, at in cropped if box[0] < box[2] <= 1 and "gone" not in name]
    assert {world.name_of[row.image_id] for row in rows(shelved, tables.logged_crops)} == {
        name for name, at in good if len(fitting(described, name, at)) == 1
    }
    usable = defaultdict(list)
    for session, set_name, best, rest, at in picked:
        names, owners = [best, *rest], [fitting(described, name, at) for name in (best, *rest)]
        is_set = len(set(names)) == len(names) > 1 and "gone" not in str(names)
        if is_set and len(owners[0]) == 1 and all(owner == owners[0] for owner in owners):
            usable[session, set_name].append((min(owners[0]), frozenset(names)))
    sets = {(project_id, frozenset(names)) for (project_id, _), names in members.items()}
    for of_name in usable.values():
        assert of_name[0] in sets  # the first row of a name is kept, later ones if they are of the same project
        assert all(one in sets for one in of_name if one[0] == of_name[0][0])
