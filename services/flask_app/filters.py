"""The filter of the list of pictures, as its form sends it and an address keeps it."""

import datetime as dt
from collections.abc import Sequence

from flask import request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from closedloop.catalogue import NEWEST, ORDERS, Filter
from closedloop.errors import BadRequest
from closedloop.project import CLASSIFICATION, Project
from closedloop.queues import CROP
from flask_app.texts import fault_text, text

BY_TIME = ("newest", "oldest")  # of ORDERS


class Query(BaseModel):
    """The filter's form, as it stands in the address; an empty field is none."""

    model_config = ConfigDict(extra="ignore")
    label: str | None = None
    answer: str | None = None
    at_least: float | None = Field(None, ge=0, le=100)  # percent
    at_most: float | None = Field(None, ge=0, le=100)
    queue: str | None = None
    flagged: bool | None = None
    answered: bool | None = None
    disagrees: bool | None = None
    since: dt.date | None = Field(None, ge=dt.date(1970, 1, 1), le=dt.date(2999, 12, 31))
    until: dt.date | None = Field(None, ge=dt.date(1970, 1, 1), le=dt.date(2999, 12, 31))
    order: str = NEWEST
    zone: int = Field(0, ge=-14 * 60, le=14 * 60)  # min that the visitor's clock is behind UTC, as browsers say it

    def filter(self) -> Filter:
        """The filter; days begin and end at the visitor's midnight."""
        return Filter(
            label=self.label,
            answer=self.answer,
            at_least=None if self.at_least is None else self.at_least / 100,
            at_most=None if self.at_most is None else self.at_most / 100,
            queue=self.queue,
            flagged=self.flagged,
            answered=self.answered,
            disagrees=self.disagrees,
            since=self._midnight(self.since, 0),
            until=self._midnight(self.until, 1),
        )

    def _midnight(self, day: dt.date | None, later: int) -> dt.datetime | None:
        if day is None:
            return None
        start = dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(days=later)
        return start + dt.timedelta(minutes=self.zone)


class Faults(Exception):
    """What is wrong with a form, by field."""

    def __init__(self, by_field: dict[str, str]) -> None:
        self.by_field = by_field

    def refusal(self) -> BadRequest:
        """All of them in one error, for a program."""
        return BadRequest(reason="; ".join(f"{name}: {said.removesuffix('.')}" for name, said in self.by_field.items()))


def queues_of(project: Project) -> Sequence[str]:
    """The queues in which a picture by itself is asked about."""
    return project.queues if project.kind == CLASSIFICATION else (CROP,)


def orders_of(project: Project) -> Sequence[str]:
    """The orders that make sense: of a set's pictures, none has a confidence of its own."""
    return ORDERS if project.kind == CLASSIFICATION else BY_TIME


def asked(project: Project) -> Query:
    """What the request asks for; raises Faults."""
    given = {name: value for name, value in request.args.items() if value and name in Query.model_fields}
    faults: dict[str, str] = {}
    try:
        query = Query.model_validate(given)
    except ValidationError as error:
        faults = {str(fault["loc"][0]): fault_text(fault) for fault in error.errors()}
        raise Faults(faults) from None
    for name, known in (
        ("label", project.classes),
        ("answer", project.classes),
        ("queue", queues_of(project)),
        ("order", orders_of(project)),
    ):
        value = getattr(query, name)
        if value is not None and value not in known:
            faults[name] = text("images.unknown", value=value[:100])
    if faults:
        raise Faults(faults)
    return query
