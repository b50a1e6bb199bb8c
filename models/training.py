"""Training a package from a cohort: split, boosted trees, calibration, baseline, background.

Split by time and patient: the newest `test_share` of index stays is the test part, and a patient in
it is in no other. The rest is fitted; how many rounds, and Platt's two numbers, which are folded
into the leaves, come from fitting it `folds` times without one fold of patients each (ADR 0010).
The same cohort and seed give the same scores. How good it is, is `validation`'s to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from models.engines import xgboost as xgb
from models.errors import TrainingRefused
from models.logistic import Logistic
from models.manifest import Training
from models.package import Specification, table_text
from models.trees import fold_platt

BACKGROUND_ROWS = 100
REFERENCE_ROWS = 2_000
BACKGROUND_WITHIN = 0.001
"""How far the background's mean risk may lie from the comparable patients': 0.1 point."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a cohort, as frames."""

    fit: pd.DataFrame
    test: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Trained:
    """What training made, and what it was made on."""

    booster: xgb.Booster
    baseline: Logistic
    background: Floats
    reference: pd.DataFrame
    split: Split
    rounds: int
    platt: tuple[float, float]


def known_outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose outcome is known, with `event` (death first counts as no event)."""
    known = frame[frame["state"] != "censored"].copy()
    known["event"] = (known["state"] == "event").astype(int)
    return known


def split_by_time(frame: pd.DataFrame, words: Training) -> Split:
    """The parts of a cohort: newest stays for the test, and no patient on both sides."""
    ordered = frame.sort_values(["index_time", "patient"], kind="stable")
    cut = int(len(ordered) * (1 - words.test_share))
    earlier, test = ordered.iloc[:cut], ordered.iloc[cut:]
    return Split(earlier[~earlier["patient"].isin(set(test["patient"]))], test)


def train(
    spec: Specification, frame: pd.DataFrame, progress: Callable[[int, int], None] | None = None
) -> Trained:
    """Train one head on its cohort frame (`Cohort.of_head`).

    `progress` is told rounds done and at most to do. Raises TrainingRefused where a fold of
    patients, or what is left without it, has no event or nothing but events, and where the
    features do not predict the outcome at all.
    """
    words = spec.manifest.training
    split = split_by_time(known_outcomes(frame), words)
    told = _Told(progress, words) if progress else None
    rounds, margins = cross_fit(spec, split.fit, told)
    platt = _platt(margins, events_of(split.fit))
    booster = boost(spec, split.fit, rounds=rounds, told=told).booster
    try:
        folded = fold_platt(booster, *platt)
    except ValueError:
        raise TrainingRefused(
            "the features say nothing of the outcome in patients not fitted on "
            f"(calibration slope {platt[0]:.2f})"
        ) from None
    risks = _predict(folded, matrix_of(spec, split.fit))
    return Trained(
        booster=folded,
        baseline=_baseline(spec, split.fit),
        background=choose_background(matrix_of(spec, split.fit), risks),
        reference=reference_sample(spec, split.fit),
        split=split,
        rounds=rounds,
        platt=platt,
    )


def matrix_of(spec: Specification, frame: pd.DataFrame) -> Floats:
    """The model's columns of a cohort frame, (n, columns), NaN missing."""
    return frame[spec.columns].to_numpy(dtype=np.float64)


def _with_masked_copy(spec: Specification, rows: Floats) -> Floats:
    """The rows, and below them the same rows with values hidden at random.

    What is hidden by chance carries no risk. A model that never saw a feature missing sends the
    missing to whichever side of a split, and "not measured" then looks protective or harmful
    (ADR 0009 has the figures).
    """
    words = spec.manifest.training
    draw = np.random.default_rng(words.seed)
    hidden = draw.random(rows.shape) < words.mask_share
    categories = [feature.category for feature in spec.manifest.inputs]
    for category in dict.fromkeys(categories):
        together = draw.random(len(rows)) < words.mask_share
        columns = np.array([name == category for name in categories])
        hidden |= together[:, None] & columns[None, :]
    return np.vstack([rows, np.where(hidden, np.nan, rows)])


