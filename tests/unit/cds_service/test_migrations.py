"""Migrations: the tables they make are the ones the software uses; data survive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from cds_service.db.log import open_engine
from cds_service.db.migrate import check_revision, downgrade, upgrade
from cds_service.db.tables import metadata
from cds_service.errors import SetupError


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A database in a file of a folder that is not there yet."""
    made = open_engine(f"sqlite:///{tmp_path / 'state' / 'log.db'}")
    yield made
    made.dispose()


def test_migrations_make_exactly_the_tables_of_the_software(engine: Engine) -> None:
    """Nothing would be left to migrate."""
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_up_again_keeps_what_is_there(engine: Engine) -> None:
    """Upgrading a database that is up to date changes nothing."""
    upgrade(engine)
    columns = [c["name"] for c in inspect(engine).get_columns("predictions") if not c["nullable"]]
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO predictions ({', '.join(columns)}) "
                f"VALUES ({', '.join(repr('x') for _ in columns)})"
            )
        )
    upgrade(engine)
    check_revision(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM predictions")).scalar() == 1


def filled(engine: Engine, table: str, **given: str) -> None:
    """A row with text in every column that needs something."""
    needed = [c["name"] for c in inspect(engine).get_columns(table) if not c["nullable"]]
    values = dict.fromkeys(needed, "x") | given
    names = ", ".join(values)
    with engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{n}' for n in values)})"),
            values,
        )


def logged(engine: Engine, columns: str) -> list[tuple[str, ...]]:
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT {columns} FROM predictions ORDER BY 1")).all()
    return [tuple(row) for row in found]


def test_up_from_the_first_release_keeps_the_log_and_says_each_row_s_state(engine: Engine) -> None:
    """A row was live, or silent by the site's setting; nothing else about it changes."""
    upgrade(engine, "0001")
    for mode in ("live", "silent"):
        filled(engine, "predictions", prediction_id=mode, hook_instance=mode, mode=mode)
    before = logged(engine, "prediction_id, document, sealed, hook, mode")
    upgrade(engine)
    check_revision(engine)
    assert logged(engine, "prediction_id, state") == [("live", "live"), ("silent", "silent")]
    assert logged(engine, "prediction_id, document, sealed, hook, mode") == before
    indexes = {index["name"] for index in inspect(engine).get_indexes("predictions")}
    assert indexes == {"ix_predictions_model_id_as_of", "ix_predictions_patient_pseudonym"}


def test_down_to_the_first_release_keeps_the_log(engine: Engine) -> None:
    """States and records are gone, predictions are not; and up again."""
    upgrade(engine)
    filled(engine, "predictions", prediction_id="one", state="live", mode="live", attempt="0")
    before = logged(engine, "prediction_id, document, mode")
    downgrade(engine, "0001")
    assert set(inspect(engine).get_table_names()) == {"alembic_version", "predictions"}
    assert logged(engine, "prediction_id, document, mode") == before
    upgrade(engine)
    assert logged(engine, "prediction_id, state") == [("one", "live")]


def contents(engine: Engine, *tables: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of some tables."""
    with engine.connect() as connection:
        return {
            table: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))]
            for table in tables
        }


def test_hit_rates_come_and_go_and_leave_everything_else_as_it_is(engine: Engine) -> None:
    """Up with predictions, decisions and records in place; down drops the hit rates alone."""
    others = ("predictions", "model_states", "model_records")
    upgrade(engine, "0002")
    filled(engine, "predictions")
    for table in ("model_states", "model_records"):
        filled(engine, table, id="1")
    before = contents(engine, *others)
    upgrade(engine, "0003")
    assert contents(engine, *others, "model_hit_rates") == {**before, "model_hit_rates": []}
    filled(engine, "model_hit_rates", id="1")
    downgrade(engine, "0002")
    assert set(inspect(engine).get_table_names()) == {"alembic_version", *others}
    assert contents(engine, *others) == before
    upgrade(engine, "0003")
    assert contents(engine, *others, "model_hit_rates") == {**before, "model_hit_rates": []}


def test_attempts_feedback_and_used_tokens_come_and_go(engine: Engine) -> None:
    """Rows made before are first attempts, of a context not known apart; down keeps them."""
    later = {"undelivered", "feedback", "token_claims"}
    upgrade(engine, "0003")
    filled(engine, "predictions", prediction_id="one")
    before = contents(engine, "predictions")
    upgrade(engine)
    check_revision(engine)
    assert [str(row) for row in logged(engine, "attempt, attempt_of, context_digest")] == [
        "(0, None, '')"
    ]
    assert later <= set(inspect(engine).get_table_names())
    downgrade(engine, "0003")
    assert not later & set(inspect(engine).get_table_names())
    assert contents(engine, "predictions") == before


def test_down_is_refused_where_a_call_was_answered_on_other_data(engine: Engine) -> None:
    """Earlier tables hold one attempt of a call; nothing is thrown away."""
    upgrade(engine)
    for attempt in ("0", "1"):
        filled(engine, "predictions", prediction_id=attempt, attempt=attempt)
    with pytest.raises(RuntimeError, match="restore a backup"):
        downgrade(engine, "0003")
    check_revision(engine)
    assert logged(engine, "prediction_id") == [("0",), ("1",)]


@pytest.mark.parametrize("name", ["mode", "state"])
def test_down_is_refused_where_the_first_release_could_not_hold_the_log(
    engine: Engine, name: str
) -> None:
    """One call, answered in two states or modes: nothing is thrown away, the way out is named."""
    upgrade(engine)
    for value in ("live", "other"):
        filled(engine, "predictions", **{"prediction_id": value, name: value})
    filled(engine, "model_hit_rates", id="1")
    with pytest.raises(RuntimeError, match="restore a backup"):
        downgrade(engine, "0001")
    check_revision(engine)
    assert logged(engine, f"prediction_id, {name}") == [("live", "live"), ("other", "other")]
    assert len(contents(engine, "model_hit_rates")["model_hit_rates"]) == 1


def test_down_and_up_again(engine: Engine) -> None:
    """Down leaves no table of ours, up makes them anew."""
    upgrade(engine)
    downgrade(engine, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    with pytest.raises(SetupError, match="revision none"):
        check_revision(engine)
    upgrade(engine)
    check_revision(engine)


def test_a_database_of_a_newer_release_is_refused(engine: Engine) -> None:
    """Old software does not touch it."""
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SetupError, match="newer"):
        upgrade(engine)
    with pytest.raises(SetupError, match="revision 9999"):
        check_revision(engine)


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
