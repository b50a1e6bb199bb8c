"""Outcomes found in later FHIR data: what happened after a prediction, or why that is unknown.

A rule says what counts (`[heads.rule]` of a manifest): the moment days are counted from, how many,
the events of which the first is the outcome, and those that compete with it. Where the data end
before the horizon does, the outcome is censored, event or not: to keep only the events among the
incompletely followed would make the outcome look more frequent than it is. An event that may have
been one, for all the record says, leaves the outcome unknown too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from fhir_adapters.clock import DAY_S
from fhir_adapters.record import Contact, Fact, PatientRecord, Stay
from fhir_adapters.stays import StayRule, is_admission, link_stays

OutcomeState = Literal["event", "no-event", "competing", "censored", "not-applicable"]


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"for_": "for"}):
    """One kind of thing that may happen.

    `admission`: a stay long enough to be one; `acute` and `for` (concepts) narrow it. `visit`: an
    emergency contact of any length; `for` narrows it. `fact`: a finding of one of `of` that begins
    after `quiet_days` without any. `death`.
    """

    kind: Literal["admission", "visit", "fact", "death"]
    of: list[str] = []
    for_: list[str] = []
    acute: bool | None = None
    quiet_days: float = 0.0

    def __post_init__(self) -> None:
        if (self.kind == "fact") != bool(self.of):
            raise ValueError("`of` belongs to the kind fact, and to no other")


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The moment days are counted from, where that is not the index itself.

    `procedure`: the first finding of these concepts at most `within_days` after the index;
    `discharge_after`: the end of the stay that holds it.
    """

    within_days: float
    procedure: list[str] = []
    discharge_after: list[str] = []

    def __post_init__(self) -> None:
        if bool(self.procedure) == bool(self.discharge_after):
            raise ValueError("an anchor is a procedure, or the discharge after one")

    @property
    def concepts(self) -> list[str]:
        """What is looked for after the index."""
        return self.procedure or self.discharge_after


class OutcomeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as the outcome, and within how many days of which moment."""

    within_days: float
    events: list[Event]
    competing: list[Event] = []
    anchor: Literal["index"] | Anchor = "index"

    @property
    def concepts(self) -> frozenset[str]:
        """Every concept the rule needs of a record."""
        wanted = self.anchor.concepts if isinstance(self.anchor, Anchor) else []
        named = [name for e in (*self.events, *self.competing) for name in (*e.of, *e.for_)]
        return frozenset([*wanted, *named])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one prediction. `days`: from the anchor to the event; None where none.

    `reason` says why a censored outcome is unknown, or why the rule does not apply.
    """

    state: OutcomeState
    days: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """The record after an index moment, as a rule reads it."""

    record: PatientRecord
    stay_rule: StayRule
    data_until: float


@dataclass(frozen=True, slots=True)
class _Happened:
    """Something at a moment that is one of the events, or (not `sure`) may be one."""

    at: float
    sure: bool
    what: str


def find_outcome(rule: OutcomeRule, later: Later, index: float) -> Outcome:
    """The outcome of what was asked at `index`: the first of the rule's events counts."""
    anchor = _anchor(rule, later, index)
    if isinstance(anchor, Outcome):
        return anchor
    horizon = anchor + rule.within_days * DAY_S
    if later.data_until < horizon:
        return Outcome("censored", reason="the data end before the horizon")
    events = _within(rule.events, later, anchor, horizon)
    competing = _within(rule.competing, later, anchor, horizon)
    first = min((h.at for h in events if h.sure), default=math.inf)
    other = min((h.at for h in competing if h.sure), default=math.inf)
    unsure = [h for h in (*events, *competing) if not h.sure and h.at < min(first, other)]
    if unsure:
        return Outcome("censored", reason=unsure[0].what)
    if first <= other and first < math.inf:
        return Outcome("event", (first - anchor) / DAY_S)
    if other < math.inf:
        return Outcome("competing", (other - anchor) / DAY_S)
    return Outcome("no-event")


