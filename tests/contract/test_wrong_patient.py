"""Nothing of another patient gets into a prognosis: each type of resource, each way to refer.

A foreign Patient is refused. Anything else of another patient is left out and named by type and
count, and the answer it came in proves nothing any more.
"""

from __future__ import annotations

import copy
import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from httpx2 import Response

from fhir_adapters.decode import Gathered, QueryAnswer, decode_bundle
from fhir_adapters.facts import build_record
from fhir_adapters.reading.belonging import NOT_THE_PATIENTS, SUBJECTS, own_only
from fhir_adapters.reading.wanted import AnswerRule, Wanted
from fhir_adapters.resources import READ
from tests.spec.drawn import bundle_of

Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]
Rows = Callable[[], list[sqlite3.Row]]

BASE = "https://ehr.example/fhir"
OTHER = "Patient/somebody-else"
WANTED = Wanted(
    frozenset({"crp", "copd", "procedure", "medication", "episode_of_care", "mmrc"}),
    answers=(AnswerRule("mmrc", frozenset({"q"}), {}),),
)
CRP = {"coding": [{"system": "http://loinc.org", "code": "1988-5"}]}
COPD = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "J44.9"}]}
DRUG = {"coding": [{"system": "http://www.whocc.no/atc", "code": "C03CA01"}]}
PERIOD = {"start": "2026-11-01T08:00:00+01:00", "end": "2026-11-02T08:00:00+01:00"}
RESOURCES: dict[str, dict[str, Any]] = {
    "Condition": {"code": COPD},
    "DiagnosticReport": {"status": "final", "result": []},
    "Encounter": {"status": "finished", "class": {"code": "IMP"}, "period": PERIOD},
    "EpisodeOfCare": {"status": "active", "period": PERIOD},
    "MedicationAdministration": {
        "status": "completed",
        "medicationCodeableConcept": DRUG,
        "effectiveDateTime": "2026-11-02",
    },
    "MedicationRequest": {
        "status": "active",
        "medicationCodeableConcept": DRUG,
        "authoredOn": "2026-11-02",
    },
    "MedicationStatement": {
        "status": "active",
        "medicationCodeableConcept": DRUG,
        "effectiveDateTime": "2026-11-02",
    },
    "Observation": {
        "status": "final",
        "code": CRP,
        "effectiveDateTime": "2026-11-02",
        "valueQuantity": {
            "value": 40,
            "code": "mg/L",
            "unit": "mg/L",
            "system": "http://unitsofmeasure.org",
        },
    },
    "Procedure": {
        "status": "completed",
        "code": {"coding": [{"system": "urn:x", "code": "K"}]},
        "performedDateTime": "2026-11-02",
    },
    "QuestionnaireResponse": {
        "status": "completed",
        "authored": "2026-11-02",
        "item": [{"linkId": "q", "answer": [{"valueInteger": 2}]}],
    },
}
FOREIGN: dict[str, dict[str, Any]] = {
    "relative": {"reference": OTHER},
    "absolute": {"reference": f"{BASE}/{OTHER}"},
    "versioned": {"reference": f"{OTHER}/_history/2"},
    "of another server": {"reference": "https://other.example/fhir/Patient/p"},
    "urn:uuid": {"reference": "urn:uuid:6f1d2b0a-3c44-4c8e-9a51-5a0f6a3f7d10"},
    "contained": {"reference": "#p"},
    "another type": {"reference": "Group/p"},
    "identifier alone": {"identifier": {"system": "urn:cpr", "value": "2"}},
}
OWN: dict[str, dict[str, Any]] = {
    "relative": {"reference": "Patient/p"},
    "absolute": {"reference": f"{BASE}/Patient/p"},
    "behind a proxy": {"reference": "http://EHR.example:80/fhir/Patient/p"},
    "versioned": {"reference": f"{BASE}/Patient/p/_history/2"},
    "urn:uuid": {"reference": "urn:uuid:11111111-3c44-4c8e-9a51-5a0f6a3f7d10"},
    "identifier alone": {"identifier": {"system": "urn:cpr", "value": "1"}},
    "an identifier without value": {"identifier": {"system": "urn:cpr"}},
}


