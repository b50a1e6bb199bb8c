"""No answer by accident: an empty list of cards never stands for data that could not be had."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service.app import create_app
from cds_service.auth.callers import Caller, Callers, Policy
from cds_service.settings import Settings
from fhir_adapters.clock import parse_time, to_iso
from models.registry import BUNDLED, Registry, admit
from tests.fuzz.seeds import all_seeds

Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]
Rows = Callable[[], list[sqlite3.Row]]

FORBIDDEN = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "error", "code": "forbidden"}],
}
DOUBTFUL = {
    "an error in the answer": {"resource": FORBIDDEN, "search": {"mode": "outcome"}},
    "an entry that cannot be read": {"resource": {"resourceType": "Encounter", "status": 5}},
    "somebody else's contact": {
        "resource": {
            "resourceType": "Encounter",
            "id": "e",
            "status": "finished",
            "class": {"code": "IMP"},
            "subject": {"reference": "Patient/somebody-else"},
        }
    },
}


@pytest.mark.parametrize("what", sorted(DOUBTFUL))
def test_r16_no_stay_is_not_concluded_from_an_answer_that_proves_nothing(
    post: Post, rows: Rows, what: str
) -> None:
    """412 that names the key, and nothing is logged as "not eligible"."""
    answer = post(
        {
            "prefetch/encounters": {
                "resourceType": "Bundle",
                "type": "searchset",
                "entry": [DOUBTFUL[what]],
            }
        }
    )
    assert answer.status_code == 412
    (issue,) = answer.json()["issue"]
    assert issue["expression"] == ["prefetch.encounters"]
    assert rows() == []


def test_r16_data_under_another_key_do_not_excuse_a_required_query_that_failed(
    post: Post, rows: Rows, demo_request: Any
) -> None:
    """The same contacts under a key nobody agreed on: a stay is there, but not that it is all."""
    answer = post(
        {
            "prefetch/encounters": FORBIDDEN,
            "prefetch/-contacts": demo_request["prefetch"]["encounters"],
        }
    )
    assert answer.status_code == 412
    (issue,) = answer.json()["issue"]
    assert issue["expression"] == ["prefetch.encounters"]
    assert "failed" in issue["diagnostics"]
    assert rows() == []


def test_r13_that_there_is_no_stay_is_believed_where_the_answer_says_so(post: Post) -> None:
    """An empty answer, and null, are answers."""
    for empty in (None, {"resourceType": "Bundle", "type": "searchset", "total": 0}):
        answer = post({"prefetch/encounters": empty})
        assert (answer.status_code, answer.json()) == (200, {"cards": []})


def test_an_alarm_stands_where_the_required_answer_proves_nothing(settings: Settings) -> None:
    """What is dangerous was measured, whatever else could not be had."""
    seed = next(s for s in all_seeds() if s.service == "hf-deterioration")
    request = json.loads(seed.text)
    patient, as_of = request["context"]["patientId"], request["extension"]["dk.varsel.as-of"]
    low = {
        "resourceType": "Observation",
        "id": "low",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "59408-5"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": to_iso(parse_time(as_of) - 60),
        "valueQuantity": {"value": 82, "system": "http://unitsofmeasure.org", "code": "%"},
    }
    unread = {"resource": {"resourceType": "Observation", "status": 5}}
    request["prefetch"]["home"] = {"resourceType": "Bundle", "entry": [{"resource": low}, unread]}
    package = admit(BUNDLED / "hf-deterioration", allow_synthetic=True)
    with TestClient(create_app(settings, Registry({package.id: package}, {}))) as client:
        answer = client.post("/cds-services/hf-deterioration", json=request)
    assert answer.status_code == 200, answer.text
    assert "82" in answer.json()["cards"][0]["summary"]


def test_silence_on_too_few_data_is_no_silence_on_data_that_could_not_be_had(
    settings: Settings, registry: Registry, changed: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked and not there: silent, as agreed. Failed: the card says what is missing."""
    caller = Caller("quiet", "test", policy=Policy(insufficient="silent"))
    monkeypatch.setattr("cds_service.app.open_callers", lambda _: Callers(open_to=caller))
    url = "/cds-services/readmission-30d"
    with TestClient(create_app(settings, registry)) as client:
        absent = client.post(url, json=changed({"prefetch/laboratory": None}))
        assert absent.json() == {"cards": []}
        failed = client.post(url, json=changed({"prefetch/laboratory": FORBIDDEN}))
        assert len(failed.json()["cards"]) == 1
