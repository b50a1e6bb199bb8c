"""What became of a discharge: an event, none, a competing death, or nobody knows."""

from __future__ import annotations

import msgspec
import pytest

from fhir_adapters.clock import DAY_S
from fhir_adapters.decode import decode_bundle
from fhir_adapters.facts import build_record
from fhir_adapters.outcomes import (
    Anchor,
    Event,
    Later,
    Outcome,
    OutcomeRule,
    discharged_stays,
    find_outcome,
)
from fhir_adapters.reading.wanted import Wanted
from tests.spec.drawn import RULE, bundle, moment

INDEX = "Encounter | IMP | 2026-03-01 08:00 .. 2026-03-05 12:00 | EM\n"
DISCHARGE = "2026-03-05 12:00"
DETERIORATION = OutcomeRule(
    within_days=14,
    events=[
        Event(kind="admission", acute=True, for_=["copd"]),
        Event(kind="visit", for_=["copd"]),
        Event(kind="fact", of=["prednisolone"], quiet_days=28),
        Event(kind="death"),
    ],
)
READMISSION = OutcomeRule(
    within_days=30,
    events=[Event(kind="admission", acute=True)],
    competing=[Event(kind="death")],
)


def outcome(later: str, *, data_until: str = "2026-06-01 12:00") -> Outcome:
    record = build_record(decode_bundle(bundle(INDEX + later)), Wanted(frozenset(), stay_rule=RULE))
    return find_outcome(READMISSION, Later(record, RULE, moment(data_until)), moment(DISCHARGE))


@pytest.mark.parametrize(
    ("later", "state", "days"),
    [
        ("", "no-event", None),
        ("Encounter | IMP | 2026-03-15 12:00 .. 2026-03-18 12:00 | EM", "event", 10.0),
        ("Encounter | IMP | 2026-03-15 12:00 .. 2026-03-18 12:00 | EL", "no-event", None),
        ("Encounter | IMP | 2026-03-15 12:00 .. 2026-03-15 23:59 | EM", "no-event", None),
        ("Encounter | IMP | 2026-03-15 12:00 .. 2026-03-16 00:00 | EM", "event", 10.0),
        ("Encounter | EMER | 2026-03-15 12:00 .. 2026-03-15 16:00", "no-event", None),
        ("Encounter | IMP | 2026-03-05 16:00 .. 2026-03-09 12:00 | EM", "no-event", None),
        ("Encounter | IMP | 2026-04-20 12:00 .. 2026-04-22 12:00 | EM", "no-event", None),
    ],
)
def test_acute_readmission_within_thirty_days(later: str, state: str, days: float | None) -> None:
    """Not: planned ones, under 12 hours, transfers within 4 hours, after 30 days."""
    found = outcome(later)
    assert (found.state, found.days) == (state, days)


@pytest.mark.parametrize(
    ("start", "state"),
    [("2026-04-04 13:00", "event"), ("2026-04-04 13:01", "no-event")],
)
def test_thirty_days_are_thirty_times_24_hours(start: str, state: str) -> None:
    """Across the change to summer time: 12 o'clock in winter is 13 o'clock in summer."""
    assert outcome(f"Encounter | IMP | {start} .. 2026-04-08 12:00 | EM").state == state


@pytest.mark.parametrize(
    ("later", "state", "days"),
    [
        ("Patient | 1950-03-01 | male | died 2026-03-10 12:00", "competing", 5.0),
        ("Patient | 1950-03-01 | male | died 2026-05-10 12:00", "no-event", None),
    ],
)
def test_death_is_a_competing_event(later: str, state: str, days: float | None) -> None:
    """Within the thirty days it prevents the readmission; after them it does not matter."""
    found = outcome(later)
    assert (found.state, found.days) == (state, days)


def test_the_first_of_readmission_and_death_counts() -> None:
    """Readmitted on the 15th, died on the 17th: an event; the other way round, a death."""
    back = "Encounter | IMP | 2026-03-15 12:00 .. 2026-03-17 12:00 | EM\n"
    died = "Patient | 1950-03-01 | male | died {}"
    assert outcome(back + died.format("2026-03-17 12:00")).state == "event"
    assert outcome(back + died.format("2026-03-14 12:00")).state == "competing"


