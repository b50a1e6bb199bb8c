"""Whether a synthetic copy is like the patients, and not too like one of them. Pure.

Usefulness: how each column and each pair of columns compares, and whether a simple model that
learnt from the copy finds the same patients as one that learnt from patients. Closeness: exact
copies, and whether the copy lies nearer to the patients it was made from than to others it never
saw. The log holds no outcomes: what is to be found is a risk at or above the model's threshold.
Called by `varsel export --synthetic`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from validation.errors import ValidationError

CLOSER_AT_MOST = 0.6
"""The share of synthetic rows nearer to the patients behind them than to others that never refuses,
however sure it is. Chance gives 0.5; a model that learnt how common things are in one half, and no
patient, comes to a little more (docs/export.md has figures)."""
SHUFFLES, SURE = 500, 0.99
"""How often the halves are dealt anew to see what chance reaches, and what share of those counts:
a few patients can be the nearest of many rows, and which half they fell in is chance."""
FEWEST_PATIENTS = 100
"""Patients in each half, at least: fewer say nothing about either question."""
MOST_COMPARED = 3000
CAVEAT = (
    "A synthetic copy is not anonymous by itself: it was drawn from a model of these patients, and "
    "the figures here test for rows that came too near, not for everything a model may tell. It "
    "tells of relations between columns only what pairs of columns show; do not validate a model "
    "for patients on it."
)
Floats = NDArray[np.float64]


class Halves(NamedTuple):
    """Rows of patients: those the copy is made from, and others it never saw."""

    made_from: pd.DataFrame
    unseen: pd.DataFrame


def halves(rows: pd.DataFrame, patients: pd.Series, *, seed: int) -> Halves:
    """The rows split by patient, half and half. Raises ValidationError where they are too few."""
    names = patients.unique()  # in the order of the rows: codes of an export are random
    chosen = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
    unseen = patients.isin(chosen)
    if len(chosen) < FEWEST_PATIENTS:
        raise ValidationError(
            f"{len(names)} patients; a synthetic copy takes at least {2 * FEWEST_PATIENTS}"
        )
    return Halves(rows[~unseen], rows[unseen])


def judged(
    copy: pd.DataFrame, real: Halves, *, features: Sequence[str], thresholds: dict[str, float]
) -> dict[str, Any]:
    """The report of a copy: whether it may leave (`passed`, `refused`), how close it comes, and how
    useful it is. `thresholds`: by risk column, from where on the served model shows a card."""
    found = closeness(copy, real)
    refused = too_close(found)
    return {
        "passed": not refused,
        "refused": refused,
        "rows": {"synthetic": len(copy), "made_from": len(real.made_from)},
        "closeness": found,
        **usefulness(copy, real, features=features, thresholds=thresholds),
        "caveat": CAVEAT,
    }


# ---- closeness ------------------------------------------------------------------------------


def closeness(copy: pd.DataFrame, real: Halves) -> dict[str, Any]:
    """How near the copy is to the patients it was made from, and to as many it never saw.

    Distances are Euclidean over columns in standard deviations; where a value is missing its column
    counts as the mean, and that it is missing counts too. `reached_by_chance`: what the share is
    below in 99 of 100 deals of the same patients into halves. `nearest_*`: the 5th percentile and
    the median of the distance to the nearest; `ratio_*`: the median of nearest to second nearest,
    near 0 where a row stands by one patient alone.
    """
    scale = _Scale(real.made_from)
    size = min(len(real.made_from), len(real.unseen), MOST_COMPARED)
    rows, near, far = scale(copy), *(scale(_some(half, size)) for half in real)
    seen, unseen = _nearest(rows, near), _nearest(rows, far)
    share, by_chance = _share_closer(rows, near, far)
    return {
        "exact_copies": exact_copies(copy, real.made_from),
        "share_closer_to_made_from": share,
        "reached_by_chance": by_chance,
        "nearest_made_from": _quantiles(seen[:, 0]),
        "nearest_unseen": _quantiles(unseen[:, 0]),
        "ratio_made_from": _median_ratio(seen),
        "ratio_unseen": _median_ratio(unseen),
    }


def _share_closer(rows: Floats, near: Floats, far: Floats) -> tuple[float, float]:
    """The share of rows whose nearest patient is of the first half; what chance reaches of it."""
    from sklearn.neighbors import NearestNeighbors  # heavy, of an extra

    draw = np.random.default_rng(0)
    deal = draw.permutation(len(near) + len(far))  # of patients as near, none comes first
    found = NearestNeighbors(n_neighbors=1).fit(np.vstack([near, far])[deal]).kneighbors(rows)
    nearest, is_near = found[1][:, 0], deal < len(near)
    chance = [draw.permutation(is_near)[nearest].mean() for _ in range(SHUFFLES)]
    return float(is_near[nearest].mean()), float(np.quantile(chance, SURE))


def exact_copies(copy: pd.DataFrame, rows: pd.DataFrame) -> int:
    """Rows of the copy that equal a patient's in every column, to two decimals; missing equals
    missing."""
    known = set(_as_tuples(rows))
    return sum(row in known for row in _as_tuples(copy[rows.columns]))


def _as_tuples(rows: pd.DataFrame) -> list[tuple[float, ...]]:
    return [tuple(row) for row in rows.round(2).fillna(np.inf).to_numpy().tolist()]


def too_close(found: dict[str, Any]) -> list[str]:
    """Why a copy may not leave, by its closeness; empty where it may."""
    reasons = []
    if found["exact_copies"]:
        reasons.append(f"{found['exact_copies']} rows equal a patient's in every column")
    share, most = found["share_closer_to_made_from"], found["reached_by_chance"]
    if share > max(most, CLOSER_AT_MOST):
        reasons.append(
            f"{share:.1%} of the rows are nearer to a patient they were made from than to one "
            f"unseen; chance reaches {most:.1%}"
        )
    return reasons


class _Scale:
    """Columns in standard deviations of some rows, and whether each is missing."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self._mean = rows.mean().fillna(0.0)
        spread = rows.std().fillna(0.0)
        self._spread = spread.where(spread > 0, 1.0)

    def __call__(self, rows: pd.DataFrame) -> Floats:
        values = ((rows - self._mean) / self._spread).fillna(0.0)
        return np.hstack([values.to_numpy(), rows.isna().to_numpy(dtype=np.float64)])


