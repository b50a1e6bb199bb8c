"""Whether the log is as it was written: chains followed link by link, rows held against what was
committed to. Pure: rows come in, findings come out.

Reading rows is `db/chains.py`, what was sealed of a day `manifests.py`; `cli/log.py` puts them
together. docs/tamper-evidence.md says what is found, and what cannot be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Literal, NamedTuple

from cds_service.errors import Erased, SealBroken
from cds_service.evidence import chain
from cds_service.identities.privacy import Privacy

Table = Literal["predictions", "audit_entries"]
Fault = Literal["changed", "removed", "inserted", "moved", "identity", "manifest"]
MOST_KEPT = 1000
"""Findings that are kept and told; further ones are only counted."""
MOST_STRAYS = 200
"""Rows out of place, and places without their row, that are held against each other."""


class ChainName(NamedTuple):
    """Which chain: of which organisation, day (UTC) and writing process."""

    organisation: str
    day: date
    writer: str

    def __str__(self) -> str:
        return f"{self.organisation} {self.day} {self.writer}"


class Row(NamedTuple):
    """A row in a chain: where it says it stands, and what it says, with its salt."""

    chain: ChainName
    sequence: int
    table: Table
    id: str
    commitment: bytes | None
    link: bytes | None
    said: Mapping[str, Any]


class Finding(NamedTuple):
    """Something that is not as it was written, with the row or the place it is about."""

    fault: Fault
    says: str
    chain: ChainName | None = None
    sequence: int | None = None
    table: str | None = None
    id: str | None = None


class Erasure(NamedTuple):
    """A decision that took content away, and what the audit trail says of it.

    `taken`: how many predictions it took, None where the trail does not know of it. `before`: it
    took only what was computed before; None where it was not limited so.
    """

    organisation: str
    decision: str
    taken: int | None
    before: datetime | None


class Walked(NamedTuple):
    """A chain to its end: links, the last of them, and how many rows of each kind."""

    links: int
    last_link: bytes
    predictions: int
    audit_entries: int


class _Lost(NamedTuple):
    """Places whose rows are not there: the first one, how many, and the link before them."""

    chain: ChainName
    first: int
    number: int
    before: bytes | None
    is_occupied: bool = False

    @property
    def last(self) -> int:
        """The last of the places."""
        return self.first + self.number - 1

    def is_home_of(self, row: Row) -> bool:
        """Whether a row belongs to the first of the places."""
        return bool(self.number and self.before and follows(self.before, row))


class _Stray(NamedTuple):
    """A row that does not follow what stands before it, and the fault it is if it fits nowhere.

    `after`: the gap it stands behind, if it does; such a row is at fault only if it fits elsewhere.
    """

    row: Row
    fault: Fault
    says: str
    after: _Lost | None = None


class Examination:
    """The whole log or some days of it: give it chain after chain, then ask what was found.

    `erasure_of`: the decision of an id, None where there is none. Holds counts and what is wrong,
    never what was read.
    """

    def __init__(self, erasure_of: Callable[[str], Erasure | None]) -> None:
        self._erasure_of = erasure_of
        self._findings: list[Finding] = []
        self._lost: list[_Lost] = []
        self._strays: list[_Stray] = []
        self._taken_by: Counter[str] = Counter()
        self.chains = self.predictions = self.audit_entries = self.erased = self.more = 0

    def add(self, finding: Finding) -> None:
        """Keep a finding, or count it where there are too many."""
        if len(self._findings) < MOST_KEPT:
            self._findings.append(finding)
        else:
            self.more += 1

    def follow(self, name: ChainName, rows: Iterable[Row]) -> Walked:
        """Follow a chain whose rows come by their place."""
        walk = _Walk(name, self)
        predictions = audit_entries = 0
        for row in rows:
            if row.table == "predictions":
                predictions += 1
            else:
                audit_entries += 1
            walk.step(row, is_faulty=self._has_fault(row))
        walk.end()
        self.chains += 1
        self.predictions += predictions
        self.audit_entries += audit_entries
        return Walked(walk.links, walk.last_link, predictions, audit_entries)

    def findings(self) -> list[Finding]:
        """All that is wrong, and where a row that is out of place belongs."""
        self._match()
        self._count_taken()
        return self._findings

    # ---- what a row says ------------------------------------------------------------------------

    def _has_fault(self, row: Row) -> bool:
        """Whether a row does not say what was committed to; what was erased says nothing."""
        if row.table == "predictions":
            lacks = _lacking(row.said)
            if lacks:
                return self._has_lost(row, lacks)
            if row.said["erasure"] is not None:
                self._about(row, "changed", "an erasure is named, and nothing was erased")
                return True
        columns = chain.PREDICTION if row.table == "predictions" else chain.AUDIT
        salt = row.said["salt"]
        if salt is None or chain.commitment(columns, row.said, salt) != row.commitment:
            self._about(row, "changed", "it does not say what was committed to")
            return True
        return False

    def _has_lost(self, row: Row, lacks: str) -> bool:
        """Whether what a prediction lacks was taken without a decision."""
        fault = self._unlawful(row)
        if fault is None:
            self.erased += 1
            self._taken_by[row.said["erasure"]] += 1
            return False
        self._about(row, "removed", f"its {lacks} {fault}")
        return True

    def _unlawful(self, row: Row) -> str | None:
        """Why what is missing was not erased lawfully; None where it was."""
        erasure_id = row.said["erasure"]
        if erasure_id is None:
            if row.said.get("is_elsewhere"):
                return "stands under another time: computed_at was changed"
            return "is gone, and no erasure is named"
        erasure = self._erasure_of(erasure_id)
        if erasure is None or erasure.organisation != row.chain.organisation:
            return f"is gone, and there is no erasure {erasure_id}"
        if erasure.decision != "granted":
            return f"is gone, and erasure {erasure_id} was {erasure.decision}"
        if erasure.taken is None:
            return f"is gone, and erasure {erasure_id} is not in the audit trail"
        if erasure.before is not None and _in_utc(row.said["computed_at"]) >= erasure.before:
            return f"is gone, and erasure {erasure_id} took only what was older"
        return None

    def _count_taken(self) -> None:
        """Find decisions under which more is gone than the audit trail says they took."""
        taken_by, self._taken_by = self._taken_by, Counter()
        for erasure_id, gone in taken_by.items():
            erasure = self._erasure_of(erasure_id)
            taken = (erasure.taken if erasure else None) or 0
            if gone > taken:
                says = f"{gone} predictions are gone under it, the audit trail says it took {taken}"
                self.add(Finding("removed", says, table="erasures", id=erasure_id))

    def _about(self, row: Row, fault: Fault, says: str) -> None:
        self.add(about(row, fault, says))

    # ---- what is out of place -------------------------------------------------------------------

    def lose(self, lost: _Lost) -> None:
        """Remember places without their row."""
        if len(self._lost) < MOST_STRAYS:
            self._lost.append(lost)
        else:
            self.add(_removed(lost))

    def stray(self, stray: _Stray) -> None:
        """Remember a row that does not follow."""
        if len(self._strays) < MOST_STRAYS:
            self._strays.append(stray)
        elif stray.after is None:
            self._about(stray.row, stray.fault, stray.says)

    def stray_after(self, name: ChainName, link: bytes) -> Row | None:
        """A row of the chain that stood too early, whose place is after a link; it is told."""
        for place, stray in enumerate(self._strays):
            row = stray.row
            if row.chain == name and stray.after is None and follows(link, row):
                del self._strays[place]
                self._about(row, "moved", "rows that came before it stand after it")
                return row
        return None

    def _match(self) -> None:
        lost, self._lost = self._lost, []
        strays, self._strays = self._strays, []
        for stray in strays:
            home = next((place for place in lost if place.is_home_of(stray.row)), None)
            if home is None:
                if stray.after is None:
                    self._about(stray.row, stray.fault, stray.says)
                continue
            self._about(stray.row, "moved", f"it belongs to {home.chain}, place {home.first}")
            # of several in a row, the next one follows the one that was found
            rest = home._replace(
                first=home.first + 1, number=home.number - 1, before=stray.row.link
            )
            lost = [rest if p is home else p for p in lost if p is not stray.after]
        for place in lost:
            if place.number and not place.is_occupied:
                self.add(_removed(place))


class _Walk:
    """One chain on its way. A row that does not follow is judged by the one after it."""

    def __init__(self, name: ChainName, found: Examination) -> None:
        self._name = name
        self._found = found
        self._link: bytes | None = chain.first_link(*name)
        self._doubted: tuple[Row, bytes, bool] | None = None
        self.links = 0
        self.last_link = self._link

    def step(self, row: Row, *, is_faulty: bool) -> None:
        """Take the next row; `is_faulty` where it is known already not to say what it did."""
        gap = self._gap_before(row)
        self.links = max(self.links, row.sequence + 1)
        self.last_link = row.link or b""
        if gap:  # what it should follow is not there
            self._found.stray(_Stray(row, "moved", "it stands behind a gap", after=gap))
            self._link = row.link
        elif self._doubted:
            self._settle(row)
        elif self._link is None or follows(self._link, row) or self._returns(row, self._link):
            self._link = row.link
        else:
            self._doubted = (row, self._link, is_faulty)

    def end(self) -> None:
        """There is no further row."""
        self._give_up()

    def _gap_before(self, row: Row) -> _Lost | None:
        number = row.sequence - self.links
        if number <= 0:
            return None
        self._give_up()
        gap = _Lost(self._name, self.links, number, self._link)
        self._found.lose(gap)
        return gap

    def _returns(self, row: Row, link: bytes) -> bool:
        """Whether the row follows one that stood too early."""
        early = self._found.stray_after(self._name, link)
        return early is not None and early.link is not None and follows(early.link, row)

    def _settle(self, after: Row) -> None:
        """Say of the doubted row what the one after it shows."""
        assert self._doubted is not None  # noqa: S101 - asked by who calls
        doubted, before, is_faulty = self._doubted
        self._doubted = None
        self._link = after.link
        own = chain.next_link(before, doubted.commitment or b"")
        if follows(before, after):
            self._found.stray(_Stray(doubted, "inserted", "its link follows nothing"))
        elif (doubted.link and follows(doubted.link, after)) or follows(own, after):
            if not is_faulty:
                self._found.add(about(doubted, "changed", "its commitment or link was changed"))
        else:
            place = _Lost(self._name, doubted.sequence, 1, before, is_occupied=True)
            self._found.lose(place)
            says = "it and what stands after it do not join the chain: changed, or put in its place"
            self._found.stray(_Stray(doubted, "changed", says))

    def _give_up(self) -> None:
        """Nothing shows any more what became of the doubted row."""
        if self._doubted:
            doubted, _, is_faulty = self._doubted
            self._doubted = None
            self._link = doubted.link
            fault: Fault = "changed" if is_faulty else "inserted"
            self._found.stray(_Stray(doubted, fault, "its link does not follow the one before"))


def follows(before: bytes, row: Row) -> bool:
    """Whether a row's link is the one after `before`."""
    return row.commitment is not None and chain.next_link(before, row.commitment) == row.link


