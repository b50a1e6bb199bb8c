"""One key for another: the SQL of rotation. Called by `varsel privacy rotate`.

Small writes one after the other, each durable; a run that ends in the middle is taken up by the
next. Nothing that the chain commits to is changed: data keys are wrapped anew and entries stay as
they are, but for those older than the vault, which have no place in a chain. That is why a patient
known under two pseudonyms keeps two data keys, the second under a name of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, bindparam, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.erasure import NOBODY, remove_unused_keys
from cds_service.db.patients import SEALED
from cds_service.db.reader import unreadable
from cds_service.db.restriction import STANDS
from cds_service.db.tables import erasures, predictions, vault_entries, vault_keys
from cds_service.db.transaction import Transaction
from cds_service.errors import Erased
from cds_service.identities.privacy import Privacy
from cds_service.identities.vault import BEFORE_THE_VAULT, Vault, Wrapped

AT_A_TIME = 200
BY_NO_KEY = ""
"""The key id of a name that is no pseudonym: of a patient's second data key."""
_p, _e, _k, _d = predictions.c, vault_entries.c, vault_keys.c, erasures.c


class Part(NamedTuple):
    """How many rows a part of a rotation changed, and where it ended; None at the end."""

    changed: int
    last: str | None


@dataclass(frozen=True, slots=True)
class Rewrap:
    """The write that wraps the next data keys with the key in use."""

    vault: Vault
    after: str

    def __call__(self, tx: Transaction) -> Part:
        """Wrap them. Raises SealBroken."""
        query = (
            select(_k.id, _k.organisation, _k.seal_key, _k.wrapped)
            .where(_k.seal_key != self.vault.seal_key, _k.id > self.after)
            .order_by(_k.id)
            .limit(AT_A_TIME)
        )
        found = tx.connection.execute(query.with_for_update()).all()
        for row in found:
            new = self.vault.rewrap(Wrapped(*row))
            values = {"seal_key": new.seal_key, "wrapped": new.wrapped}
            tx.connection.execute(update(vault_keys).where(_k.id == new.key_id).values(values))
        return Part(len(found), found[-1].id if found else None)


@dataclass(frozen=True, slots=True)
class Reseal:
    """The write that seals the next entries older than the vault under patients' data keys."""

    vault: Vault
    after: str

    def __call__(self, tx: Transaction) -> Part:
        """Seal them. Raises SealBroken."""
        query = (
            select(_p.prediction_id, _p.organisation, _p.patient_pseudonym, _p.pseudonym_key)
            .add_columns(_e.sealed)
            .join_from(vault_entries, predictions, _e.prediction_id == _p.prediction_id)
            .where(_e.key_id.is_(None), _e.prediction_id > self.after)
            .where(func.substr(_e.sealed, 1, 1) == BEFORE_THE_VAULT)
            .order_by(_e.prediction_id)
            .limit(AT_A_TIME)
        )
        found = tx.connection.execute(query).mappings().all()
        for row in found:
            content = self.vault.unseal(row["prediction_id"], row["sealed"], None)
            key_id, sealed, _ = tx.sealed({**row, "references": msgspec.json.encode(content)})
            this = update(vault_entries).where(_e.prediction_id == row["prediction_id"])
            tx.connection.execute(this.values(key_id=key_id, sealed=sealed))
        return Part(len(found), found[-1]["prediction_id"] if found else None)


class Patient(NamedTuple):
    """A patient by the pseudonym that stands in the log."""

    organisation: str
    pseudonym: str


def patients_under_other_keys(
    engine: Engine, current: str, after: str
) -> tuple[set[Patient], str | None]:
    """The patients of the next predictions whose pseudonym another key made than the one in use,
    and the id of the last of these predictions; None where there are none. Raises LogUnavailable.
    """
    query = (
        select(_p.prediction_id, _p.organisation, _p.patient_pseudonym)
        .where(_p.pseudonym_key != current, _p.patient_pseudonym != NOBODY)
        .where(_p.prediction_id > after)
        .order_by(_p.prediction_id)
        .limit(AT_A_TIME)
    )
    try:
        with engine.connect() as connection:
            found = connection.execute(query).all()
    except SQLAlchemyError as error:
        raise unreadable(error) from None
    patients = {Patient(row.organisation, row.patient_pseudonym) for row in found}
    return patients, found[-1].prediction_id if found else None


