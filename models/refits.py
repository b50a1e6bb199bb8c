"""Refits of a trained head on other patients: would more data help, and how sure is the model?

Lives here: the risks refits give the test part, after fitting on a share of the patients (learning
curve), on bootstrap samples of them (uncertainty), and the ranking learned from outcomes dealt at
random. Does not live here: figures with intervals (`validation`), the table that is served
(`models/uncertainty.py`). Called by a training run; a refit has the rounds and the calibration of
the head, so that patients are all that differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from models.engines import xgboost as xgb
from models.fitting import (
    Floats,
    Kind,
    boost,
    cross_fit,
    events_of,
    fit_logistic,
    folds_of,
    margins_of,
    matrix_of,
)
from models.logistic import Logistic
from models.package import Specification
from models.training import Trained
from models.tuning import with_training
from models.uncertainty import REFITS

LEARNING_SHARES = (0.10, 0.25, 0.50)
"""Shares of the fitted patients a learning curve is drawn through; the head itself is the last."""
STEPS = len(LEARNING_SHARES) + REFITS
"""Fits that `refit` tells of."""
SHUFFLED_EVENTS, MOST_SHUFFLES, MOST_SHUFFLED_ROWS = 1_000, 10, 200_000
"""Outcomes are dealt anew until so many events were dealt, at most so often, and only as often as
so many rows in all allow: docs/training.md has what several shuffles are good for."""


class Learned(msgspec.Struct, frozen=True):
    """What was learned from a share of the patients: its size, and the risks of the test part.

    `risks` is empty where nobody in the share had the outcome, or everybody.
    """

    share: float
    patients: int
    rows: int
    events: int
    risks: list[float]


class Refits(msgspec.Struct, frozen=True):
    """A head's refits: the learning curve, and the risks of the test part after each bootstrap
    sample, a list per sample."""

    learning: list[Learned]
    bootstrap: list[list[float]]


def refit(
    spec: Specification, trained: Trained, progress: Callable[[int, int], None] | None = None
) -> Refits:
    """The refits of a trained head; `progress` is told fits done and fits to do.

    The same cohort and seed give the same refits.
    """
    learning: list[Learned] = []
    bootstrap: list[list[float]] = []
    for rows in shares_of(trained.split.fit, spec.manifest.training.seed):
        learning.append(_learn(spec, trained, *rows))
        if progress:
            progress(len(learning), STEPS)
    for sample in bootstrap_samples(trained.split.fit, spec.manifest.training.seed):
        bootstrap.append(_risks(spec, trained, sample).tolist())
        if progress:
            progress(len(learning) + len(bootstrap), STEPS)
    return Refits(learning, bootstrap)


def shares_of(fit: pd.DataFrame, seed: int) -> Iterator[tuple[float, pd.DataFrame]]:
    """The rows of 10, 25 and 50 % of the patients at random; a smaller share is in the larger."""
    patients = np.random.default_rng(seed).permutation(np.unique(fit["patient"].to_numpy(str)))
    for share in LEARNING_SHARES:
        kept = set(patients[: max(1, round(share * len(patients)))])
        yield share, fit[fit["patient"].isin(kept)]


def bootstrap_samples(fit: pd.DataFrame, seed: int) -> Iterator[pd.DataFrame]:
    """Ten samples of as many patients as there are, with replacement, each with all their rows.

    A sample without the outcome, or with nothing else, is drawn again.
    """
    draw = np.random.default_rng(seed)
    ordered = fit.sort_values(["patient", "index_time"], kind="stable")
    codes, known = pd.factorize(ordered["patient"])
    for _ in range(REFITS):
        sample = ordered.iloc[:0]
        while sample["event"].nunique() < 2:
            times = np.bincount(draw.integers(0, len(known), len(known)), minlength=len(known))
            sample = ordered.iloc[np.repeat(np.arange(len(ordered)), times[codes])]
        yield sample


class Shuffled(msgspec.Struct, frozen=True):
    """How well outcomes dealt at random were ranked: the mean AUROC of so many shuffles."""

    auroc: float
    shuffles: int


def shuffles_of(rows: int, events: int) -> int:
    """How often the outcomes of a cohort are dealt anew: fewer events, more often; many rows,
    less often, down to once."""
    wanted = min(MOST_SHUFFLES, math.ceil(SHUFFLED_EVENTS / max(1, events)))
    return max(1, min(wanted, MOST_SHUFFLED_ROWS // max(1, rows)))


def shuffled_auroc(spec: Specification, fit: pd.DataFrame, kind: Kind = "trees") -> Shuffled:
    """How well patients not fitted on are ranked after learning from outcomes dealt at random.

    The mean over shuffles and folds of the AUROC within each fold: 0.5 unless rows of one patient,
    or the outcome, reached a model that should not see them. Outcomes are dealt within folds, so
    that each keeps its number; ranks are compared within folds, because a fold with more events
    leaves the others with fewer, which by itself ranks the wrong way round.
    """
    words = spec.manifest.training
    draw = np.random.default_rng(words.seed)
    shuffles = shuffles_of(len(fit), int(fit["event"].sum()))
    folds = folds_of(fit["patient"], words)
    inside = [folds == fold for fold in range(words.folds)]
    dealt = events_of(fit)
    areas: list[float] = []
    for _ in range(shuffles):
        for where in inside:
            dealt[where] = draw.permutation(dealt[where])
        margins = cross_fit(spec, fit.assign(event=dealt.astype(int)), kind).margins
        areas += [float(roc_auc_score(dealt[where], margins[where])) for where in inside]
    return Shuffled(float(np.mean(areas)), shuffles)


def _learn(spec: Specification, trained: Trained, share: float, rows: pd.DataFrame) -> Learned:
    both = rows["event"].nunique() == 2
    return Learned(
        share=share,
        patients=int(rows["patient"].nunique()),
        rows=len(rows),
        events=int(rows["event"].sum()),
        risks=_risks(spec, trained, rows).tolist() if both else [],
    )


def _risks(spec: Specification, trained: Trained, rows: pd.DataFrame) -> Floats:
    """The risks of the test part after fitting on other rows, by settings and calibration of the
    head."""
    chosen = with_training(spec, trained.training)
    if trained.kind == "logistic":
        model: xgb.Booster | Logistic = fit_logistic(chosen, rows, signed=True)
    else:
        model = boost(chosen, rows, rounds=trained.rounds).booster
    slope, intercept = trained.platt
    margins = slope * margins_of(model, matrix_of(spec, trained.split.test)) + intercept
    risks: Floats = 1.0 / (1.0 + np.exp(-margins))
    return risks
