"""Databases for one test, fast: made once a worker, emptied between tests. Used by conftest.py.

Making a PostgreSQL database and dropping it again costs 0.4 s of flushing, because the server is as
durable as in production; deleting what a test wrote costs milliseconds.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from psycopg import sql

from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade
from cds_service.db.tables import metadata
from tests.postgres import Postgres

_WITH_TABLES, _WITHOUT = "migrated", "empty"


def cleaned(server: Postgres) -> str:
    """The URL of the worker's migrated database, without what an earlier test left there."""
    stand_up(server)
    url = _made(server, _WITH_TABLES)
    _disconnect(server, _WITH_TABLES)
    tables = reversed(metadata.sorted_tables)
    emptying = (sql.SQL("DELETE FROM {};").format(sql.Identifier(t.name)) for t in tables)
    server.run(sql.SQL("").join(emptying), _WITH_TABLES)
    return url


def emptied(server: Postgres) -> str:
    """The URL of a database without tables, for a test that makes and changes them."""
    stand_up(server)
    url = _made(server, _WITHOUT)
    _disconnect(server, _WITHOUT)
    server.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public", _WITHOUT)
    return url


def migrated_file(path: Path, room: Path) -> str:
    """The URL of a SQLite file with this software's tables; the first of a worker is kept in `room`
    and copied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_template(room), path)
    return f"sqlite:///{path}"


def migrate(url: str) -> None:
    """Make this software's tables."""
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()


@cache
def _template(room: Path) -> Path:
    path = room / "migrated.db"
    migrate(f"sqlite:///{path}")
    return path


def _made(server: Postgres, name: str) -> str:
    """The URL of a database, made where it is not there yet."""
    there = {found for (found,) in server.run("SELECT datname FROM pg_database")}
    if name not in there:
        server.create(name=name)
        if name == _WITH_TABLES:
            migrate(server.url(name))
    return server.url(name)


def stand_up(server: Postgres) -> None:
    """Start or thaw it where a test left it dead or frozen."""
    if server.is_running:
        server.thaw()
    else:
        server.start()


def _disconnect(server: Postgres, database: str) -> None:
    """Cut connections that are still open, which may hold locks."""
    cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {}"
    server.run(sql.SQL(cut).format(sql.Literal(database)))
