"""When work is due."""

import datetime as dt

import pytest

from closedloop.schedule import is_due, parse_cron

NIGHT = "0 3 * * *"


def at(hour: int, minute: int = 0, day: int = 1, second: int = 0) -> dt.datetime:
    return dt.datetime(2026, 5, day, hour, minute, second, tzinfo=dt.UTC)


def test_once_a_day_at_its_hour_also_when_the_machine_slept_through_it():
    assert not is_due(NIGHT, at(3), at(23))
    assert is_due(NIGHT, at(3), at(3, day=2))
    assert is_due(NIGHT, at(2), at(17, day=4))


def test_what_never_ran_is_due():
    assert is_due(NIGHT, None, at(12))


def test_six_fields_begin_with_seconds():
    assert is_due("*/5 * * * * *", at(1), at(1, second=5))
    assert not is_due("*/5 * * * * *", at(1), at(1, second=4))


@pytest.mark.parametrize("text", ["", "* * *", "60 * * * *", "* * * * 0", "a b c d e", "* * * * * * *"])
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_cron(text)


def test_weekdays_have_names():
    assert is_due("0 3 * * mon", at(4, day=1), at(3, day=4))  # 4 May 2026 is a Monday
