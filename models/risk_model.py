"""What scoring asks of a head's model, whatever kind it is.

`models/trees.py` (boosted trees) and `models/linear.py` (a logistic model) answer it; who scores,
replays an example or explains does not ask which of the two it has.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class RiskModel(Protocol):
    """A risk, and the percentage points that explain it against a background."""

    @property
    def reference_risk(self) -> float:
        """The mean risk of the background, 0 to 1."""

    def risk(self, rows: Floats) -> Floats:
        """The risk of each row, (n, columns) -> (n,), 0 to 1; NaN is a missing value."""

    def points(self, rows: Floats) -> Floats:
        """Percentage points per feature, (n, columns); each row sums to 100 (risk - reference)."""
