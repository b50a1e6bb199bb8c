"""The database goes away: every answer that left is in the log afterwards, once, in order.

Real databases: PostgreSQL stopped, killed, frozen, read-only, cut off and slow; SQLite locked, full
and read-only. The spool is a real folder.
"""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import pytest
from fastapi.testclient import TestClient
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import event, make_url
from structlog.testing import capture_logs

from cds_service.app import create_app
from cds_service.card_ids import card_id
from cds_service.db.audit import AuditEntry
from cds_service.db.backlog import Backlog
from cds_service.db.claims import Claim
from cds_service.db.drain import Drainer
from cds_service.db.feedback import predictions_of
from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.spooled import Drain, Spooled
from cds_service.db.store import StorePrediction
from cds_service.errors import NotDurable, SetupError
from cds_service.identities.keyring import KeyRing
from cds_service.identities.privacy import Privacy
from cds_service.service import open_serving_log
from cds_service.settings import Keys, Settings
from cds_service.spool import Spool
from models.registry import Registry
from tests.logged import KEYS, NOW, PRIVACY, a_row, rows_at
from tests.outages import (
    COMMIT_S,
    Network,
    a_log,
    calls,
    come_true,
    faults_of,
    full_disk,
    network,
    survive,
    under_load,
    waiting_in,
)
from tests.postgres import Postgres

Row = dict[str, Any]


def name_of(url: str) -> str:
    """The name of the database of a URL."""
    return str(make_url(url).database)


# ---- PostgreSQL -----------------------------------------------------------------------------


def test_a_server_that_was_stopped(
    postgresql_server: Postgres, postgresql_url: str, tmp_path: Path
) -> None:
    """An administrator restarts it."""
    log = a_log(postgresql_url, tmp_path)
    survive(log, postgresql_server.stop, postgresql_server.start, postgresql_url)


def test_a_server_that_crashed(
    postgresql_server: Postgres, postgresql_url: str, tmp_path: Path
) -> None:
    """`kill -9` of all its processes; it recovers."""
    log = a_log(postgresql_url, tmp_path)
    survive(log, postgresql_server.kill, postgresql_server.start, postgresql_url)


def test_a_server_that_hangs(
    postgresql_server: Postgres, postgresql_url: str, tmp_path: Path
) -> None:
    """SIGSTOP: connections stay open, nothing answers. What was sent to it may be done late."""
    log = a_log(postgresql_url, tmp_path)
    survive(log, postgresql_server.freeze, postgresql_server.thaw, postgresql_url)


def test_a_server_that_takes_no_writes(
    postgresql_server: Postgres, postgresql_url: str, tmp_path: Path
) -> None:
    """As after a failover to a standby that is not promoted yet."""

    def read_only(said: LiteralString) -> None:
        database = sql.Identifier(name_of(postgresql_url))
        setting = "ALTER DATABASE {} SET default_transaction_read_only = {}"
        postgresql_server.run(sql.SQL(setting).format(database, sql.SQL(said)))
        postgresql_server.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname IS NOT NULL"
            " AND pid <> pg_backend_pid()"
        )

    try:
        survive(
            a_log(postgresql_url, tmp_path),
            lambda: read_only("on"),
            lambda: read_only("off"),
            postgresql_url,
        )
    finally:
        read_only("off")


@pytest.fixture
def cable(postgresql_server: Postgres) -> Iterator[Network]:
    """A network between the log and its database."""
    with network(postgresql_server.folder) as made:
        yield made


def test_a_network_that_is_cut(cable: Network, postgresql_url: str, tmp_path: Path) -> None:
    """Nobody is told; packets vanish."""
    survive(
        a_log(cable.url(name_of(postgresql_url)), tmp_path), cable.cut, cable.mend, postgresql_url
    )


def test_a_server_that_is_too_slow(cable: Network, postgresql_url: str, tmp_path: Path) -> None:
    """Every answer of it takes longer than a card may wait."""

    def slow() -> None:
        cable.delay_s = COMMIT_S

    survive(a_log(cable.url(name_of(postgresql_url)), tmp_path), slow, cable.mend, postgresql_url)


