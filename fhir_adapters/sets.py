"""Sets of findings a question can be asked of: a weekly home measurement, an assessment.

Findings of some concepts at most a few hours apart are one set. Called by feature computation (the
newest set at a moment) and by cohort building (every set there was).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fhir_adapters.clock import HOUR_S
from fhir_adapters.record import Fact, PatientRecord


@dataclass(frozen=True, slots=True)
class SetRule:
    """Which findings make a set, and how far apart they may be, in hours."""

    of: tuple[str, ...]
    gap_hours: float


def set_times(record: PatientRecord, rule: SetRule, until: float) -> list[float]:
    """The moment each set begun by `until` was complete and known, oldest first (seconds).

    Findings that may not be used (implausible, unit refused) are part of a set: somebody measured.
    """
    facts = (f for concept in rule.of for f in record.of(concept))
    known = sorted(_dated(facts, until), key=lambda f: f.start)
    times: list[float] = []
    newest = float("-inf")
    for fact in known:
        moment = max(fact.start, fact.known)
        if times and fact.start - newest <= rule.gap_hours * HOUR_S:
            times[-1] = max(times[-1], moment)
        else:
            times.append(moment)
        newest = fact.start
    return times


def _dated(facts: Iterable[Fact], until: float) -> list[Fact]:
    return [f for f in facts if float("-inf") < f.start <= until and f.known <= until]
