"""Proportions and their Wilson intervals against published examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from validation.cohort import Sample
from validation.statistics import at_threshold, effective_n, proportion, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(hits: int, n: int, low: float, high: float) -> None:
    """The four examples of Newcombe, Stat Med 1998;17:857-872, table I, method 3 (score)."""
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


@given(hits=st.lists(st.booleans(), min_size=1, max_size=60))
def test_value_lies_in_its_interval(hits: list[bool]) -> None:
    """For any outcome the proportion lies inside its interval, and that inside 0 to 1."""
    found = proportion("share", np.array(hits), np.arange(len(hits)))
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_copies_of_a_patient_count_once() -> None:
    """100 patients written five times are worth about 100 rows, not 500."""
    hit = np.repeat(np.arange(100) < 30, 5)
    patient = np.repeat(np.arange(100), 5)
    assert effective_n(hit, patient) == pytest.approx(99)
    assert effective_n(hit, np.arange(500)) == 500
    clustered = proportion("share", hit, patient)
    assert (clustered.low, clustered.high) == pytest.approx(wilson(29.7, 99))
    assert "effective sample size" in clustered.method


def test_repeated_patients_without_any_hit_count_once_each() -> None:
    """None of 40 predictions of 10 patients: the interval is that of 0 of 10."""
    none = proportion("share", np.zeros(40, dtype=bool), np.repeat(np.arange(10), 4))
    assert (none.low, none.high) == pytest.approx(wilson(0, 10))


def test_nobody_flagged_gives_no_predictive_value() -> None:
    """A threshold nobody reaches has a sensitivity of 0 and no predictive value at all."""
    sample = Sample(np.arange(40) < 20, np.full(40, 0.1), np.arange(40))
    found = {one.name: one for one in at_threshold(sample, 0.5)}
    assert found["sensitivity_at_0.5"].value == 0
    assert found["ppv_at_0.5"].value is None
    assert found["ppv_at_0.5"].method == "not estimable: nobody in the denominator"


def test_four_proportions_at_a_threshold_by_hand() -> None:
    """Flagged at or above 0.2: 3 of 4 with the outcome, 2 of 6 without."""
    sample = Sample(
        event=np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool),
        risk=np.array([0.9, 0.5, 0.2, 0.1, 0.8, 0.4, 0.1, 0.1, 0.1, 0.05]),
        patient=np.arange(10),
    )
    found = {one.name: (one.events, one.n) for one in at_threshold(sample, 0.2)}
    assert found == {
        "flag_rate_at_0.2": (5, 10),
        "sensitivity_at_0.2": (3, 4),
        "specificity_at_0.2": (4, 6),
        "ppv_at_0.2": (3, 5),
    }
