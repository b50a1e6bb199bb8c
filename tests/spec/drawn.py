"""Draws a patient as a table and a feature as the lines of a manifest, and gives the answer.

A line of a table is one FHIR resource: type, what it is about, when, its value, and further words
in any order. What it is about is a word of `CODES` or a code, whose system its form tells. Times
are Danish; the question is asked on Saturday 21 November 2026 at noon unless a test says otherwise.
The tables become FHIR JSON and go the product's own way: decoding, facts, features.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from fhir_adapters.clock import COPENHAGEN, parse_time
from fhir_adapters.decode import Gathered, decode_bundle, decode_prefetch
from fhir_adapters.facts import AnswerRule, Wanted, build_record
from fhir_adapters.features.compute import FeatureRow, FeatureSet, FeatureValue
from fhir_adapters.features.language import FeatureSpec
from fhir_adapters.prefetch import expected_query
from fhir_adapters.record import PatientRecord
from fhir_adapters.sets import SetRule
from fhir_adapters.stays import StayRule

AS_OF = "2026-11-21 12:00"
RULE = StayRule(
    acute_codes=frozenset({"EM", "ATA1"}),
    planned_codes=frozenset({"EL", "ATA3"}),
)
CODES = {
    "haemoglobin": "NPU02319",
    "haemoglobin (LOINC)": "718-7",
    "creatinine": "NPU04998",
    "sodium": "NPU03429",
    "potassium": "NPU03230",
    "CRP": "NPU19748",
    "saturation": "NPU03011",
    "pulse": "NPU21692",
    "systolic": "DNK05472",
    "diastolic": "DNK05473",
    "blood pressure": "85354-9",
    "systolic (LOINC)": "8480-6",
    "temperature": "NPU08676",
    "weight": "NPU03804",
    "height": "8302-2",
    "smoking": "72166-2",
    "COPD": "DJ449",
    "heart failure": "DI509",
    "diabetes": "DE119",
    "furosemide": "C03CA01",
    "morphine": "N02AA01",
    "prednisolone": "H02AB06",
    "insulin": "A10AB05",
}
SYSTEMS = (
    (r"(NPU|DNK)\d+", "urn:oid:1.2.208.176.2.1"),
    (r"MCS\d+", "urn:oid:1.2.208.184.100.8"),
    (r"D[A-Z]\d\d.*", "urn:oid:1.2.208.176.2.4.12"),
    (r"[A-Z]\d\d[A-Z]{2}\d\d", "http://www.whocc.no/atc"),
    (r"\d+-\d", "http://loinc.org"),
    (r"\d{6,}", "http://snomed.info/sct"),
    (r"EM|EL", "http://terminology.hl7.org/CodeSystem/v3-ActPriority"),
    (r".*", "urn:oid:1.2.208.176.2.4"),
)
UCUM = "http://unitsofmeasure.org"
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"

ALARM_LIMITS = "urn:oid:1.2.208.184.100.1"
ROLE = "http://terminology.hl7.org/CodeSystem/diagnosis-role"

Resource = dict[str, Any]


class Asked(NamedTuple):
    """One query of a package: its template, the concepts it supplies, and what was answered.

    `answer`: a table, None for null, or JSON given as it is. `total`: how many there are in all.
    """

    template: str
    supplies: tuple[str, ...]
    answer: str | Resource | None
    total: int | None = None


# ---- one resource a line ------------------------------------------------------------------------


def resources(table: str) -> list[Resource]:
    """The FHIR resources a table draws; numbered by line where it gives no id."""
    lines = [line.strip() for line in table.strip().splitlines() if line.strip()]
    return [_resource(line, number) for number, line in enumerate(lines, start=1)]


def _resource(line: str, number: int) -> Resource:
    kind, *cells = (cell.strip() for cell in line.split("|"))
    about, when, *words = [*cells, "", ""][: max(2, len(cells))]
    drawn = _DRAW[kind](about, when, words)
    drawn.setdefault("id", f"{kind.lower()}-{number}")
    address = _word(words, "at")
    drawn |= {"fullUrl": address} if address else {}
    return {"resourceType": kind, **drawn}


def time(text: str) -> str:
    """A time of day in Denmark as FHIR writes it; dates and FHIR's own times stay as they are."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", text):
        return text
    return datetime.fromisoformat(text).replace(tzinfo=COPENHAGEN).isoformat()


