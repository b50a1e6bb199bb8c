"""A logistic model as served: its risk, and the explanation by the definition that holds for trees.

Against each background row b the Shapley values of the margin are exact, since the margin is a sum:
weight x (value - b) / sd, a missing value counting as the training median. They are rescaled to
probability per background row and averaged (docs/explanation.md). So the points of a logistic head
and of a tree head mean the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.logistic import Logistic, read_logistic_of, sigmoid

Matrix = NDArray[np.float64]
NEARLY_EQUAL = 1e-6
"""Margins (log-odds) closer than this: the rescaling takes its limit there, the slope p(1 - p),
because the quotient of two differences would be of rounding errors."""


class Linear:
    """One head's logistic model with its background."""

    def __init__(self, logistic: Logistic, background: Matrix) -> None:
        """Take a model, and a background of shape (rows, columns), NaN missing."""
        self.logistic = logistic
        self._terms = logistic.terms(background)
        self._margins = self._terms.sum(axis=1) + logistic.intercept
        self._risks = sigmoid(self._margins)
        self.reference_risk = float(self._risks.mean())

    @classmethod
    def load(cls, path: Path, background: Matrix, columns: list[str]) -> Linear:
        """Read a file of coefficients; ValueError where it is not one of these columns."""
        return cls(read_logistic_of(path, columns), background)

    def risk(self, rows: Matrix) -> Matrix:
        """The risk of each row, (n, columns) -> (n,), 0 to 1."""
        return self.logistic.risk(rows)

    def points(self, rows: Matrix) -> Matrix:
        """Percentage points per feature, (n, columns); each row sums to 100 (risk - reference)."""
        return np.array([self._points_of(terms) for terms in self.logistic.terms(rows)])

    def _points_of(self, terms: Matrix) -> Matrix:
        margin = terms.sum() + self.logistic.intercept
        risk = float(sigmoid(margin))
        apart = margin - self._margins
        near = np.abs(apart) < NEARLY_EQUAL
        quotient = (risk - self._risks) / np.where(near, 1.0, apart)
        factor = np.where(near, risk * (1.0 - risk), quotient)
        shares = (terms - self._terms) * factor[:, None]
        return np.asarray(100.0 * shares.mean(axis=0), dtype=np.float64)
