"""Which reads of many were of a patient's predictions, by entries as the commands write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cds_service.errors import LogUnavailable
from cds_service.identities.reads import Patient, Read, reads_of_many

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
EVENING = NOON + timedelta(hours=8)
FIRST, SECOND = "00000000-0000-8000-8000-00000000000a", "00000000-0000-8000-8000-00000000000b"


def row(prediction_id: str = FIRST, **given: Any) -> dict[str, Any]:
    """A prediction of the patient's, at noon."""
    made = {
        "prediction_id": prediction_id, "computed_at": NOON, "as_of": NOON, "service": "s",
        "model_id": "m", "model_version": "1.0.0", "status": "scored", "returned": "card",
        "mode": "live", "unit": None, "patient_pseudonym": "p", "pseudonym_key": "0",
    }  # fmt: skip
    return made | given


def entry(what: str, at: datetime = EVENING, subject: str | None = None, **details: Any) -> Any:
    """An entry of the audit trail, in the evening."""
    said = {"id": "e", "at": at, "who": "w", "role": "operator", "what": what, "why": "y"}
    return said | {"subject": subject, "details": json.dumps(details)}


def reads(one: Any, *rows: Any, decisions: tuple[Any, ...] = ()) -> list[Read]:
    patient = Patient(rows or (row(),), {"p": "0", "older": "old"}, decisions)
    return list(reads_of_many([one], patient))


DRIFT: dict[str, Any] = {"command": "drift", "model": "m", "rows": 9}
WITHDRAW: dict[str, Any] = {"command": "models withdraw", "rows": 9}


@pytest.mark.parametrize(
    ("what", "details", "is_among"),
    [
        ("read predictions", DRIFT | {"version": "1.0.0", "since": "2026-11-01"}, True),
        ("read predictions", DRIFT | {"since": "2026-11-01"}, True),
        ("read predictions", DRIFT | {"version": "1.0.0", "since": "2026-11-22"}, False),
        ("read predictions", DRIFT | {"version": "2.0.0", "since": "2026-11-01"}, False),
        ("read predictions", DRIFT | {"model": "n", "since": "2026-11-01"}, False),
        ("read predictions", WITHDRAW | {"model": "m@1.0.0"}, True),
        ("read predictions", WITHDRAW | {"model": "m@2.0.0"}, False),
        ("export", {"filters": {"model": "m", "from": None, "to": None}}, True),
        ("export", {"filters": {"model": "n", "from": None, "to": None}}, False),
        ("export", {"filters": {"to": "2026-11-21T12:00:00+00:00"}}, False),
        ("export anonymised", {"filters": {"from": "2026-11-21T12:00:00+00:00"}}, True),
        ("export synthetic", {"filters": {"model": "m"}}, True),
        ("export predictions", {"form": "text/csv", "filters": {}}, True),
        ("read predictions", {"filters": {}, "rows": 0}, False),
    ],
)
def test_each_kind_of_read_says_whether_a_prediction_was_among_it(
    what: str, details: dict[str, Any], is_among: bool
) -> None:
    """By model, version, time and number of rows."""
    assert bool(reads(entry(what, **details))) is is_among


@pytest.mark.parametrize(
    ("what", "details"),
    [
        ("read predictions", DRIFT | {"since": "2026-11-01"}),
        ("export anonymised", {"filters": {}}),
        ("export synthetic", {"filters": {}}),
        ("read predictions", WITHDRAW | {"model": "m@1.0.0"}),
    ],
)
def test_what_was_refused_is_not_among_what_takes_scored_ones(
    what: str, details: dict[str, Any]
) -> None:
    """A refusal has a card and no risk."""
    assert reads(entry(what, **details), row(status="refused")) == []


def test_a_page_lies_between_its_first_and_last_row() -> None:
    """By time, then by id, whichever way the database gives times back."""
    naive = NOON.replace(tzinfo=None)
    rows = [row(FIRST, computed_at=naive), row(SECOND, computed_at=naive)]
    for ends, told in (((FIRST, FIRST), [FIRST]), ((FIRST, SECOND), [FIRST, SECOND])):
        between = [[NOON.isoformat(), one] for one in ends]
        (read,) = reads(entry("read predictions", filters={}, rows=1, between=between), *rows)
        assert read.predictions == told


def test_a_prediction_made_since_was_not_read() -> None:
    """A log is only ever added to."""
    assert reads(entry("export predictions", at=NOON - timedelta(seconds=1), filters={})) == []
    assert reads(entry("export predictions", at=NOON, filters={})) != []


@pytest.mark.parametrize(
    ("subject", "is_among"), [("p", True), ("older", True), ("somebody-else", False)]
)
def test_a_list_of_one_pseudonym_is_a_read_of_that_patient_alone(
    subject: str, is_among: bool
) -> None:
    """Of an older key's pseudonym too, which the prediction does not stand under any more."""
    assert bool(reads(entry("export predictions", subject=subject, filters={}))) is is_among


def decided(decision: str, hour: int, pseudonym: str = "p") -> dict[str, Any]:
    at = NOON + timedelta(hours=hour)
    return {"decision": decision, "at": at, "patient_pseudonym": pseudonym}


@pytest.mark.parametrize(
    ("decisions", "left_out"),
    [
        ((decided("restricted", 1),), True),
        ((decided("restricted", 9),), False),
        ((decided("restricted", 1), decided("refused", 2)), False),
        ((decided("refused", 1), decided("restricted", 2), decided("refused", 9)), True),
        ((decided("restricted", 1, "of another server"),), False),
    ],
)
def test_the_newest_decision_at_the_moment_of_a_read_says_whether_it_left_them_out(
    decisions: tuple[Any, ...], left_out: bool
) -> None:
    """What was decided later changes nothing; what a withdrawn version has shown is listed all the
    same."""
    (read,) = reads(entry("export predictions", filters={}), decisions=decisions)
    assert read.left_out is left_out
    (listed,) = reads(entry("read predictions", **WITHDRAW, model="m@1.0.0"), decisions=decisions)
    assert not listed.left_out


@pytest.mark.parametrize(
    "one",
    [
        entry("read predictions", command="something new"),
        entry("export predictions", filters={"from": "last week"}),
        entry("read predictions", between=[["x", FIRST], ["y", FIRST]]),
        entry("read predictions", **WITHDRAW, model="no version"),
        entry("read predictions") | {"details": "{"},
    ],
)
def test_an_entry_that_does_not_say_what_was_read_is_an_error(one: Any) -> None:
    """It names the entry; nobody is told that nothing was read."""
    with pytest.raises(LogUnavailable, match="the audit entry e does not say"):
        reads(one)
