"""SUPPORT2 as FHIR: seriously ill inpatients, as they were on the third day of the study.

Knaus et al. 1995 (SUPPORT prognostic model), doi 10.7326/0003-4819-122-3-199502010-00007; data
CC BY 4.0, hbiostat.org / UCI 880. `d.time` and `death` make the outcome and nothing else;
`surv6m`, the published model's own answer, is kept apart for comparison. What each column becomes:
docs/real-outcomes.md. Called by `outcomes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from tests.bench.outcomes_fhir import ICD_10, Record, born, first_morning

Row = Mapping[str, str]

MEASURED: Mapping[str, tuple[str, str]] = {
    "meanbp": ("8478-0", "mm[Hg]"),
    "hrt": ("8867-4", "/min"),
    "resp": ("9279-1", "/min"),
    "temp": ("8310-5", "Cel"),
    "wblc": ("6690-2", "10*3/uL"),
    "alb": ("1751-7", "g/dL"),
    "bili": ("1975-2", "mg/dL"),
    "crea": ("2160-0", "mg/dL"),
    "sod": ("2951-2", "mmol/L"),
    "ph": ("2744-1", "[pH]"),
    "pafi": ("50984-4", "mm[Hg]"),
    "glucose": ("2345-7", "mg/dL"),
    "bun": ("3094-0", "mg/dL"),
}
"""Column of day 3 to LOINC code and UCUM unit."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "ARF/MOSF w/Sepsis": ("J960", "A419"),
    "CHF": ("I509",),
    "COPD": ("J449",),
    "Cirrhosis": ("K746",),
    "Coma": ("R402",),
    "Colon Cancer": ("C189",),
    "Lung Cancer": ("C349",),
    "MOSF w/Malig": ("J960", "C809"),
}
"""Disease group to ICD-10; ARF/MOSF: acute respiratory failure or multiple organ system failure."""
CANCER: Mapping[str, tuple[str, ...]] = {"no": (), "yes": ("C809",), "metastatic": ("C799",)}

ANSWERED: Mapping[str, str] = {"adls": "support-adl", "scoma": "support-coma"}
"""Column of day 3 to the question of a form that asks for it: no published code means either."""

COLUMNS = frozenset(
    {"", "age", "sex", "dzgroup", "hday", "diabetes", "dementia", "ca", *MEASURED, *ANSWERED}
)
OUTCOME_COLUMNS = frozenset({"death", "d.time"})
COMPARATOR_COLUMN = "surv6m"

STUDY_DAY = timedelta(days=2)
"""From entering the study (its day 1) to the assessment on day 3."""
FOLLOWED_DAYS = 180


def records(rows: Iterable[Row]) -> Iterator[Record]:
    """Every patient whose fate at 180 days is known."""
    for row in rows:
        if row["death"] == "1" or float(row["d.time"]) >= FOLLOWED_DAYS:
            yield _record(row)


def patient_id(row: Row) -> str:
    """The patient's id: the number of the row in the whole data set."""
    return f"support2-{row['']}"


def comparator(rows: Iterable[Row]) -> dict[str, str]:
    """The risk of death within 180 days the published model gave, by patient."""
    said = ((patient_id(row), row[COMPARATOR_COLUMN]) for row in rows)
    return {patient: f"{1 - float(survival):.9f}" for patient, survival in said if survival}


def _record(row: Row) -> Record:
    record = Record(patient_id(row))
    entered = first_morning(record.patient_id)
    assessed = entered + STUDY_DAY
    dead = row["death"] == "1"
    record.patient(
        gender=row["sex"],
        birth_date=born(assessed, float(row["age"])),
        died=entered + timedelta(days=float(row["d.time"])) if dead else None,
    )
    record.encounter("IMP", entered - timedelta(days=float(row["hday"]) - 1), None)
    for code in _diagnoses(row):
        record.condition(entered, (ICD_10, code))
    _assessment(record, row, assessed)
    return record


def _diagnoses(row: Row) -> list[str]:
    codes = [*GROUPS[row["dzgroup"]], *CANCER[row["ca"]]]
    codes += ["E119"] if row["diabetes"] == "1" else []
    codes += ["F03"] if row["dementia"] == "1" else []
    return list(dict.fromkeys(codes))


def _assessment(record: Record, row: Row, at: datetime) -> None:
    for column, (code, unit) in MEASURED.items():
        if row[column]:
            record.measured(at, code, value=float(row[column]), unit=unit)
    for column, link_id in ANSWERED.items():
        if row[column]:
            record.answer(at, link_id, number=float(row[column]))
