"""The prediction log: its SQL, and the writer that commits in groups.

A prediction is durable when `store` returns: SQLite in WAL mode with `synchronous=FULL`. One thread
per process writes; what arrives together shares one commit, feedback too (`db/feedback.py`).

A call is known by organisation, service, hook and hookInstance, asked of the same version in the
same state and mode. Again with the same content, it finds its stored row instead of making a second
one; on other data under the same context it is a further attempt, linked to the first; with another
context it is refused.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    RowMapping,
    Select,
    create_engine,
    event,
    exists,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from cds_service.db.claims import Claim, refused_claim
from cds_service.db.tables import predictions, undelivered
from cds_service.errors import (
    AlreadyUsed,
    LogUnavailable,
    NotDurable,
    RequestRefused,
    SetupError,
)

Row = dict[str, Any]
Result = TypeVar("Result")
Write = Callable[[Connection], Result | RequestRefused]
"""What is done within a commit. It may be done a second time, alone, where a group failed; it gives
a refusal back instead of raising it, so that it does not take the group with it."""
_INSERT: dict[str, Any] = {
    "sqlite": sqlite.insert(predictions).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(predictions).on_conflict_do_nothing(),
}
"""One statement for every row, built once."""
_LARGEST_GROUP = 256
_FEW = 4
"""Documents fetched at a time, where the first mostly is the one looked for."""
MOST_ATTEMPTS = 32
"""Answers to one call on other data: no record sends that many, and each is looked through."""
_CALL = (
    "organisation", "service", "hook", "hook_instance", "package_checksum", "state", "mode",
)  # fmt: skip
"""What a call is known by; with the attempt it is unique."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the log holds for a call: the prediction and its response to send, what came out in
    words, which attempt it is (0 for the first), and whether it stood there before.
    """

    prediction_id: str
    response: str
    status: str
    returned: str
    replayed: bool
    attempt: int = 0


class _Waiting(NamedTuple):
    """A write that waits for its commit, and who waits for its result."""

    write: Write[Any]
    future: Future[Any]


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
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
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

    def store(self, row: Row, claim: Claim | None = None) -> Future[Stored]:
        """A future that ends when the row is durable, or the same call's earlier row was found.

        It raises AlreadyUsed where the hookInstance came before with another context, NotDurable
        where the database did not commit. A future cancelled before its turn leaves no row.
        `claim`: of the token that came with the call, made in the same commit; NotAuthenticated,
        and no row, where the token was used for another body.
        """
        if claim is None:
            return self.commit(partial(_insert, row=row))
        return self.commit(partial(_insert_claimed, row=row, claim=claim))

    def claim(self, claim: Claim) -> Future[None]:
        """A future that ends when a token is claimed; NotAuthenticated as `store` raises it."""
        return self.commit(partial(refused_claim, claim=claim))

    def commit(self, write: Write[Result]) -> Future[Result]:
        """A future of what `write` gives, ended when it is durable: the next commit does it.

        It raises what `write` refuses with, NotDurable where the database did not commit.
        """
        future: Future[Result] = Future()
        self._waiting.put(_Waiting(write, future))
        return future

    def _write(self) -> None:
        while True:
            group = [self._waiting.get()]
            while len(group) < _LARGEST_GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            writes = [item for item in group if item is not None]
            # from here on nobody can cancel, so that the answer always finds its future
            awaited = [item for item in writes if item.future.set_running_or_notify_cancel()]
            if awaited:
                self._commit(awaited)
            if len(writes) < len(group):
                return

    def _commit(self, group: list[_Waiting]) -> None:
        """Commit a group together; where that fails, each alone, so that one cannot fail others."""
        try:
            with self.engine.begin() as connection:
                results = [write(connection) for write, _ in group]
        except Exception as error:  # noqa: BLE001 - a row must not end the writer of all others
            if len(group) > 1:
                for one in group:
                    self._commit([one])
            else:
                group[0].future.set_exception(_not_durable(error))
            return
        for (_, future), result in zip(group, results, strict=True):
            if isinstance(result, RequestRefused):
                future.set_exception(result)
            else:
                future.set_result(result)

    # ---- reading ----------------------------------------------------------------------------

    def read(self, prediction_id: str) -> RowMapping | None:
        """The row of a prediction; None where there is none. Raises LogUnavailable."""
        query = select(predictions).where(predictions.c.prediction_id == prediction_id)
        found = self._read(query)
        return found[0] if found else None

    def last_shown(self, row: Row, wanted: Callable[[str], bool]) -> str | None:
        """The newest document that is wanted, of those this model sent a card for, of the patient's
        same index in the same mode; None where there is none. Raises LogUnavailable.

        Left out are the row's own call, which may be asking again because its answer was lost, and
        answers that did not reach their caller. `wanted`: a row does not say of what its card was:
        of a risk, or of an alarm alone.
        """
        same = (
            "organisation", "service", "patient_pseudonym", "index_time", "package_checksum",
            "state", "mode",
        )  # fmt: skip
        query = (
            select(predictions.c.document)
            .where(*(predictions.c[name] == row[name] for name in same))
            .where(predictions.c.status == "scored", predictions.c.returned == "card")
            .where(predictions.c.hook_instance != row["hook_instance"])
            .where(~exists().where(undelivered.c.prediction_id == predictions.c.prediction_id))
            .order_by(predictions.c.computed_at.desc())
        )
        try:
            with self.engine.connect().execution_options(yield_per=_FEW) as connection:
                return next(filter(wanted, connection.execute(query).scalars()), None)
        except SQLAlchemyError as error:
            raise unreadable(error) from None

    def features_since(self, model_id: str, version: str, since: datetime) -> list[RowMapping]:
        """Features and documents of what a version scored from a time on, oldest first.

        One row a call: of several attempts the last, so that asking often does not count often.
        """
        c = predictions.c
        query = (
            select(
                c.features,
                c.document,
                c.patient_pseudonym,
                func.coalesce(c.attempt_of, c.prediction_id).label("call"),
            )
            .where(c.model_id == model_id, c.as_of >= since)
            .where(c.model_version == version, c.status == "scored")
            .order_by(c.as_of, c.attempt)
        )
        return list({row["call"]: row for row in self._read(query)}.values())

    def ping(self) -> None:
        """Raise LogUnavailable where the database does not answer."""
        self._read(select(predictions.c.prediction_id).limit(1))

    def _read(self, query: Select[Any]) -> list[RowMapping]:
        try:
            with self.engine.connect() as connection:
                return list(connection.execute(query).mappings().all())
        except SQLAlchemyError as error:
            raise unreadable(error) from None


def unreadable(error: SQLAlchemyError) -> LogUnavailable:
    """The error without the statement, which holds ids."""
    return LogUnavailable(f"the prediction log cannot be read ({type(error).__name__})")


def _not_durable(error: Exception) -> NotDurable:
    """The error without the statement's parameters, which hold the row."""
    return NotDurable(f"the prediction log did not commit ({type(error).__name__})")


