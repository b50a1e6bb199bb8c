"""Heart Failure Clinical Records as FHIR: 299 outpatients with heart failure, once each.

Ahmad et al. 2017, doi 10.1371/journal.pone.0181001; Chicco and Jurman 2020,
doi 10.1186/s12911-020-1023-5; CC BY 4.0, UCI 519. The length of follow-up (`time`, 4 to 285 days)
leaks and is not read at all: a death counts whenever it came, and its day is drawn. What each
column becomes: docs/real-outcomes.md. Called by `outcomes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

from tests.bench.outcomes_fhir import ICD_10, LOINC, SNOMED_CT, Record, born, drawn, first_morning

Row = Mapping[str, str]

MEASURED: Mapping[str, tuple[str, str]] = {
    "ejection_fraction": ("10230-1", "%"),
    "serum_creatinine": ("2160-0", "mg/dL"),
    "serum_sodium": ("2951-2", "mmol/L"),
    "platelet": ("777-3", "/uL"),
}
"""Column to LOINC code and UCUM unit."""
COLUMNS = frozenset({"age", "sex", "diabetes", "smoking", *MEASURED})
OUTCOME_COLUMNS = frozenset({"DEATH_EVENT"})

SMOKING_STATUS = (LOINC, "72166-2")
SMOKER, NO = (SNOMED_CT, "77176002"), (SNOMED_CT, "373067005")
LONGEST_FOLLOW_UP_DAYS = 285


def records(rows: Iterable[Row]) -> Iterator[Record]:
    """Every patient; the data set has no ids, so the place in the file is one."""
    for number, row in enumerate(rows, start=1):
        yield _record(f"hf299-{number:03}", row)


def _record(patient: str, row: Row) -> Record:
    record = Record(patient)
    at = first_morning(patient)
    died = at + timedelta(days=1 + drawn(patient, "death", LONGEST_FOLLOW_UP_DAYS))
    record.patient(
        gender="male" if row["sex"] == "1" else "female",
        birth_date=born(at, float(row["age"])),
        died=died if row["DEATH_EVENT"] == "1" else None,
    )
    record.condition(at, (ICD_10, "I509"))
    if row["diabetes"] == "1":
        record.condition(at, (ICD_10, "E119"))
    record.found(at, SMOKING_STATUS, SMOKER if row["smoking"] == "1" else NO)
    for column, (code, unit) in MEASURED.items():
        record.measured(at, code, value=float(row[column]), unit=unit)
    return record
