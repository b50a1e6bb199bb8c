"""FHIR resources and Bulk Data files for the public outcome data: plain values in, NDJSON out.

The data sets hold no dates. Every patient gets a day of their own between 2100 and 2199, drawn by a
hash of their id and of nothing else, so that the order of days says nothing of outcome or features,
and a split by time is a split of patients at random. (Years to come, as MIMIC does, so that nobody
takes them for real.) What a data set's columns mean is said in its own module. Called by
`outcomes`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from fhir_adapters.codes import ATC, ICD_10, LOINC, SNOMED_CT

Resource = dict[str, Any]

SEED = "varsel outcomes 1"
FIRST_DAY = datetime(2100, 1, 1, tzinfo=UTC)
DAYS_TO_DRAW_FROM = 36_500
DATA_END = datetime(2260, 1, 1, tzinfo=UTC)
"""After everything that is written, and a time a pandas Timestamp can hold."""
YEAR_DAYS = 365.25

ICD_9_CM = "http://hl7.org/fhir/sid/icd-9-cm"
UCUM = "http://unitsofmeasure.org"
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
ACT_PRIORITY = "http://terminology.hl7.org/CodeSystem/v3-ActPriority"
CONDITION_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
COMPARATOR = "comparator.csv"
"""Beside the NDJSON, read by `evaluate` alone: what a published model said of each patient."""

CONDITION, OBSERVATION, ENCOUNTER = "Condition", "Observation", "Encounter"
TYPES = (
    "Patient", ENCOUNTER, CONDITION, OBSERVATION, "MedicationRequest", "Procedure",
    "QuestionnaireResponse",
)  # fmt: skip


def drawn(patient: str, purpose: str, below: int) -> int:
    """A whole number from 0 to below `below`, always the same for a patient and a purpose."""
    digest = hashlib.sha256(f"{SEED}:{purpose}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % below


def first_morning(patient: str) -> datetime:
    """Eight o'clock (UTC) on the day a patient's record hangs on."""
    day = timedelta(days=drawn(patient, "day", DAYS_TO_DRAW_FROM))
    return FIRST_DAY + day + timedelta(hours=8)


def instant(moment: datetime) -> str:
    """A moment as a FHIR instant in UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def born(at: datetime, age_years: float) -> str:
    """The birth date of somebody of an age (years of 365.25 days) at a moment."""
    return (at - timedelta(days=age_years * YEAR_DAYS)).date().isoformat()


def coded(*codings: tuple[str, str]) -> Resource:
    """A CodeableConcept of (system, code) pairs."""
    return {"coding": [{"system": system, "code": code} for system, code in codings]}


