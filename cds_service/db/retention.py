"""What is past its time: the SQL of retention. Called by `varsel privacy retention`.

It is taken away in parts, so that hooks are answered meanwhile; a run that ends in the middle is
taken up by the next. What is restricted (GDPR art. 18) stays, with what stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, delete, exists, extract, func, select
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.audit import AuditEntry, now_done
from cds_service.db.erasure import (
    AT_A_TIME,
    NOBODY,
    Decision,
    note_decision,
    remove_unused_keys,
    take_away,
)
from cds_service.db.reader import unreadable
from cds_service.db.restriction import IS_RESTRICTED
from cds_service.db.tables import feedback, predictions, token_claims, undelivered, vault_keys
from cds_service.db.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Expired:
    """What of an organisation is older than a moment."""

    organisation: str
    before: datetime

    @property
    def predictions(self) -> ColumnElement[bool]:
        """Which predictions, of those that still say something."""
        c = predictions.c
        old = and_(c.organisation == self.organisation, c.computed_at < self.before)
        return and_(old, c.erasure.is_(None))

    @property
    def feedback(self) -> ColumnElement[bool]:
        """Which feedback."""
        c = feedback.c
        stays = exists().where(predictions.c.prediction_id == c.prediction_id, IS_RESTRICTED)
        return and_(c.organisation == self.organisation, c.received_at < self.before, ~stays)

    @property
    def undelivered(self) -> ColumnElement[bool]:
        """Which notes of answers that did not arrive."""
        theirs = select(predictions.c.prediction_id).where(
            predictions.c.organisation == self.organisation,
            predictions.c.computed_at < self.before,
            ~IS_RESTRICTED,
        )
        c = undelivered.c
        return and_(c.at < self.before, c.prediction_id.in_(theirs))


@dataclass(frozen=True, slots=True)
class Due:
    """How much is due: predictions by month of computation (UTC, `2026-11`), those that stay
    because they are restricted, feedback, and notes of answers that did not arrive.
    """

    months: dict[str, int]
    restricted: int
    feedback: int
    undelivered: int

    @property
    def predictions(self) -> int:
        """How many predictions in all."""
        return sum(self.months.values())


def due(engine: Engine, expired: Expired) -> Due:
    """How much is past its time. Raises LogUnavailable."""
    at = predictions.c.computed_at
    year, month = extract("year", at), extract("month", at)
    by_month = select(year, month, func.count()).where(expired.predictions, ~IS_RESTRICTED)
    try:
        with engine.connect() as connection:
            months = connection.execute(by_month.group_by(year, month).order_by(year, month)).all()

            def count(of: Any, *which: ColumnElement[bool]) -> int:
                query = select(func.count()).select_from(of).where(*which)
                return int(connection.execute(query).scalar_one())

            return Due(
                {f"{int(year):04}-{int(month):02}": int(n) for year, month, n in months},
                restricted=count(predictions, expired.predictions, IS_RESTRICTED),
                feedback=count(feedback, expired.feedback),
                undelivered=count(undelivered, expired.undelivered),
            )
    except SQLAlchemyError as error:
        raise unreadable(error) from None


@dataclass(frozen=True, slots=True)
class BeginExpiry:
    """The write of the decision, before anything is taken away: what is gone names it.

    `planned`: how many predictions are due.
    """

    decision: Decision
    organisation: str
    planned: int
    audit: AuditEntry

    def __call__(self, tx: Transaction) -> None:
        """Put decision and deed on record."""
        note_decision(tx, self.decision, self.organisation, about=(NOBODY, ""), taken=self.planned)
        now_done(self.audit)(tx)


@dataclass(frozen=True, slots=True)
class Expire:
    """The write that takes away the oldest predictions that are due, AT_A_TIME and `most` at most,
    from a time of computation on. Gives how many, and the time of the last.
    """

    expired: Expired
    decision_id: str
    since: datetime | None
    most: int

    def __call__(self, tx: Transaction) -> tuple[int, datetime | None]:
        """Take them away."""
        c = predictions.c
        query = select(c.prediction_id, c.computed_at).where(
            self.expired.predictions, ~IS_RESTRICTED
        )
        if self.since is not None:
            query = query.where(c.computed_at >= self.since)
        oldest = query.order_by(c.computed_at, c.prediction_id).limit(min(AT_A_TIME, self.most))
        found = [(row[0], row[1]) for row in tx.connection.execute(oldest)]
        if not found:
            return 0, None
        take_away(tx.connection, [one for one, _ in found], self.decision_id)
        return len(found), found[-1][1]


@dataclass(frozen=True, slots=True)
class ExpireRest:
    """The write that takes away what stands beside predictions that are due: feedback, notes of
    answers that did not arrive, data keys without entries; and claims of tokens that expired.
    """

    expired: Expired

    def __call__(self, tx: Transaction) -> dict[str, int]:
        """By table, how many rows it took."""
        run = tx.connection.execute
        return {
            "feedback": run(delete(feedback).where(self.expired.feedback)).rowcount,
            "undelivered": run(delete(undelivered).where(self.expired.undelivered)).rowcount,
            "vault_keys": remove_unused_keys(
                tx.connection, vault_keys.c.organisation == self.expired.organisation
            ),
            "token_claims": run(
                delete(token_claims).where(token_claims.c.expires_at < datetime.now(UTC))
            ).rowcount,
        }
