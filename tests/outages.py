"""What tests of outages share: a network that can be cut, and whether a log is whole."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from cds_service.cli.log import Against, examine
from cds_service.db.chains import Span, snapshot
from cds_service.db.log import open_engine


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
