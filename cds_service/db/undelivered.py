"""Answers that did not reach their caller in time: the SQL of that table. Written by `delivery`."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection, insert

from cds_service.db.log import Write
from cds_service.db.tables import undelivered


def undelivered_row(prediction_id: str, how: str) -> Write[None]:
    """The write that notes, as of now, that the answer of a prediction did not reach its caller.

    `how`: `late` or `disconnected`.
    """
    row = {
        "id": str(uuid.uuid4()),
        "prediction_id": prediction_id,
        "how": how,
        "at": datetime.now(UTC),
    }
    return partial(_insert, row=row)


def _insert(connection: Connection, row: dict[str, object]) -> None:
    connection.execute(insert(undelivered), row)
