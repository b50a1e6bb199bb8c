"""What each column of a prediction is, with a data-protection officer's eyes.

A test keeps the table complete. Called by `varsel privacy show`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import Table

from cds_service.db.tables import prediction_payloads, predictions, vault_entries, vault_keys

Kind = Literal["identity, sealed", "pseudonym", "health", "may single out", "keyed digest", "none"]
"""What a column says of a person; `none`: nothing."""
_KINDS: Mapping[Kind, frozenset[str]] = {
    "identity, sealed": frozenset({"sealed", "wrapped"}),
    "pseudonym": frozenset({"patient_pseudonym", "encounter_pseudonym", "cpr_pseudonym"}),
    "health": frozenset({"features", "document", "response", "reason", "status", "returned"}),
    # with ward and hospital, a moment may be one patient's; the record system knows its own call
    "may single out": frozenset(
        {"unit", "as_of", "index_time", "computed_at", "hook_instance", "prediction_id"}
    ),
    "keyed digest": frozenset({"content_digest", "context_digest", "commitment"}),
}
OF_PREDICTION: tuple[Table, ...] = (predictions, prediction_payloads, vault_entries, vault_keys)
NOT_OPENED = "sealed, not opened"


class Said(NamedTuple):
    """A column of a prediction, what it says of a person, and its value."""

    table: str
    column: str
    kind: Kind
    value: Any


def kind_of(column: str) -> Kind:
    """What a column says of a person."""
    return next((kind for kind, names in _KINDS.items() if column in names), "none")


def seen_by_an_officer(record: Mapping[str, Any]) -> list[Said]:
    """Every column of a prediction that is in its record, in the tables' order; of what is sealed,
    that it is.

    `record`: as `whole_record` gives it.
    """
    sealed = NOT_OPENED if record["identity_sealed"] else None
    return [
        Said(
            str(table.name),
            str(column.name),
            kind_of(column.name),
            sealed if column.name == "sealed" else record[column.name],
        )
        for table, column in _columns()
        if column.name in record or column.name == "sealed"
    ]


def _columns() -> list[tuple[Table, Any]]:
    """Each column once, in the first table that has it."""
    first = {c.name: (table, c) for table in reversed(OF_PREDICTION) for c in table.columns}
    return [
        found for table in OF_PREDICTION for c in table.columns if (found := first[c.name])[1] is c
    ]