# ---- the same call again --------------------------------------------------------------------


def _insert_claimed(connection: Connection, row: Row, claim: Claim) -> Stored | RequestRefused:
    refused = refused_claim(connection, claim)
    return _insert(connection, row) if refused is None else refused


def _insert(connection: Connection, row: Row) -> Stored | AlreadyUsed:
    """The row, stored; or what the log already holds for the same call."""
    if _inserted(connection, row):
        return _stored(row)
    for _ in range(MOST_ATTEMPTS):
        before = _attempts(connection, row)
        found = _found(before, row)
        if found is not None:
            return found
        first, last = before[0], before[-1]
        further = row | {
            "attempt": last["attempt"] + 1,
            "attempt_of": first["prediction_id"],
        }
        if _inserted(connection, further):
            return _stored(further)
        # another process took that attempt: look again
    raise NotDurable("other processes kept answering the same call")


def _inserted(connection: Connection, row: Row) -> bool:
    return bool(connection.execute(_INSERT[connection.dialect.name], row).rowcount)


def _attempts(connection: Connection, row: Row) -> Sequence[RowMapping]:
    """Every answer there is to a call, the first one first."""
    c = predictions.c
    query = (
        select(
            c.prediction_id, c.attempt, c.content_digest, c.context_digest, c.response, c.status,
            c.returned,
        )
        .where(*(c[name] == row[name] for name in _CALL))
        .order_by(c.attempt)
    )  # fmt: skip
    return connection.execute(query).mappings().all()


def _found(before: Sequence[RowMapping], row: Row) -> Stored | AlreadyUsed | None:
    """The answer to the same call, or why there can be none; None where it has other data.

    Of rows older than the context's digest it is not known what they asked about: only the same
    content is the same call.
    """
    for earlier in before:
        if earlier["content_digest"] == row["content_digest"]:
            return _stored(earlier, replayed=True)
    if any(earlier["context_digest"] != row["context_digest"] for earlier in before):
        return AlreadyUsed("this hookInstance came before with another context", "hookInstance")
    if len(before) >= MOST_ATTEMPTS:
        return AlreadyUsed("this hookInstance came too often with other data", "hookInstance")
    return None


def _stored(row: Row | RowMapping, *, replayed: bool = False) -> Stored:
    return Stored(
        prediction_id=row["prediction_id"],
        response=row["response"],
        status=row["status"],
        returned=row["returned"],
        attempt=row.get("attempt", 0),
        replayed=replayed,
    )
