"""The prediction log as it is read: the SQL of questions asked of it while it is served.

Governance asks through `db/governance.py`, those who may read from outside through `db/search.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, RowMapping, Select, and_, exists, func, select
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.restriction import IS_RESTRICTED
from cds_service.db.tables import (
    prediction_payloads,
    predictions,
    undelivered,
    vault_entries,
    vault_keys,
)
from cds_service.errors import LogUnavailable, Restricted

_FEW = 4
"""Documents fetched at a time, where the first mostly is the one looked for."""
OF_PREDICTION = and_(
    predictions.c.prediction_id == prediction_payloads.c.prediction_id,
    predictions.c.computed_at == prediction_payloads.c.computed_at,
)
"""How a payload is found; by its time too, which says in which month's table it is."""
WHOLE = (
    select(
        predictions,
        *(prediction_payloads.c[name] for name in ("features", "document", "response", "timings")),
        vault_entries.c.key_id,
        vault_entries.c.sealed,
        vault_keys.c.wrapped,
        vault_keys.c.seal_key,
    )
    .outerjoin(prediction_payloads, OF_PREDICTION)
    .outerjoin(vault_entries, predictions.c.prediction_id == vault_entries.c.prediction_id)
    .outerjoin(vault_keys, vault_entries.c.key_id == vault_keys.c.id)
)
"""A prediction with its payload and its entry in the vault, which are null where they were
erased."""


class LogReader:
    """Reads the log of one database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def read(self, prediction_id: str, *, restricted_too: bool = False) -> RowMapping | None:
        """A prediction with its payload and its entry in the vault; None where there is none.

        `restricted_too`: for who guards the patient's rights. Raises LogUnavailable, Restricted.
        """
        this = predictions.c.prediction_id == prediction_id
        if not restricted_too and self._read(select(this).where(this, IS_RESTRICTED)):
            raise Restricted("reading of this patient is restricted by decision")
        found = self._read(WHOLE.where(this))
        return found[0] if found else None

    def last_shown(self, row: Mapping[str, Any], wanted: Callable[[str], bool]) -> str | None:
        """The newest document that is wanted, of those this model sent a card for, of the patient's
        same index in the same mode; None where there is none. Raises LogUnavailable.

        Left out are the row's own call, which may be asking again because its answer was lost, and
        answers that did not reach their caller. `wanted`: a row does not say of what its card was:
        of a risk, or of an alarm alone.
        """
        same = (
            "service", "patient_pseudonym", "index_time", "package_checksum", "state", "mode",
        )  # fmt: skip
        query = (
            select(prediction_payloads.c.document)
            .join_from(predictions, prediction_payloads, OF_PREDICTION)
            .where(*(predictions.c[name] == row[name] for name in same))
            # not by the index of organisation and time, along which SQLite would look at all of it
            .where(predictions.c.organisation.concat("") == row["organisation"])
            .where(predictions.c.status == "scored", predictions.c.returned == "card")
            .where(predictions.c.hook_instance != row["hook_instance"])
            .where(~exists().where(undelivered.c.prediction_id == predictions.c.prediction_id))
            .order_by(predictions.c.computed_at.desc())
        )
        try:
            with (
                self.engine.connect().execution_options(yield_per=_FEW) as connection,
                connection.execute(query).scalars() as documents,
            ):
                return next(filter(wanted, documents), None)
        except SQLAlchemyError as error:
            raise unreadable(error) from None

    def features_since(self, model_id: str, version: str, since: datetime) -> list[RowMapping]:
        """Features and documents of what a version scored from a time on, oldest first; not of
        patients whose reading is restricted.

        One row a call: of several attempts the last, so that asking often does not count often.
        """
        c, payload = predictions.c, prediction_payloads.c
        query = (
            select(
                c.organisation,
                payload.features,
                payload.document,
                c.patient_pseudonym,
                func.coalesce(c.attempt_of, c.prediction_id).label("call"),
            )
            .join_from(predictions, prediction_payloads, OF_PREDICTION)
            # nothing is computed before the moment it is computed for: earlier months are not read
            .where(c.model_id == model_id, c.as_of >= since, payload.computed_at >= since)
            .where(c.model_version == version, c.status == "scored", ~IS_RESTRICTED)
            .order_by(c.as_of, c.attempt)
        )
        return list({row["call"]: row for row in self._read(query)}.values())

    def ping(self) -> None:
        """Raise LogUnavailable where the database does not answer."""
        self._read(select(predictions.c.prediction_id).limit(1))

    def _read(self, query: Select[Any]) -> list[RowMapping]:
        try:
            with self.engine.connect() as connection:
                return list(connection.execute(query).mappings().all())
        except SQLAlchemyError as error:
            raise unreadable(error) from None


def unreadable(error: SQLAlchemyError) -> LogUnavailable:
    """The error without the statement, which holds ids."""
    return LogUnavailable(f"the prediction log cannot be read ({type(error).__name__})")
