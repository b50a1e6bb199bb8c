"""What tests of outages share: a log that must survive one, a network that can be cut, and whether
a log is whole."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from cds_service.cli.log import Against, examine
from cds_service.db.audit import AuditEntry
from cds_service.db.chains import Span, snapshot
from cds_service.db.claims import Claim
from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.undelivered import undelivered_row
from cds_service.errors import AlreadyUsed, NotAuthenticated
from cds_service.spool import Spool
from tests.logged import KEYS, NOW, PRIVACY, a_row, rows_at

COMMIT_S = 0.4
Row = dict[str, Any]
Outage = Callable[[], Any]


@contextmanager
def full_disk() -> Iterator[None]:
    """A disk that takes nothing more, by the error of the system call: the spool's too."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with patch.object(os, "pwrite", full):
        yield


@dataclass(slots=True)
class Network:
    """A TCP port before a server's Unix socket, which may hold back all bytes, or delay them."""

    port: int
    target: Path
    open: threading.Event = field(default_factory=threading.Event)
    delay_s: float = 0.0

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told: what a cut network looks like."""
        self.open.clear()

    def mend(self) -> None:
        """All passes, what was held back first."""
        self.delay_s = 0.0
        self.open.set()

    def url(self, database: str) -> str:
        """The SQLAlchemy URL through it."""
        return (
            f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}?connect_timeout=2"
            "&sslmode=disable"
        )

    def serve(self, listener: socket.socket) -> None:
        """Join each connection to the server, until the listener is closed."""
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self.target))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.open.wait()
                time.sleep(self.delay_s)
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def network(server_folder: Path) -> Iterator[Network]:
    """A network in front of a PostgreSQL server, whole at first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Network(listener.getsockname()[1], server_folder / ".s.PGSQL.5432")
        made.mend()
        threading.Thread(target=made.serve, args=(listener,), daemon=True).start()
        yield made
        made.mend()
        listener.shutdown(socket.SHUT_RDWR)


# ---- a log that must survive it -------------------------------------------------------------


def a_log(url: str, folder: Path, **given: Any) -> PredictionLog:
    """A log with a spool, which gives a commit up early."""
    folder.mkdir(exist_ok=True)
    settings = {"commit_seconds": COMMIT_S} | given
    return PredictionLog(open_engine(url), PRIVACY, spool=Spool(folder, KEYS.seal), **settings)


def waiting_in(log: PredictionLog) -> int:
    """How many writes wait in its spool."""
    backlog = log.backlogged()
    assert backlog is not None
    return backlog.waiting


def calls(count: int, **given: Any) -> list[Row]:
    """Rows of one moment after the other."""
    return [
        a_row(computed_at=NOW + timedelta(seconds=n), response=f"{n}", **given)
        for n in range(count)
    ]


def survive(log: PredictionLog, go_away: Outage, come_back: Outage, url: str, **given: Any) -> None:
    """Store before, while and after the database is away; then all of it must be there, at `url`.

    `given`: what every row holds.
    """
    before, away, after = (calls(n, **given) for n in (3, 12, 3))
    claim = Claim("issuer", str(uuid.uuid4()), "body", NOW)
    with log:
        for row in before:
            assert not log.store(row).result(10).replayed
        go_away()
        told = [log.store(row, claim if row is away[0] else None) for row in away]
        assert [future.result(10).replayed for future in told] == [False] * len(away)
        assert waiting_in(log) == len(away)
        assert log.store(away[3] | {"response": "said anew"}).result(10).response == "3"
        further = away[4] | {"prediction_id": str(uuid.uuid4()), "content_digest": "further"}
        assert log.store(further).result(10).attempt == 1
        with pytest.raises(AlreadyUsed):
            log.store(away[5] | {"content_digest": "x", "context_digest": "x"}).result(10)
        with pytest.raises(NotAuthenticated):
            log.claim(claim._replace(body_digest="another")).result(10)
        log.audit(AuditEntry("o", "who", "role", "what")).result(10)
        log.commit(undelivered_row(away[0]["prediction_id"], "late")).result(10)
        come_back()
        assert come_true(lambda: waiting_in(log) == 0)
        for row in after:
            assert not log.store(row).result(10).replayed
        assert log.store(away[3]).result(10).replayed
    found = rows_at(url)
    wanted = [*before, *away, further, *after]
    assert sorted(r["prediction_id"] for r in found) == sorted(r["prediction_id"] for r in wanted)
    by_id = {row["prediction_id"]: row for row in found}
    assert all(by_id[row["prediction_id"]]["response"] == row["response"] for row in wanted)
    assert by_id[further["prediction_id"]]["attempt"] == 1
    places = [by_id[row["prediction_id"]] for row in [*away, further]]
    writers = [writer for writer, _ in groupby(place["chain_writer"] for place in places)]
    assert len(writers) == len(set(writers)), "one wrote between another's"
    for writer in writers:
        sequence = [p["chain_sequence"] for p in places if p["chain_writer"] == writer]
        assert sequence == sorted(sequence)
    assert faults_of(url) == []


def under_load(log: PredictionLog, meanwhile: Outage, **given: Any) -> list[str]:
    """The ids of all that was answered while eight store forty each, something happening in the
    middle of it. `given`: what every row holds."""
    told: list[str] = []

    def ask(rows: list[Row]) -> None:
        told.extend(log.store(row).result(30).prediction_id for row in rows)

    threads = [threading.Thread(target=ask, args=(calls(40, **given),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert come_true(lambda: len(told) > 20)
    meanwhile()
    for thread in threads:
        thread.join(60)
    assert len(told) == 8 * 40
    return told


# ---- whether it is whole --------------------------------------------------------------------


def faults_of(url: str) -> list[str]:
    """What `varsel log verify` finds wrong with a log; half rows too."""
    engine = open_engine(url)
    try:
        with snapshot(engine) as connection:
            report = examine(connection, Span(), Against())
        return [str(one) for one in report.findings]
    finally:
        engine.dispose()


def come_true(said: object, *, within_s: float = 20.0) -> bool:
    """Whether something becomes true in time. `said`: a function without arguments."""
    assert callable(said)
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if said():
            return True
        time.sleep(0.02)
    return False
