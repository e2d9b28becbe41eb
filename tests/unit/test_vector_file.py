"""Vectors on disk: the nearest are those that brute force finds, whatever was added, removed, torn or started anew."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inference_api import vector_file
from inference_api.vector_file import VectorFile

DIMENSION = 8


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return vector / np.linalg.norm(vector)


def name(seed: int) -> str:
    return f"{seed:032x}"


def add(file: VectorFile, seeds: list[int]) -> None:
    file.add([name(seed) for seed in seeds], np.stack([unit(seed) for seed in seeds]))


def brute(seeds: set[int], query: np.ndarray, count: int) -> list[tuple[str, float]]:
    found = sorted(((float(unit(seed) @ query), seed) for seed in seeds), reverse=True)[:count]
    return [(name(seed), cosine) for cosine, seed in found]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 60), min_size=1, max_size=20, unique=True)),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 60), max_size=10)),
        st.tuples(st.just("reopen"), st.just([])),
    ),
    max_size=12,
)


@given(STEPS, st.integers(1000, 1100), st.integers(1, 70))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_nearest_are_those_of_brute_force(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[int]]], query: int, count: int
) -> None:
    place = tmp_path_factory.mktemp("vectors") / "pets"
    file, there = VectorFile(place, DIMENSION), set[int]()
    for step, seeds in steps:
        if step == "add":
            if new := [seed for seed in seeds if seed not in there]:
                add(file, new)
            there |= set(seeds)
        elif step == "remove":
            file.remove([name(seed) for seed in seeds])
            there -= set(seeds)
        else:
            holes = file._used - len(file)
            forgotten = holes > vector_file.HOLES * file._used
            file.close()
            file = VectorFile(place, DIMENSION)
            if forgotten and not len(file):
                there = set()
        assert file.ids() == {name(seed) for seed in there}
        found = file.nearest(unit(query), count)
        wanted = brute(there, unit(query), count)
        assert [one.image_id for one in found] == [id_ for id_, _ in wanted]
        assert [one.similarity for one in found] == pytest.approx([cosine for _, cosine in wanted], abs=1e-6)
    file.close()


def test_a_row_that_a_power_cut_left_half_written_is_forgotten(tmp_path: Path) -> None:
    file = VectorFile(tmp_path / "pets", DIMENSION)
    add(file, list(range(20)))
    file.close()
    with (tmp_path / "pets.vectors").open("r+b") as numbers:
        numbers.seek(7 * 4 * DIMENSION)
        numbers.write(bytes(2 * DIMENSION))
    file = VectorFile(tmp_path / "pets", DIMENSION)
    assert file.ids() == {name(seed) for seed in range(20) if seed != 7}
    assert name(7) not in [one.image_id for one in file.nearest(unit(7), 20)]
    add(file, [7])
    assert file.nearest(unit(7), 1)[0].image_id == name(7)


def test_on_a_full_disk_nothing_is_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = VectorFile(tmp_path / "pets", DIMENSION)
    add(file, [1, 2])
    write = os.pwrite

    def full(*given: Any) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no space"):
        add(file, [3])
    assert [one.image_id for one in file.nearest(unit(1), 9)] == [id_ for id_, _ in brute({1, 2}, unit(1), 9)]
    monkeypatch.setattr(os, "pwrite", write)
    add(file, [3])
    assert file.nearest(unit(3), 1)[0].image_id == name(3)


def test_a_file_with_many_holes_is_made_anew(tmp_path: Path) -> None:
    file = VectorFile(tmp_path / "pets", DIMENSION)
    add(file, list(range(100)))
    file.remove([name(seed) for seed in range(50)])
    file.close()
    assert len(VectorFile(tmp_path / "pets", DIMENSION)) == 0
