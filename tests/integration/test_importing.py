"""Sets, picks and crops of earlier work come in once, each row of its own, and what cannot be used says why."""

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc

from closedloop import crops as crop_room
from closedloop import project, removal
from closedloop import selections as selection_room
from closedloop import sets as set_room
from closedloop.errors import BadRequest, PickedOtherwise, StoreAway, UnusableTable, WrongKind
from closedloop.image import accept
from closedloop.importing import crops, selections, sets
from closedloop.importing.assignment import OneProject
from closedloop.importing.outcome import Outcome
from closedloop.project import Project
from closedloop.storage import Stores, pictures, tables
from tests.conftest import START, Clock
from tests.integration.earlier import NOON, Make, boxes, everything, lay, picks, rows, selection

FOUR = ["a.png", "b.png", "sub/c.png", "d d.png"]


@pytest.fixture
def best(stores: Stores) -> Project:
    """A project of sets; its coin asks about every set that comes."""
    made = selection("best").model_copy(update={"ask": project.Ask(random_share=1.0)})
    project.add(stores, made, START)
    return made


@pytest.fixture
def root(tmp_path: Path, picture: Make) -> Path:
    return lay(tmp_path / "root", picture, FOUR)


def import_picks(stores: Stores, of: Project, file: Path, root: Path, **more: Any) -> Outcome:
    return selections.run(stores, OneProject.of(stores, of), file, root, Clock(), **more)


def import_crops(stores: Stores, of: Project, file: Path, root: Path, **more: Any) -> Outcome:
    return crops.run(stores, OneProject.of(stores, of), file, root, Clock(), **more)


def told(done: Outcome) -> list[tuple[int | str, str]]:
    return [(refusal.place, refusal.code) for refusal in done.refusals.first]


