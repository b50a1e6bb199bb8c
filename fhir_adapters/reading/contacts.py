"""Hospital contacts: Encounters that took place or are taking place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fhir_adapters import resources as r
from fhir_adapters.clock import OPEN
from fhir_adapters.reading.shared import Reading, codings
from fhir_adapters.record import Contact

COUNTS = frozenset({"finished", "in-progress", "onleave", "arrived", "triaged"})


def read_contacts(reading: Reading) -> Iterable[Contact]:
    """Every contact that counts, once however often it was sent.

    One without a start or a class is named and left out. A finished contact without an end lasted
    no time anybody knows of.
    """
    return dict.fromkeys(_contacts(reading))


def _contacts(reading: Reading) -> Iterator[Contact]:
    for encounter in reading.gathered.of("Encounter"):
        if encounter.status not in COUNTS:
            continue
        if not reading.is_own("Encounter", encounter.subject):
            continue
        period = encounter.period
        start = reading.time(period.start if period else None, "Encounter")
        if start is None or encounter.class_ is None:
            reading.no_time("Encounter", "Encounter without period.start or class")
            continue
        going_on = encounter.status != "finished"
        yield Contact(
            start=start,
            end=max(start, reading.end(period.end, OPEN if going_on else start)),
            class_code=encounter.class_.code or "",
            acute=_acuteness(reading, encounter),
            source=f"Encounter/{encounter.id}",
            reasons=_reasons(reading, encounter),
        )


def _reasons(reading: Reading, encounter: r.Encounter) -> frozenset[str] | None:
    stated = [reason for reason in encounter.reason_code or () if reason.coding]
    if not stated:
        return None
    return frozenset(one[0] for reason in stated for one in reading.meanings(reason))


def _acuteness(reading: Reading, encounter: r.Encounter) -> bool | None:
    rule = reading.wanted.stay_rule
    said = {encounter.class_.code if encounter.class_ else None}
    said.update(c.code for c in codings([encounter.priority, *(encounter.type or ())]))
    if said & rule.acute_codes:
        return True
    return False if said & rule.planned_codes else None