def moment(text: str) -> float:
    """A time as the seconds everything inside counts in."""
    return parse_time(time(text))


def coded(about: str) -> Resource:
    """A CodeableConcept of one or several words or codes, separated by ` + `."""
    codes = [CODES.get(word, word) for word in about.split(" + ")]
    return {"coding": [{"system": _system(code), "code": code} for code in codes]}


def _system(code: str) -> str:
    return next(system for form, system in SYSTEMS if re.fullmatch(form, code))


def _period(when: str) -> Resource:
    start, _, end = when.partition("..")
    drawn = {"start": time(start.strip())}
    return {**drawn, "end": time(end.strip())} if end.strip() else drawn


def _word(words: list[str], name: str) -> str | None:
    """What follows a word such as `issued`; None where it does not stand."""
    found = (w.removeprefix(name).strip() for w in words if w.startswith(f"{name} "))
    return next(found, None)


def _shared(words: list[str], subject: str = "subject") -> Resource:
    drawn: Resource = {subject: {"reference": _word(words, "of") or "Patient/p"}}
    known_as = _word(words, "id")
    return {**drawn, "id": known_as} if known_as else drawn


def _one_of(words: list[str], allowed: str, otherwise: str) -> str:
    return next((word for word in words if word in allowed.split()), otherwise)


def _quantity(text: str) -> Resource:
    """`6.4 mmol/L`, `6.4`, `<70 %`, `72 "slag/min"` (unit as text), `true`, `code 373066001`."""
    number, _, unit = text.partition(" ")
    if number == "code":
        return {"valueCodeableConcept": coded(unit)}
    if number in ("true", "false"):
        return {"valueBoolean": number == "true"}
    comparator = "".join(sign for sign in number if sign in "<>=~")
    quantity: Resource = {"value": float(number.removeprefix(comparator))}
    quantity |= {"comparator": comparator} if comparator else {}
    if unit.startswith('"'):
        quantity["unit"] = unit.strip('"')
    elif unit:
        quantity |= {"unit": unit, "system": UCUM, "code": unit}
    return {"valueQuantity": quantity}


def _patient(born: str, gender: str, words: list[str]) -> Resource:
    drawn: Resource = {"id": _word(words, "id") or "p"}
    drawn |= {"birthDate": born} if born else {}
    drawn |= {"gender": gender} if gender else {}
    died = _word(words, "died")
    return {**drawn, "deceasedDateTime": time(died)} if died else drawn


def _observation(about: str, when: str, words: list[str]) -> Resource:
    drawn: Resource = {"status": _one_of(words, _OBSERVATION, "final"), "code": coded(about)}
    drawn |= _shared(words)
    if ".." in when:
        drawn["effectivePeriod"] = _period(when)
    elif when:
        drawn["effectiveDateTime"] = time(when)
    value = words[0] if words else ""
    if value and value not in _OBSERVATION.split() and not value.startswith("part "):
        drawn |= _quantity(value)
    parts = [w.removeprefix("part ") for w in words if w.startswith("part ")]
    if parts:
        drawn["component"] = [_component(*part.split(" ", 1)) for part in parts]
    issued, source = _word(words, "issued"), _word(words, "derived from")
    drawn |= {"issued": time(issued)} if issued else {}
    drawn |= {"derivedFrom": [{"reference": source}]} if source else {}
    unit = value.partition(" ")[2]
    limits = [_limits(w, unit) for w in words if w.startswith(("red ", "yellow "))]
    return {**drawn, "referenceRange": limits} if limits else drawn


