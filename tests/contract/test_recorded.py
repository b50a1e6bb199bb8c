"""Requests in the shapes that record systems send, posted as they were recorded.

`requests/` holds them, its README where each shape comes from. One row of `ANSWERS` a file: the
status, what the log says of it, or the field a refusal names.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service.app import create_app
from cds_service.settings import Settings
from models.registry import Registry
from tests.matchers import check_response, refused_field

FOLDER = Path(__file__).with_name("requests")
URL = "/cds-services/readmission-30d"
COMMENT = "SYNTHETIC COMMENT"
Rows = Callable[[], list[sqlite3.Row]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a recorded request must be answered: `logged` the prediction's status and how many
    cards came, `field` what a refusal names."""

    status: int
    logged: tuple[str, int] | None = None
    field: str | None = None


SCORED = Answer(200, logged=("scored", 1))
ANSWERS = {
    "epic-admission-number": SCORED,
    "epic-discharge": SCORED,
    "epic-open-chart": SCORED,
    "epic-order-select": Answer(400, field="hook"),
    "epic-own-keys": Answer(412, field="prefetch.encounters"),
    "epic-stripped": Answer(412, field="prefetch.patient"),
    "medplum-nothing-resolved": Answer(412, field="prefetch.patient"),
    "medplum-patient-view": SCORED,
    "sandbox-missing-keys": Answer(412, field="prefetch.encounters"),
    "sandbox-order-sign": Answer(400, field="hook"),
    "sandbox-patient-view": SCORED,
}
FEEDBACK = ("epic-feedback", "sandbox-feedback")


def recorded(name: str) -> Any:
    """A recorded request."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def replayed(name: str) -> dict[str, Any]:
    """A recorded request, asked at the moment of its newest resource."""
    request: dict[str, Any] = recorded(name)
    request["extension"] = {**request.get("extension", {}), "dk.varsel.as-of": "latest"}
    return request


def test_every_recorded_request_says_where_its_shape_comes_from() -> None:
    """The table and the folder hold the same files, and each file is posted by a test here."""
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"(?m)^\| `([a-z-]+)\.json` \| .+ \| (?:Epic|Sandbox|Medplum) \|$", table)
    files = sorted(path.stem for path in FOLDER.glob("*.json"))
    assert sorted(named) == files == sorted([*ANSWERS, *FEEDBACK])


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_it_is_answered_as_it_came(client: TestClient, rows: Rows, name: str) -> None:
    """Scored with valid cards and one row in the log; or refused by the field, and no row."""
    wanted = ANSWERS[name]
    answer = client.post(URL, json=replayed(name))
    assert answer.status_code == wanted.status, answer.text
    if wanted.logged is None:
        assert refused_field(answer) == wanted.field
        assert rows() == []
        return
    cards = check_response(answer)
    (row,) = rows()
    assert (row["status"], len(cards)) == wanted.logged
    assert json.loads(row["response"]) == answer.json()


def test_what_a_system_said_of_itself_and_its_user_is_nowhere_in_the_log(
    client: TestClient, rows: Rows
) -> None:
    """Neither the token, nor Epic's employee id, nor the user's reference."""
    request = replayed("epic-discharge")
    assert client.post(URL, json=request).status_code == 200
    (row,) = rows()
    kept = " ".join(str(row[column]) for column in row.keys())  # noqa: SIM118 - a Row's columns
    for said in (
        request["fhirAuthorization"]["access_token"],
        request["extension"]["internal.epic.cdshooks.request.epic-emp-id"],
        request["context"]["userId"],
        request["fhirServer"],
    ):
        assert said not in kept


def test_a_repeated_request_gets_the_same_answer_and_no_second_row(
    client: TestClient, rows: Rows
) -> None:
    """As clients do after a time-out, in any shape."""
    for name in sorted(name for name, answer in ANSWERS.items() if answer is SCORED):
        request = replayed(name)
        first, again = (client.post(URL, json=request) for _ in range(2))
        assert first.content == again.content
    assert len(rows()) == sum(answer is SCORED for answer in ANSWERS.values())


def test_two_systems_say_the_same_of_the_same_patient(client: TestClient) -> None:
    """What is particular to a system moves no number: Epic's three triggers agree to the letter."""
    summaries = {
        json.loads(client.post(URL, json=replayed(name)).text)["cards"][0]["summary"]
        for name in ("epic-discharge", "epic-admission-number", "epic-open-chart")
    }
    assert len(summaries) == 1


