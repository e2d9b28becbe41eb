"""The commands that bring earlier work in, as an owner types them; and killed while they do."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from closedloop import first_start, project
from closedloop.cli import app
from closedloop.settings import Settings
from closedloop.storage import Stores, open_stores, tables
from demo.installation import CHECKOUT
from tests.conftest import KEY, SECRET, START
from tests.integration.earlier import NOON, Make, boxes, everything, lay, manifest, picks, rows, selection

Run = Callable[..., dict[str, Any]]

# Runs a command, but kills it around the n-th time that something is stored or committed.
DYING = """
import os, signal
from closedloop.storage.objects import Objects
from closedloop.storage.database import Database
left = {count}
def dying(call, before):
    def instead(*arguments, **named):
        global left
        left -= 1
        if before and left <= 0: os.kill(os.getpid(), signal.SIGKILL)
        made = call(*arguments, **named)
        if left <= 0: os.kill(os.getpid(), signal.SIGKILL)
        return made
    return instead
Objects.put = dying(Objects.put, {before})
import closedloop.storage.sets as sets
sets.{last} = dying(sets.{last}, {before})
from closedloop.cli import app
app({words!r})
"""


@pytest.fixture
def stores(tmp_path: Path, s3: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    """An installation with one project of sets, that commands find by the environment."""
    monkeypatch.chdir(tmp_path)
    env = {
        "CLOSEDLOOP_HOME": str(tmp_path / "home"),
        "S3_ENDPOINT_URL": s3[0],
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "CLOSEDLOOP_OWNER_PASSWORD": "a long test password",
        "CLOSEDLOOP_DEFAULT_PROJECT": "none",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    made = open_stores(Settings())  # type: ignore[call-arg]
    made.objects.make_buckets()
    first_start.prepare(made, Settings(), START)  # type: ignore[call-arg]
    project.add(made, selection("best"), START)
    yield made
    made.db.close()


def command(*words: str) -> dict[str, Any]:
    """What a command says with `--json`."""
    done = CliRunner().invoke(app, [*words, "--json"])
    said = json.loads(done.stdout)
    assert said["ok"] == (done.exit_code == 0)
    return said


def in_words(*words: str) -> str:
    done = CliRunner().invoke(app, [*words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_project_s_rows_come_in(stores: Stores, tmp_path: Path, picture: Make) -> None:
    root = str(lay(tmp_path / "root", picture, ["a.png", "b.png", "c.png"]))
    file = str(
        picks(tmp_path / "p.csv", [("s", "1", "a.png", "b.png", NOON), ("s", "2", "a.png", "no.png", "2025-06-01")])
    )
    nothing = everything(stores)
    dry = command("import-selections", "best", file, "--root", root, "--dry-run")
    assert everything(stores) == nothing
    said = command("import-selections", "best", file, "--root", root)
    assert said == {
        "ok": True,
        "dry_run": False,
        "rows": 2,
        "added": 1,
        "known": 0,
        "refused": [{"line": 3, "code": "missing_file", "reason": f'There is no file "no.png" in {root}.'}],
        "refused_count": 1,
        "refused_by_reason": {"missing_file": 1},
        "refused_file": None,
        "by_project": {"best": {"added": 1, "known": 0}},
        "times_without_zone": 0,
        "columns_not_read": [],
    }
    assert dry == {**said, "dry_run": True}
    words = in_words("import-selections", "best", file, "--root", root)
    assert words.splitlines() == [
        "✓ 0 picks added, 1 were there already, 1 refused.",
        f'  line 3: There is no file "no.png" in {root}.',
    ]


def test_crops_and_sets_come_in_too(stores: Stores, tmp_path: Path, picture: Make) -> None:
    root = lay(tmp_path / "root", picture, ["one/a.png", "one/b.png", "two/c.png"])
    file = str(boxes(tmp_path / "c.csv", [("s", "one/a.png", 0, 0, 0.5, 1, "2025-06-01 12:00:00")]))
    words = in_words("import-crops", "best", file, "--root", str(root), "--dry-run")
    assert words.splitlines() == [
        "Nothing was written: 1 crop would be added, 0 are there already, 0 would be refused.",
        "  Without a zone, taken as UTC: 1 time.",
    ]
    assert command("import-crops", "best", file, "--root", str(root))["added"] == 1
    assert command("import-sets", "best", str(root), "--dry-run")["added"] == 1
    assert rows(stores, tables.sets) == []
    refused = tmp_path / "refused.csv"
    said = command("import-sets", "best", str(root), "--refused", str(refused))
    assert (said["added"], said["refused"][0]["name"], said["refused_file"]) == (1, "two", str(refused))
    assert refused.read_text().splitlines() == ["name,reason", "two,A set has 2 to 12 pictures; this one has 1."]


def test_manifests_make_projects_and_rows_find_them(stores: Stores, tmp_path: Path, picture: Make) -> None:
    root = lay(tmp_path / "root", picture, ["mojo1/a.png", "mojo1/b.png", "mojo10/a.png", "unknown/a.png"])
    manifest(tmp_path / "m", "mojo1", "Mojo", "2025-01-01T00:00:00Z", None)
    manifest(tmp_path / "m", "mojo10", "Mojo", "2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z")
    (tmp_path / "m" / "broken.json").write_text("{")
    table = [
        ("s", "1", "mojo1/a.png", "mojo1/b.png", NOON),
        ("s", "2", "mojo1/a.png", "mojo10/a.png", NOON),
        ("s", "3", "unknown/a.png", "mojo1/b.png", NOON),
    ]
    words = [
        "import-selections",
        str(picks(tmp_path / "p.csv", table)),
        "--root",
        str(root),
        "--manifests",
        str(tmp_path / "m"),
    ]
    nothing = everything(stores)
    dry = command(*words, "--dry-run")
    assert everything(stores) == nothing
    said = command(*words)
    assert dry == {**said, "dry_run": True}
    assert [refusal["code"] for refusal in said["refused"]] == ["mixed_set", "fits_no_project"]
    assert [(one["project"], one["state"]) for one in said["projects"]] == [("mojo1", "new"), ("mojo10", "new")]
    assert [one["name"] for one in said["manifests_refused"]] == ["broken.json"]
    assert {one.id for one in project.all_projects(stores)} == {"best", "mojo1", "mojo10"}
    assert {row.project_id for row in rows(stores, tables.images)} == {"mojo1"}
    assert "  mojo1: 0 added, 1 known" in in_words(*words).splitlines()


def test_what_cannot_be_done_is_said_and_makes_no_project(stores: Stores, tmp_path: Path, picture: Make) -> None:
    root = str(lay(tmp_path / "root", picture, ["mojo1/a.png"]))
    manifest(tmp_path / "m", "mojo1", "Mojo", "2025-01-01T00:00:00Z", None)
    good, bad = str(picks(tmp_path / "p.csv", [])), str(tmp_path / "bad.csv")
    Path(bad).write_text("a,b\n")
    many = ["--manifests", str(tmp_path / "m")]
    for words, code in (
        (["best", bad, "--root", root], "unusable_table"),
        (["unknown", good, "--root", root], "unknown_project"),
        (["best", good, "--root", str(tmp_path / "none")], "bad_request"),
        ([good, "--root", root], "bad_request"),
        (["best", good, "--root", root, *many], "bad_request"),
        ([bad, "--root", root, *many], "unusable_table"),
        ([good, "--root", str(tmp_path / "none"), *many], "bad_request"),
        ([good, "--root", root, "--manifests", str(tmp_path / "none")], "bad_request"),
        (["best", good, "--root", root, "--refused", str(tmp_path / "no" / "where.csv")], "bad_request"),
    ):
        assert command("import-selections", *words)["code"] == code, words
    assert [one.id for one in project.all_projects(stores)] == ["best"]


def test_very_many_refusals_are_counted_and_written(stores: Stores, tmp_path: Path, picture: Make) -> None:
    root = str(lay(tmp_path / "root", picture, ["a.png"]))
    file = str(picks(tmp_path / "p.csv", [("s", str(n), "a.png", "no.png" if n % 3 else "", NOON) for n in range(300)]))
    said = command("import-selections", "best", file, "--root", root)
    assert (said["refused_count"], len(said["refused"])) == (300, 100)
    assert said["refused_by_reason"] == {"missing_file": 200, "imported_set_size": 100}
    assert said["refused_file"] == f"{file}.refused.csv"
    assert len(Path(said["refused_file"]).read_text().splitlines()) == 301
    words = in_words("import-selections", "best", file, "--root", root, "--dry-run")
    assert "… 300 in all: 200 missing file, 100 imported set size" in words
    assert "--refused FILE writes all of them." in words


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("what", ["selections", "crops"])
def test_killed_in_the_middle_it_is_run_again_and_all_is_there_once(
    stores: Stores, tmp_path: Path, picture: Make, count: int, before: bool, what: str
) -> None:
    root = lay(tmp_path / "root", picture, ["a.png", "b.png", "c.png"])
    if what == "selections":
        file = picks(tmp_path / "p.csv", [("s", "1", "a.png", "b.png", NOON), ("s", "2", "b.png", "c.png", NOON)])
        table, last = tables.logged_picks, "add_pick"
    else:
        file = boxes(tmp_path / "c.csv", [("s", name, 0, 0, 0.5, 1, NOON) for name in ("a.png", "b.png", "c.png")])
        table, last = tables.logged_crops, "add_crop"
    words = [f"import-{what}", "best", str(file), "--root", str(root), "--json"]
    code = DYING.format(count=count, before=before, last=last, words=words)
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, cwd=CHECKOUT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = len(rows(stores, table))
    said = command(*words[:-1])
    assert (said["added"], said["known"], said["refused_count"]) == (said["rows"] - kept, kept, 0)
    assert len(rows(stores, table)) == said["rows"]
    assert len(rows(stores, tables.images)) == 3
    assert all(stores.objects.exists(row.key) for row in rows(stores, tables.images))
    assert len(stores.objects.list("production/best")) == 3
    if what == "selections":
        assert (len(rows(stores, tables.sets)), len(rows(stores, tables.set_pictures))) == (2, 4)
        assert rows(stores, tables.outbox) == []


def test_the_examples_of_the_docs_come_in(stores: Stores, tmp_path: Path, picture: Make) -> None:
    text = (CHECKOUT / "docs" / "importing.md").read_text()
    tables_of_docs = [block for block in text.split("```") if block.strip().startswith("session_id")]
    (described,) = (block.removeprefix("json") for block in text.split("```") if block.startswith("json"))
    monday = [f"mojo1/monday/{n}.jpg" for n in (1, 2, 3)]
    root = lay(tmp_path / "pictures", picture, [*monday, "mojo1/tuesday/a.png", "mojo1/tuesday/b.png"])
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "mojo1.json").write_text(described)
    added = []
    for name, table in zip(("selections", "crops"), tables_of_docs, strict=True):
        (tmp_path / f"{name}.csv").write_text(table.strip())
        many = ["--manifests", str(tmp_path / "manifests")]
        said = command(f"import-{name}", str(tmp_path / f"{name}.csv"), "--root", str(root), *many)
        added.append((said["added"], said["refused"], said["times_without_zone"]))
    assert added == [(2, [], 0), (1, [], 0)]
    assert command("import-sets", "mojo1", str(root / "mojo1"))["known"] == 2
    for words in ("import-sets", "import-selections", "import-crops", "--dry-run", "--refused", "--manifests"):
        assert words in text
    for words in ("0 picks added, 1 were there already, 1 refused.", "There is no file"):
        assert words in text
