"""Writes as records of the spool, and back: nothing but data, the same as was to be stored.

Only writes that may be done twice are here: each knows its row again by an id made beforehand.
Called by `backlog.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
import structlog
from sqlalchemy import DateTime, LargeBinary, String, Table

from cds_service.db.audit import AddAudit, AuditEntry
from cds_service.db.claims import Claim
from cds_service.db.feedback import AddFeedback
from cds_service.db.store import ClaimToken, StorePrediction, keep_as_sent
from cds_service.db.tables import (
    audit_entries,
    feedback,
    prediction_payloads,
    predictions,
    undelivered,
)
from cds_service.db.transaction import Transaction, Write
from cds_service.db.undelivered import NoteUndelivered
from cds_service.errors import NotAuthenticated

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.spool")
Row = dict[str, Any]


class _Prediction(msgspec.Struct, frozen=True, tag="prediction"):
    at: float
    row: Row
    claim: Claim | None


class _Token(msgspec.Struct, frozen=True, tag="token"):
    at: float
    claim: Claim


class _Undelivered(msgspec.Struct, frozen=True, tag="undelivered"):
    at: float
    row: Row


class _Feedback(msgspec.Struct, frozen=True, tag="feedback"):
    at: float
    rows: list[Row]
    claim: Claim | None


class _Audit(msgspec.Struct, frozen=True, tag="audit"):
    at: float
    id: str
    entry: AuditEntry
    done_at: datetime


_Record = _Prediction | _Token | _Undelivered | _Feedback | _Audit
_DECODER = msgspec.msgpack.Decoder(_Record)
_LATER = frozenset({"chain_day", "chain_writer", "chain_sequence", "commitment", "link", "salt"})
"""Columns a row gets when it is stored."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A write as it stood in the spool, since when (seconds since 1970)."""

    write: StorePrediction | ClaimToken | NoteUndelivered | AddFeedback | AddAudit
    at: float


class Unfit(Exception):
    """The write cannot be kept for later: the database would not take it, or may not twice."""


def encoded(write: Write[Any]) -> bytes:
    """The record of a write, as of now. Raises Unfit, naming columns, never values."""
    record = _record(write, time.time())
    for table, row in _rows_of(record):
        fault = _fault_of(table, row)
        if fault:
            raise Unfit(fault)
    try:
        return msgspec.msgpack.encode(record)
    except (TypeError, ValueError, OverflowError) as error:  # UnicodeEncodeError is a ValueError
        raise Unfit(type(error).__name__) from None


def _record(write: Write[Any], at: float) -> _Record:
    match write:
        case StorePrediction(row, claim):
            return _Prediction(at, row, claim)
        case ClaimToken(claim):
            return _Token(at, claim)
        case NoteUndelivered(row):
            return _Undelivered(at, row)
        case AddFeedback(rows, claim):
            return _Feedback(at, list(rows), claim)
        case AddAudit(entry_id, entry, done_at):
            return _Audit(at, entry_id, entry, done_at)
    raise Unfit(type(write).__name__)


def decoded(content: bytes) -> Spooled:
    """The write of a record. Raises msgspec.ValidationError where it is of another version."""
    match _DECODER.decode(content):
        case _Prediction(at, row, claim):
            return Spooled(StorePrediction(row, claim), at)
        case _Token(at, claim):
            return Spooled(ClaimToken(claim), at)
        case _Undelivered(at, row):
            return Spooled(NoteUndelivered(row), at)
        case _Feedback(at, rows, claim):
            return Spooled(AddFeedback(rows, claim), at)
        case _Audit(at, entry_id, entry, done_at):
            return Spooled(AddAudit(entry_id, entry, done_at), at)
        case unknown:
            raise msgspec.ValidationError(type(unknown).__name__)


# ---- into the database ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drain:
    """The write of what was answered before it was stored: it refuses nothing any more.

    A token another process took meanwhile for another body is an event, because its answer is out.
    """

    spooled: Spooled

    def __call__(self, tx: Transaction) -> None:
        """Store it, once, however often it is done."""
        match self.spooled.write:
            case StorePrediction(row, claim):
                if claim is not None:
                    _report(ClaimToken(claim)(tx))
                keep_as_sent(tx, row)
            case AddFeedback() as write:
                refused = write(tx)
                _report(refused)
                if refused is not None:
                    replace(write, claim=None)(tx)
            case ClaimToken() as write:
                _report(write(tx))
            case write:
                write(tx)


def _report(refused: NotAuthenticated | None) -> None:
    if refused is not None:
        events.log(logging.ERROR, "token used twice", **refused.for_log)


# ---- what the database will not take --------------------------------------------------------


def _rows_of(record: _Record) -> Iterator[tuple[Table, Mapping[str, Any]]]:
    match record:
        case _Prediction(row=row):
            yield predictions, row
            yield prediction_payloads, row
        case _Undelivered(row=row):
            yield undelivered, row
        case _Feedback(rows=rows):
            yield from ((feedback, row) for row in rows)
        case _Audit(id=entry_id, entry=entry, done_at=at):
            said = {name: getattr(entry, name) for name in entry.__slots__ if name != "details"}
            yield audit_entries, {"id": entry_id, "at": at, **said}


def _fault_of(table: Table, row: Mapping[str, Any]) -> str | None:
    """Which column keeps a row from being stored; None for none."""
    for column in table.columns:
        value = row.get(column.name)
        if column.name in _LATER:
            continue
        if value is None:
            fault = not column.nullable and column.server_default is None
        elif isinstance(column.type, DateTime):
            fault = not isinstance(value, datetime) or value.tzinfo is None
        elif isinstance(column.type, String):
            fault = not isinstance(value, str) or _does_not_fit(column.type, value)
        else:
            fault = isinstance(column.type, LargeBinary) and not isinstance(value, bytes)
        if fault:
            return f"{table.name}.{column.name}"
    return None


def _does_not_fit(kind: String, value: str) -> bool:
    return "\0" in value or (kind.length is not None and len(value) > kind.length)
