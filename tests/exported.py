"""A logged cohort for tests of exports: the bundled model's answers to its own reference rows.

Values are of invented patients; risks, bands, seals and chain are made by the code that serves.
Points are left out: an export does not read them, and they take longest.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from cds_service.assess import Asked, Assessment, log_row
from cds_service.db.log import PredictionLog, open_engine
from cds_service.identities.privacy import Privacy
from cds_service.settings import Settings
from fhir_adapters.clock import to_iso
from fhir_adapters.decode import decode_bundle
from fhir_adapters.facts import build_record
from fhir_adapters.features.row import FeatureRow, FeatureValue
from models.package import Package
from models.predict import band_of
from models.prediction import HeadPrediction, ModelRef, Prediction, Standing
from tests.conftest import bundled_package
from tests.logged import NOW

BASE = "https://fhir.example/r4"
ORGANISATION = "hospital"
SOMEBODY = (
    b'{"resourceType": "Bundle", "type": "collection", '
    b'"entry": [{"resource": {"resourceType": "Patient", "id": "x"}}]}'
)
Values = Mapping[str, float]


@cache
def reference() -> pd.DataFrame:
    """The bundled model's reference rows."""
    return pd.read_csv(bundled_package().folder / "reference.csv")


def _values(number: int) -> dict[str, float]:
    return {str(name): float(value) for name, value in reference().iloc[number].dropna().items()}


def cpr_of(number: int) -> str:
    """An invented CPR number of a patient: a date that is one, and four digits."""
    return f"{1 + number % 28:02d}{1 + number % 12:02d}{30 + number % 60:02d}{9000 + number:04d}"


@cache
def answered(number: int) -> tuple[Prediction, FeatureRow]:
    """What the model says of one reference row."""
    return predicted(_values(number), number)


def predicted(values: Values, number: int) -> tuple[Prediction, FeatureRow]:
    """What the model says of some values, as of a day of its own."""
    package = bundled_package()
    at = NOW - timedelta(days=number % 80)
    row = FeatureRow(at.timestamp(), None, _features(package, values, at), ())
    prediction = Prediction(
        prediction_id="", service=package.id,
        model=ModelRef(package.id, package.manifest.version, package.checksum),
        standing=Standing(state="live"), synthetic=True, mode="live", returned="card",
        as_of=to_iso(at.timestamp()), computed_at=to_iso(at.timestamp()),
        index_time=to_iso(at.timestamp()), status="scored", reason=None, language="da",
        heads=[_head(package, row)],
    )  # fmt: skip
    return prediction, row


def _head(package: Package, row: FeatureRow) -> HeadPrediction:
    (head,), (spec,) = package.heads, package.manifest.heads
    risk = float(head.model.risk(np.array([row.numbers(package.columns)]))[0])
    return HeadPrediction(
        head=spec.id, outcome=spec.outcome, horizon_days=spec.horizon_days, status="scored",
        risk=risk, reference_risk=head.model.reference_risk, threshold=spec.threshold,
        band=band_of(spec, risk).id, contributions=[],
    )  # fmt: skip


def _features(package: Package, values: Values, at: datetime) -> dict[str, FeatureValue]:
    return {
        name: FeatureValue(name, values[name], "measured", time=at.timestamp())
        if name in values
        else FeatureValue(name, None, "missing", reason="missing")
        for name in package.columns
    }


def log_cohort(
    settings: Settings,
    size: int,
    *,
    visits: int = 1,
    changed: Mapping[int, Values] | None = None,
    **asked: Any,
) -> list[str]:
    """Log answers of `size` patients, `visits` each; their CPR numbers. `changed`: other values of
    some patients; `asked`: of all calls, such as unit="A"."""
    privacy = Privacy(settings.keys)
    with PredictionLog(open_engine(settings.database), privacy) as log:
        waiting = [
            log.store(_row(number, visit, privacy, (changed or {}).get(number), asked))
            for number in range(size)
            for visit in range(visits)
        ]
        for one in waiting:
            one.result(30)
    return [cpr_of(number) for number in range(size)]


def _row(
    number: int, visit: int, privacy: Privacy, changed: Values | None, asked: Mapping[str, Any]
) -> dict[str, Any]:
    prediction, row = answered(number)
    if changed:
        prediction, row = predicted(_values(number) | dict(changed), number)
    call = f"{number:08d}-0000-4000-8000-{visit:012d}"
    given: dict[str, Any] = {
        "organisation": ORGANISATION, "caller": "ehr", "hook": "encounter-discharge",
        "hook_instance": call, "content_digest": call, "context_digest": call, "fhir_base": BASE,
        "patient_id": f"patient-{number}", "encounter_id": None, "user_id": None,
        "cpr": cpr_of(number),
    }  # fmt: skip
    record = build_record(decode_bundle(SOMEBODY), bundled_package().wanted)
    made = Assessment(prediction, record, row)
    whose = Asked(**(given | dict(asked)))
    own = uuid.uuid5(uuid.NAMESPACE_OID, f"{whose.organisation} {call}")
    return log_row(made, whose, privacy) | {"prediction_id": str(own)}
