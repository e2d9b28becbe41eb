"""A thread that looks at the records again and again; a look that fails is said once, and the next one follows."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from closedloop.errors import ClosedloopError
from closedloop.logs import get_logger
from closedloop.storage import Stores

LOOK_EVERY = 2.0  # s


class Watcher(ABC):
    """Whoever keeps something in step with the records."""

    def __init__(self, name: str, stores: Callable[[], Stores]) -> None:
        """`stores` opens them; it is asked again until it can."""
        self._name, self._open_stores = name, stores
        self._stores: Stores | None = None
        self._why: str | None = None  # the last look failed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join(timeout=10)

    @abstractmethod
    def look(self, stores: Stores) -> None:
        """Compare the records with what there is, and make up for the difference. Whatever it raises is said."""

    def looked(self, why: str | None) -> None:
        """Called after each look: why it failed, None where it did not."""
        self._why = why

    def _run(self) -> None:
        while not self._over.is_set():
            why = None
            try:
                self._stores = self._stores or self._open_stores()
                self.look(self._stores)
            except ClosedloopError as error:
                why = error.explained()
                self._say(why)
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                self._say(why, error)
            self.looked(why)
            self._over.wait(LOOK_EVERY)

    def _say(self, why: str, unexpected: Exception | None = None) -> None:
        if why != self._why:
            get_logger().warning("records not read", watcher=self._name, reason=why, exc_info=unexpected)
