"""Hook requests of any number of resources, each a different length of one patient's record.

The patient is the bundled demo patient, halved; around the newest stay lies an older record in the
proportions of a real one (`MIX`). The hook's prefetch keys hold what a record system would answer,
newest first and cut to the page asked for; what no query asks for (most of a long record, and the
types Varsel skips) comes under a key nobody expects, so that every resource is in the request.
Built from arithmetic alone: the same size gives the same bytes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from fhir_adapters.prefetch import answer_queries

Resource = dict[str, Any]
Make = Callable[[int, str], Resource]

SIZES = (50, 500, 5000)
BEFORE_DISCHARGE = timedelta(minutes=30)
"""How long before the demo patient's discharge is asked."""
BEFORE_ADMISSION = timedelta(days=5)
"""How long before the stay the older record ends."""
YEARS_BACK = 6
PLACEHOLDER = uuid.UUID(int=0)
OTHER_KEY = "record"

LOINC, SNOMED, UCUM = "http://loinc.org", "http://snomed.info/sct", "http://unitsofmeasure.org"
ATC, ICD10_DK = "http://www.whocc.no/atc", "urn:oid:1.2.208.176.2.4.12"
HL7 = "http://terminology.hl7.org/CodeSystem"
PROFILE = "http://hl7.org/fhir/StructureDefinition"

# ---- what an older record is made of --------------------------------------------------------

LABS = (
    ("718-7", "Hemoglobin [Mass/volume] in Blood", 13.1, "g/dL"),
    ("2951-2", "Sodium [Moles/volume] in Serum or Plasma", 139.0, "mmol/L"),
    ("2823-3", "Potassium [Moles/volume] in Serum or Plasma", 4.1, "mmol/L"),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", 0.9, "mg/dL"),
    ("1988-5", "C reactive protein [Mass/volume] in Serum or Plasma", 4.0, "mg/L"),
    ("6690-2", "Leukocytes [#/volume] in Blood by Automated count", 7.2, "10*3/uL"),
)
VITALS = (
    ("8867-4", "Heart rate", 78.0, "/min"),
    ("2708-6", "Oxygen saturation in Arterial blood", 97.0, "%"),
    ("8310-5", "Body temperature", 36.9, "Cel"),
)
UNMAPPED = (
    ("72514-3", "Pain severity - 0-10 verbal numeric rating [Score] - Reported", 2.0, "{score}"),
    ("2093-3", "Cholesterol [Mass/volume] in Serum or Plasma", 182.0, "mg/dL"),
    ("4544-3", "Hematocrit [Volume Fraction] of Blood by Automated count", 41.0, "%"),
    ("38265-5", "DXA Radius and Ulna [T-score] Bone density", -0.4, "{T-score}"),
    ("20565-8", "Carbon dioxide, total [Moles/volume] in Serum or Plasma", 24.0, "mmol/L"),
)
DIAGNOSES = ("DI109", "DM545", "DJ069", "DE119", "DK219", "DZ006", "DH259", "DJ449")
DRUGS = ("C07AB02", "N02BE01", "A02BC01", "C09AA02", "M01AE01", "R03AC02")
PROCEDURES = (
    ("430193006", "Medication reconciliation (procedure)"),
    ("710824005", "Assessment of health and social care needs (procedure)"),
    ("171207006", "Depression screening (procedure)"),
)


def _concept(system: str, code: str, display: str) -> Resource:
    coding = {"system": system, "code": code, "display": display}
    return {"coding": [coding], "text": display}


def _token(system: str, code: str) -> list[Resource]:
    return [{"coding": [{"system": f"{HL7}/{system}", "code": code}]}]


def _quantity(value: float, unit: str) -> Resource:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def _observation(
    place: int, at: str, category: str, kinds: tuple[tuple[str, str, float, str], ...]
) -> Resource:
    code, display, value, unit = kinds[place % len(kinds)]
    return {
        "meta": {"profile": [f"{PROFILE}/{category}"]},
        "status": "final",
        "category": _token("observation-category", category),
        "code": _concept(LOINC, code, display),
        "effectiveDateTime": at,
        "issued": at,
        "valueQuantity": _quantity(round(value * (1 + place % 7 / 100), 2), unit),
    }


def _pressure(place: int, at: str) -> Resource:
    parts = (("8480-6", "Systolic blood pressure", 128), ("8462-4", "Diastolic blood pressure", 79))
    return {
        "meta": {"profile": [f"{PROFILE}/bp"]},
        "status": "final",
        "category": _token("observation-category", "vital-signs"),
        "code": _concept(LOINC, "85354-9", "Blood pressure panel with all children optional"),
        "effectiveDateTime": at,
        "issued": at,
        "component": [
            {
                "code": _concept(LOINC, code, display),
                "valueQuantity": _quantity(value + place % 9, "mm[Hg]"),
            }
            for code, display, value in parts
        ],
    }