def test_under_load_nothing_is_lost_when_it_is_killed(
    postgresql_server: Postgres, postgresql_url: str, tmp_path: Path
) -> None:
    """Sixteen at a time, killed and back in the middle: each answer is there once."""

    def killed() -> None:
        postgresql_server.kill()
        postgresql_server.start()

    with a_log(postgresql_url, tmp_path) as log:
        told = under_load(log, killed)
        assert come_true(lambda: waiting_in(log) == 0)
    found = rows_at(postgresql_url)
    assert sorted(told) == sorted(row["prediction_id"] for row in found)
    assert faults_of(postgresql_url) == []


def test_a_start_without_the_database_is_refused(
    postgresql_server: Postgres, postgresql_url: str, tmp_path: Path
) -> None:
    """Whether its tables are this software's is not known then; what is spooled stays."""
    settings = Settings(profile="demo", database_url=postgresql_url, state_dir=tmp_path / "state")
    postgresql_server.stop()
    with pytest.raises(SetupError):
        open_serving_log(settings)
    postgresql_server.start()
    open_serving_log(settings).stop()


# ---- SQLite ---------------------------------------------------------------------------------


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody else writes, and does not come to an end."""
    path = url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_a_file_that_is_locked(sqlite_url: str, tmp_path: Path) -> None:
    """For longer than a card may wait."""
    lock = locked(sqlite_url)
    log = a_log(sqlite_url, tmp_path / "spool")
    survive(log, lock.__enter__, lambda: lock.__exit__(None, None, None), sqlite_url)


PRAGMAS = {
    "full disk": ("PRAGMA max_page_count=1", "PRAGMA max_page_count=1073741823"),
    "read-only": ("PRAGMA query_only=ON", "PRAGMA query_only=OFF"),
}


@pytest.mark.parametrize("fault", sorted(PRAGMAS))
def test_a_file_that_takes_nothing(sqlite_url: str, tmp_path: Path, fault: str) -> None:
    """SQLite's own errors: no page more may be added, or nothing be written at all."""
    log = a_log(sqlite_url, tmp_path / "spool")
    said: list[str] = []

    def settle(connection: Any, _: object, __: object) -> None:
        for statement in said[-1:]:
            connection.execute(statement)

    event.listen(log.engine, "checkout", settle)
    away, back = PRAGMAS[fault]
    survive(log, lambda: said.append(away), lambda: said.append(back), sqlite_url)


# ---- what hangs, and what another process left ----------------------------------------------


