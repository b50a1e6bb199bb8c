"""The audit trail: who read, exported or changed what, when and why. Its SQL; rows are only added.

Written through the log's writer (`PredictionLog.audit`), in a chain as predictions are; who reads
waits for it before anything is handed out.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.reader import unreadable
from cds_service.db.tables import audit_entries
from cds_service.db.transaction import Transaction
from cds_service.errors import NotDurable
from cds_service.evidence import chain
from cds_service.evidence.chain import Writer

_INSERT: dict[str, Any] = {
    "sqlite": sqlite.insert(audit_entries).on_conflict_do_nothing(index_elements=["id"]),
    "postgresql": postgresql.insert(audit_entries).on_conflict_do_nothing(index_elements=["id"]),
}


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing somebody did. `what` in a word or two, `subject` the id of what it was done to;
    `details` are counts and filters, never values of a patient.
    """

    organisation: str
    who: str
    role: str
    what: str
    subject: str | None = None
    why: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AddAudit:
    """The write that adds an entry, as of `at`; one that is there already stays as it is."""

    id: str
    entry: AuditEntry
    at: datetime

    def __call__(self, tx: Transaction) -> None:
        """Add it as the next link of its organisation's chain."""
        self.add(tx.connection, tx.chains, today=tx.today)

    def add(self, connection: Connection, chains: Writer, *, today: date) -> None:
        """The same in a transaction that is not the writer's, on chains of its own."""
        e = self.entry
        row: dict[str, Any] = {
            "id": self.id,
            "organisation": e.organisation,
            "at": self.at,
            "who": e.who,
            "role": e.role,
            "what": e.what,
            "subject": e.subject,
            "why": e.why,
            "details": msgspec.json.encode(e.details).decode(),
        }
        placed = chains.place(chain.AUDIT, row, today=today)
        if connection.execute(_INSERT[connection.dialect.name], row | placed).rowcount:
            chains.take(e.organisation, placed)


def now_done(entry: AuditEntry) -> AddAudit:
    """The write of an entry, as of now."""
    return AddAudit(str(uuid.uuid4()), entry, datetime.now(UTC))


def newest_entry(engine: Engine, organisation: str, what: str) -> RowMapping | None:
    """The newest entry of an organisation about something; None where there is none.

    Raises LogUnavailable.
    """
    a = audit_entries.c
    query = (
        select(a.subject, a.details)
        .where(a.organisation == organisation, a.what == what)
        .order_by(a.at.desc(), a.id)
        .limit(1)
    )
    try:
        with engine.connect() as connection:
            return connection.execute(query).mappings().one_or_none()
    except SQLAlchemyError as error:
        raise unreadable(error) from None


def add_entries(engine: Engine, entries: Iterable[AuditEntry]) -> None:
    """Add entries without a log that is running, on a chain of their own. Raises NotDurable."""
    try:
        with engine.begin() as connection:
            add_with(connection, entries)
    except SQLAlchemyError as error:
        raise NotDurable(f"the audit trail did not commit ({type(error).__name__})") from None


def add_with(connection: Connection, entries: Iterable[AuditEntry]) -> None:
    """Add entries in the transaction of what they are about, on a chain of their own."""
    chains, today = Writer(), datetime.now(UTC).date()
    for entry in entries:
        now_done(entry).add(connection, chains, today=today)
