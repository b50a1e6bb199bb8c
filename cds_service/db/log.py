"""The prediction log: its writer, which commits in groups, and where writes go without a database.

A write is durable when its future ends: SQLite in WAL mode with `synchronous=FULL`, PostgreSQL with
`synchronous_commit`. One thread per process writes; what arrives together shares one commit. Where
the database does not take a group, or hangs over it, the group is made durable in the spool, and so
is all that follows, in order, until the spool is stored (`backlog.py`, `drain.py`). What is written
stands in `store.py` and beside it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import structlog
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from cds_service.db.audit import AuditEntry, now_done
from cds_service.db.backlog import Backlog, Backlogged
from cds_service.db.claims import Claim
from cds_service.db.commits import Committer, Outcome, not_durable
from cds_service.db.drain import Drainer
from cds_service.db.postgresql import (
    arguments,
    is_postgresql,
    read_url,
    settle_session,
    with_driver,
)
from cds_service.db.reader import LogReader
from cds_service.db.store import ClaimToken, Row, Stored, StorePrediction
from cds_service.db.transaction import Result, Write
from cds_service.errors import SetupError
from cds_service.identities.privacy import Privacy
from cds_service.spool import Spool

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.log")

_DATABASES = ("sqlite", "postgresql")
_OPTIONS = {"preserve_rowcount": True}
"""Without it an INSERT's rowcount is not known on PostgreSQL, and a row that stood there before
would count as written."""
_LARGEST_GROUP = 256
_LOOKS_EVERY_S = 0.25
_ADOPTS_EVERY_S = 10.0
"""Seconds between two looks for files of the spool that nobody holds any more."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
"""Seconds before a database that did not take the spool is tried again; doubled each time."""
_ENDS_WITHIN_S = 15.0


class _Waiting(NamedTuple):
    """A write that waits for its commit, and who waits for its result."""

    write: Write[Any]
    future: Future[Any]


def open_engine(url: str) -> Engine:
    """An engine for the log's database, made durable; SQLite readable while written to.

    Raises SetupError where the URL is not one, or of a database this software does not speak to.
    """
    try:
        named = with_driver(read_url(url))
        told = arguments(named) if is_postgresql(named) else {}
        engine = create_engine(named, connect_args=told, execution_options=_OPTIONS)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        fault = type(error).__name__
        raise SetupError(f"VARSEL_DATABASE_URL: not a database to be used ({fault})") from None
    if engine.dialect.name not in _DATABASES:
        raise SetupError(f"VARSEL_DATABASE_URL: {engine.dialect.name} is not supported")
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _make_sqlite_durable)
    else:
        event.listen(engine, "connect", settle_session)
    return engine


def is_absent(engine: Engine) -> bool:
    """Whether the database is a file that is not there; asking it anything would make it."""
    path = engine.url.database
    is_file = engine.dialect.name == "sqlite" and path not in (None, "", ":memory:")
    return is_file and not Path(str(path)).exists()


