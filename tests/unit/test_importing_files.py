"""Each file is looked at once, however many rows name it, and again if it has changed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from closedloop import image
from closedloop.errors import UnusableFile
from closedloop.importing.files import AT_HAND, Files, read
from closedloop.importing.notebook import Notebook
from closedloop.importing.paths import Root

Make = Callable[..., bytes]


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the files that were decoded."""
    sizes: list[int] = []
    accept = image.accept
    monkeypatch.setattr(image, "accept", lambda data: (sizes.append(len(data)), accept(data))[1])
    return sizes


def test_a_file_is_looked_at_once(tmp_path: Path, picture: Make, looked_at: list[int]) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "same.png").symlink_to(tmp_path / "a.png")
    with Notebook() as notebook:
        files = Files(notebook)
        for name in ("a.png", "same.png", "a.png"):
            assert files.id_of(Root(tmp_path).find(name)) == files.picture(Root(tmp_path).find(name)).id
    assert len(looked_at) == 1


def test_only_some_are_held_and_all_are_remembered(tmp_path: Path, picture: Make, looked_at: list[int]) -> None:
    names = [f"{seed}.png" for seed in range(AT_HAND + 2)]
    for seed, name in enumerate(names):
        (tmp_path / name).write_bytes(picture(seed, size=(16, 12)))
    with Notebook() as notebook:
        files = Files(notebook)
        ids = [files.id_of(Root(tmp_path).find(name)) for name in names * 2]
        assert len(looked_at) == len(names)
        assert ids[: len(names)] == ids[len(names) :]
        files.picture(Root(tmp_path).find(names[0]))
        assert len(looked_at) == len(names) + 1


@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_that_has_changed_is_looked_at_again(tmp_path: Path, picture: Make, same_size: bool) -> None:
    file = tmp_path / "a.png"
    first, second = picture(1), picture(2)
    if same_size:
        longest = max(len(first), len(second))
        first, second = first.ljust(longest, b"\0"), second.ljust(longest, b"\0")
    with Notebook() as notebook:
        files, root = Files(notebook), Root(tmp_path)
        for data, moment in ((first, 1), (second, 2)):
            file.write_bytes(data)
            os.utime(file, ns=(moment, moment))
            assert files.id_of(root.find("a.png")) == image.accept(data).id
            assert files.picture(root.find("a.png")).id == image.accept(data).id


def test_the_reason_fits_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"GIF89a, animated or not")
    with pytest.raises(UnusableFile) as caught:
        read(tmp_path / "a.png", "in/a.png")
    assert str(caught.value) == '"in/a.png": This file is not a JPEG, PNG or WebP picture.'
