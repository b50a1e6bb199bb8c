"""The log on PostgreSQL: how it connects, comes back after a crash, and which rights it needs."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import ProgrammingError

from cds_service.app import create_app
from cds_service.db.claims import Claim
from cds_service.db.cohorts import Cohort, cohort_rows
from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.migrate import upgrade
from cds_service.errors import NotAuthenticated, NotDurable, SetupError
from cds_service.settings import Settings
from models.registry import Registry
from tests.logged import NOW, PRIVACY, a_row, rows_at
from tests.postgres import Postgres

ROOT = Path(__file__).parents[2]
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]
URL = "/cds-services/readmission-30d"


@pytest.fixture
def engine(postgresql_url: str) -> Iterator[Engine]:
    """A migrated PostgreSQL database."""
    made = open_engine(postgresql_url)
    yield made
    made.dispose()


def asked(engine: Engine, *names: str) -> dict[str, str]:
    with engine.connect() as connection:
        return {n: str(connection.execute(text(f"SHOW {n}")).scalar()) for n in names}


# ---- connecting -----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_way_to_write_the_url_is_understood(postgresql_url: str, scheme: str) -> None:
    """What other tools of an administrator take, is taken."""
    engine = open_engine(postgresql_url.replace("postgresql+psycopg", scheme))
    assert asked(engine, "application_name") == {"application_name": "varsel"}
    engine.dispose()


def test_a_driver_that_is_not_here_is_refused() -> None:
    """Naming the setting, not the password."""
    with pytest.raises(SetupError, match="VARSEL_DATABASE_URL") as refused:
        open_engine("postgresql+asyncpg2://u:secret@db/x")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("written", "hosts", "ports"),
    [
        ("postgresql://u:p@/varsel?host=db1:5432&host=db2:5433", "db1,db2", "5432,5433"),
        ("postgresql://u:p@/varsel?host=db1,db2&port=5432,5433", "db1,db2", "5432,5433"),
        ("postgresql://u:p@db1:5432,db2:5433/varsel", "db1,db2", "5432,5433"),
        ("postgres://u:p@db1,db2/varsel?sslmode=require", "db1,db2", ","),
        ("postgresql+psycopg://u:p@[::1]:5432,db2:5433/varsel", "::1,db2", "5432,5433"),
    ],
)
def test_several_hosts_are_understood(written: str, hosts: str, ports: str) -> None:
    """As the manual writes them, and as PostgreSQL's own manual does."""
    engine = open_engine(written)
    told = engine.dialect.create_connect_args(engine.url)[1]
    assert (told["host"], told["port"], told["user"]) == (hosts, ports, "u")
    assert (told["password"], told["dbname"]) == ("p", "varsel")


@pytest.mark.parametrize("password", ["1234,ab/cd", "p,a/ss", "1234,ab?cd", "1234,a/b?c"])
def test_a_password_with_a_comma_is_no_list_of_hosts(password: str) -> None:
    """Also where a slash or a question mark, written as it is, stands in it."""
    engine = open_engine(f"postgresql://u:{password}@db1/varsel")
    told = engine.dialect.create_connect_args(engine.url)[1]
    assert (told["host"], told["user"], told["password"]) == ("db1", "u", password)
    assert password not in str(engine.url)


@pytest.mark.parametrize("hosts", ["db:secret", "db1:5432,db2:secret", "db1:1:secret,db2"])
def test_a_port_that_is_none_is_refused(hosts: str) -> None:
    """As a setting that is wrong, without its text, which may be a part of a password."""
    with pytest.raises(SetupError, match="VARSEL_DATABASE_URL") as refused:
        open_engine(f"postgresql://u@{hosts}/varsel")
    assert "secret" not in str(refused.value)


def test_a_session_is_durable_whatever_the_server_s_defaults(postgresql_server: Postgres) -> None:
    """On the disk before a card leaves; a stronger setting of the administrator's is left."""
    name = postgresql_server.create()
    url = postgresql_server.url(name)
    wanted = {
        "synchronous_commit": "on",
        "statement_timeout": "30s",
        "TimeZone": "UTC",
        "default_transaction_isolation": "read committed",
    }
    for default, expected in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        postgresql_server.run(f"ALTER DATABASE {name} SET synchronous_commit = '{default}'")
        engine = open_engine(url)
        assert asked(engine, *wanted) == wanted | {"synchronous_commit": expected}
        engine.dispose()