def _limits(word: str, unit: str) -> Resource:
    """`red 85 .. 100`: the patient's own alarm limits, in the unit of the value."""
    colour, _, span = word.partition(" ")
    code = {"red": "RAL", "yellow": "GAL"}[colour]
    low, _, high = (part.strip() for part in span.partition(".."))
    sides = {"low": low, "high": high}
    stated = {side: _quantity(f"{n} {unit}")["valueQuantity"] for side, n in sides.items() if n}
    return {**stated, "type": _status(ALARM_LIMITS, code)}


def _component(about: str, text: str) -> Resource:
    return {"code": coded(about), **_quantity(text)}


def _condition(about: str, when: str, words: list[str]) -> Resource:
    drawn: Resource = {"code": coded(about), **_shared(words)}
    drawn |= {"onsetDateTime": time(when)} if when else {}
    state = _one_of(words, "active inactive remission resolved recurrence", "")
    doubt = _one_of(words, "confirmed unconfirmed provisional refuted entered-in-error", "")
    category = _word(words, "category")
    recorded, until = _word(words, "recorded"), _word(words, "until")
    drawn |= {"clinicalStatus": _status(CLINICAL, state)} if state else {}
    drawn |= {"verificationStatus": _status(VERIFICATION, doubt)} if doubt else {}
    drawn |= {"category": [coded(category)]} if category else {}
    drawn |= {"recordedDate": time(recorded)} if recorded else {}
    return {**drawn, "abatementDateTime": time(until)} if until else drawn


def _status(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}


def _encounter(about: str, when: str, words: list[str]) -> Resource:
    drawn = {"class": {"code": about}, "period": _period(when), **_shared(words)}
    drawn["status"] = _one_of(words, "planned in-progress finished cancelled", "finished")
    urgency = _one_of(words, "EM EL ATA1 ATA3", "")
    reason = _word(words, "for")
    drawn |= {"priority": coded(urgency)} if urgency else {}
    drawn |= {"reasonCode": [coded(reason)]} if reason else {}
    because = _word(words, "because of")
    drawn |= {"reasonReference": [{"reference": because}]} if because else {}
    diagnoses = [_diagnosis(w.split()) for w in words if w.startswith("diagnosis ")]
    return {**drawn, "diagnosis": diagnoses} if diagnoses else drawn


def _diagnosis(words: list[str]) -> Resource:
    """`diagnosis Condition/c`, then its rank or its role (AD, CM ...)."""
    drawn: Resource = {"condition": {"reference": words[1]}}
    for word in words[2:]:
        drawn |= {"rank": int(word)} if word.isdigit() else {"use": _status(ROLE, word)}
    return drawn


def _procedure(about: str, when: str, words: list[str]) -> Resource:
    drawn = {"code": coded(about), **_shared(words)}
    drawn["status"] = _one_of(words, "preparation not-done entered-in-error", "completed")
    return {**drawn, "performedDateTime": time(when)} if when else drawn


def _drug(about: str, words: list[str]) -> Resource:
    drawn: Resource = {**_shared(words), "status": _one_of(words, _MEDICATION, "active")}
    if about.startswith(("#", "Medication/", "urn:", "https:")):
        drawn["medicationReference"] = {"reference": about}
    else:
        drawn["medicationCodeableConcept"] = coded(about)
    inside = _word(words, "contains")
    if inside:
        drawn["contained"] = [
            {"resourceType": "Medication", "id": about[1:], "code": coded(inside)}
        ]
    return drawn


def _dosage(words: list[str]) -> list[Resource]:
    dosage: Resource = {"asNeededBoolean": True} if "as needed" in words else {}
    dose = _word(words, "dose")
    if dose:
        dosage["doseAndRate"] = [{"doseQuantity": _quantity(dose)["valueQuantity"]}]
    return [dosage] if dosage else []