def _make_sqlite_durable(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()


@dataclass(slots=True)
class _Group:
    """What one commit is tried with: since when, whether it is the writer's last, and whether the
    keeper has taken it away because it hung."""

    waiting: list[_Waiting]
    is_last: bool
    began: float
    given_up: bool = False


class PredictionLog(LogReader):
    """The log of one database. `start` before use, `stop` when done; usable as a context.

    `spool`: where writes are made durable while the database is away; without one they fail.
    `commit_seconds`: after which a commit is given up, where there is a spool.
    """

    def __init__(
        self,
        engine: Engine,
        privacy: Privacy,
        *,
        spool: Spool | None = None,
        commit_seconds: float = 2.0,
    ) -> None:
        super().__init__(engine)
        self._vault = privacy.vault
        self._committer = Committer(engine, privacy.vault)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = self._writer(None)
        self._backlog = Backlog(spool) if spool else None
        self._commit_s = commit_seconds
        self._lock = threading.Lock()
        self._group: _Group | None = None
        self._ended = threading.Event()
        self._drainer = Drainer(engine, privacy.vault, self._backlog) if self._backlog else None
        self._keeper = threading.Thread(target=self._keep, name="spool", daemon=True)

    def start(self) -> Self:
        """Take over what an earlier process left in the spool, and start the writer."""
        if self._backlog is not None:
            self._backlog.adopt()
            self._keeper.start()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Commit what waits, then end. What is in the spool stays there for the next start."""
        if self._thread.is_alive():
            self._waiting.put(None)
            while (thread := self._thread).is_alive():  # another may have taken over
                thread.join(_LOOKS_EVERY_S)
        self._ended.set()
        if self._keeper.is_alive() and self._drainer is not None:
            self._drainer.give_up()
            self._keeper.join(_ENDS_WITHIN_S)
        if self._backlog is not None:
            self._backlog.close()
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def backlogged(self) -> Backlogged | None:
        """What waits in the spool; None where there is no spool."""
        return self._backlog.state() if self._backlog else None

    # ---- writing ----------------------------------------------------------------------------

    def store(self, row: Row, claim: Claim | None = None) -> Future[Stored]:
        """A future that ends when the row is durable, or the same call's earlier row was found.

        It raises AlreadyUsed where the hookInstance came before with another context, NotDurable
        where neither the database nor the spool took it. A future cancelled before its turn leaves
        no row. `claim`: of the token that came with the call, made in the same commit;
        NotAuthenticated, and no row, where the token was used for another body.
        """
        return self.commit(StorePrediction(row, claim))

    def claim(self, claim: Claim) -> Future[None]:
        """A future that ends when a token is claimed; NotAuthenticated as `store` raises it."""
        return self.commit(ClaimToken(claim))

    def audit(self, entry: AuditEntry) -> Future[None]:
        """A future that ends when it is on record who did what. Raises NotDurable."""
        return self.commit(now_done(entry))

    def commit(self, write: Write[Result]) -> Future[Result]:
        """A future of what `write` gives, ended when it is durable: the next commit does it.

        It raises what `write` refuses with, NotDurable where nothing made it durable.
        """
        future: Future[Result] = Future()
        self._waiting.put(_Waiting(write, future))
        return future

    def _writer(self, unfinished: _Group | None) -> threading.Thread:
        """The thread that writes; `unfinished`: what another one hung with."""
        return threading.Thread(
            target=self._write, args=(unfinished,), name="prediction-log", daemon=True
        )

    def _write(self, unfinished: _Group | None) -> None:
        if unfinished is not None:
            self._spool(unfinished.waiting, "no answer in time")
            if unfinished.is_last:
                return
        while True:
            group = [self._waiting.get()]
            while len(group) < _LARGEST_GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            writes = [item for item in group if item is not None]
            # from here on nobody can cancel, so that the answer always finds its future
            awaited = [item for item in writes if item.future.set_running_or_notify_cancel()]
            is_last = len(writes) < len(group)
            if awaited and not self._commit(awaited, is_last=is_last):
                return  # another thread goes on
            if is_last:
                return

    def _commit(self, waiting: list[_Waiting], *, is_last: bool) -> bool:
        """Make a group durable; False where it took so long that another thread has its place."""
        # in one: who replaces a writer, or looks whether one commits, sees all of it
        with self._lock:
            backlog = self._backlog if self._backlog and not self._backlog.is_empty else None
            group, committer = _Group(waiting, is_last, time.monotonic()), self._committer
            self._group = None if backlog else group
        if backlog is not None:
            _deliver(waiting, backlog.take([write for write, _ in waiting]))
            return True
        outcomes = committer.commit([write for write, _ in waiting])
        with self._lock:
            if group.given_up:
                return False
            self._group = None
        _deliver(waiting, outcomes)
        if len(outcomes) < len(waiting):
            self._spool(waiting[len(outcomes) :], committer.failed_with)
        return True

    def _spool(self, waiting: list[_Waiting], why: str) -> None:
        """Make durable what the database did not take; `why` in a word."""
        if self._backlog is None:
            _deliver(waiting, [not_durable(why)] * len(waiting))
            return
        events.log(logging.WARNING, "spooling", kind=why, writes=len(waiting))
        _deliver(waiting, self._backlog.take([write for write, _ in waiting]))

    # ---- the spool's keeper -----------------------------------------------------------------

    def _keep(self) -> None:
        """See that no commit hangs and that what is spooled is stored, until the log ends."""
        assert self._backlog is not None and self._drainer is not None  # noqa: S101, PT018 - started only with them
        every_s = min(_LOOKS_EVERY_S, self._commit_s / 8)
        pause_s, backoff_s, adopt_at = every_s, _FIRST_WAIT_S, time.monotonic() + _ADOPTS_EVERY_S
        while not self._ended.wait(pause_s):
            commits = self._commits_still()
            if not self._backlog.is_empty and not commits:
                took = self._drainer.step()
                pause_s, backoff_s = _next_pause(backoff_s, took=took)
                self._backlog.look_for_room()
                continue
            pause_s, backoff_s = every_s, _FIRST_WAIT_S
            if self._backlog.is_empty and time.monotonic() > adopt_at:
                self._backlog.adopt()
                self._backlog.look_for_room()
                adopt_at = time.monotonic() + _ADOPTS_EVERY_S

    def _commits_still(self) -> bool:
        """Whether the writer commits at this moment. Where that takes too long another thread goes
        on, and the group goes to the spool.

        Once something is spooled no commit begins, so one that was under way when a file was taken
        over is waited for before a batch is stored, which may hang over the same server.
        """
        with self._lock:
            group = self._group
            if group is None:
                return False
            if time.monotonic() - group.began < self._commit_s:
                return True
            group.given_up, self._group = True, None
            hung, self._committer = self._committer, Committer(self.engine, self._vault)
            thread = self._writer(group)
            thread.start()
            self._thread = thread
        hung.give_up()
        return False


def _next_pause(backoff_s: float, *, took: bool) -> tuple[float, float]:
    """How long to wait before the next batch, and after the next failure."""
    return (0.0, _FIRST_WAIT_S) if took else (backoff_s, min(_LONGEST_WAIT_S, 2 * backoff_s))


def _deliver(waiting: list[_Waiting], outcomes: list[Outcome]) -> None:
    """Give each future what became of its write; of those beyond the outcomes nothing is known."""
    for (_, future), outcome in zip(waiting, outcomes, strict=False):
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
