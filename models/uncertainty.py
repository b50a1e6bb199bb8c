"""Model uncertainty: how far apart models fitted on other samples of patients would put a risk.

Lives here: a head's table of it (`heads/<head>/uncertainty.csv`: risk, low, high), made from the
risks of refits, checked at admission, interpolated when serving. Does not live here: the refits
(`models/refits.py`), reading the file (`models/package.py`). It is a property of the model, never
the range of a patient's outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

REFITS = 10
SHARE = 0.8
METHOD = f"refits, {REFITS} bootstrap samples of patients, {SHARE:.0%}".replace("%", " %")
COLUMNS = ["risk", "low", "high"]
GROUPS = (*np.linspace(0.0, 0.9, 10).tolist(), 0.95, 1.0)
"""The tenths of risk a table has a row of, the highest tenth halved: alerts come from there."""
NEAREST = 1e-12
"""Log-odds are taken of risks at least so far from 0 and from 1."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Log-odds of some risks, rising, and how far below and above them the refits lie there."""

    log_odds: Floats
    below: Floats
    above: Floats

    def interval_at(self, risk: float) -> tuple[float, float]:
        """Where 80 % of refits put patients of this risk, 0 to 1; the risk lies within.

        Distances in log-odds are interpolated; beyond the first and last row theirs hold on.
        """
        at = float(_log_odds(risk))
        low = _risk(at - float(np.interp(at, self.log_odds, self.below)))
        high = _risk(at + float(np.interp(at, self.log_odds, self.above)))
        return min(low, risk), max(high, risk)


def uncertainty_of(names: list[str], table: Floats) -> Uncertainty:
    """The uncertainty a table says, (rows, 3): risk, low, high.

    ValueError where its columns are others, where risks do not rise, or where not
    0 < low <= risk <= high < 1.
    """
    if names != COLUMNS:
        raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
    risk, low, high = table.T
    if not (np.diff(risk) > 0).all():
        raise ValueError("its risks do not rise")
    if not ((low > 0) & (low <= risk) & (risk <= high) & (high < 1)).all():
        raise ValueError("not 0 < low <= risk <= high < 1 in every row")
    at = _log_odds(risk)
    return Uncertainty(at, at - _log_odds(low), _log_odds(high) - at)


def uncertainty_table(risks: Floats, refits: Floats) -> Floats:
    """One row per tenth of risk: the mean risk, and the mean 80 % range of what refits gave.

    `risks` (n,) are those of the model served, `refits` (n, refits) those of its refits, on the
    same rows, none fitted on. A range that leaves out the risk itself is widened to it.
    """
    order = np.argsort(risks, kind="stable")
    lows, highs = np.quantile(refits, [(1 - SHARE) / 2, (1 + SHARE) / 2], axis=1)
    cuts = [round(share * len(order)) for share in GROUPS]
    rows: list[tuple[float, float, float]] = []
    for start, end in pairwise(cuts):
        group = order[start:end]
        if len(group) == 0:
            continue
        risk = float(risks[group].mean())
        if rows and risk <= rows[-1][0]:
            continue  # one risk for so many that it fills more than a tenth
        low, high = float(lows[group].mean()), float(highs[group].mean())
        rows.append((risk, min(low, risk), max(high, risk)))
    return np.array(rows, dtype=np.float64)


def _log_odds(risk: float | Floats) -> Floats:
    within = np.clip(risk, NEAREST, 1.0 - NEAREST)
    return np.asarray(np.log(within / (1.0 - within)), dtype=np.float64)


def _risk(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))
