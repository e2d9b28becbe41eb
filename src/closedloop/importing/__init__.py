"""Bringing earlier work in: answered pictures, sets, which picture of a set was picked, and how pictures were cropped.

Whatever comes, each picture, set or row is kept in one transaction, so an import can be stopped and run again: what is
there is passed over. What cannot be used is refused with its reason, and the rest is kept.
"""

from closedloop.importing.labelled import Imported, find, run

__all__ = ["Imported", "find", "run"]
