"""What a CDS Hooks 2.0.1 client may rely on, checked as Inferno's kit and the specification do.

Paragraph numbers are those of the specification's checklist: no null or empty member (2), discovery
(4, 5), cards (18 to 26).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service.app import create_app
from cds_service.settings import Settings
from models.manifest import read_manifest
from models.package import Package
from models.registry import BUNDLED, Registry
from tests.matchers import check_response, empty_members

Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]


def oxygen_saturation(percent: float, at: str) -> dict[str, Any]:
    """A searchset of one saturation."""
    observation = {
        "resourceType": "Observation",
        "id": "spo2",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "59408-5"}]},
        "effectiveDateTime": at,
        "valueQuantity": {
            "value": percent,
            "unit": "%",
            "system": "http://unitsofmeasure.org",
            "code": "%",
        },
    }
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": observation}]}


def kinds(demo: Mapping[str, Any]) -> dict[str, Change]:
    """What to change in the demo request for each kind of answer."""
    newest = demo["prefetch"]["vitals"]["entry"][0]["resource"]["effectiveDateTime"]
    alarm = {"prefetch/vitals": oxygen_saturation(31, newest)}
    return {
        "scored": {},
        "insufficient": {"prefetch/laboratory": None},
        "alarm": alarm,
        "alarm without a score": {**alarm, "prefetch/laboratory": None},
        "not eligible": {"prefetch/encounters": None},
        "unreadable parts": {
            "prefetch/vitals/entry/0/resource/effectiveDateTime": ["not a time"],
            "prefetch/conditions": {"resourceType": "OperationOutcome", "issue": []},
        },
    }


CARDS = {
    "scored": 1,
    "insufficient": 1,
    "alarm": 2,
    "alarm without a score": 2,
    "not eligible": 0,
    "unreadable parts": 1,
}


# ---- discovery ------------------------------------------------------------------------------


def test_r05_discovery_lists_each_service_with_what_a_client_needs(
    client: TestClient, package: Package
) -> None:
    """200 and JSON; hook, id, title and description are text, the prefetch is all the package asks
    and the version its own; nothing is null or empty."""
    answer = client.get("/cds-services")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    services = answer.json()["services"]
    assert {(s["hook"], s["id"]) for s in services} == {
        ("encounter-discharge", "readmission-30d"),
        ("patient-view", "readmission-30d"),
    }
    for service in services:
        for name in ("hook", "id", "title", "description"):
            assert isinstance(service[name], str)
        asked = {key: query.template for key, query in package.manifest.prefetch.items()}
        assert service["prefetch"] == asked
        assert service["version"] == package.manifest.version
    assert list(empty_members(answer.json())) == []


@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in BUNDLED.glob("*/manifest.toml"))
)
def test_r12_prefetch_templates_use_only_what_the_specification_recommends(name: str) -> None:
    """A read, or a search by patient, token, `_sort` and `_count`; tokens of the context alone. Of
    every bundled package, as discovery sends them."""
    for query in read_manifest(BUNDLED / name).prefetch.values():
        assert re.fullmatch(
            r"Patient/\{\{context\.patientId\}\}"
            r"|[A-Z][A-Za-z]+\?patient=\{\{context\.patientId\}\}"
            r"(&(category|status|code|_sort|_count)=[A-Za-z0-9,|-]+)*",
            query.template,
        ), query.template


def test_r04_an_installation_without_models_offers_no_service(settings: Settings) -> None:
    """200 with an empty list, not an error."""
    with TestClient(create_app(settings, Registry({}, {}))) as client:
        answer = client.get("/cds-services")
    assert (answer.status_code, answer.json()) == (200, {"services": []})


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        (None, "Akut genindlæggelse"),
        ("en", "Acute readmission"),
        ("en-GB,en;q=0.9,da;q=0.8", "Acute readmission"),
        ("da;q=0.5, en; q=0.7", "Acute readmission"),
        ("sv, nb;q=0.9", "Akut genindlæggelse"),
    ],
)
def test_discovery_speaks_the_language_asked_for(
    client: TestClient, asked: str | None, title: str
) -> None:
    """Danish unless Accept-Language prefers English."""
    headers = {"Accept-Language": asked} if asked else {}
    (first, *_) = client.get("/cds-services", headers=headers).json()["services"]
    assert first["title"] == title


# ---- cards ----------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["da", "en"])
@pytest.mark.parametrize("kind", CARDS)
def test_r19_every_card_is_valid_by_cds_hooks(
    client: TestClient, demo_request: Mapping[str, Any], changed: Changed, kind: str, language: str
) -> None:
    """Summary, indicator, source, override reasons and links as the specification wants them."""
    answer = client.post(
        "/cds-services/readmission-30d",
        json=changed(kinds(demo_request)[kind]),
        headers={"Accept-Language": language},
    )
    assert answer.headers["content-type"] == "application/json"
    cards = check_response(answer)
    assert len(cards) == CARDS[kind]
    for card in cards:
        check_own(card)


def check_own(card: dict[str, Any]) -> None:
    """Fails where a card is not what this service says of every card, valid as it may be."""
    assert card["source"]["label"].startswith("Varsel · readmission-30d ")
    # none of ours so far: with suggestions, a card needs selectionBehavior and actions
    assert not card.keys() & {"suggestions", "selectionBehavior"}
    assert card["source"]["topic"]["system"].startswith("https://")
    assert card["source"]["topic"]["display"]
    assert card["overrideReasons"]
    for link in card["links"]:
        assert set(link) == {"label", "url", "type"}
        assert link["type"] == "absolute"
        assert link["url"].startswith("http://")


def test_a_card_speaks_danish_unless_english_is_asked_for(
    client: TestClient, changed: Changed
) -> None:
    """The language of Accept-Language, and the id of the override reasons stays the same."""
    url = "/cds-services/readmission-30d"
    danish = client.post(url, json=changed({})).json()["cards"][0]
    english = client.post(
        url, json=changed({}), headers={"Accept-Language": "da;q=0.2,en-US"}
    ).json()["cards"][0]
    assert danish["summary"].startswith("Akut genindlæggelse inden 30 dage")
    assert english["summary"].startswith("Acute readmission within 30 days")
    codes = [[reason["code"] for reason in card["overrideReasons"]] for card in (danish, english)]
    assert codes[0] == codes[1]
    assert danish["overrideReasons"][0]["display"] != english["overrideReasons"][0]["display"]


def test_the_site_can_choose_english(
    settings: Settings, registry: Registry, hook_request: dict[str, Any]
) -> None:
    """VARSEL_LANGUAGE=en speaks English to clients that ask for no language."""
    english = settings.model_copy(update={"language": "en"})
    with TestClient(create_app(english, registry)) as client:
        (card,) = client.post("/cds-services/readmission-30d", json=hook_request).json()["cards"]
    assert card["summary"].startswith("Acute readmission within 30 days")


def test_a_silent_service_computes_and_shows_no_card(
    settings: Settings, registry: Registry, demo_request: Mapping[str, Any], changed: Changed
) -> None:
    """VARSEL_MODE=silent: an empty list for a high risk, but an alarm stands."""
    silent = settings.model_copy(update={"mode": "silent"})
    with TestClient(create_app(silent, registry)) as client:
        url = "/cds-services/readmission-30d"
        assert client.post(url, json=changed({})).json() == {"cards": []}
        (alarm,) = client.post(url, json=changed(kinds(demo_request)["alarm"])).json()["cards"]
    assert alarm["summary"].startswith("Kontrollér måling og tilstand nu")


def test_the_printed_numbers_of_a_card_add_up(post: Post) -> None:
    """Comparison group, named categories and the rest give the printed risk, to the decimal."""
    (card,) = post({}).json()["cards"]
    printed = [
        float(number.replace("−", "-").replace("+", "").replace(",", "."))
        for number in re.findall(r"^\| [^|]+ \| ([+−][\d,]+) \|", card["detail"], re.MULTILINE)
    ]
    found = re.search(r"Øvrige: ([+−][\d,]+)\.", card["detail"])
    assert found
    other = float(found.group(1).replace("−", "-").replace("+", "").replace(",", "."))
    risk, reference = (
        float(text.replace(",", ".")) for text in re.findall(r"(\d+,\d) %", card["summary"])
    )
    assert printed
    assert reference + sum(printed) + other == pytest.approx(risk, abs=1e-6)


def test_a_client_may_call_the_same_patient_through_another_hook(post: Post) -> None:
    """patient-view needs no encounterId, and is another prediction."""
    discharge = post({}).json()["cards"][0]
    view = post({"hook": "patient-view", "context/encounterId": ...}).json()["cards"][0]
    assert view["summary"] == discharge["summary"]
    assert view["uuid"] != discharge["uuid"]


def test_r27_what_a_client_adds_to_a_request_is_ignored(post: Post) -> None:
    """Draft orders, unknown members, tokens and vendor extensions are no reason to refuse."""
    answer = post(
        {
            "context/draftOrders": {"resourceType": "Bundle", "entry": [{"resource": {}}]},
            "extension/com.epic.cdshooks.request.bpa-trigger-action": "18",
            "extension/com.epic.cdshooks.request.fhir-version": "R4",
            "fhirAuthorization": {"access_token": "x", "token_type": "Bearer", "expires_in": 300},
            "unknown": [1, {"deep": None}],
        }
    )
    assert answer.status_code == 200
    assert json.loads(answer.text)["cards"]
