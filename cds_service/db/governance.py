"""What was decided, recorded and found of models, and what a version has shown: the SQL.

Decisions, records and hit rates are only ever added, each under the number after the newest one
that was read; so of two people who decide at the same time, the second is told to look again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, RowMapping, Table, func, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from cds_service.db.audit import AuditEntry, add_with
from cds_service.db.tables import model_hit_rates, model_records, model_states, predictions
from cds_service.errors import LogUnavailable, SetupError
from cds_service.governance import Decision, History, Record, Validated, Version

_MOMENTS = ("first_index_time", "last_index_time", "at")
_PAGE = 1000
"""Predictions held in memory at a time while they are listed."""
_LONGEST_SUBJECT = 64
_TABLES = (model_states, model_records, model_hit_rates)


class Overtaken(SetupError):
    """Somebody else decided since the history was read; nothing was stored."""


Marker = tuple[int, int, int]
"""The numbers of the newest decision, record and hit rate; another one means something changed."""

SHOWN_COLUMNS = (
    "prediction_id", "as_of", "computed_at", "organisation", "unit", "caller", "hook", "mode",
    "status", "returned",
)  # fmt: skip
"""What is listed of a prediction whose card was shown; nothing of the patient."""


def newest(engine: Engine) -> Marker:
    """How far decisions, records and hit rates have come. Raises LogUnavailable."""
    query = select(*(_last(table).scalar_subquery() for table in _TABLES))
    try:
        with engine.connect() as connection:
            decisions, records, validations = connection.execute(query).one()
            return decisions, records, validations
    except SQLAlchemyError as error:
        raise _unavailable(error) from None


def read_history(engine: Engine) -> History:
    """Every decision, record and hit rate, oldest first. Raises LogUnavailable."""
    try:
        with engine.connect() as connection:
            states, records, hit_rates = (
                connection.execute(select(table).order_by(table.c.id)).mappings().all()
                for table in _TABLES
            )
    except SQLAlchemyError as error:
        raise _unavailable(error) from None
    return History(
        [_decision(row) for row in states],
        [_record(row) for row in records],
        [_validated(row) for row in hit_rates],
    )


def add_decisions(
    engine: Engine, decisions: Sequence[Decision], *, after: History, organisation: str
) -> None:
    """Store decisions made on what was read, all or none, each with its audit entry, which stands
    under an organisation.

    Raises Overtaken where somebody else decided since, SetupError where the database did not
    commit.
    """
    rows = [
        {
            "model_id": d.model_id,
            "version": d.version,
            "package_checksum": d.checksum,
            "state": d.state,
            "who": d.who,
            "why": d.why,
            "at": d.at.astimezone(UTC),
        }
        for d in decisions
    ]
    done = [_entry("model state", d, organisation, why=d.why, state=d.state) for d in decisions]
    _add(engine, model_states, rows, read=len(after.decisions), audit=done)


def add_record(engine: Engine, record: Record, *, after: History, organisation: str) -> None:
    """Store a record, with its audit entry. Raises SetupError as `add_decisions` does."""
    row = record._asdict() | {"at": record.at.astimezone(UTC)}
    row["package_checksum"] = row.pop("checksum")
    done = _entry("model record", record, organisation, route=record.regulatory_route)
    _add(engine, model_records, [row], read=len(after.records), audit=[done])


def add_validated(engine: Engine, found: Validated, *, after: History, organisation: str) -> None:
    """Store what a local validation found, with its audit entry.

    Raises SetupError as `add_decisions` does.
    """
    row = found._asdict() | {name: getattr(found, name).astimezone(UTC) for name in _MOMENTS}
    row["package_checksum"] = row.pop("checksum")
    done = _entry(
        "model hit rate", found, organisation, head=found.head, ppv=found.ppv, cards=found.flagged
    )
    _add(engine, model_hit_rates, [row], read=len(after.validations), audit=[done])


def _entry(
    what: str,
    of: Decision | Record | Validated,
    organisation: str,
    *,
    why: str = "",
    **details: Any,
) -> AuditEntry:
    """The audit entry of a change to a version of a model."""
    return AuditEntry(
        organisation,
        of.who,
        "operator",
        what,
        subject=f"{of.model_id}@{of.version}"[:_LONGEST_SUBJECT],
        why=why,
        details={"model": of.model_id, "version": of.version, "checksum": of.checksum, **details},
    )


def _add(
    engine: Engine,
    table: Table,
    rows: list[dict[str, Any]],
    *,
    read: int,
    audit: Sequence[AuditEntry],
) -> None:
    """Store rows and their audit entries in one transaction, on a chain of its own."""
    numbered = [row | {"id": read + place} for place, row in enumerate(rows, start=1)]
    try:
        with engine.begin() as connection:
            connection.execute(table.insert(), numbered)
            add_with(connection, audit)
    except IntegrityError:
        raise Overtaken("somebody else decided at the same time: look, and decide again") from None
    except SQLAlchemyError as error:
        raise SetupError(f"the decision was not stored ({type(error).__name__})") from None


# ---- what a version has shown ---------------------------------------------------------------


def shown_by(engine: Engine, version: Version) -> Iterator[RowMapping]:
    """The predictions of a version whose card was shown, oldest first, read a page at a time.

    Cards that only said the model was paused or retired are left out. Raises LogUnavailable.
    """
    c = predictions.c
    query = (
        select(*(c[name] for name in SHOWN_COLUMNS))
        .where(c.model_id == version.model_id, c.model_version == version.version)
        .where(c.returned == "card", c.status != "refused")
        .order_by(c.as_of, c.prediction_id)
    )
    try:
        with engine.connect().execution_options(yield_per=_PAGE) as connection:
            yield from connection.execute(query).mappings()
    except SQLAlchemyError as error:
        raise _unavailable(error) from None


def shown_in(engine: Engine, version: Version) -> dict[str, int]:
    """By organisation, how many cards of a version were shown. Raises LogUnavailable."""
    c = predictions.c
    query = (
        select(c.organisation, func.count())
        .where(c.model_id == version.model_id, c.model_version == version.version)
        .where(c.returned == "card", c.status != "refused")
        .group_by(c.organisation)
    )
    try:
        with engine.connect() as connection:
            return {name: int(number) for name, number in connection.execute(query)}
    except SQLAlchemyError as error:
        raise _unavailable(error) from None


def answered_by(engine: Engine, version: Version) -> int:
    """How many predictions a version has made, shown or not. Raises LogUnavailable."""
    c = predictions.c
    query = select(func.count()).where(
        c.model_id == version.model_id, c.model_version == version.version
    )
    return int(_scalar(engine, query) or 0)


def logged_checksums(engine: Engine, model_id: str, version: str) -> list[str]:
    """The checksums of all files a version has predicted with. Raises LogUnavailable."""
    c = predictions.c
    query = (
        select(c.package_checksum)
        .where(c.model_id == model_id, c.model_version == version)
        .distinct()
    )
    try:
        with engine.connect() as connection:
            return sorted(connection.execute(query).scalars())
    except SQLAlchemyError as error:
        raise _unavailable(error) from None


# ---- rows -----------------------------------------------------------------------------------


def _scalar(engine: Engine, query: Any) -> Any:
    try:
        with engine.connect() as connection:
            return connection.execute(query).scalar()
    except SQLAlchemyError as error:
        raise _unavailable(error) from None


def _last(table: Table) -> Any:
    return select(func.coalesce(func.max(table.c.id), 0))


def _decision(row: RowMapping) -> Decision:
    return Decision(
        model_id=row["model_id"],
        version=row["version"],
        checksum=row["package_checksum"],
        state=row["state"],
        who=row["who"],
        why=row["why"],
        at=_in_utc(row["at"]),
    )


def _record(row: RowMapping) -> Record:
    said = {name: row[name] for name in Record._fields if name != "checksum"}
    return Record(checksum=row["package_checksum"], **said | {"at": _in_utc(row["at"])})


def _validated(row: RowMapping) -> Validated:
    said = {name: row[name] for name in Validated._fields if name != "checksum"}
    moments = {name: _in_utc(row[name]) for name in _MOMENTS}
    return Validated(checksum=row["package_checksum"], **said | moments)


def _in_utc(moment: datetime) -> datetime:
    """A stored moment; SQLite keeps no zone, and what is stored is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _unavailable(error: SQLAlchemyError) -> LogUnavailable:
    return LogUnavailable(f"the database cannot be read ({type(error).__name__})")
