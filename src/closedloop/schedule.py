"""When scheduled work is due, and the clock that looks. A job's last run lies in SQL, so a restart skips nothing."""

import datetime as dt
from collections.abc import Callable, Mapping

from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.cron import CronTrigger

from closedloop.errors import ClosedloopError
from closedloop.logs import bind_request_id, get_logger

Job = Callable[[], None]


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


def run_jobs(every: Mapping[Job, int], clock: Callable[[], dt.datetime]) -> None:
    """Run each job every so many seconds, never twice at once, until the process is told to stop."""
    scheduler = BlockingScheduler(timezone=dt.UTC, job_defaults={"coalesce": True, "max_instances": 1})
    for job, seconds in every.items():
        scheduler.add_job(_said(job), "interval", seconds=seconds, next_run_time=clock(), misfire_grace_time=None)
    scheduler.start()


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
            fault = str(error)
            if fault != last:
                get_logger().warning("job failed", job=job.__name__, reason=fault)
        except Exception as error:
            fault = repr(error)
            if fault != last:
                get_logger().exception("job failed", job=job.__name__)
        last = fault

    return run
