"""Boosted trees as served: folded calibration, files, edges of splits, Shapley by brute force."""

from __future__ import annotations

import json
import math
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.trees import Trees, fold_platt

Floats = NDArray[np.float64]
COLUMNS = ["a", "b", "c", "d"]


def rows_with_gaps(seed: int, n: int) -> Floats:
    """Rows of four numbers, a fifth of them missing; as exact as a booster can tell apart."""
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(n, len(COLUMNS)))
    rows[draw.random(rows.shape) < 0.2] = np.nan
    return rows.astype(np.float32).astype(np.float64)


def trained(seed: int = 1, **parameters: object) -> xgb.Booster:
    """A small booster of rows with gaps; more parameters may be given."""
    rows = rows_with_gaps(seed, 600)
    score = np.nan_to_num(rows[:, 0]) + 0.5 * np.nan_to_num(rows[:, 1]) * (rows[:, 2] > 0)
    events = np.random.default_rng(seed).random(600) < 1 / (1 + np.exp(1.5 - score))
    words = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.2, "nthread": 1, "seed": seed}
    return xgb.train(words | parameters, xgb.DMatrix(rows, events), num_boost_round=20)


UNFOLDED = trained()


def margins(booster: xgb.Booster, rows: Floats) -> Floats:
    return np.asarray(booster.inplace_predict(rows, predict_type="margin"), dtype=np.float64)


def sigmoid(margin: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-margin)))


def split_points(booster: xgb.Booster, column: int) -> list[float]:
    """Where the booster's trees split one column, as the numbers it compares with."""
    trees = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]["model"]
    return sorted(
        {
            float(np.float32(tree["split_conditions"][node]))
            for tree in trees["trees"]
            for node, left in enumerate(tree["left_children"])
            if left != -1 and tree["split_indices"][node] == column
        }
    )


# ---- Platt, folded --------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(slope=st.floats(0.05, 5.0), intercept=st.floats(-3.0, 3.0))
def test_the_folded_booster_gives_the_calibrated_risk(slope: float, intercept: float) -> None:
    """sigmoid(slope x margin + intercept), also for rows with missing values, to 1e-6."""
    booster, rows = UNFOLDED, rows_with_gaps(7, 200)
    wanted = sigmoid(slope * margins(booster, rows) + intercept)
    found = np.asarray(fold_platt(booster, slope, intercept).inplace_predict(rows))
    assert np.isnan(rows).any()
    assert np.abs(found - wanted).max() <= 1e-6


def test_a_booster_with_a_base_score_of_its_own_folds_too() -> None:
    booster, rows = trained(base_score=0.2), rows_with_gaps(8, 200)
    found = np.asarray(fold_platt(booster, 0.8, -0.3).inplace_predict(rows))
    assert np.abs(found - sigmoid(0.8 * margins(booster, rows) - 0.3)).max() <= 1e-6


@pytest.mark.parametrize("slope", [0.0, -0.5, -math.inf])
def test_a_calibration_that_turns_the_model_round_is_refused(slope: float) -> None:
    with pytest.raises(ValueError, match="turns the model round"):
        fold_platt(trained(), slope, 0.0)


def test_folding_leaves_the_original_as_it_was() -> None:
    booster, rows = trained(), rows_with_gaps(9, 50)
    before = margins(booster, rows)
    fold_platt(booster, 2.0, 1.0)
    assert np.array_equal(before, margins(booster, rows))


def test_folding_keeps_what_may_only_rise_rising() -> None:
    folded = fold_platt(trained(monotone_constraints="(1,-1,0,0)"), 0.7, 0.4)
    for column, sign in ((0, 1), (1, -1)):
        rows = rows_with_gaps(10, 100)
        swept = []
        for value in np.linspace(-3, 3, 25):
            rows[:, column] = value
            swept.append(np.asarray(folded.inplace_predict(rows)))
        assert all((sign * (after - before) >= 0).all() for before, after in pairwise(swept))


