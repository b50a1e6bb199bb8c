"""Epic's dialect: trigger, stripped requests, free prefetch keys, invalid but usable resources.

What Epic sends is as in the copy of its page on CDS Hooks that docs/epic.md goes by.
"""

from __future__ import annotations

import copy
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from typer.testing import CliRunner

from cds_service.app import create_app
from cds_service.auth.callers import Caller, Callers, Policy
from cds_service.cli import app as command_line
from cds_service.epic import PREFIX, TRIGGER, TRIGGERS, trigger_of
from cds_service.errors import SetupError
from cds_service.lgl import sheet_of, sheet_text
from cds_service.settings import Settings
from cds_service.topics import LONGEST_CODE, topics_of
from models.manifest import read_manifest
from models.registry import BUNDLED, Registry

ROOT = Path(__file__).parents[2]
URL = "/cds-services/readmission-30d"
Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]
Rows = Callable[[], list[sqlite3.Row]]
Agreed = Callable[..., TestClient]

EPIC = {
    TRIGGER: "27",
    f"{PREFIX}cds-hooks-specification-version": "1.1",
    f"{PREFIX}fhir-version": "R4",
    f"{PREFIX}criteria-id": "12345",
    f"{PREFIX}epic-version": "11.0",
    "internal.epic.cdshooks.request.epic-emp-id": "EMP-7734",
}


def documents(rows: Rows) -> list[dict[str, Any]]:
    """The logged predictions."""
    return [json.loads(row["document"]) for row in rows()]


def risk(row: Mapping[str, Any]) -> float:
    """The risk of a logged prediction."""
    found: float = row["heads"][0]["risk"]
    return found


# ---- the trigger ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(TRIGGERS))
def test_a_trigger_is_known_as_text_and_as_number(number: str) -> None:
    """Epic's sample has text."""
    word = TRIGGERS[number]
    assert trigger_of({TRIGGER: number}) == trigger_of({TRIGGER: int(number)}) == word


@pytest.mark.parametrize("said", ["999", 999, True, None, [27], {"a": 27}, "27 ", 27.0], ids=str)
def test_what_is_no_trigger_of_epics_is_none(said: Any) -> None:
    """It is no reason to refuse a call either."""
    assert trigger_of({TRIGGER: said}) is None


@pytest.mark.parametrize("trigger", ["26", "27", "60", "23", "18", 27, "999", None], ids=str)
def test_the_trigger_moves_no_number(
    post: Post, rows: Rows, demo_request: Mapping[str, Any], trigger: Any
) -> None:
    """patient-view without an encounterId: the prognosis is of the moment of the call."""
    as_of = demo_request["extension"]
    view = {"hook": "patient-view", "context/encounterId": ...}
    post(view)
    answer = post({**view, "extension": {**as_of, **EPIC, TRIGGER: trigger}})
    assert (answer.status_code, len(answer.json()["cards"])) == (200, 1)
    without, with_trigger = documents(rows)
    assert risk(without) == risk(with_trigger)


def test_the_service_says_which_trigger_it_was(
    post: Post, demo_request: Mapping[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a site sees whether its record fires at discharge."""
    post({"extension": {**demo_request["extension"], **EPIC}})
    assert "trigger=discharge" in capsys.readouterr().out


def test_what_else_epic_sends_is_neither_stored_nor_said(
    post: Post,
    demo_request: Mapping[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Who the user is at Epic is nobody's business here."""
    answer = post({"extension": {**demo_request["extension"], **EPIC}})
    stored = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("varsel.db*")))
    said = answer.text + "".join(capfd.readouterr())
    for value in ("EMP-7734", "12345"):
        assert value.encode() not in stored
        assert value not in said


# ---- stripped requests ----------------------------------------------------------------------


def test_r16_a_request_epic_stripped_is_told_from_one_that_lacks_data(post: Post) -> None:
    """412 names the key, and says what to compare where Epic left everything out."""
    stripped = post({"extension": EPIC, "prefetch": ...})
    (issue,) = stripped.json()["issue"]
    assert (stripped.status_code, issue["expression"]) == (412, ["prefetch.patient"])
    assert "endpoint URI" in issue["diagnostics"]
    assert "exactly the one registered" in issue["diagnostics"]
    for lacking in (
        {"prefetch": ...},
        {"extension": EPIC, "prefetch/patient": ...},
        {
            "extension": EPIC,
            "prefetch": ...,
            "fhirAuthorization": {"access_token": "x", "token_type": "Bearer"},
        },
    ):
        answer = post(lacking)
        assert answer.status_code == 412
        assert "endpoint URI" not in answer.text


