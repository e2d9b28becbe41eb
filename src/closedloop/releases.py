"""Candidate -> live -> retired: which releases there are, and the way back. `gate.py` decides who goes live."""

import datetime as dt
from typing import Any

from closedloop.errors import NothingToRollBack, ReleaseChanged
from closedloop.storage import Stores, installation, registry


def listing(stores: Stores, project_id: str) -> list[dict[str, Any]]:
    """All releases of a project, oldest first, with the gate's numbers."""
    with stores.db.read() as tx:
        rows = registry.releases_of(tx, project_id)
    return [
        {
            "release": row["id"],
            "head": row["head"],
            "state": row["state"],
            "reason": row["reason"],
            "answers": row["card"]["dataset"]["items"],
            "accuracy": row["card"]["metrics"]["accuracy"],
            "accuracy_95": row["card"]["metrics"]["accuracy_95"],
            "gate": row["card"]["gate"],
            "created_at": row["created_at"].isoformat(),
            "went_live_at": row["went_live_at"].isoformat() if row["went_live_at"] else None,
        }
        for row in rows
    ]


def earlier(stores: Stores, project_id: str, head: str) -> str | None:
    """The release that `rollback` would put back, None where there is none."""
    with stores.db.read() as tx:
        live = registry.live_release(tx, project_id, head)
        found = live and registry.earlier_release(tx, project_id, head, live["number"], live["encoder"])
    return found["id"] if found else None


def rollback(
    stores: Stores, project_id: str, head: str, now: dt.datetime, expected: str | None = None
) -> tuple[str, str]:
    """Put the earlier release of a head back; returns (the one that goes, the one that comes).

    Only a release that fits the encoder in use can answer. Raises NothingToRollBack, or ReleaseChanged where another
    one than `expected` is live.
    """
    with stores.db.write() as tx:
        installation.lock_project(tx, project_id)
        live = registry.live_release(tx, project_id, head)
        earlier = live and registry.earlier_release(tx, project_id, head, live["number"], live["encoder"])
        if not live or not earlier:
            raise NothingToRollBack(project=project_id, head=head)
        if expected and live["id"] != expected:
            raise ReleaseChanged(live=live["id"], expected=expected)
        registry.go_live(tx, project_id, head, earlier["id"], now, f"rolled back to {earlier['id']}")
    return live["id"], earlier["id"]