def _medication_request(about: str, when: str, words: list[str]) -> Resource:
    drawn = _drug(about, words)
    drawn["intent"] = _one_of(words, "order plan proposal", "order")
    drawn |= {"authoredOn": time(when)} if when else {}
    drawn |= {"doNotPerform": True} if "do not perform" in words else {}
    until = _word(words, "until")
    if until:
        drawn["dispenseRequest"] = {"validityPeriod": {"end": time(until)}}
    return {**drawn, "dosageInstruction": _dosage(words)} if _dosage(words) else drawn


def _medication_statement(about: str, when: str, words: list[str]) -> Resource:
    drawn = {**_drug(about, words), "effectivePeriod": _period(when)}
    return {**drawn, "dosage": _dosage(words)} if _dosage(words) else drawn


def _medication_administration(about: str, when: str, words: list[str]) -> Resource:
    drawn = {**_drug(about, words), "effectiveDateTime": time(when)}
    return {**drawn, "status": _one_of(words, "not-done completed", "completed")}


def _medication(about: str, _: str, words: list[str]) -> Resource:
    return {"code": coded(about), "id": _word(words, "id")}


def _questionnaire_response(link_id: str, when: str, words: list[str]) -> Resource:
    answer: Resource
    try:
        answer = {"valueDecimal": float(words[0])}
    except ValueError:
        answer = {"valueString": words[0]}
    drawn = {"authored": time(when), **_shared(words)}
    drawn["status"] = _one_of(words[1:], "in-progress entered-in-error", "completed")
    item = {"linkId": link_id, "answer": [answer]}
    return {**drawn, "item": [{"linkId": "group", "item": [item]}]}


def _diagnostic_report(result: str, when: str, words: list[str]) -> Resource:
    drawn: Resource = {"result": [{"reference": result}], "effectiveDateTime": time(when)}
    drawn |= _shared(words)
    return {**drawn, "status": _one_of(words, "entered-in-error cancelled", "final")}


def _episode_of_care(_: str, when: str, words: list[str]) -> Resource:
    status = _one_of(words, "planned active onhold finished cancelled", "active")
    return {"status": status, "period": _period(when), **_shared(words, "patient")}


_OBSERVATION = "registered preliminary final amended corrected cancelled entered-in-error unknown"
_MEDICATION = "active completed stopped on-hold not-taken intended draft entered-in-error cancelled"
_DRAW = {
    "Patient": _patient,
    "Observation": _observation,
    "Condition": _condition,
    "Encounter": _encounter,
    "Procedure": _procedure,
    "Medication": _medication,
    "MedicationRequest": _medication_request,
    "MedicationStatement": _medication_statement,
    "MedicationAdministration": _medication_administration,
    "QuestionnaireResponse": _questionnaire_response,
    "DiagnosticReport": _diagnostic_report,
    "EpisodeOfCare": _episode_of_care,
}


# ---- the way to an answer -----------------------------------------------------------------------


def bundle(table: str) -> bytes:
    """A table as the bytes of a Bundle; a patient born in 1950 is added where none is drawn."""
    drawn = resources(table)
    if not any(resource["resourceType"] == "Patient" for resource in drawn):
        drawn.insert(0, {"resourceType": "Patient", **_patient("1950-03-01", "female", [])})
    return bundle_of(drawn)


def bundle_of(drawn: list[Resource]) -> bytes:
    """Resources as the bytes of a collection Bundle."""
    entries = [_entry(dict(resource)) for resource in drawn]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}).encode()


def _entry(resource: Resource) -> Resource:
    address = resource.pop("fullUrl", None)
    return {"resource": resource} | ({"fullUrl": address} if address else {})


def specs(features: str) -> list[FeatureSpec]:
    """The features of manifest lines: a table a feature, or the words of one called `it`."""
    said = tomllib.loads(features)
    tables = said if all(isinstance(part, dict) for part in said.values()) else {"it": said}
    label = {"da": "-", "en": "-"}
    return [
        msgspec.convert({"name": name, "label": label, **words}, FeatureSpec)
        for name, words in tables.items()
    ]