# ---- a site that maps its own keys ----------------------------------------------------------

TOKEN = "a-token-of-the-site"  # noqa: S105 - known to this test alone
SITE = f"""
[[caller]]
name = "site"
organisation = "1234567890123456"
token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"

[caller.prefetch_keys.readmission-30d]
pat = "patient"
admissions = "encounters"
conds = "conditions"
vs = "vitals"
labs = "laboratory"
flowsheets = "function"
surgeries = "procedures"
meds = "medications"
"""


@pytest.fixture
def site(settings: Settings, registry: Registry, tmp_path: Path) -> Iterator[TestClient]:
    """A service with one caller, whose keys are mapped to ours."""
    (tmp_path / "callers.toml").write_text(SITE, encoding="utf-8")
    mapped = settings.model_copy(update={"callers_file": tmp_path / "callers.toml"})
    with TestClient(
        create_app(mapped, registry),
        raise_server_exceptions=False,
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as running:
        yield running


def test_a_site_with_keys_of_its_own_is_answered_like_any_other(
    site: TestClient, client: TestClient
) -> None:
    """Mapped in the callers' file, the site's keys prove the same queries: the same card text."""
    mapped = check_response(site.post(URL, json=replayed("epic-own-keys")))
    ours = check_response(client.post(URL, json=replayed("epic-discharge")))
    assert [card["detail"].split("[")[0] for card in mapped] == [
        card["detail"].split("[")[0] for card in ours
    ]


# ---- feedback -------------------------------------------------------------------------------


def feedback_on(card: dict[str, Any], name: str) -> Any:
    """A recorded feedback, on a card that was answered."""
    reason = card["overrideReasons"][0]
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    for hole, value in (
        ("{{card}}", card["uuid"]),
        ("{{code}}", reason["code"]),
        ("{{system}}", reason["system"]),
    ):
        text = text.replace(hole, value)
    return json.loads(text)


def answered_card(client: TestClient, name: str) -> dict[str, Any]:
    """The card a recorded request was answered with."""
    (card,) = check_response(client.post(URL, json=replayed(name)))
    return card


@pytest.mark.parametrize(
    ("name", "after", "unmatched"),
    [("epic-feedback", "epic-discharge", 1), ("sandbox-feedback", "sandbox-patient-view", 0)],
)
def test_feedback_is_kept_in_either_dialect(
    client: TestClient, rows: Rows, tmp_path: Path, name: str, after: str, unmatched: int
) -> None:
    """200; every item is a row, with the prediction its card was of; comments are not kept."""
    sent = feedback_on(answered_card(client, after), name)
    answer = client.post(f"{URL}/feedback", json=sent)
    assert answer.status_code == 200, answer.text
    with sqlite3.connect(tmp_path / "varsel.db") as connection:
        kept = connection.execute("SELECT prediction_id, outcome, reason FROM feedback").fetchall()
    connection.close()
    (prediction,) = rows()
    assert len(kept) == len(sent["feedback"])
    assert {outcome for _, outcome, _ in kept} == {"overridden"}
    assert sum(of is None for of, *_ in kept) == unmatched
    assert sum(of == prediction["prediction_id"] for of, *_ in kept) == len(kept) - unmatched
    assert COMMENT not in str(kept)


def test_a_refusal_is_an_operation_outcome(client: TestClient) -> None:
    """Of each recorded request that is refused: JSON, one issue, and words that name the field."""
    for name in sorted(name for name, answer in ANSWERS.items() if answer.logged is None):
        answer: Response = client.post(URL, json=replayed(name))
        assert answer.json()["resourceType"] == "OperationOutcome"
        assert answer.json()["issue"][0]["diagnostics"]
