"""When scheduled work is due, and the clock that looks. A job's last run lies in SQL, so a restart skips nothing."""

import contextlib
import datetime as dt
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from closedloop import leases
from closedloop.errors import ClosedloopError, LeaseTaken
from closedloop.logs import bind_request_id, get_logger
from closedloop.storage import Stores, installation

Job = Callable[[], None]
Clock = Callable[[], dt.datetime]


def parse_cron(text: str) -> CronTrigger:
    """A cron expression in UTC: five fields, or six with seconds first. Raises ValueError with what is wrong.

    Days of the week are written as names (mon-sun), since programs disagree on which day is 0.
    """
    fields = text.split()
    if len(fields) not in (5, 6):
        raise ValueError("a schedule has five fields (minute hour day month weekday), or six with seconds first")
    if any(c.isdigit() for c in fields[-1]):
        raise ValueError("write the day of the week as mon, tue, ... sun")
    names = ("second", "minute", "hour", "day", "month", "day_of_week")[-len(fields) :]
    return CronTrigger(timezone=dt.UTC, **dict(zip(names, fields, strict=True)))


def is_due(cron: str, last: dt.datetime | None, now: dt.datetime) -> bool:
    """Whether a moment of the schedule lies after the last run and not after now; at once where it never ran."""
    if last is None:
        return True
    following = parse_cron(cron).get_next_fire_time(None, last + dt.timedelta(microseconds=1))
    return following is not None and following <= now


@contextlib.contextmanager
def turn(
    stores: Stores, name: str, cron: str, clock: Clock, last: Callable[[Any], dt.datetime | None] | None = None
) -> Iterator[bool]:
    """Whether it is this process's turn at a scheduled job: it is due, and no other process is at it or has done it.

    `last` (transaction -> moment) tells when the job last ran, where it also runs by other ways than this one. A block
    that raises has not run the job.
    """

    def due() -> bool:
        with stores.db.read() as tx:
            ran = last(tx) if last else installation.last_run(tx, name)
        return is_due(cron, ran, clock())

    with contextlib.ExitStack() as stack:
        mine = due()
        if mine:
            try:
                stack.enter_context(leases.held(stores, f"job:{name}", clock))
                mine = due()  # another process may have done it since
            except LeaseTaken:
                mine = False
        yield mine
        if mine:
            with stores.db.write() as tx:
                installation.note_run(tx, name, clock())


def run_jobs(every: Mapping[Job, int], clock: Clock) -> None:
    """Run each job every so many seconds, never twice at once, until the process is told to stop.

    SIGTERM and SIGINT let the jobs under way finish.
    """
    scheduler = BackgroundScheduler(timezone=dt.UTC, job_defaults={"coalesce": True, "max_instances": 1})
    for job, seconds in every.items():
        scheduler.add_job(_said(job), "interval", seconds=seconds, next_run_time=clock(), misfire_grace_time=None)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # waited for, rather than handled in the middle of anything
    scheduler.start()
    signal.sigwait(ends)
    scheduler.shutdown(wait=True)


def _said(job: Job) -> Job:
    """The job, but a fault is said (the same one once) and tried again at the next turn."""
    last = ""

    def run() -> None:
        nonlocal last
        bind_request_id(None)
        fault = ""
        try:
            job()
        except ClosedloopError as error:
            fault = error.explained()
            if fault != last:
                get_logger().warning("job failed", job=job.__name__, reason=fault)
        except Exception as error:
            fault = repr(error)
            if fault != last:
                get_logger().exception("job failed", job=job.__name__)
        last = fault

    return run
