"""A silent version has a row for each call of the version in front, also where the answer came too
late or reached nobody: else the two would be compared on the calls that went well. A real server.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cds_service.settings import Settings
from models.package import write_checksums
from models.registry import BUNDLED, load_registry, package_folders
from tests.decided import decided
from tests.served import Caller, Production, production, send

NAME, NEWER = "readmission-30d", "1.1.0"
PATIENT = Caller("patient", "token-of-the-patient-one", deadline_ms=20_000)
HASTY = Caller("hasty", "token-of-the-hasty-one", deadline_ms=300)
BOTH = {"1.0.0": "live", NEWER: "silent"}
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site's folder with a newer version of the bundled model."""
    folder = tmp_path_factory.mktemp("site")
    copy = folder / NAME / NEWER
    shutil.copytree(BUNDLED / NAME, copy)
    manifest = (copy / "manifest.toml").read_text(encoding="utf-8")
    changed = manifest.replace('version = "1.0.0"', f'version = "{NEWER}"')
    (copy / "manifest.toml").write_text(changed, encoding="utf-8")
    write_checksums(copy)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, newer: Path) -> Iterator[Production]:
    """An installation with one version live and the newer one silent."""
    with production(tmp_path_factory.mktemp("silent"), [PATIENT, HASTY], models_dir=newer) as one:
        let_in_silently(one, newer)
        yield one


def let_in_silently(server: Production, models: Path) -> None:
    """Decide that the newer version is silent, and wait until the process knows."""
    settings = Settings(
        database_url=f"sqlite:///{server.database}", models_dir=models, allow_synthetic_models=True
    )
    package = load_registry(package_folders(models), allow_synthetic=True).find(NAME, NEWER)
    decided(settings, package, "silent")
    time.sleep(2.5)  # a process asks every second whether anything was decided


def modes(server: Production, request: Mapping[str, Any]) -> dict[str, str]:
    """The mode of each version's row of a call, once both are there, or nothing came for long."""
    asked = f"FROM predictions WHERE hook_instance = '{request['hookInstance']}'"
    server.await_rows(f"SELECT count(*) {asked} HAVING count(*) = 2")
    return dict(server.rows(f"SELECT model_version, mode {asked}"))


def undelivered(server: Production, request: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Version and how, of what of a call did not reach its caller."""
    return server.await_rows(
        "SELECT p.model_version, u.how FROM undelivered u JOIN predictions p"
        f" ON p.prediction_id = u.prediction_id WHERE p.hook_instance = '{request['hookInstance']}'"
    )


@contextmanager
def kept_busy(server: Production) -> Iterator[None]:
    """Nothing can be written into the server's database meanwhile."""
    with closing(sqlite3.connect(server.database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_an_answer_that_came_too_late_has_its_silent_row(
    server: Production, changed: Changed
) -> None:
    """503 to the caller, both rows in the log, of one moment and content; a second try, which is
    answered from the log, adds none."""
    request = changed({"extension": ...})
    with kept_busy(server):
        assert server.call(HASTY, request).status == 503
    assert modes(server, request) == BOTH
    assert undelivered(server, request) == [("1.0.0", "late")]
    asked = f"FROM predictions WHERE hook_instance = '{request['hookInstance']}'"
    alike = "count(DISTINCT as_of), count(DISTINCT content_digest), count(DISTINCT caller)"
    assert server.rows(f"SELECT {alike} {asked}") == [(1, 1, 1)]
    assert server.call(HASTY, request).status == 200
    time.sleep(1)
    assert server.rows(f"SELECT count(*) {asked}") == [(2,)]


def test_an_answer_that_outlived_the_database_too_has_its_silent_row(
    server: Production, changed: Changed
) -> None:
    """Late, and from the spool: both rows all the same."""
    request = changed({"extension": ...})
    with kept_busy(server):
        assert server.call(HASTY, request).status == 503
        time.sleep(4)  # longer than a commit may take
    assert modes(server, request) == BOTH
    assert undelivered(server, request) == [("1.0.0", "late")]


def test_an_answer_that_reached_nobody_has_its_silent_row(
    server: Production, changed: Changed
) -> None:
    """The caller hung up before its answer was ready."""
    request = changed({"extension": ...})
    with kept_busy(server):
        with closing(server.connect()) as connection:
            send(connection, PATIENT.token, json.dumps(request).encode())
            time.sleep(0.4)
        time.sleep(0.2)
    assert modes(server, request) == BOTH
    assert undelivered(server, request) == [("1.0.0", "disconnected")]


def test_a_call_that_was_refused_has_no_row_of_either(server: Production, changed: Changed) -> None:
    """Nothing was predicted, so there is nothing to compare."""
    request = changed({"extension": ..., "prefetch/encounters": ...})
    assert server.call(PATIENT, request).status == 412
    later = changed({"extension": ...})
    assert server.call(PATIENT, later).status == 200
    assert modes(server, later) == BOTH
    instance = request["hookInstance"]
    assert server.rows(f"SELECT 1 FROM predictions WHERE hook_instance = '{instance}'") == []


def test_a_process_that_is_told_to_stop_writes_the_silent_rows_first(
    tmp_path: Path, newer: Path, changed: Changed
) -> None:
    """Of an answer nobody waits for any more, and of those that just left."""
    late, *quick = requests = [changed({"extension": ...}) for _ in range(6)]
    with production(tmp_path, [PATIENT, HASTY], models_dir=newer) as server:
        let_in_silently(server, newer)
        with kept_busy(server):
            assert server.call(HASTY, late).status == 503
        assert [server.call(PATIENT, one).status for one in quick] == [200] * len(quick)
        server.process.terminate()
        server.process.wait(30)
        assert "shadow" not in server.printed()
    for request in requests:
        assert modes(server, request) == BOTH
