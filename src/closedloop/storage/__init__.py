"""The only I/O of the loop: objects in S3 (`objects.py`), records in SQL (the other modules)."""

from dataclasses import dataclass

from closedloop.settings import Settings
from closedloop.storage.database import Database
from closedloop.storage.objects import Objects


@dataclass(frozen=True)
class Stores:
    """Where pictures and records are: handed to whatever reads or writes them."""

    db: Database
    objects: Objects


def open_stores(settings: Settings) -> Stores:
    """Open the records and the objects that the settings name. Connects at first use."""
    return Stores(Database(settings.database_url), Objects.from_settings(settings))
