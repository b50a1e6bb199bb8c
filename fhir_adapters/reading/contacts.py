"""Hospital contacts: Encounters that took place or are taking place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fhir_adapters import resources as r
from fhir_adapters.clock import OPEN
from fhir_adapters.reading.shared import Reading, codings
from fhir_adapters.reading.versions import current
from fhir_adapters.record import Contact

COUNTS = frozenset({"finished", "in-progress", "onleave", "arrived", "triaged"})
SECONDARY_USES = frozenset({"CM", "post-op"})
"""http://terminology.hl7.org/CodeSystem/diagnosis-role: not what the contact was for."""


def read_contacts(reading: Reading) -> Iterable[Contact]:
    """Every contact that counts, once however often it was sent.

    One without a start or a class is named and left out. A finished contact without an end lasted
    no time anybody knows of.
    """
    return dict.fromkeys(_contacts(reading))


def _contacts(reading: Reading) -> Iterator[Contact]:
    for encounter in current(reading.gathered, "Encounter"):
        if encounter.status not in COUNTS:
            continue
        period = encounter.period
        start = reading.time(period.start if period else None, "Encounter")
        if start is None or encounter.class_ is None:
            reading.no_time("Encounter", "Encounter without period.start or class")
            continue
        going_on = encounter.status != "finished"
        reasons, unread = _reasons(reading, encounter)
        yield Contact(
            start=start,
            end=max(start, reading.end(period.end, OPEN if going_on else start)),
            class_code=encounter.class_.code or "",
            acute=_acuteness(reading, encounter),
            source=f"Encounter/{encounter.id}",
            reasons=reasons,
            reason_unread=unread,
        )


def _reasons(reading: Reading, encounter: r.Encounter) -> tuple[frozenset[str] | None, bool]:
    """The wanted concepts the contact was for, and whether it states some that cannot be read.

    Its reason codes, the Conditions it refers to as reasons, and those of its diagnoses that are
    neither comorbidities nor ranked below the first.
    """
    if not (encounter.reason_code or encounter.reason_reference or encounter.diagnosis):
        return None, False
    stated: list[r.CodeableConcept | None] = list(encounter.reason_code or ())
    stated += map(reading.condition_code, _reason_references(encounter))
    readable = [code for code in stated if code is not None and code.coding]
    if not readable:
        return None, bool(stated)
    concepts = frozenset(one[0] for code in readable for one in reading.meanings(code))
    return concepts, len(readable) < len(stated)


def _reason_references(encounter: r.Encounter) -> Iterator[r.Reference | None]:
    yield from encounter.reason_reference or ()
    for diagnosis in encounter.diagnosis or ():
        uses = {coding.code for coding in codings([diagnosis.use])}
        if not uses & SECONDARY_USES and diagnosis.rank in (None, 1):
            yield diagnosis.condition


def _acuteness(reading: Reading, encounter: r.Encounter) -> bool | None:
    rule = reading.wanted.stay_rule
    said = [coding.code for coding in codings([encounter.priority, *(encounter.type or ())])]
    said.append(encounter.class_.code if encounter.class_ else None)
    if not rule.acute_codes.isdisjoint(said):
        return True
    return None if rule.planned_codes.isdisjoint(said) else False
