"""The chains of the log as they are read to be verified and sealed: SQL, streamed.

All that is asked of one snapshot belongs together, although the log is written to meanwhile. Rows
come one after the other, by their place, a few hundred in memory at a time. Called by
`cli/log.py`; what the rows show is said by `verification.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.reader import OF_PREDICTION, unreadable
from cds_service.db.tables import (
    audit_entries,
    erasures,
    prediction_payloads,
    predictions,
    vault_entries,
    vault_keys,
)
from cds_service.errors import LogUnavailable
from cds_service.evidence.verification import ChainName, Erasure, Row
from cds_service.evidence.verification import Table as Named

_PAGE = 500
"""Rows held in memory at a time."""
_ERASED = ("erase", "replay erase", "retention")
_DESTROYED = ("destroy", "replay destroy")
"""What the audit trail calls what took content or keys away; its details name the decision."""
_CHAINED = (predictions, audit_entries)


class _Deed(msgspec.Struct):
    """What an entry about a decision tells of it."""

    decision: str
    predictions: int = 0
    before: datetime | None = None


_DEEDS = msgspec.json.Decoder(_Deed)


class Span(NamedTuple):
    """Which chains: from a day on, to a day (both included), of one organisation; None for all."""

    first: date | None = None
    last: date | None = None
    organisation: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole log."""
        return self == Span()


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that sees the log as it is now, whatever is written; it writes nothing.

    Raises LogUnavailable, also from what is read within.
    """
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            yield connection
    except SQLAlchemyError as error:
        raise unreadable(error) from None


def chains_of(connection: Connection, span: Span) -> list[ChainName]:
    """The chains there are, oldest day first."""
    found = {
        ChainName(*row)
        for table in _CHAINED
        for row in _stream(connection, _chains(table, span), str(table.name))
    }
    return sorted(found, key=lambda one: (one.day, one.organisation, one.writer))


def rows_of(connection: Connection, name: ChainName, *, identities: bool = False) -> Iterator[Row]:
    """The rows of a chain by their place, predictions and audit entries together.

    `identities`: with what the vault is opened by.
    """
    return heapq.merge(
        _predictions(connection, name, identities=identities),
        _rows(connection, _OF_AUDIT, name),
        key=attrgetter("sequence"),
    )


def erasures_of(connection: Connection) -> Callable[[str], Erasure | None]:
    """The decision an id is of, and what the audit trail says it took; None where there is none.

    The last one asked about is remembered: what was erased together mostly stands together.
    """
    last: dict[str, Erasure | None] = {}

    def find(erasure_id: str) -> Erasure | None:
        if erasure_id not in last:
            last.clear()
            last[erasure_id] = _erasure(connection, erasure_id)
        return last[erasure_id]

    return find


def keys_destroyed_at(connection: Connection, organisation: str) -> datetime | None:
    """When data keys of an organisation were last destroyed by a decision the audit trail knows;
    None where they never were.
    """
    c = erasures.c
    query = (
        select(c.id, c.at)
        .where(c.organisation == organisation, c.decision == "destroyed")
        .order_by(c.at.desc())
    )
    for decision_id, at in connection.execute(query):
        if _deeds(connection, decision_id, (organisation, at), _DESTROYED):
            return at  # type: ignore[no-any-return]  # a column of moments
    return None


# ---- rows without a place -----------------------------------------------------------------------


def older_than_chains(connection: Connection, since: datetime | None) -> int:
    """How many predictions without a place in a chain are older than the first that has one."""
    query = select(func.count()).select_from(predictions).where(_has_no_place(predictions))
    if since is not None:
        query = query.where(predictions.c.computed_at < since)
    return int(connection.execute(query).scalar_one())


def without_place(connection: Connection, since: datetime | None) -> Iterator[tuple[Named, str]]:
    """Table and id of rows that have no place in a chain, though they are newer than the first."""
    if since is not None:
        query = select(predictions.c.prediction_id).where(
            _has_no_place(predictions), predictions.c.computed_at >= since
        )
        for row in _stream(connection, query, "predictions"):
            yield "predictions", row[0]
    for row in _stream(
        connection, select(audit_entries.c.id).where(_has_no_place(audit_entries)), "audit_entries"
    ):
        yield "audit_entries", row[0]


def first_chained(connection: Connection) -> datetime | None:
    """When the first row of the first day with a chain was made; None where there is no chain."""
    found = []
    for table, at in (
        (predictions, predictions.c.computed_at),
        (audit_entries, audit_entries.c.at),
    ):
        first_day = select(func.min(table.c.chain_day)).scalar_subquery()
        query = select(func.min(at)).where(table.c.chain_day == first_day)
        found += [m for m in connection.execute(query).scalars() if m is not None]
    return min(found, default=None)


def orphans(connection: Connection) -> Iterator[tuple[str, str]]:
    """Table and id of payloads and entries in the vault whose prediction is not there; of payloads,
    not with their time of computation.
    """
    of_entry = predictions.c.prediction_id == vault_entries.c.prediction_id
    for table, its_own in ((prediction_payloads, OF_PREDICTION), (vault_entries, of_entry)):
        has_prediction = exists(select(predictions.c.prediction_id).where(its_own).correlate(table))
        query = select(table.c.prediction_id).where(~has_prediction)
        for row in _stream(connection, query, str(table.name)):
            yield str(table.name), row[0]


# ---- queries --------------------------------------------------------------------------------


def _chains(table: Table, span: Span) -> Select[Any]:
    c = table.c
    query = (
        select(c.organisation, c.chain_day, c.chain_writer).where(~_has_no_place(table)).distinct()
    )
    if span.first is not None:
        query = query.where(c.chain_day >= span.first)
    if span.last is not None:
        query = query.where(c.chain_day <= span.last)
    if span.organisation is not None:
        query = query.where(c.organisation == span.organisation)
    return query


def _has_no_place(table: Table) -> ColumnElement[bool]:
    c = table.c
    return or_(c.chain_day.is_(None), c.chain_writer.is_(None), c.chain_sequence.is_(None))


_OF_PAYLOAD = ("salt", "features", "document", "response", "timings")
_COMMITTED = (
    select(predictions, *(prediction_payloads.c[n] for n in _OF_PAYLOAD), vault_entries.c.sealed)
    .outerjoin(prediction_payloads, OF_PREDICTION)
    .outerjoin(vault_entries, predictions.c.prediction_id == vault_entries.c.prediction_id)
)
_WITH_KEYS = _COMMITTED.outerjoin(
    vault_keys, vault_entries.c.key_id == vault_keys.c.id
).add_columns(
    vault_entries.c.key_id,
    vault_keys.c.wrapped,
    vault_keys.c.seal_key,
    vault_keys.c.patient_pseudonym.label("key_patient"),
    vault_keys.c.pseudonym_key.label("key_pseudonym_key"),
)


class _OfChain(NamedTuple):
    """How the rows of a table in a chain are asked for, built once for all chains: the query with
    the chain's name for parameters, its first page alone, the columns it gives, which of them is
    the row's id."""

    table: Named
    query: Select[Any]
    first_page: Select[Any]
    columns: tuple[str, ...]
    row_id: str


