"""Chapter 1: one number from a series of measurements."""

import math

import pytest

from tests.spec.drawn import it, value

HAEMOGLOBIN = """
    Observation | haemoglobin | 2026-10-01 08:00 | 8.2 mmol/L
    Observation | haemoglobin | 2026-11-14 08:00 | 5.9 mmol/L
    Observation | haemoglobin | 2026-11-17 08:00 | 7.1 mmol/L
    Observation | haemoglobin | 2026-11-20 08:00 | 6.4 mmol/L
"""
WEEK = 'of = ["haemoglobin"]\nwindow = ["as_of - 7 d", "as_of"]\n'


@pytest.mark.parametrize(
    ("recipe", "answer"),
    [
        ("last", 6.4),
        ("first", 5.9),
        ("min", 5.9),
        ("max", 7.1),
        ("mean", (5.9 + 7.1 + 6.4) / 3),
        ("median", 6.4),
        ("change", 6.4 - 7.1),
        ("gain", 6.4 - 5.9),
        ("gain_percent", 100 * (6.4 - 5.9) / 5.9),
    ],
)
def test_one_number_of_a_week(recipe: str, answer: float) -> None:
    """Of the three values of the last week; the one of October is outside the window."""
    week = 'of = ["haemoglobin"]\nwindow = ["as_of - 8 d", "as_of"]\n'
    assert it(HAEMOGLOBIN, f'recipe = "{recipe}"\n{week}') == pytest.approx(answer)


def test_both_ends_of_a_window_belong_to_it() -> None:
    """A value exactly seven days old is in a window of seven days, one a minute older is not."""
    table = """
        Observation | haemoglobin | 2026-11-14 11:59 | 5.0 mmol/L
        Observation | haemoglobin | 2026-11-14 12:00 | 6.0 mmol/L
        Observation | haemoglobin | 2026-11-21 12:00 | 7.0 mmol/L
    """
    assert it(table, 'recipe = "first"\n' + WEEK) == 6.0
    assert it(table, 'recipe = "last"\n' + WEEK) == 7.0


def test_without_a_window_all_that_is_known_counts() -> None:
    """The lowest haemoglobin there ever was."""
    assert it(HAEMOGLOBIN, 'recipe = "max"\nof = ["haemoglobin"]') == 8.2


@pytest.mark.parametrize(
    "recipe", ["last", "min", "mean", "median", "change", "gain", "gain_percent", "slope"]
)
def test_no_measurement_is_no_number(recipe: str) -> None:
    """Nothing measured gives `missing`, never a normal value."""
    assert it("", f'recipe = "{recipe}"\n{WEEK}') == "missing"


@pytest.mark.parametrize("recipe", ["change", "gain", "gain_percent", "slope"])
def test_one_measurement_is_no_trend(recipe: str) -> None:
    """A trend needs two values."""
    table = "Observation | haemoglobin | 2026-11-20 08:00 | 6.4 mmol/L"
    assert it(table, f'recipe = "{recipe}"\n{WEEK}') == "missing"


def test_a_mean_can_demand_how_many_it_is_made_of() -> None:
    """Three values are enough for `min_count = 3`, two are not."""
    mean = 'recipe = "mean"\nmin_count = 3\nof = ["haemoglobin"]\n'
    assert it(HAEMOGLOBIN, mean + 'window = ["as_of - 8 d", "as_of"]') != "missing"
    assert it(HAEMOGLOBIN, mean + 'window = ["as_of - 5 d", "as_of"]') == "missing"


def test_a_slope_is_change_per_week() -> None:
    """Half a kilo a day is three and a half kilos a week."""
    table = """
        Observation | weight | 2026-11-18 08:00 | 80.0 kg
        Observation | weight | 2026-11-19 08:00 | 80.5 kg
        Observation | weight | 2026-11-20 08:00 | 81.0 kg
    """
    slope = 'recipe = "slope"\nof = ["weight"]\nwindow = ["as_of - 4 w", "as_of"]'
    assert it(table, slope) == pytest.approx(3.5)