@pytest.mark.parametrize(
    ("data_until", "state"),
    [("2026-04-04 12:59", "censored"), ("2026-04-04 13:00", "no-event")],
)
def test_before_the_thirty_days_are_over_nothing_is_called_no_event(
    data_until: str, state: str
) -> None:
    """The data end a minute before the thirty days do, or with them."""
    assert outcome("", data_until=data_until).state == state


def test_an_event_among_the_incompletely_followed_is_not_counted_either() -> None:
    """To keep only the events of those not yet followed would make them look too frequent."""
    going_on = "Encounter | IMP | 2026-03-15 12:00 .. | EM | in-progress"
    assert outcome(going_on, data_until="2026-03-20 12:00").state == "censored"
    assert outcome(going_on, data_until="2026-04-05 12:00").state == "event"


def test_a_readmission_that_does_not_say_how_acute_it_was_leaves_the_outcome_unknown() -> None:
    """Unless an acute one came before it."""
    unstated = "Encounter | IMP | 2026-03-15 12:00 .. 2026-03-18 12:00\n"
    acute = "Encounter | IMP | 2026-03-08 12:00 .. 2026-03-10 12:00 | EM\n"
    found = outcome(unstated)
    assert (found.state, found.reason) == (
        "censored",
        "an admission does not say whether it was acute",
    )
    assert outcome(unstated + acute).state == "event"


def test_a_readmission_may_begin_in_the_emergency_department() -> None:
    """Three hours there and two days in a ward are one acute stay, from the first hour on."""
    found = outcome(
        "Encounter | EMER | 2026-03-15 12:00 .. 2026-03-15 15:00\n"
        "Encounter | IMP | 2026-03-15 16:00 .. 2026-03-17 12:00\n"
    )
    assert (found.state, found.days) == ("event", 10.0)


def test_a_planned_stay_does_not_hide_a_later_acute_one() -> None:
    """Chemotherapy on the 10th, pneumonia on the 20th."""
    found = outcome(
        "Encounter | IMP | 2026-03-10 12:00 .. 2026-03-12 12:00 | EL\n"
        "Encounter | IMP | 2026-03-20 12:00 .. 2026-03-22 12:00 | EM\n"
    )
    assert (found.state, found.days) == ("event", 15.0)


def test_every_ended_stay_is_a_moment_to_predict_at() -> None:
    """One has ended, one goes on."""
    going_on = "Encounter | IMP | 2026-05-30 12:00 .. | EM | in-progress"
    record = build_record(
        decode_bundle(bundle(INDEX + going_on)), Wanted(frozenset(), stay_rule=RULE)
    )
    stays = discharged_stays(record, RULE, moment("2026-06-01 12:00"))
    assert [stay.end for stay in stays] == [moment(DISCHARGE)]
    assert (stays[0].end - stays[0].start) / DAY_S == pytest.approx(4 + 4 / 24)


# ---- other outcomes -----------------------------------------------------------------------------


def ruled(rule: OutcomeRule, table: str, asked: str, data_until: str = "2026-12-01") -> Outcome:
    wanted = Wanted(rule.concepts, stay_rule=RULE)
    record = build_record(decode_bundle(bundle(table)), wanted)
    return find_outcome(rule, Later(record, RULE, moment(data_until)), moment(asked))


@pytest.mark.parametrize(
    ("table", "state", "days"),
    [
        ("", "no-event", None),
        ("Encounter | IMP | 2026-03-04 08:00 .. 2026-03-09 08:00 | EM | for COPD", "event", 3.0),
        ("Encounter | IMP | 2026-03-04 08:00 .. 2026-03-09 08:00 | EM | for DR074", "no-event", 0),
        ("Encounter | IMP | 2026-03-04 08:00 .. 2026-03-09 08:00 | EM", "censored", None),
        ("Encounter | EMER | 2026-03-04 08:00 .. 2026-03-04 11:00 | for COPD", "event", 3.0),
        ("Encounter | AMB | 2026-03-04 08:00 .. 2026-03-04 11:00 | for COPD", "no-event", None),
        ("MedicationRequest | prednisolone | 2026-03-04 08:00 | completed", "event", 3.0),
        ("Patient | 1950-03-01 | male | died 2026-03-04 08:00", "event", 3.0),
    ],
)
def test_the_first_of_several_events_is_the_outcome(
    table: str, state: str, days: float | None
) -> None:
    """Admission or emergency visit for COPD, a course of prednisolone, or death, in 14 days."""
    found = ruled(DETERIORATION, table, "2026-03-01 08:00")
    assert (found.state, found.days or None) == (state, days or None)


