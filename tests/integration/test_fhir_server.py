"""Completing a prefetch from a real FHIR server: only what is lacking, and with the same result.

The server wants a bearer token, pages, and writes absolute references, as Epic does. Hostile
servers are in tests/unit/fhir_adapters/client.
"""

from __future__ import annotations

import copy
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service.app import create_app
from cds_service.settings import Settings
from models.registry import Registry
from tests.servers.sekmet import FhirServer, running

Request = dict[str, Any]
Ask = Callable[[Request], Response]
CALLER_TOKEN = "the-caller-itself"  # noqa: S105 - of this test
KEYS = [
    "conditions",
    "encounters",
    "function",
    "laboratory",
    "medications",
    "patient",
    "procedures",
    "vitals",
]


@pytest.fixture(scope="session")
def fhir_server(
    tmp_path_factory: pytest.TempPathFactory, demo_request: Request
) -> Iterator[FhirServer]:
    """A FHIR server that holds what the demo request's prefetch holds."""
    with running(tmp_path_factory.mktemp("fhir")) as server:
        server.put(resources_of(demo_request))
        yield server


def resources_of(request: Request) -> list[dict[str, Any]]:
    """All resources of a request's prefetch."""
    bundles = [v for v in request["prefetch"].values() if v["resourceType"] == "Bundle"]
    entries = [entry["resource"] for bundle in bundles for entry in bundle.get("entry", [])]
    return [request["prefetch"]["patient"], *entries]


@pytest.fixture
def ask(tmp_path: Path, registry: Registry, fhir_server: FhirServer) -> Iterator[Ask]:
    """Posts a request as a caller that has the FHIR server registered."""
    callers = tmp_path / "callers.toml"
    callers.write_text(
        f"""
        [[caller]]
        name = "with-server"
        organisation = "demo"
        token_sha256 = "{sha256(CALLER_TOKEN.encode()).hexdigest()}"
        [caller.policy]
        deadline_ms = 20000
        [[caller.fhir]]
        base = "{fhir_server.base}"
        networks = ["127.0.0.0/8"]
        """,
        encoding="utf-8",
    )
    settings = Settings(profile="demo", state_dir=tmp_path, callers_file=callers)
    headers = {"Authorization": f"Bearer {CALLER_TOKEN}"}
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as client:
        yield lambda request: client.post(
            "/cds-services/readmission-30d", json=request, headers=headers
        )


@pytest.fixture
def request_to(fhir_server: FhirServer, demo_request: Request) -> Callable[..., Request]:
    """Makes the demo request with a FHIR server, its token, and a prefetch of some keys."""

    def make(keys: list[str], *, token: str | None = fhir_server.token) -> Request:
        request = copy.deepcopy(demo_request)
        request["hookInstance"] = str(uuid.uuid4())
        request["fhirServer"] = fhir_server.base
        request["prefetch"] = {k: v for k, v in request["prefetch"].items() if k in keys}
        if token is not None:
            request["fhirAuthorization"] = {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": 300,
                "scope": "patient/*.read",
                "subject": "varsel",
                "patient": request["context"]["patientId"],
            }
        return request

    return make


Rows = Callable[[], list[sqlite3.Row]]
SOME = [list(keys) for keys in [[], ["patient"], ["laboratory", "vitals"], KEYS[:4], KEYS]]


@pytest.mark.parametrize("keys", SOME)
def test_r15_prefetch_server_and_mix_give_the_same_features(
    ask: Ask, request_to: Callable[..., Request], rows: Rows, keys: list[str]
) -> None:
    """All from the prefetch, all from the server, or some of each: the same features and risk."""
    assert ask(request_to(KEYS)).status_code == 200
    answer = ask(request_to(keys))
    assert answer.status_code == 200, answer.text
    whole, mixed = rows()
    assert whole["status"] == "scored"
    assert mixed["features"] == whole["features"]
    risks = [json.loads(row["document"])["heads"][0]["risk"] for row in (whole, mixed)]
    assert risks[0] == risks[1]


def test_r15_every_single_lacking_key_is_completed(
    ask: Ask, request_to: Callable[..., Request], rows: Rows
) -> None:
    """Whichever key the sender leaves out, the features are those of the whole prefetch."""
    for keys in [KEYS, *map(list, combinations(KEYS, len(KEYS) - 1))]:
        assert ask(request_to(keys)).status_code == 200
    found = [row["features"] for row in rows()]
    assert len(found) == len(KEYS) + 1
    assert len(set(found)) == 1


