"""What a record holds of a patient after the assessment: operation, course, discharge, later.

Everything written here is later than the assessment. Beside the outcomes it writes what is none: a
superficial reoperation, a suspected pneumonia that was refuted, an old infarction recorded anew,
planned and late stays, emergency visits, an infection after day 30. Called by `records`.
"""

from collections.abc import Iterator
from math import isfinite
from typing import Final

from models.synthetic import codings as shared
from models.synthetic.codings import coded
from models.synthetic.fhir_lines import Contact, day, stamp
from models.synthetic.surgery import codings
from models.synthetic.surgery.before import asa
from models.synthetic.surgery.cohort import DAY_S, HOUR_S
from models.synthetic.surgery.resources import (
    Chart,
    Resource,
    begun,
    condition,
    encounter,
    measured,
    medicine,
    procedure,
    stay,
)
from models.synthetic.surgery.risks import LATER_STAY_DAYS

REASSESSED_DAYS: Final = 2.5
"""A second assessment lies so many days before the operation."""
LONGEST_READMISSION_DAYS: Final = 14.0


def resources_after(chart: Chart) -> list[Resource]:
    """Everything later than the assessment; nothing for who is not operated."""
    if chart.operated_at is None:
        return []
    return [
        *_operation_stay(chart, chart.operated_at),
        *_operation(chart, chart.operated_at),
        *_course(chart, chart.operated_at),
        *_no_complications(chart, chart.operated_at),
        *_postoperative(chart, chart.operated_at),
        *_at_home(chart),
    ]


def _operation_stay(chart: Chart, operated_at: int) -> Iterator[Resource]:
    """The stay that holds the operation, to discharge or death; at times a second assessment."""
    choices, emergency = chart.choices, chart.emergency
    end = chart.discharged_at if chart.discharged_at is not None else chart.died_at
    if end is None:
        raise ValueError("who is operated is discharged or dies")
    earliest = chart.assessed_at if emergency else operated_at
    start = earliest - round(choices.between(2.0, 8.0) * HOUR_S)
    died = chart.discharged_at is None
    reason = "C209" if chart.is_so("rectum") else "C189"
    yield from stay(chart, start, end, acute=emergency, reason=reason, died=died)
    wait = operated_at - chart.assessed_at
    if wait > 8 * DAY_S and choices.happens(0.15):
        yield asa(chart, chart.true["asa"], operated_at - REASSESSED_DAYS * DAY_S)


def _operation(chart: Chart, operated_at: int) -> Iterator[Resource]:
    choices = chart.choices
    pairs = codings.resection_pairs(rectum=chart.is_so("rectum"), joined=chart.is_so("anastomosis"))
    sks = choices.one_of(pairs)[0 if chart.is_so("open") else 1]
    until = operated_at + round(choices.between(1.5, 5.0) * HOUR_S)
    period = {"start": stamp(operated_at), "end": stamp(until)}
    yield procedure(chart, codings.resection(sks, chart.system), performedPeriod=period)


# ---- the course in hospital ---------------------------------------------------------------------


def _course(chart: Chart, operated_at: int) -> Iterator[Resource]:
    """Leak, reoperation and complication, each where it was drawn."""
    choices, after = chart.choices, chart.after
    at = {
        name: operated_at + round(after[f"{name}_day"] * DAY_S)
        for name in ("leak", "reoperation", "complication")
        if isfinite(after[f"{name}_day"])
    }
    if "leak" in at:
        code = choices.one_of(codings.LEAK_OPERATIONS)
        yield procedure(chart, coded(code), performedDateTime=stamp(at["leak"]))
    if "reoperation" in at and at["reoperation"] != at.get("leak"):
        code = choices.one_of(codings.OTHER_REOPERATIONS)
        yield procedure(chart, coded(code), performedDateTime=stamp(at["reoperation"]))
    if "reoperation" in at and choices.happens(0.25):
        yield _intensive_care(chart, at["reoperation"] + 6 * HOUR_S)
    if "complication" in at and at["complication"] != at.get("reoperation"):
        yield _complication(chart, at["complication"])


