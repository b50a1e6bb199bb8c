"""Chapter 3: hospital contacts become stays, and stays are counted or are what the question is of.

Contacts at most 4 hours apart are one stay; a stay of at least 12 hours is an admission.
"""

import pytest

from tests.spec.drawn import it, row

ADMISSIONS = 'recipe = "count"\nof = ["stay"]'
ACUTE = ADMISSIONS + '\nwhere = ["acute"]'
VISITS = 'recipe = "count"\nof = ["contact"]\nwhere = ["EMER"]'


@pytest.mark.parametrize(
    ("second", "stays"),
    [
        ("2026-03-02 12:00", 1.0),  # 4 hours after the first ended
        ("2026-03-02 12:01", 2.0),  # 4 hours and 1 minute
        ("2026-03-01 20:00", 1.0),  # overlapping
    ],
)
def test_contacts_at_most_four_hours_apart_are_one_stay(second: str, stays: float) -> None:
    """A transfer between wards is no new admission."""
    table = f"""
        Encounter | IMP | 2026-03-01 08:00 .. 2026-03-02 08:00 | EM
        Encounter | IMP | {second} .. 2026-03-05 08:00 | EM
    """
    assert it(table, ADMISSIONS) == stays


@pytest.mark.parametrize(("end", "admissions"), [("20:00", 1.0), ("19:59", 0.0)])
def test_twelve_hours_make_an_admission(end: str, admissions: float) -> None:
    """From 8 to 20 o'clock is an admission; a minute less is a contact."""
    table = f"Encounter | IMP | 2026-03-01 08:00 .. 2026-03-01 {end} | EM"
    assert it(table, ADMISSIONS) == admissions


def test_short_contacts_add_up_to_an_admission() -> None:
    """Four hours in the emergency department and nine in a ward are thirteen."""
    table = """
        Encounter | EMER | 2026-03-01 08:00 .. 2026-03-01 12:00
        Encounter | IMP  | 2026-03-01 13:00 .. 2026-03-01 22:00 | EL
    """
    assert it(table, ADMISSIONS) == 1.0
    assert it(table, VISITS) == 0.0


def test_an_emergency_visit_alone_is_a_visit() -> None:
    """Two hours in the emergency department are no admission, but count as a visit."""
    table = "Encounter | EMER | 2026-03-01 08:00 .. 2026-03-01 10:00"
    assert it(table, VISITS) == 1.0
    assert it(table, ADMISSIONS) == 0.0


def test_outpatient_visits_are_no_part_of_a_stay() -> None:
    """An outpatient visit between two stays does not link them."""
    table = """
        Encounter | IMP | 2026-03-01 08:00 .. 2026-03-02 08:00 | EM
        Encounter | AMB | 2026-03-02 10:00 .. 2026-03-02 13:00
        Encounter | IMP | 2026-03-02 16:00 .. 2026-03-04 08:00 | EM
    """
    assert it(table, ADMISSIONS) == 2.0


@pytest.mark.parametrize(
    ("first", "second", "acute"),
    [
        ("IMP | 2026-03-01 08:00 .. 2026-03-01 12:00 | EM", "EL", 1.0),
        ("IMP | 2026-03-01 08:00 .. 2026-03-01 12:00 | ATA3", "EM", 0.0),
        ("EMER | 2026-03-01 08:00 .. 2026-03-01 12:00", "EL", 1.0),
    ],
)
def test_a_stay_is_as_acute_as_it_began(first: str, second: str, acute: float) -> None:
    """The first contact decides; one in the emergency department is acute in itself."""
    table = f"""
        Encounter | {first}
        Encounter | IMP | 2026-03-01 13:00 .. 2026-03-04 08:00 | {second}
    """
    assert it(table, ACUTE) == acute


def test_a_stay_that_does_not_say_how_acute_it_was_cannot_be_counted_as_either() -> None:
    """Two stays are known, but not how many of them were acute."""
    table = """
        Encounter | IMP | 2026-03-01 08:00 .. 2026-03-04 08:00 | EM
        Encounter | IMP | 2026-06-01 08:00 .. 2026-06-04 08:00
    """
    assert it(table, ADMISSIONS) == 2.0
    assert it(table, ACUTE) == "not-obtained"
    assert it(table, ACUTE.replace("acute", "planned")) == "not-obtained"
    assert it(table, ACUTE.replace("count", "any")) == 1.0


@pytest.mark.parametrize("status", ["planned", "cancelled"])
def test_what_has_not_taken_place_does_not_count(status: str) -> None:
    """A planned or cancelled contact is none."""
    table = f"Encounter | IMP | 2026-03-01 08:00 .. 2026-03-04 08:00 | {status}"
    assert it(table, ADMISSIONS) == 0.0