@pytest.mark.parametrize("link", [None, "Encounter?patient={patient}&class=EMER"])
def test_r15_a_contact_that_was_sent_and_fetched_is_one_contact(
    ask: Ask, request_to: Callable[..., Request], rows: Rows, link: str | None
) -> None:
    """An emergency contact that a site sends under a key of its own, still in progress, and under
    ours in answer to a narrower search: what is fetched a moment later holds it ended."""
    request = request_to(KEYS)
    assert ask(request).status_code == 200
    patient = request["context"]["patientId"]
    contacts = request["prefetch"]["encounters"]["entry"]
    emergency = next(one for one in contacts if one["resource"]["class"]["code"] == "EMER")
    earlier = copy.deepcopy(emergency)
    earlier["resource"]["status"] = "in-progress"
    del earlier["resource"]["period"]["end"]
    mixed = request_to([key for key in KEYS if key != "encounters"])
    mixed["prefetch"]["-emergency"] = earlier["resource"]
    if link:
        said = [{"relation": "self", "url": link.format(patient=patient)}]
        narrower = {"resourceType": "Bundle", "type": "searchset", "link": said, "entry": [earlier]}
        mixed["prefetch"]["encounters"] = narrower
    answer = ask(mixed)
    assert answer.status_code == 200, answer.text
    whole, both = rows()
    assert both["features"] == whole["features"]


def test_r13_a_failed_query_of_the_sender_is_asked_again_and_null_is_not(
    ask: Ask, request_to: Callable[..., Request], rows: Rows
) -> None:
    """An OperationOutcome says that the sender could not; null says that there is nothing."""
    request = request_to(KEYS)
    issue = [{"severity": "error", "code": "exception"}]
    request["prefetch"]["laboratory"] = {"resourceType": "OperationOutcome", "issue": issue}
    assert ask(request).status_code == 200
    request = request_to(KEYS)
    request["prefetch"]["laboratory"] = None
    assert ask(request).status_code == 200
    again, nothing = (statuses(row) for row in rows())
    assert again["haemoglobin"] == "measured"
    assert nothing["haemoglobin"] == "missing"


def statuses(row: sqlite3.Row) -> Mapping[str, str]:
    """The status of each feature of a log row."""
    return {feature["name"]: feature["status"] for feature in json.loads(row["features"])}


def test_r14_a_page_of_more_is_followed_on_the_server(
    ask: Ask, request_to: Callable[..., Request], rows: Rows, fhir_server: FhirServer
) -> None:
    """The sender's first page and its next link, which alone says that there is more; the rest
    comes from the server, with the token."""
    request = request_to(KEYS)
    assert ask(request).status_code == 200
    paged = request_to(KEYS)
    laboratory = paged["prefetch"]["laboratory"]
    patient = paged["context"]["patientId"]
    laboratory["entry"] = laboratory["entry"][:5]
    del laboratory["total"]
    url = f"{fhir_server.base}/Observation?patient={patient}&category=laboratory&_sort=-date"
    laboratory["link"] = [{"relation": "next", "url": f"{url}&_count=3&_offset=5"}]
    assert ask(paged).status_code == 200
    whole, completed = rows()
    assert completed["features"] == whole["features"]


def test_r09_without_a_token_the_server_refuses_and_412_says_so(
    ask: Ask, request_to: Callable[..., Request]
) -> None:
    """The data are required: the refusal names the key and the server's answer, no URL."""
    answer = ask(request_to([], token=None))
    assert answer.status_code == 412
    (issue,) = answer.json()["issue"]
    assert issue["expression"] == ["prefetch.patient"]
    assert "the FHIR server answered 401" in issue["diagnostics"]
    assert "http" not in answer.text


def test_r10_a_wrong_token_is_not_repeated_in_the_answer(
    ask: Ask, request_to: Callable[..., Request], capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the answer nor the log holds what was presented."""
    answer = ask(request_to([], token="a-secret-that-is-wrong"))  # noqa: S106 - of this test
    assert answer.status_code == 412
    said = capsys.readouterr()
    assert "a-secret-that-is-wrong" not in answer.text + said.out + said.err


def test_r16_a_server_that_is_not_registered_is_not_asked(
    ask: Ask, request_to: Callable[..., Request]
) -> None:
    """412 says that fhirServer is not registered for this caller, without repeating it."""
    request = request_to(["encounters"])
    request["fhirServer"] += "/other"
    answer = ask(request)
    assert answer.status_code == 412
    (issue,) = answer.json()["issue"]
    assert issue["expression"] == ["prefetch.patient"]
    assert "fhirServer is not registered for this caller" in issue["diagnostics"]
    assert "/other" not in answer.text


def test_what_is_not_required_and_cannot_be_fetched_is_said_feature_by_feature(
    ask: Ask, request_to: Callable[..., Request], rows: Rows
) -> None:
    """A prognosis may stand without a blood test, but never as if there had been none."""
    request = request_to(["patient", "encounters", "conditions"], token="wrong")  # noqa: S106
    assert ask(request).status_code == 200
    (row,) = rows()
    features = {feature["name"]: feature for feature in json.loads(row["features"])}
    assert features["haemoglobin"]["status"] == "not-obtained"
    assert "the FHIR server answered" in features["haemoglobin"]["reason"]


def test_a_patient_the_server_does_not_have_is_a_412(
    ask: Ask, request_to: Callable[..., Request]
) -> None:
    """A read of nothing is no answer where the patient is required."""
    request = request_to([])
    request["context"]["patientId"] = request["fhirAuthorization"]["patient"] = "nobody"
    answer = ask(request)
    assert answer.status_code == 412
    assert "the FHIR server answered 404" in answer.json()["issue"][0]["diagnostics"]
