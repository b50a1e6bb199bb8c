"""Feedback on cards, as CDS Hooks 2.0.1 and Epic send it (requirements 29 to 31).

What is kept is read from the database, past the service.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from cds_service.app import create_app
from cds_service.docs import FEEDBACK_EXAMPLE
from cds_service.feedback import LARGEST_BODY, MOST_ITEMS
from cds_service.settings import Settings
from models.registry import Registry
from tests.issuers import HOOK_PATH, SERVICE_URL, caller_table, claims, jwks, key_of, signed
from tests.outages import full_disk

Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]
Kept = Callable[[], list[sqlite3.Row]]

URL = "/cds-services/readmission-30d"
WHEN = "2026-11-21T12:03:27Z"
OTHER_REASON = {"code": "other", "system": "https://varsel.dk/fhir/CodeSystem/override-reason"}
COMMENT = "Else Jensen 010190-1234"


def overridden(card: str, **given: Any) -> dict[str, Any]:
    """An item of a card that was set aside, with what else is given."""
    return {"card": card, "outcome": "overridden", "outcomeTimestamp": WHEN} | given


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Reads all feedback that was kept, in the order of the cards' ids."""

    def read() -> list[sqlite3.Row]:
        with closing(sqlite3.connect(tmp_path / "varsel.db")) as connection:
            connection.row_factory = sqlite3.Row
            query = "SELECT * FROM feedback ORDER BY card, outcome_at"
            return connection.execute(query).fetchall()

    return read


@pytest.fixture
def report(client: TestClient) -> Callable[..., Response]:
    """Posts a batch of some items."""

    def send(*items: Any) -> Response:
        return client.post(f"{URL}/feedback", json={"feedback": list(items)})

    return send


@pytest.fixture
def card(post: Post) -> str:
    """The id of a card that was answered."""
    (shown,) = post({}).json()["cards"]
    return str(shown["uuid"])


# ---- what is kept ---------------------------------------------------------------------------


def test_r29_an_overridden_card_is_kept_with_its_reason_and_its_prediction(
    report: Callable[..., Response],
    card: str,
    kept: Kept,
    rows: Callable[[], list[sqlite3.Row]],
) -> None:
    """200 with a body that says nothing else; the row leads to the prediction the card was of."""
    answer = report(overridden(card, overrideReason={"reason": OTHER_REASON}))
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["content-type"] == "application/json"
    (prediction,) = rows()
    (row,) = kept()
    assert row["prediction_id"] == prediction["prediction_id"]
    assert (row["organisation"], row["caller"], row["service"]) == (
        "demo", "demo", "readmission-30d",
    )  # fmt: skip
    assert (row["card"], row["outcome"], row["accepted"]) == (card, "overridden", None)
    assert json.loads(row["reason"]) == OTHER_REASON
    assert row["outcome_at"].startswith("2026-11-21 12:03:27")


def test_r29_an_accepted_suggestion_is_kept(
    report: Callable[..., Response], card: str, kept: Kept
) -> None:
    """The ids of all suggestions that were accepted."""
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    accepted = {"outcome": "accepted", "acceptedSuggestions": [{"id": i} for i in ids]}
    assert report(overridden(card) | accepted).status_code == 200
    (row,) = kept()
    assert (row["outcome"], json.loads(row["accepted"])) == ("accepted", ids)


@pytest.mark.parametrize(
    "said",
    [{}, {"overrideReason": {}}, {"overrideReason": None}, {"acceptedSuggestions": []}],
    ids=["nothing", "empty", "null", "no suggestions"],
)
def test_r29_a_card_may_be_overridden_without_a_reason(
    report: Callable[..., Response], card: str, kept: Kept, said: Mapping[str, Any]
) -> None:
    """As the public sandbox does."""
    assert report(overridden(card, **said)).status_code == 200
    (row,) = kept()
    assert (row["reason"], row["accepted"]) == (None, None)