def told(request: Mapping[str, Any], tmp_path: Path, *more: str) -> tuple[int, list[Any]]:
    """How `varsel doctor request` ends, and what it finds."""
    file = tmp_path / "request.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    typed = ["doctor", "request", str(file), "--service", "readmission-30d", "--json", *more]
    ended = CliRunner().invoke(command_line, typed, catch_exceptions=False)
    return ended.exit_code, json.loads(ended.stdout)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo profile for commands."""
    monkeypatch.setenv("VARSEL_PROFILE", "demo")
    monkeypatch.setenv("VARSEL_STATE_DIR", str(tmp_path))


@pytest.mark.usefixtures("demo")
def test_doctor_explains_a_request_epic_stripped(changed: Changed, tmp_path: Path) -> None:
    """Exit code 1, and the advice of the answer."""
    code, found = told(changed({"extension": EPIC, "prefetch": ...}), tmp_path)
    said = {finding["check"]: finding for finding in found}
    assert code == 1
    assert "Epic's trigger discharge" in said["request"]["says"]
    assert said["epic"]["ok"] is False
    assert "endpoint URI" in said["epic"]["says"]
    assert said["prefetch patient"]["ok"] is False


@pytest.mark.usefixtures("demo")
def test_doctor_finds_nothing_wrong_with_a_whole_request(changed: Changed, tmp_path: Path) -> None:
    """Exit code 0; every query with how it was answered; no id of the patient."""
    request = changed({"prefetch/-user": {"resourceType": "Practitioner", "id": "u"}})
    code, found = told(request, tmp_path)
    said = {finding["check"]: finding["says"] for finding in found}
    assert code == 0
    assert said["prefetch laboratory"].startswith("complete, ")
    assert said["other keys"].endswith(": -user")
    assert request["context"]["patientId"] not in json.dumps(found)


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"context/userId": "nobody"}, "request"),
        ({"prefetch/encounters": ...}, "prefetch encounters"),
        ({"prefetch/patient/id": "other"}, "answer"),
        ({"prefetch/conditions/entry/0/resource/clinicalStatus": "active"}, "fhir"),
        ({"prefetch/conditions/entry/0/resource/subject": {"reference": "#p"}}, "resources"),
    ],
    ids=["context", "missing key", "another patient", "STU3", "a foreign resource"],
)
def test_doctor_names_what_is_wrong_with_a_request(
    changed: Changed, tmp_path: Path, changes: Change, check: str
) -> None:
    """What the service would refuse or leave out."""
    code, found = told(changed(changes), tmp_path)
    assert code == 1
    assert check in [finding["check"] for finding in found if not finding["ok"]]


# ---- prefetch keys of the site's own --------------------------------------------------------


@pytest.fixture
def agreed(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Agreed]:
    """Starts the service with everybody as one caller with whom something was agreed."""
    running: list[TestClient] = []

    def start(**fields: Any) -> TestClient:
        caller = Caller("epic", "test", **fields)
        monkeypatch.setattr(
            "cds_service.app.open_callers", lambda _: Callers(open_to=caller), raising=True
        )
        client = TestClient(create_app(settings, registry), raise_server_exceptions=False)
        running.append(client)
        client.__enter__()
        return client

    yield start
    for client in running:
        client.__exit__()


KEYS = {"conds": "conditions", "meds": "medications", "pt": "patient"}


def under_its_own_keys(request: dict[str, Any]) -> dict[str, Any]:
    """The request with some keys as a site names them."""
    for own, ours in KEYS.items():
        request["prefetch"][own] = request["prefetch"].pop(ours)
    return request


def test_r15_keys_of_the_sites_own_are_known_by_its_mapping(
    agreed: Agreed, changed: Changed, rows: Rows
) -> None:
    """The same risk as under the keys of the service."""
    client = agreed(prefetch_keys={"readmission-30d": KEYS})
    for request in (changed({}), under_its_own_keys(changed({}))):
        assert client.post(URL, json=request).status_code == 200
    first, second = documents(rows)
    assert risk(first) == risk(second)
    assert first["missing"] == second["missing"]


def test_r15_a_key_nobody_agreed_on_proves_no_query(post: Post, demo_request: Any) -> None:
    """A Bundle of Encounters under another name is data, and no answer: 412."""
    contacts = demo_request["prefetch"]["encounters"]
    answer = post({"prefetch/encounters": ..., "prefetch/visits": contacts})
    assert answer.status_code == 412
    assert answer.json()["issue"][0]["expression"] == ["prefetch.encounters"]


def test_two_keys_for_one_query_are_refused_by_name(agreed: Agreed, changed: Changed) -> None:
    """Nobody could tell which of them is the answer."""
    client = agreed(prefetch_keys={"readmission-30d": KEYS})
    answer = client.post(URL, json=changed({"prefetch/conds": None}))
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["expression"][0].startswith("prefetch.cond")


SELF = "https://ehr.example/fhir/Encounter?_count=200&_sort=-date&patient={}&_format=json"
SAME = [
    SELF,
    "Encounter?patient=Patient/{}&_sort=-date&_count=1000",
    "http://ehr.example:80/fhir/Encounter?patient={}&_sort=-date&_count=200&_pretty=true",
]
ANOTHER = [
    "https://ehr.example/fhir/Encounter?patient={}&_sort=-date&_count=20",
    "https://ehr.example/fhir/Encounter?patient={}&_sort=-date",
    "https://ehr.example/fhir/Encounter?patient={}&_count=200",
    "https://ehr.example/fhir/Encounter?patient={}&_sort=-date&_count=200&status=finished",
    "https://ehr.example/fhir/Encounter?patient=other&_sort=-date&_count=200",
    "https://ehr.example/fhir/Condition?patient={}&_sort=-date&_count=200",
    "https://other.example/fhir/Encounter?patient={}&_sort=-date&_count=200",
    "https://ehr.example/fhir/Encounter",
    "https://ehr.example/fhir/Encounter?patient={}&_sort=-date&_count=all",
    "not a link",
]


def with_self_link(request: Mapping[str, Any], link: str) -> dict[str, Any]:
    """The contacts of a request, with the search they say they answer."""
    contacts = copy.deepcopy(request["prefetch"]["encounters"])
    url = link.format(request["context"]["patientId"])
    return {**contacts, "link": [{"relation": "self", "url": url}]}


@pytest.mark.parametrize("link", SAME)
def test_r15_a_bundle_that_repeats_the_query_answers_it_under_any_key(
    post: Post, demo_request: Any, link: str
) -> None:
    """Same type, same parameters in whatever order, no smaller page."""
    contacts = with_self_link(demo_request, link)
    answer = post({"prefetch/encounters": ..., "prefetch/visits": contacts})
    assert answer.status_code == 200


@pytest.mark.parametrize("link", ANOTHER)
def test_r15_a_bundle_that_answers_another_query_proves_none_of_ours(
    post: Post, demo_request: Any, link: str
) -> None:
    """A smaller page, a narrower search, another patient or server."""
    contacts = with_self_link(demo_request, link)
    answer = post({"prefetch/encounters": ..., "prefetch/visits": contacts})
    assert answer.status_code == 412


def test_r15_a_key_of_ours_with_a_narrower_search_is_not_our_query(
    post: Post, demo_request: Any
) -> None:
    """Two sites may give one name to two searches; the self link says which it was."""
    link = "https://ehr.example/fhir/Encounter?patient={}&class=IMP"
    refused = post({"prefetch/encounters": with_self_link(demo_request, link)})
    assert refused.status_code == 412
    assert "narrower" in refused.json()["issue"][0]["diagnostics"]
    for link in ("Encounter?patient=other&_count=200", "Condition?patient={}&_count=500"):
        refused = post({"prefetch/encounters": with_self_link(demo_request, link)})
        assert refused.status_code == 412
        assert "another search" in refused.json()["issue"][0]["diagnostics"]
    taken = post({"prefetch/encounters": with_self_link(demo_request, SELF)})
    assert taken.status_code == 200


def test_r15_the_patient_asked_for_is_the_answer_under_any_key(
    post: Post, demo_request: Any
) -> None:
    """A read by id is answered by the resource of that id."""
    patient = demo_request["prefetch"]["patient"]
    answer = post({"prefetch/patient": ..., "prefetch/-patient": patient})
    assert answer.status_code == 200


# ---- resources that are wrong where nobody reads --------------------------------------------


def test_an_empty_search_of_epics_is_no_error(post: Post, rows: Rows) -> None:
    """total 0 with one OperationOutcome of code 4101: asked, and nothing there."""
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "warning",
                "code": "processing",
                "details": {
                    "coding": [{"system": "urn:oid:1.2", "code": "4101"}],
                    "text": "Resource request returns no results.",
                },
            }
        ],
    }
    entry = {"fullUrl": "urn:uuid:x", "resource": outcome, "search": {"mode": "outcome"}}
    empty = {"resourceType": "Bundle", "type": "searchset", "total": 0, "entry": [entry]}
    post({"prefetch/conditions": empty})
    post({"prefetch/conditions": None})
    first, second = documents(rows)
    assert first["troubles"] == second["troubles"] == []
    assert risk(first) == risk(second)


def slip(request: dict[str, Any], what: str) -> None:
    """Put one of the slips seen in Epic's samples into a request."""
    prefetch, patient = request["prefetch"], request["context"]["patientId"]
    if what == "the patient's identifiers as an object":
        prefetch["patient"]["identifier"] = {"use": "usual"}
        return
    keys = ["medications"] if what in ONLY_OF_MEDICINES else CLINICAL
    for resource in (entry["resource"] for key in keys for entry in prefetch[key]["entry"]):
        resource.update(SLIPS[what])
        if what == "references by absolute URL":
            reference = f"https://ehr.example/fhir/Patient/{patient}"
            resource["subject"] = {"reference": reference, "display": "X"}


