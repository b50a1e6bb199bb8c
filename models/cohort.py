"""A cohort: features and outcomes of every eligible index stay in Bulk Data, and who was left out.

The features come from the same `FeatureSet.compute` that serves hooks; the verdict on who counts
from the same `verdict_on`. The frame has one row per index stay: `patient`, `index_time`, the
model's columns (NaN missing), `state` (event, no-event, competing, censored), `days` to the event.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fhir_adapters.bulk import index_bulk_data, read_patients
from fhir_adapters.clock import DAY_S, to_datetime
from fhir_adapters.decode import Gathered
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.facts import build_record, newest_time
from fhir_adapters.outcomes import Outcome, discharged_stays, find_readmission
from fhir_adapters.record import PatientRecord, Stay
from fhir_adapters.stays import is_admission
from models.package import Specification
from models.predict import verdict_on

KEYS = ("patient", "index_time", "state", "days")


@dataclass(frozen=True, slots=True)
class CohortRow:
    """One index stay that counts. `values` in the order of the specification's columns."""

    patient: str
    index_time: float
    values: list[float]
    outcome: Outcome


@dataclass(slots=True)
class Cohort:
    """The frame, and how many stays were left out for which reason."""

    frame: pd.DataFrame
    patients: int
    stays: int
    excluded: dict[str, int]


def build_cohort(
    spec: Specification,
    folder: Path,
    *,
    data_until: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Cohort:
    """The cohort of a folder of Bulk Data NDJSON.

    `data_until`: where the data end; by default the export's own time, else its newest resource.
    `progress` is told patients done and patients in all. Raises UnreadableInput for a folder that
    is no Bulk Data.
    """
    index = index_bulk_data(folder)
    until = data_until or index.until or _newest(read_patients(index))
    return cohort_of(spec, read_patients(index), until, total=len(index), progress=progress)


def _newest(patients: Iterable[tuple[str, Gathered]]) -> float:
    times = (newest_time(gathered) for _, gathered in patients)
    return max((t for t in times if t is not None), default=math.inf)


def cohort_of(
    spec: Specification,
    patients: Iterable[tuple[str, Gathered]],
    data_until: float,
    *,
    total: int,
    progress: Callable[[int, int], None] | None = None,
) -> Cohort:
    """The cohort of patients one by one."""
    rows: list[CohortRow] = []
    excluded: Counter[str] = Counter()
    stays = 0
    done = 0
    for done, (patient_id, gathered) in enumerate(patients, start=1):
        try:
            record = build_record(gathered, spec.wanted, patient_id=patient_id)
        except UnreadableInput:
            excluded["patient unreadable"] += 1
            continue
        for found in _index_stays(spec, record, data_until):
            stays += 1
            if isinstance(found, CohortRow):
                rows.append(found)
            else:
                excluded[found] += 1
        if progress and done % 100 == 0:
            progress(done, total)
    if progress:
        progress(done, total)
    return Cohort(_frame(spec, rows), done, stays, dict(excluded.most_common()))


def _index_stays(
    spec: Specification, record: PatientRecord, data_until: float
) -> Iterator[CohortRow | str]:
    """Every discharged stay the cohort takes, as a row or as the reason it does not count."""
    rule = spec.manifest.stay
    for stay in _taken(spec, record, data_until):
        row = spec.features.compute(record, stay.end)
        verdict = verdict_on(spec, record, row)
        if verdict.status == "not-eligible":
            yield verdict.reason or "not eligible"
        elif verdict.status == "insufficient-data":
            yield f"insufficient data: {verdict.reason}"
        else:
            outcome = find_readmission(
                record,
                stay.end,
                rule=rule,
                within_days=spec.manifest.outcome.within_days,
                data_until=data_until,
            )
            yield CohortRow(record.patient_id, stay.end, row.numbers(spec.columns), outcome)


def _taken(spec: Specification, record: PatientRecord, data_until: float) -> list[Stay]:
    """The discharged stays with enough history, every one or each patient's first.

    The first is the first admission: a short contact before it does not take its place, and stands
    for the patient only where there is no admission at all.
    """
    words = spec.manifest.cohort
    begins = min((contact.start for contact in record.contacts), default=math.inf)
    stays = [
        stay
        for stay in discharged_stays(record, spec.manifest.stay, data_until)
        if stay.start - begins >= words.history_days * DAY_S
    ]
    if words.stays == "every":
        return stays
    admissions = [s for s in stays if is_admission(s, spec.manifest.stay, s.end)]
    return (admissions or stays)[:1]


def _frame(spec: Specification, rows: list[CohortRow]) -> pd.DataFrame:
    frame = pd.DataFrame([row.values for row in rows], columns=spec.columns, dtype="float64")
    frame.insert(0, "patient", [row.patient for row in rows])
    frame.insert(
        1, "index_time", pd.to_datetime([to_datetime(r.index_time) for r in rows], utc=True)
    )
    frame["state"] = [row.outcome.state for row in rows]
    frame["days"] = [math.nan if r.outcome.days is None else r.outcome.days for r in rows]
    return frame
