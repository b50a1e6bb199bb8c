"""Outcomes found in later FHIR data: what happened after a prediction, or why that is unknown.

An acute readmission is an acute stay of at least twelve hours that begins more than the linking
gap, and at most `within_days`, after the index stay ended. Death before it is a competing event.
Where the data end before the horizon does, the outcome is censored, event or not: to keep only the
events among the incompletely followed would make the outcome look more frequent than it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fhir_adapters.clock import DAY_S
from fhir_adapters.record import PatientRecord, Stay
from fhir_adapters.stays import StayRule, is_admission, link_stays

OutcomeState = Literal["event", "no-event", "competing", "censored"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one index stay. `days`: from its end to the event; None where there is none.

    `reason` says why a censored outcome is unknown.
    """

    state: OutcomeState
    days: float | None = None
    reason: str | None = None


def find_readmission(
    record: PatientRecord,
    index_end: float,
    *,
    rule: StayRule,
    within_days: float,
    data_until: float,
) -> Outcome:
    """The outcome of the stay that ended at `index_end`, given data up to `data_until`.

    The first of acute readmission and death counts. A readmission that does not say whether it was
    acute leaves the outcome unknown.
    """
    horizon = index_end + within_days * DAY_S
    if data_until < horizon:
        return Outcome("censored", reason="the data end before the horizon")
    later = [
        stay
        for stay in link_stays(record.contacts, rule, data_until)
        if index_end < stay.start <= horizon and is_admission(stay, rule, data_until)
    ]
    acute = next((stay for stay in later if stay.acute), None)
    unstated = next((stay for stay in later if stay.acute is None), None)
    death = record.deceased_at
    died_within = death is not None and index_end < death <= horizon
    if died_within and death is not None and (acute is None or death < acute.start):
        return Outcome("competing", (death - index_end) / DAY_S)
    if unstated is not None and (acute is None or unstated.start < acute.start):
        return Outcome("censored", reason="a readmission does not say whether it was acute")
    if acute is not None:
        return Outcome("event", (acute.start - index_end) / DAY_S)
    return Outcome("no-event")


def discharged_stays(record: PatientRecord, rule: StayRule, data_until: float) -> list[Stay]:
    """The stays that have ended, oldest first: each is a moment a prediction could be made at."""
    return [s for s in link_stays(record.contacts, rule, data_until) if s.end <= data_until]