@pytest.mark.parametrize("name", ["overrideReason", "overrideReasons"])
def test_r29_a_comment_is_neither_kept_nor_logged(
    report: Callable[..., Response],
    card: str,
    kept: Kept,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """Free text may name the patient. With a reason beside it, or alone."""
    with_reason = {"reason": OTHER_REASON, "userComment": COMMENT}
    later = {"outcomeTimestamp": "2026-11-21T12:04:00Z"}
    answer = report(
        overridden(card, **{name: with_reason}),
        overridden(card, **{name: {"userComment": COMMENT}}) | later,
    )
    assert answer.status_code == 200
    assert [row["reason"] is None for row in kept()] == [False, True]
    assert COMMENT not in str([tuple(row) for row in kept()]) + str(capfd.readouterr())


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        ("2026-11-21T12:03:27Z", "12:03:27"),
        ("2026-11-21T12:03:27.519Z", "12:03:27.519"),
        ("2026-11-21T13:03:27+01:00", "12:03:27"),
        ("2026-11-21t12:03:27z", "12:03:27"),
    ],
)
def test_r29_the_moment_is_kept_in_utc(
    report: Callable[..., Response], card: str, kept: Kept, said: str, moment: str
) -> None:
    """Fractions of a second and other zones are read as RFC 3339 has them."""
    assert report(overridden(card) | {"outcomeTimestamp": said}).status_code == 200
    (row,) = kept()
    assert row["outcome_at"].startswith(f"2026-11-21 {moment}")


# ---- Epic -----------------------------------------------------------------------------------


def test_r29_a_reason_under_epics_plural_name_is_kept(
    report: Callable[..., Response], card: str, kept: Kept
) -> None:
    """`overrideReasons`, an object with reason and comment."""
    reason = {"code": "contraindicated", "display": "bad", "system": "http: //example.org/reasons"}
    item = overridden(card, overrideReasons={"reason": reason, "userComment": "free text"})
    assert report(item).status_code == 200
    (row,) = kept()
    assert json.loads(row["reason"]) == reason
    assert row["prediction_id"]


@pytest.mark.parametrize("category", ["45", 45])
def test_r29_a_reason_of_epics_own_list_is_kept(
    report: Callable[..., Response], card: str, kept: Kept, category: str | int
) -> None:
    """Three extension keys and no reason."""
    start = "com.epic.cdshooks.feedback.overrideReason.reason"
    extension = {
        f"{start}Category": category,
        f"{start}Display": "Does not meet criteria",
        f"{start}Title": "Criteria\u202e\x1b[31m",
    }
    item = overridden(card, overrideReasons={"extension": extension, "userComment": "free text"})
    assert report(item).status_code == 200
    (row,) = kept()
    assert json.loads(row["reason"]) == {
        "category": "45",
        "title": "Criteria[31m",
        "display": "Does not meet criteria",
    }


def test_r30_a_card_id_that_is_no_uuid_is_kept_as_unmatched(
    report: Callable[..., Response], kept: Kept
) -> None:
    """Epic's own sample has "123456"."""
    assert report(overridden("123456")).json() == {}
    (row,) = kept()
    assert (row["card"], row["prediction_id"], row["caller"]) == ("123456", None, "demo")


# ---- batches --------------------------------------------------------------------------------


def test_r30_a_batch_may_hold_cards_of_several_calls(
    report: Callable[..., Response], post: Post, kept: Kept
) -> None:
    """Each leads to its own prediction."""
    one, two = post({}).json()["cards"], post({"hook": "patient-view"}).json()["cards"]
    cards = [card["uuid"] for card in (*one, *two)]
    assert report(*(overridden(card) for card in cards)).status_code == 200
    matched = {row["card"]: row["prediction_id"] for row in kept()}
    assert set(matched) == set(cards)
    assert len(set(matched.values())) == 2
    assert None not in matched.values()


def test_r30_every_card_of_a_response_leads_to_its_prediction(
    report: Callable[..., Response],
    post: Post,
    kept: Kept,
    rows: Callable[[], list[sqlite3.Row]],
) -> None:
    """Alarms and a risk in one answer: several cards, one prediction. Upper case is the same id."""
    pulse = {"prefetch/vitals/entry/0/resource/valueQuantity/value": 900}
    cards = [card["uuid"] for card in post(pulse).json()["cards"]]
    assert len(cards) > 1
    assert report(*(overridden(card.upper()) for card in cards)).status_code == 200
    (prediction,) = rows()
    assert {row["prediction_id"] for row in kept()} == {prediction["prediction_id"]}
    assert len(kept()) == len(cards)


