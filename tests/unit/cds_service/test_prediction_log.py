"""The writer of the prediction log: groups, conflicts, failures, cancelled calls."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.store import MOST_ATTEMPTS, Stored
from cds_service.db.tables import prediction_payloads, undelivered, vault_entries, vault_keys
from cds_service.errors import AlreadyUsed, LogUnavailable, NotDurable, SetupError
from tests.logged import NOW, PRIVACY, a_row


def stored(of: dict[str, Any], *, replayed: bool = False, attempt: int = 0) -> Stored:
    """What the log says of a row it holds."""
    said = {name: of[name] for name in ("prediction_id", "response", "status", "returned")}
    return Stored(**said, replayed=replayed, attempt=attempt)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A migrated database of each kind."""
    made = open_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def commits(engine: Engine) -> list[int]:
    """Counts commits: one entry for each."""
    counted: list[int] = []
    event.listen(engine, "commit", lambda _: counted.append(1))
    return counted


def test_rows_that_wait_together_are_committed_together(engine: Engine, commits: list[int]) -> None:
    """A hundred rows, one commit."""
    log = PredictionLog(engine, PRIVACY)
    waiting = [log.store(a_row()) for _ in range(100)]
    with log:
        assert [future.result(10).replayed for future in waiting] == [False] * 100
    assert len(commits) == 1


def test_a_row_that_fails_does_not_take_others_with_it(engine: Engine) -> None:
    """Each of a failed group is tried alone; the writer goes on."""
    log = PredictionLog(engine, PRIVACY)
    first, last = a_row(), a_row()
    good, nameless, unwritable, also_good = (
        log.store(first),
        log.store(a_row(service=None)),
        log.store(a_row(reason="\ud800")),  # no text that UTF-8 can hold
        log.store(last),
    )
    with log:
        assert good.result(10) == stored(first)
        assert also_good.result(10) == stored(last)
        for future in (nameless, unwritable):
            with pytest.raises(NotDurable) as refused:
                future.result(10)
            assert "INSERT" not in str(refused.value)
        assert not log.store(a_row()).result(10).replayed


def test_a_call_that_was_given_up_leaves_no_row_and_the_writer_alive(engine: Engine) -> None:
    """A client that went away before its turn was shown nothing."""
    log = PredictionLog(engine, PRIVACY)
    given_up, kept = a_row(), a_row()
    future = log.store(given_up)
    assert future.cancel()
    waiting = log.store(kept)
    with log:
        assert not waiting.result(10).replayed
        assert log.read(given_up["prediction_id"]) is None
        assert log.read(kept["prediction_id"]) is not None
        assert not log.store(a_row()).result(10).replayed


@pytest.mark.parametrize("together", [True, False])
def test_the_same_call_again_finds_the_first_answer(engine: Engine, together: bool) -> None:
    """In the same commit or in a later one; another context is a conflict, not a second row."""
    first = a_row(response="first")
    same = first | {"response": "second", "returned": "shown-before"}
    other = first | {"content_digest": "other", "context_digest": "other"}
    log = PredictionLog(engine, PRIVACY)
    waiting: list[Future[Stored]] = []
    if together:
        waiting = [log.store(call) for call in (first, same, other)]
    with log:
        for call in (first, same, other) if not together else ():
            waiting.append(log.store(call))
            waiting[-1].exception(10)
        assert waiting[0].result(10) == stored(first)
        assert waiting[1].result(10) == stored(first, replayed=True)
        with pytest.raises(AlreadyUsed) as conflict:
            waiting[2].result(10)
    assert conflict.value.field == "hookInstance"


def another(first: dict[str, Any], **given: Any) -> dict[str, Any]:
    """The same call on other data."""
    own = {"prediction_id": str(uuid.uuid4()), "content_digest": str(uuid.uuid4())}
    return first | own | given


