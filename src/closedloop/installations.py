"""What an installation chose once and keeps: its encoder. Only `closedloop encoder use` changes it."""

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

from closedloop.errors import NoEncoderYet
from closedloop.storage import Stores, installation

ASKED_FOR = "was asked for by"  # in the reason of a choice that somebody made: he knows, and nobody else need
_ENCODER = "encoder"


@dataclass(frozen=True)
class ChosenEncoder:
    """The encoder of this installation: its name, the digest of its weights, and why it is this one."""

    name: str
    digest: str
    dimension: int
    knows_words: bool
    reason: str
    chosen_at: str

    def as_json(self) -> dict[str, Any]:
        """For pages, `/v1/releases` and `doctor`."""
        return asdict(self)


def chosen_encoder(stores: Stores) -> ChosenEncoder | None:
    """The recorded choice; None before the first start of the inference service."""
    with stores.db.read() as tx:
        return chosen_encoder_now(tx)


def chosen_encoder_now(tx: Any) -> ChosenEncoder | None:
    """The recorded choice as a transaction sees it."""
    value = installation.recall(tx, _ENCODER)
    return ChosenEncoder(**value) if value else None


def encoder(stores: Stores) -> ChosenEncoder:
    """The recorded choice; raises NoEncoderYet."""
    chosen = chosen_encoder(stores)
    if chosen is None:
        raise NoEncoderYet
    return chosen


def choose_encoder(tx: Any, choice: ChosenEncoder, now: dt.datetime) -> None:
    """Record the choice, in the transaction that makes releases for it live."""
    installation.remember(tx, _ENCODER, choice.as_json(), now)
