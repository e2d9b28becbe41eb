"""What was promised inside a transaction and happens after it: answers for kept pictures, task files, removals.

Each entry is done at least once and every deed is safe to repeat. One entry that fails is tried again when it is twice
as old, and never holds up another: however many samplers try it, and whatever else kept it before.
"""

import datetime as dt
from collections.abc import Callable

from closedloop import crops, prediction, removal, sets, tasks, tracking
from closedloop.errors import DatabaseAway, InferenceAway, StoreAway
from closedloop.inference import Inference
from closedloop.logs import get_logger
from closedloop.storage import Stores, asking

BATCH = 200  # entries of a kind in a round
SLOW, FEW = ("suggest", "propose"), 20  # kinds that may come by thousands and take a second each, and how many at once
SHORTEST_WAIT = dt.timedelta(seconds=1)
NOT_YET = dt.timedelta(seconds=3)  # for what waits for another entry
SHORT_WAIT = dt.timedelta(seconds=10)  # for a part that is away: it comes back for all at once
LONGEST_WAIT = dt.timedelta(minutes=5)


def work(stores: Stores, inference: Inference, clock: Callable[[], dt.datetime]) -> int:
    """Do what is due of every kind, the oldest first; returns how many entries were done. Raises DatabaseAway."""
    with stores.db.read() as tx:
        entries = asking.due(tx, clock(), BATCH, SLOW, FEW)
    count = 0
    away: set[str] = set()  # kinds whose part does not answer: the others go on
    for entry in entries:
        kind, ref = entry["kind"], entry["ref"]
        if kind in away:
            continue
        try:
            if kind == "predict":
                prediction.answer_pending(stores, inference, ref, clock())
            elif kind == "suggest":
                sets.suggest(stores, inference, ref, clock())
            elif kind == "propose":
                crops.propose(stores, inference, ref, clock())
            elif kind == "deliver":
                tasks.deliver(stores, ref, clock())
            elif kind == "tidy":
                prediction.tidy(stores, ref)
            elif kind == "remove":
                removal.sweep(stores, ref)
            elif kind == "forget":
                stores.objects.remove(ref)
            elif kind == "track":
                tracking.write_again(stores, ref)
            with stores.db.write() as tx:
                asking.done(tx, entry["id"], clock())
            count += 1
        except tasks.NotYet:
            _put_off(stores, entry, clock(), NOT_YET, "its picture waits for an answer")
        except (InferenceAway, StoreAway) as error:
            # It is the part that fails, not the entry: all of its kind wait for the next round, soon.
            away.add(kind)
            _put_off(stores, entry, clock(), SHORT_WAIT, str(error))
        except DatabaseAway:
            raise
        except Exception as error:
            get_logger().exception("outbox entry failed", kind=kind, ref=ref)
            _put_off(stores, entry, clock(), LONGEST_WAIT, f"{type(error).__name__}: {error}"[:2000])
    return count


def _put_off(stores: Stores, entry: asking.sa.RowMapping, now: dt.datetime, longest: dt.timedelta, why: str) -> None:
    wait = min(longest, max(SHORTEST_WAIT, now - entry["created_at"]))
    with stores.db.write() as tx:
        asking.put_off(tx, entry["id"], now + wait, why)
