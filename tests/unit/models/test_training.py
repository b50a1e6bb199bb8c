"""Training: parts split by time and patient, repeatable to the byte, calibrated, constrained."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fhir_adapters.clock import DAY_S
from fhir_adapters.decode import decode_lines
from models.cohort import cohort_of
from models.engines import xgboost as xgb
from models.errors import TrainingRefused
from models.fitting import boost, cross_fit, folds_of, risks_of
from models.manifest import Training
from models.package import Package, Specification, read_table
from models.synthetic.charts import draw_patients
from models.synthetic.readmission import STUDY_END
from models.training import (
    BACKGROUND_ROWS,
    BACKGROUND_WITHIN,
    Trained,
    choose_background,
    known_outcomes,
    split_by_time,
    train,
    write_head,
    write_reference,
)
from models.trees import Trees

Floats = NDArray[np.float64]
SEED, PATIENTS = 50_505, 1_000
HEAD = "readmission"


@pytest.fixture(scope="module")
def frame(package: Package) -> pd.DataFrame:
    """The cohort of fresh synthetic patients, through the feature path."""
    patients = (
        (p.patient_id, decode_lines([line for _, line in p.resources]))
        for p in draw_patients(SEED, PATIENTS)
    )
    until = STUDY_END.timestamp() + 31 * DAY_S
    return cohort_of(package, patients, until, total=PATIENTS).of_head(HEAD)


@pytest.fixture(scope="module")
def quick(package: Package) -> Specification:
    """The bundled specification with few rounds, for a small cohort."""
    words = msgspec.structs.replace(package.manifest.training, rounds=60, min_child_weight=5)
    return Specification(
        msgspec.structs.replace(package.manifest, training=words), package.features
    )


@pytest.fixture(scope="module")
def trained(quick: Specification, frame: pd.DataFrame) -> Trained:
    """What training makes of it."""
    return train(quick, frame)


def trees_of(trained: Trained) -> xgb.Booster:
    assert isinstance(trained.model, xgb.Booster)
    return trained.model


def matrix(spec: Specification, frame: pd.DataFrame) -> Floats:
    return frame[spec.columns].to_numpy(dtype=np.float64)


# ---- parts ----------------------------------------------------------------------------------


def test_the_test_part_is_the_newest_and_no_patient_is_on_both_sides(trained: Trained) -> None:
    split = trained.split
    assert split.fit["index_time"].max() <= split.test["index_time"].min()
    assert not set(split.fit["patient"]) & set(split.test["patient"])


@st.composite
def cohorts(draw: st.DrawFn) -> pd.DataFrame:
    """Index stays of patients who may have several, in any order."""
    n = draw(st.integers(8, 60))
    patients = draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))
    days = draw(st.lists(st.integers(0, 400), min_size=n, max_size=n))
    times = pd.to_datetime("2024-01-01", utc=True) + pd.to_timedelta(days, unit="D")
    return pd.DataFrame({"patient": [f"p{i}" for i in patients], "index_time": times})


@settings(max_examples=60, deadline=None)
@given(frame=cohorts())
def test_no_cohort_puts_a_patient_on_two_sides(frame: pd.DataFrame) -> None:
    """Patients with several stays leave the older part for the newer one; time is never mixed."""
    words = Training(
        seed=1, rounds=1, learning_rate=0.1, max_depth=1, min_child_weight=1, subsample=1,
        colsample_bytree=1, reg_lambda=1, early_stopping_rounds=1,
    )  # fmt: skip
    split = split_by_time(frame, words)
    assert not set(split.fit["patient"]) & set(split.test["patient"])
    if len(split.fit) and len(split.test):
        assert split.fit["index_time"].max() <= split.test["index_time"].min()
    assert len(split.test) == len(frame) - int(len(frame) * 0.75)


def test_a_censored_outcome_is_never_a_no_event() -> None:
    frame = pd.DataFrame({"state": ["event", "no-event", "competing", "censored"]})
    known = known_outcomes(frame)
    assert known["state"].tolist() == ["event", "no-event", "competing"]
    assert known["event"].tolist() == [1, 0, 0], "who died first was not readmitted"


# ---- the same cohort and seed, the same scores ----------------------------------------------


def test_training_again_gives_the_same_model_to_the_byte(
    quick: Specification, frame: pd.DataFrame, trained: Trained, tmp_path: Path
) -> None:
    """Booster, baseline, background and reference; also with the cohort's rows in another order."""
    again = train(quick, frame.sample(frac=1.0, random_state=3))
    for folder, result in (("one", trained), ("two", again)):
        write_head(tmp_path / folder, quick, HEAD, result)
        write_reference(tmp_path / folder, quick, result)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert {p.name for p in files} == {
        "booster.ubj", "baseline.json", "background.csv", "reference.csv",
    }  # fmt: skip
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_another_seed_gives_another_model(
    quick: Specification, frame: pd.DataFrame, trained: Trained
) -> None:
    words = msgspec.structs.replace(quick.manifest.training, seed=7)
    other = Specification(msgspec.structs.replace(quick.manifest, training=words), quick.features)
    rows = matrix(quick, frame)
    one, two = (risks_of(t.model, rows) for t in (trained, train(other, frame)))
    assert not np.array_equal(one, two)