@pytest.mark.parametrize(("ended", "state"), [("2026-02-10", "no-event"), ("2026-02-01", "event")])
def test_a_course_is_new_only_after_so_many_days_without(ended: str, state: str) -> None:
    """Begun again on 4 March: within 28 days of the last course it is the same illness."""
    table = f"""
        MedicationRequest | prednisolone | 2026-01-20 | completed | until {ended}
        MedicationRequest | prednisolone | 2026-03-04 08:00 | completed
    """
    assert ruled(DETERIORATION, table, "2026-03-01 08:00").state == state


DEATH_90 = OutcomeRule(
    within_days=90,
    events=[Event(kind="death")],
    anchor=Anchor(within_days=60, procedure=["procedure"]),
)
BACK_30 = OutcomeRule(
    within_days=30,
    events=[Event(kind="admission", acute=True)],
    competing=[Event(kind="death")],
    anchor=Anchor(within_days=60, discharge_after=["procedure"]),
)
OPERATION = """
    Encounter | IMP | 2026-04-01 08:00 .. 2026-04-08 08:00 | EL
    Procedure | KJFB30 | 2026-04-01 10:00
"""


@pytest.mark.parametrize(
    ("later", "data_until", "state", "days"),
    [
        ("", "2026-12-01", "no-event", None),
        ("Patient | 1950-03-01 | male | died 2026-04-11 10:00", "2026-12-01", "event", 10.0),
        ("Patient | 1950-03-01 | male | died 2026-07-01 10:00", "2026-12-01", "no-event", None),
        ("", "2026-06-01", "censored", None),
    ],
)
def test_days_can_count_from_an_operation_after_the_question(
    later: str, data_until: str, state: str, days: float | None
) -> None:
    """Assessed on 1 March, operated on 1 April: 90 days from the operation."""
    found = ruled(DEATH_90, OPERATION + later, "2026-03-01 08:00", data_until)
    assert (found.state, found.days) == (state, days)


def test_who_was_never_operated_on_has_no_such_outcome() -> None:
    """Once the 60 days are over; before that nobody knows."""
    assert ruled(DEATH_90, "", "2026-03-01 08:00").state == "not-applicable"
    assert ruled(DEATH_90, "", "2026-03-01 08:00", "2026-04-15").state == "censored"


def test_days_can_count_from_the_discharge_after_an_operation() -> None:
    """Discharged on 8 April, acutely back on the 18th; who dies in hospital cannot come back."""
    back = "Encounter | IMP | 2026-04-18 08:00 .. 2026-04-20 08:00 | EM"
    found = ruled(BACK_30, OPERATION + back, "2026-03-01 08:00")
    assert (found.state, found.days) == ("event", 10.0)
    died = "Patient | 1950-03-01 | male | died 2026-04-05 08:00"
    assert ruled(BACK_30, OPERATION + died, "2026-03-01 08:00").state == "not-applicable"


def test_a_death_without_a_date_leaves_the_outcome_unknown() -> None:
    """It may have come within the days, or long after."""
    undated = """{"resourceType": "Bundle", "type": "collection", "entry": [{"resource":
        {"resourceType": "Patient", "id": "p", "deceasedBoolean": true}}]}"""
    record = build_record(decode_bundle(undated.encode()), Wanted(frozenset(), stay_rule=RULE))
    found = find_outcome(DETERIORATION, Later(record, RULE, moment("2026-12-01")), 0.0)
    assert (found.state, found.reason) == ("censored", "a death without a date")


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "fact"},
        {"kind": "death", "of": ["copd"]},
        {"kind": "stroke"},
        {"kind": "fact", "of": ["copd"], "maybe": 1},
    ],
)
def test_a_rule_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"within_days": 14, "events": [wrong]}, OutcomeRule)
