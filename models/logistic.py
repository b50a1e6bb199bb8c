"""A logistic model, as plain numbers in a JSON file.

Missing values take the training median. As `baseline.json` it stands beside boosted trees, so that
a reader can see what the trees add, and is never shown as the risk. As `logistic.json` it is the
head itself (`models/linear.py` explains it).
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

_FARTHEST = -700.0
"""Log-odds below which e to their negative is no number any more."""


class Logistic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Coefficients on standardised features: per column the median (for missing values), the mean
    and the standard deviation of training, and the weight."""

    columns: list[str]
    median: list[float]
    mean: list[float]
    sd: list[float]
    weight: list[float]
    intercept: float

    def terms(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each column adds to the log-odds, (n, columns) -> (n, columns)."""
        filled = np.where(np.isnan(rows), np.asarray(self.median), rows)
        scaled = (filled - np.asarray(self.mean)) / np.asarray(self.sd)
        return np.asarray(scaled * np.asarray(self.weight), dtype=np.float64)

    def risk(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The risk of each row, (n, columns) -> (n,), 0 to 1."""
        return sigmoid(self.terms(rows).sum(axis=1) + self.intercept)

    def risk_of(self, row: list[float]) -> float:
        """The risk of one row, without the cost of arrays."""
        margin = self.intercept
        for value, median, mean, sd, weight in zip(
            row, self.median, self.mean, self.sd, self.weight, strict=True
        ):
            known = median if math.isnan(value) else value
            margin += weight * (known - mean) / sd
        if margin < _FARTHEST:  # a value nobody has makes a risk of nothing, and no overflow
            return math.exp(margin)
        return 1.0 / (1.0 + math.exp(-margin))


def sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of log-odds, without overflow."""
    small = np.exp(-np.abs(log_odds))
    return np.asarray(np.where(log_odds >= 0, 1.0, small) / (1.0 + small), dtype=np.float64)


def read_logistic(path: Path) -> Logistic:
    """The logistic model a file holds; msgspec.ValidationError names the field that is wrong."""
    return msgspec.json.decode(path.read_bytes(), type=Logistic)


def read_logistic_of(path: Path, columns: list[str]) -> Logistic:
    """The logistic model of these columns a file holds; ValueError names the field at fault."""
    model = read_logistic(path)
    if model.columns != columns:
        raise ValueError("columns: its columns are not the manifest's")
    for field in ("median", "mean", "sd", "weight"):
        if len(getattr(model, field)) != len(columns):
            raise ValueError(f"{field}: not one number for each column")
    if not all(sd > 0.0 for sd in model.sd):
        raise ValueError("sd: every standard deviation must be above 0")
    return model
