"""Feedback on cards: the SQL. Rows are only ever added, through the log's writer.

Called by `routes/feedback.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Engine, and_, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from cds_service.card_ids import ids_of_card
from cds_service.db.claims import Claim, refused_claim
from cds_service.db.reader import OF_PREDICTION, unreadable
from cds_service.db.store import CALL
from cds_service.db.tables import feedback, prediction_payloads, predictions
from cds_service.db.transaction import Transaction
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
_near = predictions.alias("near")
_ANSWERS = (
    select(_c.prediction_id, _c.organisation, _c.service, prediction_payloads.c.response)
    .select_from(_near)
    .join(predictions, and_(*(_c[name] == _near.c[name] for name in CALL)))
    .join(prediction_payloads, OF_PREDICTION)
    .where(_near.c.prediction_id.between(bindparam("lowest"), bindparam("highest")))
)
"""Every answer to the call of the prediction a card is numbered after: that one is found by the
primary key alone, because a database asked for the organisation too goes through all its rows."""


def predictions_of(
    engine: Engine, cards: Iterable[str], *, organisation: str, service: str
) -> dict[str, str]:
    """By card, the id of the prediction whose response holds it.

    Cards that are not ours, or not of this organisation and service, are not in it; nor are those
    that two responses hold: replicas that answered one call in different words while the database
    was away. Raises LogUnavailable.
    """
    ids = {card: found for card in cards if (found := ids_of_card(card))}
    matched = {}
    try:
        with engine.connect() as connection:
            for card, near in ids.items():
                between = {"lowest": near.lowest, "highest": near.highest}
                holders = {
                    row.prediction_id
                    for row in connection.execute(_ANSWERS, between)
                    if (row.organisation, row.service) == (organisation, service)
                    and _holds(row.response, near.card)
                }
                if len(holders) == 1:
                    matched[card] = holders.pop()
    except SQLAlchemyError as error:
        raise unreadable(error) from None
    return matched


def _holds(response: str, card: str) -> bool:
    return any(one.uuid == card for one in _RESPONSE.decode(response).cards)


@dataclass(frozen=True, slots=True)
class AddFeedback:
    """The write of rows, all or none; those that are there already stay as they are.

    `claim`: of the token that came with them, made in the same commit.
    """

    rows: Sequence[dict[str, Any]]
    claim: Claim | None

    def __call__(self, tx: Transaction) -> NotAuthenticated | None:
        """Add them; the refusal, and no row, where the token was used for another body."""
        refused = refused_claim(tx.connection, self.claim) if self.claim else None
        if refused is None and self.rows:
            tx.connection.execute(_INSERT[tx.connection.dialect.name], self.rows)
        return refused
