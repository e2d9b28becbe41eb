"""Pictures are made ready and looked at in order, by cores that wait for nobody, and not where nobody wants it any more."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_api.workers import GRID, LOOK, Workers

from closedloop.errors import BrokenPicture, TooLate
from closedloop.models.backends import FP32
from tests.waiting import wait_for

NEVER = float("inf")
GPU = "hand"


class Tower:
    """Says each picture's first pixel; while it is shut, a pass waits."""

    def __init__(self, name: str = GPU, lanes: int = 1, shapes: tuple[int, ...] = (1, 4)) -> None:
        self.name, self.lanes, self.shapes = name, lanes, shapes
        self.passes: list[list[int]] = []
        self.by_lane: list[bool] = []
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def look(self, pixels: np.ndarray, lane: bool) -> tuple[np.ndarray, np.ndarray]:
        self.passes.append([int(value) for value in pixels[:, 0, 0, 0]])
        self.by_lane.append(lane)
        self.entered.release()
        assert self.open.wait(20)
        if 99 in pixels[:, 0, 0, 0]:
            raise RuntimeError("it fell")
        return pixels[:, 0, 0, :2].astype(np.float32), pixels[:, 0, 0, 1:].astype(np.float32)

    def grid(self, pixels: np.ndarray, lane: bool) -> np.ndarray:
        self.passes.append([1000 + int(value) for value in pixels[:, 0, 0, 0]])
        self.by_lane.append(lane)
        return pixels.astype(np.float32)


def opened(tower: Tower) -> Tower:
    tower.open.set()
    return tower


