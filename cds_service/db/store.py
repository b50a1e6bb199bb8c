"""The writes of the prediction log: a prediction, the claim of a token; and the same call again.

A prediction is three rows: what was asked and which model answered, what it says of the patient's
health (its payload), and whom it is about, sealed in the vault. All are committed to in a chain
(`chain.py`). They are written by the log's writer, or from the spool when the database was away.

A call is known by organisation, service, hook and hookInstance, asked of the same version in the
same state and mode. Again with the same content, it finds its stored row instead of making a second
one; on other data under the same context it is a further attempt, linked to the first; with another
context it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, select
from sqlalchemy.dialects import postgresql, sqlite

from cds_service.card_ids import id_beside
from cds_service.db.claims import Claim, refused_claim
from cds_service.db.reader import OF_PREDICTION
from cds_service.db.tables import prediction_payloads, predictions
from cds_service.db.transaction import Transaction
from cds_service.errors import AlreadyUsed, NotAuthenticated, NotDurable, RequestRefused
from cds_service.evidence import chain

Row = dict[str, Any]
_INSERT: dict[str, Any] = {
    "sqlite": sqlite.insert(predictions).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(predictions).on_conflict_do_nothing(),
}
"""One statement for every row, built once."""
MOST_ATTEMPTS = 32
"""Answers to one call on other data: no record sends that many, and each is looked through."""
_UNSAID: Row = {"attempt": 0, "purpose": "treatment"}
"""What a row that does not say it is stored with: said here, so that it is what is committed to."""
_OF_ROW = tuple(column.name for column in predictions.columns)
_OF_PAYLOAD = tuple(column.name for column in prediction_payloads.columns)
CALL = (
    "organisation", "service", "hook", "hook_instance", "package_checksum", "state", "mode",
)  # fmt: skip
"""What a call is known by; with the attempt it is unique."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the log holds for a call: the prediction and its response to send, what came out in
    words, which attempt it is (0 for the first), and whether it stood there before.
    """

    prediction_id: str
    response: str
    status: str
    returned: str
    replayed: bool
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class StorePrediction:
    """The write of a prediction, and of the claim of the token that came with its call."""

    row: Row
    claim: Claim | None = None

    def __call__(self, tx: Transaction) -> Stored | RequestRefused:
        """Store it, or find what the log already holds for the same call."""
        refused = refused_claim(tx.connection, self.claim) if self.claim else None
        return _stored_or_found(tx, self.row) if refused is None else refused


@dataclass(frozen=True, slots=True)
class ClaimToken:
    """The write of a token's claim alone."""

    claim: Claim

    def __call__(self, tx: Transaction) -> NotAuthenticated | None:
        """Claim it; the refusal where it was used for another body."""
        return refused_claim(tx.connection, self.claim)


def _stored_or_found(tx: Transaction, row: Row) -> Stored | AlreadyUsed:
    """The row, stored; or what the log already holds for the same call."""
    if _inserted(tx, row):
        return as_stored(row)
    tx.finish()  # the same call may stand in this very group
    for _ in range(MOST_ATTEMPTS):
        before = _attempts(tx.connection, row)
        found = found_before(before, row)
        if found is not None:
            return found
        first, last = before[0], before[-1]
        further = row | {
            "attempt": last["attempt"] + 1,
            "attempt_of": first["prediction_id"],
        }
        if _inserted(tx, further):
            return as_stored(further)
        # another process took that attempt: look again
    raise NotDurable("other processes kept answering the same call")


def _inserted(tx: Transaction, row: Row) -> bool:
    """Whether the row is written now, as the next link of its chain; its payload follows."""
    sealed = tx.sealed(row)
    row = _UNSAID | row
    placed = tx.chains.place(chain.PREDICTION, row | {"sealed": sealed.content}, today=tx.today)
    whole = row | placed
    slim = {name: whole[name] for name in _OF_ROW if name in whole}
    if not tx.connection.execute(_INSERT[tx.connection.dialect.name], slim).rowcount:
        tx.not_stored(row, sealed)
        return False
    tx.chains.take(row["organisation"], placed)
    tx.add_payload(
        {name: whole.get(name) for name in _OF_PAYLOAD},
        {
            "prediction_id": row["prediction_id"],
            "key_id": sealed.key_id,
            "sealed": sealed.content,
        },
    )
    return True


def _attempts(connection: Connection, row: Row) -> Sequence[RowMapping]:
    """Every answer there is to a call, the first one first."""
    c = predictions.c
    query = (
        select(
            c.prediction_id, c.attempt, c.content_digest, c.context_digest, c.status, c.returned,
            c.digest_key, prediction_payloads.c.response,
        )
        .outerjoin_from(predictions, prediction_payloads, OF_PREDICTION)
        .where(*(c[name] == row[name] for name in CALL))
        .order_by(c.attempt)
    )  # fmt: skip
    return connection.execute(query).mappings().all()


def found_before(before: Sequence[RowMapping | Row], row: Row) -> Stored | AlreadyUsed | None:
    """The answer to the same call, or why there can be none; None where it has other data.

    Of rows made under another key of digests it is not known what they asked about, and of rows
    older than the context's digest only that the same content is the same call.
    """
    for earlier in before:
        if earlier["content_digest"] == row["content_digest"]:
            if earlier["response"] is None:
                return AlreadyUsed("the answer to this hookInstance was erased", "hookInstance")
            return as_stored(earlier, replayed=True)
    known = [earlier for earlier in before if earlier["digest_key"] == row["digest_key"]]
    if any(earlier["context_digest"] != row["context_digest"] for earlier in known):
        return AlreadyUsed("this hookInstance came before with another context", "hookInstance")
    if len(before) >= MOST_ATTEMPTS:
        return AlreadyUsed("this hookInstance came too often with other data", "hookInstance")
    return None


def as_stored(row: RowMapping | Row, *, replayed: bool = False) -> Stored:
    """What the log says of a row it holds."""
    return Stored(
        prediction_id=row["prediction_id"],
        response=row["response"],
        status=row["status"],
        returned=row["returned"],
        attempt=row.get("attempt", 0),
        replayed=replayed,
    )


# ---- what was shown while the database was away ---------------------------------------------


def keep_as_sent(tx: Transaction, row: Row) -> None:
    """Store a row whose answer was sent already, whatever else the log holds for its call.

    Where another process answered the same call in other words, or one of another context, this
    answer too was shown: it is kept as a further attempt, under an id of its own (`id_beside`);
    its document and its cards say the id it was shown under.
    """
    if _inserted(tx, row):
        return
    tx.finish()
    for _ in range(MOST_ATTEMPTS):
        before = _attempts(tx.connection, row)
        if any(_is_same_answer(earlier, row) for earlier in before):
            return
        if not before:
            raise NotDurable("a prediction of that id is of another call")
        own = row["prediction_id"]
        known = any(earlier["prediction_id"] == own for earlier in before)
        further = row | {
            "prediction_id": id_beside(own, row["response"]) if known else own,
            "attempt": before[-1]["attempt"] + 1,
            "attempt_of": before[0]["prediction_id"],
        }
        if _inserted(tx, further):
            return
    raise NotDurable("other processes kept answering the same call")


def _is_same_answer(earlier: RowMapping, row: Row) -> bool:
    same = ("content_digest", "context_digest", "response")
    return all(earlier[name] == row[name] for name in same)
