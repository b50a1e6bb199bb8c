"""What became of one prediction: whether its answer arrived, what users did, who read it. SQL only.

Called by `varsel replay --show`, for who checks the whole record of a prediction, and by `varsel
privacy`, for the patient it is about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.reader import unreadable
from cds_service.db.tables import audit_entries, feedback, undelivered

Entry = dict[str, Any]
_AT_A_TIME = 500
_c = audit_entries.c
_ASKED = {
    "undelivered": select(undelivered.c.how, undelivered.c.at).order_by(undelivered.c.at),
    "feedback": select(
        *(feedback.c[n] for n in ("card", "outcome", "reason", "accepted")),
        feedback.c.outcome_at,
        feedback.c.received_at,
    ).order_by(feedback.c.received_at),
    "audit": select(
        *(audit_entries.c[n] for n in ("at", "who", "role", "what", "why", "details"))
    ).order_by(audit_entries.c.at),
}
_ABOUT = {
    "undelivered": undelivered.c.prediction_id,
    "feedback": feedback.c.prediction_id,
    "audit": audit_entries.c.subject,
}


def what_became_of(engine: Engine, prediction_id: str) -> dict[str, list[dict[str, Any]]]:
    """By table, the rows about a prediction, oldest first: `undelivered`, `feedback`, `audit`.

    Raises LogUnavailable.
    """
    try:
        with engine.connect() as connection:
            return {
                name: [
                    {**row}
                    for row in connection.execute(
                        query.where(_ABOUT[name] == prediction_id)
                    ).mappings()
                ]
                for name, query in _ASKED.items()
            }
    except SQLAlchemyError as error:
        raise unreadable(error) from None


def entries_about(engine: Engine, organisation: str, subjects: Collection[str]) -> list[Entry]:
    """The audit entries of an organisation about some predictions, oldest first.

    Raises LogUnavailable.
    """
    about = sorted(subjects)
    parts = [about[n : n + _AT_A_TIME] for n in range(0, len(about), _AT_A_TIME)]
    found = [
        entry
        for part in parts
        for entry in _entries(engine, _c.organisation == organisation, _c.subject.in_(part))
    ]
    return sorted(found, key=lambda entry: (entry["at"], entry["id"]))


def entries_of_kinds(
    engine: Engine, organisation: str, kinds: Collection[str], *, since: datetime
) -> Iterator[Entry]:
    """The audit entries of an organisation about some doings since a time, oldest first, a few
    hundred in memory. Raises LogUnavailable.
    """
    return _entries(
        engine, _c.organisation == organisation, _c.at >= since, _c.what.in_(sorted(kinds))
    )


def _entries(engine: Engine, *which: ColumnElement[bool]) -> Iterator[Entry]:
    columns = (_c[n] for n in ("id", "at", "who", "role", "what", "why", "subject", "details"))
    query = select(*columns).where(*which).order_by(_c.at, _c.id)
    try:
        with engine.connect().execution_options(yield_per=_AT_A_TIME) as connection:
            yield from ({**row} for row in connection.execute(query).mappings())
    except SQLAlchemyError as error:
        raise unreadable(error) from None
