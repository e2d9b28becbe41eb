"""Replicas take turns: a scheduled job is done once, by one of them, and by the next if that one dies or fails."""

import datetime as dt
import threading

import pytest

from closedloop import leases, schedule
from closedloop.errors import LeaseLost
from closedloop.storage import Stores

CRON = "*/10 * * * *"


def at(minute: float) -> dt.datetime:
    return dt.datetime(2026, 3, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=minute)


def test_a_job_that_is_due_is_done_once_and_again_when_it_is_due_again(stores: Stores) -> None:
    turns = []
    for minute in (0, 0.1, 5, 10, 10.1, 20):
        with schedule.turn(stores, "job", CRON, lambda m=minute: at(m)) as mine:
            turns.append(mine)
    assert turns == [True, False, False, True, False, True]


def test_while_one_is_at_it_the_others_stand_by(stores: Stores) -> None:
    with schedule.turn(stores, "job", CRON, lambda: at(0)) as first:
        with schedule.turn(stores, "job", CRON, lambda: at(0)) as second:
            pass
        with schedule.turn(stores, "another", CRON, lambda: at(0)) as another:
            pass
    assert (first, second, another) == (True, False, True)


def test_one_that_comes_late_looks_again_whether_the_job_is_still_due(stores: Stores, monkeypatch) -> None:
    held, done = leases.held, threading.Event()

    def slow(stores_: Stores, name: str, clock, patience: float = 0.0):
        if not done.is_set():  # between this one's first look and its lease, another does the whole job
            done.set()
            with schedule.turn(stores, "job", CRON, lambda: at(0)) as quicker:
                assert quicker
        return held(stores_, name, clock, patience)

    monkeypatch.setattr(leases, "held", slow)
    with schedule.turn(stores, "job", CRON, lambda: at(0)) as mine:
        assert not mine


def test_a_job_that_failed_is_still_due(stores: Stores) -> None:
    with pytest.raises(RuntimeError), schedule.turn(stores, "job", CRON, lambda: at(0)):
        raise RuntimeError
    with schedule.turn(stores, "job", CRON, lambda: at(0)) as mine:
        assert mine


def test_one_that_was_paused_finishes_nothing(stores: Stores) -> None:
    with leases.held(stores, "training", lambda: at(0)) as paused:
        with leases.held(stores, "training", lambda: at(1)) as successor, stores.db.write() as tx:
            successor.check(tx)
        with pytest.raises(LeaseLost), stores.db.write() as tx:
            paused.check(tx)
