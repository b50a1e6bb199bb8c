"""What commands put on record: who acts, and audit entries written where no service is running."""

from __future__ import annotations

from collections.abc import Iterable

from cds_service.account import account
from cds_service.db.audit import AuditEntry, add_entries
from cds_service.db.log import is_absent, open_engine
from cds_service.service import open_database
from cds_service.settings import Settings

LONGEST_NAME, LONGEST_WHY = 128, 1000


def who_acts(typed: str | None) -> str:
    """Who is on record as acting: as typed, else the account the command runs under."""
    return (typed or account())[:LONGEST_NAME]


def put_on_record(settings: Settings, entries: Iterable[AuditEntry]) -> None:
    """Add entries to the audit trail; returns when they are durable. It takes no keys.

    Raises SetupError where the database is not fit, NotDurable where it did not commit.
    """
    engine = open_database(settings)
    try:
        add_entries(engine, entries)
    finally:
        engine.dispose()


def put_on_record_if_logged(settings: Settings, entry: AuditEntry) -> bool:
    """Add an entry where this installation has a log; whether it has one.

    For what may be done without an installation, as on the machine of who makes models.
    """
    engine = open_engine(settings.database)
    has_log = not is_absent(engine)
    engine.dispose()
    if has_log:
        put_on_record(settings, [entry])
    return has_log
