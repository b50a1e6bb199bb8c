"""Calibration: known slopes and intercepts, closed forms, and what cannot be estimated."""

import numpy as np
import pytest

from validation.cohort import Sample
from validation.errors import TooFewEvents
from validation.statistics import (
    _spline,
    calibration_curve,
    calibration_groups,
    calibration_in_the_large,
    calibration_slope,
    log_odds,
    risk_distribution,
)


def inverse(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def own_risks(n: int = 20_000, *, seed: int = 1) -> Sample:
    """Patients whose outcomes are drawn from the very risks predicted for them."""
    random = np.random.default_rng(seed)
    risk = inverse(random.normal(-2, 1, n))
    return Sample(event=random.random(n) < risk, risk=risk, patient=np.arange(n))


def with_log_odds(sample: Sample, change: float, *, times: float = 1.0) -> Sample:
    return Sample(sample.event, inverse(log_odds(sample.risk) * times + change), sample.patient)


def test_slope_is_one_for_outcomes_drawn_from_the_risks() -> None:
    """A perfect model has a slope of 1 and an intercept of 0, within their intervals."""
    for found, ideal in (
        (calibration_slope(own_risks()), 1),
        (calibration_in_the_large(own_risks()), 0),
    ):
        assert found.low is not None
        assert found.high is not None
        assert found.low < ideal < found.high
        assert found.high - found.low < 0.12


def test_slope_halves_when_the_log_odds_are_doubled() -> None:
    """Twice too extreme a model has half the slope, exactly (the regression is linear in them)."""
    straight = calibration_slope(own_risks())
    doubled = calibration_slope(with_log_odds(own_risks(), 0, times=2))
    assert straight.value is not None
    assert doubled.value == pytest.approx(straight.value / 2, rel=1e-6)


def test_intercept_is_the_shift_of_the_log_odds() -> None:
    """Risks half a log-odds too low give an intercept half a log-odds higher, exactly."""
    straight = calibration_in_the_large(own_risks())
    too_low = calibration_in_the_large(with_log_odds(own_risks(), -0.5))
    assert straight.value is not None
    assert too_low.value == pytest.approx(straight.value + 0.5, rel=1e-6)


def test_slope_of_two_risks_has_a_closed_form() -> None:
    """With two risks the slope is the log odds ratio over the distance of the log-odds.

    20 of 100 had the outcome at 10 %, 60 of 100 at 40 %; the standard error is Woolf's,
    sqrt(1/20 + 1/80 + 1/60 + 1/40) (Woolf, Ann Hum Genet 1955;19:251-253).
    """
    event = np.concatenate([np.arange(100) < 20, np.arange(100) < 60])
    sample = Sample(event, np.repeat([0.1, 0.4], 100), np.arange(200))
    apart = np.log(0.4 / 0.6) - np.log(0.1 / 0.9)
    slope = np.log((60 / 40) / (20 / 80)) / apart
    half = 1.96 * np.sqrt(1 / 20 + 1 / 80 + 1 / 60 + 1 / 40) / apart
    found = calibration_slope(sample)
    assert found.value == pytest.approx(slope, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((slope - half, slope + half), rel=0.01)


def test_copies_of_a_patient_make_no_interval_narrower() -> None:
    """Every patient written four times: the interval of the slope stays as wide."""
    once = own_risks(1000)
    copied = Sample(np.repeat(once.event, 4), np.repeat(once.risk, 4), np.repeat(once.patient, 4))
    one, four = calibration_slope(once), calibration_slope(copied)
    assert four.value == pytest.approx(one.value)
    assert (four.low, four.high) == pytest.approx((one.low, one.high), rel=0.01)


def test_nine_patients_with_the_outcome_are_too_few() -> None:
    """Nothing is computed under ten patients with the outcome; the message counts them."""
    sample = Sample(np.arange(100) < 9, np.linspace(0.1, 0.9, 100), np.arange(100))
    with pytest.raises(TooFewEvents, match="9 patients with the outcome and 91 without"):
        calibration_slope(sample)


def test_many_events_of_few_patients_are_too_few() -> None:
    """Fifty events of five patients are five patients."""
    sample = Sample(np.arange(100) < 50, np.linspace(0.1, 0.9, 100), np.arange(100) // 10)
    with pytest.raises(TooFewEvents, match="5 patients with the outcome"):
        calibration_slope(sample)


@pytest.mark.parametrize(
    ("risk", "why"),
    [
        (np.full(100, 0.2), "every risk is the same"),
        (np.linspace(0.9, 0.1, 100), "the risks part events from non-events completely"),
    ],
)
def test_slope_that_does_not_exist_is_said_to_be_so(risk: np.ndarray, why: str) -> None:
    """No number where none exists: the reason stands in its place, and no curve is drawn."""
    sample = Sample(np.arange(100) < 40, risk, np.arange(100))
    found = calibration_slope(sample)
    assert found.value is None
    assert found.method == f"not estimable: {why}"
    assert calibration_curve(sample).empty


def test_flexible_curve_follows_a_bend_that_a_line_cannot() -> None:
    """Outcomes from a bent relation: the curve stays within 3 points of the truth."""
    random = np.random.default_rng(2)
    x = random.normal(-1.5, 1, 40_000)
    truth = inverse(-1.2 + 0.5 * (x + 1.5) + 0.35 * (x + 1.5) ** 2)
    sample = Sample(random.random(40_000) < truth, inverse(x), np.arange(40_000))
    curve = calibration_curve(sample)
    z = log_odds(curve["risk"].to_numpy())
    really = inverse(-1.2 + 0.5 * (z + 1.5) + 0.35 * (z + 1.5) ** 2)
    middle = (z > -3) & (z < 0.5)
    assert np.abs(curve["observed"] - really)[middle].max() < 0.03
    assert (curve["low"] < curve["observed"]).all()
    assert (curve["observed"] < curve["high"]).all()


def test_flexible_curve_is_straight_outside_the_outer_knots() -> None:
    """The natural spline does not swing at the ends (Harrell 2015, section 2.4.5)."""
    knots = np.array([-3.0, -2.0, -1.0, 0.5])
    for far in (np.linspace(-9, -4, 6), np.linspace(1, 6, 6)):
        assert np.abs(np.diff(_spline(far, knots), n=2, axis=0)).max() < 1e-9


def test_groups_hold_everyone_once_in_order_of_risk() -> None:
    """The tenths have equal size, rising risk, and all patients and events."""
    sample = own_risks(5000)
    groups = calibration_groups(sample)
    assert groups["n"].tolist() == [500] * 10
    assert groups["events"].sum() == sample.events
    assert groups["mean_risk"].is_monotonic_increasing
    assert (groups["low"] <= groups["observed"]).all()


def test_equal_risks_stay_in_one_group() -> None:
    """A score with three values has three groups, not ten."""
    sample = Sample(np.arange(300) % 3 == 0, np.repeat([0.1, 0.2, 0.6], 100), np.arange(300))
    assert calibration_groups(sample)["mean_risk"].tolist() == pytest.approx([0.1, 0.2, 0.6])


def test_distribution_holds_everyone_once() -> None:
    """Every patient is in one bin, those with and without the outcome apart."""
    sample = own_risks(5000)
    bins = risk_distribution(sample)
    assert bins["events"].sum() == sample.events
    assert bins["others"].sum() == sample.n - sample.events
    assert bins["high"].iloc[-1] >= sample.risk.max()
