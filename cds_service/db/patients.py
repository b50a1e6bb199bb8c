"""One patient's rows in the log: found by pseudonym or CPR number, counted, read whole. SQL only.

Called by the commands of `varsel privacy`, which put on record that they look before they do. How
many patients are restricted, or stand under an older key, is counted here too: for an operator.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Engine, RowMapping, Select, and_, exists, func, select
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.reader import WHOLE, unreadable
from cds_service.db.restriction import IS_RESTRICTED, STANDS
from cds_service.db.tables import erasures, predictions, vault_entries, vault_keys

SEALED = (
    vault_entries.c.key_id,
    vault_entries.c.sealed,
    vault_keys.c.wrapped,
    vault_keys.c.seal_key,
)
"""What it takes to open an entry of the vault, besides the prediction's id and organisation."""


class Named(NamedTuple):
    """A patient as a FHIR server knows them."""

    fhir_base: str
    patient: str


@dataclass(frozen=True, slots=True)
class Whom:
    """A patient of an organisation, by every pseudonym there is of them.

    `pseudonyms`: by pseudonym, the id of the key it was made with; the one in use first.
    `named`: by pseudonym of the key in use, which patient of which FHIR server that is, where it
    was said who is meant.
    """

    organisation: str
    pseudonyms: Mapping[str, str]
    named: Mapping[str, Named] = field(default_factory=dict)


def of_patient(whom: Whom) -> ColumnElement[bool]:
    """Which rows of `predictions` are about a patient."""
    return and_(
        predictions.c.organisation == whom.organisation,
        predictions.c.patient_pseudonym.in_(whom.pseudonyms),
    )


def entries_by_cpr(engine: Engine, organisation: str, cpr: Collection[str]) -> list[RowMapping]:
    """Of each data key that stands with one of these pseudonyms of a CPR number, its newest entry
    in the vault, sealed: it says which patient of which FHIR server that is. Raises LogUnavailable.
    """
    keys = select(vault_keys.c.id).where(
        vault_keys.c.organisation == organisation, vault_keys.c.cpr_pseudonym.in_(cpr)
    )
    entry = (
        select(predictions.c.prediction_id, predictions.c.organisation, *SEALED)
        .join_from(vault_entries, vault_keys, vault_entries.c.key_id == vault_keys.c.id)
        .join(predictions, predictions.c.prediction_id == vault_entries.c.prediction_id)
        .order_by(predictions.c.computed_at.desc())
        .limit(1)
    )
    ids = [row["id"] for row in _read(engine, keys)]
    return [row for one in ids for row in _read(engine, entry.where(vault_entries.c.key_id == one))]


def count_by_pseudonym(engine: Engine, whom: Whom) -> dict[str, int]:
    """By pseudonym, how many predictions stand under it. Raises LogUnavailable."""
    c = predictions.c
    query = select(c.patient_pseudonym, func.count().label("n")).where(of_patient(whom))
    found = _read(engine, query.group_by(c.patient_pseudonym))
    counted = {row["patient_pseudonym"]: row["n"] for row in found}
    return {pseudonym: counted.get(pseudonym, 0) for pseudonym in whom.pseudonyms}


def is_restricted(engine: Engine, whom: Whom) -> bool:
    """Whether nobody may read of the patient now. Raises LogUnavailable."""
    query = select(predictions.c.prediction_id).where(of_patient(whom), IS_RESTRICTED).limit(1)
    return bool(_read(engine, query))


def count_restricted(engine: Engine, organisation: str) -> int:
    """How many patients of an organisation have predictions that nobody may read now, by pseudonym.

    Raises LogUnavailable.
    """
    c = erasures.c
    has_any = exists().where(
        predictions.c.organisation == c.organisation,
        predictions.c.patient_pseudonym == c.patient_pseudonym,
    )
    query = select(func.count(c.patient_pseudonym.distinct()).label("n"))
    (found,) = _read(engine, query.where(c.organisation == organisation, STANDS, has_any))
    return int(found["n"])


def warnings_of_restrictions(engine: Engine, current: str) -> list[str]:
    """What an operator is told where restrictions stand under another pseudonym key than the
    current one alone: they do not hold for what is predicted now. Raises LogUnavailable.
    """
    c, again = erasures.c, erasures.alias()
    # one decision about every pseudonym of a patient, or the same one repeated
    stands_here = exists().where(
        again.c.organisation == c.organisation,
        again.c.pseudonym_key == current,
        again.c.at == c.at,
        again.c.who == c.who,
        again.c.ground == c.ground,
    )
    query = select(func.count().label("n")).where(STANDS, c.pseudonym_key != current, ~stands_here)
    (found,) = _read(engine, query)
    if not found["n"]:
        return []
    said = (
        f"{found['n']} restrictions stand under another pseudonym key than the one in use, and do "
        "not hold for new predictions: run `varsel privacy rotate pseudonyms`; repeat the "
        "decisions that it leaves (docs/privacy.md)"
    )
    return [said]


def ids_of(engine: Engine, whom: Whom) -> list[str]:
    """The ids of the patient's predictions, oldest first. Raises LogUnavailable."""
    c = predictions.c
    query = select(c.prediction_id).where(of_patient(whom)).order_by(c.computed_at)
    return [row["prediction_id"] for row in _read(engine, query)]


def predictions_of(engine: Engine, whom: Whom) -> list[dict[str, Any]]:
    """The patient's predictions without what they say, oldest first. Raises LogUnavailable."""
    query = select(predictions).where(of_patient(whom)).order_by(predictions.c.computed_at)
    return [{**row} for row in _read(engine, query)]


def records_of(engine: Engine, whom: Whom) -> list[RowMapping]:
    """The patient's predictions, whole and sealed, oldest first. Raises LogUnavailable."""
    query = WHOLE.where(of_patient(whom)).order_by(predictions.c.computed_at)
    return _read(engine, query)


def decisions_about(engine: Engine, whom: Whom) -> list[dict[str, Any]]:
    """What was decided about the patient, oldest first. Raises LogUnavailable."""
    c = erasures.c
    sealed = c.sealed.is_not(None).label("identity_sealed")
    told = (c.patient_pseudonym, c.decision, c.ground, c.who, c.at, c.predictions, sealed)
    query = select(*told).where(
        c.organisation == whom.organisation, c.patient_pseudonym.in_(whom.pseudonyms)
    )
    return [{**row} for row in _read(engine, query.order_by(c.at))]


def _read(engine: Engine, query: Select[Any]) -> list[RowMapping]:
    try:
        with engine.connect() as connection:
            return list(connection.execute(query).mappings().all())
    except SQLAlchemyError as error:
        raise unreadable(error) from None
