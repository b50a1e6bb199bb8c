"""What tests of the prediction log share: keys, a row it takes, and whole rows read back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, text

from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.reader import WHOLE
from cds_service.identities.keyring import KeyRing
from cds_service.identities.privacy import Privacy
from cds_service.settings import Keys

KEYS = Keys(KeyRing.of(b"p" * 32), KeyRing.of(b"s" * 32))
PRIVACY = Privacy(KEYS)
WHOLE_ROWS = """
    SELECT p.*, d.features, d.document, d.response, d.timings, e.key_id, e.sealed, k.wrapped,
           k.seal_key
    FROM predictions p
    LEFT JOIN prediction_payloads d USING (prediction_id, computed_at)
    LEFT JOIN vault_entries e USING (prediction_id)
    LEFT JOIN vault_keys k ON k.id = e.key_id
"""
"""Every prediction as `LogReader.read` gives it, for tests that look past the product's own SQL."""
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def a_row(**given: Any) -> dict[str, Any]:
    """A row that the log stores, with the fields that matter given."""
    made: dict[str, Any] = {
        "prediction_id": str(uuid.uuid4()), "organisation": "o", "caller": "c", "service": "s",
        "hook": "h", "hook_instance": str(uuid.uuid4()), "content_digest": "d",
        "context_digest": "c", "model_id": "m", "model_version": "1", "package_checksum": "x",
        "software_version": "1", "mode": "live", "language": "da", "patient_pseudonym": "p",
        "as_of": NOW, "computed_at": NOW, "status": "scored", "returned": "card",
        "features": "[]", "document": "{}", "response": "{}", "timings": "{}",
        "references": b"{}", "state": "live", "pseudonym_key": "0", "digest_key": "0",
        "legal_ground": "g",
        "libraries": "l",
    }  # fmt: skip
    return made | given


def store_all(engine: Engine, rows: Iterable[dict[str, Any]]) -> None:
    """Store rows in the order given; the engine stays usable."""
    with PredictionLog(engine, PRIVACY) as log:
        for waiting in [log.store(row) for row in rows]:
            waiting.result(30)


def whole_rows(engine: Engine) -> list[dict[str, Any]]:
    """Every prediction with its payload and its entry in the vault, oldest first."""
    with engine.connect() as connection:
        found = connection.execute(WHOLE.order_by("computed_at")).mappings()
        return [dict(row) for row in found]


def rows_at(url: str) -> list[dict[str, Any]]:
    """The same of a database by its URL."""
    engine = open_engine(url)
    found = whole_rows(engine)
    engine.dispose()
    return found


def run_at(url: str, statement: str) -> None:
    """Run a statement on a database, past the service."""
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()
