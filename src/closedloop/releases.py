"""Candidate -> live -> retired: which releases there are, which one stays, and the way back.

`gate.py` decides who goes live.
"""

import datetime as dt
from typing import Any

from closedloop import installations
from closedloop.errors import (
    AmbiguousRelease,
    CannotPin,
    NothingToRollBack,
    NotPinned,
    Pinned,
    ReleaseChanged,
    UnknownRelease,
)
from closedloop.storage import Stores, installation, registry


def listing(stores: Stores, project_id: str) -> list[dict[str, Any]]:
    """All releases of a project, oldest first, with the gate's numbers."""
    with stores.db.read() as tx:
        rows = registry.releases_of(tx, project_id)
        pins = registry.pins_of(tx, project_id)
    return [
        {
            "release": row["id"],
            "head": row["head"],
            "state": row["state"],
            "pinned": pins.get(row["head"]) == row["id"],
            "reason": row["reason"],
            "answers": row["card"]["dataset"]["items"],
            **_measured(row["card"]["metrics"]),
            "gate": row["card"]["gate"],
            "created_at": row["created_at"].isoformat(),
            "went_live_at": row["went_live_at"].isoformat() if row["went_live_at"] else None,
        }
        for row in rows
    ]


def _measured(metrics: dict[str, Any]) -> dict[str, Any]:
    """What a release's quality is called, how good it is with its 95 % interval; of a classifier as `accuracy`, too.

    Cards of former versions know accuracy alone.
    """
    accuracy = {name: metrics[name] for name in ("accuracy", "accuracy_95") if name in metrics}
    value, interval = metrics.get("value", metrics.get("accuracy")), metrics.get("value_95", metrics.get("accuracy_95"))
    return {"measure": metrics.get("measure", "accuracy"), "value": value, "value_95": interval, **accuracy}


def find(stores: Stores, name: str, project_id: str | None = None, head: str | None = None) -> Any:
    """The record of a release by its name, or by PROJECT/HEAD/NAME where more than one have it.

    Raises UnknownRelease or AmbiguousRelease.
    """
    *path, id_ = name.split("/")
    if len(path) == 2:
        project_id, head = path
    with stores.db.read() as tx:
        found = [
            row
            for row in registry.releases_named(tx, id_)
            if project_id in (None, row["project_id"]) and head in (None, row["head"])
        ]
    if not found or len(path) not in (0, 2):
        raise UnknownRelease(release=name[:100])
    if len(found) > 1:
        names = ", ".join(f"{row['project_id']}/{row['head']}/{row['id']}" for row in found)
        raise AmbiguousRelease(release=name, names=names)
    return found[0]


def pin(stores: Stores, project_id: str, head: str, release_id: str, by: str, now: dt.datetime) -> str | None:
    """Keep a release live whatever candidates come, putting it back if it is not; returns the one that it replaces.

    Raises UnknownRelease, or CannotPin for one that the gate refused or that another encoder's embeddings want.
    """
    with stores.db.write() as tx:
        installation.lock_project(tx, project_id)
        found = [row for row in registry.releases_of(tx, project_id) if (row["head"], row["id"]) == (head, release_id)]
        if not found:
            raise UnknownRelease(release=release_id[:100])
        chosen = installations.chosen_encoder_now(tx)
        if found[0]["state"] == "refused":
            raise CannotPin(release=release_id, reason="the gate refused it")
        if chosen is None or chosen.digest != found[0]["encoder"]:
            raise CannotPin(release=release_id, reason="it was trained on another encoder's embeddings")
        live = registry.live_release(tx, project_id, head)
        registry.pin(tx, {"project_id": project_id, "head": head, "release_id": release_id, "by": by, "at": now})
        if live and live["id"] == release_id:
            return None
        came = f"pinned in place of {live['id']}" if live else "pinned"
        registry.go_live(tx, project_id, head, release_id, now, f"{release_id} was pinned", came)
    return live["id"] if live else None


def unpin(stores: Stores, project_id: str, head: str) -> None:
    """Let candidates that pass the gate go live again; raises NotPinned."""
    with stores.db.write() as tx:
        if not registry.unpin(tx, project_id, head):
            raise NotPinned(project=project_id, head=head)


def earlier(stores: Stores, project_id: str, head: str) -> str | None:
    """The release that `rollback` would put back, None where there is none or the live one is pinned."""
    with stores.db.read() as tx:
        live = registry.live_release(tx, project_id, head)
        held = registry.pinned(tx, project_id, head)
        found = live and not held and registry.earlier_release(tx, project_id, head, live["number"], live["encoder"])
    return found["id"] if found else None


def rollback(
    stores: Stores, project_id: str, head: str, now: dt.datetime, expected: str | None = None
) -> tuple[str, str]:
    """Put the earlier release of a head back; returns (the one that goes, the one that comes).

    Only a release that fits the encoder in use can answer. Raises NothingToRollBack, Pinned, or ReleaseChanged where
    another one than `expected` is live.
    """
    with stores.db.write() as tx:
        installation.lock_project(tx, project_id)
        live = registry.live_release(tx, project_id, head)
        earlier = live and registry.earlier_release(tx, project_id, head, live["number"], live["encoder"])
        if not live or not earlier:
            raise NothingToRollBack(project=project_id, head=head)
        if expected and live["id"] != expected:
            raise ReleaseChanged(live=live["id"], expected=expected)
        if registry.pinned(tx, project_id, head):
            raise Pinned(release=live["id"], project=project_id)
        went, came = f"rolled back to {earlier['id']}", f"put back in place of {live['id']}"
        registry.go_live(tx, project_id, head, earlier["id"], now, went, came)
    return live["id"], earlier["id"]
