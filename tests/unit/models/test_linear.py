"""A logistic head: its points are the Shapley values the definition gives, and they add up."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.linear import Linear
from models.logistic import Logistic, read_logistic_of, sigmoid

Floats = NDArray[np.float64]
COLUMNS = ["age", "pulse", "crp", "sodium"]


def model(seed: int, columns: int = 4) -> Logistic:
    """A logistic model of random coefficients."""
    draw = np.random.default_rng(seed)
    return Logistic(
        columns=COLUMNS[:columns],
        median=draw.normal(size=columns).tolist(),
        mean=draw.normal(size=columns).tolist(),
        sd=draw.uniform(0.5, 2.0, columns).tolist(),
        weight=draw.normal(size=columns).tolist(),
        intercept=float(draw.normal()) - 1.0,
    )


def rows_with_gaps(seed: int, n: int, columns: int = 4) -> Floats:
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(n, columns)) * 2.0
    rows[draw.random(rows.shape) < 0.2] = np.nan
    return rows


def by_brute_force(logistic: Logistic, row: Floats, background: Floats) -> Floats:
    """Shapley values of the margin from the definition, rescaled per background row, averaged."""

    def margin(rows: Floats) -> Floats:
        return np.asarray(logistic.terms(rows).sum(axis=1) + logistic.intercept)

    n = len(row)
    worth = {
        subset: margin(np.where(np.array(subset), row, background))
        for subset in product([False, True], repeat=n)
    }
    values = np.zeros((len(background), n))
    for subset in worth:
        for j in (j for j in range(n) if not subset[j]):
            size = sum(subset)
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            with_j = worth[(*subset[:j], True, *subset[j + 1 :])]
            values[:, j] += weight * (with_j - worth[subset])
    here, there = margin(row[None, :]), margin(background)
    factor = (sigmoid(here) - sigmoid(there)) / (here - there)
    return np.asarray(100 * (values * factor[:, None]).mean(axis=0))


@pytest.mark.parametrize("columns", [2, 3, 4])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_points_are_the_margin_s_shapley_values_rescaled_to_probability(
    seed: int, columns: int
) -> None:
    """As for trees (docs/explanation.md), with values missing in patient and background."""
    logistic, background = model(seed, columns), rows_with_gaps(seed, 12, columns)
    linear, patients = Linear(logistic, background), rows_with_gaps(seed + 9, 5, columns)
    for row, points in zip(patients, linear.points(patients), strict=True):
        assert points == pytest.approx(by_brute_force(logistic, row, background), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), far=st.floats(0.0, 300.0))
def test_points_add_up_to_the_risk_less_the_reference(seed: int, far: float) -> None:
    """Within 1e-4 points, however extreme the values."""
    linear, rows = Linear(model(seed), rows_with_gaps(seed, 20)), rows_with_gaps(seed + 1, 5)
    rows = rows * (1.0 + far)
    gap = linear.points(rows).sum(axis=1) - 100 * (linear.risk(rows) - linear.reference_risk)
    assert np.abs(gap).max() <= 1e-4


def test_the_reference_is_the_mean_risk_of_the_background() -> None:
    background = rows_with_gaps(4, 30)
    linear = Linear(model(4), background)
    assert linear.reference_risk == pytest.approx(float(linear.risk(background).mean()))


def test_a_patient_is_not_set_apart_from_himself() -> None:
    row = rows_with_gaps(5, 1)
    assert Linear(model(5), row).points(row) == pytest.approx(np.zeros((1, 4)))


def test_where_two_patients_have_the_same_risk_for_other_reasons_both_reasons_count() -> None:
    """Margins equal to the last digits: points are the slope p(1 - p) times what each adds."""
    logistic = Logistic(["a", "b"], [0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0], 0.0)
    for nudge in (0.0, 1e-15, 1e-9, 1e-7):
        points = Linear(logistic, np.array([[0.0, 1.0]])).points(np.array([[1.0 + nudge, 0.0]]))[0]
        slope = 100 * float(sigmoid(np.array(1.0))) * (1 - float(sigmoid(np.array(1.0))))
        assert points == pytest.approx([slope, -slope], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"columns": ["age"]}, "columns: its columns are not the manifest's"),
        ({"weight": [1.0]}, "weight: not one number for each column"),
        ({"sd": [1.0, 1.0, 0.0, 1.0]}, "sd: every standard deviation must be above 0"),
        ({"intercept": "high"}, r"Expected `float`, got `str` - at `\$.intercept`"),
        ({"penalty": 1.0}, "unknown field `penalty`"),
    ],
)
def test_a_file_of_coefficients_that_does_not_hold_is_refused_with_its_field(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    words = {name: getattr(model(1), name) for name in Logistic.__struct_fields__} | change
    (tmp_path / "logistic.json").write_text(json.dumps(words))
    with pytest.raises(ValueError, match=said):
        read_logistic_of(tmp_path / "logistic.json", COLUMNS)
