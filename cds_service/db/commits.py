"""Groups of writes in one commit; and where one fails, whose fault: a row's or the database's.

A committer owns a connection at a time, chains of its own and the data keys it has seen; it is used
by one thread. Another one may give it up while it hangs: its connection is cut, and whether its
last commit was done is not known; every write may be done again. Used by the log's writer and by
what stores a spool.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolExhausted

from cds_service.db.transaction import Transaction, Write
from cds_service.db.vault import KeyStore
from cds_service.errors import NotDurable, SealBroken
from cds_service.evidence.chain import Writer
from cds_service.identities.vault import Vault

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.log")
Outcome = Any
"""What a write gave; a refusal or NotDurable is an exception that was not raised."""
_TRIES = 2
_PASSES = frozenset({"40001", "40P01"})
"""Of PostgreSQL: transactions that waited for each other; the one that was ended may try again."""


class Committer:
    """Commits on one database, by one thread."""

    def __init__(self, engine: Engine, vault: Vault, *, waits_for_keys: bool = False) -> None:
        """`waits_for_keys`: a data key that does not open is as if the database were away."""
        self._engine = engine
        self._vault = vault
        self._waits_for_keys = waits_for_keys
        self._keys = KeyStore(vault)
        self._chains = Writer()
        self._lock = threading.Lock()
        self._in_use: Connection | None = None
        self._given_up = False
        self.failed_with = ""

    def commit(self, writes: Sequence[Write[Any]]) -> list[Outcome]:
        """What became of each write, in order, all in one commit.

        Where a row is at fault each is tried alone, so that one cannot fail others. It gives fewer
        outcomes than writes where the database takes no more: of the rest nothing is known.
        """
        for _ in range(_TRIES):
            try:
                return self._together(writes)
            except Exception as error:  # noqa: BLE001 - a row must not end the writer of all others
                failed = error
            if self._given_up or not _passes(failed):
                break
        self.failed_with = _kind(failed)
        if self._given_up or is_away(failed) or self._lacks_key(failed):
            return []
        return self._each_alone(writes) if len(writes) > 1 else [not_durable(self.failed_with)]

    def _lacks_key(self, error: Exception) -> bool:
        return self._waits_for_keys and isinstance(error, SealBroken)

    def _each_alone(self, writes: Sequence[Write[Any]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for write in writes:
            outcome = self.commit([write])
            if not outcome:
                break
            outcomes += outcome
        return outcomes

    def _together(self, writes: Sequence[Write[Any]]) -> list[Outcome]:
        chains = self._chains.heads()
        try:
            with self._engine.connect() as connection, self._using(connection), connection.begin():
                tx = Transaction(connection, self._chains, vault=self._vault, keys=self._keys)
                outcomes = [write(tx) for write in writes]
                tx.finish()
        except Exception as error:
            if _is_lost(error):
                self._chains = Writer()  # whether the links were committed, nobody knows
            else:
                self._chains.return_to(chains)
            self._keys.forget()  # what was made is gone, and what was destroyed is not used again
            raise
        return outcomes

    # ---- giving up --------------------------------------------------------------------------

    @contextmanager
    def _using(self, connection: Connection) -> Iterator[None]:
        with self._lock:
            self._in_use = connection
        try:
            yield
        finally:
            with self._lock:
                self._in_use = None

    def give_up(self) -> None:
        """Cut the connection, called by another thread: what hangs ends, nothing is tried again."""
        self._given_up = True
        with self._lock:
            if self._in_use is not None:
                _cut(self._in_use)


def _cut(connection: Connection) -> None:
    """Shut a connection's socket under whoever waits on it; SQLite has none, and waits not long."""
    gone = (AttributeError, OSError, SQLAlchemyError, connection.dialect.loaded_dbapi.Error)
    try:
        driver = connection.connection.driver_connection
        descriptor = driver.fileno()  # type: ignore[union-attr]
        with socket.socket(fileno=os.dup(descriptor)) as shared:
            shared.shutdown(socket.SHUT_RDWR)
    except gone as error:
        events.log(logging.INFO, "connection not cut", kind=type(error).__name__)


# ---- whose fault ----------------------------------------------------------------------------


def is_away(error: Exception) -> bool:
    """Whether the database, not the row, is why a commit failed."""
    if isinstance(error, PoolExhausted):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error, ProgrammingError):  # rights or tables are lacking: the server says so
        return getattr(error.orig, "sqlstate", None) is not None
    return not isinstance(error, IntegrityError | DataError | InterfaceError)


def _is_lost(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _passes(error: Exception) -> bool:
    """Whether the same may succeed at once: on a new connection, after another transaction, or with
    a patient's data key looked up again because another process destroyed it."""
    orig = error.orig if isinstance(error, DBAPIError) else None
    if _is_lost(error) or isinstance(error, IntegrityError):
        return True
    return getattr(orig, "sqlstate", None) in _PASSES


def _kind(error: Exception) -> str:
    """A failure in one word, the driver's own where there is one: DiskFull, DeadlockDetected."""
    orig = error.orig if isinstance(error, DBAPIError) else None
    return type(orig or error).__name__


def not_durable(kind: str) -> NotDurable:
    """The error of a commit that failed, by its type alone: its text holds the row."""
    return NotDurable(f"the prediction log did not commit ({kind})")
