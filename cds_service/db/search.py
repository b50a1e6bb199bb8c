"""Questions the governance API asks: pages of predictions and of the audit trail. SQL only.

A page is found by its place (time and id of the row before it), along the index of organisation,
time and id, so that the last page costs what the first one does, and a row stands on one page
however many are added meanwhile. Every question names its organisation. Nothing here reads the
vault. Called by the routes under `/api`, in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Engine,
    RowMapping,
    Select,
    Table,
    literal,
    select,
    tuple_,
)
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.reader import OF_PREDICTION, unreadable
from cds_service.db.restriction import IS_RESTRICTED
from cds_service.db.tables import audit_entries, prediction_payloads, predictions

Row = dict[str, Any]
COLUMN_OF = {
    "service": "service",
    "version": "model_version",
    "status": "status",
    "returned": "returned",
    "mode": "mode",
    "unit": "unit",
    "pseudonym": "patient_pseudonym",
}
"""What predictions are filtered by, each with the column it compares."""
WHOLE_PAYLOAD = ("features", "document", "response", "timings")


class Place(NamedTuple):
    """Where a page ends: time and id of its last row."""

    at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: those of one organisation, from a time on and before another, where columns are
    equal to what `equal` says by name.
    """

    organisation: str
    from_: datetime | None = None
    to: datetime | None = None
    equal: Mapping[str, str] | None = None


def predictions_page(
    engine: Engine, wanted: Wanted, *, after: Place | None, limit: int, payload: Sequence[str] = ()
) -> list[Row]:
    """The next so many predictions by time of computation, with these columns of their payload,
    which are None where it was erased. Raises LogUnavailable.
    """
    p, at = predictions.c, predictions.c.computed_at
    query = _predictions(payload).where(
        *_conditions(predictions, wanted, at), *_after(after, at, p.prediction_id)
    )
    return _read(engine, query.order_by(at, p.prediction_id).limit(limit))


def find_prediction(engine: Engine, organisation: str, prediction_id: str) -> Row | None:
    """One prediction of an organisation with what it says; None where it has none of that id.

    Raises LogUnavailable.
    """
    p = predictions.c
    query = _predictions(WHOLE_PAYLOAD)
    found = _read(
        engine, query.where(p.organisation == organisation, p.prediction_id == prediction_id)
    )
    return found[0] if found else None


def audit_page(engine: Engine, wanted: Wanted, *, after: Place | None, limit: int) -> list[Row]:
    """The next so many entries of the audit trail by time. Raises LogUnavailable."""
    a = audit_entries.c
    columns = [column for column in audit_entries.columns if column.name != "salt"]
    query = select(*columns).where(
        *_conditions(audit_entries, wanted, a.at), *_after(after, a.at, a.id)
    )
    return _read(engine, query.order_by(a.at, a.id).limit(limit))


def _predictions(payload: Sequence[str]) -> Select[Any]:
    """Predictions, but of patients of whom nobody may read now."""
    if not payload:
        return select(predictions).where(~IS_RESTRICTED)
    said = (prediction_payloads.c[name] for name in payload)
    found = select(predictions, *said).outerjoin(prediction_payloads, OF_PREDICTION)
    return found.where(~IS_RESTRICTED)


def _conditions(table: Table, wanted: Wanted, at: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    found = [table.c.organisation == wanted.organisation]
    if wanted.from_ is not None:
        found.append(at >= wanted.from_)
    if wanted.to is not None:
        found.append(at < wanted.to)
    return found + [table.c[name] == value for name, value in (wanted.equal or {}).items()]


def _after(
    place: Place | None, at: ColumnElement[Any], row_id: ColumnElement[Any]
) -> Sequence[ColumnElement[bool]]:
    if place is None:
        return ()
    there = tuple_(literal(place.at, at.type), literal(place.id, row_id.type))
    return (tuple_(at, row_id) > there,)


def _read(engine: Engine, query: Select[Any]) -> list[Row]:
    try:
        with engine.connect() as connection:
            return [_in_utc(row) for row in connection.execute(query).mappings()]
    except SQLAlchemyError as error:
        raise unreadable(error) from None


def _in_utc(row: RowMapping) -> Row:
    """The row, its times in UTC; SQLite keeps them so without saying it."""
    return {
        name: utc(value) if isinstance(value, datetime) else value for name, value in row.items()
    }


def utc(moment: datetime) -> datetime:
    """A stored moment in UTC, whichever way a database gives it back."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