def feature_set(
    features: str,
    supplied_by: Mapping[str, str] | None = None,
    *,
    index_within_hours: float = 24,
    set_rule: SetRule | None = None,
) -> FeatureSet:
    """Drawn features, compiled; without `supplied_by` one query supplies everything."""
    drawn = specs(features)
    events = [name for s in drawn if s.except_around for name in s.except_around.of]
    made_of = [name for s in drawn for name in s.of]
    all_of_it = dict.fromkeys([*made_of, *events, *(set_rule.of if set_rule else ())], "record")
    return FeatureSet(
        drawn,
        supplied_by or all_of_it,
        stay_rule=RULE,
        index_within_hours=index_within_hours,
        set_rule=set_rule,
        set_within_hours=192,
    )


def record_of(
    gathered: Gathered, wanted: FeatureSet, answers: Mapping[str, Mapping[str, float]] | None = None
) -> PatientRecord:
    """The patient's record of what some features want.

    `answers`: concept -> what its answers are worth; the link id is the concept's name.
    """
    rules = [AnswerRule(name, frozenset({name}), worth) for name, worth in (answers or {}).items()]
    return build_record(gathered, Wanted(wanted.concepts, wanted.stay_rule, tuple(rules)))


def row(
    table: str,
    features: str,
    *,
    as_of: str = AS_OF,
    answers: Mapping[str, Mapping[str, float]] | None = None,
    index_within_hours: float = 24,
    set_rule: SetRule | None = None,
) -> FeatureRow:
    """All drawn features of a drawn patient, whose whole record the table is."""
    compiled = feature_set(features, index_within_hours=index_within_hours, set_rule=set_rule)
    record = record_of(decode_bundle(bundle(table)), compiled, answers)
    return compiled.compute(record, moment(as_of))


def value(
    table: str,
    features: str,
    *,
    as_of: str = AS_OF,
    answers: Mapping[str, Mapping[str, float]] | None = None,
) -> FeatureValue:
    """The last of the drawn features, with its provenance."""
    return list(row(table, features, as_of=as_of, answers=answers).values.values())[-1]


def it(
    table: str,
    features: str,
    *,
    as_of: str = AS_OF,
    answers: Mapping[str, Mapping[str, float]] | None = None,
) -> float | str:
    """The number of the last drawn feature, or its status where it has no measured number."""
    return plain(value(table, features, as_of=as_of, answers=answers))


def plain(found: FeatureValue) -> float | str:
    """A feature's number to nine digits, or its status where it has no measured number."""
    if found.status != "measured" or found.value is None:
        return found.status
    return round(found.value, 9)


def asked(queries: Mapping[str, Asked], features: str, *, as_of: str = AS_OF) -> FeatureValue:
    """The last drawn feature, where the queries of a package were answered so."""
    supplied_by = {name: key for key, query in queries.items() for name in query.supplies}
    compiled = feature_set(features, supplied_by)
    prefetch = {key: _answered(query) for key, query in queries.items() if query.answer != {}}
    prefetch["patient"] = msgspec.Raw(json.dumps(_patient_p()).encode())
    expected = {key: expected_query(query.template) for key, query in queries.items()}
    record = record_of(decode_prefetch(prefetch, expected), compiled)
    return list(compiled.compute(record, moment(as_of)).values.values())[-1]


def _patient_p() -> Resource:
    return {"resourceType": "Patient", "id": "p", "birthDate": "1950-03-01"}


def _answered(query: Asked) -> msgspec.Raw:
    if query.answer is None or isinstance(query.answer, dict):
        return msgspec.Raw(json.dumps(query.answer).encode())
    found = [{"resource": r, "search": {"mode": "match"}} for r in resources(query.answer)]
    said: Resource = {"resourceType": "Bundle", "type": "searchset", "entry": found}
    said |= {} if query.total is None else {"total": query.total}
    return msgspec.Raw(json.dumps(said).encode())