def _complication(chart: Chart, at: int) -> Resource:
    """One complication without reoperation, of a kind by its share."""
    left = chart.choices.chance()
    for kind, share in codings.COMPLICATION_SHARES.items():
        left -= share
        if left < 0 and kind in codings.COMPLICATIONS:
            return begun(chart, chart.choices.one_of(codings.COMPLICATIONS[kind]), at)
    return _intensive_care(chart, at)


def _intensive_care(chart: Chart, at: int) -> Resource:
    until = at + round(chart.choices.between(0.5, 4.0) * DAY_S)
    if chart.died_at is not None:
        until = max(at + HOUR_S, min(until, chart.died_at))
    period = {"start": stamp(at), "end": stamp(until)}
    return procedure(
        chart, coded(*chart.choices.one_of(shared.INTENSIVE_CARE)), performedPeriod=period
    )


def _no_complications(chart: Chart, operated_at: int) -> Iterator[Resource]:
    """What looks like a complication and is none."""
    choices = chart.choices
    if choices.happens(0.02):
        at = operated_at + choices.between(0.5, 1.2) * DAY_S
        code = shared.diagnosis("J189", chart.system)
        yield condition(chart, code, recorded=at, onset=stamp(at), verification="refuted")
    if choices.happens(0.03):
        old = operated_at - choices.between(2.0, 12.0) * 365.25 * DAY_S
        code = shared.diagnosis("I219", chart.system)
        yield condition(chart, code, recorded=operated_at + 3 * HOUR_S, onset=day(old))
    if choices.happens(0.01):
        at = operated_at + choices.between(0.6, 1.3) * DAY_S
        code = coded(codings.SUPERFICIAL_OPERATION)
        yield procedure(chart, code, performedDateTime=stamp(at))


def _postoperative(chart: Chart, operated_at: int) -> Iterator[Resource]:
    """CRP and haemoglobin on the day after, and medicine against thrombosis: never features."""
    at = operated_at + 20 * HOUR_S
    yield measured(chart, "crp", 40.0 + 90.0 * chart.choices.chance(), at=at)
    drop = chart.choices.between(0.4, 1.6)
    yield measured(chart, "haemoglobin", max(chart.true["haemoglobin"] - drop, 3.9), at=at)
    yield medicine(chart, codings.THROMBOSIS_PROPHYLAXIS, at=operated_at + 8 * HOUR_S)


# ---- at home ------------------------------------------------------------------------------------


def _at_home(chart: Chart) -> Iterator[Resource]:
    """What follows discharge: the readmission, and contacts that are none."""
    if chart.discharged_at is None:
        return
    at = {
        name: chart.discharged_at + round(chart.after[f"{name}_day"] * DAY_S)
        for name in ("readmission", "planned", "visit", "late")
        if isfinite(chart.after[f"{name}_day"])
    }
    choices = chart.choices
    if "readmission" in at:
        days = choices.between(0.6, LONGEST_READMISSION_DAYS)
        reason = choices.one_of(codings.READMISSION_REASONS)
        yield from _stay_at(chart, at["readmission"], days, acute=True, reason=reason)
    if "planned" in at:
        days = choices.between(0.6, LATER_STAY_DAYS)
        yield from _stay_at(chart, at["planned"], days, acute=False, reason="Z511")
    if "visit" in at:
        end = at["visit"] + round(choices.between(1.0, 5.0) * HOUR_S)
        reason = choices.one_of(codings.READMISSION_REASONS)
        yield encounter(chart, Contact("EMER", at["visit"], end, True, reason))
    if "late" in at:
        days = choices.between(0.6, LATER_STAY_DAYS)
        yield from _stay_at(chart, at["late"], days, acute=True, reason="J189")
        yield begun(chart, "J189", at["late"])


def _stay_at(
    chart: Chart, start: int, days: float, *, acute: bool, reason: str
) -> Iterator[Resource]:
    """A stay of some days, which ends where the patient dies in it."""
    end = start + round(days * DAY_S)
    died = chart.died_at is not None and chart.died_at <= end
    end = chart.died_at if died and chart.died_at is not None else end
    yield from stay(chart, start, end, acute=acute, reason=reason, died=died)
