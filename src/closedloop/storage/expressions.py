"""SQL that the two databases must be told in different words."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class UTCDay(FunctionElement[str]):
    """The day of a moment in UTC. Postgres would take the zone of the session."""

    inherit_cache = True


@compiles(UTCDay)
def _of_text(element: UTCDay, compiler: Any, **options: Any) -> str:
    return f"date({compiler.process(element.clauses, **options)})"


@compiles(UTCDay, "postgresql")
def _of_moment(element: UTCDay, compiler: Any, **options: Any) -> str:
    return f"date({compiler.process(element.clauses, **options)} AT TIME ZONE 'UTC')"


class Unindexed(FunctionElement[Any]):
    """A column whose index SQLite must not take: it knows no statistics, and would prefer it to the one that sorts."""

    inherit_cache = True

    def __init__(self, column: sa.Column[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(Unindexed)
def _as_it_is(element: Unindexed, compiler: Any, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(Unindexed, "sqlite")
def _with_a_plus(element: Unindexed, compiler: Any, **options: Any) -> str:
    return "+" + compiler.process(element.clauses, **options)