def picture(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


class Slow:
    """A picture that is made ready as soon as it may."""

    def __init__(self, value: int) -> None:
        self.value, self.begun, self.may = value, threading.Event(), threading.Event()

    def __call__(self) -> np.ndarray:
        self.begun.set()
        assert self.may.wait(20)
        return picture(self.value)


@pytest.fixture
def workers() -> Iterator[Workers]:
    yield from running(2)


@pytest.fixture
def worker() -> Iterator[Workers]:
    """One, so that there is an order."""
    yield from running(1)


def running(count: int) -> Iterator[Workers]:
    some = Workers(count)
    some.start()
    yield some
    some.stop()


def ask(workers: Workers, tower: Tower, value: Any, way: str | None = LOOK, **asked: Any) -> "Future[Any]":
    prepare = value if callable(value) else lambda: picture(value)
    return workers.submit(tower, way, prepare, **{"deadline": NEVER, **asked})  # type: ignore[arg-type]


def occupied(workers: Workers, tower: Tower) -> "Future[Any]":
    """A pass that has begun and does not end before the tower is opened."""
    first = ask(workers, tower, 0)
    assert tower.entered.acquire(timeout=20)
    return first


@pytest.mark.parametrize("tower", [Tower(), Tower(FP32), Tower(FP32, 2)], ids=["GPU", "processor", "lanes"])
def test_who_is_alone_waits_for_nobody(workers: Workers, tower: Tower) -> None:
    vector, texture = ask(workers, opened(tower), 7).result(20)
    assert (vector.tolist(), texture.tolist()) == ([7, 7], [7, 7])
    assert (tower.passes, tower.by_lane) == ([[7]], [False])


@pytest.mark.parametrize("name", [GPU, FP32])
def test_what_came_meanwhile_is_looked_at_together_in_shapes_that_the_tower_knows(worker: Workers, name: str) -> None:
    tower, told = Tower(name), list[int]()
    worker.passes = told.append
    first = occupied(worker, tower)
    others = [ask(worker, tower, value) for value in range(1, 7)]
    if name == GPU:  # it is made ready beside the pass
        wait_for(lambda: not worker._first.fresh, 20, "all to be made ready")
    tower.open.set()
    assert [int(one.result(20)[0][0]) for one in [first, *others]] == [0, 1, 2, 3, 4, 5, 6]
    assert tower.passes == [[0], [1, 2, 3, 4], [5], [6]]
    assert told == [1, 4, 1, 1]
    both = worker.preparing, worker.looking
    assert min(both) > 0
    assert worker.seconds == (max(both) if name == GPU else sum(both))  # a GPU looks while the others are made ready


def test_as_many_as_there_are_cores_are_looked_at_beside_each_other(workers: Workers) -> None:
    tower, slow = Tower(FP32, lanes=2), [Slow(1), Slow(2)]
    asked = [ask(workers, tower, one) for one in slow]
    for one in slow:
        assert one.begun.wait(20)
    for one in slow:
        one.may.set()
        assert tower.entered.acquire(timeout=20)  # the second, while the first is looked at
    assert sorted(tower.passes) == [[1], [2]]
    assert tower.by_lane == [True, True]
    tower.open.set()
    for one in asked:
        one.result(20)


def test_a_lane_takes_several_where_many_wait_and_one_after_the_other_where_few_do(worker: Workers) -> None:
    tower, told, slow = opened(Tower(FP32, lanes=2)), list[str](), Slow(0)
    worker.passes = lambda count: told.append(f"looked at {count}")

    def said(value: int) -> np.ndarray:
        told.append(f"ready {value}")
        return picture(value)

    asked = [ask(worker, tower, slow), *(ask(worker, tower, lambda v=value: said(v)) for value in range(1, 8))]
    assert slow.begun.wait(20)
    slow.may.set()
    for one in asked:
        one.result(20)
    one_by_one = [text for value in range(4, 8) for text in (f"ready {value}", "looked at 1")]
    assert told == ["ready 1", "ready 2", "ready 3", "looked at 4", *one_by_one]


@pytest.mark.parametrize("lanes", [1, 2])
def test_while_all_cores_look_at_one_nothing_else_begins(workers: Workers, lanes: int) -> None:
    tower, other = Tower(FP32, lanes), Slow(1)
    first = occupied(workers, tower)
    assert tower.by_lane == [False]
    second = ask(workers, tower, other)
    assert not other.begun.wait(0.1)
    tower.open.set()
    assert other.begun.wait(20)
    other.may.set()
    assert (int(first.result(20)[0][0]), int(second.result(20)[0][0])) == (0, 1)


def test_a_tower_without_lanes_waits_until_the_cores_are_free(workers: Workers) -> None:
    tower, slow = opened(Tower(FP32, shapes=(1,))), Slow(1)
    asked = [ask(workers, tower, slow)]
    assert slow.begun.wait(20)
    asked.append(ask(workers, tower, 2))
    wait_for(lambda: len(workers._first.ready) == 1, 20, "the second to be ready")
    third = Slow(3)
    asked.append(ask(workers, tower, third))
    assert not third.begun.wait(0.1)  # nothing new begins before the pass that is due
    assert not tower.passes
    slow.may.set()
    third.may.set()
    for one in asked:
        one.result(20)


def test_a_gpu_takes_no_core_from_who_makes_ready(worker: Workers) -> None:
    tower, other = Tower(), Slow(1)
    occupied(worker, tower)
    ask(worker, tower, other)
    assert other.begun.wait(20)
    other.may.set()
    tower.open.set()


@pytest.mark.parametrize("name", [GPU, FP32])
def test_single_requests_come_before_batches_and_ways_do_not_mix(worker: Workers, name: str) -> None:
    tower = Tower(name)
    first = occupied(worker, tower)
    later = [ask(worker, tower, value, later=True) for value in (50, 51)]
    grids = [ask(worker, tower, value, GRID) for value in (1, 2, 3, 4)]
    looks = [ask(worker, tower, value) for value in (5, 6, 7, 8)]
    if name == GPU:
        wait_for(lambda: not worker._first.fresh and not worker._later.fresh, 20, "all to be made ready")
    tower.open.set()
    for one in (first, *later, *grids, *looks):
        one.result(20)
    assert tower.passes == [[0], [1001, 1002, 1003, 1004], [5, 6, 7, 8], [50], [51]]
    assert grids[2].result()[0].shape == (2, 2, 3)


@pytest.mark.parametrize("name", [GPU, FP32])
def test_nobody_looks_for_who_has_left_or_is_too_late(worker: Workers, name: str) -> None:
    tower = Tower(name)
    first = occupied(worker, tower)
    late = ask(worker, tower, lambda: pytest.fail("made ready"), deadline=time.monotonic() - 1)
    left, stays = ask(worker, tower, 2), ask(worker, tower, 3)
    assert left.cancel()
    assert not first.cancel()  # it is being looked at
    tower.open.set()
    assert int(stays.result(20)[0][0]) == 3
    with pytest.raises(TooLate):
        late.result(20)
    with pytest.raises(CancelledError):
        left.result(20)
    assert tower.passes == [[0], [3]]


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("name", [GPU, FP32])
def test_one_bad_pass_is_told_to_its_askers_and_the_next_goes_on(workers: Workers, name: str, lanes: int) -> None:
    tower = opened(Tower(name, lanes))
    with pytest.raises(RuntimeError, match="fell"):
        ask(workers, tower, 99).result(20)
    assert int(ask(workers, tower, 1).result(20)[0][0]) == 1


def test_a_tower_that_says_too_little_is_told_of_and_the_next_is_answered(workers: Workers) -> None:
    tower = opened(Tower(FP32, 2))
    whole = tower.look
    tower.look = lambda pixels, lane: tuple(of[1:] for of in whole(pixels, lane))  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="0 things of 1"):
        ask(workers, tower, 1).result(20)
    tower.look = whole  # type: ignore[method-assign]
    assert int(ask(workers, tower, 2).result(20)[0][0]) == 2


