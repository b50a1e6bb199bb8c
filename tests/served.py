"""A real `varsel serve` of the production profile in its own process, and raw HTTP against it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade
from cds_service.settings import Settings
from tests.decided import bring_live

ROOT = Path(__file__).parents[1]
STARTS_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller of the installation, with the token it sends and how long it waits."""

    name: str
    token: str
    deadline_ms: int = 2500

    def table(self) -> str:
        """Its table in the callers file."""
        digest = hashlib.sha256(self.token.encode()).hexdigest()
        return (
            f'[[caller]]\nname = "{self.name}"\norganisation = "org-{self.name}"\n'
            f'token_sha256 = "{digest}"\n[caller.policy]\ndeadline_ms = {self.deadline_ms}\n'
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers in lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Production:
    """A running installation."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def connect(self) -> socket.socket:
        """A connection, from which an answer is awaited with patience."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=ANSWERS_WITHIN_S)

    def call(self, caller: Caller, request: Mapping[str, Any], path: str = "") -> Answer:
        """The answer to a hook."""
        with closing(self.connect()) as connection:
            send(connection, caller.token, json.dumps(request).encode(), path)
            return answer_on(connection)

    def printed(self) -> str:
        """What it printed so far, on standard output and error."""
        return "".join(
            (self.folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")
        )

    @property
    def database(self) -> Path:
        """Its database's file."""
        return self.folder / "varsel.db"

    def rows(self, statement: str) -> list[Any]:
        """What its database holds."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(statement).fetchall()

    def await_rows(self, statement: str) -> list[Any]:
        """The same, once there are any."""
        until = time.monotonic() + 10
        while not (found := self.rows(statement)) and time.monotonic() < until:
            time.sleep(0.02)
        return found


def send(connection: socket.socket, token: str, body: bytes, path: str = "") -> None:
    """Send a whole hook request."""
    connection.sendall(head(token, len(body), path) + body)


def head(token: str, length: int, path: str = "") -> bytes:
    """The request line and headers of a hook request."""
    return (
        f"POST /cds-services/readmission-30d{path} HTTP/1.1\r\nHost: test\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def answer_on(connection: socket.socket) -> Answer:
    """The answer that comes on a connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    start, _, body = received.partition(b"\r\n\r\n")
    status, *lines = start.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += _more(connection)
    return Answer(int(status.split()[1]), headers, body)


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed without an answer")
    return data


@contextmanager
def production(folder: Path, callers: list[Caller], **settings: object) -> Iterator[Production]:
    """An installation with its model live and some settings, running; ended on the way out."""
    (folder / "callers.toml").write_text("".join(c.table() for c in callers), encoding="utf-8")
    _prepare(folder)
    command = [sys.executable, "-m", "cds_service", "serve", "--port", "0"]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=_environment(folder, settings), cwd=folder
        )
    try:
        yield Production(_port(process, folder), folder, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _prepare(folder: Path) -> None:
    """A database in which the bundled model was brought to live."""
    settings = Settings(
        database_url=f"sqlite:///{folder / 'varsel.db'}", allow_synthetic_models=True
    )
    engine = open_engine(settings.database)
    upgrade(engine)
    engine.dispose()
    bring_live(settings)


def _environment(folder: Path, settings: Mapping[str, object]) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VARSEL_")}
    return {
        **clean,
        "VARSEL_PROFILE": "production",
        "VARSEL_DATABASE_URL": f"sqlite:///{folder / 'varsel.db'}",
        "VARSEL_CALLERS_FILE": str(folder / "callers.toml"),
        "VARSEL_PSEUDONYM_KEY": base64.b64encode(b"p" * 32).decode(),
        "VARSEL_SEAL_KEY": base64.b64encode(b"s" * 32).decode(),
        "VARSEL_ALLOW_SYNTHETIC_MODELS": "true",
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
        **{f"VARSEL_{name.upper()}": str(value) for name, value in settings.items()},
    }


def _port(process: subprocess.Popen[bytes], folder: Path) -> int:
    """The port the server printed, once it answers there."""
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        printed = (folder / "stdout").read_text(encoding="utf-8")
        found = re.search(r"on http://[^:\s]+:(\d+)", printed)
        if found:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(found.group(1)))) == 0:
                    return int(found.group(1))
        time.sleep(0.1)
    raise AssertionError((folder / "stderr").read_text(encoding="utf-8"))
