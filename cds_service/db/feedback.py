"""Feedback on cards: the SQL. Rows are only ever added, through the log's writer.

Called by `routes/feedback.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from cds_service.card_ids import ids_of_card
from cds_service.db.claims import Claim, refused_claim
from cds_service.db.log import unreadable
from cds_service.db.tables import feedback, predictions
from cds_service.errors import NotAuthenticated

_INSERT: dict[str, Any] = {
    "sqlite": sqlite.insert(feedback).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(feedback).on_conflict_do_nothing(),
}


class _Card(msgspec.Struct):
    uuid: str


class _Response(msgspec.Struct):
    cards: list[_Card]


_RESPONSE = msgspec.json.Decoder(_Response)
_c = predictions.c
_ANSWERS = select(_c.prediction_id, _c.organisation, _c.service, _c.response).where(
    _c.prediction_id.between(bindparam("lowest"), bindparam("highest"))
)
"""By the primary key alone: a database asked for the organisation too goes through all its rows."""


def predictions_of(
    engine: Engine, cards: Iterable[str], *, organisation: str, service: str
) -> dict[str, str]:
    """By card, the id of the prediction whose response holds it.

    Cards that are not ours, or not of this organisation and service, are not in it. Raises
    LogUnavailable.
    """
    ids = {card: found for card in cards if (found := ids_of_card(card))}
    matched = {}
    try:
        with engine.connect() as connection:
            for card, near in ids.items():
                between = {"lowest": near.lowest, "highest": near.highest}
                for row in connection.execute(_ANSWERS, between):
                    theirs = (row.organisation, row.service) == (organisation, service)
                    if theirs and _holds(row.response, near.card):
                        matched[card] = row.prediction_id
    except SQLAlchemyError as error:
        raise unreadable(error) from None
    return matched


def _holds(response: str, card: str) -> bool:
    return any(one.uuid == card for one in _RESPONSE.decode(response).cards)


def add_feedback(
    connection: Connection, *, rows: Sequence[dict[str, Any]], claim: Claim | None
) -> NotAuthenticated | None:
    """Add rows, all or none; those that are there already stay as they are.

    `claim`: of the token that came with them, made in the same commit. The refusal, and no row,
    where it was used for another body.
    """
    refused = refused_claim(connection, claim) if claim else None
    if refused is None and rows:
        connection.execute(_INSERT[connection.dialect.name], rows)
    return refused