CLINICAL = ("medications", "conditions", "laboratory", "encounters", "vitals")
ONLY_OF_MEDICINES = ("MedicationRequest.category as an object",)
SLIPS: dict[str, dict[str, Any]] = {
    "MedicationRequest.category as an object": {"category": {"coding": [{"code": "inpatient"}]}},
    "identifiers without value": {"identifier": [{"use": "usual", "system": "urn:oid:1.2"}]},
    "references by absolute URL": {},
    "the patient's identifiers as an object": {},
}


@pytest.mark.parametrize("what", sorted(SLIPS))
def test_a_resource_that_is_wrong_where_nobody_reads_is_read(
    client: TestClient, changed: Changed, rows: Rows, what: str
) -> None:
    """The same risk as without the slip, and nothing to complain of."""
    plain, slipped = changed({}), changed({})
    slip(slipped, what)
    assert plain["prefetch"] != slipped["prefetch"]
    for request in (plain, slipped):
        assert client.post(URL, json=request).status_code == 200
    first, second = documents(rows)
    assert risk(first) == risk(second)
    assert second["troubles"] == []


# ---- what was agreed with a caller ----------------------------------------------------------


def test_a_callers_language_holds_where_it_asks_for_none(agreed: Agreed, changed: Changed) -> None:
    """Accept-Language goes before it."""
    client = agreed(policy=Policy(language="en"))
    (english,) = client.post(URL, json=changed({})).json()["cards"]
    assert english["summary"].startswith("Acute readmission")
    danish = client.post(URL, json=changed({}), headers={"Accept-Language": "da"}).json()
    assert danish["cards"][0]["summary"].startswith("Akut genindlæggelse")
    (first, *_) = client.get("/cds-services").json()["services"]
    assert first["title"] == "Acute readmission"