# ---- files ----------------------------------------------------------------------------------


def test_a_folded_booster_comes_back_from_its_file_the_same(tmp_path: Path) -> None:
    rows, background = rows_with_gaps(11, 100), rows_with_gaps(12, 30)
    folded = fold_platt(trained(), 0.9, -0.1)
    path = tmp_path / "booster.ubj"
    path.write_bytes(bytes(folded.save_raw("ubj")))
    kept, read = Trees(folded, background, COLUMNS), Trees.load(path, background, COLUMNS)
    assert np.array_equal(kept.risk(rows), read.risk(rows))
    assert np.array_equal(kept.points(rows), read.points(rows))
    assert kept.reference_risk == read.reference_risk


# ---- what the explanation sees is what the booster sees -------------------------------------


def test_the_reference_is_the_mean_risk_of_the_background() -> None:
    background = rows_with_gaps(13, 40)
    trees = Trees(trained(), background, COLUMNS)
    assert trees.reference_risk == pytest.approx(float(trees.risk(background).mean()), abs=1e-6)


def just_below(split: float) -> float:
    """A number below a split that the booster, in single precision, still tells from it.

    In double precision it lies between the split's lower neighbour and the split; a reader in
    double precision that moved the split to that neighbour would send it the other way.
    """
    lower = float(np.nextafter(np.float32(split), np.float32(-np.inf)))
    return lower + (split - lower) / 4


def test_a_value_on_the_very_edge_of_a_split_is_explained_as_it_is_scored() -> None:
    """Booster and explanation agree on which side of a split a value lies, to the last bit."""
    booster, background = trained(), rows_with_gaps(14, 30)
    trees = Trees(booster, background, COLUMNS)
    for column in range(len(COLUMNS)):
        for split in split_points(booster, column):
            rows = rows_with_gaps(15, 20)
            for value in (split, just_below(split), math.nextafter(split, -math.inf)):
                rows[:, column] = value
                off = trees.points(rows).sum(axis=1) / 100 - (
                    trees.risk(rows) - trees.reference_risk
                )
                assert np.abs(off).max() <= 1e-6


def test_a_background_on_the_very_edge_of_a_split_is_read_as_the_booster_reads_it() -> None:
    booster = trained()
    background = rows_with_gaps(16, 20)
    background[:, 0] = just_below(split_points(booster, 0)[3])
    trees = Trees(booster, background, COLUMNS)
    assert trees.reference_risk == pytest.approx(float(trees.risk(background).mean()), abs=1e-6)


def test_one_row_or_many_at_once_are_scored_and_explained_the_same() -> None:
    trees, rows = Trees(trained(), rows_with_gaps(17, 30), COLUMNS), rows_with_gaps(18, 10)
    assert np.array_equal(trees.risk(rows), [trees.risk(row[None, :])[0] for row in rows])
    assert np.array_equal(trees.points(rows), [trees.points(row[None, :])[0] for row in rows])


# ---- brute force ----------------------------------------------------------------------------


def shapley_of_the_margin(booster: xgb.Booster, row: Floats, background: Floats) -> Floats:
    """Shapley values of one patient against each background row, `(background, features)`.

    From the definition (Shapley 1953): every subset S of the features, the worth of S being the
    margin of a patient who has the row's values in S and the background row's elsewhere.
    """
    n = len(row)
    worth = {
        subset: margins(booster, np.where(np.array(subset), row, background))
        for subset in product([False, True], repeat=n)
    }
    values = np.zeros((len(background), n))
    for subset, before in worth.items():
        weight = (
            math.factorial(sum(subset)) * math.factorial(n - sum(subset) - 1)
            if not all(subset)
            else 0
        )
        for j in (j for j in range(n) if not subset[j]):
            after = worth[(*subset[:j], True, *subset[j + 1 :])]
            values[:, j] += weight / math.factorial(n) * (after - before)
    return values