@pytest.mark.parametrize("together", [True, False])
def test_the_same_call_on_other_data_is_a_further_attempt(engine: Engine, together: bool) -> None:
    """Each with its own answer and linked to the first; each finds its own again."""
    first = a_row(response="first")
    calls = [first, another(first, response="second"), another(first, response="third")]
    log = PredictionLog(engine, PRIVACY)
    if together:
        waiting = [log.store(call) for call in (*calls, *calls)]
    with log:
        if not together:
            waiting = [_settled(log.store(call)) for call in (*calls, *calls)]
        for number, call in enumerate(calls):
            assert waiting[number].result(10) == stored(call, attempt=number)
            assert waiting[number + 3].result(10) == stored(call, attempt=number, replayed=True)
        kept = [log.read(call["prediction_id"]) for call in calls]
    assert [k and (k["attempt"], k["attempt_of"]) for k in kept] == [
        (0, None),
        (1, first["prediction_id"]),
        (2, first["prediction_id"]),
    ]


def _settled(future: Future[Stored]) -> Future[Stored]:
    future.result(10)
    return future


def test_a_call_with_too_many_attempts_is_refused(engine: Engine) -> None:
    """Nobody fills the log under one hookInstance; what stands there is still found."""
    first = a_row()
    with PredictionLog(engine, PRIVACY) as log:
        log.store(first).result(10)
        for _ in range(MOST_ATTEMPTS - 1):
            log.store(another(first)).result(10)
        with pytest.raises(AlreadyUsed) as refused:
            log.store(another(first)).result(10)
        assert refused.value.field == "hookInstance"
        assert log.store(first).result(10).replayed


def test_a_call_older_than_the_digest_of_contexts_is_known_by_its_content(engine: Engine) -> None:
    """What it asked about is not known apart, so other content is refused, as it was then."""
    old = a_row(context_digest="")
    with PredictionLog(engine, PRIVACY) as log:
        log.store(old).result(10)
        assert log.store(old | {"context_digest": "c"}).result(10).replayed
        with pytest.raises(AlreadyUsed):
            log.store(another(old, context_digest="c")).result(10)


def test_a_call_that_is_not_stored_makes_no_key_for_its_patient(engine: Engine) -> None:
    """The patient was erased since: the refused call does not bring their pseudonyms back. Another
    call about them is stored, under a new key, also beside refused ones in one commit."""
    first, others = a_row(cpr_pseudonym="c"), [a_row(cpr_pseudonym="c") for _ in range(2)]

    def keys() -> int:
        with engine.connect() as connection:
            return len(connection.execute(vault_keys.select()).all())

    with PredictionLog(engine, PRIVACY) as log:
        log.store(first).result(10)
    with engine.begin() as connection:
        for table in (prediction_payloads, vault_entries, vault_keys):
            connection.execute(table.delete())
    with PredictionLog(engine, PRIVACY) as log:
        with pytest.raises(AlreadyUsed, match="erased"):
            log.store(first).result(10)
        assert keys() == 0
    log = PredictionLog(engine, PRIVACY)
    waiting = [log.store(call) for call in (first, others[0], first, others[1], first)]
    with log:
        assert [type(one.exception(10)) for one in waiting[::2]] == [AlreadyUsed] * 3
        for call in others:
            found = log.read(call["prediction_id"])
            assert found is not None
            assert PRIVACY.unseal(found) == {}
    assert keys() == 1


CALL = ("organisation", "service", "hook", "hook_instance", "package_checksum", "state", "mode")


@pytest.mark.parametrize("column", CALL)
def test_a_call_is_another_when_one_of_its_names_differs(engine: Engine, column: str) -> None:
    """Organisation, service, hook, hookInstance; and the version, state and mode that answered."""
    first = a_row()
    second = first | {column: "another", "prediction_id": str(uuid.uuid4())}
    with PredictionLog(engine, PRIVACY) as log:
        for call in (first, second):
            assert not log.store(call).result(10).replayed


