"""What is refused, with which status, naming which field; and that a refused call leaves no row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service.app import create_app
from cds_service.settings import Settings
from models.registry import Registry

URL = "/cds-services/readmission-30d"
JSON = {"Content-Type": "application/json"}
EPIC_VERSION = "com.epic.cdshooks.request.fhir-version"
AS_OF = "dk.varsel.as-of"

Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]

FAILED_QUERY = {"resourceType": "OperationOutcome", "issue": [{"severity": "error"}]}

# what is changed in the demo request (`...` removes it), the status, the field that is named
REFUSED: list[tuple[Change, int, str]] = [
    ({"hook": ...}, 400, "hook"),
    ({"hook": ""}, 400, "hook"),
    ({"hook": 5}, 400, "hook"),
    ({"hook": "order-sign"}, 400, "hook"),
    ({"hook": "Encounter-Discharge"}, 400, "hook"),
    ({"hookInstance": ...}, 400, "hookInstance"),
    ({"hookInstance": None}, 400, "hookInstance"),
    ({"hookInstance": "1"}, 400, "hookInstance"),
    ({"hookInstance": "{6f1d2b0a-3c44-4c8e-9a51-5a0f6a3f7d10}"}, 400, "hookInstance"),
    ({"context": ...}, 400, "context"),
    ({"context": None}, 400, "context"),
    ({"context": []}, 400, "context"),
    ({"context": {}}, 400, "context.userId"),
    ({"context/userId": "somebody"}, 400, "context.userId"),
    ({"context/userId": "Device/1"}, 400, "context.userId"),
    ({"context/patientId": ...}, 400, "context.patientId"),
    ({"context/patientId": ""}, 400, "context.patientId"),
    ({"context/patientId": 12}, 400, "context.patientId"),
    ({"context/patientId": "Patient/1"}, 400, "context.patientId"),
    ({"context/patientId": "a" * 65}, 400, "context.patientId"),
    ({"context/encounterId": ...}, 400, "context.encounterId"),
    ({"context/encounterId": ["1"]}, 400, "context.encounterId"),
    ({"fhirServer": 1}, 400, "fhirServer"),
    ({"fhirServer": "ehr.example"}, 400, "fhirServer"),
    ({"fhirServer": "javascript:alert(1)"}, 400, "fhirServer"),
    ({"fhirServer": "https://ehr.example/\nx"}, 400, "fhirServer"),
    ({"fhirServer": "https://ehr.example/" + "a" * 2048}, 400, "fhirServer"),
    ({"extension": "x"}, 400, "extension"),
    ({"extension": {EPIC_VERSION: "STU3"}}, 400, f"extension.{EPIC_VERSION}"),
    ({"extension": {EPIC_VERSION: "DSTU2"}}, 400, f"extension.{EPIC_VERSION}"),
    ({"extension": {EPIC_VERSION: "3.0.2"}}, 400, f"extension.{EPIC_VERSION}"),
    ({"extension": {AS_OF: 5}}, 400, f"extension.{AS_OF}"),
    ({"extension": {AS_OF: "yesterday"}}, 400, f"extension.{AS_OF}"),
    ({"extension": {AS_OF: "0001-01-01"}}, 400, f"extension.{AS_OF}"),
    ({"extension": {AS_OF: "9999-12-31"}}, 400, f"extension.{AS_OF}"),
    ({"prefetch": []}, 400, "prefetch"),
    ({"prefetch": ...}, 412, "prefetch.patient"),
    ({"prefetch": {}}, 412, "prefetch.patient"),
    ({"prefetch/patient": ...}, 412, "prefetch.patient"),
    ({"prefetch/patient": None}, 412, "prefetch.patient"),
    ({"prefetch/patient": "x"}, 412, "prefetch.patient"),
    ({"prefetch/patient": FAILED_QUERY}, 412, "prefetch.patient"),
    ({"prefetch/patient": {"resourceType": "Practitioner"}}, 412, "prefetch.patient"),
    ({"prefetch/patient/birthDate": 1936}, 412, "prefetch.patient"),
    ({"prefetch/patient/id": "somebody-else"}, 400, "prefetch.patient"),
    ({"prefetch/encounters": ...}, 412, "prefetch.encounters"),
    ({"prefetch/encounters": FAILED_QUERY}, 412, "prefetch.encounters"),
    ({"prefetch/encounters/entry": {}}, 412, "prefetch.encounters"),
    # the forms of DSTU2 and STU3
    (
        {"prefetch/encounters/entry/0/resource/class": "inpatient"},
        400,
        "prefetch.encounters.entry[0].resource.class",
    ),
    (
        {"prefetch/conditions/entry/0/resource/clinicalStatus": "active"},
        400,
        "prefetch.conditions.entry[0].resource.clinicalStatus",
    ),
    (
        {"prefetch/vitals/entry/0/resource/category": {"text": "vital"}},
        400,
        "prefetch.vitals.entry[0].resource.category",
    ),
    (
        {"prefetch/medications/entry/0/resource/resourceType": "MedicationOrder"},
        400,
        "prefetch.medications.entry[0].resource.resourceType",
    ),
]


@pytest.mark.parametrize(("changes", "status", "field"), REFUSED, ids=lambda v: str(v)[:60])
def test_a_faulty_call_is_refused_by_field_and_leaves_no_row(
    post: Post, changes: Change, status: int, field: str
) -> None:
    """An OperationOutcome names the field; nothing is half-written; no value is repeated."""
    answer = post(changes)
    assert answer.status_code == status
    assert the_field(answer) == field


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of the one service of this module, whose log must stay empty."""
    return tmp_path_factory.mktemp("refusals")


