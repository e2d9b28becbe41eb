"""What waits for a tower is looked at together, in order, and not at all where nobody wants it any more."""

import threading
import time
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_api.batching import GRID, LOOK, Batcher

from closedloop.errors import TooLate
from closedloop.models.backends import REFERENCE

NEVER = float("inf")


class Tower:
    """Says each picture's first pixel; while it is shut, a pass waits."""

    name = "hand"

    def __init__(self, shapes: tuple[int, ...] = (1, 4)) -> None:
        self.shapes = shapes
        self.passes: list[list[int]] = []
        self.open = threading.Event()
        self.entered = threading.Event()

    def look(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.passes.append([int(value) for value in pixels[:, 0, 0, 0]])
        self.entered.set()
        assert self.open.wait(20)
        if 99 in self.passes[-1]:
            raise RuntimeError("it fell")
        return pixels[:, 0, 0, :2].astype(np.float32), pixels[:, 0, 0, 1:].astype(np.float32)

    def grid(self, pixels: np.ndarray) -> np.ndarray:
        self.passes.append([1000 + int(value) for value in pixels[:, 0, 0, 0]])
        return pixels.astype(np.float32)


def picture(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


@pytest.fixture
def batcher():
    one = Batcher()
    one.start()
    yield one
    one.stop()


def ask(batcher: Batcher, tower: Tower, value: int, way: str = LOOK, **asked: Any) -> "Future[tuple[np.ndarray, ...]]":
    return batcher.submit(tower, way, picture(value), **{"deadline": NEVER, **asked})  # type: ignore[arg-type]


def occupied(batcher: Batcher, tower: Tower) -> "Future[tuple[np.ndarray, ...]]":
    """A pass that has begun and does not end before the tower is opened."""
    first = ask(batcher, tower, 0)
    assert tower.entered.wait(20)
    return first


def test_an_idle_tower_waits_for_nobody(batcher: Batcher) -> None:
    tower = Tower()
    tower.open.set()
    vector, texture = ask(batcher, tower, 7).result(20)
    assert (vector.tolist(), texture.tolist()) == ([7, 7], [7, 7])
    assert tower.passes == [[7]]


def test_what_came_meanwhile_is_looked_at_together_in_shapes_that_the_tower_knows(batcher: Batcher) -> None:
    tower = Tower()
    told: list[int] = []
    batcher.passes = told.append
    first = occupied(batcher, tower)
    others = [ask(batcher, tower, value) for value in range(1, 7)]
    tower.open.set()
    assert [int(one.result(20)[0][0]) for one in [first, *others]] == [0, 1, 2, 3, 4, 5, 6]
    assert tower.passes == [[0], [1, 2, 3, 4], [5], [6]]
    assert told == [1, 4, 1, 1]
    assert batcher.seconds > 0


def test_single_requests_come_before_batches_and_ways_do_not_mix(batcher: Batcher) -> None:
    tower = Tower()
    first = occupied(batcher, tower)
    later = [ask(batcher, tower, value, later=True) for value in (50, 51)]
    grids = [ask(batcher, tower, value, GRID) for value in (1, 2, 3, 4)]
    looks = [ask(batcher, tower, value) for value in (5, 6, 7, 8)]
    tower.open.set()
    for one in (first, *later, *grids, *looks):
        one.result(20)
    assert tower.passes == [[0], [1001, 1002, 1003, 1004], [5, 6, 7, 8], [50], [51]]
    assert grids[2].result()[0].shape == (2, 2, 3)


def test_nobody_looks_for_who_has_left_or_is_too_late(batcher: Batcher) -> None:
    tower = Tower()
    first = occupied(batcher, tower)
    late = ask(batcher, tower, 1, deadline=time.monotonic() - 1)
    left, stays = ask(batcher, tower, 2), ask(batcher, tower, 3)
    assert left.cancel()
    assert not first.cancel()  # it is being looked at
    tower.open.set()
    assert int(stays.result(20)[0][0]) == 3
    with pytest.raises(TooLate):
        late.result(20)
    with pytest.raises(CancelledError):
        left.result(20)
    assert tower.passes == [[0], [3]]


def test_one_bad_pass_is_told_to_its_askers_and_the_next_goes_on(batcher: Batcher) -> None:
    tower = Tower()
    tower.open.set()
    with pytest.raises(RuntimeError, match="fell"):
        ask(batcher, tower, 99).result(20)
    assert int(ask(batcher, tower, 1).result(20)[0][0]) == 1


def on_processor(shapes: tuple[int, ...] = (1, 4)) -> Tower:
    """An open tower that takes the cores that decode."""
    tower = Tower(shapes)
    tower.name = REFERENCE
    tower.open.set()
    return tower


def test_on_a_processor_a_pass_waits_for_what_is_being_decoded_but_not_for_more_than_it_takes(batcher: Batcher) -> None:
    tower = on_processor()
    batcher.seconds = 20.0
    with batcher.coming():
        asked = [ask(batcher, tower, value) for value in (1, 2, 3)]
        time.sleep(0.1)
        assert tower.passes == []
        asked.append(ask(batcher, tower, 4))
        for one in asked:
            one.result(5)
        batcher.seconds = 20.0
        last = ask(batcher, tower, 5)
        time.sleep(0.1)
        assert not last.done()
    last.result(5)  # nothing comes any more
    assert tower.passes == [[1, 2, 3, 4], [5]]


def test_it_waits_as_long_as_a_picture_takes_and_no_longer(batcher: Batcher) -> None:
    tower = on_processor()
    batcher.seconds = 0.01
    with batcher.coming():
        ask(batcher, tower, 1).result(5)


def test_a_tower_that_has_a_device_of_its_own_waits_for_no_decoding(batcher: Batcher) -> None:
    tower = Tower()
    tower.open.set()
    batcher.seconds = 20.0
    with batcher.coming():
        ask(batcher, tower, 1).result(5)


@pytest.mark.parametrize(("name", "rests"), [(REFERENCE, False), (Tower.name, True)])
def test_decoding_begins_after_a_pass_that_takes_its_cores(batcher: Batcher, name: str, rests: bool) -> None:
    tower = Tower()
    tower.name = name
    first = occupied(batcher, tower)
    assert batcher.resting.is_set() == rests
    tower.open.set()
    first.result(20)
    assert batcher.resting.wait(5)


def test_decoding_begins_after_a_pass_that_fell(batcher: Batcher) -> None:
    with pytest.raises(RuntimeError, match="fell"):
        ask(batcher, on_processor(), 99).result(20)
    assert batcher.resting.wait(5)


def test_towers_are_not_mixed_while_one_follows_another(batcher: Batcher) -> None:
    former, new = Tower(), Tower()
    first = occupied(batcher, former)
    asked = [ask(batcher, tower, value) for value, tower in enumerate((former, new, former, new), 1)]
    new.open.set()
    former.open.set()
    for one in (first, *asked):
        one.result(20)
    assert sorted(value for batch in former.passes for value in batch) == [0, 1, 3]
    assert sorted(value for batch in new.passes for value in batch) == [2, 4]


def test_the_end_waits_for_what_was_asked() -> None:
    one, tower = Batcher(), Tower()
    one.start()
    first = occupied(one, tower)
    asked = [ask(one, tower, value) for value in range(1, 6)]
    tower.open.set()
    one.stop()
    assert all(future.done() for future in (first, *asked))


@given(
    st.lists(
        st.tuples(st.sampled_from(["stays", "leaves", "late"]), st.booleans(), st.sampled_from([LOOK, GRID])),
        max_size=30,
    ),
    st.sampled_from([(1,), (1, 2), (1, 4), (1, 2, 8)]),
)
def test_everyone_gets_his_own_answer_once(plan: list[tuple[str, bool, str]], shapes: tuple[int, ...]) -> None:
    batcher, tower = Batcher(), Tower(shapes)
    batcher.start()
    first = occupied(batcher, tower)
    asked = []
    for value, (fate, later, way) in enumerate(plan, 1):
        one = ask(batcher, tower, value, way, later=later, deadline=0.0 if fate == "late" else NEVER)
        if fate == "leaves":
            one.cancel()
        asked.append(one)
    tower.open.set()
    batcher.stop()
    first.result(0)
    looked = [value % 1000 for batch in tower.passes for value in batch]
    assert sorted(looked) == [0, *(value for value, (fate, _, _) in enumerate(plan, 1) if fate == "stays")]
    assert {len(batch) for batch in tower.passes} <= set(shapes)
    for value, ((fate, _, way), one) in enumerate(zip(plan, asked, strict=True), 1):
        if fate == "stays":
            assert int(one.result(0)[0].ravel()[0]) == value
            assert len(one.result(0)) == (2 if way == LOOK else 1)
        elif fate == "late":
            with pytest.raises(TooLate):
                one.result(0)