def test_the_newest_card_that_showed_a_risk_is_found(engine: Engine) -> None:
    """Of the same patient's same assessment in the same mode; rows with alarms alone are passed."""
    at = {"index_time": NOW}
    rows = [
        a_row(**at, document="older risk", computed_at=NOW.replace(hour=1)),
        a_row(**at, document="risk", computed_at=NOW.replace(hour=2)),
        a_row(**at, document="alarm", computed_at=NOW.replace(hour=3)),
        a_row(**at, document="silent risk", mode="silent"),
        a_row(**at, document="risk below", returned="below-threshold"),
        a_row(**at, document="risk of another", patient_pseudonym="another"),
    ]
    asked = a_row(**at)
    with PredictionLog(engine, PRIVACY) as log:
        assert log.last_shown(asked, lambda document: "risk" in document) is None
        for one in rows:
            log.store(one).result(10)
        assert log.last_shown(asked, lambda document: "risk" in document) == "risk"
        assert log.last_shown(asked, lambda _: False) is None
        silent = asked | {"mode": "silent"}
        assert log.last_shown(silent, lambda document: "risk" in document) == "silent risk"


def test_a_card_of_the_same_call_was_not_shown_before(engine: Engine) -> None:
    """Who asks again on other data may never have got the first answer: it is not held back."""
    first = a_row(index_time=NOW, document="risk")
    with PredictionLog(engine, PRIVACY) as log:
        log.store(first).result(10)
        assert log.last_shown(another(first), lambda _: True) is None
        assert log.last_shown(a_row(index_time=NOW), lambda _: True) == "risk"


@pytest.mark.parametrize("how", ["disconnected", "late"])
def test_an_answer_that_did_not_arrive_was_not_shown_before(engine: Engine, how: str) -> None:
    """A card nobody can have seen holds no later card back."""
    first = a_row(index_time=NOW, document="risk")
    lost = {"id": "1", "prediction_id": first["prediction_id"], "how": how, "at": NOW}
    with PredictionLog(engine, PRIVACY) as log:
        log.store(first).result(10)
        with engine.begin() as connection:
            connection.execute(undelivered.insert(), lost)
        assert log.last_shown(a_row(index_time=NOW), lambda _: True) is None


def test_what_waits_is_committed_before_the_end(engine: Engine) -> None:
    """Stopping loses nothing that was accepted."""
    log = PredictionLog(engine, PRIVACY).start()
    rows = [a_row() for _ in range(50)]
    waiting = [log.store(one) for one in rows]
    log.stop()
    assert all(future.done() for future in waiting)
    assert all(log.read(one["prediction_id"]) for one in rows)


def test_logged_features_of_a_model_since_a_time(engine: Engine) -> None:
    """Scored predictions of that model alone, oldest first."""
    later = NOW.replace(year=2027)
    with PredictionLog(engine, PRIVACY) as log:
        for given in (
            {"as_of": later, "features": "later"},
            {"features": "now"},
            {"status": "not-eligible"},
            {"model_id": "another"},
            {"model_version": "2"},
            {"as_of": NOW.replace(year=2025)},
        ):
            log.store(a_row(**given)).result(10)
        assert [r["features"] for r in log.features_since("m", "1", NOW)] == ["now", "later"]


def test_a_call_answered_twice_counts_once_in_the_features(engine: Engine) -> None:
    """The last attempt, which saw the most: asking often is no drift."""
    first = a_row(features="first")
    with PredictionLog(engine, PRIVACY) as log:
        for call in (first, another(first, features="second"), a_row(features="another call")):
            log.store(call).result(10)
        found = [r["features"] for r in log.features_since("m", "1", NOW)]
    assert sorted(found) == ["another call", "second"]


def test_a_log_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """Without the statement, which would hold ids."""
    engine = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    log = PredictionLog(engine, PRIVACY)
    with pytest.raises(LogUnavailable, match="cannot be read"):
        log.ping()
    with pytest.raises(LogUnavailable, match="cannot be read") as refused:
        log.read("secret-id")
    assert "secret-id" not in str(refused.value)
    with pytest.raises(LogUnavailable, match="cannot be read") as refused:
        log.last_shown(a_row(index_time=NOW, patient_pseudonym="secret-id"), lambda _: True)
    assert "secret-id" not in str(refused.value)
    engine.dispose()


@pytest.mark.parametrize("url", ["", "nonsense", "oracle://db", "mysql://u:secret@db/x"])
def test_a_url_of_no_database_is_refused(url: str) -> None:
    """The setting is named, the password is not."""
    with pytest.raises(SetupError, match="VARSEL_DATABASE_URL") as refused:
        open_engine(url)
    assert "secret" not in str(refused.value)
