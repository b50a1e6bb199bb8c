"""From what was gathered to one patient's record: who it is about, all facts, duplicates gone.

How each kind of resource becomes facts stands in `reading/`. Only concepts somebody wants are made
into facts. Resources that belong to another patient are left out and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import tzinfo
from operator import attrgetter
from typing import Any

from fhir_adapters import resources as r
from fhir_adapters.clock import COPENHAGEN, UNDATED, parse_time
from fhir_adapters.codes import code_table
from fhir_adapters.decode import Gathered
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.reading.answers import read_answers
from fhir_adapters.reading.belonging import own_only
from fhir_adapters.reading.contacts import read_contacts
from fhir_adapters.reading.diagnoses import read_conditions, read_episodes, read_procedures
from fhir_adapters.reading.medicines import read_medicines
from fhir_adapters.reading.observations import read_observations
from fhir_adapters.reading.shared import Reading
from fhir_adapters.reading.wanted import AnswerRule, Wanted
from fhir_adapters.record import Fact, PatientRecord


def build_record(
    gathered: Gathered,
    wanted: Wanted,
    *,
    patient_id: str | None = None,
    zone: tzinfo = COPENHAGEN,
    base: str = "",
) -> PatientRecord:
    """The record of one patient, of the concepts a package wants.

    `patient_id` is the patient the question is about; without it the input must hold exactly one
    Patient. `base`: the FHIR server the input is of; "" where it is not known, and then an absolute
    reference is taken for one to it. Raises UnreadableInput where the patient is missing or cannot
    be told.
    """
    patient = _the_patient(gathered, patient_id)
    gathered = own_only(gathered, patient, base=base, queries=wanted.queries)
    reading = Reading(gathered, wanted, table=code_table(), zone=zone)
    read_observations(reading)
    read_conditions(reading)
    read_procedures(reading)
    read_medicines(reading)
    read_answers(reading)
    read_episodes(reading)
    return PatientRecord(
        patient_id=patient.id or "",
        birth_date=patient.birth_date,
        gender=patient.gender,
        deceased_at=_deceased_at(reading, patient),
        facts={concept: _without_duplicates(facts) for concept, facts in reading.facts.items()},
        revised=_revised(reading.facts),
        contacts=tuple(read_contacts(reading)),
        answers=gathered.answers,
        whole=gathered.whole_record,
        troubles=[*gathered.troubles, *reading.troubles],
    )


def _the_patient(gathered: Gathered, patient_id: str | None) -> r.Patient:
    patients: list[r.Patient] = list({p.id: p for p in gathered.of("Patient")}.values())
    if patient_id is not None:
        matching = [p for p in patients if p.id == patient_id]
        if not matching:
            raise UnreadableInput("the Patient in context is not in the input", field="Patient")
        return matching[0]
    if len(patients) != 1:
        raise UnreadableInput(f"expected one Patient, found {len(patients)}", field="Patient")
    return patients[0]


def _deceased_at(reading: Reading, patient: r.Patient) -> float | None:
    """When the patient died; -inf for "deceased" without a date; None for the living."""
    if patient.deceased_date_time:
        moment = reading.time(patient.deceased_date_time, "Patient")
        return UNDATED if moment is None else moment
    return UNDATED if patient.deceased_boolean else None


# ---- the newest time ------------------------------------------------------------------------

_TIMES = (
    "effective_date_time",
    "effective_instant",
    "issued",
    "onset_date_time",
    "recorded_date",
    "performed_date_time",
    "authored_on",
    "authored",
    "date_asserted",
)
_PERIODS = ("effective_period", "period", "performed_period")


def newest_time(gathered: Gathered, zone: tzinfo = COPENHAGEN) -> float | None:
    """The time of the newest clinical resource; None where none carries a time."""
    texts = {text for kind in gathered.resources.values() for x in kind for text in _times_of(x)}
    moments = (_moment(text, zone) for text in texts)
    return max((moment for moment in moments if moment is not None), default=None)


def _times_of(resource: Any) -> Iterator[str]:
    for name in _TIMES:
        text = getattr(resource, name, None)
        if text:
            yield text
    for name in _PERIODS:
        period = getattr(resource, name, None)
        if period:
            yield from (text for text in (period.start, period.end) if text)


def _moment(text: str, zone: tzinfo) -> float | None:
    try:
        return parse_time(text, zone)
    except ValueError:
        return None


# ---- duplicates -----------------------------------------------------------------------------


_START = attrgetter("start")


def _rank(fact: Fact) -> tuple[float, float, bool, bool, float, str]:
    return (
        fact.start,
        fact.end,
        fact.status != "ok",
        "derived" in fact.tags,
        -fact.known,
        fact.source,
    )


def _without_duplicates(facts: list[Fact]) -> list[Fact]:
    """Facts oldest first; of one concept measured at one moment, one.

    The same measurement often comes twice: under two codes, alone and in a panel, or derived from
    another. The usable one wins over the unusable, the original over the derived, the latest
    issued over the earlier, and then the order of ids, so that order of arrival never matters.
    Drugs, diagnoses and operations with different codes are different facts. Versions that became
    known at different times all stay: which one counted is a question of `as_of`.
    """
    if len({fact.start for fact in facts}) == len(facts):
        facts.sort(key=_START)
        return facts
    facts.sort(key=_rank)
    kept: list[Fact] = []
    seen: set[tuple[float, float, str]] = set()
    for fact in facts:
        measured = fact.source.startswith("Observation/")
        key = (fact.start, fact.known, "" if measured else fact.code + fact.source)
        if key not in seen:
            seen.add(key)
            kept.append(fact)
    return kept


def _revised(facts: Mapping[str, list[Fact]]) -> frozenset[str]:
    """The concepts measured at one moment and known at several: corrected, or sent again."""
    return frozenset(
        concept
        for concept, found in facts.items()
        if found[0].source.startswith("Observation/")
        and len(starts := {f.start for f in found}) < len(found)
        and len(starts) < len({(f.start, f.known) for f in found})
    )


__all__ = ["AnswerRule", "Wanted", "build_record", "newest_time"]
