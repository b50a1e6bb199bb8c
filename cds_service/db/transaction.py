"""What a write is given: one transaction of the log's writer, with its chains and its vault.

A write is done by `PredictionLog.commit`, together with others in one commit. It may be done a
second time, alone, where a group failed; it gives a refusal back instead of raising it, so that it
does not take the group with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, insert

from cds_service.db.tables import prediction_payloads, vault_entries
from cds_service.db.vault import KeyStore
from cds_service.errors import RequestRefused
from cds_service.evidence.chain import Writer
from cds_service.identities.vault import Vault

Result = TypeVar("Result")


class Sealed(NamedTuple):
    """A prediction's references under a data key; whether that key was made for them just now."""

    key_id: str
    content: bytes
    is_new: bool


class Transaction:
    """One transaction. `finish` before it is committed, or payloads are read in it."""

    def __init__(
        self, connection: Connection, chains: Writer, *, vault: Vault, keys: KeyStore
    ) -> None:
        self.connection = connection
        self.chains = chains
        self._vault = vault
        self._keys = keys
        self._payloads: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []

    @property
    def today(self) -> date:
        """The day (UTC) of what is written now."""
        return datetime.now(UTC).date()

    def sealed(self, row: Mapping[str, Any]) -> Sealed:
        """A prediction's references under its patient's data key. Raises SealBroken."""
        found = self._keys.key_for(self.connection, row)
        content = self._vault.seal(found.key, row["prediction_id"], row["references"])
        return Sealed(found.id, content, found.is_new)

    def not_stored(self, row: Mapping[str, Any], sealed: Sealed) -> None:
        """Take back what sealing a row left behind that is not stored: a key made for it alone."""
        if sealed.is_new:
            self._keys.take_back(self.connection, row, sealed.key_id)

    def add_payload(self, payload: dict[str, Any], entry: dict[str, Any]) -> None:
        """Write a prediction's payload and its entry in the vault, together with others."""
        self._payloads.append(payload)
        self._entries.append(entry)

    def finish(self) -> None:
        """Write what was put off."""
        if self._payloads:
            self.connection.execute(insert(prediction_payloads), self._payloads)
            self.connection.execute(insert(vault_entries), self._entries)
            self._payloads, self._entries = [], []


Write = Callable[[Transaction], Result | RequestRefused]