def _of_chain(query: Select[Any], table: Table) -> _OfChain:
    c = table.c
    of_it = and_(
        c.organisation == bindparam("in_organisation"),
        c.chain_day == bindparam("of_day"),
        c.chain_writer == bindparam("by_writer"),
        c.chain_sequence.is_not(None),
    )
    query = query.where(of_it).order_by(c.chain_sequence)
    columns = tuple(column.name for column in query.selected_columns)
    if table is predictions:
        return _OfChain("predictions", query, query.limit(_PAGE), columns, "prediction_id")
    return _OfChain("audit_entries", query, query.limit(_PAGE), columns, "id")


_OF_PREDICTIONS = _of_chain(_COMMITTED, predictions)
_OF_PREDICTIONS_WITH_KEYS = _of_chain(_WITH_KEYS, predictions)
_OF_AUDIT = _of_chain(select(audit_entries), audit_entries)


def _predictions(connection: Connection, name: ChainName, *, identities: bool) -> Iterator[Row]:
    asked = _OF_PREDICTIONS_WITH_KEYS if identities else _OF_PREDICTIONS
    for row in _rows(connection, asked, name):
        if row.said["document"] is None and row.said["erasure"] is None:
            # its payload may be there, under another time
            yield row._replace(
                said={**row.said} | {"is_elsewhere": _has_payload(connection, row.id)}
            )
        else:
            yield row