SATURATIONS = """
    Observation | saturation | 2026-10-05 08:00 | 94 %
    Observation | saturation | 2026-10-12 08:00 | 92 %
    Observation | saturation | 2026-10-19 08:00 | 95 %
    Observation | saturation | 2026-10-26 08:00 | 93 %
    Observation | saturation | 2026-11-20 08:00 | 88 %
"""
DELTA = """
    recipe = "delta_to_baseline"
    of = ["spo2"]
    window = ["as_of - 8 d", "as_of"]
    baseline = ["as_of - 12 w", "as_of - 8 d"]
    min_count = 4
    floor_sd = 1.0
"""


def test_the_distance_to_ones_own_baseline_is_in_own_standard_deviations() -> None:
    """Usually 93.5 % (median), give or take 1.4826 (median deviation 1, as standard deviation)."""
    found = value(SATURATIONS, DELTA)
    assert found.value == pytest.approx((88 - 93.5) / 1.4826)
    assert found.baseline == 93.5


def test_a_steady_patient_is_measured_by_the_floor() -> None:
    """Always 94 %: the spread is taken as 1 percentage point, not as nothing."""
    table = """
        Observation | saturation | 2026-10-05 08:00 | 94 %
        Observation | saturation | 2026-10-12 08:00 | 94 %
        Observation | saturation | 2026-10-19 08:00 | 94 %
        Observation | saturation | 2026-10-26 08:00 | 94 %
        Observation | saturation | 2026-11-20 08:00 | 90 %
    """
    assert it(table, DELTA) == -4.0


def test_a_short_baseline_is_no_baseline() -> None:
    """Three values where four are demanded give no number."""
    three = "\n".join(SATURATIONS.strip().splitlines()[1:])
    assert it(three, DELTA) == "missing"


def test_the_usual_value_can_be_a_feature_of_its_own() -> None:
    """`baseline_median` gives the 93.5 itself."""
    usual = """
        recipe = "baseline_median"
        of = ["spo2"]
        baseline = ["as_of - 12 w", "as_of - 8 d"]
    """
    assert it(SATURATIONS, usual) == 93.5


def test_days_around_an_event_can_be_left_out_of_the_baseline() -> None:
    """The values around the exacerbation of 20 October say nothing of the usual state."""
    table = SATURATIONS + "\nCondition | DJ441 | 2026-10-20 | active"
    usual = """
        recipe = "baseline_median"
        of = ["spo2"]
        baseline = ["as_of - 12 w", "as_of - 8 d"]
        except_around = { of = ["copd_exacerbation"], before_days = 3, after_days = 14 }
    """
    assert it(table, usual) == 93.0


def test_an_event_heard_of_later_leaves_nothing_out_yet() -> None:
    """The diagnosis was recorded after the question was asked."""
    table = SATURATIONS + "\nCondition | DJ441 | 2026-10-20 | active | recorded 2026-12-01"
    usual = """
        recipe = "baseline_median"
        of = ["spo2"]
        baseline = ["as_of - 12 w", "as_of - 8 d"]
        except_around = { of = ["copd_exacerbation"], before_days = 3, after_days = 14 }
    """
    assert it(table, usual) == 93.5


def test_an_old_value_is_used_and_called_stale() -> None:
    """A pulse of yesterday is stale where 48 hours were allowed and it is 52 hours old."""
    table = "Observation | pulse | 2026-11-19 08:00 | 88 /min"
    found = value(table, 'recipe = "last"\nof = ["pulse"]\nstale_after = "48 h"')
    assert (found.value, found.status) == (88.0, "stale")


def test_a_sum_of_scores_needs_every_one_of_them() -> None:
    """Cough 2 and fatigue 3 make 5; without the fatigue there is no sum."""
    both = """
        QuestionnaireResponse | symptom_cough   | 2026-11-20 08:00 | 2
        QuestionnaireResponse | symptom_fatigue | 2026-11-20 08:00 | 3
    """
    one = "QuestionnaireResponse | symptom_cough | 2026-11-20 08:00 | 2"
    total = 'recipe = "sum_scores"\nof = ["symptom_cough", "symptom_fatigue"]'
    worth: dict[str, dict[str, float]] = {"symptom_cough": {}, "symptom_fatigue": {}}
    assert it(both, total, answers=worth) == 5.0
    assert it(one, total, answers=worth) == "missing"


