"""PostgreSQL's own disk is full: cards go on, and all of them are in the log once there is room.

A real server on a real small disk, filled by the test. Two disks, since PostgreSQL does two things:
where its tables cannot grow it refuses the statement; where its write-ahead log cannot, it ends.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from cds_service.app import create_app
from cds_service.settings import Settings
from models.registry import Registry
from tests.databases import cleaned
from tests.logged import rows_at
from tests.outages import COMMIT_S, a_log, come_true, faults_of, survive, under_load, waiting_in
from tests.postgres import Postgres, room_for_one
from tests.small_disk import NotHere, SmallDisk, small_disk

URL = "/cds-services/readmission-30d"
LARGE = base64.b64encode(random.Random(1).randbytes(32_000)).decode()
"""A document that no page has room for, and nothing makes smaller."""


@pytest.fixture(autouse=True)
def _tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is tried again sooner than in production."""
    monkeypatch.setattr("cds_service.db.log._FIRST_WAIT_S", 0.1)


@contextmanager
def server_with(part: str, *, on_a_disk_of: str) -> Iterator[tuple[Postgres, SmallDisk]]:
    """A server whose data, or whose write-ahead log ("wal"), lies on a small disk; skips where this
    system lets its user have none. The log needs a new file for each megabyte."""
    settings = {"fsync": "off", "min_wal_size": "2MB", "wal_recycle": "off"}
    with room_for_one(**settings) as server:
        try:
            with small_disk(server.folder / part, on_a_disk_of, server.as_user) as disk:
                server.within = disk.within
                server.make("--wal-segsize", "1", "--waldir", str(server.folder / "wal"))
                server.start()
                yield server, disk
        except NotHere as why:
            pytest.skip(f"no small disk, as user namespaces are not to be had here: {why}")


@pytest.fixture(scope="module")
def server_and_disk() -> Iterator[tuple[Postgres, SmallDisk]]:
    """A server whose data lies on a small disk."""
    with server_with("data", on_a_disk_of="80m") as both:
        yield both


def test_tables_that_cannot_grow(
    server_and_disk: tuple[Postgres, SmallDisk], tmp_path: Path
) -> None:
    """The server says so of each statement (53100) and runs on."""
    server, disk = server_and_disk
    url = cleaned(server)
    with capture_logs() as said:
        survive(a_log(url, tmp_path), disk.fill, disk.make_room, url, document=LARGE)
    assert {one["kind"] for one in said if one["event"] == "spooling"} == {"DiskFull"}


def test_cards_are_shown_while_the_tables_cannot_grow(
    server_and_disk: tuple[Postgres, SmallDisk],
    tmp_path: Path,
    registry: Registry,
    changed: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> None:
    """200 and a card; readiness 200 and degraded; with room again all is stored by itself."""
    server, disk = server_and_disk
    url = cleaned(server)
    server.run("VACUUM FULL", "migrated")  # no page is left that has room
    settings = Settings(
        profile="demo", state_dir=tmp_path, database_url=url, commit_seconds=COMMIT_S
    )
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as service:
        assert service.get("/readyz").json()["status"] == "ready"
        disk.fill()
        shown = [service.post(URL, json=changed({})) for _ in range(3)]
        assert [(one.status_code, len(one.json()["cards"])) for one in shown] == [(200, 1)] * 3
        readiness = service.get("/readyz")
        assert (readiness.status_code, readiness.json()["status"]) == (200, "degraded")
        disk.make_room()
        assert come_true(lambda: service.get("/readyz").json()["status"] == "ready")
    assert sorted(row["response"] for row in rows_at(url)) == sorted(one.text for one in shown)
    assert faults_of(url) == []


def test_a_write_ahead_log_that_cannot_grow(tmp_path: Path) -> None:
    """The server ends itself in the middle of the load, and as a rule cannot come up again before
    there is room: whoever was answered is there afterwards, once."""
    with server_with("wal", on_a_disk_of="64m") as (server, disk):
        url = cleaned(server)
        with capture_logs() as said, a_log(url, tmp_path) as log:
            told = under_load(log, disk.fill, document=LARGE)
            assert "PANIC:  could not write to file" in server.said()
            assert "No space left on device" in server.said()
            disk.make_room()
            assert come_true(lambda: server.answers() or not server.is_running)
            if not server.is_running:
                server.start()
            assert come_true(lambda: waiting_in(log) == 0)
        assert "spooling" in {one["event"] for one in said}
        assert sorted(told) == sorted(row["prediction_id"] for row in rows_at(url))
        assert faults_of(url) == []
