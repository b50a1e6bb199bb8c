"""What waits in the spool for the database: answered from it, in order, until all of it is stored.

It is asked as the database is: the same call again finds its answer, a further attempt its number,
a token its body, as far as this process's spool knows; what other replicas hold shows when the
spool is stored. The index is in memory (calls, places, digests), the records stay in the file.
Appended to by the log's writer, emptied by `drain.py`; once a fault is found, nothing is taken.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import structlog

from cds_service.db.claims import Claim
from cds_service.db.commits import Outcome
from cds_service.db.feedback import AddFeedback
from cds_service.db.spooled import Spooled, Unfit, decoded, encoded
from cds_service.db.store import (
    CALL,
    ClaimToken,
    Row,
    Stored,
    StorePrediction,
    as_stored,
    found_before,
)
from cds_service.db.transaction import Write
from cds_service.errors import NotAuthenticated, NotDurable, RequestRefused
from cds_service.spool import Place, Spool, SpoolBroken

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.spool")


class Backlogged(NamedTuple):
    """How many writes wait, since how many seconds the first, and what keeps more from being taken:
    `fault`, "" for nothing; `is_broken`: whether it is there to stay.
    """

    waiting: int
    age_s: float
    fault: str = ""
    is_broken: bool = False


@dataclass(slots=True)
class _Prediction:
    """A prediction in the spool: where, or its row as long as that is not written yet."""

    row: Row | None
    place: Place | None = None


@dataclass(slots=True)
class _Staged:
    """What a group adds, until it is durable."""

    contents: list[bytes] = field(default_factory=list)
    calls: list[tuple[tuple[Any, ...], _Prediction, int]] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)


class Backlog:
    """The spool of one process, known by call and by token. `adopt` before use."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._waiting: list[tuple[Place, float]] = []
        self._stored = 0
        self._calls: dict[tuple[Any, ...], list[_Prediction]] = {}
        self._claims: dict[str, str] = {}
        self._broken = ""
        self._full = ""

    def close(self) -> None:
        """Let go of the files; what waits is stored by whoever takes them over."""
        with self._lock:
            self._spool.close()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is broken, so that writes may go to the database."""
        return not self._waiting and not self._broken

    def state(self) -> Backlogged:
        """How many wait, how long, and what is wrong."""
        with self._lock:
            left = self._waiting[self._stored :]
            age_s = time.time() - left[0][1] if left else 0.0
            fault = self._broken or self._full
            return Backlogged(len(left), max(0.0, age_s), fault, bool(self._broken))

    def adopt(self) -> None:
        """Take over files nobody holds, with all they hold; a broken one ends the taking."""
        with self._lock:
            try:
                for place in self._spool.adopt():
                    self._enter(place, decoded(self._spool.read(place)))
            except (SpoolBroken, msgspec.MsgspecError, OSError) as fault:
                self._break(_said(fault))

    def _enter(self, place: Place, spooled: Spooled) -> None:
        self._waiting.append((place, spooled.at))
        write = spooled.write
        if isinstance(write, StorePrediction):
            self._calls.setdefault(_call(write.row), []).append(_Prediction(None, place))
        claim = _claim_of(write)
        if claim is not None:
            self._claims.setdefault(claim.digest, claim.body_digest)

    # ---- what comes in ----------------------------------------------------------------------

    def take(self, writes: Sequence[Write[Any]]) -> list[Outcome]:
        """What each write gives, all of them durable now; NotDurable where they are not."""
        with self._lock:
            if self._broken:
                return [NotDurable(f"the spool: {self._broken}") for _ in writes]
            staged = _Staged()
            try:
                outcomes = [self._taken(write, staged) for write in writes]
                places = self._spool.append(staged.contents) if staged.contents else []
            except (SpoolBroken, msgspec.MsgspecError) as fault:
                self._break(_said(fault))
                return self._refused(writes, staged)
            except OSError as error:
                self._full = f"the spool cannot be written to ({error.strerror})"
                events.log(logging.ERROR, "spool not written", kind=error.strerror)
                return self._refused(writes, staged)
            self._full = ""
            self._keep(staged, places)
            return outcomes

    def _taken(self, write: Write[Any], staged: _Staged) -> Outcome:
        refused = self._refused_claim(_claim_of(write))
        if refused is not None:
            return refused
        if isinstance(write, StorePrediction):
            key = _call(write.row)
            known = self._calls.get(key, [])
            before = [self._row(one, number) for number, one in enumerate(known)]
            found = found_before(before, write.row) if before else None
            if found is not None:
                return (
                    found
                    if isinstance(found, RequestRefused)
                    else self._with_claim(found, write.claim, staged)
                )
        try:
            staged.contents.append(encoded(write))
        except Unfit as unfit:
            return NotDurable(f"the prediction log takes no such row ({unfit})")
        claim = _claim_of(write)
        if claim is not None and claim.digest not in self._claims:
            self._claims[claim.digest] = claim.body_digest
            staged.claims.append(claim.digest)
        if not isinstance(write, StorePrediction):
            return None
        entry = _Prediction(write.row)
        self._calls.setdefault(key, []).append(entry)
        staged.calls.append((key, entry, len(staged.contents) - 1))
        return as_stored(write.row | {"attempt": len(before)})

    def _with_claim(self, found: Stored, claim: Claim | None, staged: _Staged) -> Stored:
        """An answer found again, its token claimed all the same."""
        if claim is not None and claim.digest not in self._claims:
            self._claims[claim.digest] = claim.body_digest
            staged.claims.append(claim.digest)
            staged.contents.append(encoded(ClaimToken(claim)))
        return found

    def _refused_claim(self, claim: Claim | None) -> NotAuthenticated | None:
        held = self._claims.get(claim.digest) if claim else None
        if claim is None or held is None or hmac.compare_digest(held, claim.body_digest):
            return None
        return NotAuthenticated("used for another body", issuer=claim.issuer, jti=claim.jti)

    def _row(self, one: _Prediction, attempt: int) -> Row:
        row = one.row
        if row is None:
            assert one.place is not None  # noqa: S101 - durable, or it would have its row
            write = decoded(self._spool.read(one.place)).write
            assert isinstance(write, StorePrediction)  # noqa: S101 - indexed as one
            row = write.row
        return row | {"attempt": attempt}

    def _keep(self, staged: _Staged, places: list[Place]) -> None:
        now = time.time()
        self._waiting += [(place, now) for place in places]
        for _, entry, number in staged.calls:
            entry.row, entry.place = None, places[number]

    def _refused(self, writes: Sequence[Write[Any]], staged: _Staged) -> list[Outcome]:
        """Take back what a group added in memory: it is not durable."""
        for key, entry, _ in staged.calls:
            self._calls[key].remove(entry)
        for digest in staged.claims:
            del self._claims[digest]
        fault = self._broken or self._full
        return [NotDurable(f"neither the database nor the spool took it: {fault}") for _ in writes]

    # ---- what goes out ----------------------------------------------------------------------

    def next(self, most: int) -> list[Spooled]:
        """The next writes to store, in order; none where nothing waits or the spool is broken."""
        with self._lock:
            places = [place for place, _ in self._waiting[self._stored : self._stored + most]]
        try:
            return [decoded(self._spool.read(place)) for place in places]
        except (SpoolBroken, msgspec.MsgspecError, OSError) as fault:
            self._break(_said(fault))
            return []

    def stored(self, count: int) -> bool:
        """Move on by so many; True where all are stored now and the files are gone."""
        with self._lock:
            self._stored += count
            if self._broken or self._stored < len(self._waiting):
                return False
            self._clear()
            self._waiting, self._stored = [], 0
            self._calls, self._claims = {}, {}
            self._full = ""
            return True

    def refuse(self, why: str) -> None:
        """Stop at the next record: the database takes it never, `why` in a word."""
        with self._lock:
            place = self._waiting[self._stored][0]
            where = f"{place.file.path.name}: record {place.sequence}"
            self._break(f"{where} is refused by the database ({why})")

    def look_for_room(self) -> None:
        """See whether a disk that was full takes more now."""
        with self._lock:
            if self._full and self._spool.has_room():
                self._full = ""
                if not self._waiting:
                    self._clear()

    def _clear(self) -> None:
        try:
            self._spool.clear()
        except OSError as error:
            self._break(f"a file cannot be removed ({error.strerror})")

    def _break(self, fault: str) -> None:
        self._broken = fault
        events.log(logging.ERROR, "spool broken", message=fault)


def _said(fault: Exception) -> str:
    """A fault in words; of what a record holds, nothing."""
    if isinstance(fault, SpoolBroken):
        return str(fault)
    return f"a record cannot be read ({type(fault).__name__})"


def _call(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in CALL)


def _claim_of(write: Write[Any]) -> Claim | None:
    if isinstance(write, StorePrediction | ClaimToken | AddFeedback):
        return write.claim
    return None
