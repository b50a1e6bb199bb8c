"""What is published about the service is true: OpenAPI, JSON Schema, settings, documentation page.

schemathesis makes requests from the committed document and holds every answer against it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from cds_service.cli.operate import openapi_files
from cds_service.docs import CARDS_EXAMPLE, HOOK_EXAMPLE
from cds_service.settings import Settings

ROOT = Path(__file__).parents[2]
Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]


def committed(name: str) -> dict[str, Any]:
    """A committed document of `openapi/`."""
    document: dict[str, Any] = json.loads((ROOT / "openapi" / name).read_text(encoding="utf-8"))
    return document


def validator(component: str) -> Draft202012Validator:
    """A validator of one component of the OpenAPI document, formats checked."""
    components = committed("openapi.json")["components"]
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{component}", "components": components},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


# ---- OpenAPI --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openapi.json", "prediction.schema.json"])
def test_the_committed_documents_are_not_stale(name: str) -> None:
    """`varsel openapi` would write what is committed; run `make openapi` where this fails."""
    assert (ROOT / "openapi" / name).read_text(encoding="utf-8") == openapi_files()[name]


def test_the_served_document_is_the_committed_one(client: TestClient) -> None:
    """A client reads the same at /openapi.json."""
    assert client.get("/openapi.json").json() == committed("openapi.json")


def test_every_route_is_documented_with_its_errors() -> None:
    """Each operation says what it returns, and an OperationOutcome for each refusal."""
    for path, operations in committed("openapi.json")["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            for status, response in operation["responses"].items():
                assert response["description"], (method, path, status)
                if int(status) >= 400 and path != "/readyz":
                    (content,) = response["content"].values()
                    assert content["schema"]["$ref"].endswith("/OperationOutcome")


def test_the_documented_examples_fit_their_schemas() -> None:
    """Who copies an example gets something valid."""
    validator("HookRequest").validate(HOOK_EXAMPLE)
    validator("Cards").validate(CARDS_EXAMPLE)


def test_the_documented_hook_request_is_answered(client: TestClient) -> None:
    """The example can be posted as it stands."""
    answer = client.post("/cds-services/readmission-30d", json=HOOK_EXAMPLE)
    assert answer.status_code == 200


# ---- schemas --------------------------------------------------------------------------------

ANSWERS: dict[str, Change] = {
    "scored": {},
    "insufficient-data": {"prefetch/laboratory": None},
    "not-eligible": {"prefetch/encounters": None},
    "minor": {"prefetch/patient/birthDate": "2015-01-01"},
    "deceased": {"prefetch/patient/deceasedBoolean": True},
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_fit_the_published_schemas(client: TestClient, changed: Changed, kind: str) -> None:
    """Cards by OpenAPI; the prediction behind them by openapi/prediction.schema.json."""
    request = changed(ANSWERS[kind])
    validator("HookRequest").validate(request)
    cards = client.post("/cds-services/readmission-30d", json=request).json()
    validator("Cards").validate(cards)
    prediction = prediction_behind(client, request)
    Draft202012Validator(committed("prediction.schema.json")).validate(prediction)
    validator("Prediction").validate(prediction)
    assert prediction["cards"] == cards["cards"]
    expected = {"minor": "not-eligible", "deceased": "not-eligible"}.get(kind, kind)
    assert prediction["status"] == expected


def prediction_behind(client: TestClient, request: Mapping[str, Any]) -> dict[str, Any]:
    """The logged prediction of a call, as the explanation's data."""
    log = client.app.state.service.log  # type: ignore[attr-defined]
    with log.engine.connect() as connection:
        (prediction_id,) = connection.exec_driver_sql(
            "SELECT prediction_id FROM predictions WHERE hook_instance = ?",
            (request["hookInstance"],),
        ).one()
    answer = client.get(f"/explanations/{prediction_id}.json")
    assert answer.status_code == 200
    prediction: dict[str, Any] = answer.json()
    return prediction


def test_contributions_add_up_to_the_difference_in_risk(
    client: TestClient, changed: Changed
) -> None:
    """Per head, points of the categories are 100 x (risk - reference_risk), within 1e-4."""
    request = changed({})
    client.post("/cds-services/readmission-30d", json=request)
    (head,) = prediction_behind(client, request)["heads"]
    points = sum(c["points"] for c in head["contributions"])
    assert points == pytest.approx(100 * (head["risk"] - head["reference_risk"]), abs=1e-4)
    for category in head["contributions"]:
        features = sum(f["points"] for f in category["features"])
        assert features == pytest.approx(category["points"], abs=1e-4)


# ---- requirements ---------------------------------------------------------------------------

NUMBERED = re.compile(r"test_r(\d\d)_\w+")


def names_of_tests() -> set[str]:
    """The names of all tests."""
    written = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return {name for path in files for name in written.findall(path.read_text(encoding="utf-8"))}


def requirements() -> dict[int, set[str]]:
    """The requirements of docs/cds-hooks.md, with the tests each row names."""
    page = (ROOT / "docs" / "cds-hooks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|(.*)$", page, re.MULTILINE)
    return {int(number): set(re.findall(r"`(test_\w+)`", row)) for number, row in rows}


def test_every_requirement_says_what_shows_it() -> None:
    """All 39, and every test that is named exists."""
    table = requirements()
    assert sorted(table) == list(range(1, 40))
    named = set().union(*table.values())
    assert sorted(named - names_of_tests()) == []


def test_every_test_of_a_requirement_stands_in_its_row() -> None:
    """Who reads the table sees all that is shown."""
    table = requirements()
    lost = [
        name
        for name in names_of_tests()
        if (found := NUMBERED.fullmatch(name)) and name not in table[int(found.group(1))]
    ]
    assert sorted(lost) == []


# ---- settings -------------------------------------------------------------------------------


def test_every_setting_is_documented_as_it_is() -> None:
    """docs/settings.md has one row a setting: its variable, its default, what it does."""
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    documented = {
        found.group(1): (found.group(2), found.group(3))
        for found in re.finditer(r"^\| `(VARSEL_[A-Z_]+)` \| (.*?) \| (.*) \|$", text, re.MULTILINE)
    }
    true = {}
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        true[f"VARSEL_{name.upper()}"] = (default, field.description)
    assert documented == true


def test_no_other_setting_is_named_anywhere() -> None:
    """A variable that is named in the documents or the code exists."""
    known = {f"VARSEL_{name.upper()}" for name in Settings.model_fields}
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("cds_service/**/*.py")]:
        named = set(re.findall(r"VARSEL_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8")))
        assert named <= known, path


# ---- the documentation page -----------------------------------------------------------------


class Loads(HTMLParser):
    """Collects every address a page loads or links."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the addresses of a tag."""
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action", "data")]


def test_the_documentation_page_asks_nobody_else(client: TestClient) -> None:
    """/docs loads our own files only, they are there, and its policy forbids the rest."""
    page = client.get("/docs")
    loads = Loads()
    loads.feed(page.text)
    assert loads.addresses
    for address in loads.addresses:
        assert address.startswith("/static/")
        assert client.get(address).status_code == 200
    assert not re.search(r"https?://", page.text)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self' 'sha256-" in policy
    assert "http" not in policy
