"""`varsel serve` on a database that is not the software's: refused, with what mends it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade
from tests.databases import emptied
from tests.served import _environment

MENDS = {
    "behind": "at revision 0004, .*: run `varsel db upgrade`",
    "ahead": "at revision 9999, .*: this software is older than the database: install the newer",
}
"""What is said of a database; tests/integration/test_migrations.py has every case on both."""


def brought(url: str, how: str) -> None:
    """Make a database of another revision than the software's."""
    engine = open_engine(url)
    upgrade(engine, "0004" if how == "behind" else "head")
    if how == "ahead":
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()


@pytest.mark.parametrize(("kind", "how"), [("postgresql", "behind"), ("sqlite", "ahead")])
def test_serve_refuses_a_database_of_another_revision(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, how: str
) -> None:
    """Code 2 and one line that says which command mends it; nothing is served."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    if kind == "postgresql":
        url = emptied(request.getfixturevalue("postgresql_server"))
    brought(url, how)
    (tmp_path / "callers.toml").touch()
    ended = subprocess.run(
        [sys.executable, "-m", "cds_service", "serve", "--port", "0"],
        env=_environment(tmp_path, {"database_url": url}),
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert re.search(MENDS[how], line)