class Record:
    """One patient's resources, each with an id of its own."""

    def __init__(self, patient_id: str) -> None:
        self.patient_id = patient_id
        self.resources: list[Resource] = []

    def add(self, kind: str, **fields: Any) -> str:
        """Write one resource of the patient; its reference."""
        resource_id = f"{self.patient_id}-{len(self.resources)}"
        subject = {"reference": f"Patient/{self.patient_id}"}
        self.resources.append(
            {"resourceType": kind, "id": resource_id, "subject": subject, **fields}
        )
        return f"{kind}/{resource_id}"

    def patient(self, *, gender: str, birth_date: str, died: datetime | None = None) -> None:
        """Write the Patient."""
        resource = {
            "resourceType": "Patient",
            "id": self.patient_id,
            "gender": gender,
            "birthDate": birth_date,
        }
        if died is not None:
            resource["deceasedDateTime"] = instant(died)
        self.resources.append(resource)

    def encounter(
        self,
        kind: str,
        start: datetime,
        end: datetime | None,
        *,
        priority: str | None = None,
        principal: str | None = None,
    ) -> str:
        """Write a contact of a class (IMP, EMER, AMB); without an end it goes on.

        `priority`: EM, UR or EL. `principal`: reference of the Condition it was for.
        """
        period = {"start": instant(start)}
        if end is not None:
            period["end"] = instant(end)
        fields: Resource = {
            "status": "in-progress" if end is None else "finished",
            "class": {"system": ACT_CODE, "code": kind},
            "period": period,
        }
        if priority:
            fields["priority"] = coded((ACT_PRIORITY, priority))
        if principal:
            fields["diagnosis"] = [{"condition": {"reference": principal}, "rank": 1}]
        return self.add(ENCOUNTER, **fields)

    def condition(self, at: datetime, *codings: tuple[str, str]) -> str:
        """Write a confirmed diagnosis recorded at a moment."""
        return self.add(
            CONDITION,
            verificationStatus=coded((CONDITION_VERIFICATION, "confirmed")),
            code=coded(*codings),
            recordedDate=instant(at),
        )

    def measured(self, at: datetime, loinc: str, *, value: float, unit: str) -> None:
        """Write a measurement with its UCUM unit."""
        quantity = {"value": value, "unit": unit, "system": UCUM, "code": unit}
        self._observation(at, (LOINC, loinc), valueQuantity=quantity)

    def found(self, at: datetime, code: tuple[str, str], answer: tuple[str, str]) -> None:
        """Write a finding whose value is a code."""
        self._observation(at, code, valueCodeableConcept=coded(answer))

    def _observation(self, at: datetime, code: tuple[str, str], **value: Resource) -> None:
        self.add(
            OBSERVATION, status="final", code=coded(code), effectiveDateTime=instant(at), **value
        )

    def procedure(self, at: datetime, code: tuple[str, str]) -> None:
        """Write a procedure done at a moment."""
        self.add("Procedure", status="completed", code=coded(code), performedDateTime=instant(at))

    def medicine(
        self, at: datetime, code: tuple[str, str], relative_dose: float | None = None
    ) -> None:
        """Write a drug ordered and ended; `relative_dose`: against the patient's own, no unit."""
        fields: Resource = {}
        if relative_dose is not None:
            quantity = {"value": relative_dose, "unit": "relative to the other order"}
            fields["dosageInstruction"] = [{"doseAndRate": [{"doseQuantity": quantity}]}]
        self.add(
            "MedicationRequest",
            status="completed",
            intent="order",
            medicationCodeableConcept=coded(code),
            authoredOn=instant(at),
            **fields,
        )

    def answer(
        self, at: datetime, link_id: str, *, yes: bool | None = None, number: float | None = None
    ) -> None:
        """Write a form with one question, answered yes or no or with a number."""
        said = {"valueBoolean": yes} if number is None else {"valueDecimal": number}
        self.add(
            "QuestionnaireResponse",
            status="completed",
            authored=instant(at),
            item=[{"linkId": link_id, "answer": [said]}],
        )


def write_bulk_data(
    out: Path, dataset: str, records: Iterable[Record], comparator: Mapping[str, str]
) -> dict[str, int]:
    """Write a folder of Bulk Data NDJSON with its manifest; how many resources of each type.

    `comparator`: patient id to the risk a published model gave, written apart (`COMPARATOR`).
    """
    out.mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(TYPES, 0)
    encode = msgspec.json.Encoder().encode
    with ExitStack() as stack:
        files = {kind: stack.enter_context((out / f"{kind}.ndjson").open("wb")) for kind in TYPES}
        for record in records:
            for resource in record.resources:
                kind = resource["resourceType"]
                files[kind].write(encode(resource) + b"\n")
                counts[kind] += 1
    (out / "manifest.json").write_bytes(encode(_export_manifest(dataset, counts)) + b"\n")
    if comparator:
        with (out / COMPARATOR).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [("patient", "risk"), *comparator.items()]
            )
    return counts


def _export_manifest(dataset: str, counts: Mapping[str, int]) -> Resource:
    return {
        "transactionTime": instant(DATA_END),
        "request": f"converted from the public data set {dataset}; all dates are invented",
        "requiresAccessToken": False,
        "output": [
            {"type": kind, "url": f"{kind}.ndjson", "count": count}
            for kind, count in counts.items()
        ],
        "error": [],
    }


__all__ = [
    "ATC",
    "COMPARATOR",
    "DATA_END",
    "ICD_10",
    "ICD_9_CM",
    "LOINC",
    "SNOMED_CT",
    "YEAR_DAYS",
    "Record",
    "born",
    "drawn",
    "first_morning",
    "write_bulk_data",
]
