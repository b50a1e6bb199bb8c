"""Several classes: the probabilities are the booster's, and what speaks for and against holds."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import xgboost as xgb
from numpy.typing import NDArray

from models.ranking import Ranked

Floats = NDArray[np.float64]


def rows_with_gaps(seed: int, n: int) -> Floats:
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(n, 4)).astype(np.float32).astype(np.float64)
    rows[draw.random(rows.shape) < 0.15] = np.nan
    return rows


def trained(seed: int, classes: int) -> xgb.Booster:
    """A small booster of some classes, of rows with gaps."""
    draw, rows = np.random.default_rng(seed), rows_with_gaps(seed, 500)
    score = np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 1]) * (rows[:, 2] > 0)
    cuts = np.linspace(-1, 1, classes - 1)
    followed = np.digitize(score + draw.normal(size=500), cuts)
    words = {"objective": "multi:softprob", "num_class": classes, "max_depth": 3, "nthread": 1}
    return xgb.train(words | {"seed": seed}, xgb.DMatrix(rows, followed), 8)


def centred(booster: xgb.Booster, rows: Floats) -> Floats:
    """Every class's margin less the mean of all: log of p over the geometric mean."""
    logs = np.log(np.asarray(booster.inplace_predict(rows), dtype=np.float64))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def by_brute_force(booster: xgb.Booster, row: Floats, background: Floats) -> Floats:
    """Shapley values of the centred margins from the definition, (columns, classes)."""
    n = len(row)
    worth = {
        subset: centred(booster, np.where(np.array(subset), row, background)).mean(axis=0)
        for subset in product([False, True], repeat=n)
    }
    values = np.zeros((n, len(worth[(False,) * n])))
    for subset in worth:
        for j in (j for j in range(n) if not subset[j]):
            size = sum(subset)
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            values[j] += weight * (worth[(*subset[:j], True, *subset[j + 1 :])] - worth[subset])
    return values


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_weights_are_the_shapley_values_of_the_log_probabilities_by_brute_force(
    classes: int,
) -> None:
    """From the probabilities alone: nothing of it hangs on margins that no probability shows."""
    booster, background = trained(1, classes), rows_with_gaps(2, 10)
    patients = rows_with_gaps(3, 4)
    found = Ranked(booster, background).weights(patients)
    for row, weights in zip(patients, found, strict=True):
        assert weights == pytest.approx(by_brute_force(booster, row, background), abs=1e-4)


def test_over_the_classes_every_feature_s_weights_sum_to_nothing() -> None:
    """What speaks for one class speaks against the others."""
    ranked = Ranked(trained(4, 3), rows_with_gaps(5, 20))
    assert np.abs(ranked.weights(rows_with_gaps(6, 30)).sum(axis=2)).max() <= 1e-9


def test_probabilities_are_the_booster_s_own() -> None:
    booster, rows = trained(7, 4), rows_with_gaps(8, 50)
    found = Ranked(booster, rows_with_gaps(9, 20)).probabilities(rows)
    assert np.array_equal(found, np.asarray(booster.inplace_predict(rows), dtype=np.float64))
    assert found.sum(axis=1) == pytest.approx(np.ones(50), abs=1e-6)
