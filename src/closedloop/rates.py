"""How often somebody may do something, counted in SQL, so that all web workers count together."""

import datetime as dt
from dataclasses import dataclass

from closedloop.errors import TooManyRequests
from closedloop.storage import Stores, people

LONGEST = dt.timedelta(hours=1)  # no limit has longer windows


@dataclass(frozen=True)
class Limit:
    """At most `times` within `seconds`."""

    times: int
    seconds: int


def take(stores: Stores, key: str, limit: Limit, now: dt.datetime, times: int = 1) -> None:
    """Count so many more for `key`; raises TooManyRequests where that is more than the limit, or DatabaseAway.

    A sliding window of two counters: the window before counts for the part of it that lies within the last `seconds`.
    What is refused is counted, too: who goes on asking goes on waiting.
    """
    start = dt.datetime.fromtimestamp(now.timestamp() // limit.seconds * limit.seconds, dt.UTC)
    window = dt.timedelta(seconds=limit.seconds)
    into = (now - start) / window
    with stores.db.write() as tx:
        count = people.count(tx, key, start, times)
        before = people.counted(tx, key, start - window)
    if count + before * (1 - into) > limit.times:
        raise TooManyRequests(seconds=max(1, round((1 - into) * limit.seconds)))


def forget(stores: Stores, now: dt.datetime) -> None:
    """Drop the counters that no limit looks at any more."""
    with stores.db.write() as tx:
        people.forget_counts(tx, now - 2 * LONGEST)
