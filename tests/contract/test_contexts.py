"""The contexts of the six hooks, and `fhirAuthorization`, as a client may and may not send them."""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service.app import create_app
from cds_service.contexts import RULES
from cds_service.errors import BadRequest
from cds_service.protocol import NO_NAMES, decode_call
from cds_service.settings import Settings
from models.manifest import Hook
from models.package import Package
from models.registry import Registry

URL = "/cds-services/readmission-30d"
Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]
Rows = Callable[[], list[sqlite3.Row]]

DRAFTS = {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "ServiceRequest"}}]}
CONTEXTS: dict[str, dict[str, Any]] = {
    "patient-view": {"userId": "Patient/p", "patientId": "p"},
    "encounter-start": {"userId": "PractitionerRole/r", "patientId": "p", "encounterId": "e"},
    "encounter-discharge": {"userId": "Practitioner/u", "patientId": "p", "encounterId": "e"},
    "order-select": {
        "userId": "Practitioner/u",
        "patientId": "p",
        "selections": ["ServiceRequest/s"],
        "draftOrders": DRAFTS,
    },
    "order-sign": {"userId": "Practitioner/u", "patientId": "p", "draftOrders": DRAFTS},
    "appointment-book": {"userId": "RelatedPerson/m", "patientId": "p", "appointments": DRAFTS},
}
FAULTS: dict[str, list[tuple[str, Any]]] = {
    "patient-view": [("userId", "Device/1"), ("userId", ...), ("patientId", ...)],
    "encounter-start": [("userId", "Patient/p"), ("encounterId", ...), ("encounterId", None)],
    "encounter-discharge": [("userId", "RelatedPerson/m"), ("encounterId", ...)],
    "order-select": [
        ("userId", "Patient/p"),
        ("draftOrders", ...),
        ("draftOrders", {"resourceType": "Patient"}),
        ("draftOrders", {}),
        ("selections", ...),
        ("selections", []),
        ("selections", "ServiceRequest/s"),
    ],
    "order-sign": [("draftOrders", ...), ("draftOrders", None), ("draftOrders", [])],
    "appointment-book": [("appointments", ...), ("userId", "Organization/o")],
}


def body(hook: str, context: Mapping[str, Any], **more: Any) -> bytes:
    """A request of a hook."""
    instance = "6f1d2b0a-3c44-4c8e-9a51-5a0f6a3f7d10"
    return json.dumps({"hook": hook, "hookInstance": instance, "context": context, **more}).encode()


def test_r08_a_package_may_answer_each_of_the_six_hooks() -> None:
    """The hooks a manifest may name are those whose context is checked."""
    assert set(get_args(Hook)) == set(RULES) == set(CONTEXTS)


@pytest.mark.parametrize("hook", sorted(CONTEXTS))
def test_r08_the_context_of_each_hook_is_read(hook: str) -> None:
    """What the hook's definition requires, and nothing more, is enough."""
    call = decode_call(body(hook, CONTEXTS[hook]), [hook])
    assert (call.hook, call.patient_id) == (hook, "p")
    assert call.encounter_id == CONTEXTS[hook].get("encounterId")


@pytest.mark.parametrize(
    ("hook", "name", "value"),
    [(hook, name, value) for hook in sorted(FAULTS) for name, value in FAULTS[hook]],
    ids=str,
)
def test_r08_a_context_that_lacks_something_is_refused_by_field(
    hook: str, name: str, value: Any
) -> None:
    """400 names the field of the context."""
    context = {**CONTEXTS[hook], name: value}
    if value is ...:
        del context[name]
    with pytest.raises(BadRequest) as refused:
        decode_call(body(hook, context), [hook])
    assert str(refused.value.field).startswith(f"context.{name}")


def test_r08_a_selection_that_is_no_reference_is_refused_by_its_place() -> None:
    """`Type/id` each."""
    context = {**CONTEXTS["order-select"], "selections": ["ServiceRequest/s", "s"]}
    with pytest.raises(BadRequest) as refused:
        decode_call(body("order-select", context), ["order-select"])
    assert refused.value.field == "context.selections[1]"


@pytest.mark.parametrize(
    "drafts",
    [
        {"entry": []},
        {"resourceType": "Bundle"},
        {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "MedicationRequest"}}]},
        {
            "resourceType": "Bundle",
            "entry": [
                {"resource": {"resourceType": "ServiceRequest", "code": {"coding": [{}]}}},
                {"resource": {"resourceType": "ServiceRequest", "reasonCode": []}},
            ],
        },
    ],
    ids=["no type", "no entries", "no intent, no medication", "empty codings and reasons"],
)
def test_r08_drafts_that_are_no_valid_resources_yet_are_no_fault(drafts: Mapping[str, Any]) -> None:
    """As the public sandbox of CDS Hooks sends them."""
    context = {**CONTEXTS["order-sign"], "draftOrders": drafts}
    assert decode_call(body("order-sign", context), ["order-sign"]).patient_id == "p"


