"""Predictions for the bench of the log: one real hook call, and as many like it as wanted.

Ids are hashes, as the product's are, so that they fall anywhere in an index; times go on from row
to row through 24 months, as they do in life; seals are random bytes, which no database can make
smaller. Every row is the next link of its organisation's chain of the day, placed there by the
product's own `chain.Writer`, so that `varsel log verify` finds nothing wrong.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import Engine, Table, insert, select

from cds_service.app import create_app
from cds_service.db.log import open_engine
from cds_service.db.tables import prediction_payloads, predictions, vault_entries, vault_keys
from cds_service.evidence import chain
from cds_service.identities.privacy import Privacy, uuid_v8
from cds_service.settings import Settings

Row = dict[str, Any]
MONTHS = 24
PER_PATIENT = 5
ORGANISATIONS = tuple(f"organisation-{number}" for number in range(4))
MODELS = ("copd-deterioration", "crc-surgery", "hf-deterioration", "readmission-30d")
BATCH = 2000
_TABLES = (vault_keys, predictions, prediction_payloads, vault_entries)


@dataclass(frozen=True, slots=True)
class Template:
    """A real call: the row its log was given, the rows that stand in each table, and the keys."""

    given: Row
    rows: Mapping[str, Row]
    privacy: Privacy

    def call(self, number: int) -> Row:
        """The row of another call of now; five in a row are about one patient."""
        own = {name: str(uuid.uuid4()) for name in ("prediction_id", "hook_instance")}
        digests = {name: uuid.uuid4().hex * 2 for name in ("content_digest", "context_digest")}
        own["patient_pseudonym"] = _digest("caller", number // PER_PATIENT).hex()[:32]
        return self.given | own | digests | {"computed_at": datetime.now(UTC)}


def real_call() -> Template:
    """The bundled demo request, answered by the whole service."""
    request = json.loads(files("cds_service").joinpath("demo/hook-request.json").read_text("utf-8"))
    with tempfile.TemporaryDirectory(prefix="varsel-bench-") as folder:
        settings = Settings(profile="demo", state_dir=Path(folder))
        app = create_app(settings)
        given: list[Row] = []
        with TestClient(app) as client:
            log = app.state.service.log
            store = log.store

            def noted(row: Row, *rest: Any) -> Any:
                given.append(row)
                return store(row, *rest)

            log.store = noted
            client.post("/cds-services/readmission-30d", json=request).raise_for_status()
        engine = open_engine(settings.database)
        rows = {table.name: _only_row(engine, table) for table in _TABLES}
        engine.dispose()
        return Template(given[0], rows, Privacy(settings.keys))


def _only_row(engine: Engine, table: Table) -> Row:
    with engine.connect() as connection:
        return dict(connection.execute(select(table)).mappings().one())


# ---- as many as wanted ----------------------------------------------------------------------


def load(engine: Engine, template: Template, count: int, until: datetime) -> Iterator[float]:
    """Insert so many predictions of the months before `until`; the seconds of each batch."""
    writer = chain.Writer()
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        made: dict[Table, list[Row]] = {table: [] for table in _TABLES}
        for number in numbers:
            rows_of_it = _prediction(template, number, count, until)
            for table, row in _chained(writer, rows_of_it).items():
                made[table].append(row)
        began = datetime.now(UTC)
        with engine.begin() as connection:
            for table, rows in made.items():
                if rows:
                    connection.execute(insert(table), rows)
        yield (datetime.now(UTC) - began).total_seconds()


def prediction_id(number: int) -> str:
    """The id of a prediction by its number."""
    return str(uuid_v8(_digest("prediction", number)))


def patient_of(number: int, count: int) -> tuple[str, str]:
    """Organisation and pseudonym of the patient a prediction is about."""
    patient = number % max(1, count // PER_PATIENT)
    return ORGANISATIONS[patient % len(ORGANISATIONS)], _digest("patient", patient).hex()[:32]


def time_of(number: int, count: int, until: datetime) -> datetime:
    """When a prediction was computed."""
    span = timedelta(days=MONTHS * 30)
    return until - span + number * (span / count)


def _chained(writer: chain.Writer, rows: Mapping[Table, Row]) -> Mapping[Table, Row]:
    """The rows of a prediction as the next link of its chain; in the place of those given."""
    row, payload = rows[predictions], rows[prediction_payloads]
    said = payload | row | {"sealed": rows[vault_entries]["sealed"]}
    placed = writer.place(chain.PREDICTION, said, today=row["computed_at"].date())
    writer.take(row["organisation"], placed)
    salt = placed.pop("salt")
    chained = {predictions: row | placed, prediction_payloads: payload | {"salt": salt}}
    return {**rows, **chained}


def _prediction(
    template: Template, number: int, count: int, until: datetime
) -> Mapping[Table, Row]:
    """The rows of a prediction; with its patient's key where it is the patient's first."""
    own, at = prediction_id(number), time_of(number, count, until)
    organisation, pseudonym = patient_of(number, count)
    patient = {"organisation": organisation, "patient_pseudonym": pseudonym}
    key_id = str(uuid_v8(_digest("key", number % max(1, count // PER_PATIENT))))
    row, payload = template.rows["predictions"], template.rows["prediction_payloads"]
    texts = {n: payload[n].replace(row["prediction_id"], own) for n in ("document", "response")}
    sealed = random.Random(number).randbytes(len(template.rows["vault_entries"]["sealed"]))
    made = {
        predictions: row | patient | {
            "prediction_id": own,
            "hook_instance": str(uuid_v8(_digest("instance", number))),
            "content_digest": _digest("content", number).hex(),
            "context_digest": _digest("context", number).hex(),
            "encounter_pseudonym": _digest("encounter", number).hex()[:32],
            "model_id": MODELS[number % len(MODELS)],
            "service": MODELS[number % len(MODELS)],
            "as_of": at, "index_time": at, "computed_at": at,
        },
        prediction_payloads: payload | texts | {"prediction_id": own, "computed_at": at},
        vault_entries: {"prediction_id": own, "key_id": key_id, "sealed": sealed},
    }  # fmt: skip
    if number < max(1, count // PER_PATIENT):
        made[vault_keys] = template.rows["vault_keys"] | patient | {"id": key_id, "created_at": at}
    return made


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()