def about(row: Row, fault: Fault, says: str) -> Finding:
    """A finding about a row."""
    return Finding(fault, says, row.chain, row.sequence, row.table, row.id)


def _in_utc(moment: datetime) -> datetime:
    """A moment with its zone; SQLite keeps them in UTC without saying so."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _removed(lost: _Lost) -> Finding:
    rows = "a row" if lost.number == 1 else f"{lost.number} rows, up to place {lost.last}"
    return Finding("removed", f"{rows} of the chain gone", lost.chain, lost.first)


def _lacking(said: Mapping[str, Any]) -> str:
    """What is not there of a prediction: payload, entry in the vault, both; empty if neither."""
    lacks = {"payload": said["document"] is None, "vault entry": said["sealed"] is None}
    return " and ".join(name for name, is_missing in lacks.items() if is_missing)


# ---- identities -------------------------------------------------------------------------------


def checked_identities(
    rows: Iterable[Row], privacy: Privacy, found: Examination, *, destroyed_at: datetime | None
) -> Iterator[Row]:
    """The rows as they came, each prediction's pseudonyms held against its references on the way.

    Opens the vault: who calls has that on record before. `destroyed_at`: until when predictions may
    have lost their key by decision.
    """
    for row in rows:
        if not _lost_its_key(row, destroyed_at):
            fault = identity_fault(row, privacy)
            if fault is not None:
                found.add(about(row, "identity", fault))
        yield row


def _lost_its_key(row: Row, destroyed_at: datetime | None) -> bool:
    """Whether a prediction is as the destruction of its patient's key leaves it, and may be."""
    if row.table != "predictions" or destroyed_at is None:
        return False
    has_lost = row.said["key_id"] is None and row.said["patient_pseudonym"] == ""
    return has_lost and bool(row.said["computed_at"] <= destroyed_at)


def identity_fault(row: Row, privacy: Privacy) -> str | None:
    """Why a prediction's pseudonyms are not of whom the vault says; None where they are, where the
    entry was erased, and of audit entries.
    """
    said = row.said
    if row.table != "predictions" or said["sealed"] is None:
        return None
    try:
        references = privacy.unseal(said)
    except (SealBroken, Erased) as error:
        return str(error)
    key_id, base = said["pseudonym_key"], references.get("fhir_base", "")
    of = partial(privacy.pseudonyms, row.chain.organisation, base)
    for column, kind in (("patient_pseudonym", "Patient"), ("encounter_pseudonym", "Encounter")):
        named = references.get(kind.lower())
        if named is None:
            made = None
        elif (made := of(kind, named).get(key_id)) is None:
            return f"pseudonym_key: there is no key called {key_id} here to check it by"
        if said[column] != made:
            return f"{column} is not of the {kind.lower()} in the vault"
    if said["key_patient"] != said["patient_pseudonym"] and said["key_pseudonym_key"] == key_id:
        return "its data key is another patient's"
    return None