def gathered_of(kind: str, subject: Mapping[str, Any]) -> Gathered:
    """The patient `p`, and a resource of a type that names its patient so."""
    field = "patient" if kind == "EpisodeOfCare" else "subject"
    patient = {
        "resourceType": "Patient",
        "id": "p",
        "identifier": [{"system": "urn:cpr"}, {"system": "urn:cpr", "value": "1"}],
    }
    named = {"resourceType": kind, "id": "r", field: subject, **RESOURCES[kind]}
    sent = json.loads(bundle_of([patient, named]))
    sent["entry"][0]["fullUrl"] = "urn:uuid:11111111-3c44-4c8e-9a51-5a0f6a3f7d10"
    return decode_bundle(json.dumps(sent).encode())


def test_every_type_that_is_read_says_whose_it_is() -> None:
    """A type that is read some day and forgotten here would let another patient in."""
    assert set(READ) == SUBJECTS.keys() | {"Patient", "Medication"}
    assert SUBJECTS.keys() == RESOURCES.keys()


@pytest.mark.parametrize("way", sorted(FOREIGN))
@pytest.mark.parametrize("kind", sorted(RESOURCES))
def test_nothing_is_read_of_another_patient_and_it_is_named(kind: str, way: str) -> None:
    """Of no type, however the reference is written; the trouble holds no id."""
    gathered = gathered_of(kind, FOREIGN[way])
    record = build_record(gathered, WANTED, patient_id="p", base=BASE)
    assert (record.facts, record.contacts) == ({}, ())
    said = [(t.where, t.code, t.text) for t in record.troubles]
    assert said == [(kind, "wrong-patient", f"{kind} of another patient was left out")]


@pytest.mark.parametrize("way", sorted(OWN))
@pytest.mark.parametrize("kind", sorted(RESOURCES.keys() - {"DiagnosticReport"}))
def test_the_patients_own_are_read_however_the_reference_is_written(kind: str, way: str) -> None:
    """Absolute references of the call's own server, as Epic sends them, too."""
    record = build_record(gathered_of(kind, OWN[way]), WANTED, patient_id="p", base=BASE)
    assert record.facts or record.contacts
    assert record.troubles == []


def test_an_own_result_is_not_voided_by_another_patients_report() -> None:
    """A withdrawn report takes back the results of its own patient alone."""
    patient = {"resourceType": "Patient", "id": "p"}
    own = {"resourceType": "Observation", "id": "o", **RESOURCES["Observation"]}
    report = {
        "resourceType": "DiagnosticReport",
        "status": "entered-in-error",
        "result": [{"reference": "Observation/o"}],
    }
    for subject, left in (({"reference": OTHER}, 1), ({"reference": "Patient/p"}, 0)):
        sent = bundle_of([patient, own, {**report, "subject": subject}])
        record = build_record(decode_bundle(sent), WANTED, patient_id="p")
        assert len(record.of("crp")) == left


@pytest.mark.parametrize(
    ("focus", "read"),
    [("Patient/p", 1), ("Device/d", 1), ("Patient/fetus", 0), ("RelatedPerson/mother", 0)],
)
def test_a_measurement_of_somebody_else_in_the_patients_record_is_left_out(
    focus: str, read: int
) -> None:
    """Observation.focus: a fetus, a donor, a mother. It is filed here and true of another."""
    gathered = gathered_of("Observation", {"reference": "Patient/p"})
    resource = gathered.of("Observation")[0]
    resource.focus = [type(resource.subject)(reference=focus)]
    record = build_record(gathered, WANTED, patient_id="p", base=BASE)
    assert len(record.of("crp")) == read
    left_out = ["Observation about another person was left out"] * (1 - read)
    assert [t.text for t in record.troubles if t.code == "wrong-patient"] == left_out


def observations_of(subject: str, focus: str, number: int) -> list[dict[str, Any]]:
    """Measurements that name a subject and what they are about, equal but for their ids."""
    named = {"subject": {"reference": subject}, "focus": [{"reference": focus}]}
    made = {"resourceType": "Observation", **RESOURCES["Observation"], **named}
    return [made | {"id": f"{subject[-1]}{n}"} for n in range(number)]


