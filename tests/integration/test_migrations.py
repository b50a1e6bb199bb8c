"""Migrations on SQLite and PostgreSQL: the tables they make are the software's; data survive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    Connection,
    Engine,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    text,
)
from sqlalchemy.exc import IntegrityError

from cds_service.db.log import open_engine
from cds_service.db.migrate import check_revision, downgrade, upgrade
from cds_service.db.tables import metadata
from cds_service.errors import SetupError

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
NEW = {
    "0001": {"predictions"},
    "0002": {"model_states", "model_records"},
    "0003": {"model_hit_rates"},
    "0004": {"undelivered", "feedback", "token_claims"},
    "0005": {"prediction_payloads", "vault_keys", "vault_entries", "audit_entries", "erasures"},
    "0006": set(),
}
"""The tables each revision brings."""
NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)
PAYLOAD = ("features", "document", "response", "timings")


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    """A database without tables; as a file, in a folder that is not there yet."""
    made = open_engine(empty_database_url)
    yield made
    made.dispose()


# ---- rows past the software -----------------------------------------------------------------


def tables_of(engine: Engine) -> set[str]:
    """The tables of ours that are there; PostgreSQL's months are parts of one."""
    found = inspect(engine).get_table_names()
    return {name for name in found if not name.startswith("prediction_payloads_")}


def as_it_is(engine: Engine, table: str) -> Table:
    return Table(table, MetaData(), autoload_with=engine, resolve_fks=False)


def some_value(kind: Any) -> Any:
    """A value of a column's type."""
    if isinstance(kind, String):
        return "x"
    if isinstance(kind, LargeBinary):
        return b"\x00\xffx"
    made: dict[type, Any] = {datetime: NOW, date: NOW.date(), float: 0.25, bool: True, int: 1}
    return made[kind.python_type]


def filled(engine: Engine, name: str, **given: Any) -> None:
    """A row of a table of any revision, with a value in every column that needs one."""
    table = as_it_is(engine, name)
    needed = [c for c in table.columns if not c.nullable and c.server_default is None]
    values = {c.name: some_value(c.type) for c in needed} | given
    with engine.begin() as connection:
        connection.execute(insert(table).values(values))


