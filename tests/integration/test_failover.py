"""A failover to a real standby: what was answered is there, and what follows finds its way.

Two real PostgreSQL servers: one, and a standby that streams from it and without which it commits
nothing, as docs/database.md says under "With a standby".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from cds_service.app import create_app
from cds_service.settings import Settings
from models.registry import Registry
from tests.databases import cleaned, stand_up
from tests.logged import a_row, rows_at
from tests.outages import (
    COMMIT_S,
    a_log,
    calls,
    come_true,
    faults_of,
    network,
    survive,
    under_load,
    waiting_in,
)
from tests.postgres import STANDBY, Postgres, postgres, standby_of

URL = "/cds-services/readmission-30d"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of these tests' own. Processes are killed here, the machine is not: what they gave
    to the system's cache stays, and waiting for the disk would be most of what these tests do."""
    with postgres(fsync="off") as made:
        yield made


@pytest.fixture
def primary_url(server: Postgres) -> str:
    """The log's database at the server alone, without rows."""
    return cleaned(server)


@pytest.fixture
def primary(server: Postgres, primary_url: str) -> Postgres:  # noqa: ARG001 - its tables
    """The server, with the log's tables."""
    return server


@pytest.fixture
def standby(primary: Postgres) -> Iterator[Postgres]:
    """Its standby, which streams and has all of it; the primary commits nothing without it."""
    with standby_of(primary) as made:
        primary.alter(synchronous_standby_names=STANDBY)
        assert come_true(lambda: is_followed(primary))
        yield made
    stand_up(primary)
    primary.alter(synchronous_standby_names="")


@pytest.fixture(autouse=True)
def _tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is tried again sooner than in production."""
    monkeypatch.setattr("cds_service.db.log._FIRST_WAIT_S", 0.1)


def is_followed(primary: Postgres) -> bool:
    """Whether it waits for a standby, and that streams."""
    return primary.run("SELECT sync_state FROM pg_stat_replication") == [("sync",)]


@pytest.fixture
def database(primary_url: str) -> str:
    """The name of the log's database, on either server."""
    return str(make_url(primary_url).database)


@pytest.fixture
def both_url(primary: Postgres, standby: Postgres, database: str) -> str:
    """The URL that names both servers, as the manual writes it."""
    return (
        f"postgresql://postgres@/{database}?host={primary.folder}:5432&host={standby.folder}:5432"
        "&target_session_attrs=read-write&connect_timeout=2"
    )


# ---- what the standby has -------------------------------------------------------------------


def test_what_was_answered_is_on_the_standby(
    primary: Postgres, standby: Postgres, database: str, primary_url: str, tmp_path: Path
) -> None:
    """No answer before the standby has it; the primary is killed the moment the answer is there,
    and never comes back."""
    row = a_row()
    with a_log(primary_url, tmp_path, commit_seconds=30.0) as log:
        log.store(a_row()).result(10)
        standby.freeze()
        waiting = log.store(row)
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        standby.thaw()
        waiting.result(30)
        primary.kill()
        standby.promote()
    found = {one["prediction_id"]: one for one in rows_at(standby.url(database))}
    assert len(found) == 2
    assert found[row["prediction_id"]]["response"] == row["response"]
    assert faults_of(standby.url(database)) == []


def test_under_load_all_that_was_answered_is_on_the_standby_or_in_the_spool(
    primary: Postgres, standby: Postgres, database: str, primary_url: str, tmp_path: Path
) -> None:
    """Eight at a time, killed in the middle: what the standby has not, waits on this disk; nothing
    is on neither. Started again on the standby, the log is whole."""
    spool = tmp_path / "spool"
    with a_log(primary_url, spool) as log:
        told = under_load(log, primary.kill)
        waiting = waiting_in(log)
    standby.promote()
    url = standby.url(database)
    there = [row["prediction_id"] for row in rows_at(url)]
    assert len(set(there) & set(told)) >= len(told) - waiting > 0
    with a_log(url, spool) as log:
        assert come_true(lambda: waiting_in(log) == 0)
    assert sorted(told) == sorted(row["prediction_id"] for row in rows_at(url))
    assert faults_of(url) == []


# ---- failing over ---------------------------------------------------------------------------