def test_a_caller_may_have_silence_where_data_are_too_few(
    agreed: Agreed, changed: Changed, rows: Rows
) -> None:
    """No card, but a row that says so; an alarm stands, and a risk is shown."""
    client = agreed(policy=Policy(insufficient="silent"))
    request = changed({"prefetch/laboratory": None})
    assert client.post(URL, json=request).json() == {"cards": []}
    (row,) = rows()
    assert (row["status"], row["returned"]) == ("insufficient-data", "insufficient-silent")
    newest = request["prefetch"]["vitals"]["entry"][0]["resource"]
    low = {**newest, "code": {"coding": [{"system": "http://loinc.org", "code": "59408-5"}]}}
    low["valueQuantity"] = {
        "value": 31,
        "unit": "%",
        "system": "http://unitsofmeasure.org",
        "code": "%",
    }
    alarming = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": low}]}
    alarmed = changed({"prefetch/laboratory": None, "prefetch/vitals": alarming})
    (alarm,) = client.post(URL, json=alarmed).json()["cards"]
    assert "31" in alarm["summary"]
    assert len(client.post(URL, json=changed({})).json()["cards"]) == 1


# ---- cards as Epic shows them ---------------------------------------------------------------

MANIFESTS = sorted(BUNDLED.glob("*/manifest.toml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.parent.name)
def test_r20_every_topic_is_one_epic_takes_and_no_two_are_alike(path: Path) -> None:
    """Overrides are tied to the code: setting one card aside must never hide another."""
    topics = topics_of(read_manifest(path.parent))
    assert all(re.fullmatch(rf"[A-Za-z0-9]{{1,{LONGEST_CODE}}}", t.code) for t in topics)
    assert len({topic.code for topic in topics}) == len(topics)
    assert len({topic.meaning for topic in topics}) == len(topics)


def test_r20_no_topic_of_one_model_is_one_of_another() -> None:
    """Pausing one model hides nothing of the next."""
    codes = [t.code for path in MANIFESTS for t in topics_of(read_manifest(path.parent))]
    assert len(set(codes)) == len(codes)


def test_r20_the_topics_of_shown_cards_are_those_of_the_sheet(post: Post) -> None:
    """What the analyst ties a lock-out to is what arrives."""
    listed = {t.code for t in topics_of(read_manifest(BUNDLED / "readmission-30d"))}
    sent = [
        card["source"]["topic"]["code"]
        for changes in ({}, {"prefetch/laboratory": None})
        for card in post(changes).json()["cards"]
    ]
    assert len(set(sent)) == 2
    assert set(sent) <= listed


def test_r21_no_card_asks_for_a_choice_epic_does_not_show(post: Post) -> None:
    """No suggestion so far, so no selectionBehavior; with one it could only be `any`."""
    for changes in ({}, {"prefetch/laboratory": None}):
        for card in post(changes).json()["cards"]:
            assert "suggestions" not in card
            assert card.get("selectionBehavior", "any") == "any"


# ---- the sheet ------------------------------------------------------------------------------


@pytest.mark.usefixtures("demo")
def test_the_sheet_says_what_discovery_says(client: TestClient) -> None:
    """URL, queries and reasons of the sheet are those of the running service."""
    typed = ["doctor", "lgl", "--service", "readmission-30d", "--json"]
    ended = CliRunner().invoke(command_line, typed, catch_exceptions=False)
    (sheet,) = json.loads(ended.stdout)
    (service, *_) = client.get("/cds-services").json()["services"]
    assert sheet["url"].endswith(f"/cds-services/{service['id']}")
    assert {q["key"]: q["query"] for q in sheet["prefetch"]} == service["prefetch"]
    assert [q["key"] for q in sheet["prefetch"] if q["required"]] == ["patient", "encounters"]
    assert any(trigger.startswith("27 IP discharge") for trigger in sheet["triggers"])
    assert sheet["override_reasons"][0].keys() == {"code", "system", "danish", "english"}


@pytest.mark.usefixtures("demo")
def test_a_service_nobody_serves_has_no_sheet() -> None:
    """Exit code 2 names those there are."""
    typed = ["doctor", "lgl", "--service", "nothing"]
    with pytest.raises(Exception, match="readmission-30d"):
        CliRunner().invoke(command_line, typed, catch_exceptions=False)


def test_no_sheet_is_no_empty_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no model may be served, it says of each why."""
    monkeypatch.setenv("VARSEL_PROFILE", "production")
    with pytest.raises(SetupError, match="readmission-30d: trained on synthetic data"):
        CliRunner().invoke(command_line, ["doctor", "lgl"], catch_exceptions=False)


def test_the_committed_sheets_are_what_the_command_prints() -> None:
    """docs/epic.md ends with `varsel doctor lgl` for https://varsel.example.dk."""
    sheets = [
        sheet_text(sheet_of(read_manifest(path.parent), "https://varsel.example.dk"))
        for path in MANIFESTS
    ]
    page = (ROOT / "docs" / "epic.md").read_text(encoding="utf-8")
    assert page.split("## The sheets\n\n")[1] == "\n\n".join(sheets) + "\n"