def rescaled_to_probability(
    booster: xgb.Booster, row: Floats, background: Floats, values: Floats
) -> Floats:
    """The documented rescaling: per background row b, phi (p(x) - p(b)) / (m(x) - m(b)); averaged.

    Where the two margins are equal the quotient has no value; 1 is taken, as shap does.
    """
    here, there = margins(booster, row[None, :]), margins(booster, background)
    same = here == there
    apart = np.where(same, 1.0, here - there)
    factor = np.where(same, 1.0, (sigmoid(here) - sigmoid(there)) / apart)
    return np.asarray((values * factor[:, None]).mean(axis=0))


CASES = [
    pytest.param(3, None, 0.0, id="3 features"),
    pytest.param(4, None, 0.25, id="4 features, a quarter missing"),
    pytest.param(4, "(1,-1,1,0)", 0.25, id="4 features, monotone, missing"),
    pytest.param(5, "(1,1,-1,-1,1)", 0.1, id="5 features, all monotone"),
    pytest.param(6, None, 0.4, id="6 features, much missing"),
    pytest.param(6, "(1,0,-1,0,1,0)", 0.2, id="6 features, some monotone"),
]


def small_model(
    seed: int, features: int, monotone: str | None, missing: float
) -> tuple[xgb.Booster, Floats, Floats]:
    """A calibrated booster of interacting features, ten background rows, six patients."""
    draw = np.random.default_rng(seed)
    data = draw.normal(size=(500, features)).astype(np.float32).astype(np.float64)
    score = data[:, 0] * np.where(data[:, 1] > 0, 1.5, -0.5) - np.abs(data[:, 2])
    events = draw.random(500) < sigmoid(score - 0.5)
    data[draw.random(data.shape) < missing] = np.nan
    words = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.3, "nthread": 1, "seed": seed}
    if monotone:
        words["monotone_constraints"] = monotone
    booster = xgb.train(words, xgb.DMatrix(data, events), num_boost_round=15)
    return fold_platt(booster, 0.9, -0.2), data[:10], data[-6:]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("features", "monotone", "missing"), CASES)
def test_margin_contributions_are_the_shapley_values_by_brute_force(
    features: int, monotone: str | None, missing: float, seed: int
) -> None:
    """To 1e-5, with values missing in patients and in the background, from the definition."""
    booster, background, patients = small_model(seed, features, monotone, missing)
    trees = Trees(booster, background, [f"f{i}" for i in range(features)])
    of_margin = type(trees._explainer)(
        booster, data=background, feature_perturbation="interventional", model_output="raw"
    )
    found = of_margin.shap_values(patients, check_additivity=False)
    for row, values in zip(patients, found, strict=True):
        exact = shapley_of_the_margin(booster, row, background).mean(axis=0)
        assert np.abs(values - exact).max() <= 1e-5


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("features", "monotone", "missing"), CASES)
def test_points_are_the_margin_s_shapley_values_rescaled_to_probability(
    features: int, monotone: str | None, missing: float, seed: int
) -> None:
    """What is logged and shown is what the documents say it is, to 1e-5 of risk."""
    booster, background, patients = small_model(seed, features, monotone, missing)
    trees = Trees(booster, background, [f"f{i}" for i in range(features)])
    for row, points in zip(patients, trees.points(patients), strict=True):
        exact = shapley_of_the_margin(booster, row, background)
        wanted = rescaled_to_probability(booster, row, background, exact)
        assert np.abs(points / 100 - wanted).max() <= 1e-5


def test_a_patient_is_not_set_apart_from_himself() -> None:
    """Against a background of that one patient every contribution is 0."""
    booster, background, _ = small_model(3, 4, None, 0.2)
    trees = Trees(booster, background[:1], list("abcd"))
    assert np.array_equal(trees.points(background[:1]), np.zeros((1, 4)))