def _nearest(rows: Floats, among: Floats) -> Floats:
    """The distances of each row to its nearest and second nearest."""
    from sklearn.neighbors import NearestNeighbors  # heavy, of an extra

    found, _ = NearestNeighbors(n_neighbors=2).fit(among).kneighbors(rows)
    return np.asarray(found, dtype=np.float64)


def _some(rows: pd.DataFrame, size: int) -> pd.DataFrame:
    """So many rows, evenly spread over those there are."""
    return rows.iloc[np.linspace(0, len(rows) - 1, size).astype(int)]


def _quantiles(distances: Floats) -> list[float]:
    return [float(np.quantile(distances, q)) for q in (0.05, 0.5)]


def _median_ratio(distances: Floats) -> float:
    return float(np.median(distances[:, 0] / np.maximum(distances[:, 1], 1e-12)))


# ---- usefulness -----------------------------------------------------------------------------


def usefulness(
    copy: pd.DataFrame, real: Halves, *, features: Sequence[str], thresholds: dict[str, float]
) -> dict[str, Any]:
    """How the copy compares with the patients: columns, pairs of columns, and what a model learns.

    `thresholds`: by risk column, from where on the served model shows a card.
    """
    rows = real.made_from
    pairs = np.abs(_pairs(copy) - _pairs(rows))
    return {
        "columns": [_compared(str(name), rows[name], copy[name]) for name in rows],
        "correlations": {
            "mean_difference": float(np.nanmean(pairs)) if pairs.size else 0.0,
            "largest_difference": float(np.nanmax(pairs)) if pairs.size else 0.0,
        },
        "found_again": [
            _found_again(copy, real, features, name, at) for name, at in thresholds.items()
        ],
    }


def _compared(name: str, real: pd.Series, made: pd.Series) -> dict[str, Any]:
    """Means, shares missing, and the largest difference between the cumulative distributions."""
    return {
        "column": name,
        "mean_real": _mean(real),
        "mean_synthetic": _mean(made),
        "missing_real": float(real.isna().mean()),
        "missing_synthetic": float(made.isna().mean()),
        "largest_difference": _apart(real.dropna().to_numpy(), made.dropna().to_numpy()),
    }


def _mean(column: pd.Series) -> float | None:
    return float(column.mean()) if column.notna().any() else None


def _apart(one: Floats, other: Floats) -> float | None:
    """The Kolmogorov-Smirnov distance of two samples, 0 to 1; None where one is empty."""
    if not (len(one) and len(other)):
        return None
    at = np.unique(np.concatenate([one, other]))
    below = [np.searchsorted(np.sort(values), at, "right") / len(values) for values in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


def _pairs(rows: pd.DataFrame) -> Floats:
    """Spearman's correlation of each pair of columns; NaN where one does not move."""
    upper = np.triu_indices(rows.shape[1], 1)
    return np.asarray(rows.corr("spearman").to_numpy()[upper], dtype=np.float64)


def _found_again(
    copy: pd.DataFrame, real: Halves, features: Sequence[str], risk: str, threshold: float
) -> dict[str, Any]:
    """The AUROC, in patients neither saw, of a logistic model that learnt from the copy and of one
    that learnt from patients; None where either saw, or is to find, one kind alone."""
    used = [name for name in features if real.made_from[name].notna().any()]
    learnt = {
        "learnt_from_synthetic": _auroc(copy, real.unseen, used, risk, threshold),
        "learnt_from_real": _auroc(real.made_from, real.unseen, used, risk, threshold),
    }
    return {"risk": risk, "threshold": threshold, **learnt}


def _auroc(
    learn: pd.DataFrame, find: pd.DataFrame, used: Sequence[str], risk: str, threshold: float
) -> float | None:
    from sklearn.impute import SimpleImputer  # heavy, of an extra
    from sklearn.linear_model import LogisticRegression  # as above
    from sklearn.metrics import roc_auc_score  # as above
    from sklearn.pipeline import make_pipeline  # as above
    from sklearn.preprocessing import StandardScaler  # as above

    known, asked = learn[risk] >= threshold, find[risk] >= threshold
    if known.nunique() < 2 or asked.nunique() < 2:
        return None
    model = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(max_iter=1000),
    )
    model.fit(learn[used].to_numpy(), known.to_numpy())
    return float(roc_auc_score(asked, model.predict_proba(find[used].to_numpy())[:, 1]))
