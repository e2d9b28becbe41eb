"""What an installation needs before its parts may start, at its first start and after every upgrade."""

import datetime as dt

from closedloop import accounts, catalogue, project
from closedloop.settings import Settings
from closedloop.storage import Stores


def prepare(stores: Stores, settings: Settings, now: dt.datetime) -> str | None:
    """Bring the records up to date; the first time also make the first owner and the default project, if it is known.

    Returns the project's id where it was made. Safe to repeat. Raises MissingSetting, WeakPassword or DatabaseAway.
    """
    stores.db.migrate()
    accounts.make_first_owner(stores, settings, now)
    catalogue.fill(stores)
    return project.make_first(stores, settings.closedloop_default_project, now)