def test_of_two_servers_the_one_that_takes_writes_is_found(
    primary: Postgres, standby: Postgres, database: str, tmp_path: Path
) -> None:
    """Though the URL, here over TCP and as PostgreSQL's own manual writes it, names the standby
    first."""
    with network(standby.folder) as first, network(primary.folder) as second:
        hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        asked = "target_session_attrs=read-write&sslmode=disable"
        url = f"postgresql://postgres@{hosts}/{database}?{asked}"
        with a_log(url, tmp_path, commit_seconds=10.0) as log:
            assert not log.store(a_row()).result(10).replayed
            assert waiting_in(log) == 0
    assert len(rows_at(primary.url(database))) == 1


def test_a_failover_under_load_loses_and_doubles_nothing(
    primary: Postgres, standby: Postgres, database: str, both_url: str, tmp_path: Path
) -> None:
    """The URL names both: the primary dies, predictions wait, the standby is promoted, and they are
    stored there by themselves."""
    with a_log(both_url, tmp_path) as log:
        told = under_load(log, primary.kill)
        assert waiting_in(log) > 0
        standby.promote()
        assert come_true(lambda: waiting_in(log) == 0)
        later = log.store(a_row()).result(10)
        assert not later.replayed
        assert waiting_in(log) == 0
    url = standby.url(database)
    assert sorted([*told, later.prediction_id]) == sorted(r["prediction_id"] for r in rows_at(url))
    assert faults_of(url) == []


def test_a_primary_that_hangs_is_passed_over(
    primary: Postgres, standby: Postgres, database: str, both_url: str, tmp_path: Path
) -> None:
    """Its machine answers no more, and refuses no connection either: the standby, promoted, is
    found behind it. Calls do not wait for the one that hangs."""
    survive(a_log(both_url, tmp_path), primary.freeze, standby.promote, standby.url(database))


def test_a_primary_that_comes_back_after_the_failover_acknowledges_nothing(
    primary: Postgres, standby: Postgres, database: str, both_url: str, tmp_path: Path
) -> None:
    """It was cut off, knows of nothing and takes writes, but nobody follows it: its commits wait,
    the spool takes what it was given, and once it is shut out the promoted one has all of it."""
    primary.freeze()
    standby.promote()
    primary.thaw()
    rows = calls(3)
    with a_log(both_url, tmp_path) as log:
        for row in rows:
            assert not log.store(row).result(10).replayed
        assert waiting_in(log) == len(rows)
        primary.kill()
        assert come_true(lambda: waiting_in(log) == 0)
    url = standby.url(database)
    assert [row["prediction_id"] for row in rows_at(url)] == [row["prediction_id"] for row in rows]
    assert faults_of(url) == []


# ---- the standby is gone --------------------------------------------------------------------


def test_a_standby_that_is_gone_holds_no_card_up(
    primary: Postgres, standby: Postgres, primary_url: str, tmp_path: Path
) -> None:
    """Each commit would wait for it without end: the spool takes what it is, in time. Back again,
    what was committed on the primary alone is found there and not doubled."""

    def back() -> None:
        standby.start()
        assert come_true(lambda: is_followed(primary))

    survive(a_log(primary_url, tmp_path), standby.stop, back, primary_url)


def test_cards_are_shown_while_the_standby_is_gone_and_after_a_failover(
    primary: Postgres,
    standby: Postgres,
    both_url: str,
    database: str,
    tmp_path: Path,
    registry: Registry,
    changed: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> None:
    """Through the service: 200 and a card all the while; readiness says degraded, then ready."""
    settings = Settings(
        profile="demo", state_dir=tmp_path, database_url=both_url, commit_seconds=COMMIT_S
    )
    shown = []
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as service:

        def ask() -> None:
            answer = service.post(URL, json=changed({}))
            assert (answer.status_code, len(answer.json()["cards"])) == (200, 1)
            shown.append(answer.text)

        def said() -> tuple[int, str]:
            answer = service.get("/readyz")
            return answer.status_code, answer.json()["status"]

        ask()
        assert said() == (200, "ready")
        standby.stop()
        ask()
        assert said() == (200, "degraded")
        standby.start()
        assert come_true(lambda: said() == (200, "ready"))
        ask()
        primary.kill()
        ask()
        assert said() == (200, "degraded")
        standby.promote()
        assert come_true(lambda: said() == (200, "ready"))
        ask()
    url = standby.url(database)
    assert sorted(row["response"] for row in rows_at(url)) == sorted(shown)
    assert faults_of(url) == []
