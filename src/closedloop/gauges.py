"""What the records and a process's own checks say, as Prometheus gauges that are read anew at every look.

A look neither fails nor hangs: what cannot be read in time is left out, and is back when its part is.
"""

import datetime as dt
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from closedloop import project as projects
from closedloop.errors import ClosedloopError
from closedloop.health import PATIENCE, InTime, Readiness
from closedloop.logs import get_logger
from closedloop.storage import Stores, asking, pictures, registry
from closedloop.votes import USABLE

OUTBOX_KINDS = ("predict", "suggest", "propose", "deliver", "tidy")
RELEASE = ("project", "head", "release")
T = TypeVar("T")


class Ready(Collector):
    """`closedloop_ready`: 1 for each check of `/readyz` that passes, 0 for one that fails or takes too long."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def collect(self) -> Iterator[Metric]:
        """Run every check."""
        ready = GaugeMetricFamily("closedloop_ready", "Whether a check of /readyz passes.", labels=["check"])
        for name, fault in self._readiness.faults().items():
            ready.add_metric([name], 0 if fault else 1)
        yield ready


class Named(Collector):
    """An info gauge, 1 for each that is named, such as releases; what no longer is, is gone at the next look."""

    def __init__(
        self, name: str, text: str, read: Callable[[], Iterable[tuple[str, ...]]], labels: tuple[str, ...] = RELEASE
    ) -> None:
        self._name, self._text, self._read, self._labels = name, text, read, labels

    def collect(self) -> Iterator[Metric]:
        """Read which they are."""
        info = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for labels in _or_nothing(self._read, ()):
            info.add_metric(labels, 1)
        yield info


class Disk(Collector):
    """How full the disk is on which a folder lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Ask the file system."""
        size = GaugeMetricFamily("closedloop_disk_size_bytes", "Size of the disk on which the state folder lies.")
        free = GaugeMetricFamily("closedloop_disk_free_bytes", "What is free of it.")
        try:
            usage = shutil.disk_usage(self._folder)
        except OSError:
            pass  # no folder, no sample
        else:
            size.add_metric([], usage.total)
            free.add_metric([], usage.free)
        yield from (size, free)


class Loop(Collector):
    """Where the loop's work stands, from the records: tasks per queue, pictures that wait, the outbox, live releases.

    Every replica of a service that registers it says the same: take the maximum, not the sum.
    """

    def __init__(self, stores: Stores, clock: Callable[[], dt.datetime]) -> None:
        self._stores, self._clock = stores, clock
        self._look = InTime(self._read)

    def describe(self) -> Iterator[Metric]:
        """The metrics without samples."""
        yield from _families().values()

    def collect(self) -> Iterator[Metric]:
        """Read all of it, or name the metrics without samples where that takes too long."""
        yield from _or_nothing(lambda: self._look.start().result(PATIENCE), _families()).values()

    def _read(self) -> dict[str, GaugeMetricFamily]:
        said = _families()

        def age(since: dt.datetime | None) -> float:
            return max(0.0, (now - since).total_seconds()) if since else 0.0

        known = projects.all_projects(self._stores)
        with self._stores.db.read() as tx:
            now = self._clock()
            depths = asking.queue_depths(tx, USABLE)
            undelivered = asking.undelivered(tx)
            waiting = asking.waiting_by_kind(tx, now)
            pending = pictures.waiting_for_an_answer(tx)
            live = registry.live_release_ids(tx)
        # A queue without tasks says 0: on the board "nothing waits" must not look like "nobody knows".
        for labels in sorted({(p.id, queue) for p in known for queue in p.queues} | set(depths) | set(undelivered)):
            at_annotators, answered = depths.get(labels, (0, 0))
            count, since = undelivered.get(labels, (0, None))
            said["closedloop_tasks_waiting"].add_metric(labels, at_annotators)
            said["closedloop_tasks_answered"].add_metric(labels, answered)
            said["closedloop_tasks_undelivered"].add_metric(labels, count)
            said["closedloop_tasks_undelivered_oldest_seconds"].add_metric(labels, age(since))
        for project_id in sorted({p.id for p in known} | set(pending)):
            count, since = pending.get(project_id, (0, None))
            said["closedloop_pictures_pending"].add_metric([project_id], count)
            said["closedloop_pictures_pending_oldest_seconds"].add_metric([project_id], age(since))
        for kind in sorted({*OUTBOX_KINDS, *waiting}):
            count, since = waiting.get(kind, (0, None))
            said["closedloop_outbox_waiting"].add_metric([kind], count)
            said["closedloop_outbox_oldest_seconds"].add_metric([kind], age(since))
        for labels in live:
            said["closedloop_live_release_info"].add_metric(labels, 1)
        return said


def _families() -> dict[str, GaugeMetricFamily]:
    queue = ("project", "queue")
    return {
        name: GaugeMetricFamily(name, text, labels=labels)
        for name, text, labels in (
            ("closedloop_tasks_waiting", "Tasks that were delivered and have no answer yet.", queue),
            ("closedloop_tasks_answered", "Tasks with an answer, `unknown` included.", queue),
            ("closedloop_tasks_undelivered", "Tasks whose file is not in the store yet.", queue),
            ("closedloop_tasks_undelivered_oldest_seconds", "For how long the oldest of them has been due.", queue),
            ("closedloop_pictures_pending", "Pictures kept without a model's answer.", ["project"]),
            ("closedloop_pictures_pending_oldest_seconds", "Age of the oldest of them.", ["project"]),
            ("closedloop_outbox_waiting", "Outbox entries not done yet.", ["kind"]),
            ("closedloop_outbox_oldest_seconds", "Age of the oldest of them.", ["kind"]),
            ("closedloop_live_release_info", "1 for each live release.", RELEASE),
        )
    }


def _or_nothing(read: Callable[[], T], nothing: T) -> T:
    """What can be read now. A part that is away is said by `closedloop_ready`, so it is no news here."""
    try:
        return read()
    except (ClosedloopError, TimeoutError):
        return nothing
    except Exception:
        get_logger().exception("gauges not read")
        return nothing