def events_of(frame: pd.DataFrame) -> Floats:
    """Whether the outcome came, 0 or 1 a row."""
    return frame["event"].to_numpy(dtype=np.float64)


def _predict(booster: xgb.Booster, rows: Floats) -> Floats:
    return np.asarray(booster.inplace_predict(rows), dtype=np.float64)


class _Told(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Tells the rounds of all fits as one count; a fit that stops early counts as done."""

    def __init__(self, progress: Callable[[int, int], None], words: Training) -> None:
        self.progress = progress
        self.rounds = words.rounds
        self.total = (words.folds + 1) * words.rounds
        self.before = 0

    def after_iteration(self, model: object, epoch: int, evals_log: object) -> bool:  # noqa: ARG002
        self.progress(self.before + epoch + 1, self.total)
        return False

    def after_training(self, model: Any) -> Any:
        self.before += self.rounds
        self.progress(self.before, self.total)
        return model


def cross_fit(spec: Specification, fit: pd.DataFrame, told: _Told | None) -> tuple[int, Floats]:
    """The rounds that predict best for patients not fitted on, and each row's margin then.

    The log loss is averaged over folds, round by round, as far as every fold went.
    """
    words = spec.manifest.training
    folds = folds_of(fit["patient"], words)
    fits: list[Fit] = []
    for fold in range(words.folds):
        inside, outside = fit[folds != fold], fit[folds == fold]
        for part in (inside, outside):
            if part["event"].nunique() < 2:
                raise TrainingRefused(
                    f"fold {fold + 1} of {words.folds} has no events, or nothing else: "
                    f"{int(fit['event'].sum())} events in {len(fit)} rows are too few"
                )
        fits.append(boost(spec, inside, rounds=words.rounds, outside=outside, told=told))
    shortest = min(len(one.losses) for one in fits)
    losses = np.mean([one.losses[:shortest] for one in fits], axis=0)
    rounds = int(np.argmin(losses)) + 1
    margins = np.empty(len(fit))
    for fold, one in enumerate(fits):
        rows = matrix_of(spec, fit[folds == fold])
        margins[folds == fold] = one.booster.inplace_predict(
            rows, iteration_range=(0, rounds), predict_type="margin"
        )
    return rounds, margins


def folds_of(patients: pd.Series[str], words: Training) -> NDArray[np.int64]:
    """The fold of each row; all rows of a patient in one. Independent of the order of rows."""
    known = np.unique(patients.to_numpy(dtype=str))
    drawn = np.random.default_rng(words.seed).permutation(len(known)) % words.folds
    return np.asarray(drawn[np.searchsorted(known, patients.to_numpy(dtype=str))])


@dataclass(frozen=True, slots=True)
class Fit:
    """One boosting, and its log loss on rows left out after each round (none left out: none)."""

    booster: xgb.Booster
    losses: list[float]


def boost(
    spec: Specification,
    fit: pd.DataFrame,
    *,
    rounds: int,
    outside: pd.DataFrame | None = None,
    told: _Told | None = None,
) -> Fit:
    """Boosted trees of some rows; with rows left out, stopped when those gain nothing more."""
    words = spec.manifest.training
    monotone = ",".join(str(feature.monotone) for feature in spec.manifest.inputs)
    parameters = {
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "eta": words.learning_rate,
        "max_depth": words.max_depth,
        "min_child_weight": words.min_child_weight,
        "subsample": words.subsample,
        "colsample_bytree": words.colsample_bytree,
        "lambda": words.reg_lambda,
        "monotone_constraints": f"({monotone})",
        "tree_method": "hist",
        "seed": words.seed,
        "nthread": 1,
    }
    losses: dict[str, dict[str, list[float]]] = {}
    left_out = []
    if outside is not None:
        left_out = [(xgb.DMatrix(matrix_of(spec, outside), events_of(outside)), "outside")]
    booster: xgb.Booster = xgb.train(
        parameters,
        xgb.DMatrix(
            _with_masked_copy(spec, matrix_of(spec, fit)),
            np.tile(events_of(fit), 2),
            weight=np.full(2 * len(fit), 0.5),
        ),
        num_boost_round=rounds,
        evals=left_out,
        early_stopping_rounds=words.early_stopping_rounds if left_out else None,
        evals_result=losses,
        verbose_eval=False,
        callbacks=[told] if told else None,
    )
    return Fit(booster, losses["outside"]["logloss"] if left_out else [])


def _platt(margins: Floats, events: Floats) -> tuple[float, float]:
    """Slope and intercept of the observed log-odds on the margin (Platt 1999), unpenalised."""
    fitted = LogisticRegression(C=1e9, max_iter=1000).fit(margins[:, None], events)
    return float(fitted.coef_[0][0]), float(fitted.intercept_[0])


def _baseline(spec: Specification, fit: pd.DataFrame) -> Logistic:
    rows, events = matrix_of(spec, fit), events_of(fit)
    median = np.nanmedian(rows, axis=0)
    median = np.where(np.isnan(median), 0.0, median)
    filled = np.where(np.isnan(rows), median, rows)
    mean, sd = filled.mean(axis=0), filled.std(axis=0)
    sd = np.where(sd == 0.0, 1.0, sd)
    fitted = LogisticRegression(C=0.1, max_iter=1000).fit((filled - mean) / sd, events)
    return Logistic(
        columns=spec.columns,
        median=median.tolist(),
        mean=mean.tolist(),
        sd=sd.tolist(),
        weight=fitted.coef_[0].tolist(),
        intercept=float(fitted.intercept_[0]),
    )


def choose_background(rows: Floats, risks: Floats) -> Floats:
    """About 100 rows whose mean risk is that of all rows within 0.1 point.

    One row from the middle of each hundredth of the risks, so that the sample spans them; then,
    while the mean is off, the row that mends it most is exchanged for its neighbour in risk.
    (100 rows at random err by about a point: docs/explanation.md.)
    """
    order = np.argsort(risks, kind="stable")
    target = float(risks.mean())
    size = min(BACKGROUND_ROWS, len(order))
    places = [int((i + 0.5) * len(order) / size) for i in range(size)]
    for step in range(10 * size):
        off = float(risks[order[places]].mean()) - target
        if abs(off) < BACKGROUND_WITHIN / 10:
            break
        which = size - 1 - step % size
        low = places[which - 1] + 1 if which else 0
        high = places[which + 1] if which + 1 < size else len(order)
        wanted = risks[order[places[which]]] - off * size
        nearest = np.argmin(np.abs(risks[order[low:high]] - wanted))
        places[which] = low + int(nearest)
    return rows[order[places]]


def reference_sample(spec: Specification, fit: pd.DataFrame) -> pd.DataFrame:
    """Rows of the fitted part, at most 2,000, that stand for what the package was trained on."""
    size = min(REFERENCE_ROWS, len(fit))
    return fit[spec.columns].sample(size, random_state=spec.manifest.training.seed)


def write_head(folder: Path, spec: Specification, head_id: str, trained: Trained) -> None:
    """Write the numbers of a head."""
    head = folder / "heads" / head_id
    head.mkdir(parents=True, exist_ok=True)
    (head / "booster.ubj").write_bytes(bytes(trained.booster.save_raw("ubj")))
    (head / "baseline.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(trained.baseline), indent=1)
    )
    (head / "background.csv").write_text(
        table_text(spec.columns, trained.background), encoding="utf-8"
    )


def write_reference(folder: Path, spec: Specification, trained: Trained) -> None:
    """Write the package's reference sample, from what one of its heads was fitted on."""
    rounded = np.array(
        [
            [math.nan if math.isnan(v) else float(f"{v:.6g}") for v in row]
            for row in trained.reference.to_numpy(dtype=np.float64)
        ]
    )
    (folder / "reference.csv").write_text(table_text(spec.columns, rounded), encoding="utf-8")