def test_the_url_s_own_settings_win(postgresql_url: str) -> None:
    """An administrator who names the application, or waits longer, is heard."""
    engine = open_engine(f"{postgresql_url}&application_name=ward-a&connect_timeout=9")
    assert asked(engine, "application_name") == {"application_name": "ward-a"}
    engine.dispose()


def test_a_database_that_is_not_there_is_said_so_without_the_password(
    postgresql_server: Postgres,
) -> None:
    """One line for the operator."""
    engine = open_engine(postgresql_server.url("absent").replace("postgres@", "postgres:secret@"))
    with pytest.raises(SetupError, match="cannot be used") as refused:
        upgrade(engine)
    assert "secret" not in str(refused.value)


# ---- what PostgreSQL does otherwise than SQLite ----------------------------------------------


def test_a_token_is_good_for_one_body_here_too(engine: Engine) -> None:
    """An insert that changed nothing is known to have changed nothing."""
    claim = Claim("issuer", "jti", "body", NOW)
    with PredictionLog(engine, PRIVACY) as log:
        for _ in range(2):
            log.claim(claim).result(10)
        with pytest.raises(NotAuthenticated):
            log.claim(Claim("issuer", "jti", "another body", NOW)).result(10)


def test_replicas_that_write_each_other_s_calls_in_another_order_all_get_through(
    postgresql_url: str,
) -> None:
    """PostgreSQL ends one of two transactions that wait for each other; its rows are stored all the
    same, once."""
    rows = [a_row() for _ in range(40)]
    engines = [open_engine(postgresql_url) for _ in range(2)]
    logs = [PredictionLog(engine, PRIVACY) for engine in engines]
    waiting = [logs[0].store(row) for row in rows] + [logs[1].store(row) for row in rows[::-1]]
    with logs[0], logs[1]:
        replayed = [future.result(30).replayed for future in waiting]
    assert sum(replayed) == len(rows)
    assert len(rows_at(postgresql_url)) == len(rows)


# ---- the server goes away -------------------------------------------------------------------


def test_after_a_restart_the_next_call_is_stored_as_if_nothing_had_been(
    postgresql_server: Postgres, engine: Engine
) -> None:
    """The lost connection is noticed and replaced within the call; nobody sees it."""
    with PredictionLog(engine, PRIVACY) as log:
        log.store(a_row()).result(10)
        postgresql_server.stop()
        postgresql_server.start()
        for _ in range(2):
            assert not log.store(a_row()).result(10).replayed


def test_what_was_stored_survives_a_crash_and_nothing_else_is_there(
    postgresql_server: Postgres, postgresql_url: str, engine: Engine
) -> None:
    """`kill -9` of all its processes under load: every row that was answered for is there after the
    recovery; while it is away calls are refused; back again, they are stored."""
    rows = [a_row() for _ in range(400)]
    answered = threading.Event()
    with PredictionLog(engine, PRIVACY) as log, ThreadPoolExecutor(4) as pool:

        def store(row: dict[str, Any]) -> str | None:
            try:
                stored = log.store(row).result(30).prediction_id
            except NotDurable:
                return None
            answered.set()
            return stored

        waiting = [pool.submit(store, row) for row in rows]
        assert answered.wait(10)
        postgresql_server.kill()
        told = {future.result(60) for future in waiting} - {None}
        postgresql_server.start()
        there = {row["prediction_id"] for row in rows_at(postgresql_url)}
        assert told <= there
        assert len(told) < len(rows)
        assert not log.store(a_row()).result(10).replayed
        for future in [log.store(row) for row in rows]:
            future.result(60)
    assert len(rows_at(postgresql_url)) == len(rows) + 1