@dataclass(frozen=True, slots=True)
class Rekey:
    """The write that gives a patient, and their contacts and CPR number, pseudonyms of the key in
    use. Gives how many predictions it changed.
    """

    privacy: Privacy
    patient: Patient

    def __call__(self, tx: Transaction) -> int:
        """Open every entry of the patient that can be, and compute the pseudonyms anew.

        Raises SealBroken.
        """
        rows = tx.connection.execute(self._predictions().with_for_update(of=predictions))
        opened = list(self._opened(rows.mappings()))
        if not opened:
            return 0
        named = [self._named(row, references) for row, references in opened]
        tx.connection.execute(_NAME, named)
        new = {"patient_pseudonym": named[-1]["patient"], "pseudonym_key": named[-1]["key"]}
        _carry_decisions(tx.connection, self.patient, new)
        sent = [references["cpr"] for _, references in opened if references.get("cpr")]
        cpr = self.privacy.pseudonym(self.patient.organisation, "CPR", sent[-1]) if sent else None
        keys = dict.fromkeys(row["key_id"] for row, _ in opened if row["key_id"] is not None)
        for key_id in keys:
            values = {**new, "cpr_pseudonym": cpr}
            _name_key(tx.connection, self.patient.organisation, key_id, values)
        return len(named)

    def _opened(self, rows: Iterable[RowMapping]) -> Iterator[tuple[RowMapping, Any]]:
        """The rows with their references; not those whose data key was destroyed."""
        for row in rows:
            with suppress(Erased):
                yield row, self.privacy.unseal(row)

    def _predictions(self) -> Any:
        return (
            select(_p.prediction_id, _p.organisation, *SEALED)
            .join_from(predictions, vault_entries, _e.prediction_id == _p.prediction_id)
            .outerjoin(vault_keys, _e.key_id == _k.id)
            .where(_p.organisation == self.patient.organisation)
            .where(_p.patient_pseudonym == self.patient.pseudonym)
            .order_by(_p.computed_at)
        )

    def _named(self, row: RowMapping, references: Mapping[str, Any]) -> dict[str, Any]:
        base, encounter = references["fhir_base"], references["encounter"]
        pseudonym, organisation = self.privacy.pseudonym, self.patient.organisation
        return {
            "this": row["prediction_id"],
            "patient": pseudonym(organisation, base, "Patient", references["patient"]),
            "encounter": pseudonym(organisation, base, "Encounter", encounter)
            if encounter
            else None,
            "key": self.privacy.pseudonym_key,
        }


def restrictions_under_other_keys(engine: Engine, current: str) -> list[str]:
    """The decisions by which restrictions stand that keep, sealed, whom they are about, under a
    pseudonym another key made than the one in use. Raises LogUnavailable."""
    query = select(_d.id).where(STANDS, _d.key_id.is_not(None), _d.pseudonym_key != current)
    try:
        with engine.connect() as connection:
            return list(connection.execute(query.order_by(_d.at, _d.id)).scalars())
    except SQLAlchemyError as error:
        raise unreadable(error) from None


@dataclass(frozen=True, slots=True)
class RekeyRestriction:
    """The write that takes what was decided about a restricted patient to their pseudonym of the
    key in use, predictions or none. Gives how many restrictions it took there: 1, or 0 where one
    was ended meanwhile.
    """

    privacy: Privacy
    decision_id: str

    def __call__(self, tx: Transaction) -> int:
        """Open whom it is about. Raises SealBroken."""
        query = (
            select(erasures, _k.wrapped, _k.seal_key)
            .join_from(erasures, vault_keys, _d.key_id == _k.id)
            .where(_d.id == self.decision_id, _d.pseudonym_key != self.privacy.pseudonym_key)
        )
        found = tx.connection.execute(query.with_for_update(of=erasures)).mappings().one_or_none()
        if found is None:
            return 0
        organisation = found["organisation"]
        held = Wrapped(found["key_id"], organisation, found["seal_key"], found["wrapped"])
        named = self.privacy.vault.unseal(self.decision_id, found["sealed"], held)
        patient = named["fhir_base"], "Patient", named["patient"]
        pseudonym = self.privacy.pseudonym(organisation, *patient)
        new = {"patient_pseudonym": pseudonym, "pseudonym_key": self.privacy.pseudonym_key}
        _carry_decisions(tx.connection, Patient(organisation, found["patient_pseudonym"]), new)
        _name_key(tx.connection, organisation, found["key_id"], new)
        return 1


def _carry_decisions(connection: Connection, about: Patient, new: Mapping[str, str]) -> None:
    """Put all that was decided about a patient under their new pseudonym."""
    same = (_d.organisation == about.organisation, _d.patient_pseudonym == about.pseudonym)
    connection.execute(update(erasures).where(*same).values(new))


def _name_key(
    connection: Connection, organisation: str, key_id: str, new: Mapping[str, Any]
) -> None:
    """Put a data key under its patient's new pseudonym; under a name that nobody has, where another
    data key of the patient has that."""
    pseudonym = new["patient_pseudonym"]
    same = (_k.organisation == organisation, _k.patient_pseudonym == pseudonym, _k.id != key_id)
    taken = connection.execute(select(_k.id).where(*same)).first() is not None
    apart = {
        "patient_pseudonym": secrets.token_hex(len(pseudonym) // 2),
        "pseudonym_key": BY_NO_KEY,
    }
    values = {**new, **(apart if taken else {})}
    connection.execute(update(vault_keys).where(_k.id == key_id).values(values))


_NAME = (
    update(predictions)
    .where(_p.prediction_id == bindparam("this"))
    .values(
        patient_pseudonym=bindparam("patient"),
        encounter_pseudonym=bindparam("encounter"),
        pseudonym_key=bindparam("key"),
    )
)


@dataclass(frozen=True, slots=True)
class RemoveUnused:
    """The write that removes data keys under another key's pseudonyms under which nothing is
    sealed. Gives how many."""

    current: str

    def __call__(self, tx: Transaction) -> int:
        """Remove them."""
        return remove_unused_keys(tx.connection, _k.pseudonym_key != self.current)