def test_a_commit_that_hangs_is_given_up_also_when_a_dead_process_left_a_spool(
    postgresql_server: Postgres,
    postgresql_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file is taken over while a commit hangs: the keeper does not hang with it over the same
    server, and the next calls are answered."""
    monkeypatch.setattr("cds_service.db.log._ADOPTS_EVERY_S", 0.0)
    theirs, hung, later = a_row(), a_row(), a_row()
    (tmp_path / "theirs").mkdir()
    backlog = Backlog(Spool(tmp_path / "theirs", KEYS.seal))
    backlog.take([StorePrediction(theirs)])
    backlog.close()
    (left,) = (tmp_path / "theirs").iterdir()
    with a_log(postgresql_url, tmp_path / "spool") as log:
        log.store(a_row()).result(10)
        postgresql_server.freeze()
        told = log.store(hung)
        left.rename(tmp_path / "spool" / left.name)
        assert come_true(lambda: waiting_in(log) > 0)
        assert not log.store(later).result(5).replayed
        assert not told.result(5).replayed
        postgresql_server.thaw()
        assert come_true(lambda: waiting_in(log) == 0, within_s=30)
    ids = {row["prediction_id"] for row in rows_at(postgresql_url)}
    assert ids >= {row["prediction_id"] for row in (theirs, hung, later)}
    assert faults_of(postgresql_url) == []


def test_a_record_whose_patient_s_key_this_process_cannot_open_waits(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica was started with a new seal key and wrapped the data key with it; this one does not
    have it yet. Nothing is refused for good, cards go on, the event says why; started again with
    both keys, all of it is stored."""
    monkeypatch.setattr("cds_service.db.log._FIRST_WAIT_S", 0.05)
    both = KeyRing("2027", {"2027": b"t" * 32, **dict(KEYS.seal.items())})
    ahead = PredictionLog(open_engine(database_url), Privacy(Keys(KEYS.pseudonym, both)))
    with ahead as log:
        log.store(a_row()).result(10)
    others = [a_row(patient_pseudonym=f"{n}") for n in range(3)]
    theirs = a_row()
    backlog = Backlog(Spool(tmp_path, KEYS.seal))
    backlog.take([StorePrediction(row) for row in (*others[:2], theirs, others[2])])
    backlog.close()
    with capture_logs() as said, a_log(database_url, tmp_path) as log:
        assert come_true(lambda: waiting_in(log) == 2)
        state = log.backlogged()
        assert state is not None
        assert (state.waiting, state.fault, state.is_broken) == (2, "", False)
        assert not log.store(a_row(patient_pseudonym="another")).result(10).replayed
        assert {one["kind"] for one in said if one["event"] == "spool waits"} == {"SealBroken"}
    privacy = Privacy(Keys(KEYS.pseudonym, both))
    with PredictionLog(open_engine(database_url), privacy, spool=Spool(tmp_path, both)) as log:
        assert come_true(lambda: waiting_in(log) == 0)
    assert len(rows_at(database_url)) == 6
    assert faults_of(database_url) == []


# ---- the process goes away too --------------------------------------------------------------


@contextmanager
def away(url: str, server: Postgres) -> Iterator[None]:
    """A database of either kind, gone."""
    if url.startswith("sqlite"):
        with locked(url):
            yield
        return
    server.stop()
    yield
    server.start()


def spooled(url: str, server: Postgres, folder: Path, rows: list[Row]) -> None:
    """Have a process store rows in its spool, and end."""
    log = a_log(url, folder)
    with away(url, server), log:
        for row in rows:
            log.store(row).result(10)
        assert waiting_in(log) == len(rows)


def test_a_restart_finds_what_was_spooled(
    database_url: str, postgresql_server: Postgres, tmp_path: Path
) -> None:
    """And knows its calls again before they are stored."""
    folder, rows = tmp_path / "spool", calls(300)
    spooled(database_url, postgresql_server, folder, rows)
    with away(database_url, postgresql_server), a_log(database_url, folder) as log:
        assert log.store(rows[0]).result(10).replayed
        assert waiting_in(log) == 300
    with a_log(database_url, folder) as log:
        assert come_true(lambda: waiting_in(log) == 0)
    assert [r["prediction_id"] for r in rows_at(database_url)] == [r["prediction_id"] for r in rows]
    assert list(folder.iterdir()) == []
    assert faults_of(database_url) == []


def test_a_crash_between_storing_and_clearing_the_spool_doubles_nothing(
    database_url: str, postgresql_server: Postgres, tmp_path: Path
) -> None:
    """All of it is stored a second time: predictions, claims, audit entries."""
    folder, copy = tmp_path / "spool", tmp_path / "copy"
    rows = calls(5)
    log = a_log(database_url, folder)
    with away(database_url, postgresql_server), log:
        for row in rows:
            log.store(row, Claim("i", row["prediction_id"], "b", NOW)).result(10)
        further = rows[0] | {"prediction_id": str(uuid.uuid4()), "content_digest": "further"}
        log.store(further).result(10)
        log.audit(AuditEntry("o", "who", "role", "what")).result(10)
    shutil.copytree(folder, copy)
    for one in (folder, copy):
        with a_log(database_url, one) as log:
            assert come_true(lambda: waiting_in(log) == 0)
    assert len(rows_at(database_url)) == 6
    assert faults_of(database_url) == []
    engine = open_engine(database_url)
    with engine.connect() as connection:
        for table, count in (("audit_entries", 1), ("token_claims", 5), ("predictions", 6)):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == count
    engine.dispose()


def test_two_replicas_that_answered_the_same_calls(
    database_url: str, postgresql_server: Postgres, tmp_path: Path
) -> None:
    """In the same words: one row. In other words (the clock had moved on): each answer that was
    shown is there, the second as a further attempt, whoever is stored first, and again."""
    rows = calls(4)
    others = [row | {"response": f"{row['response']} later"} for row in rows[2:]]
    spooled(database_url, postgresql_server, tmp_path / "a", rows)
    spooled(database_url, postgresql_server, tmp_path / "b", [*rows[:2], *others])
    shutil.copytree(tmp_path / "b", tmp_path / "b again")
    for folder in ("a", "b", "b again"):
        with a_log(database_url, tmp_path / folder) as log:
            assert come_true(lambda: waiting_in(log) == 0)
    found = rows_at(database_url)
    answers = sorted((row["hook_instance"], row["response"]) for row in found)
    assert answers == sorted((row["hook_instance"], row["response"]) for row in [*rows, *others])
    assert sorted(row["attempt"] for row in found) == [0, 0, 0, 0, 1, 1]
    assert faults_of(database_url) == []


def in_words(row: Row, *words: str) -> Row:
    """The row with a card for each text: two replicas may word one prediction differently."""
    said = row["prediction_id"]
    cards = [{"uuid": card_id(said, place), "summary": one} for place, one in enumerate(words)]
    document = json.dumps({"prediction_id": said})
    return row | {"response": json.dumps({"cards": cards}), "document": document}


@pytest.mark.parametrize("stored_first", ["one card", "two cards"])
def test_feedback_on_an_answer_in_other_words_goes_to_the_row_that_holds_its_card(
    database_url: str, stored_first: str
) -> None:
    """Cards of both answers are numbered alike: one that a single answer holds leads to its row,
    whichever was stored first and whichever attempt it was; one that both hold leads nowhere,
    because nobody can tell which was shown."""
    bare = a_row()
    newer = bare | {"prediction_id": str(uuid.uuid4()), "content_digest": "newer"}
    answers = [
        (in_words(row, "fra A"), in_words(row, "fra B", "advarsel fra B")) for row in (bare, newer)
    ]
    with PredictionLog(open_engine(database_url), PRIVACY) as log:
        for one, two in answers:
            for row in (one, two) if stored_first == "one card" else (two, one):
                log.commit(Drain(Spooled(StorePrediction(row), 0.0))).result(10)
        ids = {row["response"]: row["prediction_id"] for row in rows_at(database_url)}
        assert len(set(ids.values())) == 4
        cards = [card_id(row["prediction_id"], place) for row in (bare, newer) for place in (0, 1)]
        found = predictions_of(log.engine, cards, organisation="o", service="s")
        assert predictions_of(log.engine, cards, organisation="o", service="other") == {}
    wanted = {
        card: ids[two["response"]] for card, (_, two) in zip(cards[1::2], answers, strict=True)
    }
    assert found == wanted


def test_a_row_from_the_spool_is_the_row_that_would_have_been_stored(
    database_url: str, postgresql_server: Postgres, tmp_path: Path
) -> None:
    """Column for column, but for the id and what is random or of the day."""
    full = a_row(
        index_time=NOW + timedelta(microseconds=1), reason="æøå", unit="u", cpr_pseudonym="c",
        encounter_pseudonym="e", timings='{"total": 1.5}', arm=None,
    )  # fmt: skip
    direct = full | {"prediction_id": str(uuid.uuid4()), "hook_instance": str(uuid.uuid4())}
    spooled(database_url, postgresql_server, tmp_path / "spool", [full])
    with a_log(database_url, tmp_path / "spool") as log:
        assert come_true(lambda: waiting_in(log) == 0)
        log.store(direct).result(10)
    chained = {"chain_day", "chain_writer", "chain_sequence", "commitment", "link", "sealed"}
    found = [
        {k: v for k, v in row.items() if k not in {*chained, "prediction_id", "hook_instance"}}
        for row in rows_at(database_url)
    ]
    assert found[0] == found[1]


# ---- when the spool does not take it either -------------------------------------------------


def test_a_row_no_database_would_take_is_refused_at_once(sqlite_url: str, tmp_path: Path) -> None:
    """It would stop the spool for good; the others of its group are kept."""
    log = a_log(sqlite_url, tmp_path / "spool")
    unfit: list[Row] = [
        {"service": None}, {"reason": "\ud800"}, {"reason": "a\0b"}, {"unit": "u" * 65},
    ]  # fmt: skip
    with locked(sqlite_url), log:
        log.store(a_row()).result(10)
        waiting = [log.store(a_row(**given)) for given in unfit]
        good = log.store(a_row())
        for future in waiting:
            with pytest.raises(NotDurable):
                future.result(10)
        assert not good.result(10).replayed
        assert waiting_in(log) == 2


def test_without_room_there_is_no_card(sqlite_url: str, tmp_path: Path) -> None:
    """Neither the database nor the spool takes it: NotDurable, and why is told; with room again it
    goes on."""
    log = a_log(sqlite_url, tmp_path / "spool")
    kept, lost = a_row(), a_row()
    with log:
        with locked(sqlite_url):
            log.store(kept).result(10)
            with full_disk():
                with pytest.raises(NotDurable, match="No space left"):
                    log.store(lost).result(10)
                state = log.backlogged()
                assert state is not None
                assert "No space left" in state.fault
            log.store(lost).result(10)
        assert come_true(lambda: waiting_in(log) == 0)
    assert len(rows_at(sqlite_url)) == 2


def test_a_record_the_database_refuses_stops_cards_and_is_named(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Never skipped: it was shown."""
    backlog = Backlog(Spool(tmp_path, KEYS.seal))
    engine = open_engine(sqlite_url)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        connection.execute(
            "CREATE TRIGGER t BEFORE INSERT ON predictions WHEN NEW.unit = 'bad'"
            " BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    backlog.take([StorePrediction(a_row(unit=unit)) for unit in ("good", "bad", "good")])
    drainer = Drainer(engine, PRIVACY.vault, backlog)
    assert drainer.step()
    state = backlog.state()
    assert state.waiting == 2
    assert "record 1 is refused by the database" in state.fault
    (refused,) = backlog.take([StorePrediction(a_row())])
    assert isinstance(refused, NotDurable)
    backlog.close()
    engine.dispose()


# ---- what operations sees -------------------------------------------------------------------

URL = "/cds-services/readmission-30d"


@pytest.fixture
def service(  # the file is copied, which is faster than to migrate it
    sqlite_url: str,  # noqa: ARG001
    tmp_path: Path,
    registry: Registry,
) -> Iterator[TestClient]:
    """The service over SQLite, with a spool."""
    settings = Settings(
        profile="demo",
        state_dir=tmp_path,
        commit_seconds=COMMIT_S,
        pseudonym_key=SecretStr(base64.b64encode(b"p" * 32).decode()),
        seal_key=SecretStr(base64.b64encode(b"s" * 32).decode()),
    )
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as running:
        yield running


def test_cards_are_shown_and_readiness_says_degraded(
    service: TestClient, sqlite_url: str, changed: Callable[[Mapping[str, Any]], Row]
) -> None:
    """200 all the while; the same call gets the same answer; afterwards it is in the log."""
    request = changed({})
    with locked(sqlite_url):
        shown = service.post(URL, json=request)
        assert (shown.status_code, bool(shown.json()["cards"])) == (200, True)
        assert service.post(URL, json=request).content == shown.content
        readiness = service.get("/readyz")
        assert (readiness.status_code, readiness.json()["status"]) == (200, "degraded")
        assert "1 writes wait in the spool" in readiness.json()["warnings"][-1]
    assert come_true(lambda: service.get("/readyz").json()["status"] == "ready")
    (row,) = rows_at(sqlite_url)
    assert row["response"] == shown.text


def test_a_broken_spool_stops_cards_and_readiness_names_file_and_record(
    service: TestClient,
    sqlite_url: str,
    tmp_path: Path,
    changed: Callable[[Mapping[str, Any]], Row],
    postgresql_server: Postgres,
) -> None:
    """Also when the database is well: what was shown is not in the log, and nobody may think so.
    Here it is the file of another process, found when that had died; the file is left as it is."""
    spooled(sqlite_url, postgresql_server, tmp_path / "theirs", calls(2))
    (path,) = (tmp_path / "theirs").iterdir()
    whole = bytearray(path.read_bytes())
    whole[-20] ^= 1
    path = tmp_path / "spool" / path.name
    path.write_bytes(whole)
    assert service.get("/readyz").json()["status"] == "ready"
    assert come_true(lambda: service.get("/readyz").status_code == 503)
    assert f"{path.name}: record 1 is broken" in service.get("/readyz").json()["reasons"][0]
    assert service.post(URL, json=changed({})).status_code == 503
    assert path.read_bytes() == whole
