"""Fits on some rows of a head: boosted trees or a penalised logistic model, and cross-fitted.

Lives here: one fit of either kind, and fits without one fold of patients each, which give every row
the margin (log-odds) of a model that never saw its patient. Does not live here: the order of a
training (`models/training.py`), the choice among settings (`models/tuning.py`). Called by those
two, by refits, and by the benchmark on real outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from models.engines import xgboost as xgb
from models.errors import TrainingRefused
from models.logistic import Logistic, sigmoid
from models.manifest import Training
from models.package import Specification

Floats = NDArray[np.float64]
Kind = Literal["trees", "logistic"]
"""What a head is: `heads[].kind` of the manifest."""
BASELINE_C = 0.1
"""scikit-learn's C of the logistic model: the inverse of the weight of its quadratic penalty."""
SURE = 1e-12
"""Risks are kept so far from 0 and 1 before their logarithm is taken."""


class CrossFit(NamedTuple):
    """Fits without one fold of patients each: the rounds that did best (0 for a logistic model),
    every row's margin by the fit without its patient, and the mean log loss of those."""

    rounds: int
    margins: Floats
    log_loss: float


# ---- rows -----------------------------------------------------------------------------------


def matrix_of(spec: Specification, frame: pd.DataFrame) -> Floats:
    """The model's columns of a cohort frame, (n, columns), NaN missing."""
    return frame[spec.columns].to_numpy(dtype=np.float64)


def events_of(frame: pd.DataFrame) -> Floats:
    """Whether the outcome came, 0 or 1 a row."""
    return frame["event"].to_numpy(dtype=np.float64)


def folds_of(patients: pd.Series[str], words: Training) -> NDArray[np.int64]:
    """The fold of each row; all rows of a patient in one. Independent of the order of rows."""
    known = np.unique(patients.to_numpy(dtype=str))
    drawn = np.random.default_rng(words.seed).permutation(len(known)) % words.folds
    return np.asarray(drawn[np.searchsorted(known, patients.to_numpy(dtype=str))])


# ---- cross-fitting --------------------------------------------------------------------------


def cross_fit(
    spec: Specification, fit: pd.DataFrame, kind: Kind = "trees", *, told: Told | None = None
) -> CrossFit:
    """Both kinds of model, fitted without one fold of patients each.

    Raises TrainingRefused where a fold, or what is left without it, has no event or nothing else.
    """
    words = spec.manifest.training
    folds = folds_of(fit["patient"], words)
    for fold in range(words.folds):
        _require_both(fit, folds == fold, f"fold {fold + 1} of {words.folds}")
    if kind == "logistic":
        rounds, margins = 0, _logistic_margins(spec, fit, folds)
    else:
        rounds, margins = _tree_margins(spec, fit, folds, told)
    return CrossFit(rounds, margins, log_loss(margins, events_of(fit)))


def _require_both(fit: pd.DataFrame, out: NDArray[np.bool_], fold: str) -> None:
    for part in (fit[~out], fit[out]):
        if part["event"].nunique() < 2:
            raise TrainingRefused(
                f"{fold} has no events, or nothing else: "
                f"{int(fit['event'].sum())} events in {len(fit)} rows are too few"
            )


def _tree_margins(
    spec: Specification, fit: pd.DataFrame, folds: NDArray[np.int64], told: Told | None
) -> tuple[int, Floats]:
    """The rounds that predict best for patients not fitted on, and each row's margin then.

    The log loss is averaged over folds, round by round, as far as every fold went.
    """
    words = spec.manifest.training
    fits = [
        boost(spec, fit[folds != f], rounds=words.rounds, outside=fit[folds == f], told=told)
        for f in range(words.folds)
    ]
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


def _logistic_margins(spec: Specification, fit: pd.DataFrame, folds: NDArray[np.int64]) -> Floats:
    margins = np.empty(len(fit))
    for fold in range(spec.manifest.training.folds):
        model = fit_logistic(spec, fit[folds != fold], signed=True)
        margins[folds == fold] = margins_of(model, matrix_of(spec, fit[folds == fold]))
    return margins


def log_loss(margins: Floats, events: Floats) -> float:
    """The mean of -log of the probability given to what came, of margins and 0/1 outcomes; 0 is
    perfect (Good, J R Stat Soc B 1952;14:107-114)."""
    risks = np.clip(sigmoid(margins), SURE, 1.0 - SURE)
    return float(-np.log(np.where(events == 1.0, risks, 1.0 - risks)).mean())