def _rows(connection: Connection, asked: _OfChain, name: ChainName) -> Iterator[Row]:
    """The rows of one table in a chain, by their place."""
    for found in _few_or_streamed(connection, asked, name):
        said = dict(zip(asked.columns, found, strict=True))
        own_id, commits = said[asked.row_id], (said["commitment"], said["link"])
        yield Row(name, said["chain_sequence"], asked.table, own_id, *commits, said)


def _few_or_streamed(connection: Connection, asked: _OfChain, name: ChainName) -> Iterator[Any]:
    """What is asked of a chain, at once where it is less than a page: most chains are short, and
    PostgreSQL plans a cursor anew every time.
    """
    place = dict(zip(("in_organisation", "of_day", "by_writer"), name, strict=True))
    with _readable(f"chain {name}"):
        few = connection.execute(asked.first_page, place).all()
    if len(few) < _PAGE:
        return iter(few)
    return _stream(connection, asked.query, f"chain {name}", place)


def _has_payload(connection: Connection, prediction_id: str) -> bool:
    query = select(exists().where(prediction_payloads.c.prediction_id == prediction_id))
    return bool(connection.execute(query).scalar())


def _erasure(connection: Connection, erasure_id: str) -> Erasure | None:
    c = erasures.c
    query = select(c.organisation, c.decision, c.at).where(c.id == erasure_id)
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    organisation, decision, at = found
    deeds = _deeds(connection, erasure_id, (organisation, at), _ERASED)
    taken = sum(deed.predictions for deed in deeds) if deeds else None
    limits = [deed.before for deed in deeds if deed.before is not None]
    return Erasure(organisation, decision, taken, max(limits, default=None))


def _deeds(
    connection: Connection, decision_id: str, since: tuple[str, datetime], words: tuple[str, ...]
) -> list[_Deed]:
    """What the entries of an organisation since a time tell of a decision, in so many words."""
    a = audit_entries.c
    named = a.details.contains(f'"decision":"{decision_id}"', autoescape=True)
    query = select(a.details).where(
        a.organisation == since[0], a.at >= since[1], a.what.in_(words), named
    )
    told = (_told(details) for details in connection.execute(query).scalars())
    return [deed for deed in told if deed is not None and deed.decision == decision_id]


def _told(details: str) -> _Deed | None:
    """What an entry tells; None where it was changed to tell nothing, which its chain shows."""
    try:
        return _DEEDS.decode(details)
    except msgspec.DecodeError:
        return None


def _stream(
    connection: Connection,
    query: Select[Any],
    where: str,
    parameters: Mapping[str, Any] | None = None,
) -> Iterator[Any]:
    """The rows of a query, a page in memory at a time.

    Raises LogUnavailable.
    """
    with _readable(where):
        yield from connection.execute(query, parameters, execution_options={"yield_per": _PAGE})


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Raises LogUnavailable where a column holds what its type cannot, as SQLite lets it be
    changed."""
    try:
        yield
    except (ValueError, TypeError) as error:
        fault = f"{where}: a row holds what its columns cannot ({type(error).__name__})"
        raise LogUnavailable(fault) from None