def contents(engine: Engine, *tables: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of some tables, each as it is, whatever the order of its columns."""
    with engine.connect() as connection:
        return {name: _rows(connection, name) for name in tables}


def _rows(connection: Connection, table: str) -> list[dict[str, Any]]:
    rows = connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()
    return sorted(({**row} for row in rows), key=lambda row: str(next(iter(row.values()))))


def logged(engine: Engine, *columns: str, table: str = "predictions") -> list[tuple[Any, ...]]:
    return [tuple(row[c] for c in columns) for row in contents(engine, table)[table]]


# ---- every step, up and down ----------------------------------------------------------------


def test_migrations_make_exactly_the_tables_of_the_software(engine: Engine) -> None:
    """Nothing would be left to migrate but comments, which are for the readers of the code, and the
    months, which PostgreSQL holds as tables."""
    upgrade(engine)
    # of SQLite's empty texts alembic says that they are no defaults
    compared = {"compare_type": True, "compare_server_default": engine.name == "postgresql"}
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={**compared, "include_name": not_a_month}
        )
        found = compare_metadata(context, metadata)
    assert [change for change in found if "comment" not in str(change)[:20]] == []
    assert tables_of(engine) == {"alembic_version", *metadata.tables}


def not_a_month(name: str | None, kind: str, _: Any) -> bool:
    return not (kind == "table" and str(name).startswith("prediction_payloads_"))


@pytest.mark.parametrize("step", range(1, len(REVISIONS)))
def test_every_step_up_and_down_keeps_every_row(engine: Engine, step: int) -> None:
    """With rows in all tables of the earlier revision: up, down again, and up once more."""
    before, after = REVISIONS[step - 1], REVISIONS[step]
    upgrade(engine, before)
    earlier = tables_of(engine) - {"alembic_version"}
    for name in earlier:
        filled(engine, name)
    rows = contents(engine, *earlier)
    upgrade(engine, after)
    assert tables_of(engine) == {"alembic_version", *earlier, *NEW[after]}
    found = contents(engine, *earlier)
    for name in earlier:
        (was,), (now,) = rows[name], found[name]
        assert {k: now[k] for k in was if k in now} == {k: was[k] for k in was if k in now}
    downgrade(engine, before)
    assert tables_of(engine) == {"alembic_version", *earlier}
    assert contents(engine, *earlier) == rows
    upgrade(engine)
    check_revision(engine)
    assert len(logged(engine, "prediction_id")) == 1


def test_up_again_keeps_what_is_there(engine: Engine) -> None:
    """Upgrading a database that is up to date changes nothing."""
    upgrade(engine)
    filled(engine, "predictions")
    before = contents(engine, *metadata.tables)
    upgrade(engine)
    check_revision(engine)
    assert contents(engine, *metadata.tables) == before


def test_down_and_up_again(engine: Engine) -> None:
    """Down leaves no table of ours, up makes them anew."""
    upgrade(engine)
    downgrade(engine, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    with pytest.raises(SetupError, match="revision none"):
        check_revision(engine)
    upgrade(engine)
    check_revision(engine)


# ---- what each step says of rows made before it ---------------------------------------------


def test_rows_of_the_first_release_say_their_state(engine: Engine) -> None:
    """A row was live, or silent by the site's setting."""
    upgrade(engine, "0001")
    for mode in ("live", "silent"):
        filled(engine, "predictions", prediction_id=mode, hook_instance=mode, mode=mode)
    upgrade(engine)
    assert logged(engine, "prediction_id", "state") == [("live", "live"), ("silent", "silent")]


def test_rows_before_attempts_are_first_attempts(engine: Engine) -> None:
    """Of a context that is not known apart."""
    upgrade(engine, "0003")
    filled(engine, "predictions")
    upgrade(engine)
    assert logged(engine, "attempt", "attempt_of", "context_digest") == [(0, None, "")]


def old_row(engine: Engine, name: str, computed_at: datetime = NOW) -> dict[str, Any]:
    """A whole row of the release before the vault, as its tables hold it."""
    texts = {column: f"{column} of {name}: æøå" for column in PAYLOAD}
    sealed = b"\x01" + bytes(range(256))
    given = {"prediction_id": name, "hook_instance": name, "computed_at": computed_at}
    filled(engine, "predictions", **given, **texts, sealed=sealed)
    (row,) = (
        r for r in contents(engine, "predictions")["predictions"] if r["prediction_id"] == name
    )
    return row


def test_payload_and_seal_go_to_their_tables_and_back_unchanged(engine: Engine) -> None:
    """To the last byte; what a row says since is said of nobody before: no place in a chain, the
    first keys, treatment."""
    upgrade(engine, "0004")
    rows = [old_row(engine, name) for name in ("one", "two")]
    upgrade(engine)
    names = ("prediction_id", "computed_at", *PAYLOAD)
    assert logged(engine, *names, table="prediction_payloads") == [
        tuple(row[name] for name in names) for row in rows
    ]
    assert logged(engine, "prediction_id", "sealed", "key_id", table="vault_entries") == [
        (row["prediction_id"], row["sealed"], None) for row in rows
    ]
    said = ("purpose", "legal_ground", "pseudonym_key", "libraries", "erasure", "chain_sequence")
    assert logged(engine, *said) == [("treatment", "", "0", "", None, None)] * 2
    downgrade(engine, "0004")
    assert contents(engine, "predictions")["predictions"] == rows


# ---- down is refused where rows would be lost ------------------------------------------------


WHOLE = ("predictions", "prediction_payloads", "vault_entries")
"""The tables of a prediction that was made before the vault."""
KEPT: dict[str, tuple[str, tuple[str, ...], list[dict[str, Any]]]] = {
    "keys of patients": ("0004", ("vault_keys",), [{}]),
    "audit entries": ("0004", ("audit_entries",), [{}]),
    "decisions on erasure": ("0004", ("erasures",), [{}]),
    "a prediction whose payload was deleted": ("0004", ("predictions",), [{}]),
    "a call answered on other data": ("0003", WHOLE, [{"attempt": n} for n in (0, 1)]),
    "a call answered in two modes": ("0001", WHOLE, [{"mode": mode} for mode in ("a", "b")]),
    "a call answered in two states": ("0001", WHOLE, [{"state": state} for state in ("a", "b")]),
}
"""What earlier tables cannot hold: the revision that cannot, the tables, and how rows differ."""


def kept(engine: Engine, tables: tuple[str, ...], differing: list[dict[str, Any]]) -> None:
    for number, given in enumerate(differing):
        for table in tables:
            named = {"prediction_id": str(number)} if tables == WHOLE else {}
            filled(engine, table, **named, **(given if table == "predictions" else {}))


def test_down_is_refused_where_rows_would_be_lost(database_url: str) -> None:
    """Nothing is thrown away: the way out is named, and everything stands as it stood, also what
    revisions in between would have taken back."""
    engine = open_engine(database_url)
    for what, (revision, tables, differing) in KEPT.items():
        kept(engine, tables, differing)
        before = contents(engine, *metadata.tables)
        with pytest.raises(RuntimeError, match="restore a backup"):
            downgrade(engine, revision)
        check_revision(engine)
        assert contents(engine, *metadata.tables) == before, what
        with engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
    engine.dispose()


# ---- start-up -------------------------------------------------------------------------------


def test_a_database_that_is_behind_is_told_to_upgrade(engine: Engine) -> None:
    """Both revisions are named, and the command."""
    upgrade(engine, "0003")
    with pytest.raises(SetupError, match=r"revision 0003, .* needs 0006: run `varsel db upgrade`"):
        check_revision(engine)


def test_a_database_of_a_newer_release_is_refused(engine: Engine) -> None:
    """Old software does not touch it, and does not say that an upgrade would mend it."""
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SetupError, match="newer release") as told:
        upgrade(engine)
    with pytest.raises(SetupError, match=r"revision 9999, .*this software is older") as started:
        check_revision(engine)
    for said in (told, started):
        assert "restore a backup" in str(said.value)
        assert "db upgrade" not in str(said.value)