@pytest.fixture
def ordering(settings: Settings, package: Package) -> Iterator[TestClient]:
    """The service with a package that also answers order-sign."""
    hooks: list[Hook] = ["order-sign", *package.manifest.hooks]
    changed = copy.copy(package)
    object.__setattr__(changed, "manifest", msgspec.structs.replace(package.manifest, hooks=hooks))
    with TestClient(create_app(settings, Registry({package.id: changed}, {}))) as client:
        yield client


def test_r06_one_service_answers_several_hooks(ordering: TestClient, changed: Changed) -> None:
    """The same id under three hooks in discovery, each once; a call of the third is answered."""
    listed = [(s["id"], s["hook"]) for s in ordering.get("/cds-services").json()["services"]]
    assert sorted(listed) == [
        ("readmission-30d", hook) for hook in ("encounter-discharge", "order-sign", "patient-view")
    ]
    answer = ordering.post(URL, json=changed({"hook": "order-sign", "context/draftOrders": DRAFTS}))
    assert (answer.status_code, len(answer.json()["cards"])) == (200, 1)


# ---- fhirAuthorization ----------------------------------------------------------------------

TOKEN = "a-token-that-must-not-be-seen"  # noqa: S105 - made up
WHOLE = {
    "access_token": TOKEN,
    "token_type": "Bearer",
    "expires_in": 300,
    "scope": "Observation.Read (Labs) (R4) Patient.Read (R4)",
    "subject": "client-id",
}


def test_r09_the_leave_to_read_is_taken_and_its_token_never_shown() -> None:
    """All five members; the token is in no representation."""
    sent = body(
        "patient-view",
        CONTEXTS["patient-view"],
        fhirServer="https://ehr.example/fhir",
        fhirAuthorization={**WHOLE, "patient": "p"},
    )
    call = decode_call(sent, ["patient-view"])
    assert call.authorization is not None
    assert call.authorization.access_token == TOKEN
    assert call.authorization.expires_in == 300
    assert TOKEN not in repr(call)
    assert TOKEN not in f"{call.authorization} {call.authorization!r}"
    assert not any(TOKEN.encode() in bytes(part) for part in call.content)


AUTHORIZATION_FAULTS: list[tuple[Change, str]] = [
    ({"access_token": ...}, "fhirAuthorization"),
    ({"access_token": ""}, "fhirAuthorization.access_token"),
    ({"access_token": "two words"}, "fhirAuthorization.access_token"),
    ({"access_token": "a\r\nX-Header: b"}, "fhirAuthorization.access_token"),
    ({"access_token": "a" * 16_385}, "fhirAuthorization.access_token"),
    ({"access_token": 5}, "fhirAuthorization.access_token"),
    ({"token_type": ...}, "fhirAuthorization"),
    ({"token_type": "mac"}, "fhirAuthorization.token_type"),
    ({"expires_in": "soon"}, "fhirAuthorization.expires_in"),
    ({"scope": 1}, "fhirAuthorization.scope"),
    ({"patient": "somebody-else"}, "fhirAuthorization.patient"),
    ({"patient": ""}, "fhirAuthorization.patient"),
]


@pytest.mark.parametrize(("changes", "field"), AUTHORIZATION_FAULTS, ids=lambda v: str(v)[:50])
def test_r09_leave_that_cannot_be_used_is_refused_by_field(
    post: Post, rows: Rows, changes: Change, field: str
) -> None:
    """400; the answer does not repeat what was sent, and there is no row."""
    given = {k: v for k, v in {**WHOLE, **changes}.items() if v is not ...}
    answer = post({"fhirAuthorization": given})
    assert (answer.status_code, answer.json()["issue"][0]["expression"]) == (400, [field])
    assert TOKEN not in answer.text
    assert rows() == []


def test_r09_a_token_comes_with_the_server_it_is_for(post: Post) -> None:
    """fhirServer is required with fhirAuthorization."""
    answer = post({"fhirAuthorization": WHOLE, "fhirServer": ...})
    assert (answer.status_code, answer.json()["issue"][0]["expression"]) == (400, ["fhirServer"])


def test_r09_the_token_is_nowhere_after_the_answer(
    post: Post, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in the database nor in what the service said meanwhile."""
    assert post({"fhirAuthorization": WHOLE}).status_code == 200
    stored = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("varsel.db*")))
    assert TOKEN.encode() not in stored
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())


def test_r08_no_name_of_a_caller_is_given_where_none_is_agreed() -> None:
    """Without a mapping the keys are those of the service."""
    sent = body("patient-view", CONTEXTS["patient-view"], prefetch={"conds": None})
    assert list(decode_call(sent, ["patient-view"], names=NO_NAMES).prefetch) == ["conds"]
