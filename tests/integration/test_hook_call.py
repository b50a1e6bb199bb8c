"""A hook call from bytes to committed row, over the real application and a real database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

URL = "/cds-services/readmission-30d"


def rows(folder: Path) -> list[sqlite3.Row]:
    """All rows of the prediction log."""
    with sqlite3.connect(folder / "varsel.db") as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM predictions").fetchall()


def test_a_discharge_gets_a_danish_card_and_a_logged_row(
    client: TestClient, hook_request: dict[str, Any], tmp_path: Path
) -> None:
    """The whole path: hook in, explained card out, prediction in the database."""
    answer = client.post(URL, json=hook_request)
    assert answer.status_code == 200
    (card,) = answer.json()["cards"]
    assert card["summary"].startswith("Akut genindlæggelse inden 30 dage: ")
    assert "Trænet på SYNTETISKE data: ikke til klinisk brug." in card["detail"]
    (row,) = rows(tmp_path)
    assert (row["status"], row["returned"]) == ("scored", "card")
    assert row["response"] == answer.text


def test_the_same_call_again_gets_the_stored_answer_and_no_second_row(
    client: TestClient, hook_request: dict[str, Any], tmp_path: Path
) -> None:
    """A client's retry is answered from the log."""
    first, second = (client.post(URL, json=hook_request) for _ in range(2))
    assert first.text == second.text
    assert len(rows(tmp_path)) == 1


def test_a_used_hook_instance_with_another_context_is_a_conflict(
    client: TestClient, hook_request: dict[str, Any], tmp_path: Path
) -> None:
    """409 names hookInstance; the first row stands alone."""
    client.post(URL, json=hook_request)
    hook_request["context"]["userId"] = "Practitioner/another"
    answer = client.post(URL, json=hook_request)
    assert answer.status_code == 409
    assert answer.json()["issue"][0]["expression"] == ["hookInstance"]
    assert len(rows(tmp_path)) == 1


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
    data = client.get(f"{path}.json").json()
    assert data["cards"] == [card]
    sources = [
        s
        for c in data["heads"][0]["contributions"]
        for f in c["features"]
        for s in f["source"]
    ]
    assert f"Encounter/{hook_request['context']['encounterId']}" in sources


def test_missing_required_prefetch_is_a_precondition_failure_that_names_the_key(
    client: TestClient, hook_request: dict[str, Any], tmp_path: Path
) -> None:
    """412 with an OperationOutcome, and nothing half-written."""
    del hook_request["prefetch"]["encounters"]
    answer = client.post(URL, json=hook_request)
    assert answer.status_code == 412
    assert answer.json()["issue"][0]["expression"] == ["prefetch.encounters"]
    assert rows(tmp_path) == []