def _encounter(_: int, at: str) -> Resource:
    doctor = {"display": "Dr. Example", "reference": "Practitioner/p1"}
    return {
        "status": "finished",
        "class": {"system": f"{HL7}/v3-ActCode", "code": "AMB", "display": "ambulatory"},
        "type": [_concept(SNOMED, "162673000", "General examination of patient (procedure)")],
        "participant": [
            {
                "type": _token("v3-ParticipationType", "PPRF"),
                "period": {"start": at, "end": at},
                "individual": doctor,
            }
        ],
        "period": {"start": at, "end": at},
        "location": [{"location": {"reference": "Location/l1", "display": "Example Hospital"}}],
        "serviceProvider": {"reference": "Organization/o1", "display": "Example Hospital"},
    }


def _condition(place: int, at: str) -> Resource:
    return {
        "clinicalStatus": _token("condition-clinical", "resolved")[0],
        "verificationStatus": _token("condition-ver-status", "confirmed")[0],
        "category": _token("condition-category", "encounter-diagnosis"),
        "code": _concept(ICD10_DK, DIAGNOSES[place % len(DIAGNOSES)], "Diagnosis"),
        "onsetDateTime": at,
        "abatementDateTime": at,
        "recordedDate": at,
    }


def _procedure(place: int, at: str) -> Resource:
    code, display = PROCEDURES[place % len(PROCEDURES)]
    return {
        "status": "completed",
        "code": _concept(SNOMED, code, display),
        "performedPeriod": {"start": at, "end": at},
        "location": {"reference": "Location/l1", "display": "Example Hospital"},
    }


def _medication(place: int, at: str) -> Resource:
    return {
        "status": "stopped",
        "intent": "order",
        "medicationCodeableConcept": _concept(ATC, DRUGS[place % len(DRUGS)], "Medicine"),
        "authoredOn": at,
        "requester": {"reference": "Practitioner/p1", "display": "Dr. Example"},
        "dosageInstruction": [{"sequence": 1, "text": "1 tablet daily", "asNeededBoolean": False}],
    }


def _report(place: int, at: str) -> Resource:
    results = [
        {"reference": f"Observation/old-{place - back}", "display": display}
        for back, (_, display, _, _) in enumerate(LABS, start=1)
    ]
    return {
        "meta": {"profile": [f"{PROFILE}/DiagnosticReport"]},
        "status": "final",
        "category": _token("v2-0074", "LAB"),
        "code": _concept(LOINC, "58410-2", "CBC panel - Blood by Automated count"),
        "effectiveDateTime": at,
        "issued": at,
        "result": results,
    }


def _items(count: int) -> list[Resource]:
    return [
        {
            "sequence": number,
            "productOrService": _concept(SNOMED, "162673000", "General examination of patient"),
            "net": {"value": 125.0, "currency": "DKK"},
        }
        for number in range(1, count + 1)
    ]


def _claim(place: int, at: str) -> Resource:
    return {
        "status": "active",
        "type": _token("claim-type", "institutional")[0],
        "use": "claim",
        "billablePeriod": {"start": at, "end": at},
        "created": at,
        "provider": {"reference": "Organization/o1", "display": "Example Hospital"},
        "priority": _token("processpriority", "normal")[0],
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"display": "Public"}}],
        "item": _items(1 + place % 4),
        "total": {"value": 125.0, "currency": "DKK"},
    }


def _benefit(place: int, at: str) -> Resource:
    paid = [
        {"category": _token("adjudication", code)[0], "amount": {"value": 1.5, "currency": "DKK"}}
        for code in ("submitted", "eligible", "deductible", "copay", "benefit")
    ]
    claimed = _claim(place, at)
    kept = ("status", "type", "use", "billablePeriod", "created", "provider")
    return {
        **{name: claimed[name] for name in kept},
        "insurer": {"display": "Public"},
        "outcome": "complete",
        "insurance": [{"focal": True, "coverage": {"display": "Public"}}],
        "item": [{**item, "adjudication": paid} for item in _items(1 + place % 3)],
        "total": [{"category": _token("adjudication", "submitted")[0], "amount": {"value": 125.0}}],
    }


def _immunization(_: int, at: str) -> Resource:
    return {
        "status": "completed",
        "vaccineCode": _concept("http://hl7.org/fhir/sid/cvx", "140", "Influenza, seasonal"),
        "occurrenceDateTime": at,
        "primarySource": True,
    }


def _document(_: int, at: str) -> Resource:
    return {
        "status": "current",
        "type": _concept(LOINC, "34117-2", "History and physical note"),
        "date": at,
        "content": [
            {"attachment": {"contentType": "text/plain", "data": "QmxvZHByb3ZlciB0" * 150}}
        ],
    }


