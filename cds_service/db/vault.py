"""The vault's SQL: patients' data keys. Called by the log's writer.

A key is made when a patient is first predicted for. Keys just used are remembered; that one was
destroyed meanwhile shows, because an entry cannot be written without its key's row. With a key
stands the pseudonym of the CPR number that was sent last.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from cds_service.db.tables import vault_keys
from cds_service.identities.vault import Vault, Wrapped

_INSERT: dict[str, Any] = {
    "sqlite": sqlite.insert(vault_keys).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(vault_keys).on_conflict_do_nothing(),
}
_MOST_REMEMBERED = 4096

_c = vault_keys.c
_FIND = select(_c.id, _c.seal_key, _c.wrapped, _c.cpr_pseudonym).where(
    _c.organisation == bindparam("organisation"), _c.patient_pseudonym == bindparam("patient")
)


class DataKey(NamedTuple):
    """A patient's data key, ready for use, the id of its row, and the CPR number's pseudonym.

    `is_new`: whether it was made for the row that is asked about now.
    """

    id: str
    key: AESGCM
    cpr_pseudonym: str | None
    is_new: bool = False


class KeyStore:
    """The data keys of patients, found or made within a transaction. One per writer."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._remembered: OrderedDict[tuple[str, str], DataKey] = OrderedDict()

    def forget(self) -> None:
        """Forget every key, so that each is looked up again."""
        self._remembered.clear()

    def key_for(self, connection: Connection, row: Mapping[str, Any]) -> DataKey:
        """The data key of the patient a prediction's row is about. Raises SealBroken."""
        patient = row["organisation"], row["patient_pseudonym"]
        known = self._remembered.get(patient)
        if known is None:
            known = self._look_up(connection, row)
            self._remembered[patient] = known._replace(is_new=False)
            if len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        cpr = row.get("cpr_pseudonym")
        if cpr not in (None, known.cpr_pseudonym):
            note = update(vault_keys).where(_c.id == known.id).values(cpr_pseudonym=cpr)
            connection.execute(note)
            known = self._remembered[patient] = known._replace(cpr_pseudonym=cpr)
        return known

    def take_back(self, connection: Connection, row: Mapping[str, Any], key_id: str) -> None:
        """Remove a key that was new for a row which is not stored: nothing is sealed under it."""
        connection.execute(delete(vault_keys).where(_c.id == key_id))
        del self._remembered[row["organisation"], row["patient_pseudonym"]]

    def _look_up(self, connection: Connection, row: Mapping[str, Any]) -> DataKey:
        return self._found(connection, row) or self._made(connection, row)

    def _made(self, connection: Connection, row: Mapping[str, Any]) -> DataKey:
        """A new key; or the one another process made at the same moment."""
        new = self._vault.new_key(str(uuid.uuid4()), row["organisation"])
        values = self._values(row, new)
        if connection.execute(_INSERT[connection.dialect.name], values).rowcount:
            made = new.key_id, self._vault.data_key(new), values["cpr_pseudonym"]
            return DataKey(*made, is_new=True)
        found = self._found(connection, row)
        assert found is not None  # noqa: S101 - it kept ours from being written
        return found

    def _found(self, connection: Connection, row: Mapping[str, Any]) -> DataKey | None:
        patient = {"organisation": row["organisation"], "patient": row["patient_pseudonym"]}
        found = connection.execute(_FIND, patient).one_or_none()
        if found is None:
            return None
        held = Wrapped(found.id, row["organisation"], found.seal_key, found.wrapped)
        return DataKey(found.id, self._vault.data_key(held), found.cpr_pseudonym)

    def _values(self, row: Mapping[str, Any], made: Wrapped) -> dict[str, Any]:
        return {
            "id": made.key_id,
            "organisation": made.organisation,
            "patient_pseudonym": row["patient_pseudonym"],
            "cpr_pseudonym": row.get("cpr_pseudonym"),
            "pseudonym_key": row["pseudonym_key"],
            "seal_key": made.seal_key,
            "wrapped": made.wrapped,
            "created_at": datetime.now(UTC),
        }
