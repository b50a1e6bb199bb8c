"""Migrations: bringing the database to this software's tables, and saying when it is not there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.partitions import make_months
from cds_service.errors import SetupError

_SCRIPTS = Path(__file__).with_name("migrations")
_AHEAD = (
    "this software is older than the database: install the newer release it was upgraded by, or "
    "restore a backup from before"
)


def _config(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["engine"] = engine
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the database to this software's newest revision, making it where it is empty.

    On PostgreSQL the partitions of the coming year are made too, also where nothing else is to do.
    Raises SetupError where it cannot be reached or written, or is newer than this software.
    """
    database = engine.url.database
    try:
        if engine.dialect.name == "sqlite" and database and database != ":memory:":
            Path(database).parent.mkdir(parents=True, exist_ok=True)
            Path(database).touch(mode=0o600)  # the owner's alone; SQLite gives its WAL the same
        command.upgrade(_config(engine), revision)
        make_months(engine, datetime.now(UTC).date())
    except OSError as error:
        raise SetupError(f"the database's folder cannot be made: {error.strerror}") from None
    except CommandError:
        raise SetupError(f"the database is of a newer release; {_AHEAD}") from None
    except SQLAlchemyError as error:
        raise _unreachable(engine, error) from None


def downgrade(engine: Engine, revision: str) -> None:
    """Take the database back to an earlier revision."""
    command.downgrade(_config(engine), revision)


def check_revision(engine: Engine) -> None:
    """Raise SetupError where the database is behind this software's revision, or ahead of it.

    The message says what mends it.
    """
    scripts = ScriptDirectory.from_config(_config(engine))
    expected = scripts.get_current_head()
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        raise _unreachable(engine, error) from None
    if found == expected:
        return
    known = {script.revision for script in scripts.walk_revisions()}
    mend = "run `varsel db upgrade`" if found is None or found in known else _AHEAD
    raise SetupError(
        f"the database is at revision {found or 'none'}, this software needs {expected}: {mend}"
    )


def _unreachable(engine: Engine, error: SQLAlchemyError) -> SetupError:
    """What an operator is told: the URL without its password, the fault without its statement."""
    shown = engine.url.render_as_string(hide_password=True)
    return SetupError(f"the database {shown} cannot be used ({type(error).__name__})")
