"""What became of one prediction: whether its answer arrived, what users did, who read it. SQL only.

Called by `varsel replay --show`, for who checks the whole record of a prediction.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.reader import unreadable
from cds_service.db.tables import audit_entries, feedback, undelivered

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