class TestSelections:
    def test_a_row_is_a_set_with_its_pick(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path, picture: Make
    ) -> None:
        file = picks(tmp_path / "p.csv", [("s1", "1", "a.png", '["b.png", "sub/c.png"]', NOON)])
        seen: list[tuple[int, int]] = []
        done = import_picks(stores, best, file, root, progress=lambda *at: seen.append(at))
        assert (done.rows, done.added, done.known, len(done.refusals)) == (1, 1, 0, 0)
        assert seen[-1] == (2, 2)
        ids = [accept(picture(seed)).id for seed in range(3)]
        (item,) = selection_room.settled_items(stores, best)
        assert (item.chosen, sorted(item.members), item.by_chance) == (ids[0], sorted(ids), True)
        (pick,) = rows(stores, tables.logged_picks)
        assert (pick.session, pick.at.isoformat()) == ("s1", "2025-06-01T12:00:00+00:00")
        kept = set_room.get(stores, item.set_id)
        assert (kept.source, kept.status, list(kept.image_ids)) == ("import", "done", sorted(ids))
        with stores.db.read() as tx:
            known = pictures.images_of(tx, best.id, ids)
        assert {row["source"] for row in known.values()} == {"import"}
        assert stores.objects.get(known[ids[0]]["key"]) == accept(picture(0)).jpeg
        assert {row.image_id for row in rows(stores, tables.catalogue)} == set(ids)

    def test_a_picked_set_is_asked_about_by_nobody_and_needs_no_suggestion(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path
    ) -> None:
        import_picks(stores, best, picks(tmp_path / "p.csv", [("s1", "1", "a.png", "b.png", NOON)]), root)
        (kept,) = rows(stores, tables.sets)
        assert (rows(stores, tables.tasks), kept.chance, kept.asked_at) == ([], 0.0, None)
        assert (kept.status, rows(stores, tables.outbox)) == ("done", [])
        assert selection_room.ask_least_sure(stores, best, START) == 0

    def test_a_set_that_visitors_sent_gets_the_pick_too(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path, picture: Make
    ) -> None:
        set_room.keep(stores, best, [accept(picture(0)), accept(picture(1))], "upload", START)
        done = import_picks(stores, best, picks(tmp_path / "p.csv", [("s1", "1", "a.png", "b.png", NOON)]), root)
        assert (done.added, len(rows(stores, tables.sets)), len(rows(stores, tables.logged_picks))) == (1, 1, 1)

    def test_a_second_run_adds_nothing_and_a_dry_one_tells_before(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path
    ) -> None:
        table = [
            ("s1", "1", "a.png", "b.png;sub/c.png", NOON),
            ("s1", "1", "a.png", "sub/c.png;b.png", NOON),  # the same set, whatever the order
            ("s2", "1", "a.png", "d d.png", NOON),
            ("s2", "2", "b.png", "a.png;sub/c.png", NOON),  # the first set, picked otherwise
            ("s2", "3", "a.png", "zz.png", NOON),
        ]
        file = picks(tmp_path / "p.csv", table)
        before = everything(stores)
        dry = import_picks(stores, best, file, root, dry=True)
        assert everything(stores) == before
        assert stores.objects.list("production/best") == []
        done = import_picks(stores, best, file, root)
        assert (dry.added, dry.known, told(dry)) == (done.added, done.known, told(done))
        assert (done.added, done.known, told(done)) == (2, 1, [(5, "picked_otherwise"), (6, "missing_file")])
        assert '"a.png" was the best one' in done.refusals.first[0].reason
        after = everything(stores)
        again = import_picks(stores, best, file, root)
        assert (again.added, again.known, told(again)) == (0, 3, told(done))
        assert everything(stores) == after

    @pytest.mark.parametrize(
        ("row", "code", "said"),
        [
            (("s", "1", "a.png", "", NOON), "imported_set_size", "this one has 1."),
            (("s", "1", "a.png", ";".join(f"{n}.png" for n in range(12)), NOON), "imported_set_size", "has 13."),
            (("s", "1", "a.png", "a.png", NOON), "same_file_twice", '"a.png" and "a.png" are the same'),
            (("s", "1", "a.png", "b.png;copy.png", NOON), "same_file_twice", '"a.png" and "copy.png"'),
            (("s", "1", "aa.png", "b.png", NOON), "missing_file", 'no file "aa.png"'),
            (("s", "1", "A.png", "b.png", NOON), "missing_file", 'no file "A.png"'),
            (("s", "1", "/etc/hostname", "b.png", NOON), "unusable_path", "absolute"),
            (("s", "1", "../p.csv", "b.png", NOON), "unusable_path", '".."'),
            (("s", "1", "a.png", "out.png", NOON), "unusable_path", "out of the root"),
            (("s", "1", "a.png", "notes.txt", NOON), "unusable_file", '"notes.txt": This file is not a JPEG, PNG or WebP picture'),
            (("s", "1", "a.png", "empty.png", NOON), "unusable_file", "the file is empty"),
            (("s", "1", "a.png", "cut.png", NOON), "unusable_file", "damaged"),
            (("s", "1", "a.png", "large.png", NOON), "unusable_file", "larger than 10 MB"),
            (("s", "1", "a.png", "['b.png']", NOON), "unreadable_row", "JSON"),
            (("s", "1", "a.png", "b.png", "yesterday"), "unusable_time", '"yesterday"'),
            (("s", "1", "a.png", "b.png"), "unreadable_row", "4 fields"),
            (("s", "1", "other/a.png", "a.png", NOON), "mixed_set", '"other" and of "best"'),
        ],
    )  # fmt: skip
    def test_a_row_that_cannot_be_used_is_refused_and_the_others_are_kept(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path, picture: Make, row: Any, code: str, said: str
    ) -> None:
        project.add(stores, selection("other"), START)
        shutil.copy(root / "a.png", root / "copy.png")
        (root / "other").mkdir()
        shutil.copy(root / "a.png", root / "other" / "a.png")
        (tmp_path / "elsewhere.png").write_bytes(picture(9))
        (root / "out.png").symlink_to(tmp_path / "elsewhere.png")
        (root / "notes.txt").write_text("not a picture")
        (root / "empty.png").touch()
        (root / "cut.png").write_bytes(picture(9)[:-80])
        (root / "large.png").write_bytes(picture(9) + b"\0" * 11_000_000)
        file = picks(
            tmp_path / "p.csv", [("s", "0", "a.png", "b.png", NOON), row, ("s", "2", "a.png", "d d.png", NOON)]
        )
        done = import_picks(stores, best, file, root)
        ((place, found),) = told(done)
        assert (done.rows, done.added, place, found) == (3, 2, 3, code)
        reason = done.refusals.first[0].reason
        assert said in reason
        assert "again" not in reason
        assert "multipart" not in reason

    def test_a_store_that_is_away_ends_the_import_which_goes_on_later(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = picks(tmp_path / "p.csv", [("s", "1", "a.png", "b.png", NOON), ("s", "2", "sub/c.png", "d d.png", NOON)])
        put, count = type(stores.objects).put, []

        def full(self: Any, key: str, data: bytes) -> None:
            count.append(key)
            if len(count) == 4:
                raise StoreAway
            put(self, key, data)

        monkeypatch.setattr(type(stores.objects), "put", full)
        with pytest.raises(StoreAway):
            import_picks(stores, best, file, root)
        assert len(rows(stores, tables.sets)) == 1
        done = import_picks(stores, best, file, root)
        assert (done.added, done.known, len(rows(stores, tables.logged_picks))) == (1, 1, 2)

    def test_two_at_once_that_disagree_leave_one_pick(self, stores: Stores, best: Project, picture: Make) -> None:
        accepted = [accept(picture(0)), accept(picture(1))]
        first = set_room.Pick(accepted[0].id, "s", START)
        assert set_room.keep(stores, best, accepted, "import", START, picked=first)
        assert not set_room.keep(stores, best, accepted, "import", START, picked=first)
        with pytest.raises(PickedOtherwise, match=accepted[0].id):
            set_room.keep(stores, best, accepted, "import", START, picked=set_room.Pick(accepted[1].id, "s", START))
        assert len(rows(stores, tables.logged_picks)) == 1

    def test_a_removed_picture_comes_back_with_its_set(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path, picture: Make
    ) -> None:
        file = picks(tmp_path / "p.csv", [("s", "1", "a.png", "b.png", NOON)])
        import_picks(stores, best, file, root)
        removal.remove(stores, best.id, accept(picture(0)).id, "owner@example.org", START)
        assert selection_room.settled_items(stores, best) == []
        assert import_picks(stores, best, file, root).added == 1
        assert len(selection_room.settled_items(stores, best)) == 1

    def test_the_database_itself_keeps_projects_apart(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path
    ) -> None:
        project.add(stores, selection("other"), START)
        import_picks(stores, best, picks(tmp_path / "p.csv", [("s", "1", "a.png", "b.png", NOON)]), root)
        (kept,) = rows(stores, tables.sets)
        (picked,) = rows(stores, tables.logged_picks)
        strange = {"project_id": "other", "set_id": kept.id, "image_id": picked.image_id}
        outside = {"project_id": best.id, "set_id": kept.id, "image_id": "0" * 32}
        for table, row in (
            (tables.set_pictures, {**strange, "position": 9}),
            (tables.logged_picks, {**strange, "session": "s", "at": START}),
            (tables.set_pictures, {**outside, "position": 9}),
        ):
            with pytest.raises(exc.IntegrityError), stores.db.write() as tx:
                tx.execute(table.insert().values(**row))
        with pytest.raises(exc.IntegrityError), stores.db.write() as tx:
            tx.execute(tables.logged_picks.update().values(image_id="0" * 32))

    def test_many_refusals_are_in_a_file_that_can_be_corrected_and_imported(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path
    ) -> None:
        file = picks(tmp_path / "p.csv", [("s", str(n), "a.png", f"x{n}.png", NOON) for n in range(150)])
        assert import_picks(stores, best, file, root, dry=True).refusals.written is None
        done = import_picks(stores, best, file, root)
        assert (len(done.refusals), len(done.refusals.first)) == (150, 100)
        assert done.refusals.written == tmp_path / "p.csv.refused.csv"
        text = done.refusals.written.read_text().replace("x7.png", "b.png")
        corrected = tmp_path / "corrected.csv"
        corrected.write_text(text)
        again = import_picks(stores, best, corrected, root, refused=tmp_path / "rest.csv")
        assert (again.added, len(again.refusals), list(again.not_read)) == (1, 149, ["line", "reason"])
        with (tmp_path / "rest.csv").open(newline="") as rest:
            assert sum(1 for _ in csv.DictReader(rest)) == 149

    def test_the_file_of_the_refused_is_not_the_table(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path
    ) -> None:
        file = picks(tmp_path / "p.csv", [("s", "1", "a.png", "b.png", NOON)])
        with pytest.raises(BadRequest, match="--refused"):
            import_picks(stores, best, file, root, refused=file)
        assert file.stat().st_size > 80

    def test_other_columns_and_other_kinds_are_refused_whole(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path, project: Project
    ) -> None:
        file = tmp_path / "p.csv"
        file.write_text("session,chosen\n1,2\n")
        with pytest.raises(UnusableTable, match=r'session_id, set_id, chosen_path.*"session", "chosen"'):
            import_picks(stores, best, file, root)
        with pytest.raises(WrongKind):
            import_picks(stores, project, picks(file, []), root)
        assert import_picks(stores, best, picks(file, []), root).rows == 0


class TestCrops:
    def test_a_row_is_a_picture_with_its_crop(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path, picture: Make
    ) -> None:
        file = boxes(
            tmp_path / "c.csv",
            [("s1", "a.png", 0.1, 0.2, 0.8, 1, NOON), ("s1", "a.png", "0.1", "0.20", "8e-1", "1.0", NOON)],
        )
        done = import_crops(stores, best, file, root)
        assert (done.rows, done.added, done.known) == (2, 1, 1)
        (item,) = crop_room.settled_items(stores, best)
        assert (item.image_id, item.box, item.by_chance) == (
            accept(picture(0)).id,
            crop_room.Box(0.1, 0.2, 0.8, 1),
            True,
        )
        (row,) = rows(stores, tables.images)
        assert (row.source, row.key) == ("import", f"production/best/unclassified/{item.image_id}.jpg")
        assert stores.objects.get(row.key) == accept(picture(0)).jpeg
        assert [row.image_id for row in rows(stores, tables.catalogue)] == [item.image_id]
        after = everything(stores)
        assert import_crops(stores, best, file, root).known == 2
        assert everything(stores) == after

    @pytest.mark.parametrize(
        ("row", "code", "said"),
        [
            (("s", "b.png", -0.2, 0, 1, 1, NOON), "unusable_box", "outside"),
            (("s", "b.png", 0, 0, 320, 200, NOON), "unusable_box", "not pixels"),
            (("s", "b.png", 0.8, 0, 0.2, 1, NOON), "unusable_box", "x1 must be less"),
            (("s", "b.png", "nan", 0, 1, 1, NOON), "unusable_box", "four numbers"),
            (("s", "b.png", "", 0, 1, 1, NOON), "unusable_box", "four numbers"),
            (("s", "b.png", "0,1", 0, 1, 1, NOON), "unusable_box", "(0,1, 0.0"),
            (("s", "b.png", 0, 0, 1, "inf", NOON), "unusable_box", "four numbers"),
            (("s", "b.png", 0, 0, 1, 1, ""), "unusable_time", '""'),
            (("s", "a.png", 0, 0, 1, 1, NOON), "cropped_otherwise", "cropped to [0.1, 0.2, 0.8, 1.0] before"),
            (("s", "b", 0, 0, 1, 1, NOON), "missing_file", '"b"'),
            (("s", "other/a.png", 0, 0, 1, 1, NOON), "of_another_project", '"other", and this is "best"'),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("dry", [True, False])
    def test_a_row_that_cannot_be_used_is_refused_and_the_others_are_kept(
        self, stores: Stores, best: Project, root: Path, tmp_path: Path, row: Any, code: str, said: str, dry: bool
    ) -> None:
        project.add(stores, selection("other"), START)
        (root / "other").mkdir()
        shutil.copy(root / "a.png", root / "other" / "a.png")
        good = [("s", "a.png", 0.1, 0.2, 0.8, 1, NOON), ("s", "d d.png", 0, 0, 1, 1, NOON)]
        done = import_crops(stores, best, boxes(tmp_path / "c.csv", [good[0], row, good[1]]), root, dry=dry)
        assert (done.rows, done.added, told(done)) == (3, 2, [(3, code)])
        assert said in done.refusals.first[0].reason
        assert len(rows(stores, tables.logged_crops)) == (0 if dry else 2)

    def test_a_crop_imported_before_stays(self, stores: Stores, best: Project, root: Path, tmp_path: Path) -> None:
        import_crops(stores, best, boxes(tmp_path / "c.csv", [("s", "a.png", 0, 0, 0.5, 1, NOON)]), root)
        done = import_crops(stores, best, boxes(tmp_path / "c.csv", [("s", "a.png", 0, 0, 0.6, 1, NOON)]), root)
        assert told(done) == [(2, "cropped_otherwise")]
        assert [row.x2 for row in rows(stores, tables.logged_crops)] == [0.5]


class TestSets:
    def test_each_sub_folder_is_a_set(self, stores: Stores, best: Project, tmp_path: Path, picture: Make) -> None:
        folder = lay(
            tmp_path / "sets", picture, ["one/2.png", "one/1.png", "two/a.png", "two/b.png", "two/c.png", "one/.hidden"]
        )
        done = sets.run(stores, best, folder, Clock())
        assert (done.rows, done.added, told(done)) == (2, 2, [])
        ids = [accept(picture(seed)).id for seed in range(5)]
        assert sorted(set_room.get(stores, row.id).image_ids for row in rows(stores, tables.sets)) == sorted(
            [(ids[1], ids[0]), tuple(ids[2:])]
        )
        assert len(rows(stores, tables.tasks)) == 2  # their coins say so: random_share is 1
        assert {row.kind for row in rows(stores, tables.outbox)} >= {"suggest"}
        after = everything(stores)
        again = sets.run(stores, best, folder, Clock())
        assert (again.added, again.known) == (0, 2)
        assert everything(stores) == after

    @pytest.mark.parametrize("dry", [True, False])
    def test_a_sub_folder_that_is_no_set_is_refused_and_the_others_are_kept(
        self, stores: Stores, best: Project, tmp_path: Path, picture: Make, dry: bool
    ) -> None:
        folder = lay(
            tmp_path / "sets",
            picture,
            ["good/1.png", "good/2.png", "alone/1.png", "stray.png", "deep/in/1.png", "deep/1.png", "deep/2.png"]
            + [f"many/{n}.png" for n in range(13)]
            + ["notes/1.png", "linked/1.png"],
        )
        (folder / "nothing").mkdir()
        (folder / "notes" / "2.txt").write_text("no picture")
        shutil.copytree(folder / "good", folder / "same")
        (folder / "twice").mkdir()
        for name in ("1.png", "2.png"):
            shutil.copy(folder / "good" / "1.png", folder / "twice" / name)
        (tmp_path / "outside.png").write_bytes(picture(50))
        (folder / "linked" / "2.png").symlink_to(tmp_path / "outside.png")
        before = everything(stores)
        done = sets.run(stores, best, folder, Clock(), dry=dry)
        assert told(done) == [
            ("alone", "imported_set_size"),
            ("deep", "nested_folder"),
            ("linked", "unusable_path"),
            ("many", "imported_set_size"),
            ("notes", "unusable_file"),
            ("nothing", "imported_set_size"),
            ("stray.png", "no_set_folder"),
            ("twice", "same_file_twice"),
        ]
        assert (done.rows, done.added, done.known) == (10, 1, 1)
        assert (everything(stores) == before) == dry

    def test_what_has_no_sets_is_refused(self, stores: Stores, best: Project, project: Project, tmp_path: Path) -> None:
        with pytest.raises(WrongKind):
            sets.run(stores, project, tmp_path, Clock())
        with pytest.raises(BadRequest, match="no folder"):
            sets.run(stores, best, tmp_path / "none", Clock())

    def test_a_folder_whose_names_are_no_text_stops_nothing(
        self, stores: Stores, best: Project, tmp_path: Path, picture: Make
    ) -> None:
        folder = lay(tmp_path / "sets", picture, ["good/1.png", "good/2.png"])
        strange = os.fsencode(folder) + b"/\xff"
        os.mkdir(strange)
        for seed, name in enumerate((b"/1.png", b"/\xfe.png")):
            Path(os.fsdecode(strange + name)).write_bytes(picture(seed + 5))
        assert sets.run(stores, best, folder, Clock()).added == 2