def test_r30_one_card_may_be_reported_several_times(
    report: Callable[..., Response], card: str, kept: Kept
) -> None:
    """Set aside, later accepted, set aside again: each is a row."""
    accepted = {"outcome": "accepted", "acceptedSuggestions": [{"id": "s"}]}
    first = report(overridden(card), overridden(card) | accepted)
    later = report(overridden(card) | {"outcomeTimestamp": "2026-11-21T14:00:00Z"})
    assert (first.status_code, later.status_code) == (200, 200)
    assert sorted(row["outcome"] for row in kept()) == ["accepted", "overridden", "overridden"]


def test_r30_a_batch_sent_twice_leaves_one_row_an_item(
    report: Callable[..., Response], card: str, kept: Kept
) -> None:
    """A client that retries changes nothing, whatever else is in the second batch."""
    items = [overridden(card, overrideReason={"reason": OTHER_REASON}), overridden("unknown")]
    assert report(*items, *items).status_code == 200
    before = [tuple(row) for row in kept()]
    assert report(*reversed(items)).status_code == 200
    assert [tuple(row) for row in kept()] == before
    assert len(before) == 2


def test_r30_unknown_cards_are_kept_as_unmatched(
    report: Callable[..., Response], card: str, kept: Kept
) -> None:
    """200: an id beside ours, an unknown one, and the prediction's own id are no cards."""
    number = uuid.UUID(card).int
    near = [str(uuid.UUID(int=(number & ~0xFF) | ((number + n) & 0xFF))) for n in (1, 254, 255)]
    unknown = [*near, str(uuid.uuid4())]
    answer = report(overridden(card), *(overridden(other) for other in unknown))
    assert (answer.status_code, answer.json()) == (200, {})
    assert {row["card"] for row in kept() if row["prediction_id"] is None} == set(unknown)


def test_r30_an_empty_batch_is_no_error(report: Callable[..., Response], kept: Kept) -> None:
    """Nothing was reported, nothing is kept."""
    assert (report().status_code, kept()) == (200, [])


# ---- what is refused ------------------------------------------------------------------------

CARD = "6f1d2b0a-3c44-8c8e-9a51-5a0f6a3f7d10"
START = "com.epic.cdshooks.feedback.overrideReason.reason"
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no card": ({"card": ...}, "card"),
    "card null": ({"card": None}, "card"),
    "card empty": ({"card": ""}, "card"),
    "card with a space": ({"card": "a b"}, "card"),
    "card with a line end": ({"card": "abc\n"}, "card"),
    "card too long": ({"card": "a" * 65}, "card"),
    "card no text": ({"card": 1}, "card"),
    "no outcome": ({"outcome": ...}, "outcome"),
    "another outcome": ({"outcome": "ignored"}, "outcome"),
    "no timestamp": ({"outcomeTimestamp": ...}, "outcomeTimestamp"),
    "a day": ({"outcomeTimestamp": "2026-11-21"}, "outcomeTimestamp"),
    "no zone": ({"outcomeTimestamp": "2026-11-21T12:03:27"}, "outcomeTimestamp"),
    "no such day": ({"outcomeTimestamp": "2026-02-30T12:03:27Z"}, "outcomeTimestamp"),
    "before all time": ({"outcomeTimestamp": "0001-01-01T00:00:00+14:00"}, "outcomeTimestamp"),
    "accepted without": ({"outcome": "accepted"}, "acceptedSuggestions"),
    "accepted none": (
        {"outcome": "accepted", "acceptedSuggestions": []}, "acceptedSuggestions",
    ),
    "suggestion without id": ({"acceptedSuggestions": [{"id": "a"}, {}]},
                              "acceptedSuggestions[1].id"),
    "suggestion id too long": ({"acceptedSuggestions": [{"id": "a" * 65}]},
                               "acceptedSuggestions[0].id"),
    "too many suggestions": ({"acceptedSuggestions": [{"id": "a"}] * 101}, "acceptedSuggestions"),
    "reason without code": ({"overrideReason": {"reason": {"system": "s"}}},
                            "overrideReason.reason.code"),
    "reason without system": ({"overrideReason": {"reason": {"code": "c"}}},
                              "overrideReason.reason.system"),
    "a list of reasons": ({"overrideReasons": []}, "overrideReasons"),
    "plural without code": ({"overrideReasons": {"reason": {"system": "s"}}},
                            "overrideReasons.reason.code"),
    "a long display": ({"overrideReason": {"reason": {**OTHER_REASON, "display": "d" * 513}}},
                       "overrideReason.reason.display"),
    "a long title": ({"overrideReasons": {"extension": {f"{START}Title": "d" * 513}}},
                     f"overrideReasons.extension.{START}Title"),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(WRONG))
