"""The months of PostgreSQL's payload table: which there are, and making those that come.

`db/migrate.py` makes a year of them with every upgrade; the service warns where the next one is
missing. A row of a month nobody made is kept all the same, in the default partition, and goes to
its month when that is made. SQLite keeps one table and needs none of this.
"""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.tables import prediction_payloads
from cds_service.errors import LogUnavailable

_TABLE = prediction_payloads.name
_REST = f"{_TABLE}_other"
MONTHS_AHEAD = 12
_LOCK_TIMEOUT = "5s"
"""Longest a month waits for readers of the payloads, who wait behind it meanwhile."""
_PARTITIONS = text(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = to_regclass(:parent)"
)


def make_months(engine: Engine, today: dt.date) -> list[str]:
    """Make the partitions of this month and the coming twelve that are missing; their names.

    Rows that went to the default partition meanwhile are taken home. Each month is a transaction of
    its own. Nothing to do on SQLite. Raises SQLAlchemyError.
    """
    made = []
    for first in missing_months(engine, today, ahead=MONTHS_AHEAD):
        with engine.begin() as connection:
            made.append(_make_month(connection, first))
    return made


def missing_months(engine: Engine, today: dt.date, *, ahead: int) -> list[dt.date]:
    """The first days of the months, from this one on, that have no partition.

    Of an older revision, without the table, and of SQLite: none. Raises SQLAlchemyError.
    """
    if engine.dialect.name != "postgresql":
        return []
    with engine.connect() as connection:
        found = set(connection.execute(_PARTITIONS, {"parent": _TABLE}).scalars())
    wanted = _months(today, ahead)
    return [first for first in wanted if _name(first) not in found] if found else []


def warnings_of(engine: Engine, today: dt.date) -> list[str]:
    """What an operator is told where rows of this or the next month have no partition of their own.

    Raises LogUnavailable.
    """
    try:
        missing = missing_months(engine, today, ahead=1)
    except SQLAlchemyError as error:
        said = f"the log's partitions cannot be read ({type(error).__name__})"
        raise LogUnavailable(said) from None
    return [
        f"predictions of {first:%Y-%m} have no partition and go to {_REST}: run `varsel db upgrade`"
        for first in missing
    ]


def _months(today: dt.date, ahead: int) -> list[dt.date]:
    """The first days of this month and those ahead."""
    month = today.year * 12 + today.month - 1
    return [dt.date(m // 12, m % 12 + 1, 1) for m in range(month, month + ahead + 1)]


def _name(first: dt.date) -> str:
    return f"{_TABLE}_{first:%Y_%m}"


def _make_month(connection: Connection, first: dt.date) -> str:
    """Make a month beside the table and attach it, with the rows that wait in the default one.

    Attaching, unlike `CREATE TABLE ... PARTITION OF`, does not shut writers of other months out.
    """
    name, (start, end) = _name(first), _months(first, 1)
    since, until = f"'{start}+00'", f"'{end}+00'"
    waiting = f"DELETE FROM {_REST} WHERE computed_at >= {since} AND computed_at < {until}"
    span = f"FOR VALUES FROM ({since}) TO ({until})"
    for statement in (
        "SET LOCAL statement_timeout = 0",
        f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'",
        f"CREATE TABLE {name} (LIKE {_TABLE} INCLUDING ALL)",
        f"LOCK TABLE {_REST} IN ACCESS EXCLUSIVE MODE",
        f"WITH home AS ({waiting} RETURNING *) INSERT INTO {name} SELECT * FROM home",
        f"ALTER TABLE {_TABLE} ATTACH PARTITION {name} {span}",
    ):
        connection.exec_driver_sql(statement)
    return name