def test_what_was_answered_or_refused_is_not_kept(workers: Workers) -> None:
    tower, gpu = opened(Tower(FP32, 2)), opened(Tower())
    held = [weakref.ref(tower), weakref.ref(gpu)]

    def one(value: int, tower: Tower) -> Exception | None:
        data = np.full(1000, value)  # as the bytes of a picture
        held.append(weakref.ref(data))

        def prepare() -> np.ndarray:
            if data[0] == 2:
                raise BrokenPicture
            return picture(int(data[0]))

        return ask(workers, tower, prepare).exception(20)

    gc.disable()
    try:
        for of in (tower, gpu):
            assert one(1, of) is None
            assert isinstance(one(2, of), BrokenPicture)
            assert isinstance(one(99, of), RuntimeError)
        del tower, gpu, of
        wait_for(lambda: not [ref for ref in held[2:] if ref() is not None], 5, "bytes to be let go of")
    finally:
        gc.enable()
    gc.collect()
    wait_for(lambda: not [ref for ref in held if ref() is not None], 5, "towers to be let go of")


def test_what_cannot_be_made_ready_is_told_and_what_is_only_checked_is_not_looked_at(workers: Workers) -> None:
    tower = opened(Tower(FP32, 2))

    def broken() -> np.ndarray:
        raise BrokenPicture

    with pytest.raises(BrokenPicture):
        ask(workers, tower, broken).result(20)
    with pytest.raises(BrokenPicture):
        ask(workers, tower, broken, None).result(20)
    assert ask(workers, tower, 1, None).result(20) == ()
    assert not tower.passes


def test_towers_are_not_mixed_while_one_follows_another(workers: Workers) -> None:
    former, new = Tower(), Tower()
    first = occupied(workers, former)
    asked = [ask(workers, tower, value) for value, tower in enumerate((former, new, former, new), 1)]
    new.open.set()
    former.open.set()
    for one in (first, *asked):
        one.result(20)
    assert sorted(value for batch in former.passes for value in batch) == [0, 1, 3]
    assert sorted(value for batch in new.passes for value in batch) == [2, 4]


@pytest.mark.parametrize("name", [GPU, FP32])
def test_the_end_waits_for_what_was_asked(name: str) -> None:
    some, tower = Workers(2), Tower(name, 2)
    some.start()
    first = occupied(some, tower)
    asked = [ask(some, tower, value) for value in range(1, 6)]
    tower.open.set()
    some.stop()
    assert all(future.done() for future in (first, *asked))


@given(
    st.lists(
        st.tuples(st.sampled_from(["stays", "leaves", "late"]), st.booleans(), st.sampled_from([LOOK, GRID])),
        max_size=30,
    ),
    st.builds(
        Tower, st.sampled_from([GPU, FP32]), st.integers(1, 3), st.sampled_from([(1,), (1, 2), (1, 4), (1, 2, 8)])
    ),
    st.integers(1, 3),
)
def test_everyone_gets_his_own_answer_once(plan: list[tuple[str, bool, str]], tower: Tower, count: int) -> None:
    workers = Workers(count)
    workers.start()
    first = occupied(workers, tower)
    asked = []
    for value, (fate, later, way) in enumerate(plan, 1):
        one = ask(workers, tower, value, way, later=later, deadline=0.0 if fate == "late" else NEVER)
        if fate == "leaves":
            one.cancel()
        asked.append(one)
    tower.open.set()
    workers.stop()
    first.result(0)
    looked = [value % 1000 for batch in tower.passes for value in batch]
    assert sorted(looked) == [0, *(value for value, (fate, _, _) in enumerate(plan, 1) if fate == "stays")]
    assert {len(batch) for batch in tower.passes} <= set(tower.shapes)
    for value, ((fate, _, way), one) in enumerate(zip(plan, asked, strict=True), 1):
        if fate == "stays":
            assert int(one.result(0)[0].ravel()[0]) == value
            assert len(one.result(0)) == (2 if way == LOOK else 1)
        elif fate == "late":
            with pytest.raises(TooLate):
                one.result(0)
