"""Boosted trees as served: loading, the risk, and additive explanations in probability.

A booster's own output is the shown risk, because Platt calibration is folded into its leaves. The
explanation is shap's interventional TreeExplainer on the package's background sample with
probability output: the exact Shapley values of the margin, rescaled to probability per background
row ("additive TreeSHAP, rescaled to probability"). It sums to the risk less the background's mean
risk. It is not the Shapley value of the probability; docs/explanation.md reports how far apart
they are.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.boosters import read_servable
from models.engines import tree_explainer
from models.engines import xgboost as xgb

Matrix = NDArray[np.float64]
EXPLAINS_WITHIN = 1e-5
"""How far the explainer's reading of the trees may lie from the booster's own output."""


class Trees:
    """One head's booster with its explainer."""

    def __init__(self, booster: xgb.Booster, background: Matrix, columns: list[str]) -> None:
        """Take a booster of `columns`, and a background of shape (rows, columns), NaN missing.

        Raises ValueError where the explainer reads other trees than the booster predicts with.
        """
        booster.set_param({"nthread": 1})
        background = background.astype(np.float32).astype(np.float64)
        self.booster = booster
        self.columns = columns
        self._explainer = tree_explainer()(
            booster,
            data=background,
            feature_perturbation="interventional",
            model_output="probability",
        )
        self.reference_risk = float(self._explainer.expected_value)
        off = abs(self.reference_risk - float(self.risk(background).mean()))
        if not off <= EXPLAINS_WITHIN:
            raise ValueError(f"trees: explained {off:.1e} away from what they predict")

    @classmethod
    def load(cls, path: Path, background: Matrix, columns: list[str]) -> Trees:
        """Read a booster file; ValueError where it cannot be served, or is of other columns."""
        return cls(read_servable(path, columns), background, columns)

    def risk(self, rows: Matrix) -> NDArray[np.float64]:
        """The risk of each row, (n, columns) -> (n,), 0 to 1."""
        return np.asarray(self.booster.inplace_predict(rows), dtype=np.float64)

    def points(self, rows: Matrix) -> Matrix:
        """Percentage points per feature, (n, columns); each row sums to 100 (risk - reference)."""
        # The booster sees single precision; compared in double, a value equal to a split to seven
        # digits would fall on its other side, and the points would not add up.
        seen = rows.astype(np.float32).astype(np.float64)
        values = self._explainer.shap_values(seen, check_additivity=False)
        return 100.0 * np.asarray(values, dtype=np.float64)


def fold_platt(booster: xgb.Booster, slope: float, intercept: float) -> xgb.Booster:
    """A booster whose margin is slope x the old margin + intercept, trees and all.

    So the calibrated risk is the booster's own output, and explanations explain what is shown.
    The slope must be positive, or monotone constraints would turn round.
    """
    if slope <= 0:
        raise ValueError("a calibration slope at or below 0 turns the model round")
    model = json.loads(bytes(booster.save_raw("json")))
    learner = model["learner"]
    for tree in learner["gradient_booster"]["model"]["trees"]:
        for node, left in enumerate(tree["left_children"]):
            if left == -1:
                tree["split_conditions"][node] *= slope
                tree["base_weights"][node] *= slope
    param = learner["learner_model_param"]
    old = float(param["base_score"].strip("[]"))
    margin = slope * math.log(old / (1.0 - old)) + intercept
    new = 1.0 / (1.0 + math.exp(-margin))
    param["base_score"] = f"[{new:.9E}]" if param["base_score"].startswith("[") else f"{new:.9E}"
    folded = xgb.Booster()
    folded.load_model(bytearray(json.dumps(model), "utf-8"))
    return folded
