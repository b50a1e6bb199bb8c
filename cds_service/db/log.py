"""The prediction log: its SQL, and the writer that commits in groups.

A prediction is durable when `store` returns: SQLite in WAL mode with `synchronous=FULL`. One thread
per process writes; the rows of calls that arrive together share one commit. The same call again
(organisation, service, hook, hookInstance), asked of the same version in the same state and mode,
finds its stored row instead of making a second one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, RowMapping, Select, create_engine, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from cds_service.db.tables import predictions
from cds_service.errors import AlreadyUsed, LogUnavailable, NotDurable, SetupError

Row = dict[str, Any]
_INSERT: dict[str, Any] = {
    "sqlite": sqlite.insert(predictions).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(predictions).on_conflict_do_nothing(),
}
"""One statement for every row, built once."""
_LARGEST_GROUP = 256
_FEW = 4
"""Documents fetched at a time, where the first mostly is the one looked for."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the log holds for a call: the response to send and what came out in words, and whether
    it stood there before.
    """

    response: str
    status: str
    returned: str
    replayed: bool


def open_engine(url: str) -> Engine:
    """An engine for the log's database; SQLite made durable and readable while written to.

    Raises SetupError where the URL is not one, or of a database this software does not speak to.
    """
    try:
        engine = create_engine(url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        fault = type(error).__name__
        raise SetupError(f"VARSEL_DATABASE_URL: not a database to be used ({fault})") from None
    if engine.dialect.name not in _INSERT:
        raise SetupError(f"VARSEL_DATABASE_URL: {engine.dialect.name} is not supported")
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _make_sqlite_durable)
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


class PredictionLog:
    """The log of one database. `start` before use, `stop` when done; usable as a context."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._waiting: queue.SimpleQueue[tuple[Row, Future[Stored]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="prediction-log", daemon=True)

    def start(self) -> Self:
        """Start the writer."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Commit what waits, then end."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- writing ----------------------------------------------------------------------------

    def store(self, row: Row) -> Future[Stored]:
        """A future that ends when the row is durable, or the same call's earlier row was found.

        It raises AlreadyUsed where the hookInstance came before with other content, NotDurable
        where the database did not commit. A future cancelled before its turn leaves no row.
        """
        future: Future[Stored] = Future()
        self._waiting.put((row, future))
        return future

    def _write(self) -> None:
        while True:
            group = [self._waiting.get()]
            while len(group) < _LARGEST_GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            rows = [item for item in group if item is not None]
            # from here on nobody can cancel, so that the answer always finds its future
            awaited = [item for item in rows if item[1].set_running_or_notify_cancel()]
            if awaited:
                self._commit(awaited)
            if len(rows) < len(group):
                return

    def _commit(self, rows: list[tuple[Row, Future[Stored]]]) -> None:
        """Commit a group together; where that fails, each alone, so that one cannot fail others."""
        try:
            with self.engine.begin() as connection:
                outcomes = [_insert(connection, row) for row, _ in rows]
        except Exception as error:  # noqa: BLE001 - a row must not end the writer of all others
            if len(rows) > 1:
                for one in rows:
                    self._commit([one])
            else:
                rows[0][1].set_exception(_not_durable(error))
            return
        for (_, future), outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, AlreadyUsed):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    # ---- reading ----------------------------------------------------------------------------

    def read(self, prediction_id: str) -> RowMapping | None:
        """The row of a prediction; None where there is none. Raises LogUnavailable."""
        query = select(predictions).where(predictions.c.prediction_id == prediction_id)
        found = self._read(query)
        return found[0] if found else None

    def last_shown(self, row: Row, wanted: Callable[[str], bool]) -> str | None:
        """The newest document that is wanted, of those this model sent a card for, beside a row, of
        the patient's same index in the same mode; None where there is none. Raises LogUnavailable.

        `wanted`: a row does not say of what its card was: of a risk, or of an alarm alone.
        """
        same = (
            "organisation", "service", "patient_pseudonym", "index_time", "package_checksum",
            "state", "mode",
        )  # fmt: skip
        query = (
            select(predictions.c.document)
            .where(*(predictions.c[name] == row[name] for name in same))
            .where(predictions.c.status == "scored", predictions.c.returned == "card")
            .where(predictions.c.prediction_id != row["prediction_id"])
            .order_by(predictions.c.computed_at.desc())
        )
        try:
            with self.engine.connect().execution_options(yield_per=_FEW) as connection:
                return next(filter(wanted, connection.execute(query).scalars()), None)
        except SQLAlchemyError as error:
            raise _unreadable(error) from None

    def features_since(self, model_id: str, version: str, since: datetime) -> list[RowMapping]:
        """Features and documents of what a version scored from a time on, oldest first."""
        query = (
            select(
                predictions.c.features,
                predictions.c.document,
                predictions.c.patient_pseudonym,
            )
            .where(predictions.c.model_id == model_id, predictions.c.as_of >= since)
            .where(predictions.c.model_version == version, predictions.c.status == "scored")
            .order_by(predictions.c.as_of)
        )
        return self._read(query)

    def ping(self) -> None:
        """Raise LogUnavailable where the database does not answer."""
        self._read(select(predictions.c.prediction_id).limit(1))

    def _read(self, query: Select[Any]) -> list[RowMapping]:
        try:
            with self.engine.connect() as connection:
                return list(connection.execute(query).mappings().all())
        except SQLAlchemyError as error:
            raise _unreadable(error) from None


def _unreadable(error: SQLAlchemyError) -> LogUnavailable:
    """The error without the statement, which holds ids."""
    return LogUnavailable(f"the prediction log cannot be read ({type(error).__name__})")


def _not_durable(error: Exception) -> NotDurable:
    """The error without the statement's parameters, which hold the row."""
    return NotDurable(f"the prediction log did not commit ({type(error).__name__})")


def _insert(connection: Connection, row: Row) -> Stored | AlreadyUsed:
    made = connection.execute(_INSERT[connection.dialect.name], row)
    if made.rowcount:
        return Stored(row["response"], row["status"], row["returned"], replayed=False)
    c = predictions.c
    earlier = connection.execute(
        select(c.response, c.status, c.returned, c.content_digest).where(
            c.organisation == row["organisation"],
            c.service == row["service"],
            c.hook == row["hook"],
            c.hook_instance == row["hook_instance"],
            c.package_checksum == row["package_checksum"],
            c.state == row["state"],
            c.mode == row["mode"],
        )
    ).one()
    if earlier.content_digest != row["content_digest"]:
        return AlreadyUsed("this hookInstance came before with other content", "hookInstance")
    return Stored(earlier.response, earlier.status, earlier.returned, replayed=True)