# Of 100 older resources, after the 98 public Synthea records (Observation 50 to 54 %, billing 8 to
# 21 %). Half of the Observations carry a code some feature reads.
MIX: Mapping[str, tuple[int, str, Make]] = {
    "laboratory results read": (
        14,
        "Observation",
        lambda n, t: _observation(n, t, "laboratory", LABS),
    ),
    "vital signs read": (8, "Observation", lambda n, t: _observation(n, t, "vital-signs", VITALS)),
    "blood pressure panels": (5, "Observation", _pressure),
    "other observations": (25, "Observation", lambda n, t: _observation(n, t, "survey", UNMAPPED)),
    "encounters": (6, "Encounter", _encounter),
    "conditions": (4, "Condition", _condition),
    "procedures": (8, "Procedure", _procedure),
    "medication requests": (3, "MedicationRequest", _medication),
    "diagnostic reports": (5, "DiagnosticReport", _report),
    "claims": (7, "Claim", _claim),
    "explanations of benefit": (7, "ExplanationOfBenefit", _benefit),
    "immunizations": (4, "Immunization", _immunization),
    "documents": (4, "DocumentReference", _document),
}
_STRIDE = 37
_IN_TURN = [(kind, make) for share, kind, make in MIX.values() for _ in range(share)]
_SUBJECT_IS_PATIENT = frozenset({"Claim", "ExplanationOfBenefit", "Immunization"})


def _old_resources(count: int, patient: str, newest: datetime) -> list[Resource]:
    """`count` resources over the years before `newest`, the last a Provenance of the others."""
    step = timedelta(days=365.25 * YEARS_BACK) / count
    made = []
    for place in range(count - 1):
        kind, make = _IN_TURN[place * _STRIDE % len(_IN_TURN)]
        at = (newest - place * step).isoformat(timespec="seconds")
        owner = "patient" if kind in _SUBJECT_IS_PATIENT else "subject"
        head = {"resourceType": kind, "id": f"old-{place}", owner: {"reference": patient}}
        made.append({**head, **make(place, at)})
    return [*made, _provenance(made, newest)]


def _provenance(of: Iterable[Resource], recorded: datetime) -> Resource:
    return {
        "resourceType": "Provenance",
        "id": "old-provenance",
        "target": [{"reference": f"{r['resourceType']}/{r['id']}"} for r in of],
        "recorded": recorded.isoformat(),
        "agent": [{"who": {"reference": "Practitioner/p1"}}],
    }


# ---- requests -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """A hook request with a hole where the hookInstance goes, and the same record as one Bundle."""

    resources: int
    head: bytes
    tail: bytes
    bundle: bytes

    def body(self, instance: uuid.UUID) -> bytes:
        """The request under a hookInstance of its own."""
        return b"".join((self.head, str(instance).encode(), self.tail))

    def __len__(self) -> int:
        return len(self.head) + 36 + len(self.tail)


@cache
def hook_request(resources: int) -> Request:
    """The request of a size: the demo patient's newest stay in an older record."""
    text = files("cds_service").joinpath("demo/hook-request.json").read_text(encoding="utf-8")
    demo = json.loads(text)
    answers: dict[str, Any] = demo["prefetch"]
    patient = answers["patient"]
    recent = [e for key, found in answers.items() if key != "patient" for e in _kept(key, found)]
    stay = _stay(recent, demo["context"]["encounterId"])
    admitted, discharged = (datetime.fromisoformat(stay[end]) for end in ("start", "end"))
    owner = f"Patient/{patient['id']}"
    old = _old_resources(resources - 1 - len(recent), owner, admitted - BEFORE_ADMISSION)
    base = demo["fhirServer"]
    entries = [*recent, *(_entry(base, resource) for resource in old)]
    prefetch = answer_queries(entries, _templates(), patient)
    answered = {e["fullUrl"] for a in prefetch.values() for e in a.get("entry", ())}
    rest = [entry for entry in entries if entry["fullUrl"] not in answered]
    demo["prefetch"] = {**prefetch, OTHER_KEY: _collection(rest)}
    demo["extension"] = {"dk.varsel.as-of": (discharged - BEFORE_DISCHARGE).isoformat()}
    demo["hookInstance"] = str(PLACEHOLDER)
    head, tail = msgspec.json.encode(demo).split(str(PLACEHOLDER).encode())
    whole = _collection([_entry(base, patient), *entries])
    return Request(resources, head, tail, msgspec.json.encode(whole))


def _stay(entries: Iterable[Resource], encounter_id: str) -> dict[str, str]:
    """The period of the stay the hook is about."""
    resources = (entry["resource"] for entry in entries)
    period: dict[str, str] = next(r["period"] for r in resources if r["id"] == encounter_id)
    return period


def _kept(key: str, answer: Mapping[str, Any]) -> list[Resource]:
    """All contacts, and the newer half of every other answer."""
    found: list[Resource] = answer.get("entry", [])
    kept = found if key == "encounters" else found[: (len(found) + 1) // 2]
    return [{"fullUrl": e["fullUrl"], "resource": e["resource"]} for e in kept]


def _entry(base: str, resource: Resource) -> Resource:
    return {
        "fullUrl": f"{base}/{resource['resourceType']}/{resource['id']}",
        "resource": resource,
    }


def _collection(entries: list[Resource]) -> Resource:
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


@cache
def _templates() -> Mapping[str, str]:
    from models.package import read_specification
    from models.registry import BUNDLED

    manifest = read_specification(BUNDLED / "readmission-30d").manifest
    return {key: query.template for key, query in manifest.prefetch.items()}
