"""A lease: who does a job that must not be done twice at once. It lies in SQL and is renewed while the work goes on.

A holder that is killed loses it after `LENGTH`. One that was only paused notices by the fence (it grows with every new
holder) that it is too late to finish what it began.
"""

import contextlib
import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from closedloop.errors import ClosedloopError, LeaseLost, LeaseTaken
from closedloop.logs import get_logger
from closedloop.storage import Stores, installation

LENGTH = dt.timedelta(seconds=30)
KEPT = dt.timedelta(days=1)  # a free lease's fence: nobody is paused for longer and then goes on


@dataclass(frozen=True)
class Lease:
    """A lease that is held."""

    name: str
    holder: str
    fence: int

    def check(self, tx: Any) -> None:
        """Raise LeaseLost if another holder took over; in the transaction that must not happen twice."""
        if not installation.lease_holds(tx, self.name, self.holder, self.fence):
            raise LeaseLost(name=self.name)


def _take(stores: Stores, name: str, holder: str, clock: Callable[[], dt.datetime]) -> int | None:
    with stores.db.write() as tx:
        return installation.take_lease(tx, name, holder, clock(), clock() + LENGTH)


@contextlib.contextmanager
def held(stores: Stores, name: str, clock: Callable[[], dt.datetime], patience: float = 0.0) -> Iterator[Lease]:
    """Hold a lease while the block runs; raises LeaseTaken where another has it for longer than `patience` seconds."""
    holder = uuid.uuid4().hex
    began = time.monotonic()
    while (fence := _take(stores, name, holder, clock)) is None:
        if time.monotonic() - began >= patience:
            raise LeaseTaken(name=name)
        time.sleep(0.3)
    over = threading.Event()

    def renew() -> None:
        while not over.wait(LENGTH.total_seconds() / 3):
            try:
                _take(stores, name, holder, clock)
            except ClosedloopError as error:
                get_logger().warning("lease not renewed", lease=name, reason=str(error))

    renewer = threading.Thread(target=renew, name=f"lease {name}", daemon=True)
    renewer.start()
    try:
        yield Lease(name, holder, fence)
    finally:
        over.set()
        renewer.join()
        with contextlib.suppress(ClosedloopError), stores.db.write() as tx:
            installation.free_lease(tx, name, holder, clock())


def forget(stores: Stores, now: dt.datetime) -> None:
    """Forget the leases that nobody has had for `KEPT`: each picture that was removed had one."""
    with stores.db.write() as tx:
        installation.forget_leases(tx, now - KEPT)
