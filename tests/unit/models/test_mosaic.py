"""Invented rows that stand for patients: nobody's row, nobody's rare value, the cohort's spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.mosaic import FEWEST_PATIENTS, mosaic, shared_values

Floats = NDArray[np.float64]


def patients_of(n: int) -> NDArray[np.str_]:
    return np.array([f"p{i:04}" for i in range(n)])


def cohort(n: int = 600, seed: int = 4) -> tuple[Floats, Floats]:
    """Rows of age, a laboratory value, now and then missing, a diagnosis and a weight; risks."""
    draw = np.random.default_rng(seed)
    age = draw.normal(70, 10, n).round()
    value = np.where(draw.random(n) < 0.2, np.nan, draw.lognormal(3, 0.5, n) + age / 10)
    ill = (draw.random(n) < age / 200).astype(float)
    risks = 1 / (1 + np.exp(-(age - 75) / 8 - ill))
    return np.column_stack([age, value, ill, draw.normal(80, 15, n)]), risks


def test_every_value_is_shared_by_five_patients_or_stands_for_five() -> None:
    """One of 103 years takes the age of the eldest five; ages that five share stay."""
    ages = np.array([70.0] * 6 + [80.0] * 5 + [91.0, 92.0, 95.0, 99.0, 103.0])
    told = shared_values(ages, patients_of(len(ages)))
    assert told.tolist() == [70.0] * 6 + [80.0] * 5 + [95.0] * 5


def test_too_few_at_the_end_join_their_neighbours() -> None:
    ages = np.array([70.0] * 5 + [103.0])
    assert shared_values(ages, patients_of(6)).tolist() == [70.0] * 6


def test_what_fewer_than_five_patients_have_at_all_is_not_told() -> None:
    rare = np.array([np.nan] * 20 + [1.0, 2.0, 3.0, 4.0])
    assert np.isnan(shared_values(rare, patients_of(24))).all()


def test_many_rows_of_one_patient_are_one_patient() -> None:
    weights = np.array([150.0] * 20 + [80.0] * 5)
    whose = np.array(["heavy"] * 20 + [f"p{i}" for i in range(5)])
    assert set(shared_values(weights, whose).tolist()) == {150.0}
    assert np.isnan(shared_values(weights[:20], whose[:20])).all()


def test_no_row_is_a_patients_own_and_no_two_values_are_of_one() -> None:
    rows, risks = cohort()
    made = mosaic(rows, patients_of(len(rows)), risks, size=1_000, seed=1)
    own = {row.tobytes() for row in rows}
    assert len(made) > 950
    assert not any(row.tobytes() in own for row in made)


def test_it_spreads_as_the_cohort_does() -> None:
    """Percentiles and shares; what drives the risk goes together, more than in the patients."""
    rows, risks = cohort(2_000)
    made = mosaic(rows, patients_of(len(rows)), risks, size=2_000, seed=1)
    for place in (0, 1):
        wanted = np.nanpercentile(rows[:, place], [5, 25, 50, 75, 95])
        assert np.nanpercentile(made[:, place], [5, 25, 50, 75, 95]) == pytest.approx(
            wanted, rel=0.05
        )
    assert np.isnan(made[:, 1]).mean() == pytest.approx(np.isnan(rows[:, 1]).mean(), abs=0.02)
    assert made[:, 2].mean() == pytest.approx(rows[:, 2].mean(), abs=0.03)
    assert np.corrcoef(made[:, 0], made[:, 2])[0, 1] > np.corrcoef(rows[:, 0], rows[:, 2])[0, 1]


def test_the_same_cohort_and_seed_give_the_same_rows() -> None:
    rows, risks = cohort()
    one, two = (mosaic(rows, patients_of(len(rows)), risks, size=50, seed=9) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != mosaic(rows, patients_of(len(rows)), risks, size=50, seed=8).tobytes()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(5, 60),
    shared=st.integers(1, 4),
    levels=st.integers(1, 8),
    seed=st.integers(0, 10_000),
)
def test_no_row_of_one_to_four_patients_is_ever_told(
    n: int, shared: int, levels: int, seed: int
) -> None:
    """Also where patients have several rows, and columns few values, so that rows coincide."""
    draw = np.random.default_rng(seed)
    rows = draw.integers(0, levels, (n, 3)).astype(np.float64)
    rows[draw.random(rows.shape) < 0.1] = np.nan
    whose = patients_of(n)[np.arange(n) // shared]
    made = mosaic(rows, whose, draw.random(n), size=20, seed=seed)
    for row in made:
        same = ((rows == row) | (np.isnan(rows) & np.isnan(row))).all(axis=1)
        assert len(set(whose[same].tolist())) in {0, *range(FEWEST_PATIENTS, n + 1)}
        for column, value in zip(rows.T, row, strict=True):
            assert np.isnan(value) or value in column
