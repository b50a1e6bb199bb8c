"""The penalised logistic baseline, as plain numbers in a JSON file.

Missing values take the training median. It stands beside the boosted trees so that a reader can
see what the trees add; it is never shown as the risk.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray


class Logistic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Coefficients on standardised features: per column the median (for missing values), the mean
    and the standard deviation of training, and the weight."""

    columns: list[str]
    median: list[float]
    mean: list[float]
    sd: list[float]
    weight: list[float]
    intercept: float

    def risk(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The risk of each row, (n, columns) -> (n,), 0 to 1."""
        filled = np.where(np.isnan(rows), np.asarray(self.median), rows)
        scaled = (filled - np.asarray(self.mean)) / np.asarray(self.sd)
        margin = scaled @ np.asarray(self.weight) + self.intercept
        risks: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-margin))
        return risks

    def risk_of(self, row: list[float]) -> float:
        """The risk of one row, without the cost of arrays."""
        margin = self.intercept
        for value, median, mean, sd, weight in zip(
            row, self.median, self.mean, self.sd, self.weight, strict=True
        ):
            known = median if math.isnan(value) else value
            margin += weight * (known - mean) / sd
        return 1.0 / (1.0 + math.exp(-margin))


def read_logistic(path: Path) -> Logistic:
    """The baseline a file holds; msgspec.ValidationError names the field that is wrong."""
    return msgspec.json.decode(path.read_bytes(), type=Logistic)
