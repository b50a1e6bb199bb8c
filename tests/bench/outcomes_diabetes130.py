"""Diabetes 130-US hospitals as FHIR: one patient's rows become stays, each with what followed it.

Strack et al. 2014, doi 10.1155/2014/781670, CC BY 4.0. A row is a stay of diabetic inpatients with
counts of contacts in the year before and whether a readmission came within 30 days, later, or not.
What each column becomes: docs/real-outcomes.md. Called by `outcomes`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cache
from itertools import groupby
from pathlib import Path

from tests.bench.outcomes_fhir import (
    ATC,
    ICD_9_CM,
    ICD_10,
    SNOMED_CT,
    YEAR_DAYS,
    Record,
    born,
    drawn,
    first_morning,
)

Row = Mapping[str, str]

DRUGS: Mapping[str, str] = {
    "metformin": "A10BA02",
    "repaglinide": "A10BX02",
    "nateglinide": "A10BX03",
    "chlorpropamide": "A10BB02",
    "glimepiride": "A10BB12",
    "acetohexamide": "A10BB31",
    "glipizide": "A10BB07",
    "glyburide": "A10BB01",
    "tolbutamide": "A10BB03",
    "pioglitazone": "A10BG03",
    "rosiglitazone": "A10BG02",
    "acarbose": "A10BF01",
    "miglitol": "A10BF02",
    "troglitazone": "A10BG01",
    "tolazamide": "A10BB05",
    "insulin": "A10A",
    "glyburide-metformin": "A10BD02",
    "glipizide-metformin": "A10BD02",
    "glimepiride-pioglitazone": "A10BD06",
    "metformin-rosiglitazone": "A10BD03",
    "metformin-pioglitazone": "A10BD05",
}
"""Column to ATC code (WHO ATC index; glyburide is glibenclamide)."""

COLUMNS = frozenset(
    {
        "encounter_id", "patient_nbr", "gender", "age", "admission_type_id",
        "discharge_disposition_id", "admission_source_id", "time_in_hospital", "num_procedures",
        "num_medications", "number_outpatient", "number_emergency", "number_inpatient",
        "diag_1", "diag_2", "diag_3", "max_glu_serum", "A1Cresult", *DRUGS,
    }
)  # fmt: skip
OUTCOME_COLUMNS = frozenset({"readmitted"})

# IDS_mapping.csv of the data set
DIED = frozenset({"11", "19", "20", "21"})
HOSPICE = frozenset({"13", "14"})
TO_NURSING_HOME = frozenset({"3", "4", "15", "24"})  # skilled, intermediate, swing bed, Medicaid
TO_HOME_CARE = frozenset({"6", "8"})  # home health service, home IV provider
TO_REHABILITATION = "22"
DISPOSITION_UNKNOWN = frozenset({"18", "25", "26"})
FROM_NURSING_HOME = "5"
FROM_EMERGENCY_ROOM = "7"
PRIORITY = {"1": "EM", "2": "UR", "3": "EL", "7": "EM"}  # emergency, urgent, elective, trauma

# Bands of the data set, and the value that stands for each: its middle, or the band's limit and
# half a step more. Columns give no more than the band.
HBA1C_PERCENT = {"Norm": 6.0, ">7": 7.5, ">8": 9.0}
GLUCOSE_MG_DL = {"Norm": 100.0, ">200": 250.0, ">300": 350.0}
INSULIN_DOSES = {"Steady": (1.0, 1.0), "Up": (1.0, 2.0), "Down": (2.0, 1.0)}

LIVES_IN_NURSING_HOME = (SNOMED_CT, "160734000")
HOME_CARE = (SNOMED_CT, "60689008")
PALLIATIVE = (ICD_10, "Z515")
UNNAMED_DRUG = "http://example.org/diabetes130/unnamed-drug"
PROCEDURE = "http://example.org/diabetes130/procedure"
REHABILITATION_LINK = "discharge-rehabilitation"

SLOT = timedelta(days=450)
"""From one row's year before to the next row's of the patient: 365 days, at most 14 in hospital,
at most 62 until a readmission is over."""
YEAR = timedelta(days=365)
BAND_DAYS = 3_650
LATEST_EARLY_DAY, LATEST_LATE_DAY = 29, 60


def records(rows: Iterable[Row]) -> Iterator[Record]:
    """Every patient of the rows, in the order of ids."""
    ordered = sorted(rows, key=lambda row: (row["patient_nbr"], *_when(row)))
    for number, of_patient in groupby(ordered, key=lambda row: row["patient_nbr"]):
        yield _record(f"d130-{number}", list(of_patient))


def _when(row: Row) -> tuple[bool, int]:
    """The order of a patient's rows: ids rise with time; death comes last (11 are out of order)."""
    return row["discharge_disposition_id"] in DIED, int(row["encounter_id"])


def _record(patient_id: str, rows: list[Row]) -> Record:
    record = Record(patient_id)
    start = first_morning(patient_id) + YEAR
    starts = [start + place * SLOT for place in range(len(rows))]
    died = None
    for row, admitted in zip(rows, starts, strict=True):
        discharged = admitted + timedelta(days=int(row["time_in_hospital"]), hours=4)
        died = discharged if row["discharge_disposition_id"] in DIED else None
        _before(record, row, admitted)
        _stay(record, row, admitted, discharged)
        _discharge(record, row, discharged)
        if not died:
            _after(record, row, discharged)
    record.patient(
        gender=rows[0]["gender"].lower() if rows[0]["gender"] in ("Male", "Female") else "unknown",
        birth_date=_birth_date(patient_id, rows[0], starts[0]),
        died=died,
    )
    return record