def test_progress_is_told_round_by_round_and_ends_at_all(
    quick: Specification, frame: pd.DataFrame
) -> None:
    """Five folds and the whole, at most 60 rounds each."""
    told: list[tuple[int, int]] = []
    train(quick, frame, lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {360}
    assert told[-1] == (360, 360)


def test_too_few_events_to_calibrate_are_refused(quick: Specification, frame: pd.DataFrame) -> None:
    """Three events at most cannot stand in every one of five folds."""
    events = frame[frame["state"] == "event"].iloc[:3]
    with pytest.raises(TrainingRefused, match="too few"):
        train(quick, pd.concat([frame[frame["state"] == "no-event"], events]))


# ---- what was trained -----------------------------------------------------------------------


def test_the_margins_that_calibrate_are_those_of_patients_not_fitted_on(
    quick: Specification, trained: Trained
) -> None:
    """Each row's margin is what trees fitted without its patient give, after as many rounds."""
    fit = trained.split.fit
    rounds, margins, _ = cross_fit(quick, fit)
    assert rounds == trained.rounds
    folds = folds_of(fit["patient"], quick.manifest.training)
    inside, outside = fit[folds != 2], fit[folds == 2]
    assert not set(inside["patient"]) & set(outside["patient"])
    alone = boost(quick, inside, rounds=rounds).booster
    expected = alone.inplace_predict(matrix(quick, outside), predict_type="margin")
    assert margins[folds == 2] == pytest.approx(expected, abs=1e-6)


def test_the_risk_is_calibrated_for_patients_not_fitted_on(
    quick: Specification, trained: Trained
) -> None:
    """Of the margins made without them the slope is 1 and the mean risk the share of events."""
    events = trained.split.fit["event"].to_numpy()
    margins = cross_fit(quick, trained.split.fit).margins
    slope, intercept = trained.platt
    calibrated = slope * margins + intercept
    fitted = LogisticRegression(C=1e9).fit(calibrated[:, None], events)
    assert fitted.coef_[0][0] == pytest.approx(1.0, abs=0.01)
    assert (1 / (1 + np.exp(-calibrated))).mean() == pytest.approx(events.mean(), abs=1e-4)


def test_what_may_only_rise_only_rises(quick: Specification, trained: Trained) -> None:
    rows = matrix(quick, trained.split.test)[:60]
    trees = Trees(trees_of(trained), trained.background, quick.columns)
    for column, feature in enumerate(quick.manifest.inputs):
        if not feature.monotone:
            continue
        low, high = np.nanmin(rows[:, column]), np.nanmax(rows[:, column])
        swept = []
        for value in np.linspace(low, high, 8):
            rows_there = rows.copy()
            rows_there[:, column] = value
            swept.append(trees.risk(rows_there))
        for before, after in pairwise(swept):
            assert (feature.monotone * (after - before) >= 0).all(), feature.name


def test_shuffled_outcomes_teach_nothing(package: Package) -> None:
    """With outcomes dealt at random, patients not fitted on are ranked no better than by chance;

    and where the ranking comes out the wrong way round, the training is refused.
    """
    columns, reference = read_table(package.folder / "reference.csv")
    draw = np.random.default_rng(99)
    areas = []
    for _ in range(4):
        frame = pd.DataFrame(reference, columns=columns)
        frame["patient"] = [f"p{i:05}" for i in range(len(frame))]
        frame["index_time"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(
            draw.permutation(len(frame)), unit="h"
        )
        frame["state"] = np.where(draw.random(len(frame)) < 0.15, "event", "no-event")
        fit = known_outcomes(frame)
        margins = cross_fit(package, fit).margins
        areas.append(roc_auc_score(fit["event"], margins))
        if areas[-1] < 0.49:
            with pytest.raises(TrainingRefused, match="say nothing"):
                train(package, frame)
    assert 0.45 <= float(np.mean(areas)) <= 0.55


# ---- the comparison group -------------------------------------------------------------------


def test_the_background_stands_for_all_it_was_fitted_on(
    quick: Specification, trained: Trained
) -> None:
    """About 100 rows of the fitted part, whose mean risk is theirs within 0.1 point."""
    rows = matrix(quick, trained.split.fit)
    trees = Trees(trees_of(trained), trained.background, quick.columns)
    assert len(trained.background) == BACKGROUND_ROWS
    assert abs(trees.reference_risk - trees.risk(rows).mean()) <= BACKGROUND_WITHIN
    known = {row.tobytes() for row in rows}
    assert all(row.tobytes() in known for row in trained.background)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1_000, 3_000),
    shape=st.tuples(st.floats(0.5, 8.0), st.floats(3.0, 60.0)),
    decimals=st.sampled_from([2, 3, 12]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_spread_of_risks_gets_a_background_of_its_mean(
    n: int, shape: tuple[float, float], decimals: int, seed: int
) -> None:
    """Skewed or even, with ties or without; and the rows span the risks from low to high."""
    risks = np.random.default_rng(seed).beta(*shape, size=n).round(decimals)
    rows = np.column_stack([risks, np.arange(n)])
    chosen = choose_background(rows, risks)
    assert len({int(i) for i in chosen[:, 1]}) == len(chosen) == BACKGROUND_ROWS
    assert abs(chosen[:, 0].mean() - risks.mean()) <= BACKGROUND_WITHIN
    assert chosen[:, 0].min() <= np.percentile(risks, 5)
    assert chosen[:, 0].max() >= np.percentile(risks, 95)


def test_a_hundred_rows_at_random_err_more(quick: Specification, trained: Trained) -> None:
    """Half of all random hundreds are off by more than 0.3 point; the chosen one is not."""
    rows = matrix(quick, trained.split.fit)
    risks = risks_of(trained.model, rows)
    draw = np.random.default_rng(5)
    errors = [
        abs(float(risks[draw.choice(len(risks), BACKGROUND_ROWS, replace=False)].mean()) - mean)
        for mean in [float(risks.mean())] * 200
    ]
    assert float(np.median(errors)) > 3 * BACKGROUND_WITHIN


def test_fewer_patients_than_a_background_are_all_in_it() -> None:
    risks = np.linspace(0.1, 0.3, 40)
    assert len(choose_background(risks[:, None], risks)) == 40
