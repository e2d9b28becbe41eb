"""What waits for the tower is gathered while it is busy, and looked at together; when it is idle, nothing waits.

A tower on the processor and decoding take turns: at the same time each would only take the cores from the other.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from closedloop.errors import TooLate
from closedloop.models.backends import ON_PROCESSOR, Tower

REMEMBERED = 0.9  # of what was known of the tower's pace, when it has looked once more

LOOK, GRID = "look", "grid"  # the ways to use a tower: names of its methods


@dataclass(eq=False)
class _Waiting:
    """One picture before the tower."""

    tower: Tower
    way: str
    pixels: np.ndarray
    deadline: float  # `time.monotonic()`
    seen: "Future[tuple[np.ndarray, ...]]" = field(default_factory=Future)


class Batcher:
    """A thread that feeds towers, one pass after the other.

    A pass takes as many as wait, in shapes that the tower knows; pictures of single requests before those of batches.
    What nobody wants any more (its future was cancelled) or what is too late is not looked at.
    """

    def __init__(self) -> None:
        self.passes: Callable[[int], None] = lambda count: None  # told how many pictures each pass looked at
        self.seconds = 0.0  # that a picture takes in the tower, of late
        self.resting = threading.Event()  # cleared while a pass takes the processor: decoding begins afterwards
        self.resting.set()
        self._coming = 0  # pictures that are being decoded, or wait for it
        self._first: deque[_Waiting] = deque()
        self._later: deque[_Waiting] = deque()
        self._change = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="tower", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look at what waits, then end."""
        with self._change:
            self._over = True
            self._change.notify()
        self._thread.join()

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """While a picture is made ready, until it is submitted: a pass may be worth waiting for it."""
        with self._change:
            self._coming += 1
        try:
            yield
        finally:
            with self._change:
                self._coming -= 1
                self._change.notify()

    def submit(
        self, tower: Tower, way: str, pixels: np.ndarray, deadline: float, later: bool = False
    ) -> "Future[tuple[np.ndarray, ...]]":
        """Have one picture, uint8 (side, side, 3), looked at: what the way says of it, without the first dimension.

        The future raises TooLate, or whatever the tower raised; cancelled in time, it costs no pass.
        """
        one = _Waiting(tower, way, pixels, deadline)
        with self._change:
            (self._later if later else self._first).append(one)
            self._change.notify()
        return one.seen

    def waiting(self) -> int:
        """How many pictures wait for a tower."""
        return len(self._first) + len(self._later)

    def _run(self) -> None:
        while batch := self._next():
            started = time.perf_counter()
            if batch[0].tower.name in ON_PROCESSOR:
                self.resting.clear()
            try:
                said = getattr(batch[0].tower, batch[0].way)(np.stack([one.pixels for one in batch]))
                rows = list(zip(*said, strict=True)) if isinstance(said, tuple) else [(row,) for row in said]
            except Exception as error:  # whoever asked is told
                for one in batch:
                    one.seen.set_exception(error)
                continue
            finally:
                self.resting.set()
            took = (time.perf_counter() - started) / len(batch)
            self.seconds = REMEMBERED * self.seconds + (1 - REMEMBERED) * took if self.seconds else took
            self.passes(len(batch))
            for one, row in zip(batch, rows, strict=True):
                one.seen.set_result(row)

    def _next(self) -> list[_Waiting]:
        """The pictures of the next pass; none when it is over."""
        with self._change:
            while True:
                self._gather()
                for queue in (self._first, self._later):
                    while queue:
                        if batch := self._taken(queue):
                            return batch
                if self._over:
                    return []
                self._change.wait()

    def _gather(self) -> None:
        """Let what is being decoded join what waits, on a processor that does both in turn: for each one more as long
        as a picture takes in the tower, so that no wait costs more than being alone could.
        """
        while waiting := self.waiting():
            tower = (self._first or self._later)[0].tower
            if tower.name not in ON_PROCESSOR or waiting >= tower.shapes[-1] or not self._coming or self._over:
                return
            if not self._change.wait(self.seconds):
                return

    def _taken(self, queue: deque[_Waiting]) -> list[_Waiting]:
        """The first that is still wanted, and others for the same tower, as many as it takes at once."""
        alike: list[_Waiting] = []
        others: list[_Waiting] = []
        now = time.monotonic()
        while queue and (not alike or len(alike) < alike[0].tower.shapes[-1]):
            one = queue.popleft()
            if one.seen.cancelled():
                continue
            if one.deadline < now:
                if one.seen.set_running_or_notify_cancel():
                    one.seen.set_exception(TooLate())
            elif not alike or (one.tower is alike[0].tower and one.way == alike[0].way):
                alike.append(one)
            else:
                others.append(one)
        count = max(shape for shape in alike[0].tower.shapes if shape <= len(alike)) if alike else 0
        queue.extendleft(reversed(alike[count:] + others))
        return [one for one in alike[:count] if one.seen.set_running_or_notify_cancel()]