def platt(margins: Floats, events: Floats) -> tuple[float, float]:
    """Slope and intercept of the observed log-odds on the margin (Platt 1999), unpenalised."""
    fitted = LogisticRegression(C=1e9, max_iter=1000).fit(margins[:, None], events)
    return float(fitted.coef_[0][0]), float(fitted.intercept_[0])


# ---- trees ----------------------------------------------------------------------------------


class Told(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Tells the rounds of `fits` fits as one count; a fit that stops early counts as done."""

    def __init__(self, progress: Callable[[int, int], None], *, rounds: int, fits: int) -> None:
        self.progress = progress
        self.rounds = rounds
        self.total = fits * rounds
        self.before = 0

    def after_iteration(self, model: object, epoch: int, evals_log: object) -> bool:  # noqa: ARG002
        self.progress(self.before + epoch + 1, self.total)
        return False

    def after_training(self, model: Any) -> Any:
        self.reach(self.before // self.rounds + 1)
        return model

    def reach(self, fits: int) -> None:
        """So many fits are done, whether made now or kept from before."""
        self.before = fits * self.rounds
        self.progress(self.before, self.total)


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
    told: Told | None = None,
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


# ---- a logistic model -----------------------------------------------------------------------


def fit_logistic(spec: Specification, fit: pd.DataFrame, *, signed: bool = False) -> Logistic:
    """A penalised logistic model of some rows, on standardised columns, the missing at the median.

    `signed`: keep to the signs the manifest gives, as the trees do: a column whose weight has the
    other sign gets the weight 0, and the rest is fitted again, until none is left.
    """
    rows, events = matrix_of(spec, fit), events_of(fit)
    median = _medians(rows)
    filled = np.where(np.isnan(rows), median, rows)
    mean, sd = filled.mean(axis=0), filled.std(axis=0)
    sd = np.where(sd == 0.0, 1.0, sd)
    signs = np.array([f.monotone if signed else 0 for f in spec.manifest.inputs])
    weight, intercept = _signed_weights((filled - mean) / sd, events, signs)
    return Logistic(
        columns=spec.columns,
        median=median.tolist(),
        mean=mean.tolist(),
        sd=sd.tolist(),
        weight=weight.tolist(),
        intercept=intercept,
    )


def _medians(rows: Floats) -> Floats:
    """The median of each column's known values; 0 for a column without any."""
    known = ~np.isnan(rows)
    return np.array(
        [
            np.median(column[there]) if there.any() else 0.0
            for column, there in zip(rows.T, known.T, strict=True)
        ]
    )


def _signed_weights(
    scaled: Floats, events: Floats, signs: NDArray[np.int64]
) -> tuple[Floats, float]:
    """Weights none of which has the sign its column must not have, and the intercept."""
    weight = np.zeros(scaled.shape[1])
    used = np.ones(scaled.shape[1], dtype=bool)
    while used.any():
        fitted = LogisticRegression(C=BASELINE_C, max_iter=1000).fit(scaled[:, used], events)
        weight[:] = 0.0
        weight[used] = fitted.coef_[0]
        wrong = weight * signs < 0
        if not wrong.any():
            return weight, float(fitted.intercept_[0])
        used &= ~wrong
    share = float(events.mean())
    return weight, float(np.log(share / (1.0 - share)))


def fold_platt_logistic(model: Logistic, slope: float, intercept: float) -> Logistic:
    """The model whose margin is slope x the old one + intercept; ValueError for a slope that would
    turn it round."""
    if slope <= 0:
        raise ValueError("a calibration slope at or below 0 turns the model round")
    return Logistic(
        columns=model.columns,
        median=model.median,
        mean=model.mean,
        sd=model.sd,
        weight=[slope * weight for weight in model.weight],
        intercept=slope * model.intercept + intercept,
    )


def margins_of(model: xgb.Booster | Logistic, rows: Floats) -> Floats:
    """The log-odds a model gives some rows, (n, columns) -> (n,)."""
    if isinstance(model, Logistic):
        return np.asarray(model.terms(rows).sum(axis=1) + model.intercept, dtype=np.float64)
    return np.asarray(model.inplace_predict(rows, predict_type="margin"), dtype=np.float64)


def risks_of(model: xgb.Booster | Logistic, rows: Floats) -> Floats:
    """The risk a model gives some rows, 0 to 1, (n, columns) -> (n,)."""
    if isinstance(model, Logistic):
        return model.risk(rows)
    return np.asarray(model.inplace_predict(rows), dtype=np.float64)
