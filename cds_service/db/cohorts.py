"""The rows an export is made of, one a prediction, oldest first. SQL only.

Of patients whose reading is restricted there are none, and none whose payload was erased. Called by
`varsel export`, which puts on record what it reads before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Engine, RowMapping, select
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.patients import SEALED
from cds_service.db.reader import OF_PREDICTION, unreadable
from cds_service.db.restriction import IS_RESTRICTED
from cds_service.db.tables import prediction_payloads, predictions, vault_entries, vault_keys

_AT_ONCE = 500
_TOLD = (
    "prediction_id", "organisation", "unit", "model_id", "model_version", "mode", "state", "arm",
    "attempt", "as_of", "index_time", "computed_at", "status", "returned", "patient_pseudonym",
    "pseudonym_key",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cohort:
    """Which predictions: of an organisation, of a model or all, computed from a time on and before
    another; scored ones only, or all."""

    organisation: str
    model_id: str | None = None
    from_: datetime | None = None
    to: datetime | None = None
    scored: bool = False


def organisations_in(engine: Engine) -> list[str]:
    """The organisations the log holds predictions of. Raises LogUnavailable."""
    query = select(predictions.c.organisation).distinct().order_by(predictions.c.organisation)
    try:
        with engine.connect() as connection:
            return list(connection.execute(query).scalars())
    except SQLAlchemyError as error:
        raise unreadable(error) from None


def cohort_rows(engine: Engine, cohort: Cohort, *, sealed: bool = False) -> Iterator[RowMapping]:
    """The predictions with their features and documents; `sealed`: with what opens their entry in
    the vault. Read a few hundred at a time. Raises LogUnavailable.
    """
    query = (
        select(
            *(predictions.c[name] for name in _TOLD),
            prediction_payloads.c.features,
            prediction_payloads.c.document,
            *(SEALED if sealed else ()),
        )
        .join_from(predictions, prediction_payloads, OF_PREDICTION)
        .where(*_conditions(cohort), ~IS_RESTRICTED)
        .order_by(predictions.c.computed_at, predictions.c.prediction_id)
    )
    if sealed:
        query = query.outerjoin(
            vault_entries, predictions.c.prediction_id == vault_entries.c.prediction_id
        ).outerjoin(vault_keys, vault_entries.c.key_id == vault_keys.c.id)
    try:
        with engine.connect().execution_options(yield_per=_AT_ONCE) as connection:
            yield from connection.execute(query).mappings()
    except SQLAlchemyError as error:
        raise unreadable(error) from None


def _conditions(cohort: Cohort) -> list[ColumnElement[bool]]:
    c = predictions.c
    found: list[ColumnElement[bool]] = [c.organisation == cohort.organisation]
    if cohort.model_id is not None:
        found.append(c.model_id == cohort.model_id)
    if cohort.from_ is not None:
        found.append(c.computed_at >= cohort.from_)
    if cohort.to is not None:
        found.append(c.computed_at < cohort.to)
    if cohort.scored:
        found.append(c.status == "scored")
    return found
