"""Hospital stays made from contacts, by the Danish rule.

Contacts at most four hours apart are one hospital stay, and a stay of at least twelve hours is an
admission (esundhed.dk, LPR3: "indlæggelse"). The rule's figures and the codes that say how acute
a contact was come from the package (`[stay]` in its manifest), because other countries count
otherwise. Called by feature computation, by outcomes and by cohort building.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fhir_adapters.clock import HOUR_S
from fhir_adapters.record import Contact, Fact, Stay

FOR, FOR_UNKNOWN = "for:", "?for"
"""Tags of what a stay or contact was for, and of one that does not say (all of) it."""


class StayRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When contacts are one stay, and when a stay is an admission.

    `classes`: Encounter.class codes that can be part of a stay; `emergency_classes`: those that
    are an emergency contact in themselves. `acute_codes` and `planned_codes`: codes of
    Encounter.priority, class or type that say so.
    """

    link_gap_hours: float = 4.0
    min_hours: float = 12.0
    classes: frozenset[str] = frozenset({"IMP", "ACUTE", "NONAC", "EMER", "OBSENC", "SS"})
    emergency_classes: frozenset[str] = frozenset({"EMER"})
    acute_codes: frozenset[str] = frozenset()
    planned_codes: frozenset[str] = frozenset()


def link_stays(contacts: Iterable[Contact], rule: StayRule, as_of: float) -> list[Stay]:
    """The stays known at a moment, oldest first: contacts begun by then, linked over short gaps.

    A contact that ended later is still going on at that moment. Stays of every length are given;
    `is_admission` tells which count.
    """
    begun = sorted(
        (c for c in contacts if c.start <= as_of and c.class_code in rule.classes),
        key=lambda c: (c.start, c.end, c.source),
    )
    stays: list[list[Contact]] = []
    reach = float("-inf")
    for contact in begun:
        if stays and contact.start - reach <= rule.link_gap_hours * HOUR_S:
            stays[-1].append(contact)
            reach = max(reach, contact.end)
        else:
            stays.append([contact])
            reach = contact.end
    return [_stay(linked, rule, as_of) for linked in stays]


def _stay(linked: list[Contact], rule: StayRule, as_of: float) -> Stay:
    end = max(contact.end for contact in linked)
    return Stay(
        start=linked[0].start,
        end=end if end <= as_of else float("inf"),
        acute=_is_acute(linked, rule),
        contacts=tuple(linked),
    )


def _is_acute(linked: list[Contact], rule: StayRule) -> bool | None:
    """How the stay began: its first contact decides, or an emergency contact that led into it."""
    if linked[0].class_code in rule.emergency_classes:
        return True
    return linked[0].acute


def is_admission(stay: Stay, rule: StayRule, as_of: float) -> bool:
    """Whether the stay has lasted long enough to count as an admission."""
    return stay.hours_by(as_of) >= rule.min_hours


def index_stay(stays: Iterable[Stay], as_of: float, ended_within_hours: float) -> Stay | None:
    """The stay a moment belongs to: the one containing it, or ended so many hours before."""
    earliest_end = as_of - ended_within_hours * HOUR_S
    candidates = [s for s in stays if s.start <= as_of and s.end >= earliest_end]
    return max(candidates, key=lambda s: s.start, default=None)


def stay_facts(
    stays: Iterable[Stay], index: Stay | None, rule: StayRule, as_of: float
) -> tuple[list[Fact], list[Fact]]:
    """Earlier admissions, and contacts outside any admission, as facts; the index stay left out.

    Concepts `stay` (value: days) and `contact` (tag: the class code). Both are tagged
    `for:<concept>` with what they were for, and `?for` where they do not say all of it. A stay
    that does not say how acute it was carries the tags `?acute` and `?planned`.
    """
    admissions: list[Fact] = []
    single: list[Fact] = []
    for stay in stays:
        if index is not None and stay.start == index.start:
            continue
        if is_admission(stay, rule, as_of):
            admissions.append(_as_fact(stay, as_of))
        else:
            single.extend(_contact_fact(contact, as_of) for contact in stay.contacts)
    return admissions, single


_ACUTENESS: dict[bool | None, frozenset[str]] = {
    True: frozenset({"acute"}),
    False: frozenset({"planned"}),
    None: frozenset({"?acute", "?planned"}),
}


def _as_fact(stay: Stay, as_of: float) -> Fact:
    end = min(stay.end, as_of)
    return Fact(
        concept="stay",
        start=stay.start,
        end=end,
        known=stay.start,
        value=(end - stay.start) / 86_400.0,
        source=stay.source,
        tags=_ACUTENESS[stay.acute] | _reason_tags(stay.reasons, known=stay.reasons_are_all),
    )


def _contact_fact(contact: Contact, as_of: float) -> Fact:
    known = contact.reasons is not None and not contact.reason_unread
    return Fact(
        concept="contact",
        start=contact.start,
        end=min(contact.end, as_of),
        known=contact.start,
        source=contact.source,
        tags=frozenset((contact.class_code,)) | _reason_tags(contact.reasons or (), known=known),
    )


def _reason_tags(reasons: Iterable[str], *, known: bool) -> frozenset[str]:
    tags = {f"{FOR}{reason}" for reason in reasons}
    return frozenset(tags if known else tags | {FOR_UNKNOWN})