def test_missed_measurements_are_weeks_without_any() -> None:
    """Four weeks: two measurements in the last, none in the two before, one in the first."""
    table = """
        Observation | saturation | 2026-10-26 08:00 | 94 %
        Observation | saturation | 2026-11-19 08:00 | 94 %
        Observation | saturation | 2026-11-20 08:00 | 94 %
    """
    missed = """
        recipe = "missed"
        of = ["spo2"]
        window = ["as_of - 4 w", "as_of"]
        expected_every = "1 w"
    """
    assert it(table, missed) == 2.0
    assert it("", missed) == 4.0


@pytest.mark.parametrize(("day", "wintry"), [("2026-01-15", 1.0), ("2026-07-16", -1.0)])
def test_the_season_is_that_of_the_newest_measurement(day: str, wintry: float) -> None:
    """1 in the middle of January, -1 in the middle of July."""
    table = f"Observation | saturation | {day} 08:00 | 94 %"
    found = it(table, 'recipe = "season"\nof = ["spo2"]')
    assert isinstance(found, float)
    assert math.isclose(found, wintry, abs_tol=0.001)


def test_a_number_tells_where_it_comes_from() -> None:
    """Resource, time, code, the number and unit as sent, and the series behind it."""
    table = """
        Observation | haemoglobin (LOINC) | 2026-11-19 08:00 | 11.0 g/dL | id lab-1
        Observation | haemoglobin         | 2026-11-20 08:00 | 6.4 mmol/L | id lab-2
    """
    newest = value(table, 'recipe = "last"\nof = ["haemoglobin"]')
    lowest = value(table, 'recipe = "max"\nof = ["haemoglobin"]')
    assert (newest.sources, newest.code) == (("Observation/lab-2",), "NPU02319")
    assert lowest.value == pytest.approx(11.0 * 0.6206, abs=0.001)
    assert (lowest.original, lowest.unit) == (11.0, "g/dL")
    assert [round(number, 1) for _, number in newest.series] == [6.8, 6.4]


# ---- the patient's own alarm limits -------------------------------------------------------------

RED_LOW = 'recipe = "limit"\nof = ["spo2"]\nattribute = "red-low"'


def test_the_patient_s_own_alarm_limits_come_with_the_measurement() -> None:
    """The telemedicine platform states red and yellow limits as reference ranges."""
    table = "Observation | saturation | 2026-11-20 08:00 | 91 % | red 85 .. 100 | yellow 88 .."
    assert it(table, RED_LOW) == 85.0
    assert it(table, RED_LOW.replace("red-low", "yellow-low")) == 88.0
    assert it(table, RED_LOW.replace("red-low", "red-high")) == 100.0
    assert it(table, RED_LOW.replace("red-low", "yellow-high")) == "missing"


def test_the_newest_limit_that_was_stated_counts() -> None:
    """Set lower in October; November's measurement does not repeat it."""
    table = """
        Observation | saturation | 2026-09-01 08:00 | 91 % | red 88 ..
        Observation | saturation | 2026-10-01 08:00 | 91 % | red 84 ..
        Observation | saturation | 2026-11-20 08:00 | 91 %
    """
    assert it(table, RED_LOW) == 84.0


def test_a_limit_is_read_in_the_unit_of_the_concept() -> None:
    """A fraction of 0.85 is 85 per cent."""
    assert it("Observation | saturation | 2026-11-20 08:00 | 0.91 1 | red 0.85 ..", RED_LOW) == 85.0


def test_an_ordinary_reference_range_is_no_alarm_limit() -> None:
    """The laboratory's range of the healthy has no such type."""
    found = value("Observation | saturation | 2026-11-20 08:00 | 91 %", RED_LOW)
    assert (found.value, found.status) == (None, "missing")
