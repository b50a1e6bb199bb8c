"""Time: callers that are answered too late, go away, or send too slowly. A real server process.

The database is kept busy from outside, so that an answer cannot be committed until it is let go.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import pytest

from tests.logged import WHOLE_ROWS
from tests.served import Answer, Caller, Production, answer_on, head, production, send

PATIENT = Caller("patient", "token-of-the-patient-one", deadline_ms=20_000)
HASTY = Caller("hasty", "token-of-the-hasty-one", deadline_ms=300)
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """An installation that waits three seconds for a body."""
    folder = tmp_path_factory.mktemp("deadline")
    with production(folder, [PATIENT, HASTY], body_seconds=3, max_calls=8) as running:
        yield running


@pytest.fixture
def request_now(changed: Changed) -> dict[str, Any]:
    """The demo request of today."""
    return changed({"extension": ...})


@contextmanager
def kept_busy(server: Production) -> Iterator[None]:
    """Nothing can be written into the server's database meanwhile."""
    with closing(sqlite3.connect(server.database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def undelivered(server: Production, how: str) -> list[tuple[str, str]]:
    """Hook instance and what was returned, of what did not reach its caller."""
    return server.await_rows(
        "SELECT p.hook_instance, u.how FROM undelivered u JOIN predictions p"
        f" ON p.prediction_id = u.prediction_id WHERE u.how = '{how}'"
    )


# ---- too late -------------------------------------------------------------------------------


def test_past_the_callers_deadline_it_is_503_and_the_prediction_is_logged_as_late(
    server: Production, request_now: dict[str, Any]
) -> None:
    """In time for the caller; never an empty list of cards; a second try finds what was stored."""
    with kept_busy(server):
        began = time.monotonic()
        answer = server.call(HASTY, request_now)
        took = time.monotonic() - began
    assert answer.status == 503
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert answer.json()["issue"][0]["code"] == "timeout"
    assert int(answer.headers["retry-after"]) >= 1
    assert b"cards" not in answer.body
    assert 0.3 <= took < 2
    assert (request_now["hookInstance"], "late") in undelivered(server, "late")
    again = server.call(HASTY, request_now)
    assert (again.status, "cards" in again.json()) == (200, True)
    count = (
        f"SELECT count(*) FROM predictions WHERE hook_instance = '{request_now['hookInstance']}'"
    )
    assert server.rows(count) == [(1,)]


def test_a_caller_that_waits_longer_gets_its_answer(server: Production, changed: Changed) -> None:
    """The deadline is the caller's own."""
    with closing(server.connect()) as connection:
        with kept_busy(server):
            body = json.dumps(changed({"extension": ...})).encode()
            send(connection, PATIENT.token, body)
            time.sleep(0.6)
        assert answer_on(connection).status == 200


def test_work_that_outlives_the_deadline_and_the_database_is_stored_later(
    server: Production, changed: Changed
) -> None:
    """Where the commit hangs too, it goes to the spool with that it was late, and from there into
    the log, once; nothing of the patient is printed."""
    request = changed({"extension": ...})
    with kept_busy(server):
        assert server.call(HASTY, request).status == 503
        time.sleep(4)  # longer than a commit may take
        assert '"event": "spooling"' in server.printed()
    noted = (
        "SELECT u.how FROM undelivered u JOIN predictions p ON p.prediction_id = u.prediction_id"
        f" WHERE p.hook_instance = '{request['hookInstance']}'"
    )
    assert server.await_rows(noted) == [("late",)]
    count = f"SELECT count(*) FROM predictions WHERE hook_instance = '{request['hookInstance']}'"
    assert server.rows(count) == [(1,)]
    assert "Traceback" not in server.printed()


# ---- gone -----------------------------------------------------------------------------------


def test_a_caller_that_went_away_is_logged_as_disconnected(
    server: Production, request_now: dict[str, Any]
) -> None:
    """The prediction stands in the log, with that its answer reached nobody."""
    with kept_busy(server):
        with closing(server.connect()) as connection:
            send(connection, PATIENT.token, json.dumps(request_now).encode())
            time.sleep(0.4)
        time.sleep(0.2)
    found = undelivered(server, "disconnected")
    assert (request_now["hookInstance"], "disconnected") in found


def test_an_answer_that_was_sent_is_not_called_seen(
    server: Production, request_now: dict[str, Any]
) -> None:
    """Neither the log nor the events say that anybody saw it; nothing is noted of an ordinary
    call."""
    before = server.rows("SELECT count(*) FROM undelivered")
    assert server.call(PATIENT, request_now).status == 200
    assert server.rows("SELECT count(*) FROM undelivered") == before
    instance = request_now["hookInstance"]
    columns = server.rows(f"{WHOLE_ROWS} WHERE p.hook_instance = '{instance}'")
    assert "shown" not in [value for value in columns[0] if isinstance(value, str)]
    assert '"shown' not in server.printed()


# ---- slow bodies ----------------------------------------------------------------------------


def drip(connection: socket.socket, body: bytes, *, piece: int, every_s: float) -> Answer:
    """The answer to a body sent piece by piece; the sending ends when the answer comes."""
    connection.settimeout(every_s)
    for start in range(0, len(body), piece):
        connection.sendall(body[start : start + piece])
        try:
            if connection.recv(1, socket.MSG_PEEK):
                break
        except TimeoutError:
            continue
    connection.settimeout(30)
    return answer_on(connection)


def test_a_body_that_drips_is_408(server: Production) -> None:
    """Slower than the slowest rate allowed; the connection is closed, for the rest may never
    come."""
    body = b" " * 100_000
    with closing(server.connect()) as connection:
        connection.sendall(head(PATIENT.token, len(body)))
        began = time.monotonic()
        answer = drip(connection, body, piece=1, every_s=0.2)
        took = time.monotonic() - began
        assert answer.status == 408
        (issue,) = answer.json()["issue"]
        assert issue["code"] == "timeout"
        assert issue["diagnostics"] == "the body arrived slower than 10000 bytes a second"
        assert answer.headers["connection"] == "close"
        assert 1.5 < took < 3
        assert connection.recv(1) == b""


def test_a_body_that_never_ends_is_408(server: Production) -> None:
    """Fast enough, and still not there in time."""
    body = b" " * 1_000_000
    with closing(server.connect()) as connection:
        connection.sendall(head(PATIENT.token, len(body)))
        answer = drip(connection, body, piece=3_000, every_s=0.1)
    assert answer.status == 408
    (issue,) = answer.json()["issue"]
    assert issue["diagnostics"] == "the body did not arrive within 3 s"


def test_a_body_that_stumbles_at_first_is_read(
    server: Production, request_now: dict[str, Any]
) -> None:
    """A second's pause is no attack; and reading does not count against the deadline."""
    body = json.dumps(request_now).encode()
    with closing(server.connect()) as connection:
        connection.sendall(head(PATIENT.token, len(body)))
        time.sleep(1)
        connection.sendall(body)
        assert answer_on(connection).status == 200


def test_nobody_unknown_is_waited_for(server: Production) -> None:
    """The headers are enough to refuse: no body is read of a caller that is none."""
    with closing(server.connect()) as connection:
        connection.sendall(head("a-token-nobody-has", 1_000_000))
        began = time.monotonic()
        assert answer_on(connection).status == 401
        assert time.monotonic() - began < 1


def test_slow_callers_give_their_turns_back(server: Production, changed: Changed) -> None:
    """All turns taken by bodies that never come: others hear 503 for a moment, then are served."""
    slow = [server.connect() for _ in range(8)]
    for connection in slow:
        connection.sendall(head(PATIENT.token, 100_000) + b" ")
    time.sleep(0.2)
    busy = server.call(PATIENT, changed({"extension": ...}))
    assert busy.status == 503
    assert busy.json()["issue"][0]["code"] == "throttled"
    assert [answer_on(connection).status for connection in slow] == [408] * 8
    for connection in slow:
        connection.close()
    assert server.call(PATIENT, changed({"extension": ...})).status == 200


def test_it_still_stops_when_told(
    tmp_path_factory: pytest.TempPathFactory, request_now: dict[str, Any]
) -> None:
    """With an answer outstanding that nobody waits for any more, its row is written first."""
    with production(tmp_path_factory.mktemp("stopping"), [HASTY]) as server:
        with kept_busy(server):
            assert server.call(HASTY, request_now).status == 503
            server.process.terminate()
            time.sleep(0.3)
        server.process.wait(20)
    assert server.rows("SELECT how FROM undelivered") == [("late",)]
