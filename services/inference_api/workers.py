"""One worker for each core makes pictures ready and looks at them; a GPU looks while they go on.

Most towers on the processor have as many lanes as there are cores: each core takes pictures for itself, and none waits
for another one. A picture that is alone is looked at by all cores together, which then do nothing else.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from closedloop.errors import TooLate
from closedloop.models.backends import ON_PROCESSOR, Tower, fitting

LOOK, GRID = "look", "grid"  # the ways to use a tower: names of its methods
REMEMBERED = 0.9  # of what was known of the pace, when something was done once more

Seen = tuple[np.ndarray, ...]  # what a way says of one picture, without the first dimension


@dataclass(eq=False)
class _Picture:
    """One that somebody waits for."""

    tower: Tower
    way: str | None
    prepare: Callable[[], np.ndarray | None]
    deadline: float  # `time.monotonic()`
    later: bool
    pixels: np.ndarray = field(default_factory=lambda: np.empty(0))  # once it is ready
    seen: "Future[Seen]" = field(default_factory=Future)

    def is_wanted(self) -> bool:
        """Whether somebody still waits for it; who waits for what is too late is told so."""
        if self.seen.cancelled():
            return False
        if self.deadline < time.monotonic():
            self.fail(TooLate())
            return False
        return True

    def fail(self, error: Exception) -> None:
        """Tell who waits, if anybody does."""
        if self.seen.set_running_or_notify_cancel():
            self.seen.set_exception(error)


@dataclass(frozen=True)
class _Pass:
    """Pictures that a tower looks at together, in a lane or with all cores."""

    pictures: list[_Picture]
    lane: bool


class _Queue:
    """What waits: for a worker, for the processor, for a GPU."""

    def __init__(self) -> None:
        self.fresh: deque[_Picture] = deque()
        self.ready: deque[_Picture] = deque()
        self.for_gpu: deque[_Picture] = deque()

    def __len__(self) -> int:
        return len(self.fresh) + len(self.ready) + len(self.for_gpu)


class Workers:
    """Threads that see to pictures: those of single requests before those of batches.

    What nobody wants any more (its future was cancelled) or what is too late is neither made ready nor looked at.
    """

    def __init__(self, count: int) -> None:
        """`count`: how many, one for each core."""
        self.passes: Callable[[int], None] = lambda count: None  # told how many pictures each pass looked at
        # s for which a picture keeps the machine, of late: before a tower, and in it; and whether both take the cores.
        self.preparing, self.looking = 0.0, 0.0
        self._in_turn = True
        self._count = count
        self._first, self._later = _Queue(), _Queue()
        self._lock = threading.Lock()
        self._for_worker, self._for_gpu = threading.Condition(self._lock), threading.Condition(self._lock)
        self._busy = 0  # workers that do something
        self._looking = 0  # of them, those at a pass
        self._together = False  # all cores are at one pass
        self._over = False
        self._threads = [threading.Thread(target=self._run, args=(self._work,), daemon=True) for _ in range(count)]
        self._threads.append(threading.Thread(target=self._run, args=(self._gpu_work,), daemon=True))

    @property
    def seconds(self) -> float:
        """How long a picture keeps the machine, of late."""
        both = self.preparing, self.looking
        return sum(both) if self._in_turn else max(both)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """See to what waits, then end."""
        with self._lock:
            self._over = True
            self._wake_all()
        for thread in self._threads:
            thread.join()

    def submit(
        self,
        tower: Tower,
        way: str | None,
        prepare: Callable[[], np.ndarray | None],
        deadline: float,
        later: bool = False,
    ) -> "Future[Seen]":
        """Have a picture made ready, which gives uint8 (side, side, 3), and looked at: what the way says of it.

        Without a way it is only made ready. The future raises what `prepare` or the tower raised, or TooLate;
        cancelled in time, it costs nothing.
        """
        one = _Picture(tower, way, prepare, deadline, later)
        with self._lock:
            self._queue(one).fresh.append(one)
            self._for_worker.notify()
        return one.seen

    def waiting(self) -> int:
        """How many pictures wait."""
        return len(self._first) + len(self._later)

    def _run(self, find: Callable[[], "_Picture | _Pass | None"]) -> None:
        while (work := self._next(find)) is not None:
            try:
                if isinstance(work, _Pass):
                    self._look(work)
                else:
                    self._prepare(work)
            finally:
                if find == self._work:
                    self._done(work)
                del work  # while this thread waits, nothing keeps a picture or a tower

    def _done(self, work: "_Picture | _Pass") -> None:
        with self._lock:
            self._busy -= 1
            self._looking -= isinstance(work, _Pass)
            self._together = False
            # The next one is done by who has just finished.
            if sum(len(queue.fresh) + len(queue.ready) for queue in (self._first, self._later)) > 1:
                self._for_worker.notify_all()

    def _next(self, find: Callable[[], "_Picture | _Pass | None"]) -> "_Picture | _Pass | None":
        """What to do next; None when it is over."""
        change = self._for_worker if find == self._work else self._for_gpu
        with self._lock:
            while (work := find()) is None:
                if self._over and not self.waiting() and not self._busy:
                    self._wake_all()
                    return None
                change.wait()
            return work

    def _wake_all(self) -> None:
        self._for_worker.notify_all()
        self._for_gpu.notify_all()

    def _work(self) -> "_Picture | _Pass | None":
        """What a worker does next: a pass where enough is ready for it, or else it makes another picture ready."""
        if self._together:
            return None
        for queue in (self._first, self._later):
            while waiting := len(queue.ready) + len(queue.fresh):
                work: _Picture | _Pass | None = None
                tower = queue.ready[0].tower if queue.ready else None
                # Where few wait, each core looks at one after the other: none has several and another one nothing.
                share = -(-waiting // max(1, tower.lanes - self._looking)) if tower else 0
                if tower and (len(queue.ready) >= fitting(tower, share) or not queue.fresh):
                    together = tower.lanes == 1 or (not self._busy and waiting < tower.lanes)
                    if together and self._busy:
                        return None  # when the others have finished
                    pictures = _taken(queue.ready, share)
                    work = _Pass(pictures, not together) if pictures else None
                    self._together = together and work is not None
                elif (one := queue.fresh.popleft()).is_wanted():
                    work = one
                if work:
                    self._busy += 1
                    self._looking += isinstance(work, _Pass)
                    return work
        return None

    def _gpu_work(self) -> "_Pass | None":
        for queue in (self._first, self._later):
            while queue.for_gpu:
                if pictures := _taken(queue.for_gpu, len(queue.for_gpu)):
                    return _Pass(pictures, lane=False)
        return None

    def _prepare(self, one: _Picture) -> None:
        started = time.perf_counter()
        try:
            pixels = one.prepare()
        except Exception as error:  # whoever asked is told
            one.fail(error)
            del one  # the error leads to this frame, which must not lead to the error
            return
        if one.way is None or pixels is None:
            if one.seen.set_running_or_notify_cancel():
                one.seen.set_result(())
            return
        self.preparing = _learnt(self.preparing, (time.perf_counter() - started) / self._count)
        one.pixels = pixels
        with self._lock:
            if one.tower.name in ON_PROCESSOR:
                self._queue(one).ready.append(one)
            else:
                self._queue(one).for_gpu.append(one)
                self._for_gpu.notify()

    def _look(self, work: _Pass) -> None:
        tower, way, count = work.pictures[0].tower, work.pictures[0].way, len(work.pictures)
        started = time.perf_counter()
        try:
            said = getattr(tower, str(way))(np.stack([one.pixels for one in work.pictures]), work.lane)
            rows = list(zip(*(said if isinstance(said, tuple) else (said,)), strict=True))
            if len(rows) != count:
                raise ValueError(f"the tower said {len(rows)} things of {count} pictures")
            self.passes(count)
        except Exception as error:  # whoever asked is told
            _tell(work.pictures, error)
            return
        self._in_turn = tower.name in ON_PROCESSOR
        of = count * (tower.lanes if work.lane else 1)
        self.looking = _learnt(self.looking, (time.perf_counter() - started) / of)
        for one, row in zip(work.pictures, rows, strict=True):
            one.seen.set_result(row)

    def _queue(self, one: _Picture) -> _Queue:
        return self._later if one.later else self._first


def _tell(pictures: list[_Picture], error: Exception) -> None:
    while pictures:  # none is left in the frame that the error leads to
        pictures.pop().seen.set_exception(error)


def _learnt(known: float, took: float) -> float:
    return REMEMBERED * known + (1 - REMEMBERED) * took if known else took


def _taken(queue: deque[_Picture], most: int) -> list[_Picture]:
    """The first that is still wanted, and others for the same tower, as many as it takes at once, `most` at most."""
    alike: list[_Picture] = []
    others: list[_Picture] = []
    while queue and (not alike or len(alike) < fitting(alike[0].tower, most)):
        one = queue.popleft()
        if one.is_wanted():
            same = not alike or (one.tower is alike[0].tower and one.way == alike[0].way)
            (alike if same else others).append(one)
    count = fitting(alike[0].tower, len(alike)) if alike else 0
    queue.extendleft(reversed(alike[count:] + others))
    return [one for one in alike[:count] if one.seen.set_running_or_notify_cancel()]