@pytest.mark.parametrize(("subject", "state"), [("Patient/p", "complete"), (OTHER, "partial")])
def test_a_fetal_heart_rate_does_not_put_the_patients_own_record_in_doubt(
    subject: str, state: str
) -> None:
    """Only a foreign subject shows that the wrong record was searched; each is named once."""
    found = observations_of(subject, "RelatedPerson/fetus", 2)
    gathered = decode_bundle(bundle_of([{"resourceType": "Patient", "id": "p"}, *found]))
    gathered.answers = {"labs": QueryAnswer("complete", 0.0, 2)}
    wanted = Wanted(WANTED.concepts, queries={"labs": "Observation"})
    record = build_record(gathered, wanted, patient_id="p")
    assert record.answers["labs"].state == state
    assert record.of("crp") == []
    assert [t.code for t in record.troubles] == ["wrong-patient"] * 2


def test_thousands_of_anothers_measurements_beside_own_ones_cost_no_more_than_their_number() -> (
    None
):
    """One look at each, not one at each pair."""
    patient = {"resourceType": "Patient", "id": "p"}
    found = observations_of(OTHER, "Device/d", 4000) + observations_of(
        "Patient/p", "Device/d", 4000
    )
    gathered = decode_bundle(bundle_of([patient, *found]))
    began = time.process_time()
    own = own_only(gathered, gathered.of("Patient")[0], base="", queries={})
    assert time.process_time() - began < 0.4
    assert len(own.of("Observation")) == len(own.troubles) == 4000


def test_an_answer_that_held_another_patient_proves_nothing() -> None:
    """What is missing in it may be missing because the wrong record was searched."""
    gathered = gathered_of("Encounter", FOREIGN["relative"])
    gathered.answers = {
        "encounters": QueryAnswer("complete", 0.0, 1),
        "labs": QueryAnswer("complete", 0.0, 1),
        "more": QueryAnswer("absent", reason="not asked"),
    }
    queries = {"encounters": "Encounter", "labs": "Observation", "more": "Encounter"}
    wanted = Wanted(WANTED.concepts, queries=queries)
    answers = build_record(gathered, wanted, patient_id="p").answers
    assert (answers["encounters"].state, answers["encounters"].reason) == (
        "partial",
        NOT_THE_PATIENTS,
    )
    assert answers["labs"].state == "complete"
    assert answers["more"].reason == "not asked"


# ---- over HTTP ------------------------------------------------------------------------------


def test_a_foreign_patient_beside_the_right_one_is_refused(post: Post, rows: Rows) -> None:
    """One record, one patient: 400 names the key, and there is no row."""
    answer = post({"prefetch/relatives": {"resourceType": "Patient", "id": "mother"}})
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["expression"] == ["prefetch.patient"]
    assert "mother" not in answer.text
    assert rows() == []


def test_no_admission_of_another_patient_reads_as_none_of_ours(
    post: Post, demo_request: Mapping[str, Any], rows: Rows
) -> None:
    """A query answered with somebody else's contacts is no proof that the patient had none."""
    contacts = copy.deepcopy(demo_request["prefetch"]["encounters"])
    current = demo_request["context"]["encounterId"]
    for entry in contacts["entry"]:
        if entry["resource"]["id"] != current:
            entry["resource"]["subject"] = {"reference": OTHER}
    (card,) = post({"prefetch/encounters": contacts}).json()["cards"]
    assert "Kontakthistorik for 12 måneder" in card["detail"]
    (row,) = rows()
    assert row["status"] == "insufficient-data"
    (trouble,) = json.loads(row["document"])["troubles"]
    assert trouble == f"Encounter of another patient was left out ({len(contacts['entry']) - 1})"
    assert "somebody-else" not in row["document"] + row["response"] + str(row["features"])


def test_a_patient_of_the_same_id_on_another_server_is_somebody_else(
    post: Post, demo_request: Mapping[str, Any], rows: Rows
) -> None:
    """Ids are counted up on many servers; the server is part of who it is."""
    labs = copy.deepcopy(demo_request["prefetch"]["laboratory"])
    own = labs["entry"][0]["resource"]["subject"]["reference"]
    for entry in labs["entry"]:
        entry["resource"]["subject"] = {"reference": f"https://lab.example/fhir/{own}"}
    post({"prefetch/laboratory": labs})
    (row,) = rows()
    assert f"({len(labs['entry'])})" in json.loads(row["document"])["troubles"][0]


def test_r09_leave_to_read_another_patient_is_refused(post: Post) -> None:
    """fhirAuthorization.patient must be context.patientId."""
    given = {"access_token": "x", "token_type": "Bearer", "patient": "somebody-else"}
    answer = post({"fhirAuthorization": given})
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["expression"] == ["fhirAuthorization.patient"]
