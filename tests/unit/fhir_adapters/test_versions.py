"""One resource of a type and id is read once, as it stands now, wherever its versions came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from fhir_adapters.decode import Fetched, decode_bundle, decode_prefetch
from fhir_adapters.facts import build_record
from fhir_adapters.prefetch import expected_query
from fhir_adapters.reading.wanted import AnswerRule, Wanted
from fhir_adapters.record import PatientRecord
from tests.spec.drawn import bundle_of

Json = dict[str, Any]
WANTED = Wanted(
    frozenset({"copd", "crp", "procedure", "medication", "episode_of_care", "mmrc"}),
    answers=(AnswerRule("mmrc", frozenset({"q"}), {}),),
)
COPD = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "J44.9"}]}
DRUG = {"coding": [{"system": "http://www.whocc.no/atc", "code": "C03CA01"}]}
OTHER_DRUG = {"coding": [{"system": "http://www.whocc.no/atc", "code": "N02AA01"}]}
OPERATION = {"coding": [{"system": "urn:oid:1.2.208.176.2.4", "code": "KJFB30"}]}
REFUTED = {"coding": [{"code": "refuted"}]}
BEGUN = {"start": "2026-11-01T08:00:00+01:00"}
ENDED = {**BEGUN, "end": "2026-11-02T08:00:00+01:00"}
PATIENT: Json = {"resourceType": "Patient", "id": "p", "birthDate": "1950-03-01"}

VERSIONS: Mapping[str, tuple[str, Json, Json, int]] = {
    "a contact that ended": (
        "Encounter",
        {"status": "in-progress", "class": {"code": "IMP"}, "period": BEGUN},
        {"status": "finished", "class": {"code": "IMP"}, "period": ENDED},
        1,
    ),
    "a contact entered in error": (
        "Encounter",
        {"status": "in-progress", "class": {"code": "IMP"}, "period": BEGUN},
        {"status": "entered-in-error", "class": {"code": "IMP"}, "period": BEGUN},
        0,
    ),
    "a diagnosis whose onset was corrected": (
        "Condition",
        {"code": COPD, "onsetDateTime": "2026-11-01"},
        {"code": COPD, "onsetDateTime": "2025-11-01"},
        1,
    ),
    "a diagnosis that was refuted": (
        "Condition",
        {"code": COPD, "onsetDateTime": "2026-11-01"},
        {"code": COPD, "onsetDateTime": "2026-11-01", "verificationStatus": REFUTED},
        0,
    ),
    "an operation whose time was corrected": (
        "Procedure",
        {"code": OPERATION, "status": "in-progress", "performedDateTime": "2026-11-01"},
        {"code": OPERATION, "status": "completed", "performedDateTime": "2026-11-02"},
        1,
    ),
    "an operation that was given up": (
        "Procedure",
        {"code": OPERATION, "status": "in-progress", "performedDateTime": "2026-11-01"},
        {"code": OPERATION, "status": "not-done", "performedDateTime": "2026-11-01"},
        0,
    ),
    "a prescription of another drug": (
        "MedicationRequest",
        {"intent": "order", "status": "active", "medicationCodeableConcept": DRUG},
        {"intent": "order", "status": "active", "medicationCodeableConcept": OTHER_DRUG},
        1,
    ),
    "a prescription that was cancelled": (
        "MedicationRequest",
        {"intent": "order", "status": "active", "medicationCodeableConcept": DRUG},
        {"intent": "order", "status": "cancelled", "medicationCodeableConcept": DRUG},
        0,
    ),
    "a drug that is not taken after all": (
        "MedicationStatement",
        {"status": "active", "medicationCodeableConcept": DRUG},
        {"status": "not-taken", "medicationCodeableConcept": DRUG},
        0,
    ),
    "a drug that was not given after all": (
        "MedicationAdministration",
        {"status": "in-progress", "medicationCodeableConcept": DRUG},
        {"status": "not-done", "medicationCodeableConcept": DRUG},
        0,
    ),
    "an episode that was cancelled": (
        "EpisodeOfCare",
        {"status": "active", "period": BEGUN},
        {"status": "cancelled", "period": BEGUN},
        0,
    ),
    "answers that were corrected": (
        "QuestionnaireResponse",
        {
            "status": "completed",
            "authored": "2026-11-01",
            "item": [{"linkId": "q", "answer": [{"valueInteger": 1}]}],
        },
        {
            "status": "amended",
            "authored": "2026-11-02",
            "item": [{"linkId": "q", "answer": [{"valueInteger": 2}]}],
        },
        1,
    ),
}
"""A resource as a prefetch held it, as it was fetched a moment later, and how often it counts."""


def resource(kind: str, fields: Json, resource_id: str | None = "x") -> Json:
    """A resource of a type, with an id or without."""
    named = {"id": resource_id} if resource_id else {}
    return {"resourceType": kind, **named, **fields}


def searchset(*resources: Json) -> Json:
    """The answer to a search."""
    entries = [{"resource": one, "search": {"mode": "match"}} for one in resources]
    return {"resourceType": "Bundle", "type": "searchset", "entry": entries}


def completed(
    sent: Mapping[str, Json], fetched: Mapping[str, Json], kind: str = "Encounter"
) -> PatientRecord:
    """The record of what was sent and what was fetched; what was sent answers no query of ours."""
    queries = {key: expected_query(f"{kind}?patient=p") for key in fetched}
    gathered = decode_prefetch(
        {key: msgspec.Raw(json.dumps(value).encode()) for key, value in sent.items()}
        | {"patient": msgspec.Raw(json.dumps(PATIENT).encode())},
        queries,
        {key: Fetched(json.dumps(value).encode()) for key, value in fetched.items()},
        patient_id="p",
    )
    return build_record(gathered, WANTED, patient_id="p")


def found(record: PatientRecord) -> list[Any]:
    """All contacts and facts of a record."""
    return [*record.contacts, *(fact for facts in record.facts.values() for fact in facts)]


@pytest.mark.parametrize("name", sorted(VERSIONS))
def test_what_was_fetched_takes_the_place_of_what_another_key_held(name: str) -> None:
    """The newer version counts, once, or not at all where it does not count."""
    kind, older, newer, count = VERSIONS[name]
    now = searchset(resource(kind, newer))
    both = completed({"own-key": resource(kind, older)}, {"all": now}, kind)
    assert found(both) == found(completed({}, {"all": now}, kind))
    assert len({one.source for one in found(both)}) == count


def test_the_same_version_under_two_keys_counts_once() -> None:
    """The contact of the context, read by its id, is one of all contacts."""
    stay = resource("Encounter", VERSIONS["a contact that ended"][2])
    assert len(completed({"stay": stay, "encounters": searchset(stay)}, {}).contacts) == 1


def test_a_stay_that_ended_does_not_go_on_because_an_older_version_says_so() -> None:
    """The end is that of what was fetched: the older version, still in progress, has none."""
    _, older, newer, _ = VERSIONS["a contact that ended"]
    sent = {"stay": resource("Encounter", older)}
    (contact,) = completed(sent, {"encounters": searchset(resource("Encounter", newer))}).contacts
    assert contact.end < float("inf")


def test_resources_without_an_id_are_never_taken_for_one_another() -> None:
    """Hand-made input has none: two contacts stay two."""
    _, older, newer, _ = VERSIONS["a contact that ended"]
    input_of_both = [
        PATIENT,
        resource("Encounter", older, None),
        resource("Encounter", newer, None),
    ]
    assert len(build_record(decode_bundle(bundle_of(input_of_both)), WANTED).contacts) == 2


def test_resources_of_other_ids_stay() -> None:
    """However alike they are."""
    fields = VERSIONS["a contact that ended"][2]
    two = searchset(resource("Encounter", fields, "a"), resource("Encounter", fields, "b"))
    assert len(completed({"stay": resource("Encounter", fields, "a")}, {"all": two}).contacts) == 2


CRP: Json = {
    "code": {"coding": [{"system": "http://loinc.org", "code": "1988-5"}]},
    "effectiveDateTime": "2026-11-20T08:00:00+01:00",
    "valueQuantity": {"value": 400, "unit": "mg/L"},
}
LATER: dict[str, tuple[Json, list[float]]] = {
    "corrected": ({"status": "corrected", "valueQuantity": {"value": 40, "unit": "mg/L"}}, [40.0]),
    "entered in error": ({"status": "entered-in-error"}, []),
    "of another time": (
        {"status": "corrected", "effectiveDateTime": "2026-11-20T09:00:00+01:00"},
        [400.0],
    ),
}


@pytest.mark.parametrize("name", sorted(LATER))
def test_a_measurement_that_was_fetched_takes_the_place_of_its_older_version(name: str) -> None:
    """Also where it no longer holds, or is of another time."""
    change, values = LATER[name]
    sent = {"own-key": searchset(resource("Observation", {"status": "final", **CRP}))}
    fetched = {"labs": searchset(resource("Observation", {**CRP, **change}))}
    assert [fact.value for fact in completed(sent, fetched, "Observation").of("crp")] == values


OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"severity": "error"}]}
WARNED = {
    "resourceType": "Bundle",
    "entry": [
        {
            "resource": {"resourceType": "OperationOutcome", "issue": [{"severity": "warning"}]},
            "search": {"mode": "outcome"},
        }
    ],
}
FAILURES: dict[str, Fetched] = {
    "no answer": Fetched(None, reason="it answered 500"),
    "an OperationOutcome": Fetched(json.dumps(OUTCOME).encode()),
    "a Bundle with a warning alone": Fetched(json.dumps(WARNED).encode()),
    "a page for people": Fetched(b"<html>"),
}


@pytest.mark.parametrize("keys", [("all", "stay"), ("stay", "all")])
@pytest.mark.parametrize("failure", sorted(FAILURES))
def test_what_was_sent_in_place_of_a_failed_fetch_is_older_than_what_was_fetched(
    keys: tuple[str, str], failure: str
) -> None:
    """Whichever of the two was asked first, and however the server failed."""
    _, older, newer, _ = VERSIONS["a contact that ended"]
    fetched = {
        "all": Fetched(json.dumps(searchset(resource("Encounter", newer))).encode()),
        "stay": FAILURES[failure],
    }
    sent = {
        "patient": msgspec.Raw(json.dumps(PATIENT).encode()),
        "stay": msgspec.Raw(json.dumps(resource("Encounter", older)).encode()),
    }
    gathered = decode_prefetch(sent, {}, {key: fetched[key] for key in keys}, patient_id="p")
    (contact,) = build_record(gathered, WANTED, patient_id="p").contacts
    assert contact.end < float("inf")


# ---- what only looks like another version ---------------------------------------------------


def conditions(*entries: Json, **said: Any) -> set[str]:
    """The diagnoses of a Bundle of Conditions, as a whole record."""
    whole = {"resourceType": "Bundle", **said, "entry": [{"resource": PATIENT}, *entries]}
    record = build_record(decode_bundle(json.dumps(whole).encode()), BOTH, patient_id="p")
    return set(record.facts)


BOTH = Wanted(frozenset({"copd", "diabetes"}))
DIABETES = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "E11.9"}]}


def condition(code: Json, resource_id: str = "1", **said: Any) -> Json:
    """An entry with a Condition."""
    return {"resource": resource("Condition", {"code": code, **said}, resource_id)}


def test_one_id_on_two_servers_is_two_resources() -> None:
    """A resource is known by its whole address."""
    found_at = [
        {"fullUrl": f"https://{server}/fhir/Condition/1", **condition(code)}
        for server, code in (("a", COPD), ("b", DIABETES))
    ]
    assert conditions(*found_at) == {"copd", "diabetes"}


def test_an_empty_id_is_none() -> None:
    """Two of them are not one resource."""
    assert conditions(condition(COPD, ""), condition(DIABETES, "")) == {"copd", "diabetes"}


def test_a_history_begins_with_the_newest_version() -> None:
    """FHIR orders it so; the newest counts, whichever way it changed."""
    sure, refuted = condition(COPD), condition(COPD, verificationStatus=REFUTED)
    assert conditions(sure, refuted, type="history") == {"copd"}
    assert conditions(refuted, sure, type="history") == set()
    assert conditions(refuted, sure, type="collection") == {"copd"}


def test_a_report_that_was_withdrawn_and_issued_again_voids_nothing() -> None:
    """Its last version counts, as of everything else."""
    measured = {"resource": resource("Observation", {"status": "final", **CRP}, "o")}
    reports = [
        {"resource": {**resource("DiagnosticReport", {"status": status}), "result": RESULT}}
        for status in ("cancelled", "final")
    ]
    for order, values in ((reports, [400.0]), (reports[::-1], [])):
        entries = [{"resource": PATIENT}, measured, *order]
        raw = json.dumps({"resourceType": "Bundle", "entry": entries}).encode()
        record = build_record(decode_bundle(raw), WANTED, patient_id="p")
        assert [fact.value for fact in record.of("crp")] == values


RESULT = [{"reference": "Observation/o"}]
