"""Chapter 6: a feature knows what was known at the moment it is asked for, and nothing later."""

import pytest

from tests.spec.drawn import it, value

LAST_CRP = 'recipe = "last"\nof = ["crp"]'
ANY_COPD = 'recipe = "any"\nof = ["copd"]'


@pytest.mark.parametrize(
    ("as_of", "answer"),
    [
        ("2026-11-20 07:59", "missing"),  # not taken yet
        ("2026-11-20 08:00", "missing"),  # taken, but the laboratory has not answered
        ("2026-11-20 09:59", "missing"),
        ("2026-11-20 10:00", 40.0),
    ],
)
def test_a_blood_test_is_known_when_it_is_issued(as_of: str, answer: float | str) -> None:
    """Taken at 8, answered at 10."""
    table = "Observation | CRP | 2026-11-20 08:00 | 40 mg/L | issued 2026-11-20 10:00"
    assert it(table, LAST_CRP, as_of=as_of) == answer


def test_a_value_has_the_time_it_was_taken_not_answered() -> None:
    """The later answer belongs to the earlier sample: the newest sample counts."""
    table = """
        Observation | CRP | 2026-11-20 08:00 | 40 mg/L | issued 2026-11-20 16:00
        Observation | CRP | 2026-11-20 12:00 | 30 mg/L | issued 2026-11-20 13:00
    """
    assert it(table, LAST_CRP) == 30.0


def test_a_diagnosis_is_known_when_it_is_recorded() -> None:
    """The disease began in 2020, was recorded in 2026; the month before, nobody knew."""
    table = "Condition | COPD | 2020-05-01 | active | recorded 2026-11-01"
    assert it(table, ANY_COPD, as_of="2026-10-31 12:00") == 0.0
    assert it(table, ANY_COPD, as_of="2026-11-01 12:00") == 1.0


def test_what_is_dated_in_the_future_is_not_known() -> None:
    """A prescription from tomorrow on is none today."""
    table = "MedicationRequest | morphine | 2026-11-22 | active"
    assert it(table, 'recipe = "any"\nof = ["opioid"]') == 0.0


@pytest.mark.parametrize(
    ("written", "counts_from"),
    [
        ("2026", "2026-01-01 00:00"),
        ("2026-11", "2026-11-01 00:00"),
        ("2026-11-20", "2026-11-20 00:00"),
    ],
)
def test_a_partial_date_counts_from_its_first_moment(written: str, counts_from: str) -> None:
    """A year from New Year, a month from the first, a day from midnight in Denmark."""
    table = f"Observation | CRP | {written} | 40 mg/L"
    last = f'{LAST_CRP}\nwindow = ["as_of", "as_of"]'
    assert it(table, last, as_of=counts_from) == 40.0


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-20T08:00:00+01:00",
        "2026-11-20T07:00:00Z",
        "2026-11-20T07:00:00.000Z",
        "2026-11-20T02:00:00-05:00",
        "2026-11-20T08:00:00",  # no zone: Danish time
    ],
)
def test_the_same_moment_however_it_is_written(written: str) -> None:
    """8 o'clock in Denmark in winter."""
    table = f"Observation | CRP | {written} | 40 mg/L"
    last = f'{LAST_CRP}\nwindow = ["as_of", "as_of"]'
    assert it(table, last, as_of="2026-11-20 08:00") == 40.0


def test_a_measurement_over_a_period_counts_from_its_start() -> None:
    """Telemedicine sends `effectivePeriod`, with the same moment at both ends."""
    table = "Observation | saturation | 2026-11-20 08:00 .. 2026-11-20 08:00 | 94 %"
    found = value(table, 'recipe = "last"\nof = ["spo2"]\nwindow = ["as_of - 1 w", "as_of"]')
    assert (found.value, found.status) == (94.0, "measured")


def test_a_measurement_without_its_own_time_has_that_of_its_answer() -> None:
    """No effective time: `issued` stands in for it."""
    table = "Observation | CRP | | 40 mg/L | issued 2026-11-20 10:00"
    assert it(table, LAST_CRP + '\nwindow = ["as_of - 2 d", "as_of"]') == 40.0


def test_a_measurement_without_any_time_is_not_used() -> None:
    """Nobody knows whether it is from today or from 1998."""
    assert it("Observation | CRP | | 40 mg/L", LAST_CRP) == "missing"


def test_age_is_in_whole_years_lived() -> None:
    """76 the day before the 77th birthday, 77 on it."""
    age = 'recipe = "patient"\nattribute = "age"'
    patient = "Patient | 1949-11-21 | male"
    assert it(patient, age, as_of="2026-11-20 23:59") == 76.0
    assert it(patient, age, as_of="2026-11-21 00:00") == 77.0


@pytest.mark.parametrize(("gender", "answer"), [("male", 1.0), ("female", 0.0), ("", "missing")])
def test_sex_is_missing_where_the_record_does_not_say(gender: str, answer: float | str) -> None:
    """1 for men, 0 for women."""
    assert (
        it(f"Patient | 1950-03-01 | {gender}", 'recipe = "patient"\nattribute = "male"') == answer
    )


def test_age_is_missing_without_a_birth_date() -> None:
    """Danish profiles do not demand one."""
    assert it("Patient | | male", 'recipe = "patient"\nattribute = "age"') == "missing"


def test_asking_earlier_gives_the_same_as_not_having_what_came_later() -> None:
    """The answer on 1 June does not change because of what happened in November."""
    before = """
        Encounter   | IMP           | 2026-02-01 08:00 .. 2026-02-04 08:00 | EM
        Observation | CRP           | 2026-02-02 08:00 | 120 mg/L
        Condition   | heart failure | 2026-02-02 | active | recorded 2026-02-04
    """
    after = """
        Encounter   | IMP           | 2026-11-01 08:00 .. 2026-11-04 08:00 | EM
        Observation | CRP           | 2026-11-02 08:00 | 12 mg/L
        Condition   | COPD          | 2021-02-02 | active | recorded 2026-11-04
    """
    for feature in (LAST_CRP, ANY_COPD, 'recipe = "count"\nof = ["stay"]'):
        then = it(before + after, feature, as_of="2026-06-01 12:00")
        assert then == it(before, feature, as_of="2026-06-01 12:00")
