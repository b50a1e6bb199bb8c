"""Predictions about made-up patients, as the service logs them, and keys to change.

Used by the tests of `varsel privacy`; the rows are those of `tests/logged.py` with pseudonyms and
references that belong together.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, select

from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.tables import metadata
from cds_service.identities.keyring import read_ring
from cds_service.identities.privacy import Privacy
from cds_service.settings import Keys
from tests.logged import a_row

BASE = "https://ehr.example/fhir"
PATIENT, OTHER = "patient-id-2718", "patient-id-3141"
CPR = "0311361234"
HOLDER = "org-a"


def key(letter: str, name: str = "0") -> str:
    """A key as a setting holds it."""
    return f"{name}:{base64.b64encode(letter.encode() * 32).decode()}"


def privacy_with(pseudonym: str, seal: str) -> Privacy:
    """Privacy under keys as settings hold them."""
    return Privacy(Keys(read_ring("P", pseudonym), read_ring("S", seal)))


def about(
    privacy: Privacy, patient: str = PATIENT, *, cpr: str | None = None, **given: Any
) -> dict[str, Any]:
    """A row about a patient and their contact, as `log_row` makes it."""
    organisation = given.setdefault("organisation", HOLDER)
    encounter = f"enc-of-{patient}"
    references = {
        "fhir_base": BASE, "patient": patient, "cpr": cpr, "encounter": encounter,
        "user": "Practitioner/secret-user-7", "sources": {"age": [f"Patient/{patient}"]},
    }  # fmt: skip
    said = {"heads": [{"head": "h", "outcome": "readmission", "horizon_days": 30, "risk": 0.271}]}
    made = {
        "patient_pseudonym": privacy.pseudonym(organisation, BASE, "Patient", patient),
        "encounter_pseudonym": privacy.pseudonym(organisation, BASE, "Encounter", encounter),
        "cpr_pseudonym": privacy.pseudonym(organisation, "CPR", cpr) if cpr else None,
        "pseudonym_key": privacy.pseudonym_key,
        "references": json.dumps(references).encode(),
        "document": json.dumps(said),
        "response": json.dumps({"cards": [{"summary": "Risiko 27,1 %"}]}),
        "index_time": a_row()["computed_at"],
    }
    return a_row(**{**made, **given})


def logged(url: str, privacy: Privacy, *rows: Mapping[str, Any]) -> list[str]:
    """The ids of rows, stored."""
    with PredictionLog(open_engine(url), privacy) as log:
        return [log.store(dict(row)).result(30).prediction_id for row in rows]


def every_value(engine: Engine) -> bytes:
    """Every value of every table, in one text of bytes."""
    with engine.connect() as connection:
        values = [
            value
            for table in metadata.sorted_tables
            for row in connection.execute(select(table))
            for value in row
        ]
    return b"\n".join(v if isinstance(v, bytes) else str(v).encode() for v in values)


def table(engine: Engine, name: str) -> list[dict[str, Any]]:
    """The rows of a table; of the audit trail, oldest first: PostgreSQL gives them in any order."""
    with engine.connect() as connection:
        asked = metadata.tables[name]
        query = select(asked).order_by(asked.c.at) if name == "audit_entries" else select(asked)
        rows = connection.execute(query).mappings()
        return [dict(row) for row in rows]
