"""A hook call from bytes to committed row, over the real application and a real database."""

from __future__ import annotations

import copy
import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

URL = "/cds-services/readmission-30d"

Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]
Rows = Callable[[], list[sqlite3.Row]]


def test_a_discharge_gets_a_danish_card_and_a_logged_row(
    client: TestClient, hook_request: dict[str, Any], rows: Rows
) -> None:
    """The whole path: hook in, explained card out, prediction in the database."""
    answer = client.post(URL, json=hook_request)
    assert answer.status_code == 200
    (card,) = answer.json()["cards"]
    assert card["summary"].startswith("Akut genindlæggelse inden 30 dage: ")
    assert "Trænet på SYNTETISKE data: ikke til klinisk brug." in card["detail"]
    (row,) = rows()
    assert (row["status"], row["returned"]) == ("scored", "card")
    assert row["response"] == answer.text


def test_the_same_call_again_gets_the_stored_answer_and_no_second_row(
    client: TestClient, hook_request: dict[str, Any], rows: Rows
) -> None:
    """A client's retry is answered from the log."""
    first, second = (client.post(URL, json=hook_request) for _ in range(2))
    assert first.text == second.text
    assert len(rows()) == 1


def test_a_used_hook_instance_with_another_context_is_a_conflict(
    client: TestClient, hook_request: dict[str, Any], rows: Rows
) -> None:
    """409 names hookInstance; the first row stands alone."""
    client.post(URL, json=hook_request)
    hook_request["context"]["userId"] = "Practitioner/another"
    answer = client.post(URL, json=hook_request)
    assert answer.status_code == 409
    assert answer.json()["issue"][0]["expression"] == ["hookInstance"]
    assert len(rows()) == 1


def test_the_row_names_no_patient_in_clear(
    client: TestClient, hook_request: dict[str, Any], tmp_path: Path
) -> None:
    """Patient, encounter, user and source ids are pseudonyms or sealed."""
    client.post(URL, json=hook_request)
    stored = (tmp_path / "varsel.db").read_bytes() + (tmp_path / "varsel.db-wal").read_bytes()
    context = hook_request["context"]
    for identity in (context["patientId"], context["encounterId"], "Practitioner/demo"):
        assert identity.encode() not in stored


def test_the_explanation_page_shows_what_was_logged(
    client: TestClient, hook_request: dict[str, Any]
) -> None:
    """The link of the card opens a page; its data hold the same risk, and the sources unsealed."""
    (card,) = client.post(URL, json=hook_request).json()["cards"]
    path = card["links"][0]["url"].split("8000", 1)[1]
    page = client.get(path)
    assert page.status_code == 200
    assert "Tidligere indlæggelser" in page.text
    row = r'<tr><td>Hæmoglobin</td><td class="n">[+−]\d,\d</td><td>\d,\d mmol/L'
    assert re.search(row, page.text)
    assert "&lt;" not in page.text.replace("&lt; 8", ""), "a table printed as text"
    data = client.get(f"{path}.json").json()
    assert data["cards"] == [card]
    sources = [
        s for c in data["heads"][0]["contributions"] for f in c["features"] for s in f["source"]
    ]
    assert f"Encounter/{hook_request['context']['encounterId']}" in sources


def test_missing_required_prefetch_is_a_precondition_failure_that_names_the_key(
    client: TestClient, hook_request: dict[str, Any], rows: Rows
) -> None:
    """412 with an OperationOutcome, and nothing half-written."""
    del hook_request["prefetch"]["encounters"]
    answer = client.post(URL, json=hook_request)
    assert answer.status_code == 412
    assert answer.json()["issue"][0]["expression"] == ["prefetch.encounters"]
    assert rows() == []


def test_bytes_that_are_not_utf8_lose_only_their_resource(
    client: TestClient, hook_request: dict[str, Any]
) -> None:
    """The rest of the record is answered."""
    sent = json.dumps(hook_request).encode()
    assert b'"http://www.whocc.no/atc", "code": "' in sent
    sent = sent.replace(b'atc", "code": "', b'atc", "code": "\xff')
    answer = client.post(URL, content=sent, headers={"Content-Type": "application/json"})
    assert answer.json()["cards"]


def test_the_last_of_two_hooks_is_the_hook(
    client: TestClient, hook_request: dict[str, Any]
) -> None:
    """As every common reader of JSON has it."""
    sent = json.dumps(hook_request).replace('"hook":', '"hook": "order-sign", "hook":')
    answer = client.post(URL, content=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "application/fhir+json", "APPLICATION/JSON"]
)
def test_json_by_any_of_its_names_is_read(
    client: TestClient, hook_request: dict[str, Any], media_type: str
) -> None:
    """Parameters and upper case do not matter."""
    answer = client.post(
        URL, content=json.dumps(hook_request), headers={"Content-Type": media_type}
    )
    assert answer.status_code == 200