def test_a_commit_that_arrived_though_its_answer_did_not_is_found_again(
    postgresql_url: str, engine: Engine
) -> None:
    """The connection breaks between commit and its confirmation: one row, and the chain goes on as
    another one."""
    lost: list[int] = []

    def lose(connection: Any) -> None:
        if not lost:
            lost.append(1)
            connection.connection.driver_connection.commit()
            connection.connection.driver_connection.close()

    event.listen(engine, "commit", lose)
    first, second = a_row(), a_row()
    with PredictionLog(engine, PRIVACY) as log:
        assert log.store(first).result(10).prediction_id == first["prediction_id"]
        assert not log.store(second).result(10).replayed
    found = {row["prediction_id"]: row for row in rows_at(postgresql_url)}
    assert set(found) == {first["prediction_id"], second["prediction_id"]}
    assert len({row["chain_writer"] for row in found.values()}) == 2


# ---- roles ----------------------------------------------------------------------------------


def statements() -> list[str]:
    """The SQL of docs/database.md: as superuser, as owner before the upgrade, and after it."""
    page = (ROOT / "docs" / "database.md").read_text(encoding="utf-8")
    return re.findall(r"```sql\n(.*?)```", page, re.DOTALL)


@pytest.fixture
def as_role(postgresql_server: Postgres) -> Iterator[Callable[[str], str]]:
    """A database set up as docs/database.md says; gives its URL for a role."""
    superuser, before, after = statements()
    for statement in superuser.split(";\n")[:-1]:
        postgresql_server.run(statement)
    url = postgresql_server.url("varsel")

    def of(role: str) -> str:
        return url.replace("postgres@", f"{role}@")

    owner = open_engine(of("varsel_owner"))
    run(owner, before)
    upgrade(owner)
    run(owner, after)
    owner.dispose()
    yield of
    postgresql_server.drop("varsel")
    for role in ("varsel_owner", "varsel_service", "varsel_reports"):
        postgresql_server.run(f"DROP ROLE {role}")


def run(engine: Engine, statements: str) -> list[Any]:
    """The rows of the last of some statements, if it gives any."""
    with engine.begin() as connection:
        for statement in filter(None, statements.split(";\n")):
            found = connection.exec_driver_sql(statement)
        return list(found) if found.returns_rows else []


def test_the_service_works_with_the_rights_the_manual_gives_it(
    as_role: Callable[[str], str], tmp_path: Path, registry: Registry, changed: Changed
) -> None:
    """It answers, explains, takes feedback and is ready; and can change or remove nothing."""
    url = as_role("varsel_service")
    settings = Settings(profile="demo", state_dir=tmp_path, database_url=url)
    with TestClient(create_app(settings, registry)) as client:
        request = changed({})
        answer = client.post(URL, json=request)
        (card,) = answer.json()["cards"]
        told = {"card": card["uuid"], "outcome": "overridden"}
        told["outcomeTimestamp"] = "2026-11-21T12:00:00Z"
        assert client.post(f"{URL}/feedback", json={"feedback": [told]}).status_code == 200
        assert client.post(URL, json=request).content == answer.content
        page = "/explanations/" + card["links"][0]["url"].rsplit("/", 1)[1] + ".json"
        assert client.get(page).status_code == 200
        assert client.get("/readyz").json().get("warnings") is None
    engine = open_engine(url)
    with PredictionLog(open_engine(url), PRIVACY) as log:
        for number in range(64):  # some of which sweep out what has expired
            log.claim(Claim("issuer", str(number), "body", NOW)).result(10)
    for table in ("predictions", "prediction_payloads", "audit_entries", "model_states"):
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(ProgrammingError, match="permission denied"):
                run(engine, statement)
    with pytest.raises(ProgrammingError, match="permission denied"):
        run(engine, "UPDATE predictions SET status = 'scored'")
    engine.dispose()


def test_who_makes_statistics_cannot_read_the_vault(as_role: Callable[[str], str]) -> None:
    """Predictions under pseudonym, and not whom they are about."""
    engine = open_engine(as_role("varsel_reports"))
    for table in ("predictions", "prediction_payloads"):
        assert run(engine, f"SELECT * FROM {table}") == []
    assert list(cohort_rows(engine, Cohort("o"))) == []  # which looks for restrictions
    for columns in ("* FROM vault_keys", "* FROM vault_entries", "sealed FROM erasures"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            run(engine, f"SELECT {columns}")
    engine.dispose()
