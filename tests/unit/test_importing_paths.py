"""A path of a table is the exact name of a file below the root, and of none elsewhere."""

import os
from pathlib import Path

import pytest

from closedloop.errors import BadRequest, ClosedloopError, MissingFile, UnusablePath
from closedloop.importing.paths import Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    for name in ("root/mojo1/07/a.png", "root/mojo10/a.png", "root/top.png", "elsewhere/secret.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    folder = tmp_path / "root"
    (folder / "mojo1" / "out.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (folder / "mojo1" / "other.png").symlink_to(folder / "mojo10" / "a.png")
    (folder / "mojo1" / "same.png").symlink_to(folder / "mojo1" / "07" / "a.png")
    (folder / "mojo2").symlink_to(folder / "mojo1")
    (folder / "circle").symlink_to(folder / "circle")
    os.mkfifo(folder / "mojo1" / "pipe")
    return Root(folder)


def test_a_file_is_found_with_its_first_folder(root: Root) -> None:
    assert [root.find(name).folder for name in ("mojo1/07/a.png", "mojo10/a.png", "top.png")] == [
        "mojo1",
        "mojo10",
        None,
    ]
    assert root.find("mojo1/same.png").real == root.find("mojo1/07/a.png").real


@pytest.mark.parametrize(
    "name",
    [
        "mojo1/07/aa.png",
        "mojo1/07/A.png",
        "Mojo1/07/a.png",
        "mojo/07/a.png",
        "mojo1",
        "mojo1/pipe",
        " top.png",
        "top.png ",
        "circle",
        "circle/a.png",
        "a\0b",
        "\ud800",
        "x" * 5000,
        "mojo1\\07\\a.png",
        "~/a.png",
    ],
)
def test_names_match_exactly(root: Root, name: str) -> None:
    with pytest.raises(MissingFile) as caught:
        root.find(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "empty"),
        ("/etc/hostname", "absolute"),
        ("C:\\a.png", "absolute"),
        ("\\\\server\\a.png", "absolute"),
        ("../elsewhere/secret.png", '".."'),
        ("mojo1/../top.png", '".."'),
        ("./top.png", "exactly"),
        ("mojo1//07/a.png", "exactly"),
        ("mojo1/out.png", "out of the root"),
        ("mojo1/other.png", "into another folder"),
        ("mojo2/07/a.png", "into another folder"),
    ],
)
def test_a_path_that_leaves_its_place_is_refused(root: Root, name: str, said: str) -> None:
    with pytest.raises(UnusablePath, match=said):
        root.find(name)


def test_the_root_itself_may_be_a_link(root: Root, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root.folder)
    assert Root(tmp_path / "link").find("mojo1/07/a.png").folder == "mojo1"


def test_a_root_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no folder"):
        Root(tmp_path / "nothing")
    assert issubclass(BadRequest, ClosedloopError)