# ---- SQLite's file --------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "file").touch()
    engine = open_engine(f"sqlite:///{tmp_path / 'file' / 'log.db'}")
    with pytest.raises(SetupError):
        upgrade(engine)
    engine.dispose()


def test_the_database_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    """Health data under pseudonym: nobody else on the machine may read it, nor its WAL."""
    engine = open_engine(f"sqlite:///{tmp_path / 'log' / 'varsel.db'}")
    upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE probe (x INTEGER)")
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "log").iterdir()}
    assert modes.pop("varsel.db") == 0o600
    assert set(modes.values()) <= {0o600}


# ---- restrictions that keep whom they are about ---------------------------------------------


def test_older_decisions_keep_nothing_and_newer_ones_are_not_taken_down(engine: Engine) -> None:
    """Decisions of the earlier release go up and down unchanged; whom a restriction is about would
    be lost on the way down, so that is refused."""
    upgrade(engine, "0005")
    filled(engine, "vault_keys", id="k")
    filled(engine, "erasures", id="older")
    before = contents(engine, "erasures", "vault_keys")
    upgrade(engine)
    assert logged(engine, "id", "key_id", "sealed", table="erasures") == [("older", None, None)]
    downgrade(engine, "0005")
    assert contents(engine, "erasures", "vault_keys") == before
    upgrade(engine)
    filled(engine, "erasures", id="newer", key_id="k", sealed=b"\x02whom")
    rows = contents(engine, "erasures", "vault_keys")
    with pytest.raises(RuntimeError, match="whom they are about"):
        downgrade(engine, "0005")
    check_revision(engine)
    assert contents(engine, "erasures", "vault_keys") == rows


def test_a_data_key_that_a_restriction_needs_cannot_be_deleted(engine: Engine) -> None:
    """Nor can a restriction name one that is not there."""
    upgrade(engine)
    filled(engine, "vault_keys", id="k")
    filled(engine, "erasures", key_id="k", sealed=b"\x02")
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text("DELETE FROM vault_keys"))
    with pytest.raises(IntegrityError):
        filled(engine, "erasures", id="another", key_id="gone", sealed=b"\x02")