@pytest.fixture(scope="module")
def client(folder: Path, registry: Registry) -> Iterator[TestClient]:
    """A service over a real SQLite database."""
    settings = Settings(profile="demo", state_dir=folder)
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as running:
        yield running


@pytest.fixture
def post(client: TestClient, changed: Changed) -> Post:
    """Posts the demo request with some changes, as a new call."""
    return lambda changes: client.post(URL, json=changed(changes))


@pytest.fixture(autouse=True)
def _no_row_after(folder: Path, client: TestClient) -> Iterator[None]:  # noqa: ARG001 - first
    """Fails where a refused call left something in the log."""
    yield
    with closing(sqlite3.connect(folder / "varsel.db")) as connection:
        assert connection.execute("SELECT * FROM predictions").fetchall() == []


def the_field(answer: Response) -> str | None:
    """The expression of an OperationOutcome, the form of which is checked too."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["resourceType"] == "OperationOutcome"
    (issue,) = body["issue"]
    assert issue["severity"] in {"error", "fatal"}
    assert issue["code"]
    assert issue["diagnostics"]
    field: str | None
    (field,) = issue.get("expression", [None])
    return field


@pytest.fixture
def whole(hook_request: dict[str, Any]) -> bytes:
    """The demo request as bytes."""
    return json.dumps(hook_request).encode()


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda whole: whole[:-5],
    "something after it": lambda whole: whole + b"{}",
    "a list": lambda whole: b"[" + whole + b"]",
    "null": lambda _: b"null",
    "a number": lambda _: b"5",
    "a byte order mark": lambda whole: b"\xef\xbb\xbf" + whole,
    "UTF-16": lambda whole: whole.decode().encode("utf-16"),
    "NaN": lambda whole: whole.replace(b'"hook":', b'"unknown": NaN, "hook":'),
    "a lone surrogate": lambda whole: whole.replace(b"ehr.example", b"\\ud800"),
    "a lone surrogate in a key": lambda whole: whole.replace(b'"patient":', b'"\\udfff":'),
    "comments": lambda whole: whole.replace(b'"hook":', b'/* x */ "hook":'),
    "single quotes": lambda whole: whole.replace(b'"', b"'"),
    "deep": lambda _: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a deep unknown member": lambda whole: whole.replace(
        b'"hook":', b'"unknown": ' + b"[" * 100_000 + b"]" * 100_000 + b', "hook":'
    ),
    "a deep extension": lambda whole: whole.replace(
        b'"latest"', b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    ),
    "a deep resource": lambda whole: whole.replace(
        b'"patient": {', b'"deep": ' + b'[{"resourceType":"Observation","x":' * 50_000
        + b"1" + b"}]" * 50_000 + b', "patient": {',
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_not_a_json_object_is_refused(client: TestClient, whole: bytes, kind: str) -> None:
    """400, and no row."""
    sent = MALFORMED[kind](whole)
    assert sent != whole
    answer = client.post(URL, content=sent, headers=JSON)
    assert answer.status_code == 400
    assert the_field(answer) == "$"


def test_bytes_that_are_not_utf8_are_refused(client: TestClient, whole: bytes) -> None:
    """400 names the member they stand in."""
    wrong = whole.replace(b"Practitioner/demo", b"Practitioner/\xff")
    answer = client.post(URL, content=wrong, headers=JSON)
    assert (answer.status_code, the_field(answer)) == (400, "context")


def test_the_last_of_two_members_of_one_name_counts(client: TestClient, whole: bytes) -> None:
    """Duplicate keys are read as every common reader does, and never half of each."""
    wrong = whole.replace(b'"context":', b'"hook": "order-sign", "context":')
    answer = client.post(URL, content=wrong, headers=JSON)
    assert (answer.status_code, the_field(answer)) == (400, "hook")


# ---- media types, methods, sizes ------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({}, "Content-Type"),
        ({"Content-Type": "text/plain"}, "Content-Type"),
        ({"Content-Type": "application/xml"}, "Content-Type"),
        ({**JSON, "Content-Encoding": "gzip"}, "Content-Encoding"),
    ],
)
def test_another_media_type_is_refused(
    client: TestClient, whole: bytes, headers: dict[str, str], field: str
) -> None:
    """415 names the header."""
    answer = client.post(URL, content=whole, headers=headers)
    assert (answer.status_code, the_field(answer)) == (415, field)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_refused(client: TestClient, method: str) -> None:
    """405 names the method that is allowed."""
    answer = client.request(method, URL)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert the_field(answer) is None


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/cds-services/nothing", 404, "id"),
        ("/cds-services/%3Cscript%3E", 400, "id"),
        ("/cds-services/" + "a" * 65, 400, "id"),
        ("/nothing", 404, None),
    ],
)
def test_an_unknown_service_or_path_is_refused(
    client: TestClient, whole: bytes, path: str, status: int, field: str | None
) -> None:
    """404, or 400 for what cannot be a service's id."""
    answer = client.post(path, content=whole, headers=JSON)
    assert (answer.status_code, the_field(answer)) == (status, field)


@pytest.fixture(scope="module")
def small(folder: Path, registry: Registry) -> Iterator[TestClient]:
    """A service over the same database that reads bodies of at most 1,000 bytes."""
    settings = Settings(profile="demo", state_dir=folder, max_body_bytes=1000)
    with TestClient(create_app(settings, registry)) as running:
        yield running


def test_a_body_that_says_it_is_too_large_is_refused(small: TestClient, whole: bytes) -> None:
    """413 by Content-Length."""
    answer = small.post(URL, content=whole, headers=JSON)
    assert (answer.status_code, the_field(answer)) == (413, "$")


def test_a_body_that_does_not_say_its_length_is_cut_off_at_the_limit(small: TestClient) -> None:
    """413 for an endless chunked stream, after no more than what is allowed was read."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 100
            yield b" " * 100

    answer = small.post(URL, content=endless(), headers=JSON)
    assert (answer.status_code, the_field(answer)) == (413, "$")