# ---- the stay the question is about -------------------------------------------------------------

INDEX = """
    Encounter | IMP | 2026-08-01 08:00 .. 2026-08-04 08:00 | EM
    Encounter | IMP | 2026-11-18 12:00 .. 2026-11-21 10:00 | EM
"""
DAYS = 'recipe = "index"\nattribute = "days"'


@pytest.mark.parametrize(
    ("as_of", "days"),
    [
        ("2026-11-20 12:00", 2.0),  # still in
        ("2026-11-21 10:00", 2.916666667),  # on leaving
        ("2026-11-22 10:00", 2.916666667),  # 24 hours later
        ("2026-11-22 10:01", "missing"),  # later than that
        ("2026-10-01 12:00", "missing"),  # between stays
    ],
)
def test_the_index_stay_contains_the_moment_or_ended_a_day_before(
    as_of: str, days: float | str
) -> None:
    """Its length so far; without an index stay there is none."""
    assert it(INDEX, DAYS, as_of=as_of) == days


def test_the_index_stay_is_not_among_the_earlier_ones() -> None:
    """One earlier admission, whether the index stay goes on or has just ended."""
    assert it(INDEX, ADMISSIONS, as_of="2026-11-20 12:00") == 1.0
    assert it(INDEX, ADMISSIONS, as_of="2026-11-21 12:00") == 1.0


def test_windows_hang_on_the_index_stay() -> None:
    """The CRP on admission belongs to the stay, that of the day before does not."""
    table = (
        INDEX
        + """
        Observation | CRP | 2026-11-17 12:00 | 210 mg/L
        Observation | CRP | 2026-11-18 12:00 | 150 mg/L
        Observation | CRP | 2026-11-20 08:00 | 40 mg/L
    """
    )
    stay = 'of = ["crp"]\nwindow = ["stay.start", "stay.end"]'
    assert it(table, 'recipe = "gain"\n' + stay) == -110.0
    assert it(table, 'recipe = "max"\n' + stay, as_of="2026-11-21 12:00") == 150.0


def test_without_an_index_stay_its_windows_are_empty() -> None:
    """A CRP in no stay is none of the stay, and nothing is said of days around it either."""
    table = "Observation | CRP | 2026-11-17 12:00 | 210 mg/L"
    during = 'recipe = "count"\nof = ["crp"]\nwindow = ["stay.start", "as_of"]'
    assert it(table, during) == "missing"


@pytest.mark.parametrize(("said", "acute"), [("EM", 1.0), ("ATA3", 0.0), ("", "missing")])
def test_the_index_stay_is_acute_planned_or_unstated(said: str, acute: float | str) -> None:
    """What the record does not say is missing, not planned."""
    table = f"Encounter | IMP | 2026-11-18 12:00 .. | {said} | in-progress"
    assert it(table, 'recipe = "index"\nattribute = "acute"') == acute


def test_the_weekday_of_leaving_counts_from_monday() -> None:
    """21 November 2026 is a Saturday: 5."""
    assert it(INDEX, 'recipe = "index"\nattribute = "weekday"') == 5.0


def test_the_index_stay_tells_its_reason() -> None:
    """Admitted for heart failure, not for COPD."""
    table = "Encounter | IMP | 2026-11-18 12:00 .. | EM | in-progress | for heart failure"
    reason = 'recipe = "index"\nattribute = "reason"\n'
    assert it(table, reason + 'of = ["heart_failure"]') == 1.0
    assert it(table, reason + 'of = ["copd"]') == 0.0


def test_an_index_stay_with_a_reason_nobody_can_read_does_not_say_what_it_was_not_for() -> None:
    """It was for heart failure; whether it was for COPD too, the record does not let us see."""
    stay = "Encounter | IMP | 2026-11-18 12:00 .. | in-progress"
    table = f"{stay} | for heart failure | because of Condition/elsewhere"
    reason = 'recipe = "index"\nattribute = "reason"\n'
    assert it(table, reason + 'of = ["heart_failure"]') == 1.0
    assert it(table, reason + 'of = ["copd"]') == "missing"


# ---- what earlier stays were for ----------------------------------------------------------------

FOR_HEART_FAILURE = ADMISSIONS + '\nwhere = ["acute", "for:heart_failure"]'


