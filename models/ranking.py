"""A booster of several classes as served: their probabilities, and what speaks for the first.

Probabilities of several classes do not share out among features so that every class adds up, so no
points are given. What is explained is in log-odds: a class's margin less the mean margin of all
classes, because margins alone mean nothing (adding the same to all of them changes no probability).
Its Shapley values against the background are exact (shap's interventional TreeExplainer); they say
which way a feature weighs and which weighs more. Words are made of them, never sums.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.boosters import read_servable
from models.engines import tree_explainer
from models.engines import xgboost as xgb

Matrix = NDArray[np.float64]
EXPLAINS_WITHIN = 1e-4
"""How far the explainer's margins may lie from the booster's own, but for one number a class."""
NOTABLE = 0.05
"""Log-odds from which a category is named: below, it moves the odds of the class against all others
by less than a tenth (two classes) to a twentieth (many)."""


class Ranked:
    """One ranking's booster with its explainer."""

    def __init__(self, booster: xgb.Booster, background: Matrix) -> None:
        """Take a booster of several classes, and a background (rows, columns), NaN missing.

        Raises ValueError where the explainer reads other trees than the booster predicts with.
        """
        booster.set_param({"nthread": 1})
        background = background.astype(np.float32).astype(np.float64)
        self.booster = booster
        self._explainer = tree_explainer()(
            booster, data=background, feature_perturbation="interventional", model_output="raw"
        )
        # The explainer knows no base score for each class; differences between rows it gets right.
        apart = self._explainer.model.predict(background) - self._margins(background)
        off = float(np.abs(apart - apart[:1]).max())
        if not off <= EXPLAINS_WITHIN:
            raise ValueError(f"trees: explained {off:.1e} away from what they predict")

    @classmethod
    def load(cls, path: Path, background: Matrix, columns: list[str], *, classes: int) -> Ranked:
        """Read a booster file; ValueError where it cannot be served, or is of other columns."""
        return cls(read_servable(path, columns, classes=classes), background)

    def probabilities(self, rows: Matrix) -> Matrix:
        """The probability of each class, (n, columns) -> (n, classes); each row sums to 1."""
        return np.asarray(self.booster.inplace_predict(rows), dtype=np.float64)

    def weights(self, rows: Matrix) -> Matrix:
        """How each feature weighs for each class, in log-odds, (n, columns, classes).

        Shapley values of a class's margin less the mean margin; over the classes they sum to 0.
        """
        seen = rows.astype(np.float32).astype(np.float64)  # as the booster sees them
        values = np.asarray(self._explainer.shap_values(seen, check_additivity=False))
        return np.asarray(values - values.mean(axis=2, keepdims=True), dtype=np.float64)

    def _margins(self, rows: Matrix) -> Matrix:
        return np.asarray(self.booster.inplace_predict(rows, predict_type="margin"))
