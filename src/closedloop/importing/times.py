"""Moments as earlier work wrote them."""

import datetime as dt
import re
from dataclasses import dataclass

from closedloop.errors import UnusableTime
from closedloop.importing.refusals import quoted


@dataclass(frozen=True)
class Moment:
    """A moment in UTC, and whether its zone was not said: then it is taken as UTC."""

    at: dt.datetime
    without_zone: bool = False


def read(text: str) -> Moment:
    """ISO 8601 ("2026-01-31T12:00:00+01:00"), or seconds (9, 10 digits) or milliseconds (12, 13) since 1970.

    Raises UnusableTime.
    """
    text = text.strip()
    try:
        if number := re.fullmatch(r"([0-9]{9,10}|[0-9]{12,13})(\.[0-9]+)?", text):
            seconds = float(text) / (1000 if len(number[1]) > 10 else 1)
            return Moment(dt.datetime.fromtimestamp(seconds, dt.UTC))
        moment = dt.datetime.fromisoformat(re.sub(r" ?UTC$", "+00:00", text))
        if moment.tzinfo is None:
            return Moment(moment.replace(tzinfo=dt.UTC), without_zone=True)
        return Moment(moment.astimezone(dt.UTC))
    except (ValueError, OverflowError):
        raise UnusableTime(text=quoted(text)) from None


def said(moment: dt.datetime) -> str:
    """As a reason names it."""
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
