"""Answers that did not reach their caller in time: the SQL of that table. Written by `delivery`."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite

from cds_service.db.tables import undelivered
from cds_service.db.transaction import Transaction

_INSERT: dict[str, Any] = {
    "sqlite": sqlite.insert(undelivered).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(undelivered).on_conflict_do_nothing(),
}


@dataclass(frozen=True, slots=True)
class NoteUndelivered:
    """The write that notes that the answer of a prediction did not reach its caller."""

    row: dict[str, Any]

    def __call__(self, tx: Transaction) -> None:
        """Note it; noted before, it stays as it is."""
        tx.connection.execute(_INSERT[tx.connection.dialect.name], self.row)


def undelivered_row(prediction_id: str, how: str) -> NoteUndelivered:
    """The write that notes it as of now. `how`: `late` or `disconnected`."""
    return NoteUndelivered(
        {
            "id": str(uuid.uuid4()),
            "prediction_id": prediction_id,
            "how": how,
            "at": datetime.now(UTC),
        }
    )