# ---- the moment days are counted from -------------------------------------------------------


def _anchor(rule: OutcomeRule, later: Later, index: float) -> float | Outcome:
    if not isinstance(rule.anchor, Anchor):
        return index
    until = index + rule.anchor.within_days * DAY_S
    facts = [f for name in rule.anchor.concepts for f in later.record.of(name)]
    starts = [f.start for f in facts if f.status == "ok" and index < f.start <= until]
    if not starts:
        if later.data_until < until:
            return Outcome("censored", reason="the data end before the procedure could be")
        return Outcome("not-applicable", reason="no procedure followed")
    if rule.anchor.procedure:
        return min(starts)
    return _discharge(later, min(starts))


def _discharge(later: Later, moment: float) -> float | Outcome:
    stays = link_stays(later.record.contacts, later.stay_rule, later.data_until)
    stay = next((s for s in stays if s.start <= moment <= s.end), None)
    if stay is None:
        return Outcome("censored", reason="no stay holds the procedure")
    death = later.record.deceased_at
    if death is not None and death <= stay.end:
        return Outcome("not-applicable", reason="died before discharge")
    if math.isinf(stay.end):
        return Outcome("censored", reason="still admitted")
    return stay.end


# ---- events ---------------------------------------------------------------------------------


def _within(events: list[Event], later: Later, anchor: float, horizon: float) -> list[_Happened]:
    found = [h for event in events for h in _happened(event, later)]
    return [h for h in found if anchor < h.at <= horizon or math.isinf(h.at)]


def _happened(event: Event, later: Later) -> Iterator[_Happened]:
    """Everything in the record that is, or may be, such an event; undated deaths at -inf."""
    if event.kind == "death":
        death = later.record.deceased_at
        if death is not None:
            yield _Happened(death, math.isfinite(death), "a death without a date")
    elif event.kind == "fact":
        facts = sorted(
            (f for name in event.of for f in later.record.of(name) if f.status == "ok"),
            key=lambda f: f.start,
        )
        quiet = event.quiet_days * DAY_S
        yield from (_Happened(f.start, True, "") for f in facts if _is_new(f, facts, quiet))
    elif event.kind == "visit":
        for contact in later.record.contacts:
            if contact.class_code in later.stay_rule.emergency_classes:
                yield from _for(event, contact.start, *_contact_reasons(contact))
    else:
        for stay in link_stays(later.record.contacts, later.stay_rule, later.data_until):
            yield from _admission(event, stay, later)


def _is_new(fact: Fact, facts: list[Fact], quiet: float) -> bool:
    """Whether none of the facts had begun before it and lasted into the quiet time before it."""
    if not math.isfinite(fact.start):
        return False
    return not quiet or not any(
        f.start < fact.start and max(f.start, min(f.end, fact.start)) >= fact.start - quiet
        for f in facts
    )


def _admission(event: Event, stay: Stay, later: Later) -> Iterator[_Happened]:
    if not is_admission(stay, later.stay_rule, later.data_until):
        return
    if event.acute is not None and stay.acute is None:
        yield _Happened(stay.start, False, "an admission does not say whether it was acute")
    elif event.acute in (None, stay.acute):
        yield from _for(event, stay.start, stay.reasons, stay.reasons_are_all)


def _contact_reasons(contact: Contact) -> tuple[frozenset[str], bool]:
    known = contact.reasons is not None and not contact.reason_unread
    return contact.reasons or frozenset(), known


def _for(event: Event, at: float, reasons: frozenset[str], are_all: bool) -> Iterator[_Happened]:
    if not event.for_ or not reasons.isdisjoint(event.for_):
        yield _Happened(at, True, "")
    elif not are_all:
        yield _Happened(at, False, "a contact does not say what it was for")


def discharged_stays(record: PatientRecord, rule: StayRule, data_until: float) -> list[Stay]:
    """The stays that have ended, oldest first: each is a moment a prediction could be made at."""
    return [s for s in link_stays(record.contacts, rule, data_until) if s.end <= data_until]
