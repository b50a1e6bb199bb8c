"""Diagnoses, procedures and episodes of care: what was found, done, or followed."""

from __future__ import annotations

from fhir_adapters import resources as r
from fhir_adapters.clock import OPEN, UNDATED
from fhir_adapters.reading.shared import Reading, codings
from fhir_adapters.reading.versions import current
from fhir_adapters.record import Fact

COUNTS_PROCEDURE = frozenset({"completed", "in-progress"})
COUNTS_EPISODE = frozenset({"active", "onhold", "finished"})
DOUBTED = frozenset({"unconfirmed", "provisional", "differential", "refuted", "entered-in-error"})
OVER = frozenset({"inactive", "remission", "resolved", "723506003"})  # last: SNOMED, as MedCom


def read_conditions(reading: Reading) -> None:
    """Every diagnosis of a wanted concept that nobody doubts, from its onset to its end."""
    for c in current(reading.gathered, "Condition"):
        found = reading.unmeasured(c.code)
        if not found:
            continue
        if any(coding.code in DOUBTED for coding in codings([c.verification_status])):
            continue
        start, known, end = _condition_times(reading, c)
        for concept, _, code in found:
            reading.add(
                Fact(
                    concept,
                    start=start,
                    end=end,
                    known=known,
                    value=1.0,
                    source=f"Condition/{c.id}",
                    code=code,
                )
            )


def _condition_times(reading: Reading, c: r.Condition) -> tuple[float, float, float]:
    """Onset, when it was known, and end. A diagnosis that is over without a date ended when it was
    last heard of."""
    onset_text = c.onset_date_time or (c.onset_period.start if c.onset_period else None)
    onset = reading.time(onset_text, "Condition")
    recorded = reading.time(c.recorded_date, "Condition")
    start = next((t for t in (onset, recorded) if t is not None), UNDATED)
    known = start if recorded is None else recorded
    over = any(x.code in OVER for x in codings([c.clinical_status, *(c.category or ())]))
    abated = c.abatement_date_time or (c.abatement_period.end if c.abatement_period else None)
    end = reading.end(abated, max(start, known) if over else OPEN)
    return start, known, max(start, end)


def read_procedures(reading: Reading) -> None:
    """Every procedure of a wanted concept that was done or begun."""
    every = "procedure" in reading.wanted.concepts
    for p in current(reading.gathered, "Procedure"):
        if p.status not in COUNTS_PROCEDURE:
            continue
        found = reading.unmeasured(p.code)
        if every:
            code = next((c.code for c in codings([p.code]) if c.code), "")
            found.append(("procedure", None, code))
        if not found:
            continue
        period = p.performed_period
        text = p.performed_date_time or (period and (period.start or period.end))
        start = reading.time(text, "Procedure")
        if start is None:
            reading.no_time("Procedure", "Procedure without a time")
            continue
        for concept, _, code in found:
            reading.add(
                Fact(
                    concept,
                    start=start,
                    end=start,
                    known=start,
                    value=1.0,
                    source=f"Procedure/{p.id}",
                    code=code,
                )
            )


def read_episodes(reading: Reading) -> None:
    """Episodes of care that are or were followed, where somebody wants them."""
    if "episode_of_care" not in reading.wanted.concepts:
        return
    for episode in current(reading.gathered, "EpisodeOfCare"):
        if episode.status not in COUNTS_EPISODE:
            continue
        period = episode.period
        start = reading.time(period.start if period else None, "EpisodeOfCare")
        if start is None:
            reading.no_time("EpisodeOfCare", "EpisodeOfCare without a start")
            continue
        going_on = episode.status != "finished"
        reading.add(
            Fact(
                "episode_of_care",
                start=start,
                end=reading.end(period.end, OPEN if going_on else start),
                known=start,
                value=1.0,
                source=f"EpisodeOfCare/{episode.id}",
            )
        )