def test_earlier_admissions_are_counted_by_what_they_were_for() -> None:
    """Three acute admissions, one of them for heart failure; no planned one counts."""
    table = """
        Encounter | IMP | 2026-01-01 08:00 .. 2026-01-04 08:00 | EM | for heart failure
        Encounter | IMP | 2026-03-01 08:00 .. 2026-03-04 08:00 | EM | for COPD
        Encounter | IMP | 2026-05-01 08:00 .. 2026-05-04 08:00 | EM | for DR074
        Encounter | IMP | 2026-07-01 08:00 .. 2026-07-04 08:00 | EL | for heart failure
    """
    assert it(table, ADMISSIONS) == 4.0
    assert it(table, FOR_HEART_FAILURE) == 1.0
    assert it(table, FOR_HEART_FAILURE.replace("heart_failure", "diabetes")) == 0.0


def test_one_contact_of_a_stay_says_what_the_stay_was_for() -> None:
    """The emergency department says nothing, the ward says COPD."""
    table = """
        Encounter | EMER | 2026-03-01 08:00 .. 2026-03-01 12:00
        Encounter | IMP  | 2026-03-01 13:00 .. 2026-03-05 08:00 | for COPD
    """
    assert it(table, ADMISSIONS + '\nwhere = ["for:copd"]') == 1.0
    assert it(table, FOR_HEART_FAILURE) == 0.0


def test_an_acute_stay_without_a_reason_may_have_been_for_anything() -> None:
    """It is not counted as none; a planned one without a reason cannot have been the acute one."""
    table = """
        Encounter | IMP | 2026-01-01 08:00 .. 2026-01-04 08:00 | EM | for heart failure
        Encounter | IMP | 2026-03-01 08:00 .. 2026-03-04 08:00 | {urgency}
    """
    assert it(table.format(urgency="EM"), FOR_HEART_FAILURE) == "not-obtained"
    assert it(table.format(urgency=""), FOR_HEART_FAILURE) == "not-obtained"
    assert it(table.format(urgency="EL"), FOR_HEART_FAILURE) == 1.0
    some = FOR_HEART_FAILURE.replace("count", "any")
    assert it(table.format(urgency="EM"), some) == 1.0


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ("because of Condition/hf", 1.0),
        ("diagnosis Condition/hf", 1.0),
        ("diagnosis Condition/hf 1", 1.0),
        ("diagnosis Condition/hf AD", 1.0),
        ("diagnosis Condition/other 1 | diagnosis Condition/hf 2", 0.0),
        ("diagnosis Condition/other | diagnosis Condition/hf CM", 0.0),
        ("diagnosis Condition/hf 2", "not-obtained"),
        ("diagnosis Condition/elsewhere", "not-obtained"),
        ("diagnosis Condition/other | diagnosis Condition/elsewhere", "not-obtained"),
    ],
)
def test_a_stay_is_for_the_conditions_it_refers_to(said: str, count: float | str) -> None:
    """A reason, or a main diagnosis; a comorbidity or a secondary diagnosis is neither.

    What is not in the input cannot be read, and may have been anything.
    """
    table = f"""
        Encounter | IMP | 2026-03-01 08:00 .. 2026-03-04 08:00 | EM | {said}
        Condition | heart failure | 2025-01-01 | id hf
        Condition | DR074 | 2025-01-01 | id other
    """
    assert it(table, FOR_HEART_FAILURE) == count


def test_visits_are_counted_by_what_they_were_for() -> None:
    """Two hours in the emergency department for COPD, and two for something else."""
    table = """
        Encounter | EMER | 2026-03-01 08:00 .. 2026-03-01 10:00 | for COPD
        Encounter | EMER | 2026-04-01 08:00 .. 2026-04-01 10:00 | for DR074
    """
    assert it(table, VISITS) == 2.0
    assert it(table, VISITS.replace('["EMER"]', '["EMER", "for:copd"]')) == 1.0


def test_a_stay_that_ended_later_is_still_going_on_when_asked_before() -> None:
    """Nothing of its end is known on 20 November: neither its date nor its length."""
    found = row(INDEX, DAYS, as_of="2026-11-20 12:00")
    assert found.index is not None
    assert found.index.end == float("inf")


def test_an_admission_only_counts_once_it_has_lasted_twelve_hours() -> None:
    """Admitted at 8; at 18 o'clock it is a contact, at 20 an admission (seen from outside it)."""
    table = "Encounter | IMP | 2026-11-20 08:00 .. 2026-11-25 08:00 | EM"
    early = row(table, ADMISSIONS, as_of="2026-11-20 18:00")
    late = row(table, ADMISSIONS, as_of="2026-11-20 20:00")
    assert early.index is not None
    assert late.index is not None
    assert round(early.index.hours_by(early.as_of), 6) == 10.0
    assert round(late.index.hours_by(late.as_of), 6) == 12.0