def test_r29_a_malformed_item_is_named_and_nothing_of_the_batch_kept(
    report: Callable[..., Response], kept: Kept, kind: str
) -> None:
    """400 with the item's place and field; not even the sound items before it are kept."""
    changes, field = WRONG[kind]
    item = {k: v for k, v in (overridden(CARD) | changes).items() if v is not ...}
    answer = report(overridden("first"), overridden("second"), item, overridden("fourth"))
    assert answer.status_code == 400
    (issue,) = answer.json()["issue"]
    assert issue["expression"] == [f"feedback[2].{field}"]
    assert kept() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "feedback"),
        (b'{"feedback": null}', "feedback"),
        (b'{"feedback": {}}', "feedback"),
        (b'{"feedback": [1]}', "feedback[0]"),
        (b"[]", "$"),
        (b"", "$"),
        (b'{"feedback": [', "$"),
        (b'{"feedback": [{"card": "\xff"}]}', "$"),
        (b"[" * 100_000, "$"),
    ],
)
def test_r29_a_body_that_is_no_batch_is_refused(
    client: TestClient, kept: Kept, body: bytes, field: str
) -> None:
    """400 with an OperationOutcome that names the field."""
    headers = {"Content-Type": "application/json"}
    answer = client.post(f"{URL}/feedback", content=body, headers=headers)
    assert (answer.status_code, answer.json()["issue"][0]["expression"]) == (400, [field])
    assert kept() == []


