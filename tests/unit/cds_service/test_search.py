"""The API's questions to the database, on SQLite and PostgreSQL alike: pages, times, silos."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from cds_service.db.log import open_engine
from cds_service.db.search import (
    Place,
    Row,
    Wanted,
    audit_page,
    find_prediction,
    predictions_page,
)
from cds_service.db.tables import audit_entries, prediction_payloads, predictions

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
NUMBER = 30


def prediction(number: int, organisation: str) -> dict[str, Any]:
    """A row of the log, three a second."""
    at = START + timedelta(seconds=number // 3)
    prediction_id = str(uuid.uuid4())
    words = dict.fromkeys(
        (
            "caller", "service", "hook", "content_digest", "model_id", "model_version",
            "package_checksum", "software_version", "language", "returned", "state",
            "patient_pseudonym",
        ),
        "x",
    )  # fmt: skip
    return words | {
        "prediction_id": prediction_id,
        "organisation": organisation,
        "hook_instance": prediction_id,
        "mode": "live" if number % 2 else "silent",
        "status": "scored",
        "as_of": at,
        "computed_at": at,
    }


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database with thirty predictions of one hospital, each with a payload, and of another."""
    engine = open_engine(database_url)
    rows = [prediction(n, name) for n in range(NUMBER) for name in ("org-a", "org-b")]
    said = {"features": "[]", "document": "{}", "response": "{}", "timings": "{}"}
    payloads = [
        {"prediction_id": r["prediction_id"], "computed_at": r["computed_at"], **said} for r in rows
    ]
    entries = [
        {"id": r["prediction_id"], "organisation": r["organisation"], "at": r["computed_at"],
         "who": "anna", "role": "validator", "what": "read", "salt": b"s"}
        for r in rows
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(predictions), rows)
        connection.execute(insert(prediction_payloads), payloads)
        connection.execute(insert(audit_entries), entries)
    yield engine
    engine.dispose()


def all_pages(engine: Engine, wanted: Wanted, limit: int) -> list[Row]:
    """Every row, page by page."""
    rows: list[Row] = []
    after = None
    while page := predictions_page(engine, wanted, after=after, limit=limit, payload=["document"]):
        assert len(page) <= limit
        rows += page
        after = Place(page[-1]["computed_at"], page[-1]["prediction_id"])
    return rows


@pytest.mark.parametrize("limit", [1, 7, 30])
def test_pages_hold_each_row_of_the_organisation_once(engine: Engine, limit: int) -> None:
    """In the order of time and id, with what they say, and times in UTC wherever they are kept."""
    rows = all_pages(engine, Wanted("org-a"), limit)
    places = [(row["computed_at"], row["prediction_id"]) for row in rows]
    assert len(set(places)) == NUMBER
    assert places == sorted(places)
    assert {row["organisation"] for row in rows} == {"org-a"}
    assert {row["document"] for row in rows} == {"{}"}
    assert rows[0]["computed_at"] == START
    assert rows[0]["computed_at"].utcoffset() == timedelta()


def test_times_and_columns_narrow_it(engine: Engine) -> None:
    """The first time is in it, the last is not."""
    two_s = Wanted("org-a", START + timedelta(seconds=1), START + timedelta(seconds=3))
    assert len(all_pages(engine, two_s, 100)) == 6
    assert len(all_pages(engine, Wanted("org-a", equal={"mode": "live"}), 100)) == NUMBER / 2
    nobody = Wanted("org-a", equal={"patient_pseudonym": "' OR 1=1 --"})
    assert all_pages(engine, nobody, 100) == []


def test_one_is_found_in_its_own_organisation(engine: Engine) -> None:
    """With its whole payload; in another's there is none."""
    (first,) = predictions_page(engine, Wanted("org-a"), after=None, limit=1)
    assert "document" not in first
    found = find_prediction(engine, "org-a", first["prediction_id"])
    assert found is not None
    assert found["timings"] == "{}"
    assert find_prediction(engine, "org-b", first["prediction_id"]) is None


def test_the_trail_is_paged_alike(engine: Engine) -> None:
    """Without the salt of its commitments."""
    wanted = Wanted("org-b", equal={"who": "anna"})
    first = audit_page(engine, wanted, after=None, limit=20)
    rest = audit_page(engine, wanted, after=Place(first[-1]["at"], first[-1]["id"]), limit=20)
    assert len({row["id"] for row in [*first, *rest]}) == NUMBER
    assert "salt" not in first[0]
