"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import Any


def wait_for(true: Callable[[], Any], seconds: float, what: str | Callable[[], str], every: float = 0.2) -> Any:
    """Wait until something is true and return it; `what` says, or is asked in the end, what did not come."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}"
        time.sleep(every)
    return value
