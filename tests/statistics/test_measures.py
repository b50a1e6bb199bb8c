"""AUROC, O/E, Brier and net benefit against answers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from validation.cohort import Sample
from validation.resampling import (
    auroc,
    brier,
    mean_risk,
    net_benefit,
    net_benefit_of_all,
    observed_expected,
    rank,
    scaled_brier,
    weigh,
    weigh_equally,
)


def a_sample(events: list[float], others: list[float]) -> Sample:
    """One prediction per patient: the risks of those with, and without, the outcome."""
    risk = np.array([*events, *others])
    return Sample(event=np.arange(len(risk)) < len(events), risk=risk, patient=np.arange(len(risk)))


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    """Of 2 x 3 pairs five are right: 0.8 beats all three, 0.4 beats 0.3 and 0.2."""
    assert auroc(weigh_equally(a_sample([0.8, 0.4], [0.5, 0.3, 0.2]))) == pytest.approx(5 / 6)


def test_tie_counts_half() -> None:
    """An event and a non-event with the same risk are half a right pair."""
    assert auroc(weigh_equally(a_sample([0.5, 0.9], [0.5, 0.1]))) == pytest.approx(3.5 / 4)


@given(
    events=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.7]), min_size=1, max_size=20),
    others=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.7]), min_size=1, max_size=20),
)
def test_auroc_equals_mann_whitney_over_all_pairs(events: list[float], others: list[float]) -> None:
    """The fast formula gives what counting every pair gives (Hanley & McNeil 1982)."""
    pairs = [1.0 if e > o else 0.5 if e == o else 0.0 for e in events for o in others]
    assert auroc(weigh_equally(a_sample(events, others))) == pytest.approx(np.mean(pairs))


@given(times=st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_weight_is_the_same_as_repeating_the_row(times: list[int]) -> None:
    """A row that weighs three counts as three equal rows; the bootstrap rests on this."""
    sample = a_sample([0.8, 0.4], [0.4, 0.3, 0.2])
    again = Sample(
        np.repeat(sample.event, times), np.repeat(sample.risk, times), np.arange(sum(times))
    )
    order = np.argsort(sample.risk, kind="stable")
    weighted = weigh(rank(sample), np.array(times, dtype=np.float64)[order])
    if 0 < again.events < again.n:
        for measure in (auroc, observed_expected, brier, scaled_brier, mean_risk):
            assert measure(weighted) == pytest.approx(measure(weigh_equally(again)))


def test_observed_over_expected_by_hand() -> None:
    """Two events, expected 0.8 + 0.4 + 0.2 + 0.2 = 1.6: O/E is 1.25."""
    assert observed_expected(weigh_equally(a_sample([0.8, 0.4], [0.2, 0.2]))) == pytest.approx(1.25)


def test_brier_by_hand() -> None:
    """Squares of 0.2, 0.6, 0.2, 0.2 have mean 0.12; the rate alone gives 0.25; scaled 0.52."""
    sample = weigh_equally(a_sample([0.8, 0.4], [0.2, 0.2]))
    assert brier(sample) == pytest.approx(0.12)
    assert scaled_brier(sample) == pytest.approx(1 - 0.12 / 0.25)


def test_net_benefit_by_hand() -> None:
    """At 20 %: 3 rightly and 4 wrongly flagged of 10, odds 1/4: (3 - 4/4) / 10 = 0.2.

    Vickers & Elkin, Med Decis Making 2006;26:565-574: TP/n - FP/n * p/(1-p).
    """
    sample = weigh_equally(a_sample([0.9, 0.5, 0.2, 0.1], [0.8, 0.4, 0.3, 0.2, 0.1, 0.05]))
    assert net_benefit(sample, np.array([0.2])).tolist() == pytest.approx([0.2])


def test_acting_on_everyone_does_nothing_at_a_threshold_equal_to_the_rate() -> None:
    """Net benefit of acting on all crosses 0 where threshold and event rate meet (Vickers 2006)."""
    sample = weigh_equally(a_sample([0.9, 0.5], [0.8, 0.4, 0.3, 0.2, 0.1, 0.05, 0.1, 0.2]))
    assert net_benefit_of_all(sample, np.array([0.2])).tolist() == pytest.approx([0.0])
    assert net_benefit_of_all(sample, np.array([0.01]))[0] == pytest.approx(
        net_benefit(sample, np.array([0.01]))[0]
    )