# ---- what the data say ----------------------------------------------------------------------


def test_asked_and_nothing_there_is_no_contact(post: Post, rows: Rows) -> None:
    """`encounters: null` means no contacts: nothing to say, and a row without features says why."""
    answer = post({"prefetch/encounters": None})
    assert answer.json() == {"cards": []}
    (row,) = rows()
    assert (row["status"], row["reason"], row["returned"]) == (
        "not-eligible",
        "no-index-stay",
        "not-eligible",
    )
    assert row["features"] is None


def test_one_broken_resource_costs_nothing_but_itself(post: Post, rows: Rows) -> None:
    """The rest is answered; what could not be read is named by path, without its value."""
    answer = post({"prefetch/laboratory/entry/1/resource/valueQuantity/value": "SECRET"})
    assert answer.json()["cards"]
    (row,) = rows()
    (trouble,) = json.loads(row["document"])["troubles"]
    assert trouble.startswith("prefetch.laboratory.entry[1].resource.valueQuantity.value")
    assert "SECRET" not in row["document"] + row["features"] + row["response"]


def test_findings_of_another_patient_are_left_out_and_named(
    post: Post, rows: Rows, demo_request: Mapping[str, Any]
) -> None:
    """A laboratory answer of somebody else is no answer about this patient."""
    own = post({"prefetch/laboratory": None}).json()["cards"][0]
    (first,) = rows()
    entries = {
        f"prefetch/laboratory/entry/{n}/resource/subject": {"reference": "Patient/other"}
        for n in range(len(demo_request["prefetch"]["laboratory"]["entry"]))
    }
    others = post(entries).json()["cards"][0]
    assert others["summary"] == own["summary"]
    row = next(row for row in rows() if row["prediction_id"] != first["prediction_id"])
    (trouble,) = json.loads(row["document"])["troubles"]
    assert trouble.startswith("Observation of another patient was left out (")
    assert "other" not in trouble.removeprefix("Observation of another patient")


@pytest.mark.parametrize(
    "place",
    [
        "encounters/entry/0/resource/period/start",
        "encounters/entry/0/resource/period/end",
        "conditions/entry/0/resource/onsetDateTime",
        "conditions/entry/0/resource/recordedDate",
        "laboratory/entry/0/resource/effectiveDateTime",
        "medications/entry/0/resource/authoredOn",
        "patient/birthDate",
    ],
)
def test_a_date_that_is_none_is_no_reason_to_fail(post: Post, place: str) -> None:
    """Record systems write 0001-01-01 for unknown and 9999-12-31 for no end."""
    for text in ("0001-01-01", "9999-12-31", "9999-12-31T23:59:59-12:00", "x", "", "2026-02-30"):
        assert post({f"prefetch/{place}": text}).status_code == 200, text


# ---- the same call again --------------------------------------------------------------------


def test_a_retry_with_a_new_token_is_the_same_call(
    client: TestClient, changed: Changed, rows: Rows
) -> None:
    """`fhirAuthorization` is no content: the stored answer comes back, byte by byte."""
    first = changed({"fhirAuthorization": {"access_token": "one", "token_type": "Bearer"}})
    again = copy.deepcopy(first)
    again["fhirAuthorization"]["access_token"] = "two"  # noqa: S105 - made up
    answers = [client.post(URL, json=request) for request in (first, again)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert len(rows()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"context/userId": "Practitioner/another"},
        {"fhirServer": "https://other.example/fhir"},
    ],
)
def test_a_used_hook_instance_is_known_in_upper_case(
    client: TestClient, changed: Changed, rows: Rows, changes: Change
) -> None:
    """409 names hookInstance, and the first row stands as it was."""
    first = client.post(URL, json=changed({"hookInstance": "6f1d2b0a-3c44-4c8e-9a51-5a0f6a3f7d10"}))
    before = [tuple(row) for row in rows()]
    other = changed({**changes, "hookInstance": "6F1D2B0A-3C44-4C8E-9A51-5A0F6A3F7D10"})
    answer = client.post(URL, json=other)
    assert (answer.status_code, answer.json()["issue"][0]["expression"]) == (409, ["hookInstance"])
    assert first.status_code == 200
    assert [tuple(row) for row in rows()] == before