def _birth_date(patient_id: str, first: Row, admitted: datetime) -> str:
    """A birth date drawn evenly from the ten-year band of the patient's first row.

    Of no later row: rows lie years apart here, so an age that suited them all would tell the model
    how many are to come, which is to say whether the patient was admitted again.
    """
    youngest = int(first["age"].strip("[)").split("-")[0])
    drawn_days = drawn(patient_id, "birth", BAND_DAYS)
    return born(admitted, youngest + (drawn_days + 1) / YEAR_DAYS)


def _before(record: Record, row: Row, admitted: datetime) -> None:
    """The contacts of the year before, evenly over it; one of 20 hours is an admission."""
    kinds = ("number_inpatient", "IMP", 20), ("number_emergency", "EMER", 2), (
        "number_outpatient", "AMB", 1,
    )  # fmt: skip
    contacts = [
        (kind, timedelta(hours=hours))
        for column, kind, hours in kinds
        for _ in range(int(row[column]))
    ]
    for place, (kind, length) in enumerate(contacts, start=1):
        start = admitted - YEAR * place / (len(contacts) + 1)
        record.encounter(kind, start, start + length)
    if row["admission_source_id"] == FROM_NURSING_HOME:
        record.condition(admitted - timedelta(days=1), LIVES_IN_NURSING_HOME)


def _stay(record: Record, row: Row, admitted: datetime, discharged: datetime) -> None:
    at = admitted + timedelta(hours=1)
    named = [row[f"diag_{place}"] for place in (1, 2, 3)]
    diagnoses = [record.condition(at, *diagnosis(code)) if code != "?" else None for code in named]
    priority = PRIORITY.get(row["admission_type_id"])
    if priority is None and row["admission_source_id"] == FROM_EMERGENCY_ROOM:
        priority = "EM"
    record.encounter("IMP", admitted, discharged, priority=priority, principal=diagnoses[0])
    for place in range(int(row["num_procedures"])):
        record.procedure(at, (PROCEDURE, str(place + 1)))
    if row["A1Cresult"] in HBA1C_PERCENT:
        record.measured(at, "4548-4", value=HBA1C_PERCENT[row["A1Cresult"]], unit="%")
    if row["max_glu_serum"] in GLUCOSE_MG_DL:
        record.measured(at, "2345-7", value=GLUCOSE_MG_DL[row["max_glu_serum"]], unit="mg/dL")
    _medicines(record, row, at, discharged)


def _medicines(record: Record, row: Row, at: datetime, discharged: datetime) -> None:
    """The named antidiabetics, insulin by two orders, and the rest of the count without names."""
    taken = {DRUGS[name] for name in DRUGS if row[name] != "No"}
    for code in sorted(taken - {DRUGS["insulin"]}):
        record.medicine(at, (ATC, code))
    if row["insulin"] in INSULIN_DOSES:
        first, last = INSULIN_DOSES[row["insulin"]]
        record.medicine(at, (ATC, DRUGS["insulin"]), first)
        record.medicine(discharged - timedelta(hours=1), (ATC, DRUGS["insulin"]), last)
    for place in range(int(row["num_medications"]) - len(taken)):
        record.medicine(at, (UNNAMED_DRUG, str(place + 1)))


def _discharge(record: Record, row: Row, discharged: datetime) -> None:
    at = discharged - timedelta(hours=1)
    to = row["discharge_disposition_id"]
    if to in TO_NURSING_HOME:
        record.condition(at, LIVES_IN_NURSING_HOME)
    if to in HOSPICE:
        record.condition(at, PALLIATIVE)
    if to in TO_HOME_CARE:
        record.procedure(at, HOME_CARE)
    if to not in DISPOSITION_UNKNOWN:
        record.answer(at, REHABILITATION_LINK, yes=to == TO_REHABILITATION)


def _after(record: Record, row: Row, discharged: datetime) -> None:
    """The readmission, on a day drawn within what the row says; the columns call none acute, and
    all are taken as such."""
    key = f"{record.patient_id}:{row['encounter_id']}"
    if row["readmitted"] == "<30":
        day = 1 + drawn(key, "early", LATEST_EARLY_DAY)
    elif row["readmitted"] == ">30":
        day = 31 + drawn(key, "late", LATEST_LATE_DAY - 30)
    else:
        return
    start = discharged + timedelta(days=day)
    record.encounter("IMP", start, start + timedelta(days=2), priority="EM")


# ---- diagnoses ------------------------------------------------------------------------------

DIABETES_COMPLICATION = dict(zip("0123456789", "9100234568", strict=True))
"""Fourth digit of ICD-9-CM 250 to that of ICD-10 E10 and E11: none, ketoacidosis, hyperosmolarity
and other coma, renal, eye, nerve, circulation, other, unspecified."""
ICD_9_TABLE = Path(__file__).with_name("manifests") / "diabetes130" / "icd9.csv"


def diagnosis(code: str) -> list[tuple[str, str]]:
    """The codings of an ICD-9-CM code: its own, and the ICD-10 codes it is known to mean."""
    category, _, rest = code.partition(".")
    if category == "250":
        kind = "E10" if len(rest) > 1 and rest[1] in "13" else "E11"
        meant = [kind + DIABETES_COMPLICATION[rest[:1] or "0"]]
    else:
        meant = icd_9_table().get(category, [])
    return [(ICD_9_CM, code), *((ICD_10, one) for one in meant)]


@cache
def icd_9_table() -> Mapping[str, list[str]]:
    """ICD-9-CM categories to ICD-10, where the whole category means it; see docs."""
    with ICD_9_TABLE.open(encoding="utf-8", newline="") as file:
        return {row["icd9"]: row["icd10"].split() for row in csv.DictReader(file)}