def test_r30_a_batch_has_its_limits(
    client: TestClient, report: Callable[..., Response], kept: Kept
) -> None:
    """413 for too many items or bytes; the most that is read is kept whole."""
    items = [overridden(str(n)) for n in range(MOST_ITEMS + 1)]
    answer = report(*items)
    assert (answer.status_code, answer.json()["issue"][0]["expression"]) == (413, ["feedback"])
    padded = json.dumps({"feedback": [], "other": ["x" * 1000] * (LARGEST_BODY // 1000)})
    headers = {"Content-Type": "application/json"}
    assert client.post(f"{URL}/feedback", content=padded, headers=headers).status_code == 413
    assert kept() == []
    assert report(*items[:-1]).status_code == 200
    assert len(kept()) == MOST_ITEMS


def test_r29_feedback_on_no_service_is_not_found(client: TestClient, kept: Kept) -> None:
    """404: the address is wrong, and somebody should learn it."""
    answer = client.post("/cds-services/nothing/feedback", json={"feedback": [overridden(CARD)]})
    assert (answer.status_code, kept()) == (404, [])


def test_r29_feedback_that_cannot_be_stored_is_not_said_to_be_kept(
    report: Callable[..., Response], card: str, tmp_path: Path, kept: Kept
) -> None:
    """Neither database nor spool takes it: 503, and the same batch is kept once they are back."""
    with closing(sqlite3.connect(tmp_path / "varsel.db")) as connection:
        connection.execute("ALTER TABLE feedback RENAME TO gone")
    with full_disk():
        answer = report(overridden(card))
    assert (answer.status_code, answer.json()["resourceType"]) == (503, "OperationOutcome")
    with closing(sqlite3.connect(tmp_path / "varsel.db")) as connection:
        connection.execute("ALTER TABLE gone RENAME TO feedback")
    assert report(overridden(card)).status_code == 200
    assert len(kept()) == 1


def test_r29_the_documented_example_is_kept(
    client: TestClient, report: Callable[..., Response], kept: Kept
) -> None:
    """Who copies it gets 200; and it fits the schema that is published."""
    document = client.get("/openapi.json").json()
    reference = {"$ref": "#/components/schemas/Feedback", "components": document["components"]}
    Draft202012Validator(reference).validate(FEEDBACK_EXAMPLE)
    assert report(*FEEDBACK_EXAMPLE["feedback"]).status_code == 200
    assert len(kept()) == 2


# ---- whose ----------------------------------------------------------------------------------


@pytest.fixture
def two_organisations(
    settings: Settings, registry: Registry, tmp_path: Path
) -> Iterator[TestClient]:
    """The service with two callers, `one` and `two`, of different organisations."""
    tables = [
        f'[[caller]]\nname = "{name}"\norganisation = "org-{name}"\n'
        f'token_sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
        for name in ("one", "two")
    ]
    (tmp_path / "callers.toml").write_text("\n".join(tables), encoding="utf-8")
    closed = settings.model_copy(update={"callers_file": tmp_path / "callers.toml"})
    with TestClient(create_app(closed, registry)) as running:
        yield running


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer three"}])
def test_r31_feedback_needs_a_caller(
    two_organisations: TestClient, kept: Kept, headers: dict[str, str]
) -> None:
    """401, bare, before anything of the body is looked at."""
    answer = two_organisations.post(f"{URL}/feedback", content=b"x", headers=headers)
    assert (answer.status_code, kept()) == (401, [])


def test_r31_a_card_of_another_organisation_is_unmatched(
    two_organisations: TestClient, kept: Kept, changed: Changed
) -> None:
    """The same 200, so that nobody learns whether a card exists; the row says who sent it."""
    bearer = {name: {"Authorization": f"Bearer {name}"} for name in ("one", "two")}
    answer = two_organisations.post(URL, json=changed({}), headers=bearer["one"])
    batch = {"feedback": [overridden(card["uuid"]) for card in answer.json()["cards"]]}
    for name in ("two", "one"):
        answer = two_organisations.post(f"{URL}/feedback", json=batch, headers=bearer[name])
        assert (answer.status_code, answer.json()) == (200, {})
    found = {row["organisation"]: row["prediction_id"] for row in kept()}
    assert set(found) == {"org-one", "org-two"}
    assert found["org-two"] is None
    assert found["org-one"] is not None


# ---- by JWT ---------------------------------------------------------------------------------


@pytest.fixture
def by_jwt(settings: Settings, registry: Registry, tmp_path: Path) -> Iterator[TestClient]:
    """The service with a caller that proves itself by JWTs, its keys in a file."""
    (tmp_path / "keys.json").write_text(json.dumps(jwks(key_of("ec-1"))), encoding="utf-8")
    file = tmp_path / "callers.toml"
    file.write_text(caller_table(jwks_file="keys.json"), encoding="utf-8")
    closed = settings.model_copy(update={"callers_file": file, "base_url": SERVICE_URL})
    with TestClient(create_app(closed, registry)) as running:
        yield running


def test_r31_audience_is_the_feedback_url(by_jwt: TestClient, kept: Kept) -> None:
    """A token for the service is none for its feedback."""
    batch = {"feedback": [overridden("a")]}
    for path, status in ((HOOK_PATH, 401), (f"{HOOK_PATH}/feedback", 200)):
        headers = signed(key_of("ec-1"), claims(path))
        answer = by_jwt.post(f"{URL}/feedback", json=batch, headers=headers)
        assert answer.status_code == status
    assert [row["caller"] for row in kept()] == ["sp-test"]


def test_r31_a_token_is_good_for_one_batch(by_jwt: TestClient, kept: Kept) -> None:
    """The same batch again is a retry; another one, or a malformed one before, is a replay."""
    headers = signed(key_of("ec-1"), claims(f"{HOOK_PATH}/feedback"))
    for card, status in (("a", 200), ("a", 200), ("b", 401)):
        batch = {"feedback": [overridden(card)]}
        assert by_jwt.post(f"{URL}/feedback", json=batch, headers=headers).status_code == status
    other = signed(key_of("ec-1"), claims(f"{HOOK_PATH}/feedback"))
    for item, status in ((overridden(""), 400), (overridden("b"), 401)):
        batch = {"feedback": [item]}
        assert by_jwt.post(f"{URL}/feedback", json=batch, headers=other).status_code == status
    assert [row["card"] for row in kept()] == ["a"]
